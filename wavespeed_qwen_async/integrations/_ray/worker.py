"""A worker of a run on a cluster: sends and saves what it is handed, tells what came of it, keeps nothing.

It is told no more than it can do, and each send only for a short time: what it could not send by then, because it was
stopped, starved or cut off, it does not send at all. That is looked at when the connection is there and nothing of the
request has been written.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any, Protocol

from wavespeed_qwen_async._answers import Answer
from wavespeed_qwen_async._tasks import Tasks
from wavespeed_qwen_async.errors import NotSentError, WaveSpeedError
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
_GATHER = 0.1  # seconds for which ends of orders are gathered, to be told together
_AGAIN = 0.5  # seconds between two tries to reach the coordinator
_FULL = 4.0  # seconds that a worker without room waits before it gives a sign of life


class LinkError(Exception):
    """The coordinator can't be reached just now."""


class Link(Protocol):
    """How a worker reaches its coordinator; each of these may raise ``LinkError``."""

    async def hello(self, place: str, name: str) -> str:
        """See ``Desk.hello``."""

    async def take(self, name: str, received: int, room: int) -> Handful | None:
        """See ``Desk.take``."""

    async def tell(self, name: str, done: list[Done]) -> bool:
        """See ``Desk.tell``."""


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
        self._free = asyncio.Event()
        self._ended: list[tuple[str, Done]] = []
        self._told = asyncio.Event()

    async def run(self) -> None:
        """Work until the run is over."""
        tasks = Tasks()
        async with self._session:
            teller = tasks.start(self._tell_all(), "wavespeed ray tell")
            try:
                await self._work(tasks)
            finally:
                teller.cancel()
                await tasks.close()

    async def _work(self, tasks: Tasks) -> None:
        received = 0
        while True:
            if not self._name:
                await self._begin()
                received = 0
            room = await self._room()
            asked = self._clock()
            try:
                handful = await self._link.take(self._name, received, room)
            except LinkError:
                await asyncio.sleep(_AGAIN)
                continue
            if handful is None or handful.life != self._life:
                self._name = ""  # what is held is of another life, and will not be sent
                continue
            if handful.stop:
                return
            received = handful.number
            # As early as the coordinator can have handed it out: what its answer took on its way is off our time.
            until = asked + handful.held + handful.start_within
            for order in handful.orders:
                self._held += 1
                tasks.start(self._carry_out(order, self._name, until), "wavespeed ray order")

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

    async def _room(self) -> int:
        if self._held >= self._at_once:
            self._free.clear()
            try:
                async with asyncio.timeout(_FULL):
                    await self._free.wait()
            except TimeoutError:
                return 0
        return self._at_once - self._held

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
        finally:
            self._held -= 1
            self._free.set()
        cause = end.__cause__ if isinstance(end, WaveSpeedError) else None
        self._ended.append((name, Done(order.number, end, cause.errno if isinstance(cause, OSError) else None)))
        self._told.set()

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

    async def _tell_all(self) -> None:
        while True:
            await self._told.wait()
            await asyncio.sleep(_GATHER)
            self._told.clear()
            ended, self._ended = self._ended, []
            name = self._name
            if not await self._tell(name, [done for by, done in ended if by == name]):
                name = ""
            for by, done in ended:
                if by != name:
                    _tell_of_the_late(done.end)

    async def _tell(self, name: str, ended: list[Done]) -> bool:
        """Whether the coordinator took it: orders are numbered anew in each of its lives."""
        while ended and name and name == self._name:
            try:
                if await self._link.tell(name, ended):
                    return True
                self._name = ""
            except LinkError:
                await asyncio.sleep(_AGAIN)
        return not ended


def _tell_of_the_late(end: Answer | WaveSpeedError | None) -> None:
    """What nobody asks for any more; the coordinator finds what was accepted in the account's list."""
    if isinstance(end, Answer):
        _logger.warning("a submit was answered (HTTP %d) after its coordinator was gone: it is looked for", end.status)
