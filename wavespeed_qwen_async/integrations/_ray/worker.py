"""A worker of a run on a cluster: sends and saves what it is handed, tells what came of it, keeps nothing.

It is told no more than it can do, and each send only for a short time: what it could not send by then, because it was
stopped, starved or cut off, it does not send at all. That is looked at when the connection is there and nothing of the
request has been written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any, Protocol

from wavespeed_qwen_async._answers import Answer
from wavespeed_qwen_async._tasks import Tasks
from wavespeed_qwen_async.errors import DownloadError, NotSentError, SubmissionUnknown, WaveSpeedError
from wavespeed_qwen_async.limits import Limits
from wavespeed_qwen_async.session import QwenImageSession

from .landing import Landing
from .orders import Done, SendOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .orders import Handful, Order

__all__ = ["Link", "LinkError", "Worker", "since_boot"]

_logger = logging.getLogger(__name__)

_KEPT_HEADERS = ("Content-Type", "Date", "Retry-After", "X-Request-Id", "CF-Ray")  # those that are looked at
_EVERY = 0.5  # seconds between two calls of the coordinator, each of which tells, asks, and is a sign of life
_AGAIN = 0.5  # seconds between two tries to reach the coordinator


class LinkError(Exception):
    """The coordinator can't be reached just now."""


class Link(Protocol):
    """How a worker reaches its coordinator; each of these may raise ``LinkError``."""

    async def hello(self, place: str, name: str) -> str:
        """See ``Desk.hello``."""

    async def take(self, name: str, received: int, room: int, done: list[Done]) -> Handful | None:
        """See ``Desk.take``."""


def since_boot() -> float:
    """Seconds on a clock that goes on while the machine sleeps, where there is such."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class Worker:
    """Carries out orders until the run is over.

    Args:
        place: What it is called by whoever starts it again.
        link: To its coordinator.
        out: Folder or URL for images.
        session: Options of ``QwenImageSession``; those of the limits are the coordinator's affair.
        storage: Options of fsspec's for ``out``.
        at_once: Orders that it holds at most.
        clock: Seconds.
    """

    def __init__(
        self,
        place: str,
        link: Link,
        *,
        out: str,
        session: Mapping[str, Any],
        storage: Mapping[str, Any] | None = None,
        at_once: int = 64,
        clock: Callable[[], float] = since_boot,
    ) -> None:
        self._place = place
        self._link = link
        self._landing = Landing(out, storage or {})
        self._at_once = at_once
        self._clock = clock
        self._session = QwenImageSession(
            **session, limits=Limits(max_per_minute=1_000_000, max_in_flight=1_000_000, downloads=at_once)
        )
        self._name = ""
        self._life = ""
        self._held = 0
        self._ended: list[tuple[str, Done]] = []
        self._many = asyncio.Event()

    async def run(self) -> None:
        """Work until the run is over."""
        tasks = Tasks()
        async with self._session:
            try:
                await self._work(tasks)
            finally:
                await tasks.close()

    async def _work(self, tasks: Tasks) -> None:
        received = 0
        while True:
            if not self._name:
                await self._begin()
                received = 0
            next_at = asyncio.get_running_loop().time() + _EVERY
            asked, done = self._clock(), self._to_tell()
            try:
                handful = await self._link.take(self._name, received, self._at_once - self._held, done)
            except LinkError:  # it may have been told for all that: what is told twice counts once
                self._ended += [(self._name, end) for end in done]
                await asyncio.sleep(_AGAIN)
                continue
            if handful is None or handful.life != self._life:
                self._name = ""  # what is held is of another life, and will not be sent
                _tell_of_the_late(done)
                continue
            if handful.stop:
                return
            received = handful.number
            # As early as the coordinator can have handed it out: what its answer took on its way is off our time.
            until = asked + handful.held + handful.start_within
            for order in handful.orders:
                self._held += 1
                tasks.start(self._carry_out(order, self._name, until), "wavespeed ray order")
            await self._pause(next_at)

    async def _begin(self) -> None:
        name = f"{self._place}-{uuid.uuid4().hex[:8]}"
        while True:
            try:
                self._life = await self._link.hello(self._place, name)
            except LinkError:
                await asyncio.sleep(_AGAIN)
                continue
            self._name = name
            return

    async def _pause(self, until: float) -> None:
        """Until the next call is due; it is at once where half of all that it may hold has ended."""
        if 2 * len(self._ended) < self._at_once:
            self._many.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._many.wait()

    def _to_tell(self) -> list[Done]:
        """What ended since the last call; orders are numbered anew in each of the coordinator's lives."""
        ended, self._ended = self._ended, []
        _tell_of_the_late([done for name, done in ended if name != self._name])
        return [done for name, done in ended if name == self._name]

    # --- orders -------------------------------------------------------------------------------------------------------

    async def _carry_out(self, order: Order, name: str, until: float) -> None:
        end: Answer | WaveSpeedError | None = None
        try:
            if isinstance(order.what, SendOrder):
                end = await self._send(order.what, name, until)
            else:
                await self._landing.save(self._session._media, order.what)  # noqa: SLF001 - of this house
        except WaveSpeedError as error:
            end = error
        except Exception as error:
            _logger.exception("an order ended by a defect")
            end = _by_a_defect(order, error)
        finally:
            self._held -= 1
        cause = end.__cause__ if isinstance(end, WaveSpeedError) else None
        self._ended.append((name, Done(order.number, end, cause.errno if isinstance(cause, OSError) else None)))
        if 2 * len(self._ended) >= self._at_once:
            self._many.set()

    async def _send(self, what: SendOrder, name: str, until: float) -> Answer:
        late = NotSentError("not sent: the time to do it was over when a worker came to it")

        def fence() -> None:
            if name != self._name or self._clock() > until:
                raise late

        fence()
        try:
            answer = await self._session._api.transport.send(  # noqa: SLF001 - of this house
                what.request, read_timeout=what.read_timeout, fence=fence
            )
        except NotSentError as error:
            if error.__cause__ is not None and late.__traceback__ is not None:
                raise late from None
            raise
        return Answer(
            answer.status, {key: answer.headers[key] for key in _KEPT_HEADERS if key in answer.headers}, answer.body
        )


def _by_a_defect(order: Order, error: Exception) -> WaveSpeedError:
    """An end all the same: the coordinator would wait for ever, as long as this worker lives."""
    text = f"unexpected {type(error).__name__} on a worker"
    if isinstance(order.what, SendOrder):
        return SubmissionUnknown(f"{text}: it may have been accepted")
    return DownloadError(
        f"{text}; the image is paid and kept for 7 days", prediction_id=order.what.output.prediction_id or None
    )


def _tell_of_the_late(ended: list[Done]) -> None:
    """What nobody asks for any more; the coordinator finds what was accepted in the account's list."""
    for done in ended:
        if isinstance(done.end, Answer):
            _logger.warning(
                "a submit was answered (HTTP %d) after its coordinator was gone: it is looked for", done.end.status
            )
