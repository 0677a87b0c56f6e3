"""A server that counts strictly, in the test's own process, and a client that always has more to send."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from wavespeed_qwen_async.errors import RateLimitError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from wavespeed_qwen_async.limits import Limits, Send


class StrictServer:
    """Accepts `limit` submits in any 60 s, both edges included; or, `fixed`, in each minute of the clock.

    `tells_when` a refused one may be sent again: exactly, never, or always so many seconds.

    It keeps what arrived in `arrivals` as (time, accepted), and in `fullest` the most that ever arrived within one
    moving window, refused ones included.
    """

    def __init__(
        self, limit: int, *, fixed: bool = False, tells_when: bool = True, counts_refused: bool = False
    ) -> None:
        self.limit = limit
        self.fixed = fixed
        self.tells_when = tells_when
        self.counts_refused = counts_refused
        self.arrivals: list[tuple[float, bool]] = []
        self.fullest = 0
        self._counted: deque[float] = deque()
        self._recent: deque[float] = deque()

    def submit(self) -> RateLimitError | None:
        now = asyncio.get_running_loop().time()
        self._recent.append(now)
        self._drop(self._recent, now - 60)
        self.fullest = max(self.fullest, len(self._recent))
        self._drop(self._counted, now // 60 * 60 if self.fixed else now - 60)
        accepted = len(self._counted) < self.limit
        self.arrivals.append((now, accepted))
        if accepted or self.counts_refused:
            self._counted.append(now)
        return None if accepted else RateLimitError("429", status=429, retry_after=self._rest(now))

    def accepted(self, start: float, end: float) -> int:
        return sum(accepted for at, accepted in self.arrivals if start <= at < end)

    def refused(self, start: float = 0, end: float = float("inf")) -> int:
        return sum(not accepted for at, accepted in self.arrivals if start <= at < end)

    def _rest(self, now: float) -> float | None:
        if not isinstance(self.tells_when, bool):
            return self.tells_when
        if not self.tells_when:
            return None
        return 60 - now % 60 if self.fixed else self._counted[0] + 60 - now

    @staticmethod
    def _drop(times: deque[float], before: float) -> None:
        while times and times[0] < before:
            times.popleft()


class Client:
    """Submits as fast as its limits let it; each way takes 0 to `jitter` seconds."""

    def __init__(self, limits: Limits, server: StrictServer, *, jitter: float = 0.3, seed: int = 0) -> None:
        self.limits = limits
        self.server = server
        self.jitter = jitter
        self.rng = random.Random(seed)
        self.sent: list[float] = []
        self._timers: set[asyncio.TimerHandle] = set()

    @asynccontextmanager
    async def saturating(self) -> AsyncIterator[None]:
        """Have more to send all the while; killed at the end, with what is under way, as by SIGKILL."""
        task = asyncio.create_task(self._submit_forever())
        try:
            yield
        finally:
            task.cancel()
            for timer in self._timers:
                timer.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _submit_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            send = await self.limits.start()
            self.sent.append(loop.time())
            self._later(self._arrive, send)

    def _arrive(self, send: Send) -> None:
        self._later(self.limits.report, send, self.server.submit())

    def _later(self, call: Callable[..., None], *args: object) -> None:
        """Plain timers: a task for each send makes a simulation three times as slow."""

        def fire() -> None:
            self._timers.discard(timer)
            call(*args)

        timer = asyncio.get_running_loop().call_later(self.rng.uniform(0, self.jitter), fire)
        self._timers.add(timer)


def now() -> float:
    return asyncio.get_running_loop().time()
