"""How many submits may leave, and when: plain arithmetic that is told what time it is.

Not aiolimiter: ``AsyncLimiter(50, 6)`` lets 99 through in one window of 6 s (its bucket empties while it is being
filled; measured, design.md), and an account's limit holds for every window, wherever it begins. Its waiters may
also be overtaken, and it knows neither pauses nor permits that are given back.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CATCH_UP", "LATEST_ARRIVAL", "MARGIN", "SLACK", "Pace", "Send", "SendWindow"]

MARGIN = 0.010
"""Seconds by which a send is remembered longer than the window: for servers that count both edges, for floats, and
for clocks that run apart (200 millionths, four times what quartz does, are 12 ms a minute). Costs 1/6000."""

LATEST_ARRIVAL = 5.0
"""Seconds after which a send without an answer is taken to have reached the server, if it ever will. An answer that
takes longer (sync mode holds it back until the image is there) then costs no more of the allowance than this."""

CATCH_UP = 0.5
"""Seconds of lateness (a busy event loop, a window that opened late) that the pace makes up for by sending faster."""

SLACK = 1e-6
"""Seconds that are no time at all: one microsecond, below what timers resolve and above what floats lose."""


GATHER = 0.1
"""Seconds between two times that the pace lets somebody go, at least: above ten a second a few leave together. To wake
up for each costs as much again as the submit itself. What is late by it is made up for (`CATCH_UP`)."""

WAYS = 48
"""Submits that leave within `SLOW` seconds and are on the way to the server at once, to begin with; twice as many with
those that are slow. A steep start would otherwise open a connection, with TLS, for each of hundreds, and ultra's 83 a
second need no more than that where an answer takes a second."""

SLOW = 0.5
"""Seconds from which an answer is slow: then another may leave beside it, and more at once, to keep up the rate."""

MOST_WAYS = 1000


class _Owner(Protocol):
    def cancel(self, send: Send) -> None: ...

    def stay(self, send: Send) -> None: ...

    def leave(self, send: Send) -> None: ...


class Send:
    """Permission for one send of a submit, used up when it leaves and settled when its answer is reported.

    Attributes:
        started: Loop time at which it was given.
        settled: Whether its answer was reported, or it was cancelled.
        stays: Whether something is written down before it leaves.
    """

    __slots__ = ("_owner", "aged", "episode", "settled", "started", "stays")

    def __init__(self, owner: _Owner, started: float, episode: int) -> None:
        self._owner = owner
        self.started: float = started
        self.episode: int = episode
        self.settled: bool = False
        self.aged: bool = False
        self.stays: bool = False

    def __repr__(self) -> str:
        return f"<Send started={self.started:.6f} {'settled' if self.settled else 'under way'}>"

    def cancel(self) -> None:
        """Say that no answer will be reported. It counts as one without an answer; after a report this does nothing."""
        self._owner.cancel(self)

    def stay(self) -> None:
        """Say that something is written down first, so that others may be on the way to the server meanwhile."""
        self._owner.stay(self)

    def leave(self) -> None:
        """Say that it leaves now, after ``stay``."""
        self._owner.leave(self)


class SendWindow:
    """The sends that the server may still be counting.

    One that left at `s` and was answered at `r` arrived somewhere in between. So a send may leave at `t` if fewer
    than the limit are unanswered or were answered after ``t - length``: whatever the network does, no window of the
    server's can then hold more (take the last to leave of those that arrive in one window: all others of that window
    were counted when it left). That costs the time of one answer a window, and guesses nothing.

    Every method takes `now`, which never goes back. Memory and time: one float a send, amortised constant.

    Args:
        length: Seconds.
        ways: How many that left lately may be on the way unanswered, to begin with. Each slow answer makes it one more.
            As many may stay beside them, to be written down.
    """

    def __init__(self, length: float, ways: int = WAYS) -> None:
        self.length = length
        self._under_way: deque[Send] = deque()
        self._unanswered = 0
        self._staying = 0
        self._ways = ways
        self._answered: deque[float] = deque()
        self._left: deque[float] = deque()
        self._refused: deque[float] = deque()

    def add(self, send: Send) -> None:
        """A send leaves."""
        self._under_way.append(send)
        self._unanswered += 1
        self._left.append(send.started)
        _drop(self._left, send.started - self.length)

    def stay(self, send: Send) -> None:
        """It does not leave yet."""
        if not (send.stays or send.settled or send.aged):
            send.stays = True
            self._staying += 1

    def leave(self, send: Send) -> None:
        """Now it does."""
        if send.stays:
            send.stays = False
            self._staying -= 1

    def settle(self, send: Send, now: float, *, arrived: bool = True, accepted: bool = True) -> None:
        """A send's answer is there: it `arrived` or never left; if it arrived it was `accepted`, as far as we know."""
        self._age(now)
        self.leave(send)
        send.settled = True
        if not accepted:
            self._refused.append(send.started)
            _drop(self._refused, now - self.length)
        if now - send.started > SLOW and self._ways < MOST_WAYS:
            self._ways += 1
        if send.aged:  # counted as arrived some time ago
            return
        self._unanswered -= 1
        if arrived:
            self._count(now)

    def abandon(self, send: Send, now: float) -> None:
        """A send's answer will never be known. Its connection is cut, but what is on the way may arrive yet."""
        self._age(now)
        self.leave(send)
        send.settled = True
        if not send.aged:
            self._unanswered -= 1
            self._count(send.started + LATEST_ARRIVAL)

    def seed(self, ages: Iterable[float], now: float) -> None:
        """Count sends from before a restart, each `ages` seconds ago; some may have yet to arrive."""
        times = [now - max(0.0, age) for age in ages]
        self._left = deque(sorted([*self._left, *times]))
        self._answered = deque(sorted([*self._answered, *(at + LATEST_ARRIVAL for at in times)]))
        self._forget(now)

    def used(self, now: float) -> int:
        """How many sends the server may be counting."""
        self._age(now)
        answered = self._answered
        if answered and answered[0] <= now - self.length - MARGIN + SLACK:
            self._forget(now)
        return self._unanswered + len(answered)

    def accepted(self, now: float) -> int:
        """How many left within the window that ends `now` and were not refused, those without an answer included.

        `now` may lie ahead. Looks at each send of the window: for the rare refusal.
        """
        edge = now - self.length
        return max(0, sum(at > edge for at in self._left) - sum(at > edge for at in self._refused))

    def wasted(self, until: float, now: float) -> float:
        """The share of a window, 0.0 to 1.0, that a pause from `now` on loses, as far as one's own sends can tell.

        None, where the window is full all the while: whether because its sends leave it after the pause (a moving
        window) or because they are still in it when the pause ends (a minute of the clock).
        """
        oldest = next((at for at in self._left if at > now - self.length), until)
        needless = (until - oldest - self.length) / self.length
        emptied = 1.0 - self.accepted(until) / max(1, self.accepted(now))
        return max(0.0, min(1.0, needless, emptied))

    def free_at(self, limit: int, now: float) -> float:
        """When, as far as is known now, one more may leave. An answer can make it earlier, never later."""
        excess = self.used(now) - limit
        if excess < 0:
            most = max(self._staying, self._unanswered - self._staying)
            if most < self._ways:
                return now
            if most < 2 * self._ways:  # a server that answers nothing gets no more than that
                return self._way_free_at(now)
        elif excess < len(self._answered):
            return self._answered[excess] + self.length + MARGIN
        # All that is answered will not do: wait for an answer, or until the oldest is taken to have arrived.
        oldest = next((send.started for send in self._under_way if not send.settled), now)
        return oldest + LATEST_ARRIVAL

    def _way_free_at(self, now: float) -> float:
        """The same for the ways alone: one is free when the answer comes, or turns out to be slow."""
        taken = [0, 0]
        for send in reversed(self._under_way):
            if send.started <= now - SLOW:
                break
            taken[send.stays] += not send.settled
            if taken[send.stays] == self._ways:
                return send.started + SLOW
        return now

    def rest(self, now: float) -> float:
        """Seconds until the oldest send that is counted leaves the window; the whole window if there is none."""
        self._forget(now)
        return self._answered[0] + self.length + MARGIN - now if self._answered else self.length

    def _age(self, now: float) -> None:
        while self._under_way:
            send = self._under_way[0]
            if not send.settled:
                if send.started + LATEST_ARRIVAL > now + SLACK:
                    return
                self.leave(send)
                send.aged = True
                self._unanswered -= 1
                self._count(send.started + LATEST_ARRIVAL)
            self._under_way.popleft()

    def _count(self, at: float) -> None:
        """One arrived by then. Those that may yet arrive lie ahead of it, for seconds after a restart."""
        if self._answered and at < self._answered[-1]:
            insort(self._answered, at)
        else:
            self._answered.append(at)

    def _forget(self, now: float) -> None:
        _drop(self._answered, now - self.length - MARGIN + SLACK)


