"""One question to the API at a time, with its limits and retries: what is above thinks in predictions, not in HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ._answers import read_submit
from ._retry import Retry, next_wait
from ._tasks import Tasks
from .errors import NotSentError, RateLimitError, SessionClosedError, WaveSpeedError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine

    from ._answers import Answer
    from ._transport import Transport
    from ._wire import Request
    from .limits import Limiter, Send
    from .models import Job
    from .predictions import Prediction

__all__ = ["CUT_OFF", "Api", "Trace", "Witness"]

_logger = logging.getLogger(__name__)

CUT_OFF = "the session was closed while a submit was under way: whether it was accepted is unknown"

T = TypeVar("T")


class Witness(Protocol):
    """Who keeps the books of one job: told before a submit may cost anything, and as soon as it did."""

    async def sending(self, request: Request) -> None:
        """Called before the first byte is sent, once a send; what it raises stops the send."""

    async def accepted(self, prediction: Prediction) -> None:
        """Called with the id before anything else happens with it, even if the submit's caller is gone."""

    def failed(self, error: BaseException) -> None:
        """Called when a send gave no id; whether another one follows is not decided yet."""


class Trace(Protocol):
    """Who follows one submit without having to wait for anything: the reconciler."""

    def left(self, now: float) -> None:
        """Called when the books are kept, and the submit leaves; ``now`` is the loop's time."""

    def arrived(self, prediction: Prediction) -> None:
        """Called with what it made, before anything else happens with it."""

    def unwritten(self, prediction: Prediction) -> None:
        """Called after ``arrived`` where the witness could not write it down."""

    def end(self) -> None:
        """Called when the answer is there, or will never come; more than once where that is simpler."""


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
        self,
        request: Request,
        job: Job,
        *,
        trace: Trace | None = None,
        witness: Witness | None = None,
        read_timeout: float | None = None,
        spared: bool = False,
        leaving: Callable[[], None] | None = None,
    ) -> Prediction:
        """Send a submit until it is accepted or refused; again only where it certainly was not accepted.

        The caller holds a slot. Each send, repeated ones too, takes a permit of its own. A caller that is cancelled
        while a send is under way leaves it to ``exchanges``: its answer may hold the id of a paid image. ``spared``:
        the running task's owner closes sparing the guests of ``exchanges``, so that no second task is needed.
        ``leaving`` is called with each permit, before its send.

        Raises:
            SubmissionUnknown: it may have been accepted.
            WaveSpeedError: it was not.
        """
        attempt, began = 0, None
        while True:
            attempt += 1
            send = await self.limits.start(again=attempt > 1)
            if self.exchanges.closed:
                self.limits.report(send, NotSentError("the session was closed"))
                raise SessionClosedError("not sent: the session was closed while it waited for its turn", job=job)
            now = _now()
            began = now if began is None else began
            if leaving is not None:
                leaving()
            exchange = self._exchange(send, request, job, now, trace=trace, witness=witness, read_timeout=read_timeout)
            try:
                return await (self._as_a_guest(exchange) if spared else self._in_a_task(exchange))
            except SessionClosedError as error:
                error.job = job
                raise
            except RateLimitError:
                continue  # the limits pause every submit of the session, and end the run when it is in vain
            except WaveSpeedError as error:
                wait = self._wait(error, attempt, began, submit=True)
                if wait is None:
                    raise
            await asyncio.sleep(wait)

    async def _as_a_guest(self, exchange: Coroutine[Any, Any, Prediction]) -> Prediction:
        """Await an exchange in the running task, which its owner spares meanwhile."""
        try:
            guest = self.exchanges.take_in()
        except RuntimeError:
            exchange.close()
            raise
        end: Prediction | BaseException
        try:
            end = await exchange
        except BaseException as error:
            wanted = self.exchanges.send_off(guest)
            if wanted and not isinstance(error, asyncio.CancelledError):
                raise
            end = error
        else:
            if self.exchanges.send_off(guest):
                return end
        _tell_of_the_end(end)
        raise asyncio.CancelledError

    async def _in_a_task(self, exchange: Coroutine[Any, Any, Prediction]) -> Prediction:
        """Await an exchange in a task of its own, which a cancelled caller leaves behind."""
        task = self.exchanges.start(exchange, name="wavespeed submit")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller is not None and caller.cancelling()):
                raise SessionClosedError(CUT_OFF, billed="unknown") from None
            task.add_done_callback(_tell_of_the_abandoned)
            raise

    async def _exchange(
        self,
        send: Send,
        request: Request,
        job: Job,
        now: float,
        *,
        trace: Trace | None,
        witness: Witness | None,
        read_timeout: float | None,
    ) -> Prediction:
        try:
            if witness is not None:
                send.stay()
                await witness.sending(request)
                send.leave()
                now = _now()
            if trace is not None:
                trace.left(now)
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
        finally:
            if trace is not None:
                trace.end()
        self.limits.report(send)
        if trace is not None:
            trace.arrived(prediction)
        if witness is not None:
            await self.write_down(prediction, job, witness, trace)
        return prediction

    async def write_down(self, prediction: Prediction, job: Job, witness: Witness, trace: Trace | None) -> None:
        """Tell the witness of an accepted submit. If its books can't be kept, the image is paid all the same."""
        try:
            await witness.accepted(prediction)
        except WaveSpeedError as error:
            error.billed, error.prediction_id, error.job = "yes", prediction.id, job
            if trace is not None:
                trace.unwritten(prediction)
            raise

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
    cancelled = exchange.cancelled()
    _tell_of_the_end(asyncio.CancelledError() if cancelled else exchange.exception() or exchange.result())


def _tell_of_the_end(end: Prediction | BaseException) -> None:
    """A submit's caller was cancelled while it was under way; this line is where the id is kept."""
    if isinstance(end, asyncio.CancelledError):
        _logger.warning("a submit was cut off before its answer: whether it was accepted is unknown")
    elif not isinstance(end, BaseException):
        _logger.warning(
            "prediction %s was accepted after its caller was cancelled: session.result(id) gets its image",
            end.id,
            extra={"prediction_id": end.id},
        )
    elif isinstance(end, WaveSpeedError) and end.billed != "no":
        _logger.warning("a submit whose caller was cancelled ended with: %s", end)


def _now() -> float:
    return asyncio.get_running_loop().time()
