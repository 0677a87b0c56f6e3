"""An asyncio event loop on virtual time: hours of waiting pass in no time, and end at exactly the same instant.

`VirtualClockLoop.time()` stands still while there is anything to do, and jumps to the next timer when there is not.
Sockets are real, so a client and a server in one process talk over loopback as they always do::

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(main())

or, for tests under anyio's pytest plugin, ``("asyncio", {"loop_factory": VirtualClockLoop})`` as `anyio_backend`.

What it can see, it waits for in real time: data on sockets of this loop, and work in `loop.run_in_executor` (which
name look-ups use too). What it cannot see has to be announced with `VirtualClockLoop.hold`: threads of one's own,
`anyio.to_thread`, child processes, servers in another process.

The idea is trio's `MockClock` with its autojump; doing it in the selector, which asyncio asks to wait for as long as
the next timer is away, is how aiotools' `VirtualClock` and looptime do it.
"""

from __future__ import annotations

import asyncio
import math
import select
import selectors
import sys
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

__all__ = ["DeadlockError", "VirtualClockLoop"]

_Ts = TypeVarTuple("_Ts")
_P = ParamSpec("_P")
_T = TypeVar("_T")

_TICKS_PER_SECOND = 1_000_000
# A timer's float may lie a rounding error above the tick that it means: 0.1 + 0.2 is no microsecond later than 0.3.
_ROUNDING = 1e-3
# This many passes in a row without ever being idle is code that spins (`while not done: await asyncio.sleep(0)`).
_SPINNING = 10_000


