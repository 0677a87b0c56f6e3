"""Where submits wait for permission to leave: rate, pace, pause and learning, put on the event loop's clock."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING

from wavespeed_qwen_async.errors import (
    BadRequestError,
    LimitsBrokenError,
    NotSentError,
    PredictionError,
    RateLimitError,
    ServerError,
    SubmissionUnknown,
)

from .learning import Allowance
from .pause import Breaker, Pause
from .rate import GATHER, SLACK, WAYS, Pace, Send, SendWindow
from .slots import Line, loop_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wavespeed_qwen_async.errors import WaveSpeedError

__all__ = ["Gate"]

_logger = logging.getLogger(__name__)


class Gate:
    """Lets submits leave one by one, first come, first served, as the server can take them.

    One timer, for the head of the line, however many wait.
    """

    def __init__(self, most: int, *, burst: float, window: float, learn: bool, breaker: Breaker) -> None:
        self.window = SendWindow(window, WAYS if math.isinf(burst) else max(WAYS, int(burst)))
        self.pause = Pause(window, breaker)
        self.allowance = Allowance(most, window=window, learn=learn)
        self.sent = 0
        self.refused = 0
        self._pace = Pace(window, burst)
        self._line: Line[Send] = Line()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._paced = False
        self._now = 0.0
        self._shift = 0.0

    @property
    def waiting(self) -> int:
        """How many wait for permission."""
        return len(self._line)

    def peek(self) -> float:
        """The time, for those who only look: on another loop, or on none, the last that was seen."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._now
        return loop.time() + self._shift if loop is self._loop else self._now

    def now(self) -> float:
        """The running loop's time; outside of any loop, the last time that was seen.

        A limiter that moves to a second loop goes on where it was: if that loop's clock is behind (a virtual one),
        as if no time had passed, so that no window is ever broken by it.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._now
        if loop is not self._loop:
            self._loop = loop_of(self._loop, loop)
            self._line, self._timer = Line(), None
            self._shift = max(0.0, self._now - loop.time())
        self._now = loop.time() + self._shift
        return self._now

    async def start(self, *, again: bool) -> Send:
        """Wait for permission to send once, before all others if it is sent `again`.

        Raises:
            LimitsBrokenError: The server has refused for so long that the breaker is open.
        """
        now = self.now()
        if self.pause.broken and now < self.pause.until:
            raise self._broken()
        line = self._line
        if not line.waking and not line.occupied() and self._free_at(now) <= now + SLACK:
            return self._let_go(now)
        waiter = line.join(again=again)
        if self._timer is None:  # else the others wait for a time that one more does not change
            self.pump()
        return await line.wait(waiter, self._unsend)

    def report(self, send: Send, error: WaveSpeedError | None) -> None:
        """Settle a send by its answer."""
        if send.settled:
            return
        now = self.now()
        self.pause.settled(send)
        if error is None:
            self.window.settle(send, now)
            if not self._accepted(send, now) and self._paced:
                return  # an answer makes room in the window, and that is not what they wait for
        elif isinstance(error, NotSentError):
            self._unsend(send)
            return
        elif isinstance(error, RateLimitError):
            self._refuse(send, error, now)
        else:
            self.window.settle(send, now)
            if isinstance(error, (BadRequestError, PredictionError)):
                self._accepted(send, now)
            elif isinstance(error, (SubmissionUnknown, ServerError)) and self.pause.failed(send, now):
                self._begin_pause(now)
        self.pump()

    def cancel(self, send: Send) -> None:
        """Settle a send whose answer nobody will learn."""
        if not send.settled:
            self.pause.settled(send)
            self.window.abandon(send, self.now())
            self.pump()

    def stay(self, send: Send) -> None:
        """Something is written down before it leaves: another may be on the way meanwhile."""
        self.window.stay(send)
        self.pump()

    def leave(self, send: Send) -> None:
        """It leaves: another may be written down."""
        self.window.leave(send)
        self.pump()

    def seed(self, ages: Iterable[float]) -> None:
        """Count sends from before a restart."""
        asyncio.get_running_loop()  # seconds ago of what clock, otherwise? A RuntimeError rather than a broken window
        self.window.seed(ages, self.now())

    def pump(self) -> None:
        """Let go all that may leave, and come back when the next may."""
        if not self._line.occupied():
            self._stop_timer()
            return
        now = self.now()
        self.allowance.step(now)
        while (due := self._free_at(now)) <= now + SLACK:
            self._line.serve(self._let_go(now))
            if not self._line.occupied():
                self._stop_timer()
                return
        self._wake_at(max(due, now + GATHER))

    def _free_at(self, now: float) -> float:
        due = self._pace.due(self.allowance.value)
        free = max(self.pause.free_at(now), self.window.free_at(self.allowance.whole, now))
        self._paced = due >= free
        return max(due, free)

    def _let_go(self, now: float) -> Send:
        send = Send(self, now, self.pause.episode)
        self.window.add(send)
        self._pace.sent(now, self.allowance.value)
        self.pause.sent(send)
        self.sent += 1
        return send

    def _accepted(self, send: Send, now: float) -> bool:
        """Take in that the server works. True where that ends a trial, and others may follow."""
        was_trial = self.pause.accepted(send)
        if was_trial:
            self._pace.hold(now)
        return was_trial

    def _unsend(self, send: Send) -> None:
        self.pause.settled(send)
        self.window.settle(send, self.now(), arrived=False, accepted=False)
        self._pace.unsent()
        self.sent -= 1
        self.pump()

    def _refuse(self, send: Send, error: RateLimitError, now: float) -> None:
        self.refused += 1
        self.window.settle(send, now, accepted=False)
        was_broken = self.pause.broken
        if self.pause.refused(send, now, error.retry_after, self.window.rest(now)):
            until = self.pause.until
            self.allowance.refused(self.window.accepted(now), until, self.window.wasted(until, now))
            self._begin_pause(now)
        else:
            self.allowance.refused_too()
            self._pace.hold(self.pause.until)
            if self.pause.broken and not was_broken:
                self._begin_pause(now)

    def _begin_pause(self, now: float) -> None:
        self._pace.hold(self.pause.until)
        state = {
            "reason": self.pause.reason,
            "seconds": round(self.pause.until - now, 3),
            "allowance": self.allowance.whole,
        }
        if not self.pause.broken:
            _logger.info("submits pause for %(seconds)s s (%(reason)s), then at most %(allowance)s a window", state)
            return
        _logger.error("submits given up: the server goes on refusing (%(reason)s)", state)
        self._line.dismiss(self._broken)

    def _broken(self) -> LimitsBrokenError:
        wait = max(0.0, self.pause.until - self._now)
        return LimitsBrokenError(
            f"the server has accepted no submit for too long ({self.pause.reason}); given up for {wait:.0f} s. "
            "What was not sent is not billed: run again later, or with a lower tier or max_per_minute",
            retry_after=wait,
        )

    def _wake_at(self, due: float) -> None:
        when = due - self._shift
        if self._timer is not None:
            if self._timer_at <= when:
                return  # early is well: it will look again
            self._timer.cancel()
            self._timer = None
        if self._loop is not None and not self._loop.is_closed():
            self._timer = self._loop.call_at(when, self._on_timer)
            self._timer_at = when  # uvloop's handles do not tell it where it has passed

    def _on_timer(self) -> None:
        self._timer = None
        self.pump()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
