"""examples/service.py as a user starts it, and its page in a real headless Chromium."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from examples_loading import EXAMPLES, user_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def service():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "service.py"), "--emulator", "--port", str(port)]
    process = subprocess.Popen(command, env=user_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(120):
            with contextlib.suppress(OSError), urllib.request.urlopen(url):
                break
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        _, told = process.communicate(timeout=30)
        assert b"Traceback" not in told


@pytest.fixture
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium, or say where by CHROMIUM=")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def test_pictures_appear_and_a_reload_in_mid_flight_loses_none(service, chromium):
    page = chromium.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.goto(service)
    page.fill("[name=prompt]", "<script>alert(1)</script>")
    page.fill("[name=count]", "2")
    page.click("button")
    page.wait_for_function("document.querySelectorAll('figure').length === 2")
    loaded = "[...document.images].filter(image => image.complete && image.naturalWidth).length"
    page.wait_for_function(f"{loaded} === 2", timeout=60_000)
    assert page.locator("figcaption").first.inner_text() == "<script>alert(1)</script>"
    page.fill("[name=prompt]", "an owl")
    page.click("button")
    page.wait_for_timeout(2000)  # submitted, and under way
    page.reload()
    page.wait_for_function(f"{loaded} === 4", timeout=60_000)
    assert page.locator("figcaption", has_text="an owl").count() == 2
    assert wrong == []
