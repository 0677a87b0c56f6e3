"""What the tests of durable runs share."""

from __future__ import annotations

import json


def prompts(count, start=0):
    return [{"prompt": f"picture {number}"} for number in range(start, start + count)]


def images(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix in {".jpg", ".png", ".webp"})


def results(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
