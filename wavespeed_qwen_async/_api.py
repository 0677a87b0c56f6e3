"""One question to the API at a time, with its limits and retries: what is above thinks in predictions, not in HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from ._answers import read_submit
from ._retry import Retry, next_wait
from .errors import RateLimitError, WaveSpeedError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from ._answers import Answer
    from ._transport import Transport
    from ._wire import Request
    from .limits import Limiter
    from .models import Job
    from .predictions import Prediction

__all__ = ["Api"]

T = TypeVar("T")


class Api:
    """Transport, limits and retries together."""

    def __init__(self, transport: Transport, limits: Limiter, *, retry: Retry, rng: random.Random) -> None:
        self.transport = transport
        self.limits = limits
        self.retry = retry
        self.rng = rng

    async def ask(self, request: Request, read: Callable[[Answer], T], *, again: bool = True) -> T:
        """Send a read, and ``read`` its answer; try again where that may help (``again=False``: once only).

        Raises:
            WaveSpeedError: whatever the last try ended with.
        """
        attempt, began = 0, _now()
        while True:
            attempt += 1
            await self.limits.read()
            try:
                return read(await self.transport.send(request))
            except WaveSpeedError as error:
                wait = self._wait(error, attempt, began, submit=False) if again else None
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    async def submit(self, request: Request, job: Job, *, read_timeout: float | None = None) -> Prediction:
        """Send a submit until it is accepted or refused; again only where it certainly was not accepted.

        The caller holds a slot. Each send, repeated ones too, takes a permit of its own.

        Raises:
            SubmissionUnknown: it may have been accepted.
            WaveSpeedError: it was not.
        """
        attempt, began = 0, None
        while True:
            attempt += 1
            send = await self.limits.start()
            began = _now() if began is None else began
            try:
                prediction = read_submit(await self.transport.send(request, read_timeout=read_timeout), job)
            except WaveSpeedError as error:
                self.limits.report(send, error)
                error.job = job
                if isinstance(error, RateLimitError):
                    continue  # the limits pause every submit of the session, and end the run when it is in vain
                wait = self._wait(error, attempt, began, submit=True)
                if wait is None:
                    raise
            except BaseException:
                send.cancel()
                raise
            else:
                self.limits.report(send)
                return prediction
            await asyncio.sleep(wait)

    def _wait(self, error: WaveSpeedError, attempt: int, began: float, *, submit: bool) -> float | None:
        return next_wait(
            self.retry,
            error,
            attempt=attempt,
            elapsed=_now() - began,
            submit=submit,
            reached=self.transport.reached,
            rng=self.rng,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
