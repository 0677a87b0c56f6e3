"""How results are awaited: one keeper a session, which knows all that is in flight and asks for many at once.

Who awaits what is kept in `watches`, what to ask when is decided in `plan`, what follows from an answer in `listing`
and `verdict`, and `asker` does the asking.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from wavespeed_qwen_async.errors import SessionClosedError, WaveSpeedError
from wavespeed_qwen_async.predictions import Prediction

from .asker import Asker
from .plan import FAILURES_EVERY
from .watches import Book, Watch

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from wavespeed_qwen_async._api import Api
    from wavespeed_qwen_async._tasks import Tasks

__all__ = ["Keeper", "Watch"]

logger = logging.getLogger(__name__)

_STORED_PUSHES = 10_000
_PUSH_KEPT = 600.0


class Keeper:
    """Resolves each prediction in flight exactly once, with few requests.

    Args:
        api: Asks the API.
        tasks: Owns the tasks that single checks and sweeps of the list run in.
        timeout: Seconds that a watch waits unless it says otherwise.
        rng: Draws the jitter of the waits.
        lists: Ask the list of predictions when many are in flight; False: single checks only.
        pushed: Results are pushed by webhook; asking is only a net for deliveries that never come.
    """

    def __init__(
        self,
        api: Api,
        tasks: Tasks,
        *,
        timeout: float,
        rng: random.Random,
        lists: bool = True,
        pushed: bool = False,
    ) -> None:
        self._timeout = timeout
        self._book = Book(rng, api.transport.server_time)
        self._book.patient = pushed
        self._expects_pushes = pushed
        self._asker = Asker(api, tasks, self._book, rng, lists=lists)
        self._pushed: dict[str, tuple[float, Prediction]] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<Keeper of {len(self)} predictions>"

    def __len__(self) -> int:
        return len(self._book.entries)

    def watch(
        self,
        prediction: Prediction | str,
        done: Callable[[Prediction | WaveSpeedError], None],
        *,
        timeout: float | None = None,
        single: bool = False,
    ) -> Watch:
        """Have ``done`` called, exactly once and from the event loop, with the finished prediction or an error.

        Args:
            prediction: As submit answered it, or its id.
            done: Takes what it ended with; must not block.
            timeout: Seconds to wait at most, from now.
            single: The list can't tell it (base64 outputs).

        Raises:
            SessionClosedError: The keeper is closed.
        """
        if self._closed:
            raise SessionClosedError("the session is closed")
        now = _now()
        watch = Watch(self._book, done, now, now + (self._timeout if timeout is None else timeout))
        known = prediction if isinstance(prediction, Prediction) else None
        prediction_id = known.id if known is not None else str(prediction)
        end = known if known is not None and known.settled else self._take_push(prediction_id, now)
        if end is not None:
            asyncio.get_running_loop().call_soon(watch.finish, end)
            return watch
        if not self._book.entries:
            self._asker.begin(now)
        entry = self._book.enter(prediction_id, now, single=single)
        if known is not None:
            self._book.place(entry, known, now)
        self._book.join(entry, watch, now)
        self._asker.plan_at(min(entry.due, entry.look, entry.deadline, now + FAILURES_EVERY))
        return watch

    async def wait(
        self,
        prediction: Prediction | str,
        *,
        timeout: float | None = None,
        single: bool = False,
    ) -> Prediction:
        """Await the finished prediction; cancelling one waiter disturbs no other.

        Raises:
            ResultTimeout: It was not finished in time; it carries the id and ``billed="yes"``.
            ResultUnavailable: The API does not know it, or no longer has its outputs.
            WaveSpeedError: Whatever else keeps us from the result for good.
        """
        future: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()

        def done(end: Prediction | WaveSpeedError) -> None:
            if future.done():
                return
            if isinstance(end, Prediction):
                future.set_result(end)
            else:
                future.set_exception(end)

        watch = self.watch(prediction, done, timeout=timeout, single=single)
        try:
            return await future
        finally:
            watch.cancel()

    def push(self, prediction: Prediction) -> None:
        """Take in a verified webhook delivery; one that comes before its watch is kept for 10 minutes."""
        if self._closed or not prediction.finished:
            return
        self._book.patient, self._book.unpushed = self._expects_pushes, 0
        entry, now = self._book.entries.get(prediction.id), _now()
        if not prediction.settled:
            if entry is not None:
                entry.due, entry.single = now, True
                self._asker.plan_at(now)
        elif entry is not None:
            self._book.learn(entry, prediction, now, pushed=True)
            self._book.settle(entry, prediction)
        else:
            self._store_push(prediction, now)

    async def close(self) -> None:
        """End it: whoever still waits gets a `SessionClosedError` with the id and ``billed="yes"``."""
        self._closed = True
        await self._asker.close()
        self._book.fail_all(SessionClosedError("the session was closed before it was finished"))
        self._pushed.clear()

    def _store_push(self, prediction: Prediction, now: float) -> None:
        while self._pushed:
            oldest = next(iter(self._pushed))
            if len(self._pushed) < _STORED_PUSHES and self._pushed[oldest][0] > now - _PUSH_KEPT:
                break
            del self._pushed[oldest]
        self._pushed.setdefault(prediction.id, (now, prediction))

    def _take_push(self, prediction_id: str, now: float) -> Prediction | None:
        stored = self._pushed.pop(prediction_id, None)
        return stored[1] if stored is not None and stored[0] > now - _PUSH_KEPT else None


def _now() -> float:
    return asyncio.get_running_loop().time()
