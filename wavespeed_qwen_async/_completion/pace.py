"""How long jobs of a model have lately taken, learned as they end, purely. All times are in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

__all__ = ["LONGEST_REST", "SPACING", "Pace", "Paces", "Schedule", "rest"]

SPACING = 2.05  # the documentation asks for at least 2 s between two checks of an image task (wavespeed-api.md)
LONGEST_REST = 30.0
_GROWTH = 0.22  # of the age: the second and third check come as soon as allowed, later ones ever more rarely
_JITTER = 0.1

# The pages of both models: 6 to 10 s for text to image, 6 to 12 s for edits (wavespeed-api.md, models). What was seen
# weighs as much as these after eight jobs.
_SEED_TEXT = tuple(6.0 + 4.0 * step / 7 for step in range(8))
_SEED_EDIT = tuple(6.0 + 6.0 * step / 7 for step in range(8))
_REMEMBERED = 64
_REFRESH = 8
_UNMISSED = 0.7
_MUCH = 1.1


class Schedule(NamedTuple):
    """When to look for a job, in seconds since it was created.

    Attributes:
        look: From here on it may be finished, and the list is worth asking. Rather too soon than too late: a question
            to the list that finds nothing costs little.
        check: A single check has a fair chance.
        late: It should long be finished.
    """

    look: float
    check: float
    late: float


class Pace:
    """How long jobs of one model have lately taken.

    A new duration takes the place of any of those remembered, not of the oldest: jobs submitted together end in the
    order of their durations, so that the last hundred to end would all be long ones.
    """

    def __init__(self, rng: random.Random, seed: tuple[float, ...] = _SEED_EDIT) -> None:
        self._rng = rng
        self._durations = list(seed)
        self._fresh = 0
        self._schedule = _schedule(sorted(self._durations))
        self._told = self._schedule.late

    @property
    def schedule(self) -> Schedule:
        """When to look for the next job."""
        if self._fresh >= _REFRESH:
            self._fresh = 0
            self._schedule = _schedule(sorted(self._durations))
        return self._schedule

    def slower(self) -> bool:
        """Whether jobs have come to take much longer since this was last asked."""
        late = self.schedule.late
        if late <= _MUCH * self._told:
            return False
        self._told = late
        return True

    def learn(self, seen: float, *, missed: float = 0.0, told: float | None = None) -> None:
        """Take in a job found completed at age ``seen``.

        ``missed`` is the age at which it certainly was not yet completed (0: never asked before), ``told`` what the
        server says that it took, its time in the queue left out. A job that was never missed may have ended long
        before it was seen: then less than its age is learned, or the schedule could never move down again.
        """
        guess = told if told is not None else seen if missed > 0 else _UNMISSED * seen
        duration = max(missed, min(guess, seen))
        if len(self._durations) < _REMEMBERED:
            self._durations.append(duration)
        else:
            self._durations[int(self._rng.random() * _REMEMBERED)] = duration
        self._fresh += 1


class Paces:
    """One pace a model."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._by_model: dict[str, Pace] = {}

    def __getitem__(self, model: str) -> Pace:
        pace = self._by_model.get(model)
        if pace is None:
            pace = Pace(self._rng, _SEED_TEXT if "text-to-image" in model else _SEED_EDIT)
            self._by_model[model] = pace
        return pace


def rest(age: float, rng: random.Random) -> float:
    """Seconds until a job of this age is checked singly again: 2 s at first, then growing with its age."""
    return min(LONGEST_REST, max(SPACING, _GROWTH * age)) * rng.uniform(1.0, 1.0 + _JITTER)


def _schedule(durations: list[float]) -> Schedule:
    soonest, third, longest = (durations[int(share * (len(durations) - 1))] for share in (0.02, 0.35, 0.98))
    return Schedule(0.8 * soonest, third, 1.2 * longest + 2.0)
