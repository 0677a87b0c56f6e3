"""docs/cli.md shows the command as it is, and its start is quick."""

from __future__ import annotations

import os
import re
import resource
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


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from wavespeed_qwen_async.cli import main; sys.argv[1:] = ['batch', '--help']; main();"
        "own = {'wavespeed_qwen_async.' + name for name in ('session', 'models', 'bulk', 'emulator')};"
        "others = {'aiohttp', 'asyncio', 'PIL', 'sqlite3', 'tomllib', 'yaml'};"  # typer itself needs pydantic
        "heavy = (others | own) & set(sys.modules);"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_help_takes_little_more_than_typer_and_rich_themselves(tmp_path):
    """Of their 0.25 s on an idle machine; a ratio, as other work on this machine is not its fault."""
    kept = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}

    def work_of(code):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code, "--help"], env=kept, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    pairs = [(work_of(ENTRY), work_of("import typer, typer.rich_utils")) for _ in range(5)]
    assert min(own for own, _ in pairs) < 1.6 * min(theirs for _, theirs in pairs)


def test_the_entry_point_is_this():
    assert "main()" in ENTRY
    text = (ROOT / "pyproject.toml").read_text()
    assert 'wavespeed-qwen = "wavespeed_qwen_async.cli:main"' in text
