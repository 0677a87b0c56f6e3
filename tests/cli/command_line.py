"""Running the command ``wavespeed-qwen`` and looking at how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from wavespeed_qwen_async.cli import main

ROOT = Path(__file__).parents[2]
# For children that may not write whole files: Python leaves half of a compiled module there, for all who come after.
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
ENTRY = "import sys; from wavespeed_qwen_async.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def events(self):
        return [json.loads(line) for line in self.out.splitlines()]


def inside(capsys, arguments) -> Ended:
    """Run the command inside this process."""
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    return Ended(int(code), *capsys.readouterr())


def child(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    line = [sys.executable, "-c", ENTRY, *map(str, arguments)]
    environment = os.environ | options.pop("env", {})
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(line, env=environment, **(defaults | options))


def finished(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=50)
    return Ended(process.returncode, out, err)


def one_line(text: str) -> str:
    """The one line that there is, without a traceback."""
    assert "Traceback (most recent" not in text
    assert text.endswith("\n"), text
    assert text.count("\n") == 1, text
    return text[:-1]
