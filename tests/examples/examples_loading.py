"""The examples, as modules to test and as commands that a user types."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> Any:
    """A fresh module of ``examples/NAME.py``."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def user_environment() -> dict[str, str]:
    """Without anything that would lead to an account or an emulator."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WAVESPEED_")}


def typed(*words: str, cwd: Path, timeout: float = 50) -> subprocess.CompletedProcess[str]:
    """Run ``python examples/...`` as a user does, in an empty folder."""
    command = [sys.executable, str(EXAMPLES / words[0]), *words[1:]]
    return subprocess.run(
        command, cwd=cwd, env=user_environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
