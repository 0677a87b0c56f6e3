"""No fault without a test, no test without a row in docs/faults.md, no row without a test."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import wavespeed_qwen_async
from wavespeed_qwen_async.emulator.faults import ACTIONS

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "faults.md"
MODULES = sorted(path.stem for path in HERE.glob("test_faults_*.py") if path.stem != Path(__file__).stem)


def marks(function):
    """The `fault` markers of a test, those of its parameters too."""
    for mark in getattr(function, "pytestmark", []):
        if mark.name == "fault":
            yield mark.args
        elif mark.name == "parametrize":
            for parameters in mark.args[1]:
                yield from (each.args for each in getattr(parameters, "marks", ()) if each.name == "fault")


def shown() -> set[tuple[str, str, str]]:
    """(where, what, sees) of every test; `emulator` in conftest.py sees to it that the fault was really done."""
    tests = (vars(importlib.import_module(name)) for name in MODULES)
    functions = (test for module in tests for name, test in module.items() if name.startswith("test_"))
    return {args for function in functions for args in marks(function)}


def rows() -> set[tuple[str, str, str]]:
    """The same of the tables of the page: one for each place and each end that a row names."""
    found = set()
    for line in PAGE.read_text().splitlines():
        cells = line.strip("|").split(" | ")
        places = re.findall(r"`(\w+)` `(\w+)`", cells[0])
        if line.startswith("|") and places:
            ends = re.findall(r"the result|`(?:[A-Z]\w+)`", cells[-1])
            assert ends, line
            found |= {(where, what, end.strip("`")) for where, what in places for end in ends}
    return found


@pytest.mark.parametrize("action", ACTIONS)
def test_every_fault_has_a_test_of_what_the_client_does(action):
    assert action in {what for _, what, _ in shown()}


def test_the_page_tells_what_the_tests_show():
    assert sorted(shown() - rows()) == []
    assert sorted(rows() - shown()) == []


def test_the_page_names_every_fault_and_real_errors_only():
    text = PAGE.read_text()
    assert not [action for action in ACTIONS if f"`{action}`" not in text]
    named = {end for _, _, end in rows()} - {"the result"}
    assert all(issubclass(getattr(wavespeed_qwen_async, end), wavespeed_qwen_async.WaveSpeedError) for end in named)
