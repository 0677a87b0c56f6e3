"""What a bar shows, how it comes and goes, and what is said beside it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from wavespeed_qwen_async import ContentModerated, InvalidJobError, Limits, RateLimitError, TaskInternalError
from wavespeed_qwen_async.bulk import BatchOutcome, BatchProgress
from wavespeed_qwen_async.cli import live
from wavespeed_qwen_async.cli import progress as shown
from wavespeed_qwen_async.cli.output import Output


def standing(**changed):
    figures = {"total": 24, "seen": 24, "done": 11, "skipped": 0, "failed": 1, "unknown": 0, "in_flight": 12}
    rest = {"reconciling": 0, "cost": 0.3, "budget_left": None, "state": "running"}
    return BatchProgress(**figures | rest | changed)


def limiting(**changed):
    return replace(Limits.for_tier("silver").snapshot(), **changed)


def below(progress, limits, per_minute=0.0, recent=None):
    return {row.label or "more": row.text for row in live.rows(progress, limits, per_minute, recent or live.Recent())}


@pytest.mark.anyio
async def test_the_line_beside_the_bar():
    assert live.headline(standing(), limiting(), 0.0) == "12/24"
    assert live.headline(standing(), limiting(), 96.0) == "12/24  0:08 left"
    assert live.headline(standing(done=23), limiting(), 96.0) == "24/24"
    assert live.headline(standing(total=1_000_000), limiting(), 60.0) == "12/1,000,000  277:46:28 left"
    assert live.headline(standing(total=None, seen=40), limiting(), 96.0) == "12 of 40 read"
    assert live.headline(standing(state="draining"), limiting(in_flight=3), 96.0) == "12/24  collecting 3"


@pytest.mark.anyio
async def test_the_rows_below_the_bar():
    assert below(standing(), limiting()) == {
        "jobs": "11 saved, 1 failed",
        "rate": "-; 0 sent in the last minute of 500 allowed",
        "in flight": "0 of 300",
        "cost": "$0.30 with those in flight",
    }
    busy = limiting(used=480, allowance=490, learned=True, in_flight=212, downloads=3, uploads=1)
    full = standing(skipped=3, unknown=1, reconciling=2, budget_left=0.7)
    assert below(full, busy, 96.4) == {
        "jobs": "3 there before, 11 saved, 1 failed, 1 of these perhaps accepted",
        "rate": "96 images/min; 480 sent in the last minute of 490 allowed (learned)",
        "in flight": "212 of 300, 3 downloading, 1 uploading, 2 looked for after a lost answer",
        "cost": "$0.30 with those in flight, $0.70 of budget left",
    }
    assert "(silver's, assumed)" in below(standing(), limiting(assumed=True))["rate"]


@pytest.mark.anyio
async def test_a_pause_is_told_with_its_reason_and_remembered():
    paused = limiting(paused_for=12.3, pause_reason="rate limit", pauses=2, refused=5)
    assert below(standing(), paused)["paused"] == "12 s: rate limit, 5 refused (429); goes on by itself"
    assert below(standing(), replace(paused, paused_for=0.0))["pauses"] == "2 so far, 5 refused (429)"


def ended(error=None, line=7, name="fox.jpg"):
    path = None if error else Path("out") / name
    return BatchOutcome(index=6, line=line, job=None, error=error, path=path, seconds=8.24)


@pytest.mark.anyio
async def test_what_ended_last_and_the_latest_errors_by_kind():
    recent = live.Recent()
    moderated = ContentModerated("prediction abc failed, code 1200: no", prediction_id="abc")
    for outcome in (
        ended(name="a.jpg"),
        ended(TaskInternalError("prediction d failed, code 5000: oh", prediction_id="d"), line=2),
        ended(moderated),
        ended(InvalidJobError("line 9: no JSON"), line=9),
        ended(RateLimitError("slow down"), line=None),
        ended(moderated, line=8),
        ended(name="b.jpg"),
    ):
        recent.note(outcome)
    shown = live.rows(standing(), limiting(), 0.0, recent)[4:]
    assert [(row.label, row.text) for row in shown] == [
        ("last", "8.2 s  b.jpg"),
        ("errors", "2 x ContentModerated: line 8: code 1200: no"),
        ("", "1 x RateLimitError: job 7: slow down"),
        ("", "1 x InvalidJobError: line 9: no JSON"),
        ("", "kinds besides: TaskInternalError"),
    ]
    assert recent.saved is not None


@pytest.mark.anyio
@pytest.mark.parametrize("width", [40, 80, 120])
async def test_the_picture_fits_at_any_width(width):
    from rich.console import Console

    recent = live.Recent()
    recent.note(ended(name="a-very-long-name-" * 10 + ".jpg"))
    recent.note(ended(InvalidJobError("a very long text " * 20)))
    paused = limiting(paused_for=12.3, pause_reason="rate limit", pauses=2, refused=5)
    console = Console(file=io.StringIO(), width=width)
    console.print(live.picture(standing(budget_left=0.7), paused, 96.0, recent))
    rows = console.file.getvalue().splitlines()
    assert [row.split("  ")[0].strip() for row in rows[1:]] == [
        *("jobs", "rate", "in flight", "cost", "paused", "last", "errors")
    ]
    assert max(len(row) for row in rows) <= width
    assert rows[-1].rstrip().endswith("\u2026")


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
async def test_the_picture_comes_and_goes(terminal):
    screen = terminal()
    output = Output(as_json=False, verbose=False)
    async with shown.showing(output, shown.View(standing, limiting)):
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
async def test_without_a_terminal_nothing_is_drawn_but_pauses_are_told_once(capsys):
    output = Output(as_json=False, verbose=False)
    limits = limiting()
    async with shown.showing(output, shown.View(standing, lambda: limits)), shown.waiting(output, "waiting"):
        await asyncio.sleep(5)
        limits = limiting(pauses=1, paused_for=12.0, pause_reason="rate limit")
        await asyncio.sleep(5)
        limits = limiting(pauses=1)
        await asyncio.sleep(5)
    assert capsys.readouterr() == ("", "paused for 12 s: rate limit; goes on by itself\n")


@pytest.mark.anyio
async def test_programs_get_an_event_every_2_seconds_and_at_each_pause(capsys):
    view = shown.View(standing, lambda: limits)
    limits = limiting(used=7)
    async with shown.showing(Output(as_json=True, verbose=False), view):
        await asyncio.sleep(5)
        limits = limiting(pauses=1, paused_for=12.0, pause_reason="server errors")
        await asyncio.sleep(2)
    out, err = capsys.readouterr()
    first, second, pause, third = [json.loads(line) for line in out.splitlines()]
    assert (first["event"], second["event"], third["event"], err) == ("progress", "progress", "progress", "")
    assert (first["total"], first["done"], first["budget_left"]) == (24, 11, None)
    assert (first["sent_last_minute"], first["allowance"], first["pause_reason"]) == (7, 500, None)
    assert (third["paused_for"], third["pause_reason"]) == (12.0, "server errors")
    assert pause == {"event": "pause", "reason": "server errors", "seconds": 12.0, "allowance": 500}


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
