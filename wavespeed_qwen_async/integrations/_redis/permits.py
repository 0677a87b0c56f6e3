"""Permission to send: who waits for it here, which permits are at hand, and what became of those that were used."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from wavespeed_qwen_async._limits.rate import SLACK, Send
from wavespeed_qwen_async._limits.slots import Line
from wavespeed_qwen_async.errors import (
    BadRequestError,
    NotSentError,
    PredictionError,
    RateLimitError,
    ServerError,
    SubmissionUnknown,
)

from .exchange import USE_BY, End

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wavespeed_qwen_async.errors import WaveSpeedError

    from .exchange import Kind

__all__ = ["Permit", "Permits"]


class Permit(Send):
    """A permission that Redis gave."""

    __slots__ = ("due", "id")

    def __init__(self, owner: Permits, id_: str, due: float, episode: int) -> None:
        super().__init__(owner, due, episode)
        self.id: str = id_
        self.due: float = due


class Permits:
    """Hands permits to those who wait, each when it is due, first come, first served.

    Args:
        needed: Called when somebody waits for whom there is no permit.
        settled: Called with what became of a permit; its end is in `ends` by then.
    """

    def __init__(self, *, needed: Callable[[], None], settled: Callable[[Kind], None]) -> None:
        self.ends: deque[End] = deque()
        self.sent = 0
        self.refused = 0
        self._needed = needed
        self._settled = settled
        self._line: Line[Send] = Line()
        self._ready: deque[Permit] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._someone = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many wait for permission."""
        return len(self._line)

    @property
    def missing(self) -> int:
        """For how many there is no permit."""
        return max(0, len(self._line) - len(self._ready))

    def stay(self, send: Send) -> None:
        """Nothing: the permit is of its moment, whoever writes something down first."""

    def leave(self, send: Send) -> None:
        """The same."""

    async def start(self, *, again: bool) -> Send:
        """Wait for permission."""
        waiter = self._line.join(again=again)
        self._someone.set()
        if self.missing:
            self._needed()
        return await self._line.wait(waiter, self._unsend)

    def give(self, permits: Iterable[tuple[str, float]], episode: int, now: float) -> None:
        """Take what Redis gave: ids, and in how many seconds they may be used."""
        self._ready.extend(Permit(self, id_, now + wait, episode) for id_, wait in permits)
        self._pump()

    async def someone(self) -> None:
        """Wait until somebody waits here."""
        while not self._line.occupied():
            self._someone.clear()
            await self._someone.wait()

    def serve(self, send: Send) -> bool:
        """Hand a permission from elsewhere to the first in line; False if there is nobody."""
        if not self._line.occupied():
            return False
        self._line.serve(send)
        self.sent += 1
        return True

    def fail(self, make_error: Callable[[], BaseException]) -> None:
        """End all waits with an error."""
        self._line.dismiss(make_error)
        self.give_back()

    def give_back(self) -> None:
        """Send back what is at hand."""
        while self._ready:
            self._unsent(self._ready.popleft())
        self._stop_timer()

    def report(self, permit: Permit, error: WaveSpeedError | None) -> None:
        """Settle a permit by the answer to what was sent with it."""
        if permit.settled:
            return
        if isinstance(error, NotSentError):
            self._unsend(permit)
        elif isinstance(error, RateLimitError):
            self.refused += 1
            self._end(permit, "refused", error.retry_after)
        elif error is None or isinstance(error, BadRequestError | PredictionError):
            self._end(permit, "worked")
        else:
            self._end(permit, "failed" if isinstance(error, SubmissionUnknown | ServerError) else "other")

    def cancel(self, permit: Send) -> None:
        """Settle a permit whose send's answer nobody will learn."""
        if isinstance(permit, Permit) and not permit.settled:
            self._end(permit, "cut off")

    def _pump(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._ready and self._line.occupied():
            permit = self._ready[0]
            if permit.due > now + SLACK:
                self._wake_at(permit.due)
                return
            self._ready.popleft()
            if now > permit.due + USE_BY:
                self._unsent(permit)
                continue
            permit.started = now
            self.serve(permit)
        self.give_back()
        if self.missing:
            self._needed()

    def _unsend(self, send: Send) -> None:
        self.sent -= 1
        if isinstance(send, Permit):
            self._unsent(send)
        else:  # of this process's own share
            send.cancel()

    def _unsent(self, permit: Permit) -> None:
        self._end(permit, "unsent")

    def _end(self, permit: Permit, kind: Kind, retry_after: float | None = None) -> None:
        permit.settled = True
        self.ends.append(End(permit.id, asyncio.get_running_loop().time(), kind, permit.episode, retry_after))
        self._settled(kind)

    def _wake_at(self, due: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
