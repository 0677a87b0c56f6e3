"""The command line against an emulator: inside this process where that will do, as a child process where it won't."""

from __future__ import annotations

import os
from functools import cache

import pytest
import typer.main
from command_line import inside
from PIL import Image


@pytest.fixture(scope="session", autouse=True)
def _one_tree_of_commands():
    """Typer builds every command anew at each call, half of what one costs inside this process; children show it so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WAVESPEED_")] + ["NO_COLOR", "FORCE_COLOR"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / ".config"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def command(capsys):
    """Run the command inside this process."""
    return lambda *arguments: inside(capsys, arguments)


@pytest.fixture
def hasty(monkeypatch):
    """A server that can't be reached is tried for a moment only."""
    monkeypatch.setattr("wavespeed_qwen_async.cli.running._CONTACT_BUDGET", 0.5)


@pytest.fixture
def fox(tmp_path):
    path = tmp_path / "fox.png"
    Image.new("RGB", (64, 48), "orange").save(path)
    return path
