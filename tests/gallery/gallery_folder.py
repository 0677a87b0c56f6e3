"""Folders as a batch leaves them."""

from __future__ import annotations

import json
import re

from PIL import Image


def picture(path, colour="orange", size=(64, 48)):
    Image.new("RGB", size, colour).save(path)
    return path


def line(index, **changed):
    """A line of results.jsonl, as bulk/_entry.py writes it."""
    told = {
        "index": index,
        "line": index + 1,
        "ok": True,
        "status": "saved",
        "file": f"{index}.png",
        "model": "wavespeed-ai/qwen-image/text-to-image-lora",
        "inputs": {"prompt": f"fox {index}", "seed": index, "loras": [{"path": "owner/ink", "scale": 0.8}]},
        "price": 0.025,
        "seconds": 7.5,
        "prediction_id": f"{index:032x}",
        "created_at": "2026-11-21T08:00:00+00:00",
        "job": index + 1,
    }
    return {**told, **changed}


def failed(index, message="refused by the moderation", **changed):
    error = {"kind": "ContentModerated", "message": message, "billed": "no"}
    return line(index, ok=False, status="failed", error=error, price=0.0, **changed) | {"file": None}


def write(folder, lines):
    text = "".join(json.dumps(told, ensure_ascii=False) + "\n" for told in lines)
    (folder / "results.jsonl").write_text(text, encoding="utf-8")


def data_of(page):
    """What a page's script is told."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])
