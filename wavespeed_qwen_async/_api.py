"""One question to the API at a time, with its limits and retries: what is above thinks in predictions, not in HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, TypeVar

from ._answers import read_submit
from ._retry import Retry, next_wait
from ._tasks import Tasks
from .errors import RateLimitError, WaveSpeedError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from ._answers import Answer
    from ._transport import Transport
    from ._wire import Request
    from .limits import Limiter, Send
    from .models import Job
    from .predictions import Prediction

__all__ = ["Api", "Witness"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class Witness(Protocol):
    """Who keeps the books of one job: told before a submit may cost anything, and as soon as it did."""

    async def sending(self, request: Request) -> None:
        """Called before the first byte is sent, once a send; what it raises stops the send."""

    async def accepted(self, prediction: Prediction) -> None:
        """Called with the id before anything else happens with it, even if the submit's caller is gone."""

    def failed(self, error: BaseException) -> None:
        """Called when a send gave no id; whether another one follows is not decided yet."""


class Api:
    """Transport, limits and retries together."""

    def __init__(self, transport: Transport, limits: Limiter, *, retry: Retry, rng: random.Random) -> None:
        self.transport = transport
        self.limits = limits
        self.retry = retry
        self.rng = rng
        self.exchanges: Tasks = Tasks()

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

    async def submit(
        self, request: Request, job: Job, *, witness: Witness | None = None, read_timeout: float | None = None
    ) -> Prediction:
        """Send a submit until it is accepted or refused; again only where it certainly was not accepted.

        The caller holds a slot. Each send, repeated ones too, takes a permit of its own. A caller that is cancelled
        while a send is under way leaves it to ``exchanges``: its answer may hold the id of a paid image.

        Raises:
            SubmissionUnknown: it may have been accepted.
            WaveSpeedError: it was not.
        """
        attempt, began = 0, None
        while True:
            attempt += 1
            send = await self.limits.start(again=attempt > 1)
            began = _now() if began is None else began
            exchange = self.exchanges.start(
                self._exchange(send, request, job, witness, read_timeout), name="wavespeed submit"
            )
            try:
                return await asyncio.shield(exchange)
            except RateLimitError:
                continue  # the limits pause every submit of the session, and end the run when it is in vain
            except WaveSpeedError as error:
                wait = self._wait(error, attempt, began, submit=True)
                if wait is None:
                    raise
            except asyncio.CancelledError:
                exchange.add_done_callback(_tell_of_the_abandoned)
                raise
            await asyncio.sleep(wait)

    async def _exchange(
        self, send: Send, request: Request, job: Job, witness: Witness | None, read_timeout: float | None
    ) -> Prediction:
        try:
            if witness is not None:
                await witness.sending(request)
            prediction = read_submit(await self.transport.send(request, read_timeout=read_timeout), job)
        except WaveSpeedError as error:
            error.job = job
            self.limits.report(send, error)
            if witness is not None:
                witness.failed(error)
            raise
        except BaseException as error:
            send.cancel()
            if witness is not None:
                witness.failed(error)
            raise
        self.limits.report(send)
        if witness is not None:
            try:
                await witness.accepted(prediction)
            except WaveSpeedError as error:  # the books could not be kept: whatever it is, the image is paid
                error.billed, error.prediction_id, error.job = "yes", prediction.id, job
                raise
        return prediction

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


def _tell_of_the_abandoned(exchange: asyncio.Task[Prediction]) -> None:
    """Its caller was cancelled while the submit was under way; this line is where the id is kept."""
    if exchange.cancelled():
        _logger.warning("a submit was cut off before its answer: whether it was accepted is unknown")
    elif (error := exchange.exception()) is None:
        prediction = exchange.result()
        _logger.warning(
            "prediction %s was accepted after its caller was cancelled: session.result(id) gets its image",
            prediction.id,
            extra={"prediction_id": prediction.id},
        )
    elif isinstance(error, WaveSpeedError) and error.billed != "no":
        _logger.warning("a submit whose caller was cancelled ended with: %s", error)


def _now() -> float:
    return asyncio.get_running_loop().time()
