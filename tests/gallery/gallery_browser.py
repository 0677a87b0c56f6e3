"""Headless Chromium, and galleries to open in it."""

from __future__ import annotations

import contextlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from gallery_folder import failed, line, picture, write
from PIL import Image

from wavespeed_qwen_async.bulk import gallery

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
NASTY = "<script>alert(1)</script>"


def make_gallery(*args, **options):
    """In a thread: playwright's loop runs in this one, and the package may not block a loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(gallery.make_gallery, *args, **options).result()


def chromium():
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium, or say where by CHROMIUM=")
    return found


@contextlib.contextmanager
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield started
        started.close()


class Opened:
    """A page, and all that went wrong on it."""

    def __init__(self, started, report, **options):
        self.context = started.new_context(**({"viewport": {"width": 1440, "height": 900}} | options))
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.page = self.context.new_page()
        self.wrong = []
        self.page.on("console", lambda message: self.wrong.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._requested)
        self.page.on("requestfailed", lambda request: self.wrong.append(f"failed {request.url}"))
        self.page.goto(report.path.as_uri())
        self.page.wait_for_selector(".tile img.there")

    def _requested(self, request):
        if not request.url.startswith("file:"):
            self.wrong.append(f"request {request.url}")

    def close(self):
        self.context.close()
        cancelled = [text for text in self.wrong if text.startswith("failed") and text.endswith((".jpg", ".png"))]
        assert [text for text in self.wrong if text not in cancelled] == []


def sunset(path, number, size=(256, 192)):
    gradient = Image.linear_gradient("L").resize(size)
    hue = Image.new("L", size, number * 37 % 256)
    Image.merge("HSV", (hue, gradient, Image.new("L", size, 220))).convert("RGB").save(path, quality=80)


def batch(folder):
    """200 jobs: 160 images, 32 edits, 8 failures."""
    lines = []
    for number in range(160):
        size = [(256, 192), (192, 256), (224, 224)][number % 3]
        sunset(folder / f"{number}.jpg", number, size)
        loras = [{"path": "owner/ink", "scale": 0.8}] if number % 4 == 0 else []
        loras += [{"path": "https://example.com/pixel%20art.safetensors", "scale": 0.5}] if number % 8 == 0 else []
        inputs = {"prompt": f'a red fox {number}, it\'s "ink" $HOME\n第二行', "seed": number % 10, "loras": loras}
        inputs |= {"size": f"{size[0]}*{size[1]}", "output_format": "png"}
        lines.append(line(number, file=f"{number}.jpg", inputs=inputs, price=0.02 + 0.01 * (number == 5)))
        lines[-1] |= {"created_at": f"2026-11-21T08:{number // 60 + 1:02}:{number % 60:02}+00:00"}
    source = picture(folder.parent / "source.png", "navy", (256, 192))
    for number in range(160, 192):
        picture(folder / f"{number}.png", "orange", (256, 192))
        inputs = {"prompt": "make it snow", "seed": number, "local_images": [str(source)]}
        lines.append(line(number, file=f"{number}.png", model="wavespeed-ai/qwen-image/edit-lora", inputs=inputs))
    for number in range(192, 200):
        told = failed(number, "moderated: <b>no</b>", inputs={"prompt": NASTY, "seed": number})
        if number == 193:
            why = f"prediction {told['prediction_id']} failed, code 5000: a long reason, " + "told at length, " * 9
            told["error"] = {"kind": "TaskInternalError", "message": why, "billed": "yes"}
        lines.append(told | ({"status": "unknown"} if number == 199 else {}))
    write(folder, lines)
    return make_gallery(folder, title="Foxes & friends")


def ten_thousand(folder):
    """As many entries, each with a file of its own, of the size that a thumbnail has."""
    for number in range(40):
        sunset(folder / f"kind-{number}.jpg", number, (480, 360))
    lines = []
    for number in range(10_000):
        os.link(folder / f"kind-{number % 40}.jpg", folder / f"{number}.jpg")
        inputs = {"prompt": f"a long prompt of an image, number {number}, " + "ink wash on paper, " * 8, "seed": number}
        lines.append(line(number, file=f"{number}.jpg", inputs=inputs))
    write(folder, lines)
    return make_gallery(folder, thumbs=False)
