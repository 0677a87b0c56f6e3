"""The one pause that all submits share, how they come out of it, and when to give up: arithmetic without a clock.

A pause ends with a trial: one send leaves, and the others wait for its answer. So a server that goes on refusing
gets one request a pause instead of a herd, and each pause is longer than the last.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from .rate import LATEST_ARRIVAL

if TYPE_CHECKING:
    from .rate import Send

__all__ = ["Breaker", "Pause", "PauseReason"]

PauseReason = Literal["rate limit", "server errors"]

_FAILURES = 5  # lost answers and 5xx in a row before all submits pause; each of them may have cost an image
_SHORTEST = 2.0  # seconds


class Breaker(NamedTuple):
    """When to give up: after `answers` refusals or failures in a row over at least `seconds`, none accepted between.

    A server that asks for a longer pause than `seconds` is given up at once.
    """

    seconds: float = 300.0
    answers: int = 5


class Pause:
    """Whether submits pause, and since how many answers the server has accepted nothing.

    Attributes:
        until: When the pause ends or ended; later than now while it lasts.
        reason: Why the last pause began.
        broken: The breaker is open: until the pause ends no submit waits, each fails. Then one is tried again.
        episode: Counts the pauses. A send carries the number of the time it left in: answers to those that left
            before a pause began say nothing new.
    """

    def __init__(self, window: float, breaker: Breaker) -> None:
        self._window = window
        self._breaker = breaker
        self._trial: Send | None = None
        self._on_trial = False
        self._in_a_row = 0  # pauses
        self._failures = 0
        self._bad_answers = 0
        self._bad_since = 0.0
        self.until = -math.inf
        self.reason: PauseReason = "rate limit"
        self.broken = False
        self.episode = 0

    def free_at(self, now: float) -> float:
        """When, as far as is known now, a send may leave. The trial's answer can make it earlier."""
        if now < self.until or self._trial is None:
            return self.until
        patience = LATEST_ARRIVAL if self.reason == "rate limit" else self._window
        if now < self._trial.started + patience:
            return self._trial.started + patience
        # A refusal comes quickly: no answer yet is as good as accepted. A server in trouble gets another trial.
        self._trial = None
        self._on_trial = self.reason == "server errors"
        return now

    def sent(self, send: Send) -> None:
        """A send leaves: the trial, if one is due."""
        if self._on_trial:
            self._trial = send

    def settled(self, send: Send) -> None:
        """Its answer came, or it was given up without one: the next may be the trial."""
        if self._trial is send:
            self._trial = None

    def accepted(self, send: Send) -> bool:
        """The server works: it took the send, or answered that this one request was wrong. True if it was the trial."""
        if send.episode != self.episode:
            return False
        was_trial, self._on_trial = self._on_trial, False
        self.broken = False
        self._in_a_row = self._failures = self._bad_answers = 0
        return was_trial

    def refused(self, send: Send, now: float, retry_after: float | None, rest: float) -> bool:
        """The send was answered 429; `rest` is the pause where the server asks for none. True if this is news."""
        if send.episode != self.episode:
            if retry_after is not None and self.reason == "rate limit":
                self.until = max(self.until, now + retry_after)
                self.broken = self.broken or retry_after > self._breaker.seconds
            return False
        self._bad(now)
        self._begin("rate limit", now, max(_SHORTEST, rest) if retry_after is None else retry_after)
        return True

    def failed(self, send: Send, now: float) -> bool:
        """The send was answered 5xx, or not at all. True if this begins a pause."""
        if send.episode != self.episode:
            return False
        self._bad(now)
        self._failures += 1
        if self._failures < _FAILURES and not self._on_trial:
            return False
        self._begin("server errors", now, _SHORTEST)
        return True

    def _bad(self, now: float) -> None:
        if self._bad_answers == 0:
            self._bad_since = now
        self._bad_answers += 1

    def _begin(self, reason: PauseReason, now: float, seconds: float) -> None:
        if self._in_a_row:
            seconds = max(seconds, min(self._window, _SHORTEST * 2.0 ** min(self._in_a_row, 30)))
        self._in_a_row += 1
        self.episode += 1
        self.reason = reason
        self._on_trial = True
        self._trial = None
        lasted = now - self._bad_since
        if seconds > self._breaker.seconds or (
            self._bad_answers >= self._breaker.answers and lasted >= self._breaker.seconds
        ):
            self.broken = True
            seconds = max(seconds, self._window)
        self.until = now + seconds