def _drop(times: deque[float], until: float) -> None:
    while times and times[0] <= until:
        times.popleft()


class Pace:
    """Evenly spaced sends: a bucket of tokens that fills at ``allowance / window`` a second, one token a send.

    Args:
        window: Seconds.
        burst: How many may leave at once after a quiet time; 0 or 1: no more than `CATCH_UP` is worth;
            infinite: no pace, the window alone.
    """

    def __init__(self, window: float, burst: float) -> None:
        self._window = window
        self._burst = burst
        self._tokens = math.inf
        self._at = -math.inf

    def due(self, allowance: float) -> float:
        """When the next send is due at this allowance."""
        return self._at + max(0.0, 1.0 - self._tokens) * self._window / allowance

    def sent(self, now: float, allowance: float) -> None:
        """One leaves."""
        rate = allowance / self._window
        filled = self._tokens + max(0.0, now - self._at) * rate
        self._tokens = min(filled, max(self._burst, 1.0 + CATCH_UP * rate)) - 1.0
        self._at = max(self._at, now)

    def unsent(self) -> None:
        """One did not leave after all."""
        self._tokens += 1.0

    def hold(self, until: float) -> None:
        """Begin anew at `until`, one at a time: what could have been sent before is not made up for."""
        self._tokens = 1.0 if until > self._at else min(self._tokens, 1.0)
        self._at = max(self._at, until)
