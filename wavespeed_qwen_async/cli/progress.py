"""A batch on a terminal: a bar with counts, rate, cost and time left, and lines above it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from .output import money

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from rich.live import Live

    from wavespeed_qwen_async.bulk import BatchProgress
    from wavespeed_qwen_async.limits import LimitsSnapshot

    from .output import Output

__all__ = ["Pace", "counts", "headline", "showing", "span", "waiting"]

_EVERY = 0.25  # seconds between two pictures of the bar
_EVERY_EVENT = 2.0  # ... between two events for programs
_WINDOW = 60.0  # seconds that the rate is taken over
_ENOUGH = 2.0  # seconds from which on it says something


class Pace:
    """How many jobs end a minute: over the last minute, and from the first end on, as none can end at once."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def take(self, now: float, ended: int) -> None:
        """Note how many have ended by now."""
        if not ended:
            return
        self._seen.append((now, ended))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:  # noqa: PLR2004 - a rate needs two
            self._seen.popleft()

    @property
    def per_minute(self) -> float:
        """Jobs a minute; 0.0 while that can't be told."""
        if not self._seen:
            return 0.0
        (began, before), (now, ended) = self._seen[0], self._seen[-1]
        return (ended - before) / (now - began) * 60 if now - began >= _ENOUGH else 0.0


def span(seconds: float) -> str:
    """A length of time, as clocks show it."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def headline(progress: BatchProgress, limits: LimitsSnapshot, per_minute: float) -> str:
    """What stands beside the bar: how many of how many, and the time left."""
    ended = progress.done + progress.skipped + progress.failed
    if progress.total is None:
        return f"{ended:,} of {progress.seen:,} read"
    text = f"{ended:,}/{progress.total:,}"
    left = progress.total - ended
    if progress.state == "draining":
        return f"{text}  collecting {limits.in_flight:,}"
    return f"{text}  {span(left / per_minute * 60)} left" if per_minute and left > 0 else text


def counts(progress: BatchProgress, limits: LimitsSnapshot, per_minute: float) -> str:
    """What stands below the bar."""
    parts = [f"{progress.done:,} saved", f"{progress.failed:,} failed", f"{limits.in_flight:,} in flight"]
    if progress.skipped:
        parts.insert(0, f"{progress.skipped:,} before")
    if progress.unknown:
        parts.append(f"{progress.unknown:,} unknown")
    if progress.reconciling:
        parts.append(f"{progress.reconciling:,} looked for")
    parts += [f"{per_minute:.0f}/min" if per_minute else "-/min", money(progress.cost)]
    if progress.budget_left is not None:
        parts[-1] += f" ({money(progress.budget_left)} left)"
    if limits.paused_for:
        parts.append(f"paused {limits.paused_for:.0f} s: {limits.pause_reason}")
    return "  ".join(parts)


@asynccontextmanager
async def showing(
    output: Output, look: Callable[[], BatchProgress], limits: Callable[[], LimitsSnapshot]
) -> AsyncIterator[None]:
    """Show how a batch stands while inside: a bar where stderr is a terminal, events where JSON is wanted."""
    if output.as_json:
        ticking = _telling(output, look)
    elif sys.stderr.isatty():
        pace = Pace()

        def picture() -> Any:
            progress = look()
            pace.take(time.monotonic(), progress.done + progress.failed)
            return _picture(progress, limits(), pace.per_minute)

        ticking = _drawing(output, picture)
    else:
        yield
        return
    async with _beside(ticking):
        yield


@asynccontextmanager
async def waiting(output: Output, what: str) -> AsyncIterator[None]:
    """Show that something is waited for, and how long, where stderr is a terminal."""
    if output.as_json or not sys.stderr.isatty():
        yield
        return
    began = time.monotonic()
    async with _beside(_drawing(output, lambda: f"{what}, {time.monotonic() - began:.0f} s")):
        yield


@asynccontextmanager
async def _beside(ticking: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(ticking, name="wavespeed-qwen progress")
    await asyncio.sleep(0)  # it has begun, so that it is ended in order
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _telling(output: Output, look: Callable[[], BatchProgress]) -> None:
    while True:
        await asyncio.sleep(_EVERY_EVENT)
        progress = look()
        output.event("progress", **{name: getattr(progress, name) for name in progress.__slots__})


async def _drawing(output: Output, picture: Callable[[], Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 - where there is a terminal
    from rich.live import Live  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    with Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as live:
        output.above = lambda text, whole: _print_above(live, text, whole=whole)
        try:
            while True:
                live.update(picture(), refresh=True)
                await asyncio.sleep(_EVERY)
        finally:
            output.above = None


def _print_above(live: Live, text: str, *, whole: bool) -> None:
    if whole:
        live.console.print(text, markup=False)
    else:
        live.console.print(text, markup=False, no_wrap=True, overflow="ellipsis")


def _picture(progress: BatchProgress, limits: LimitsSnapshot, per_minute: float) -> Any:
    from rich.console import Group  # noqa: PLC0415 - where there is a terminal
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    ended = progress.done + progress.skipped + progress.failed
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(ProgressBar(total=progress.total, completed=ended), Text(headline(progress, limits, per_minute)))
    return Group(line, Text(counts(progress, limits, per_minute), no_wrap=True, overflow="ellipsis", style="dim"))
