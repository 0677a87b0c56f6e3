"""One timer for many waits that may take equally long, where a timer for each would cost as much as the wait's work."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Deadlines"]


class Deadlines:
    """``with deadlines.wait(): ...`` ends what the running task awaits there after ``seconds``, with a TimeoutError.

    As ``asyncio.timeout`` does it: by cancelling the task, and taking that back where nobody else cancelled it too.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: dict[Wait, None] = {}  # in the order of their deadlines, since all may take equally long
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def wait(self) -> Wait:
        """A wait of the running task, to be entered at once."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - what is awaited is awaited in a task
        wait = Wait(self._waits, task, loop.time() + self._seconds)
        self._waits[wait] = None
        if self._timer is None:
            self._timer = loop.call_at(wait.deadline, self._look)
        return wait

    def close(self) -> None:
        """Let the timer go, and the loop; as long as somebody waits, they stay."""
        if self._waits:
            return
        timer, self._timer, self._loop = self._timer, None, None
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._waits:
            wait = next(iter(self._waits))
            if wait.deadline > loop.time():
                self._timer = loop.call_at(wait.deadline, self._look)
                return
            wait.expire()


class Wait:
    """One wait of one task."""

    __slots__ = ("_cancelling", "_expired", "_task", "_waits", "deadline")

    def __init__(self, waits: dict[Wait, None], task: asyncio.Task[object], deadline: float) -> None:
        self._waits = waits
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False
        self.deadline: float = deadline

    def expire(self) -> None:
        """Its time is over."""
        del self._waits[self]
        self._expired = True
        self._task.cancel()

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._expired:
            del self._waits[self]
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
