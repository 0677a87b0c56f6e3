"""Who owns the tasks: each one started here ends here, at the latest when its owner is closed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["Tasks"]

T = TypeVar("T")


class Tasks:
    """A set of tasks that outlive the call that began them, but never this owner.

    A task group can't do this: it must be left by the task that entered it and cancels that one when a child fails,
    while a session is often opened in one task, used from many and closed in another.

    Besides its own tasks it takes in *guests*: tasks of another owner that must not be cut off for a stretch. Another
    owner that closes spares them, and leaves them to this one.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._guests: dict[asyncio.Task[Any], bool] = {}
        self._alone: asyncio.Event | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def closed(self) -> bool:
        """Whether it takes no more tasks."""
        return self._closed

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task. Its errors are its awaiter's: whoever needs none must catch them inside."""
        if self._closed:
            work.close()
            raise RuntimeError("this owner of tasks is closed")
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def take_in(self) -> asyncio.Task[Any]:
        """Make the running task a guest, until ``send_off``."""
        task = asyncio.current_task()
        if task is None or self._closed:
            raise RuntimeError("this owner of tasks is closed")
        self._guests[task] = True
        return task

    def send_off(self, guest: asyncio.Task[Any]) -> bool:
        """End its stay. False: its owner was closed meanwhile, and nobody waits for what it would do next."""
        wanted = self._guests.pop(guest)
        if self._alone is not None and not self._guests:
            self._alone.set()
        return wanted

    def keep(self, tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
        """Which of ``tasks`` are guests: from now on these are nobody else's, and their end is awaited here."""
        kept = tasks & self._guests.keys()
        self._guests.update(dict.fromkeys(kept, False))
        return kept

    async def settle(self, grace: float) -> None:
        """Give what still runs, guests included, ``grace`` seconds to end by itself."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, grace)):
                await self._last_guest()
                if self._tasks:
                    await asyncio.wait(self._tasks)

    async def close(self, grace: float = 0.0, *, sparing: Tasks | None = None) -> set[asyncio.Task[Any]]:
        """Take no more tasks, give ``grace`` seconds to those that run, then cancel and await the rest.

        Those that are guests of ``sparing`` are left to it, and returned.
        """
        self._closed = True
        spared = sparing.keep(self._tasks) if sparing is not None else set()
        self._tasks -= spared
        try:
            if grace > 0:  # a timeout of 0 would let them run once more, and send what they should not
                await self.settle(grace)
        finally:
            while self._tasks or self._guests:
                for task in (*self._tasks, *self._guests):
                    task.cancel()
                await asyncio.wait((*self._tasks, *self._guests))
        return spared

    async def _last_guest(self) -> None:
        if self._guests:
            self._alone = self._alone or asyncio.Event()
            self._alone.clear()
            await self._alone.wait()
