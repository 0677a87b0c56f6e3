"""What a bar shows, how it comes and goes, and what is said beside it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
import warnings

import pytest

from wavespeed_qwen_async import Limits
from wavespeed_qwen_async.bulk import BatchProgress
from wavespeed_qwen_async.cli import progress as shown
from wavespeed_qwen_async.cli.output import Output


def standing(**changed):
    figures = {"total": 24, "seen": 24, "done": 11, "skipped": 0, "failed": 1, "unknown": 0, "in_flight": 12}
    rest = {"reconciling": 0, "cost": 0.3, "budget_left": None, "state": "running"}
    return BatchProgress(**figures | rest | changed)


@pytest.fixture
def limits():
    return Limits.for_tier("silver").snapshot


@pytest.mark.anyio
async def test_the_line_beside_the_bar(limits):
    assert shown.headline(standing(), limits(), 0.0) == "12/24"
    assert shown.headline(standing(), limits(), 96.0) == "12/24  0:08 left"
    assert shown.headline(standing(done=23), limits(), 96.0) == "24/24"
    assert shown.headline(standing(total=1_000_000), limits(), 60.0) == "12/1,000,000  277:46:28 left"
    assert shown.headline(standing(total=None, seen=40), limits(), 96.0) == "12 of 40 read"
    assert shown.headline(standing(state="draining"), limits(), 96.0) == "12/24  collecting 0"


@pytest.mark.anyio
async def test_the_line_below_the_bar(limits):
    assert shown.counts(standing(), limits(), 0.0) == "11 saved  1 failed  0 in flight  -/min  $0.30"
    full = standing(skipped=3, unknown=1, reconciling=2, budget_left=0.7)
    assert shown.counts(full, limits(), 96.4) == (
        "3 before  11 saved  1 failed  0 in flight  1 unknown  2 looked for  96/min  $0.30 ($0.70 left)"
    )


@pytest.mark.anyio
async def test_a_pause_is_told_with_its_reason():
    from dataclasses import replace

    paused = replace(Limits.for_tier("silver").snapshot(), paused_for=12.3, pause_reason="rate limit")
    assert shown.counts(standing(), paused, 96.0).endswith("  paused 12 s: rate limit")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    def begin():  # in the test itself: pytest's own capture is put in place between fixtures and test
        screen = Terminal()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, screen)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "60")
        return screen

    return begin


@pytest.mark.anyio
async def test_the_bar_fits_comes_and_goes(terminal, limits):
    screen = terminal()
    output = Output(as_json=False, verbose=False)
    async with shown.showing(output, standing, limits):
        await asyncio.sleep(1.0)
        output.line("x" * 100)
        output.line("y" * 100, whole=False)
    output.line("the end")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    rows = [row for piece in text.split("\r") for row in piece.split("\n")]
    assert "x" * 60 in rows
    assert "y" * 59 + "\u2026" in rows
    assert any(row.startswith("\u2501") and row.endswith(" 12/24") and len(row) == 60 for row in rows)
    assert rows[-2:] == ["the end", ""]
    assert output.above is None


@pytest.mark.anyio
async def test_waiting_shows_how_long(terminal):
    screen = terminal()
    async with shown.waiting(Output(as_json=False, verbose=False), "waiting for an image"):
        await asyncio.sleep(0.5)
    assert "waiting for an image, 0 s" in screen.getvalue()


@pytest.mark.anyio
async def test_without_a_terminal_nothing_is_drawn(capsys, limits):
    output = Output(as_json=False, verbose=False)
    async with shown.showing(output, standing, limits), shown.waiting(output, "waiting"):
        await asyncio.sleep(5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.anyio
async def test_programs_get_an_event_every_2_seconds(capsys, limits):
    async with shown.showing(Output(as_json=True, verbose=False), standing, limits):
        await asyncio.sleep(5)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(events) == 2
    assert events[0]["event"] == "progress"
    assert (events[0]["total"], events[0]["done"], events[0]["budget_left"]) == (24, 11, None)


def test_the_librarys_log_is_heard(capsys):
    logger = logging.getLogger("wavespeed_qwen_async.anything")
    output = Output(as_json=False, verbose=False)
    with output.hearing():
        logger.warning("something\x07 %s", "odd")
        logger.info("not this")
        logger.warning("a stream was left with 2 paid", extra={"prediction_ids": ["a", "b"]})
        output.journaled = True
        logger.warning("a caller was cancelled", extra={"prediction_id": "c"})
        warnings.warn("once", UserWarning, stacklevel=1)
        warnings.warn("once", UserWarning, stacklevel=1)
    logger.warning("nor this")
    assert capsys.readouterr().err.splitlines() == [
        "warning: something  odd",
        "prediction a is paid and goes on: 'wavespeed-qwen download a' gets its image",
        "prediction b is paid and goes on: 'wavespeed-qwen download b' gets its image",
        "warning: once",
    ]


def test_verbose_hears_more(capsys):
    with Output(as_json=False, verbose=True).hearing():
        logging.getLogger("wavespeed_qwen_async").info("this, too")
    assert capsys.readouterr().err == "info: this, too\n"
