"""Work that many ask for and that is done once: those who come while it is under way wait for the same task."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wavespeed_qwen_async.errors import SessionClosedError, WaveSpeedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from wavespeed_qwen_async._tasks import Tasks

__all__ = ["Flights"]

T = TypeVar("T")


class Flights(Generic[T]):
    """Tasks by key. A waiter that is cancelled leaves its flight to the others; an end, good or bad, is forgotten."""

    def __init__(self, tasks: Tasks, name: str) -> None:
        self._tasks = tasks
        self._name = name
        self._under_way: dict[str, asyncio.Task[T]] = {}
        self._closed = False

    async def join(self, key: str, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the flight of ``key``; ``start`` makes it where none is under way.

        Raises:
            SessionClosedError: it was ended by ``close``.
        """
        if self._closed:
            raise SessionClosedError(f"the session is closed: no {self._name}")
        flight = self._under_way.get(key)
        if flight is None:
            flight = self._tasks.start(start(), f"{self._name} {key[:8]}")
            self._under_way[key] = flight
            flight.add_done_callback(lambda done: self._land(key, done))
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if flight.cancelled() and not (task and task.cancelling()):
                raise SessionClosedError(f"the session was closed during the {self._name}") from None
            raise
        except WaveSpeedError as error:
            # Each waiter's own: it will be given a job, and a traceback.
            raise copy.copy(error) from error.__cause__

    async def close(self) -> None:
        """End what is under way."""
        self._closed = True
        flights = tuple(self._under_way.values())
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)

    def _land(self, key: str, flight: asyncio.Task[T]) -> None:
        self._under_way.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # seen, even if every waiter has gone
