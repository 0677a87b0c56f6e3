"""Which prediction of the account is the one of a submit whose answer was lost; decided purely.

The drawn seed makes a job's inputs its own, so where the list carries inputs they decide. Where it does not, only
time is left, and that is believed when there is exactly one prediction that could be meant, and one job that could
mean it. "It never arrived" is believed only of a list that is shown to be fresh and whole past that moment.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

__all__ = ["Listing", "Rival", "Seen", "Verdict", "Wanted", "alike", "fingerprint", "judge"]

GUARD = 30.0
"""Seconds around a window in which a second unknown prediction forbids to go by time alone."""
RETENTION = 7 * 24 * 3600.0 - 3600.0
"""Seconds that the list remembers (wavespeed-api.md), less a margin."""


class Likeness(Enum):
    """How far a listed prediction is what was sent."""

    SAME = 1
    MAYBE = 2
    DIFFERENT = 3


class Verdict(Enum):
    """What the list says of a lost submit, besides its prediction."""

    ABSENT = "it never arrived"
    WAIT = "nothing certain yet"
    AMBIGUOUS = "more than one prediction could be meant"
    TOO_OLD = "older than the list remembers"


class Wanted(NamedTuple):
    """A lost submit: what was sent, and when by the server's clock (Unix seconds, margins included).

    Its prediction was made between ``after`` and ``before``, and most likely not later than ``soon``: who sent it may
    be long gone, and then it can only be said that it can't come any more.
    """

    model: str
    inputs: Mapping[str, Any]
    after: float
    before: float
    soon: float = float("inf")


class Rival(NamedTuple):
    """A submit whose answer is still to come: a prediction in the list may be its own."""

    model: str
    print: str
    since: float


class Seen(NamedTuple):
    """A prediction in the list; ``created`` is in Unix seconds by the server's clock."""

    id: str
    model: str
    created: float | None
    inputs: Mapping[str, Any] | None


class Listing(NamedTuple):
    """The account's predictions in a span of time, as they were read.

    Attributes:
        seen: All of them.
        held: Those of them that are some job's already.
        now: The server's clock when it was read.
        whole: It shows all that is known, from elsewhere, to be in it.
    """

    seen: Sequence[Seen]
    held: frozenset[str]
    now: float
    whole: bool


def fingerprint(model: str, inputs: Mapping[str, Any]) -> str:
    """The same for jobs that are interchangeable."""
    return model + json.dumps(inputs, sort_keys=True, ensure_ascii=False)


def alike(wanted: Wanted, seen: Seen) -> Likeness:
    """Compare what was sent with what is listed, which may leave out parts, add defaults, or write them otherwise."""
    if seen.model and seen.model != wanted.model:
        return Likeness.DIFFERENT
    if not seen.inputs:
        return Likeness.MAYBE
    sent, listed = wanted.inputs, seen.inputs
    drawn, seed = _whole(sent.get("seed")), _whole(listed.get("seed"))
    drawn = None if drawn == -1 else drawn  # the server draws one: whatever is listed is no contradiction
    if _prompts_differ(sent, listed) or (drawn is not None and seed is not None and seed != drawn):
        return Likeness.DIFFERENT
    whole = "prompt" in listed and (drawn is None or seed is not None)
    others = (name for name in sent if name in listed and name != "seed")
    return (
        Likeness.SAME
        if whole and all(_plain(name, sent) == _plain(name, listed) for name in others)
        else Likeness.MAYBE
    )


def _prompts_differ(sent: Mapping[str, Any], listed: Mapping[str, Any]) -> bool:
    ours, theirs = _plain("prompt", sent), _plain("prompt", listed)
    if not isinstance(theirs, str) or not isinstance(ours, str):
        return False
    return not ours.startswith(theirs) and not theirs.startswith(ours)  # a list may cut long texts


def _whole(value: Any) -> int | None:
    try:
        return None if value is None or isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):  # a list may say anything
        return None


def _plain(name: str, inputs: Mapping[str, Any]) -> Any:
    """A parameter in a form that does not depend on how a server writes it."""
    value = inputs.get(name)
    if name == "prompt" and isinstance(value, str):
        return " ".join(value.split())
    if name == "size" and isinstance(value, str):
        return value.lower().replace("x", "*").replace(" ", "")
    if name == "loras" and isinstance(value, list):
        return [(item.get("path"), item.get("scale", 1.0)) if isinstance(item, Mapping) else item for item in value]
    return value


