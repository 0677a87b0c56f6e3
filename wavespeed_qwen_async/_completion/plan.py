"""What to ask the API next, decided purely: records of what is awaited, and the time, into a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from .pace import SPACING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["FEW", "Entry", "Outlook", "Plan", "Window", "make_plan", "pause_between_plans", "sweep_interval"]

FEW = 3  # fewer than this are checked one by one: that takes no more requests than asking for the list
MANY = 16
SWEEP_EVERY = 0.75
SWEEP_RARELY = 2.0  # for a few, that many seconds divided by half their number
PAGE_REST = 0.1  # seconds between two sweeps for each page that the last one took
FAILURES_EVERY = 2.5  # seconds, for many; fewer find their failures by single checks sooner
RARE_EVERY = 12.0
AUDIT_EVERY = 2.0
AUDIT_RARELY = 6.0  # the same of a list that has proven itself: what an audit finds makes a sweep reach further back
SUSPICIOUS_EVERY = 0.5  # the same once the list did not show something
MOST_CHECKS = 48  # single checks on the way at once
STRAGGLERS = 0.02  # more than this share being late means that all are: then the list is the cheap way again
PLAN_COST = 2e-5  # seconds of rest for each record that a plan reads, so that planning stays below 2 % of a core

_RARE = ("cancelled", "timeout", "deleted")


@dataclass(slots=True, eq=False)
class Entry:
    """One prediction in flight. Times are the loop's, ``created`` is the server's, in Unix seconds.

    Attributes:
        born: When it was created, as well as it is known.
        look: From when on the list is asked for it.
        due: When it may be checked singly (next).
        late: When it should long be finished.
        asked: When it was last checked singly; infinity while a check is on its way.
        missed: When it last certainly was not finished.
        deadline: The soonest of its watches.
        single: The list can't tell it.
        unknown: 404s in a row.
        refused: Other refusals, and completed answers without outputs, in a row.
    """

    id: str
    model: str = ""
    created: float | None = None
    born: float = 0.0
    look: float = 0.0
    due: float = 0.0
    late: float = math.inf
    asked: float = -math.inf
    missed: float = -math.inf
    deadline: float = math.inf
    single: bool = False
    unknown: int = 0
    refused: int = 0
    watches: list[Any] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Outlook:
    """What a plan depends on besides the records. Times are the loop's.

    Attributes:
        listing: Whether the list may be asked at all now.
        suspicious: Whether it did not show something that single checks had shown.
        proven: Whether it has shown all of that, several times in a row.
        patient: Whether results are pushed, and asking is only the net below.
        paused: No request before this.
        checking: How many single checks are on their way.
        sweeping: Whether a sweep is.
        swept: When the last sweep for completed ones started.
        again: When the next may start.
        failures: When the next for failed ones is due.
        rare: When the next for a rarer ending is due.
        audit: When the next single check of a job that the list covers is due.
        pages: How many pages the last sweep took.
        rarity: Which of the rarer endings is next.
    """

    listing: bool = True
    suspicious: bool = False
    proven: bool = False
    patient: bool = False
    paused: float = -math.inf
    checking: int = 0
    sweeping: bool = False
    swept: float = -math.inf
    again: float = -math.inf
    failures: float = -math.inf
    rare: float = -math.inf
    audit: float = -math.inf
    pages: int = 1
    rarity: int = 0


class Window(NamedTuple):
    """One question to the list: predictions of one status, created from ``after`` to ``before`` (Unix seconds).

    ``entries`` are those for whose sake it is asked.
    """

    status: str
    after: float
    before: float
    model: str | None
    entries: Sequence[Entry] = ()


@dataclass(slots=True, eq=False)
class Plan:
    """What to do now, and when to plan again at the latest."""

    expired: list[Entry] = field(default_factory=list)
    checks: list[Entry] = field(default_factory=list)
    sweeps: list[Window] = field(default_factory=list)
    wake: float = math.inf


def pause_between_plans(entries: int) -> float:
    """Seconds between two plans at least."""
    return 0.001 + PLAN_COST * entries


def sweep_interval(ripe: int, pages: int) -> float:
    """Seconds between two sweeps: `SWEEP_EVERY` for many, longer for few jobs or many pages."""
    return max(SWEEP_EVERY, PAGE_REST * pages, min(SWEEP_RARELY, 2 * SWEEP_RARELY / max(1, ripe)))


def make_plan(entries: Iterable[Entry], now: float, outlook: Outlook) -> Plan:
    """Decide what to ask next. Changes nothing but the outlook's appointments and which entries are told singly.

    Those that the list can tell are left to it when they are many; of them, the one that has waited longest is
    checked singly now and then, as an audit of the list. All others are checked singly when they are due.
    """
    plan, sorts = _sorted(entries, now)
    if now < outlook.paused:
        plan.wake = min(plan.wake, outlook.paused)
    elif not outlook.listing or len(sorts.ripe) + len(sorts.young) < FEW:
        _check(plan, sorts.alone + sorts.ripe + sorts.young, now, outlook)
    else:
        _use_list(plan, sorts, now, outlook)
    return plan


class _Sorts(NamedTuple):
    """Those that the list can't tell, those that it may tell now, those too young."""

    alone: list[Entry]
    ripe: list[Entry]
    young: list[Entry]


