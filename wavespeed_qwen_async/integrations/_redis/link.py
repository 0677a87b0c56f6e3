"""When Redis is asked, and what happens while it does not answer: one question at a time, none without a need."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from wavespeed_qwen_async.errors import LimitsBrokenError, NotSentError, SessionClosedError

from .exchange import PATIENCE, SETTLING, SPACING
from .permits import Permits
from .places import Places

if TYPE_CHECKING:
    import random

    from wavespeed_qwen_async.limits import Limits

    from .exchange import Answer, Exchange, Kind, Rules

__all__ = ["Link"]

_logger = logging.getLogger(__name__)

_LONGEST = 5.0  # seconds that one who waits goes without a question: another process may have given a permit back
_FASTEST = 0.01  # seconds between two questions, however many come and go
_RETRIES = (0.1, 1.0)  # seconds between two tries while Redis does not answer, at first and at last
_CHUNK = 500  # ends in one question

_BROKEN_ANSWER = (RedisError, OSError, TimeoutError)


class Link:
    """Keeps permits and places of one process in step with Redis.

    Args:
        exchange: Asks.
        rules: What the account may do.
        own: This process's own share, for when Redis is down; its figures count only with `shares`.
        shares: Whether it is used.
        grace: Seconds without an answer after which waits end with an error, where it is not.
        rng: Spreads the questions of many processes.
    """

    def __init__(
        self, exchange: Exchange, rules: Rules, *, own: Limits, shares: bool, grace: float, rng: random.Random
    ) -> None:
        self.permits = Permits(needed=self._need_permits, settled=self._permit_settled)
        self.places = Places(needed=self._need_places, freed=lambda: self._ask_within(SPACING))
        self.answer: Answer | None = None
        self.down_since: float | None = None
        self.sharing = False
        self._exchange = exchange
        self._rules = rules
        self._own = own
        self._shares = shares
        self._grace = grace
        self._rng = rng
        self._shared = False
        self._leaving = False
        self.reason: BaseException | None = None
        self._answered = -math.inf
        self._retry = _RETRIES[0]
        self._retry_at = -math.inf
        self._wake = asyncio.Event()
        self._due = math.inf
        self._no_permits_before = -math.inf
        self._no_places_before = -math.inf

    # --- what is known ------------------------------------------------------------------------------------------------

    def rest_of(self, seconds: float) -> float:
        """What is left by now of so many seconds, told by the last answer."""
        return max(0.0, self._answered + seconds - _now())

    def check(self) -> None:
        """Raise where waiting is no use.

        Raises:
            LimitsBrokenError: Redis is down, or the server refuses all.
            SessionClosedError: The limits are closed.
        """
        if self._leaving:
            raise _closed()
        if self._given_up():
            raise self._unreachable()
        if self.answer is not None and self.answer.broken and self.rest_of(self.answer.paused):
            raise self._broken()

    def _given_up(self) -> bool:
        return self.down_since is not None and not self._shares and _now() >= self.down_since + self._grace

    def _unreachable(self) -> LimitsBrokenError:
        down = _now() - (self.down_since or _now())
        error = LimitsBrokenError(
            f"Redis, which holds the account's limits, has not answered for {down:.0f} s ({_told(self.reason)}): "
            "nothing is sent and nothing is billed until it does. Bring it back and run again, or let each process go "
            "on with its share: when_down='share'",
            retry_after=self._retry,
        )
        error.__cause__ = self.reason
        return error

    def _broken(self) -> LimitsBrokenError:
        answer = self.answer
        wait, reason = (0.0, "") if answer is None else (self.rest_of(answer.paused), answer.reason)
        return LimitsBrokenError(
            f"the server has accepted no submit of any process for too long ({reason}); given up for {wait:.0f} s. "
            "What was not sent is not billed: run again later, or with a lower tier or max_per_minute",
            retry_after=wait,
        )

    # --- when to ask --------------------------------------------------------------------------------------------------

    def _ask_at(self, time: float) -> None:
        time = max(time, self._retry_at)
        if time < self._due:
            self._due = time
            self._wake.set()

    def _ask_within(self, seconds: float) -> None:
        self._ask_at(_now() + seconds)

    def _need_permits(self) -> None:
        self._ask_at(max(_now(), self._no_permits_before))

    def _need_places(self) -> None:
        self._ask_at(max(_now(), self._no_places_before))

    def _permit_settled(self, kind: Kind) -> None:
        on_trial = self.answer is not None and self.answer.on_trial  # all processes wait for this
        self._ask_within(0.0 if kind in {"refused", "failed"} or on_trial else SPACING)

    async def _until_due(self) -> None:
        earliest = _now() + _FASTEST
        while not self._leaving and (wait := max(self._due, earliest) - _now()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(None if math.isinf(wait) else wait):
                    await self._wake.wait()
                    await asyncio.sleep(max(0.0, earliest - _now()))
            except TimeoutError:
                return

    def leave(self) -> None:
        """Let `run` end; by this and not by cancelling it, which redis-py 8.1 swallows now and then."""
        self._leaving = True
        self._wake.set()

    async def run(self) -> None:
        """Ask whenever there is a need to, until it is time to leave; then give back what is held."""
        share: asyncio.Task[None] | None = None
        try:
            while not self._leaving:
                if self.sharing and share is None:
                    share = asyncio.create_task(self._send_own_share(), name="wavespeed share while Redis is down")
                elif not self.sharing and share is not None:
                    await _ended(share)
                    share = None
                await self._until_due()
                if not self._leaving:
                    await self.ask()
        finally:
            self._leaving = True
            self.permits.fail(_closed)
            self.places.fail(_closed)
            await _ended(share)
        more = self.down_since is None
        while more:
            await self.ask()
            more = self.down_since is None and bool(self.permits.ends)

    # --- one question -------------------------------------------------------------------------------------------------

    async def ask(self) -> None:
        """Ask once and do what the answer says."""
        self._due = math.inf
        stays = not self._leaving
        asked = _now()
        ends = list(itertools.islice(self.permits.ends, _CHUNK))
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._exchange(
                    ends,
                    now=asked,
                    ask=self.permits.missing * stays,
                    in_use=self.places.in_use * stays,
                    waiting=self.places.waiting * stays,
                    shared=self._shared,
                    known=self.answer is not None,
                )
        except _BROKEN_ANSWER as error:
            self._go_without(error)
        except Exception as error:  # whatever it is, it gets better, or those who wait are told
            _logger.exception("asking Redis failed unexpectedly")
            self._go_without(error)
        else:
            if _now() > asked + PATIENCE:  # redis-py swallowed the timeout: Redis may have forgotten these permits
                self._go_without(TimeoutError())
                return
            for _ in ends:
                self.permits.ends.popleft()
            self._take(answer)

    def _take(self, answer: Answer) -> None:
        now = self._answered = _now()
        if answer.full and (self.answer is None or not self.answer.full):
            _logger.warning(
                "Redis does not know what was sent last: nothing leaves for %.0f s, until the window is empty for sure",
                answer.full,
            )
        self.answer = answer
        if self.down_since is not None:
            _logger.warning("Redis answers again after %.0f s", now - self.down_since)
        self.down_since, self.reason = None, None
        self._retry, self._retry_at = _RETRIES[0], -math.inf
        self.sharing = self._shared = False
        jitter = self._rng.uniform(0, SPACING / 2)
        self._no_permits_before = now + min(answer.again + jitter, _LONGEST) if answer.again else now
        self.places.size = answer.places
        self._no_places_before = now + answer.places_again + jitter if self.places.waiting else now
        self.permits.give(answer.permits, answer.pauses, now)
        if answer.broken and answer.paused:
            self.permits.fail(self._broken)
        if self.permits.missing:
            self._need_permits()
        if self.places.waiting:
            self._need_places()
        elif self.places.size > self.places.in_use:  # who wanted it was cancelled
            self._ask_within(SPACING)
        if self.places.in_use:
            self._ask_within(self._rules.lease / 3)
        if self.permits.ends:
            self._ask_within(SPACING if len(self.permits.ends) < _CHUNK else 0.0)

    # --- without an answer --------------------------------------------------------------------------------------------

    def _go_without(self, error: BaseException) -> None:
        now, self.reason = _now(), error
        if self.down_since is None:
            self.down_since = now
            _logger.warning("Redis does not answer (%s): no further permits until it does", _told(error))
        if self._shares:
            if not self.sharing and now >= self.down_since + self._rules.window + SETTLING:
                self.sharing = self._shared = True
                self.places.size = self._own.max_in_flight
                _logger.warning(
                    "Redis is down: submits go on with this process's share, %s a window", self._own.max_per_minute
                )
        elif self._given_up():
            self.permits.fail(self._unreachable)
            self.places.fail(self._unreachable)
        self._retry_at = now + self._retry * self._rng.uniform(0.5, 1.0)
        self._retry = min(2 * self._retry, _RETRIES[1])
        self._ask_at(self._retry_at)

    async def _send_own_share(self) -> None:
        """Let those who wait for Redis leave at this process's own pace."""
        while True:
            await self.permits.someone()
            try:
                send = await self._own.start()
            except LimitsBrokenError as error:
                message, wait = error.message, error.retry_after
                self.permits.fail(lambda: LimitsBrokenError(message, retry_after=wait))  # noqa: B023 - called at once
                continue
            if not self.permits.serve(send):
                self._own.report(send, NotSentError("who waited was cancelled"))


def _told(error: BaseException | None) -> str:
    """What an error says of itself: the repr of redis-py's leaves that out."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


async def _ended(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


def _closed() -> SessionClosedError:
    return SessionClosedError("the limits were closed: close the sessions that use them first")


def _now() -> float:
    return asyncio.get_running_loop().time()
