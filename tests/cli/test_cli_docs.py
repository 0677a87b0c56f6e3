"""docs/cli.md shows the command as it is, and its start imports little."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from cli_docs import COMMANDS, PAGE, PART, help_of, part
from command_line import ENTRY, ROOT

import wavespeed_qwen_async
from wavespeed_qwen_async.cli.exits import Exit

PARTS = [*(f"help {command}" for command in COMMANDS), "exit codes"]


def words(text):
    """Without the frames, whose width differs between versions of rich."""
    return re.sub(r"[\u2500-\u257f]", " ", text).split()


@pytest.mark.parametrize("name", PARTS)
def test_the_page_shows_the_command_as_it_is(name):
    shown = {found["name"]: found[0] for found in PART.finditer(PAGE.read_text())}
    assert words(part(name)) == words(shown[name])[len(f"<!-- begin {name} -->".split()) : -3], (
        "run: python tests/cli/cli_docs.py --update"
    )


def test_every_command_is_on_the_page_and_has_an_example():
    listed = re.findall(r"^│ (\w+) ", help_of("--help").partition("Commands")[2], re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    for command in COMMANDS:
        assert f"wavespeed-qwen {command} " in help_of(command).partition("Example:")[2]


def test_the_table_of_exit_codes_is_in_the_help():
    text = help_of("--help")
    for code in Exit:
        assert re.search(rf"^ +{code.value}  \w", text, re.MULTILINE)


def test_every_event_is_on_the_page():
    source = "".join(path.read_text() for path in (ROOT / "wavespeed_qwen_async" / "cli").glob("*.py"))
    events = set(re.findall(r"\.event\(\s*\"(\w+)\"", source))
    assert events
    assert {event for event in events if f"`{event}`" not in PAGE.read_text()} == set()


def test_the_version(command):
    assert command("--version").out == f"wavespeed-qwen {wavespeed_qwen_async.__version__}\n"


OF_TYPER = """
import typer, typer.rich_utils
app = typer.Typer()
app.command("batch")(lambda number: None)
app.command("other")(lambda number: None)
app()
"""


def imported(code, *arguments):
    """The modules that a process has imported when it ends."""
    line = "import atexit, sys; atexit.register(lambda: print('IMPORTED', *sys.modules))\n"
    ended = subprocess.run([sys.executable, "-c", line + code, *arguments], capture_output=True, text=True, check=True)
    return set(ended.stdout.rpartition("IMPORTED ")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["batch", "--help"]], ids=" ".join)
def test_help_imports_only_what_typer_does_and_the_commands(arguments):
    """What it takes in time, `benchmarks startup` measures."""
    ours = imported(ENTRY, *arguments) - imported(OF_TYPER, *arguments)
    foreign = {name for name in ours if not name.startswith("wavespeed_qwen_async")}
    assert {name.partition(".")[0] for name in foreign} <= {"json", "_json"}
    rest = {name for name in ours - foreign if not name.startswith("wavespeed_qwen_async.cli")}
    assert rest == {"wavespeed_qwen_async", "wavespeed_qwen_async._version"}


def test_the_entry_point_is_this():
    assert "main()" in ENTRY
    text = (ROOT / "pyproject.toml").read_text()
    assert 'wavespeed-qwen = "wavespeed_qwen_async.cli:main"' in text