def judge(wanted: Sequence[Wanted], listing: Listing, rivals: Sequence[Rival], *, settle: float) -> list[str | Verdict]:
    """For each lost submit the id of its prediction, or what else is to be said of it.

    ``settle``: seconds after which a list is taken to show what happened, even if nothing newer is in it.
    """
    free = [seen for seen in listing.seen if seen.id not in listing.held]
    answers: list[str | Verdict] = [Verdict.WAIT] * len(wanted)
    taken = _by_content(wanted, free, rivals, answers)
    left = [seen for seen in free if seen.id not in taken]
    newest = max((seen.created for seen in listing.seen if seen.created is not None), default=float("-inf"))
    for place, one in enumerate(wanted):
        if isinstance(answers[place], str):
            continue
        settled = listing.now > one.before + settle
        if listing.now - one.after > RETENTION:
            answers[place] = Verdict.TOO_OLD
        elif settled or newest > one.before:
            open_ones = [other for other, answer in zip(wanted, answers, strict=True) if not isinstance(answer, str)]
            answers[place] = _by_time(one, open_ones, left, rivals, whole=listing.whole, settled=settled)
    return _once_each(answers)


def _by_content(
    wanted: Sequence[Wanted], free: Sequence[Seen], rivals: Sequence[Rival], answers: list[str | Verdict]
) -> set[str]:
    """Settle those whose inputs are in the list. Equal jobs are interchangeable, and each takes one."""
    taken: set[str] = set()
    equal: defaultdict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(wanted):
        equal[fingerprint(one.model, one.inputs)].append(place)
    airborne = {rival.print for rival in rivals}
    for print_, places in equal.items():
        if print_ in airborne:
            continue  # what is in the list may be the other's, whose answer is still to come
        for place in sorted(places, key=lambda place: wanted[place].after):
            one = wanted[place]
            fits = [
                seen
                for seen in free
                if seen.id not in taken and _within(one, seen) and alike(one, seen) is Likeness.SAME
            ]
            if fits:
                first = min(fits, key=lambda seen: seen.created or 0.0)
                answers[place] = first.id
                taken.add(first.id)
    return taken


def _by_time(
    one: Wanted,
    others: Sequence[Wanted],
    left: Sequence[Seen],
    rivals: Sequence[Rival],
    *,
    whole: bool,
    settled: bool,
) -> str | Verdict:
    """Settle one whose inputs the list does not show, from a list that is fresh past its moment."""
    fits = [seen for seen in left if _within(one, seen) and alike(one, seen) is not Likeness.DIFFERENT]
    in_the_air = any(rival.model == one.model and rival.since <= one.before for rival in rivals)
    if not fits:
        own = any(rival.print == fingerprint(one.model, one.inputs) for rival in rivals)
        return Verdict.ABSENT if whole and not own else Verdict.WAIT
    if in_the_air:
        return Verdict.WAIT  # one of them may be the other's
    near = [seen for seen in left if _within(one, seen, GUARD) and alike(one, seen) is not Likeness.DIFFERENT]
    mine = [other for other in others if any(_fits(other, seen) for seen in fits)]
    created = fits[0].created
    if len(near) == 1 and len(mine) == 1 and whole and created is not None and created <= one.soon:
        return fits[0].id
    return Verdict.AMBIGUOUS if settled else Verdict.WAIT


def _fits(wanted: Wanted, seen: Seen) -> bool:
    return _within(wanted, seen) and alike(wanted, seen) is not Likeness.DIFFERENT


def _within(wanted: Wanted, seen: Seen, guard: float = 0.0) -> bool:
    return seen.created is None or wanted.after - guard <= seen.created <= wanted.before + guard


def _once_each(answers: list[str | Verdict]) -> list[str | Verdict]:
    """Never one prediction for two jobs, whatever led there."""
    given: set[str] = set()
    for place, answer in enumerate(answers):
        if isinstance(answer, str):
            if answer in given:
                answers[place] = Verdict.WAIT
            given.add(answer)
    return answers
