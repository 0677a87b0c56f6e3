"""The limits of an account: how many images a minute, how many at once, and one pause when the server says stop.

A `Limits` is shared by all submits of a session, and may be shared by several sessions of one event loop. The parts:
`_limits.slots` (places in line), `rate` (window and pace), `learning` (what the server really allows), `pause` (pause,
trial, breaker), all plain arithmetic, and `gate`, which puts them on the clock. docs/limits.md explains them to users.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from aiolimiter import AsyncLimiter

from ._limits.gate import Gate
from ._limits.pause import Breaker
from ._limits.rate import Send
from ._limits.slots import Slot, Slots, check_count
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from contextlib import AbstractAsyncContextManager

    from .errors import WaveSpeedError

__all__ = ["AccountTier", "Limiter", "Limits", "LimitsSnapshot", "Send", "Slot"]


class AccountTier(StrEnum):
    """The account's tier, which sets its limits (wavespeed-api.md, "Limits of an account")."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"
    ULTRA = "ultra"

    @property
    def max_per_minute(self) -> int:
        """Images a minute: 2, 500, 3,000 or 5,000."""
        return _TIERS[self][0]

    @property
    def max_in_flight(self) -> int:
        """Tasks at once: 2, 300, 3,000 or 10,000."""
        return _TIERS[self][1]


_TIERS = {
    AccountTier.BRONZE: (2, 2),
    AccountTier.SILVER: (500, 300),
    AccountTier.GOLD: (3_000, 3_000),
    AccountTier.ULTRA: (5_000, 10_000),
}


@dataclass(frozen=True, slots=True)
class LimitsSnapshot:
    """What a `Limits` is doing, for progress bars and metrics. Counts of now, unless they say otherwise.

    Attributes:
        max_per_minute: The configured rate.
        allowance: Submits a window that are sent at most now; below `max_per_minute` after refusals.
        learned: Whether `allowance` was learned from refusals.
        assumed: No tier was given: the figures are silver's.
        used: Sends that the server may be counting in its window.
        sent: Sends in all.
        refused: Refusals (429) in all.
        waiting: Submits that wait for their turn to leave.
        max_in_flight: The configured number of slots.
        in_flight: Slots held.
        waiting_for_slot: Jobs that wait for a slot.
        paused_for: Seconds that all submits still pause; 0.0 while they don't.
        pauses: Pauses in all.
        pause_reason: ``"rate limit"`` or ``"server errors"`` while they pause, else None.
        broken: The breaker is open: submits fail instead of waiting.
        downloads: Downloads under way.
        uploads: Uploads under way.
    """

    max_per_minute: int
    allowance: int
    learned: bool
    assumed: bool
    used: int
    sent: int
    refused: int
    waiting: int
    max_in_flight: int
    in_flight: int
    waiting_for_slot: int
    paused_for: float
    pauses: int
    pause_reason: str | None
    broken: bool
    downloads: int
    uploads: int


class Limiter(Protocol):
    """What a session asks of its limits: `Limits`, or something that several machines share.

    For each job: `acquire` a slot; for each send of it `start`, send, `report`; and `Slot.release` when the prediction
    has ended, or never came to be. An implementation for several machines can keep slots and reads of its own (`Slots`
    does) and only decide in `start` and `report`.
    """

    @property
    def max_per_minute(self) -> int:
        """Submits in any 60 s that the whole account may make."""
        ...

    @property
    def max_in_flight(self) -> int:
        """Predictions at once that the whole account may have."""
        ...

    @property
    def assumed(self) -> bool:
        """Whether these figures are a guess."""
        ...

    # Coroutines by their type, not by `async def`: to pyright, such a one only fits another of its kind.
    def acquire(self) -> Coroutine[Any, Any, Slot]:
        """Take a place among the tasks in flight."""
        ...

    def start(self, *, again: bool = False) -> Coroutine[Any, Any, Send]:
        """Wait for permission to send once, before those who have not sent yet if it is sent `again`."""
        ...

    def report(self, send: Send, error: WaveSpeedError | None = None) -> None:
        """Tell how the send ended."""
        ...

    async def read(self) -> None:
        """Wait for permission to ask for results once."""
        ...

    @property
    def downloads(self) -> AbstractAsyncContextManager[None]:
        """A place among the downloads."""
        ...

    @property
    def uploads(self) -> AbstractAsyncContextManager[None]:
        """A place among the uploads."""
        ...

    def seed(self, sent: Iterable[float]) -> None:
        """Count sends from before a restart, given as seconds ago."""
        ...

    def snapshot(self) -> LimitsSnapshot:
        """Tell what they are doing."""
        ...