def _sorted(entries: Iterable[Entry], now: float) -> tuple[Plan, _Sorts]:
    """A plan that knows the expired and their deadlines, and the others by sort; in one quick pass."""
    expired: list[Entry] = []
    alone: list[Entry] = []
    ripe: list[Entry] = []
    young: list[Entry] = []
    wake = math.inf
    for entry in entries:
        if entry.deadline < wake:  # of most it is not, as they come in the order of their deadlines
            if entry.deadline <= now:
                expired.append(entry)
                continue
            wake = entry.deadline
        if entry.single or entry.created is None:
            alone.append(entry)
        elif entry.look <= now:
            ripe.append(entry)
        else:
            young.append(entry)
    return Plan(expired=expired, wake=wake), _Sorts(alone, ripe, young)


def _use_list(plan: Plan, sorts: _Sorts, now: float, outlook: Outlook) -> None:
    covered: list[Entry] = []
    stragglers = sorts.ripe
    if len(sorts.ripe) >= FEW:
        covered, stragglers = _parted(sorts.ripe, now, outlook)
        for entry in stragglers:
            entry.single = True
    _check(plan, sorts.alone + stragglers, now, outlook)
    _audit(plan, covered, now, outlook)
    if not covered:  # otherwise the next sweep is soon enough for those who ripen meanwhile
        plan.wake = min(plan.wake, min([entry.look for entry in sorts.young], default=math.inf))
    _sweep(plan, covered, sorts.ripe + sorts.young, now, outlook)


def _parted(ripe: list[Entry], now: float, outlook: Outlook) -> tuple[list[Entry], list[Entry]]:
    """Those to ask the list for, and the few so late that they alone would make it longer."""
    if outlook.pages < 2:  # noqa: PLR2004 - one page is the least there is
        return ripe, []
    late = [entry for entry in ripe if entry.late <= now]
    if not 0 < len(late) <= max(2, STRAGGLERS * len(ripe)) or len(ripe) - len(late) < FEW:
        return ripe, []
    return [entry for entry in ripe if entry.late > now], late


def _check(plan: Plan, entries: list[Entry], now: float, outlook: Outlook) -> None:
    free = MOST_CHECKS - outlook.checking - len(plan.checks)
    due = []
    for entry in entries:
        when = max(entry.due, entry.asked + SPACING)
        if when <= now:
            due.append(entry)
        else:
            plan.wake = min(plan.wake, when)
    if len(due) > free:  # the next plan is made when one of those on the way has its answer
        due.sort(key=_due)
        del due[max(0, free) :]
    plan.checks += due


def _audit(plan: Plan, covered: list[Entry], now: float, outlook: Outlook) -> None:
    if not covered:
        return
    if outlook.suspicious:
        outlook.audit = min(outlook.audit, now + SUSPICIOUS_EVERY)
    if now < outlook.audit:
        return  # a sweep will come by before long
    candidates = [entry for entry in covered if entry.due <= now and entry.asked + SPACING <= now]
    if candidates and outlook.checking + len(plan.checks) < MOST_CHECKS:
        plan.checks.append(min(candidates, key=_born))
        usual = AUDIT_RARELY if outlook.proven else AUDIT_EVERY
        outlook.audit = now + (SUSPICIOUS_EVERY if outlook.suspicious else usual)


def _sweep(plan: Plan, covered: list[Entry], listed: list[Entry], now: float, outlook: Outlook) -> None:
    if outlook.sweeping:
        return  # its end is followed by a plan
    if covered:
        interval = sweep_interval(len(covered), outlook.pages)
        due = now >= outlook.swept + interval
        if due:
            plan.sweeps.append(_window("completed", covered))
            outlook.swept = now
        outlook.again = outlook.swept + interval
        plan.wake = min(plan.wake, outlook.again)
        if not due:
            return  # the others go along with the next: to wake up for each of them costs as much as to ask
    elif outlook.patient:
        return  # failures are pushed, too
    patience = max(1.0, MANY / len(listed))
    if now >= outlook.failures:
        plan.sweeps.append(_window("failed", listed))
        outlook.failures = now + FAILURES_EVERY * patience
    if now >= outlook.rare:
        plan.sweeps.append(_window(_RARE[outlook.rarity], listed))
        outlook.rarity = (outlook.rarity + 1) % len(_RARE)
        outlook.rare = now + RARE_EVERY * patience
    if not covered:
        plan.wake = min(plan.wake, outlook.failures, outlook.rare)


def _window(status: str, entries: list[Entry]) -> Window:
    """Of entries that the list can tell: each of them knows when it was created."""
    times = list(map(_created, entries))  # a window holds hundreds: no step of it is Python's
    models = set(map(_model, entries))
    return Window(status, min(times), max(times), models.pop() or None if len(models) == 1 else None, entries)


_due: Callable[[Entry], float] = attrgetter("due")
_born: Callable[[Entry], float] = attrgetter("born")
_created: Callable[[Entry], float] = attrgetter("created")
_model: Callable[[Entry], str] = attrgetter("model")