class DeadlockError(BaseException):
    """Every task waits, and no timer, socket or executor work is left that could wake one of them.

    Not an `Exception`, for the same reason as `KeyboardInterrupt`: it ends the loop from outside, and anyio's test
    runner then cancels the test that hangs instead of waiting for it in every later fixture.
    """


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` jumps to the next timer instead of waiting for it.

    Time is counted in whole microseconds. A timer is rounded up to the next one, and never fires at the instant at
    which it was set: code that computes a rest of 1e-17 s and waits for it (aiolimiter does) would otherwise find
    the clock unmoved, and wait again, forever. Timers of one instant fire in the order in which they were set.

    Args:
        start: What `time()` says at first, in seconds. Not 0, so that no test passes because 0 is false.
        grace: Real seconds of silence on the loop's sockets before the clock jumps. Not spent without sockets.
        patience: Real seconds of silence, with no timer set, after which a deadlock is reported.
    """

    def __init__(self, *, start: float = 1000.0, grace: float = 0.0001, patience: float = 5.0) -> None:
        self._clock = _JumpingSelector(self, _nearest_tick(start), grace, patience)
        self._start = self._clock.now
        self._order = count()
        self._workers: Executor | None = None
        super().__init__(self._clock)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} elapsed={self.elapsed!r} closed={self.is_closed()}>"

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the start, free of the rounding errors of `time() - start`."""
        return (self._clock.now - self._start) / _TICKS_PER_SECOND

    def time(self) -> float:
        """Virtual seconds, from `start`."""
        return self._clock.now / _TICKS_PER_SECOND

    def advance(self, seconds: float) -> None:
        """Move the clock as if the code that runs now had taken that long. Timers which that makes due fire late."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds=}")
        self._clock.now += _nearest_tick(seconds)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let the clock stand still inside, for work that the loop cannot see: threads, other processes."""
        self._clock.holds += 1
        try:
            yield
        finally:
            self._clock.holds -= 1

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Like any loop's `call_at`, on the next whole microsecond that is not now."""
        if when == math.inf:  # "never": a timer there would keep the clock jumping, and hide a deadlock
            return asyncio.TimerHandle(when, callback, args, self, context)
        tick = max(math.ceil(when * _TICKS_PER_SECOND - _ROUNDING), self._clock.now + 1)
        moment = _Moment(tick / _TICKS_PER_SECOND)
        moment.order = next(self._order)
        return super().call_at(moment, callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[_Ts]], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Like any loop's `run_in_executor`; the clock stands still until the work has ended, cancelled or not."""
        if executor is None and self._workers is None:
            self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
        watched = _Watched(executor or self._workers, self._count_work)  # type: ignore[arg-type]  # not None: just set
        future = super().run_in_executor(watched, func, *args)
        self._clock.holds += 1  # a second hold: the answer still has to reach the loop when the work has ended
        future.add_done_callback(self._release)
        return future

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:  # type: ignore[override]
        """Like any loop's `set_default_executor`."""
        super().set_default_executor(executor)
        self._workers = executor

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002 - theirs
        """Wait for the executor's threads in real time, without the timeout: virtually it would be over at once."""
        with self.hold():
            await super().shutdown_default_executor()

    def _count_work(self, work: Future[Any]) -> None:
        self._clock.holds += 1
        work.add_done_callback(self._release_from_thread)

    def _release_from_thread(self, _: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed, its clock of no interest any more
            self.call_soon_threadsafe(self._release)

    def _release(self, _: object = None) -> None:
        self._clock.holds -= 1


class _Moment(float):
    """A timer's time that sorts by order of arrival among equals: asyncio's heap of timers is not stable.

    On a real clock it need not be, as no two timers are ever set for the same nanosecond.
    """

    order = 0

    def __lt__(self, other: float) -> bool:
        if isinstance(other, _Moment) and float.__eq__(self, other):
            return self.order < other.order
        return float.__lt__(self, other)


class _Watched(Executor):
    """An executor that tells of each piece of work.

    Asyncio's own future will not do: it ends when it is cancelled, while the thread still runs.
    """

    def __init__(self, executor: Executor, tell: Callable[[Future[Any]], None]) -> None:
        self._executor = executor
        self._tell = tell

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        work = self._executor.submit(fn, *args, **kwargs)
        self._tell(work)
        return work


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that, asked to wait for some time, lets that time have passed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: int, grace: float, patience: float) -> None:
        super().__init__()
        self.now = now
        self.holds = 0
        self._loop = loop
        self._grace = grace
        self._patience = patience
        self._busy_passes = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            self._creep()
            return super().select(0)
        self._busy_passes = 0
        return super().select(0) or self._wait(timeout)

    def _wait(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.holds:
            return super().select(None)
        if timeout is None:
            return super().select(self._patience) or self._report_deadlock()
        ready = self._settle() if len(self.get_map()) > 1 else []  # one is always there: the loop's pipe to itself
        if not ready:
            self.now += _nearest_tick(timeout)
        return ready

    def _settle(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Look again after a moment: loopback delivers within the call that sends, unless the kernel defers it.

        The moment is spent asleep, so that the processor is free for just that, and not in `epoll`, whose shortest
        is a millisecond. `time.sleep` would do, were it not what blockbuster forbids.
        """
        if sys.platform == "win32":
            return super().select(self._grace)
        select.select([], [], [], self._grace)
        return super().select(0)

    def _creep(self) -> None:
        """Let spinning code see time pass, ever faster: it may be waiting for a timer that only a jump would reach."""
        self._busy_passes += 1
        self.now += self._busy_passes // _SPINNING

    def _report_deadlock(self) -> list[tuple[selectors.SelectorKey, int]]:
        tasks = sorted(_describe(task) for task in asyncio.all_tasks(self._loop))
        waiting = "\n  ".join(tasks) or "(no task at all: the loop waits for a future that nobody will set)"
        raise DeadlockError(
            f"no timer, no executor work and no data for {self._patience} s of real time; waiting:\n  {waiting}"
        )


def _nearest_tick(seconds: float) -> int:
    return round(seconds * _TICKS_PER_SECOND)


def _describe(task: asyncio.Task[Any]) -> str:
    """Name a task and the lines at which it waits, the innermost last."""
    coroutine: Any = task.get_coro()
    lines = []
    while frame := getattr(coroutine, "cr_frame", None):
        file = PurePath(frame.f_code.co_filename).name
        lines.append(f"{coroutine.__qualname__} ({file}:{frame.f_lineno})")
        coroutine = coroutine.cr_await
    return f"{task.get_name()}: {' > '.join(lines) or repr(coroutine)}"
