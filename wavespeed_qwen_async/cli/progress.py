"""How a batch stands while it runs: a live picture on a terminal, events for programs, pauses for everybody else."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from .live import Pace, Recent, picture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from rich.live import Live

    from wavespeed_qwen_async.bulk import BatchProgress
    from wavespeed_qwen_async.limits import LimitsSnapshot

    from .output import Output

__all__ = ["View", "showing", "waiting"]

_EVERY = 0.25  # seconds between two pictures, or two looks at the limits
_EVERY_EVENT = 2.0  # ... between two events for programs


class View:
    """What can be seen of a batch: asked a few times a second, however many jobs end."""

    def __init__(self, look: Callable[[], BatchProgress], limits: Callable[[], LimitsSnapshot]) -> None:
        self.recent: Recent = Recent()
        self.progress = look
        self.limits = limits
        self._pace = Pace()
        self._pauses = 0

    def per_minute(self) -> float:
        """Jobs that end a minute, as of now."""
        progress = self.progress()
        self._pace.take(_now(), progress.done + progress.failed)
        return self._pace.per_minute

    def picture(self) -> Any:
        """How it looks on a terminal."""
        per_minute = self.per_minute()
        return picture(self.progress(), self.limits(), per_minute, self.recent)

    def event(self) -> dict[str, Any]:
        """The same for programs."""
        progress, limits = self.progress(), self.limits()
        figures = {name: getattr(progress, name) for name in progress.__slots__}
        return figures | {
            "per_minute": round(self.per_minute(), 1),
            "sent_last_minute": limits.used,
            "allowance": limits.allowance,
            "refused": limits.refused,
            "paused_for": round(limits.paused_for, 3),
            "pause_reason": limits.pause_reason,
        }

    def new_pause(self) -> LimitsSnapshot | None:
        """The limits, if they have begun to pause since the last time."""
        limits = self.limits()
        if limits.pauses <= self._pauses:
            return None
        self._pauses = limits.pauses
        return limits if limits.paused_for else None


@asynccontextmanager
async def showing(output: Output, view: View) -> AsyncIterator[None]:
    """Show how a batch stands while inside, where stderr is a terminal or JSON is wanted; else tell of pauses."""
    drawn = sys.stderr.isatty() and not output.as_json
    async with _beside(_drawing(output, view.picture) if drawn else _telling(output, view)):
        yield


@asynccontextmanager
async def waiting(output: Output, what: str) -> AsyncIterator[None]:
    """Show that something is waited for, and how long, where stderr is a terminal."""
    if output.as_json or not sys.stderr.isatty():
        yield
        return
    began = _now()
    async with _beside(_drawing(output, lambda: f"{what}, {_now() - began:.0f} s")):
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


async def _telling(output: Output, view: View) -> None:
    due = _now() + _EVERY_EVENT
    while True:
        await asyncio.sleep(_EVERY)
        limits = view.new_pause()
        if limits is not None:
            output.event(
                "pause", reason=limits.pause_reason, seconds=round(limits.paused_for, 3), allowance=limits.allowance
            )
            if not output.as_json:
                output.note(f"paused for {limits.paused_for:.0f} s: {limits.pause_reason}; goes on by itself")
        if output.as_json and _now() >= due:
            due += _EVERY_EVENT
            output.event("progress", **view.event())


async def _drawing(output: Output, draw: Callable[[], Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 - where there is a terminal
    from rich.live import Live  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    with Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as live:
        output.above = lambda text, whole: _print_above(live, text, whole=whole)
        try:
            while True:
                live.update(draw(), refresh=True)
                await asyncio.sleep(_EVERY)
        finally:
            output.above = None


def _print_above(live: Live, text: str, *, whole: bool) -> None:
    if whole:
        live.console.print(text, markup=False)
    else:
        live.console.print(text, markup=False, no_wrap=True, overflow="ellipsis")


def _now() -> float:
    return asyncio.get_running_loop().time()
