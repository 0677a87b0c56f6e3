"""Where the coordinator hands out what is to be done, and what becomes of it when a worker goes away.

An order that was handed out is a lease. A send must leave within ``start_within`` seconds, by its worker's clock, or
not at all. A worker that is not heard for ``lease`` seconds is gone: nothing is known of its sends then, and they can
no longer leave, so they are looked for in the account's list like any submit whose answer was lost. What it was to save
is handed to another.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async.errors import (
    DownloadError,
    NotSentError,
    SessionClosedError,
    SubmissionUnknown,
    WaveSpeedError,
)

from .orders import Done, Handful, Order, SaveOrder, SendOrder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wavespeed_qwen_async._answers import Answer

__all__ = ["Desk"]

_logger = logging.getLogger(__name__)

_SAFETY = 2.0  # seconds by which two clocks may count a few seconds differently
_LONGEST_HOLD = 5.0  # seconds that a question is held back: a sign of life of a worker that has nothing to do
_BUSY_HOLD = 0.5  # seconds, of one that will soon have something to tell
_MOST_TRIES = 4  # workers that one image may take down with it


class _Lease:
    """An order between its giver and its end."""

    __slots__ = ("end", "handed", "number", "stale", "tries", "what")

    def __init__(self, number: int, what: SendOrder | SaveOrder, end: asyncio.Future[Any]) -> None:
        self.number = number
        self.what = what
        self.end = end
        self.handed = 0.0
        self.tries = 0
        self.stale: asyncio.TimerHandle | None = None


class _Worker:
    """A worker's process, as the desk knows it."""

    __slots__ = ("buried", "handful", "heard", "holds", "last", "name", "place", "room", "saves")

    def __init__(self, place: str, name: str, now: float) -> None:
        self.place = place
        self.name = name
        self.heard = now
        self.room = 0
        self.holds: dict[int, _Lease] = {}
        self.saves = 0
        self.handful = 0
        self.last: list[_Lease] = []
        self.buried = False