class Limits:
    """Slots, a window-safe rate, and one shared pause.

    Args:
        max_per_minute: Submits in any 60 s, from 1.
        max_in_flight: Predictions at once, from 1.
        burst: How many may leave at once at first and after quiet times. False: spread evenly. True: the whole
            minute's, 96 on the way at a time, more where answers take over a second. Or a number up to
            `max_per_minute`. No window is broken by it.
        window: Seconds that the server counts over; 60 ("limits reset every minute").
        reads_per_second: Requests for results, lists and the balance, above 0. Default: two for each image that may
            be submitted, and 5 at least. These are not counted by the server's limit, so this is a courtesy.
        downloads: Downloads at once, from 1.
        uploads: Uploads at once, from 1.
        learn: Lower the rate when the server refuses, and climb back.
        breaker_seconds: Give up when no submit was accepted for so long, or a pause longer than this is asked for.
        breaker_answers: ... and at least so many were refused or failed.

    Raises:
        ConfigurationError: A value is out of range.
    """

    def __init__(
        self,
        *,
        max_per_minute: int,
        max_in_flight: int,
        burst: bool | int = False,
        window: float = 60.0,
        reads_per_second: float | None = None,
        downloads: int = 32,
        uploads: int = 8,
        learn: bool = True,
        breaker_seconds: float = 300.0,
        breaker_answers: int = 5,
    ) -> None:
        check_count("max_per_minute", max_per_minute)
        reads = max(5.0, max_per_minute / 30) if reads_per_second is None else reads_per_second
        self._reads_per_second = _check_positive("reads_per_second", reads)
        self._reads: AsyncLimiter | None = None
        self._reads_loop: asyncio.AbstractEventLoop | None = None
        self._max_per_minute = max_per_minute
        self._slots = Slots(max_in_flight, field="max_in_flight")
        self._gate = Gate(
            max_per_minute,
            burst=_burst(burst, max_per_minute),
            window=_check_positive("window", window),
            learn=learn,
            breaker=Breaker(
                _check_positive("breaker_seconds", breaker_seconds), check_count("breaker_answers", breaker_answers)
            ),
        )
        self.downloads: Slots = Slots(downloads, field="downloads")
        self.uploads: Slots = Slots(uploads, field="uploads")
        self.tier: AccountTier | None = None
        self.assumed: bool = False

    @classmethod
    def for_tier(
        cls,
        tier: AccountTier | str | None,
        *,
        max_per_minute: int | None = None,
        max_in_flight: int | None = None,
        **options: Any,
    ) -> Limits:
        """Return the limits of a tier, each figure overridable; without a tier silver's, marked as `assumed`.

        Raises:
            ConfigurationError: No such tier, or a value out of range.
        """
        known = None if tier is None else _tier(tier)
        figures = known or AccountTier.SILVER
        limits = cls(
            max_per_minute=figures.max_per_minute if max_per_minute is None else max_per_minute,
            max_in_flight=figures.max_in_flight if max_in_flight is None else max_in_flight,
            **options,
        )
        limits.tier = known
        limits.assumed = known is None and (max_per_minute is None or max_in_flight is None)
        return limits

    def __repr__(self) -> str:
        now = self.snapshot()
        return (
            f"<Limits {now.used} of {now.allowance} a minute used, {now.in_flight} of {now.max_in_flight} in flight, "
            f"{now.waiting + now.waiting_for_slot} waiting{', assumed' if self.assumed else ''}>"
        )

    @property
    def max_per_minute(self) -> int:
        """Submits in any 60 s. May be changed at any time; a lower rate that was learned stays."""
        return self._max_per_minute

    @max_per_minute.setter
    def max_per_minute(self, value: int) -> None:
        self._max_per_minute = check_count("max_per_minute", value)
        self._gate.allowance.most = value
        self._gate.pump()

    @property
    def max_in_flight(self) -> int:
        """Predictions at once. May be changed at any time; fewer come into force as slots are given back."""
        return self._slots.size

    @max_in_flight.setter
    def max_in_flight(self, value: int) -> None:
        self._slots.size = value

    def acquire(self) -> Coroutine[Any, Any, Slot]:
        """Take a place among the predictions in flight, first come, first served; held until `Slot.release`.

        Cancelled, it takes nothing. When a place is free it doesn't yield to the event loop.
        """
        return self._slots.acquire()

    def start(self, *, again: bool = False) -> Coroutine[Any, Any, Send]:
        """Wait for permission for one send of a submit; first come, first served.

        Cancelled, it takes nothing. To be followed by `report`; a send that is never reported counts as arrived.

        Args:
            again: The job was sent before, and refused: it keeps its place, before those who have not sent yet.

        Raises:
            LimitsBrokenError: The server has refused or failed for so long that the run should end. After
                `retry_after` seconds one submit is tried again.
        """
        return self._gate.start(again=again)

    def report(self, send: Send, error: WaveSpeedError | None = None) -> None:
        """Tell how a send ended, once for each: None accepted, else its error.

        `RateLimitError` begins the shared pause of its `retry_after` seconds, or else until the window's oldest send
        leaves it. `NotSentError` gives the permission back. Many `SubmissionUnknown` in a row pause as well.
        """
        self._gate.report(send, error)

    async def read(self) -> None:
        """Wait for permission for one read: of a result, a list, the balance."""
        loop = asyncio.get_running_loop()
        if self._reads is None or self._reads_loop is not loop:  # aiolimiter's are for one loop each
            amount = max(1.0, self._reads_per_second)
            self._reads = AsyncLimiter(amount, amount / self._reads_per_second)
            self._reads_loop = loop
        await self._reads.acquire()

    def seed(self, sent: Iterable[float]) -> None:
        """Count sends from before a restart, given as seconds ago; call it on the running event loop, before `start`.

        Each may have arrived up to 5 s after it left, and is counted so.

        Raises:
            RuntimeError: No event loop runs.
        """
        self._gate.seed(sent)

    def snapshot(self) -> LimitsSnapshot:
        """Return what the limits are doing now. May be called anywhere, on no loop and on others too."""
        gate, now = self._gate, self._gate.peek()
        paused_for = max(0.0, gate.pause.until - now)
        return LimitsSnapshot(
            max_per_minute=self._max_per_minute,
            allowance=gate.allowance.whole,
            learned=gate.allowance.learned is not None,
            assumed=self.assumed,
            used=gate.window.used(now),
            sent=gate.sent,
            refused=gate.refused,
            waiting=gate.waiting,
            max_in_flight=self._slots.size,
            in_flight=self._slots.in_use,
            waiting_for_slot=self._slots.waiting,
            paused_for=paused_for,
            pauses=gate.pause.episode,
            pause_reason=gate.pause.reason if paused_for else None,
            broken=gate.pause.broken,
            downloads=self.downloads.in_use,
            uploads=self.uploads.in_use,
        )


def _tier(tier: AccountTier | str) -> AccountTier:
    try:
        return AccountTier(tier.strip().lower())
    except (ValueError, AttributeError):
        raise ConfigurationError(f"tier={tier!r}: must be one of {', '.join(AccountTier)}, or None") from None


def _burst(burst: bool | int, max_per_minute: int) -> float:  # noqa: FBT001 - the option's own type
    if isinstance(burst, bool):
        return math.inf if burst else 0
    return check_count("burst", burst, least=0, most=max_per_minute)


def _check_positive(field: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(f"{field}={value!r}: must be a number above 0")
    return float(value)
