"""What an account may do: submits in a moving window, and tasks that run at once."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Final, Literal

Tier = Literal["bronze", "silver", "gold", "ultra"]

TIERS: Final[dict[str, tuple[int, int]]] = {
    "bronze": (2, 2),
    "silver": (500, 300),
    "gold": (3_000, 3_000),
    "ultra": (5_000, 10_000),
}
"""Tier to (images a minute, tasks at once), as the vendor's documentation has it."""


class SlidingWindow:
    """A strict moving window: never more than `limit` hits in any `window` seconds."""

    def __init__(self, limit: int | None, window: float) -> None:
        self.limit = limit
        self.window = window
        self._hits: deque[float] = deque()

    def wait(self, now: float) -> float:
        """Return the seconds until one more hit is allowed: 0.0 if it is allowed now."""
        if self.limit is None:
            return 0.0
        hits, edge = self._hits, now - self.window
        while hits and hits[0] <= edge:
            hits.popleft()
        if len(hits) < self.limit:
            return 0.0
        if self.limit == 0:
            return self.window
        return hits[len(hits) - self.limit] - edge

    def hit(self, now: float) -> None:
        """Count one hit."""
        if self.limit is not None:
            self._hits.append(now)


class Slots:
    """First come, first served places, worked out when a task arrives: nothing has to tick."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._ends: list[float] = []

    def start_time(self, now: float) -> float:
        """Return when a task that arrives now gets its place."""
        if self.limit is None or len(self._ends) < self.limit:
            return now
        return max(now, self._ends[0])

    def take(self, end: float) -> None:
        """Hold the place given by `start_time` until `end`."""
        if self.limit is None:
            return
        if len(self._ends) < self.limit:
            heapq.heappush(self._ends, end)
        else:
            heapq.heapreplace(self._ends, end)
