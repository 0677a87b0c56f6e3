"""Who owns the tasks: each one started here ends here, at the latest when its owner is closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["Tasks"]

T = TypeVar("T")


class Tasks:
    """A set of tasks that outlive the call that began them, but never this owner.

    A task group can't do this: it must be left by the task that entered it and cancels that one when a child fails,
    while a session is often opened in one task, used from many and closed in another.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task. Its errors are its awaiter's: whoever needs none must catch them inside."""
        if self._closed:
            work.close()
            raise RuntimeError("this owner of tasks is closed")
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settle(self, grace: float) -> None:
        """Give what still runs ``grace`` seconds to end by itself."""
        if self._tasks and grace > 0:
            await asyncio.wait(self._tasks, timeout=grace)

    async def close(self, grace: float = 0.0) -> None:
        """Take no more tasks, give ``grace`` seconds to those that run, then cancel and await the rest."""
        self._closed = True
        try:
            await self.settle(grace)
        finally:
            while self._tasks:
                for task in tuple(self._tasks):
                    task.cancel()
                await asyncio.wait(self._tasks)
