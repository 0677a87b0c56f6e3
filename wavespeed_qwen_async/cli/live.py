"""The picture of a running batch on a terminal: a bar, and below it what is worth knowing, a row each."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from .output import describe, money

if TYPE_CHECKING:
    from wavespeed_qwen_async.bulk import BatchOutcome, BatchProgress
    from wavespeed_qwen_async.limits import LimitsSnapshot

__all__ = ["Pace", "Recent", "Row", "headline", "picture", "rows", "span"]

_WINDOW = 60.0  # seconds that the rate is taken over
_ENOUGH = 2.0  # seconds from which on it says something
_KINDS = 3  # kinds of error that are shown
_LABEL = 9  # columns of the longest label


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


class Recent:
    """What ended last, and which errors there were: noted for each job, put into words only when it is drawn."""

    def __init__(self) -> None:
        self.saved: BatchOutcome | None = None
        self.errors: dict[str, tuple[int, BatchOutcome]] = {}
        """Kinds of error, the latest last: how many, and the last of them."""

    def note(self, outcome: BatchOutcome) -> None:
        """Take a job's end."""
        if outcome.error is None:
            self.saved = outcome
            return
        kind = type(outcome.error).__name__
        before, _ = self.errors.pop(kind, (0, None))
        self.errors[kind] = (before + 1, outcome)


class Row(NamedTuple):
    """A row of the picture."""

    label: str
    text: str
    style: str = ""


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


def rows(progress: BatchProgress, limits: LimitsSnapshot, per_minute: float, recent: Recent) -> list[Row]:
    """What stands below the bar."""
    shown = [
        Row("jobs", _jobs(progress)),
        Row("rate", _rate(limits, per_minute)),
        Row("in flight", _in_flight(progress, limits)),
        Row("cost", _cost(progress)),
    ]
    if limits.paused_for:
        shown.append(Row("paused", _pause(limits), "yellow"))
    elif limits.pauses:
        shown.append(Row("pauses", f"{limits.pauses:,} so far{_refusals(limits)}"))
    if recent.saved is not None:
        shown.append(Row("last", _saved(recent.saved)))
    latest = list(reversed(recent.errors.items()))
    for place, (kind, (count, outcome)) in enumerate(latest[:_KINDS]):
        shown.append(Row("" if place else "errors", f"{count:,} x {kind}: {_failed(outcome)}", "red"))
    if len(latest) > _KINDS:
        shown.append(Row("", f"kinds besides: {', '.join(kind for kind, _ in latest[_KINDS:])}", "red"))
    return shown


def picture(progress: BatchProgress, limits: LimitsSnapshot, per_minute: float, recent: Recent) -> Any:
    """All of it, for rich to draw at the terminal's width."""
    from rich.console import Group  # noqa: PLC0415 - where there is a terminal
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    ended = progress.done + progress.skipped + progress.failed
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(ProgressBar(total=progress.total, completed=ended), Text(headline(progress, limits, per_minute)))
    below = Table.grid(padding=(0, 2), expand=True)
    below.add_column(no_wrap=True, style="dim", min_width=_LABEL)
    below.add_column(no_wrap=True, ratio=1)
    for row in rows(progress, limits, per_minute, recent):
        below.add_row(row.label, Text(row.text, style=row.style, no_wrap=True, overflow="ellipsis"))
    return Group(line, below)


def _jobs(progress: BatchProgress) -> str:
    parts = [f"{progress.done:,} saved", f"{progress.failed:,} failed"]
    if progress.skipped:
        parts.insert(0, f"{progress.skipped:,} there before")
    if progress.unknown:
        parts.append(f"{progress.unknown:,} of these perhaps accepted")
    return ", ".join(parts)


def _rate(limits: LimitsSnapshot, per_minute: float) -> str:
    ending = f"{per_minute:,.0f} images/min" if per_minute else "-"
    why = " (learned)" if limits.learned else " (silver's, assumed)" if limits.assumed else ""
    return f"{ending}; {limits.used:,} sent in the last minute of {limits.allowance:,} allowed{why}"


def _in_flight(progress: BatchProgress, limits: LimitsSnapshot) -> str:
    text = f"{limits.in_flight:,} of {limits.max_in_flight:,}"
    if limits.downloads:
        text += f", {limits.downloads:,} downloading"
    if limits.uploads:
        text += f", {limits.uploads:,} uploading"
    if progress.reconciling:
        text += f", {progress.reconciling:,} looked for after a lost answer"
    return text


def _cost(progress: BatchProgress) -> str:
    left = progress.budget_left
    return f"{money(progress.cost)} with those in flight" + ("" if left is None else f", {money(left)} of budget left")


def _pause(limits: LimitsSnapshot) -> str:
    return f"{limits.paused_for:.0f} s: {limits.pause_reason}{_refusals(limits)}; goes on by itself"


def _refusals(limits: LimitsSnapshot) -> str:
    return f", {limits.refused:,} refused (429)" if limits.refused else ""


def _saved(outcome: BatchOutcome) -> str:
    name = "" if outcome.path is None else outcome.path.name
    return f"{'collected' if outcome.resumed else f'{outcome.seconds:.1f} s'}  {name}"


def _failed(outcome: BatchOutcome) -> str:
    """The place first: a row is short, and the failed job's whole text comes above, and in results.jsonl."""
    error = outcome.error
    assert error is not None  # noqa: S101 - by Recent.note
    text = describe(error).replace(f"prediction {error.prediction_id} failed, ", "")
    place = f"line {outcome.line}" if outcome.line is not None else f"job {outcome.index + 1}"
    return text if text.startswith(place) else f"{place}: {text}"
