"""Waiting in line: places that are handed from one holder to the next, first come, first served.

`asyncio.Semaphore` has no size that changes while it is in use, and keeps no count of who waits; anyio's
`CapacityLimiter` has both, but yields to the loop on every acquire, which is dearer than the acquire itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from wavespeed_qwen_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Line", "Slot", "Slots", "check_count", "loop_of"]

_T = TypeVar("_T")


class Line(Generic[_T]):
    """Tasks that wait to be handed something, in the order in which they came; those that come again go before.

    Leaving and being served cost the same however many wait: an ordered dict drops a waiter in the middle at once,
    where a deque would keep a dead future until its turn comes.

    Attributes:
        waking: How many were served and have not run since. Who comes meanwhile has to stand in line even where
            there is enough for all, or runs before them.
    """

    __slots__ = ("_again", "_waiters", "waking")

    def __init__(self) -> None:
        self.waking = 0
        self._waiters: OrderedDict[asyncio.Future[_T], None] = OrderedDict()
        self._again: OrderedDict[asyncio.Future[_T], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._again) + len(self._waiters)

    def join(self, *, again: bool = False) -> asyncio.Future[_T]:
        """Stand in line; to be followed by `wait` without an await between."""
        waiter: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        (self._again if again else self._waiters)[waiter] = None
        return waiter

    async def wait(self, waiter: asyncio.Future[_T], undo: Callable[[_T], object]) -> _T:
        """Wait until something is handed over; `undo` takes it back if this task is cancelled at that very moment."""
        try:
            if waiter.done():  # served at once; awaiting it would not let those run who are waking up
                await asyncio.sleep(0)
            value = await waiter
        except BaseException:
            self._waiters.pop(waiter, None)
            self._again.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.waking -= 1
                undo(waiter.result())
            raise
        self.waking -= 1
        return value

    def occupied(self) -> bool:
        """Tell whether anybody waits, forgetting those at the head who were cancelled and have not run since."""
        while line := self._again or self._waiters:
            if not next(iter(line)).done():
                return True
            line.popitem(last=False)
        return False

    def serve(self, value: _T) -> None:
        """Hand it to the first in line. Only after `occupied` has said that there is one."""
        self.waking += 1
        (self._again or self._waiters).popitem(last=False)[0].set_result(value)

    def dismiss(self, make_error: Callable[[], BaseException]) -> None:
        """Let everybody's wait end with an error, one of its own for each: a shared one gathers tracebacks."""
        while self.occupied():
            (self._again or self._waiters).popitem(last=False)[0].set_exception(make_error())


class Slot:
    """One place, held until `release`. Works as a context manager, sync or async, that releases it."""

    __slots__ = ("_generation", "_owner")

    def __init__(self, owner: Slots, generation: int) -> None:
        self._owner: Slots | None = owner
        self._generation = generation

    def __repr__(self) -> str:
        return f"<Slot {'held' if self._owner else 'released'}>"

    def release(self) -> None:
        """Give the place to whoever has waited longest. A second call does nothing."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.give_back(self._generation)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Slots:
    """A number of places, first come, first served; ``async with slots:`` holds one.

    Args:
        size: How many there are, from 1. May be changed at any time: more places are taken at once by those who
            wait, fewer come into force as places are given back.
        field: What error messages call the size.
        least: The smallest size; 0 where somebody else decides how many there are.
    """

    def __init__(self, size: int, *, field: str = "size", least: int = 1) -> None:
        self._field = field
        self._least = least
        self._size = check_count(field, size, least=least)
        self._in_use = 0
        self._line: Line[int] = Line()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._generation = 0

    def __repr__(self) -> str:
        return f"<Slots {self._in_use} of {self._size} in use, {len(self._line)} waiting>"

    @property
    def size(self) -> int:
        """How many places there are."""
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        self._size = check_count(self._field, size, least=self._least)
        self._hand_over()

    @property
    def in_use(self) -> int:
        """How many places are held; more than `size` for a while after it was made smaller."""
        return self._in_use

    @property
    def waiting(self) -> int:
        """How many tasks wait for a place."""
        return len(self._line)

    async def acquire(self) -> Slot:
        """Take a place, or wait for one. Does not yield to the loop when one is free."""
        return Slot(self, await self._take())

    async def __aenter__(self) -> None:
        await self._take()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back(self._generation)

    async def _take(self) -> int:
        if (loop := asyncio.get_running_loop()) is not self._loop:
            self._move(loop)
        # A free place means that nobody is in line: whatever frees one hands it over in the same breath.
        if self._in_use < self._size and not self._line.waking:
            self._in_use += 1
            return self._generation
        waiter = self._line.join()
        self._hand_over()
        return await self._line.wait(waiter, self.give_back)

    def give_back(self, generation: int) -> None:
        """Take back a place that was taken in `generation`; those of a loop that has ended are long forgotten."""
        if generation == self._generation:
            self._in_use -= 1
            self._hand_over()

    def _hand_over(self) -> None:
        while self._in_use < self._size and self._line.occupied():
            self._in_use += 1
            self._line.serve(self._generation)

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop_of(self._loop, loop)
        self._generation += 1
        self._in_use = 0
        self._line = Line()


def loop_of(old: asyncio.AbstractEventLoop | None, new: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """Return the new loop, or refuse it while the old one still runs: in two threads at once nothing here is safe."""
    if old is not None and old.is_running():
        raise ConfigurationError(
            "limits: these limits are in use on another event loop that still runs; "
            "give each thread's session limits of its own, each with its share of the account's"
        )
    return new


def check_count(field: str, value: object, *, least: int = 1, most: int | None = None) -> int:
    """Return `value` if it is a whole number from `least` to `most`.

    Raises:
        ConfigurationError: It is not; the message names the field, the value and the range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"from {least} up" if most is None else f"from {least} to {most}"
        raise ConfigurationError(f"{field}={value!r}: must be a whole number {span}")
    return value
