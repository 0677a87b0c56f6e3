"""What docs/cli.md shows of the command itself: ``python tests/cli/cli_docs.py --update`` writes it anew."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from wavespeed_qwen_async.cli.exits import MEANINGS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
COMMANDS = (
    *("generate", "edit", "batch", "sweep", "gallery", "download", "upload"),
    *("status", "history", "delete", "price", "balance", "emulator", "doctor"),
)
PART = re.compile(r"<!-- begin (?P<name>[\w -]+) -->\n.*?<!-- end -->", re.DOTALL)


# One process for them all: starting it is most of what a help text costs.
TELL_ALL = """
import contextlib, io, json
from wavespeed_qwen_async.cli import main
told = {}
for arguments in %s:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        main(arguments)
    told[arguments[0]] = text.getvalue()
print(json.dumps(told))
"""


@cache
def helps() -> dict[str, str]:
    """What ``--help`` prints at 80 columns, of each command and of the whole."""
    environment = os.environ | {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    code = TELL_ALL % [["--help"], *([command, "--help"] for command in COMMANDS)]
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(told.stdout))


def help_of(command: str) -> str:
    """What it prints for one command, or for ``--help`` alone."""
    return "\n".join(row.rstrip() for row in helps()[command].splitlines()).strip("\n")


def exit_codes() -> str:
    """The table of exit codes."""
    rows = "".join(f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items())
    return f"| code | meaning |\n|---:|---|\n{rows}"


def part(name: str) -> str:
    """What stands between the marks of a part."""
    if name == "exit codes":
        return exit_codes()
    return f"```text\n{help_of(name.removeprefix('help '))}\n```\n"


def renewed(page: str) -> str:
    """The page with each part as it should be."""
    return PART.sub(lambda found: f"<!-- begin {found['name']} -->\n{part(found['name'])}<!-- end -->", page)


if __name__ == "__main__":
    page = PAGE.read_text()
    if "--update" in sys.argv:
        PAGE.write_text(renewed(page))
    sys.exit(
        0 if renewed(page) == page or "--update" in sys.argv else "docs/cli.md is not as the command says: --update"
    )
