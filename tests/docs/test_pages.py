"""All code in the README and on the pages of docs/ runs, as it stands there and in its order, on the emulator."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pages import LANGUAGES, PAGES, ROOT, blocks_of, name_of
from PIL import Image

from wavespeed_qwen_async import QwenImageSession

# Their code runs in tests of their own.
ELSEWHERE = {
    "docs/ray.md": "tests/on_ray/test_ray_pipeline.py",
    "docs/testing.md": "tests/testing/test_testing_plugin.py",
}

# What a shell on a reader's machine has and the test's must not do again: the packages are installed, the key leads to
# the test's emulator, questions are answered, and an emulator is ended once it listens. The one inside a command takes
# 7 s an image; only the README's first commands use it, all others take the test's, which needs no time.
PRELUDE = """
set -euo pipefail
pip() { :; }
python3() { if [ "$1 $2" != "-m venv" ]; then command python3 "$@"; fi; }
wavespeed-qwen() {
    local given=() each
    for each in "$@"; do [ "$each$INSIDE" = --emulator ] || given+=("$each"); done
    case $1 in
    emulator)
        command wavespeed-qwen "$@" --port 0 > emulator.log & local emulator=$!
        until grep -q "listening on http" emulator.log; do kill -0 $emulator; sleep 0.1; done
        kill $emulator; wait $emulator ;;
    sweep) command wavespeed-qwen "${given[@]}" --yes ;;
    *) command wavespeed-qwen "${given[@]}" ;;
    esac
}
"""
NOT_HERE = re.compile(r"\. \.venv/bin/activate|^export WAVESPEED_(?:API_KEY|BASE_URL)=.*$", re.MULTILINE)

SHELL = {"sh", "bash"}


def pages_to_run():
    """Those with code; what starts processes takes a while and is left to `nox -s docs`."""
    for page in PAGES:
        languages = {block.language for block in blocks_of(page) if not block.mark}
        if name_of(page) not in ELSEWHERE and languages & {"python", *SHELL}:
            yield pytest.param(page, id=name_of(page), marks=[pytest.mark.commands] if languages & SHELL else [])


@pytest.mark.timeout(300)  # a page of commands starts many processes
@pytest.mark.parametrize("page", list(pages_to_run()))
def test_code_of_the_page_runs(page, wavespeed_emulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", "examples")
    shutil.copytree(ROOT / "examples", ".", dirs_exist_ok=True)
    for block in blocks_of(page):
        where = f"{block.page}:{block.line}"
        if block.mark:
            continue
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.code)
        elif block.language == "python":
            for name in ("fox.jpg", "photo.jpg"):
                if not Path(name).exists():
                    Image.new("RGB", (64, 64), "orange").save(name)
            run_python(block.code, where)
        elif block.language in SHELL:
            run_shell(block.code, where)


def run_python(code: str, where: str) -> None:
    """Run a block; one may await at its top level, as in a notebook, and `session` is open there."""
    compiled = compile(code, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    awaits = bool(compiled.co_flags & inspect.CO_COROUTINE)
    if not awaits and "session" not in compiled.co_names:
        exec(compiled, {"__name__": "__main__"})
        return

    async def run() -> None:
        async with QwenImageSession() as session:
            coroutine = eval(compiled, {"session": session})
            if awaits:
                await coroutine

    asyncio.run(run())


def run_shell(code: str, where: str) -> None:
    commands = NOT_HERE.sub(":", code)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "INSIDE": "yes" if where.startswith("README") else "",
    }
    done = subprocess.run(
        ["bash", "-c", PRELUDE + commands],
        check=False,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
    )
    assert done.returncode == 0, f"{where}\n{commands}\n{done.stdout}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_can_be_run_or_says_why_not(page):
    blocks = blocks_of(page)
    assert len(blocks) == len(re.findall(r"^ *```\w*", page.read_text(), re.MULTILINE)) / 2
    commands = "\n".join(block.code for block in blocks if block.language in SHELL)
    for block in blocks:
        assert block.language in LANGUAGES, f"line {block.line}: a block in no known language"
        for test in re.findall(r"run by (\S+)", block.mark):
            assert (ROOT / test).exists(), test
        if block.title and not block.mark and block.language == "python" and block.page not in ELSEWHERE:
            assert block.title in commands, f"{block.title} is never run"


def test_what_runs_elsewhere_does():
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text()


def test_what_is_to_be_installed_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for page in PAGES for line in re.findall(r"pip install [^`\n&#]*", page.read_text())]
    ours = [found for line in lines for found in re.findall(r"'?(?:\.|([\w-]+))\[([\w,]+)\]'?", line)]
    assert len(ours) > 5
    for name, extras in ours:
        assert name in {"", project["name"]}, name
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), extras
