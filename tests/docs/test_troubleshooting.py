"""Troubleshooting has an entry for every public error, which says of money and exit code what the code does."""

from __future__ import annotations

import importlib
import re

import pytest
from pages import DOCS, ROOT

from wavespeed_qwen_async import errors
from wavespeed_qwen_async.bulk import JournalError
from wavespeed_qwen_async.cli.exits import exit_of

PAGE = (DOCS / "troubleshooting.md").read_text()
ENTRIES = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
TREE = {name: getattr(errors, name) for name in errors.__all__ if name != "Billed"}
OURS = {**TREE, "JournalError": JournalError}
GROUPS = {"WaveSpeedError", "RequestError", "PredictionError", "MediaError"}


def public_errors() -> set[str]:
    """The errors among all names that a module without an underscore makes public, but for the emulator's."""
    found = set()
    for path in (ROOT / "wavespeed_qwen_async").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if any(part.startswith("_") for part in parts if part != "__init__") or {"emulator", "cli"} & set(parts):
            continue
        try:
            module = importlib.import_module(name)
        except ImportError:  # an integration whose extra is not installed
            continue
        values = {public: getattr(module, public) for public in getattr(module, "__all__", ())}
        found |= {
            public for public, value in values.items() if isinstance(value, type) and issubclass(value, BaseException)
        }
    return found


@pytest.mark.filterwarnings("default")  # what other packages warn of when they are imported
def test_every_public_error_has_an_entry_and_no_other():
    warnings = {"LargeSizeWarning"}
    assert public_errors() - warnings == set(ENTRIES)
    assert len(ENTRIES) == PAGE.count("\n### ")
    assert all(name in PAGE for name in warnings)


@pytest.mark.parametrize("name", OURS)
def test_the_entry_says_what_is_billed(name):
    """Exactly, or `usually` where an error may carry another answer than its class."""
    told = re.search(r"\*\*Billed:\*\* (usually )?(no|yes|unknown)\b", ENTRIES[name])
    assert told
    assert told[2] == OURS[name].billed
    assert "refunded" in ENTRIES[name] or not issubclass(OURS[name], errors.PredictionFailed)


@pytest.mark.parametrize("name", sorted(OURS.keys() - GROUPS))
def test_the_entry_says_the_exit_code_and_what_to_do(name):
    entry = ENTRIES[name]
    assert int(re.search(r"\*\*Exit code:\*\* (\d+)", entry)[1]) == exit_of(OURS[name]("what happened"))
    assert "**Means:**" in entry
    assert "**Do:**" in entry or name == "PredictionFailed"


def test_the_tree_drawn_in_errors_is_the_tree_that_is():
    drawn = re.findall(r"^ {4}((?:[|] {3}| {4})*)(?:[|`]-- )?(\w+)", errors.__doc__, re.MULTILINE)
    assert sorted(name for _, name in drawn) == sorted(TREE)
    parents: list[str] = []
    for lead, name in drawn:
        depth = len(lead) // 4 + (name != "WaveSpeedError")
        assert depth == 0 or parents[depth - 1] in {parent.__name__ for parent in TREE[name].__bases__}, name
        parents[depth:] = [name]
