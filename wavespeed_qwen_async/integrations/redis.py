"""One account's limits, shared by many processes and machines through Redis. docs/redis.md explains it to users.

What all share (the moving window, the pause, learning, places) is decided inside Redis by one script
(`_redis/exchange.lua`); reads, downloads and uploads are each process's own.
"""

from __future__ import annotations

import math
import random
import socket
import uuid
from typing import TYPE_CHECKING, Literal

from wavespeed_qwen_async._limits.slots import check_count
from wavespeed_qwen_async._tasks import Tasks
from wavespeed_qwen_async.errors import ConfigurationError, SessionClosedError
from wavespeed_qwen_async.limits import Limits, LimitsSnapshot

try:
    from redis.exceptions import AuthenticationError, AuthorizationError, ResponseError
except ImportError as _missing:
    raise ImportError("limits in Redis need redis-py: pip install 'wavespeed-qwen-async[redis]'") from _missing

from ._redis.exchange import PATIENCE, Exchange, Rules, connected
from ._redis.link import Link
from ._redis.permits import Permit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from redis.asyncio import Redis

    from wavespeed_qwen_async.errors import WaveSpeedError
    from wavespeed_qwen_async.limits import AccountTier, Send, Slot

__all__ = ["RedisLimits"]


class RedisLimits:
    """An account's limits that processes share: for ``QwenImageSession(limits=...)``, inside its own ``async with``.

    ::

        async with (
            RedisLimits("redis://cache.internal:6379/0", tier="gold") as limits,
            QwenImageSession(limits=limits) as session,
        ): ...

    No moving window of the account holds more than its limit, whatever the number of processes. All of them give the
    same figures, and none sends beside them.

    Args:
        redis: URL of a Redis (5 or later, or Valkey), or a ``redis.asyncio.Redis``, which is not closed here.
        account: Names the account in Redis' keys; never its API key.
        tier: The account's tier; silver is assumed if it is not given.
        max_per_minute: Submits in any 60 s of all processes together, in place of the tier's figure.
        max_in_flight: Predictions at once of all processes together, in place of the tier's figure.
        burst: As of :class:`~wavespeed_qwen_async.Limits`.
        window: Seconds that the server counts over.
        lease: Seconds after which the places of a process that died or can't reach Redis are given to others, from 1.
        when_down: Redis does not answer. ``"stop"``: after ``grace`` seconds what waits ends with LimitsBrokenError.
            ``"share"``: after a window in which nothing leaves each process goes on with its part of the figures.
        grace: Seconds, above 0.
        processes: How many processes there are at most; ``"share"`` needs it.
        trust_empty: Redis holds nothing about the account: send at once, instead of waiting until everything that
            may have been sent has left the window. Only where Redis never loses its data while processes run.
        reads_per_second: Of this process; as of ``Limits``.
        downloads: Of this process, at once.
        uploads: Of this process, at once.
        learn: As of ``Limits``.
        breaker_seconds: As of ``Limits``.
        breaker_answers: As of ``Limits``.

    Raises:
        ConfigurationError: A value is out of range, or the account can't be divided among so many processes.
    """

    def __init__(
        self,
        redis: str | Redis,
        *,
        account: str = "default",
        tier: AccountTier | str | None = None,
        max_per_minute: int | None = None,
        max_in_flight: int | None = None,
        burst: bool | int = False,
        window: float = 60.0,
        lease: float = 30.0,
        when_down: Literal["stop", "share"] = "stop",
        grace: float = 10.0,
        processes: int | None = None,
        trust_empty: bool = False,
        reads_per_second: float | None = None,
        downloads: int = 32,
        uploads: int = 8,
        learn: bool = True,
        breaker_seconds: float = 300.0,
        breaker_answers: int = 5,
    ) -> None:
        whole = Limits.for_tier(
            tier,
            max_per_minute=max_per_minute,
            max_in_flight=max_in_flight,
            burst=burst,
            window=window,
            breaker_seconds=breaker_seconds,
            breaker_answers=breaker_answers,
        )
        self._assumed = whole.assumed
        parts = _parts(when_down, processes, whole)
        self._own = Limits(
            max_per_minute=whole.max_per_minute // parts,
            max_in_flight=whole.max_in_flight // parts,
            window=window,
            reads_per_second=max(5.0, whole.max_per_minute / 30) if reads_per_second is None else reads_per_second,
            downloads=downloads,
            uploads=uploads,
            learn=learn,
            breaker_seconds=breaker_seconds,
            breaker_answers=breaker_answers,
        )
        self._rules = Rules(
            limit=whole.max_per_minute,
            places=whole.max_in_flight,
            window=float(window),
            burst=-1 if burst is True else int(burst),
            lease=_at_least("lease", lease, 1.0),
            learn=learn,
            breaker_seconds=breaker_seconds,
            breaker_answers=breaker_answers,
            trust_empty=trust_empty,
        )
        self._account = _name(account)
        self._shares = when_down == "share"
        self._grace = _at_least("grace", grace, 0.1)
        self._ours = isinstance(redis, str)
        self._redis = connected(redis) if isinstance(redis, str) else redis
        self._tasks = Tasks()
        self._link: Link | None = None
        self._state: Literal["new", "open", "closed"] = "new"

    def __repr__(self) -> str:
        now = self.snapshot()
        return (
            f"<RedisLimits {self._state} {self._account!r} {now.used} of {now.allowance} a minute used by all, "
            f"{now.in_flight} in flight and {now.waiting + now.waiting_for_slot} waiting here>"
        )

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise SessionClosedError(f"the limits are {self._state}: make new ones")
        process = f"{socket.gethostname()} {uuid.uuid4().hex}"
        exchange = Exchange(self._redis, self._rules, account=self._account, process=process)
        self._link = Link(
            exchange,
            self._rules,
            own=self._own,
            shares=self._shares,
            grace=self._grace,
            rng=random.Random(),  # noqa: S311 - spreads questions in time, no secret
        )
        try:
            await self._check_redis()
        except BaseException:
            await self._disconnect()
            raise
        self._tasks.start(self._link.run(), name="wavespeed limits in Redis")
        self._state = "open"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Give back what this process holds and end; after the sessions that use it."""
        state, self._state = self._state, "closed"
        if state != "open":
            return
        self._opened().leave()
        try:
            await self._tasks.close(2 * PATIENCE)
        finally:
            await self._disconnect()

    async def _check_redis(self) -> None:
        """One question: what can't get better by waiting is said at once. Redis may still come up, or be let in."""
        link = self._opened()
        await link.ask()
        if isinstance(link.reason, AuthenticationError | AuthorizationError | ResponseError):
            raise ConfigurationError(f"redis: it refuses: {link.reason}") from link.reason

    async def _disconnect(self) -> None:
        if self._ours:
            await self._redis.aclose()

    def _opened(self) -> Link:
        if self._link is None:
            raise SessionClosedError("the limits are not open: use them inside 'async with RedisLimits(...)'")
        return self._link

    @property
    def max_per_minute(self) -> int:
        """Submits in any 60 s of all processes together."""
        return self._rules.limit

    @property
    def max_in_flight(self) -> int:
        """Predictions at once of all processes together."""
        return self._rules.places

    @property
    def assumed(self) -> bool:
        """No tier was given: the figures are silver's."""
        return self._assumed

    async def acquire(self) -> Slot:
        """Take a place among the account's predictions in flight.

        Raises:
            LimitsBrokenError: Redis is down (``when_down="stop"``). Nothing was sent.
        """
        link = self._opened()
        if link.places.in_use >= link.places.size:
            link.check()
        return await link.places.acquire()

    async def start(self, *, again: bool = False) -> Send:
        """Wait for permission for one send, before those of this process that have not sent yet if ``again``.

        Raises:
            LimitsBrokenError: Redis is down (``when_down="stop"``), or the server refuses for too long. Nothing was
                sent.
        """
        link = self._opened()
        link.check()
        return await link.permits.start(again=again)

    def report(self, send: Send, error: WaveSpeedError | None = None) -> None:
        """Tell how a send ended; what it means to the account all processes learn."""
        if isinstance(send, Permit):
            self._opened().permits.report(send, error)
        else:
            self._own.report(send, error)

    async def read(self) -> None:
        """Wait for permission for one read."""
        await self._own.read()

    @property
    def downloads(self) -> AbstractAsyncContextManager[None]:
        """A place among this process's downloads."""
        return self._own.downloads

    @property
    def uploads(self) -> AbstractAsyncContextManager[None]:
        """A place among this process's uploads."""
        return self._own.uploads

    def seed(self, sent: Iterable[float]) -> None:
        """Do nothing: Redis remembers what was sent, or waits until it is forgotten by all."""

    def snapshot(self) -> LimitsSnapshot:
        """Tell what they are doing.

        ``used``, ``allowance``, ``learned``, pauses and ``broken`` are the account's, as of the last answer from
        Redis; ``max_*`` the account's figures; everything else counts this process.
        """
        own = self._own.snapshot()
        link, answer = self._link, None if self._link is None else self._link.answer
        if link is None or answer is None:
            return LimitsSnapshot(
                max_per_minute=self.max_per_minute,
                allowance=self.max_per_minute,
                learned=False,
                assumed=self.assumed,
                used=0,
                sent=0,
                refused=0,
                waiting=0 if link is None else link.permits.waiting,
                max_in_flight=self.max_in_flight,
                in_flight=0,
                waiting_for_slot=0 if link is None else link.places.waiting,
                paused_for=0.0,
                pauses=0,
                pause_reason=None,
                broken=False,
                downloads=own.downloads,
                uploads=own.uploads,
            )
        paused_for = link.rest_of(answer.paused)
        return LimitsSnapshot(
            max_per_minute=self.max_per_minute,
            allowance=own.allowance if link.sharing else answer.allowance,
            learned=answer.learned,
            assumed=self.assumed,
            used=own.used if link.sharing else answer.used,
            sent=link.permits.sent,
            refused=link.permits.refused,
            waiting=link.permits.waiting,
            max_in_flight=self.max_in_flight,
            in_flight=link.places.in_use,
            waiting_for_slot=link.places.waiting,
            paused_for=paused_for,
            pauses=answer.pauses,
            pause_reason=answer.reason if paused_for else None,
            broken=answer.broken,
            downloads=own.downloads,
            uploads=own.uploads,
        )


def _parts(when_down: str, processes: int | None, whole: Limits) -> int:
    if when_down not in {"stop", "share"}:
        raise ConfigurationError(f"when_down={when_down!r}: choose 'stop' or 'share'")
    if processes is not None:
        check_count("processes", processes)
    if when_down == "stop":
        return 1
    if processes is None:
        raise ConfigurationError("when_down='share': say how many processes there are at most, with processes=")
    if processes > min(whole.max_per_minute, whole.max_in_flight):
        raise ConfigurationError(
            f"when_down='share': {whole.max_per_minute} a minute and {whole.max_in_flight} at once can't be divided "
            f"among {processes} processes: choose 'stop'"
        )
    return processes


def _name(account: str) -> str:
    if not isinstance(account, str) or not account or any(sign in account for sign in "{}"):
        raise ConfigurationError(f"account={account!r}: must be a text without braces, like 'main'")
    return account


def _at_least(field: str, value: float, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise ConfigurationError(f"{field}={value!r}: must be a number of seconds from {least:g} up")
    return float(value)