class Desk:
    """Orders for workers.

    Args:
        lease: Seconds after which a worker that is not heard is gone.
        start_within: Seconds in which a send must leave that was handed out.
        gather: Seconds for which orders are gathered before the next handful is handed out.
        handful: Orders that one worker is handed at once at most.
    """

    def __init__(
        self, *, lease: float = 20.0, start_within: float = 3.0, gather: float = 0.15, handful: int = 64
    ) -> None:
        self.life: str = uuid.uuid4().hex
        self._lease = max(lease, start_within + _SAFETY)
        self._start_within = start_within
        self._gather = gather
        self._most = handful
        self._number = 0
        self._sends: deque[_Lease] = deque()
        self._saves: deque[_Lease] = deque()
        self._workers: dict[str, _Worker] = {}
        self._parked: OrderedDict[str, asyncio.Future[None]] = OrderedDict()
        self._some = asyncio.Event()
        self._handed_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._over = False

    @property
    def workers(self) -> int:
        """How many workers are here."""
        return sum(not worker.buried for worker in self._workers.values())

    @property
    def start_within(self) -> float:
        """Seconds after the handing out at which no send can leave any more, by anybody's clock."""
        return self._start_within + _SAFETY

    @property
    def open(self) -> bool:
        """Whether orders are taken, and somebody is there to carry them out."""
        return not self._over and self._some.is_set()

    # --- for the coordinator ------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait until there is a worker."""
        if self._over:
            raise SessionClosedError("the run is over")
        await self._some.wait()

    async def send(self, what: SendOrder) -> Answer:
        """Have a submit sent by a worker.

        Raises:
            NotSentError: no worker took it in time, or it did not leave there.
            SubmissionUnknown: its worker is gone, or the answer was lost there.
        """
        loop = asyncio.get_running_loop()
        lease = self._leased(what)
        lease.stale = loop.call_later(self._start_within, self._give_up, lease)
        self._sends.append(lease)
        self._soon()
        answer: Answer = await lease.end
        return answer

    async def save(self, what: SaveOrder) -> None:
        """Have an output saved by a worker.

        Raises:
            DownloadError: it could not be.
        """
        lease = self._leased(what)
        self._saves.append(lease)
        self._soon()
        try:
            await lease.end
        finally:
            lease.end.cancel()  # where the waiter was: then nobody needs it any more

    def close(self) -> None:
        """Hand out nothing more; who waits is told that the run is over."""
        self._over = True
        for timer in (self._timer, self._sweeper):
            if timer is not None:
                timer.cancel()
        self._some.set()
        for lease in (
            *self._sends,
            *self._saves,
            *(held for one in self._workers.values() for held in one.holds.values()),
        ):
            self._end(lease, SessionClosedError("the run is over"))
        self._sends.clear()
        self._saves.clear()
        self._wake_all()

    # --- for the workers ----------------------------------------------------------------------------------------------

    def hello(self, place: str, name: str) -> str:
        """A worker begins, or begins again after it was taken for gone. Gives this life's name."""
        loop = asyncio.get_running_loop()
        self._workers[name] = _Worker(place, name, loop.time())
        self._some.set()
        if self._sweeper is None and not self._over:
            self._sweeper = loop.call_later(min(1.0, self._lease / 4), self._sweep)
        return self.life

    async def take(self, name: str, received: int, room: int, done: Iterable[Done] = ()) -> Handful | None:
        """Orders for a worker that received its handful number ``received`` and has room for so many; may take a while.

        ``done`` is what became of earlier ones. None: this worker is not known, or not any more.
        """
        worker = self._heard(name)
        if worker is None:
            return None
        self._settle(worker, done)
        if worker.last and received != worker.handful:
            self._put_back(worker)
        worker.last, worker.room = [], room
        began = asyncio.get_running_loop().time()
        if room > 0 and not self._over:
            await self._park(worker)
        if worker.buried:
            return None
        now = asyncio.get_running_loop().time()
        orders = [Order(lease.number, lease.what) for lease in worker.last]
        return Handful(self.life, worker.handful, now - began, self._start_within, orders, self._over)

    def _settle(self, worker: _Worker, done: Iterable[Done]) -> None:
        for number, end, disk in done:
            lease = worker.holds.pop(number, None)
            if lease is None:
                continue
            worker.saves -= isinstance(lease.what, SaveOrder)
            if isinstance(end, WaveSpeedError) and disk is not None:
                end.__cause__ = OSError(disk, "on a worker")
            self._end(lease, end)

    def bury(self, place: str) -> None:
        """Whoever worked at this place so far has ended, or its node is gone."""
        for worker in self._workers.values():
            if worker.place == place and not worker.buried:
                self._bury(worker)

    # --- handing out --------------------------------------------------------------------------------------------------

    def _leased(self, what: SendOrder | SaveOrder) -> _Lease:
        if self._over:
            raise SessionClosedError("the run is over")
        self._number += 1
        return _Lease(self._number, what, asyncio.get_running_loop().create_future())

    async def _park(self, worker: _Worker) -> None:
        """Wait until there is something for this worker, or for a while."""
        loop = asyncio.get_running_loop()
        waiter = self._parked[worker.name] = loop.create_future()
        self._soon()
        timer = loop.call_later(_BUSY_HOLD if worker.holds else _LONGEST_HOLD, _set, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            if self._parked.get(worker.name) is waiter:
                del self._parked[worker.name]

    def _soon(self) -> None:
        """Hand out at the end of this pass of the loop, or when enough was gathered since the last time."""
        if self._timer is None and self._parked and (self._sends or self._saves):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._handed_at + self._gather), self._hand_out)

    def _hand_out(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for name in tuple(self._parked):
            if not (self._sends or self._saves):
                return
            worker = self._workers[name]
            leases = self._chosen(worker)
            if not leases:
                continue
            for lease in leases:
                lease.handed = now
                worker.holds[lease.number] = lease
                worker.saves += isinstance(lease.what, SaveOrder)
                if lease.stale is not None:
                    lease.stale.cancel()
            worker.last = leases
            worker.handful += 1
            worker.heard = self._handed_at = now
            _set(self._parked.pop(name))

    def _chosen(self, worker: _Worker) -> list[_Lease]:
        """Sends first, they have little time; saves take half of a worker's room at most."""
        room = min(self._most, worker.room)
        chosen = _taken(self._sends, room)
        most = min(room - len(chosen), max(1, worker.room // 2) - worker.saves)
        return chosen + _taken(self._saves, most)

    def _put_back(self, worker: _Worker) -> None:
        """The last handful never arrived: what was in it was certainly not begun."""
        for lease in worker.last:
            if worker.holds.pop(lease.number, None) is None:
                continue
            if isinstance(lease.what, SendOrder):
                self._end(lease, NotSentError("not sent: it was lost on its way to a worker"))
            else:
                worker.saves -= 1
                self._saves.appendleft(lease)

    def _give_up(self, lease: _Lease) -> None:
        """No worker took it while its permit was fresh: it needs a new one."""
        if lease in self._sends:
            self._sends.remove(lease)
        self._end(lease, NotSentError("not sent: no worker was free"))

    # --- going away ---------------------------------------------------------------------------------------------------

    def _heard(self, name: str) -> _Worker | None:
        worker = self._workers.get(name)
        if worker is None or worker.buried:
            return None
        worker.heard = asyncio.get_running_loop().time()
        return worker

    def _bury(self, worker: _Worker) -> None:
        worker.buried = True
        if (waiter := self._parked.pop(worker.name, None)) is not None:
            _set(waiter)
        if not self.workers and not self._over:
            self._some.clear()
        if worker.holds:
            _logger.warning(
                "worker %s is gone and held %d orders: sends are looked for, what was to be saved is saved by another",
                worker.name,
                len(worker.holds),
            )

    def _sweep(self) -> None:
        """See who is gone, and what can no longer happen."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._sweeper = loop.call_later(min(1.0, self._lease / 4), self._sweep)
        for worker in tuple(self._workers.values()):
            if not worker.buried and now - worker.heard > self._lease:
                self._bury(worker)
            if worker.buried:
                self._inherit(worker, now)
                if not worker.holds:
                    del self._workers[worker.name]

    def _inherit(self, worker: _Worker, now: float) -> None:
        for number, lease in tuple(worker.holds.items()):
            if isinstance(lease.what, SaveOrder):
                del worker.holds[number]
                self._save_again(lease)
            elif now > lease.handed + self.start_within:
                del worker.holds[number]
                self._end(lease, SubmissionUnknown("the worker that sent it is gone: it may have been accepted"))

    def _save_again(self, lease: _Lease) -> None:
        lease.tries += 1
        if lease.tries < _MOST_TRIES:
            self._saves.appendleft(lease)
            self._soon()
            return
        output = lease.what.output if isinstance(lease.what, SaveOrder) else None
        self._end(
            lease,
            DownloadError(
                f"{lease.tries} workers were lost while they saved it; the image is paid and kept for 7 days",
                prediction_id=None if output is None else output.prediction_id,
            ),
        )

    def _end(self, lease: _Lease, end: Answer | WaveSpeedError | None) -> None:
        if lease.stale is not None:
            lease.stale.cancel()
        if lease.end.done():
            return
        if isinstance(end, WaveSpeedError):
            lease.end.set_exception(end)
        else:
            lease.end.set_result(end)

    def _wake_all(self) -> None:
        while self._parked:
            _set(self._parked.popitem()[1])


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _taken(line: deque[_Lease], most: int) -> list[_Lease]:
    """The first of a line that somebody still waits for."""
    taken: list[_Lease] = []
    while line and len(taken) < most:
        lease = line.popleft()
        if not lease.end.done():
            taken.append(lease)
    return taken
