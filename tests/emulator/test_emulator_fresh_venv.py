"""The first test of docs/testing.md, as it stands there, where nothing is installed but what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_INDEX = ("Could not find a version", "No matching distribution", "Failed to establish", "Temporary failure in name")


def first_test() -> str:
    page = (ROOT / "docs" / "testing.md").read_text()
    found = re.search(r"^```python\n(# test_fox\.py\n.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_test_of_the_page_passes_in_a_fresh_venv(tmp_path):
    code = first_test()
    assert len([line for line in code.splitlines()[1:] if line.strip()]) <= 15
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "WAVESPEED"))
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )

    installed = run("pip", "install", "--quiet", f"{ROOT}[emulator]", "pytest")
    if installed.returncode and any(text in installed.stderr for text in NO_INDEX):
        pytest.skip("pip reaches no package index")
    assert installed.returncode == 0, installed.stderr
    (tmp_path / "test_fox.py").write_text(code)
    tested = run("pytest", "-q", "-W", "error", "test_fox.py")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "1 passed" in tested.stdout
