"""How results are awaited: one keeper a session, which knows all that is in flight and asks for many at once.

What to ask when is decided in `_plan`, what follows from an answer in `_listing` and `_verdict`; this module only acts.
One timer serves all watches. A watch is a small record: no task and no timer of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from typing import TYPE_CHECKING, Any

from . import _listing, _plan
from ._answers import read_prediction
from ._listing import Trust
from ._pace import SPACING, Paces
from ._plan import Entry, Outlook, Window, make_plan
from ._verdict import about, timed_out, verdict
from ._wire import result_request
from .errors import (
    AuthenticationError,
    LostAnswerError,
    NotSentError,
    RateLimitError,
    SessionClosedError,
    WaveSpeedError,
)
from .predictions import FINAL_STATUSES, Prediction

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine

    from ._answers import Answer
    from ._api import Api
    from ._listing import Proof
    from ._tasks import Tasks

__all__ = ["Keeper", "Watch"]

logger = logging.getLogger(__name__)

_PAGE_TIMEOUT = 15.0  # seconds; a list slower than this is no help
_MOST_PAGES = 120  # of one sweep: 12,000 predictions, beyond what any tier has in flight
_PAGE_REST = 0.2  # seconds of rest for each page that the last sweep took
_KEY_REFUSALS = 3  # 401s in a row, over this many seconds, after which the key is taken to be revoked
_KEY_REFUSED_FOR = 4.0
_STORED_PUSHES = 10_000
_PUSH_KEPT = 600.0
_LONGEST_PAUSE = 20.0


class Watch:
    """One caller's interest in one prediction."""

    __slots__ = ("_done", "_keeper", "deadline", "entry", "since")

    def __init__(
        self, keeper: Keeper, done: Callable[[Prediction | WaveSpeedError], None], since: float, deadline: float
    ) -> None:
        self._keeper = keeper
        self._done: Callable[[Prediction | WaveSpeedError], None] | None = done
        self.entry: Entry | None = None
        self.since = since
        self.deadline = deadline

    def cancel(self) -> None:
        """Lose interest: ``done`` is never called after this. The prediction itself goes on."""
        self._done = None
        entry, self.entry = self.entry, None
        if entry is not None:
            self._keeper._leave(entry, self)  # noqa: SLF001 - the two halves of one thing

    def _finish(self, outcome: Prediction | WaveSpeedError) -> None:
        done, self._done, self.entry = self._done, None, None
        if done is None:
            return
        try:
            done(outcome)
        except Exception as error:  # noqa: BLE001 - one caller's mistake must not cost the others their results
            context = {"message": "a callback of the completion keeper failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


class Keeper:
    """Resolves each prediction in flight exactly once, with few requests.

    Args:
        api: Asks the API.
        tasks: Owns the tasks that single checks and sweeps run in.
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
        self._api = api
        self._tasks = tasks
        self._timeout = timeout
        self._rng = rng
        self._lists = lists
        self._expects_pushes = pushed
        self._entries: dict[str, Entry] = {}
        self._recent: dict[str, float] = {}
        self._pushed: dict[str, tuple[float, Prediction]] = {}
        self._paces = Paces()
        self._trust = Trust()
        self._told = False
        self._outlook = Outlook()
        self._failures = 0
        self._refusals = 0
        self._refused_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._planned = -math.inf
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self._context = contextvars.copy_context()  # not that of whichever caller happens to set a timer

    def __repr__(self) -> str:
        return f"<Keeper of {len(self._entries)} predictions>"

    def __len__(self) -> int:
        return len(self._entries)

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
        watch = Watch(self, done, now, now + (self._timeout if timeout is None else timeout))
        known = prediction if isinstance(prediction, Prediction) else None
        prediction_id = known.id if known else str(prediction)
        ended = known if known and _believable(known) else self._take_push(prediction_id, now)
        if ended is not None:
            asyncio.get_running_loop().call_soon(watch._finish, ended)  # noqa: SLF001
            return watch
        entry = self._entries.get(prediction_id)
        if entry is None:
            entry = self._enter(prediction_id, known, now, single=single)
        self._join(entry, watch, now)
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

        def done(outcome: Prediction | WaveSpeedError) -> None:
            if future.done():
                return
            if isinstance(outcome, Prediction):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

        watch = self.watch(prediction, done, timeout=timeout, single=single)
        try:
            return await future
        finally:
            watch.cancel()

    def push(self, prediction: Prediction) -> None:
        """Take in a verified webhook delivery; one that comes before its watch is kept for 10 minutes."""
        if self._closed or not prediction.finished:
            return
        entry, now = self._entries.get(prediction.id), _now()
        if not _believable(prediction):
            if entry is not None:
                entry.due, entry.single = now, True
                self._plan_at(now)
        elif entry is not None:
            self._learn(entry, prediction, now)
            self._settle(entry, prediction)
        else:
            self._store_push(prediction, now)

    async def close(self) -> None:
        """End it: whoever still waits gets a `SessionClosedError` with the id and ``billed="yes"``."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._running:
            for task in tuple(self._running):
                task.cancel()
            await asyncio.wait(self._running)
        self._fail_all(SessionClosedError("the session was closed before it was finished"))
        self._pushed.clear()

    # What is watched

    def _enter(self, prediction_id: str, known: Prediction | None, now: float, *, single: bool) -> Entry:
        entry = Entry(prediction_id, single=single, born=now, look=now, due=now)
        entry.asked = self._recent.pop(prediction_id, -math.inf)
        if known is not None:
            self._place(entry, known, now)
        self._entries[prediction_id] = entry
        return entry

    def _place(self, entry: Entry, known: Prediction, now: float) -> None:
        """Fit a record into the schedule of its model, by its age on the server's own clock."""
        entry.model = known.model
        if known.created_at is None:
            return
        server = self._api.transport.server_time()
        entry.created = known.created_at.timestamp()
        entry.born = now - max(0.0, server.timestamp() - entry.created if server is not None else 0.0)
        schedule = self._paces[entry.model].schedule
        soonest = schedule.late if self._expects_pushes else schedule.look
        entry.look = entry.born + soonest
        entry.late = entry.born + schedule.late * (2 if self._expects_pushes else 1)
        entry.due = entry.born + max(soonest, schedule.check) * self._rng.uniform(0.95, 1.05)

    def _join(self, entry: Entry, watch: Watch, now: float) -> None:
        watch.entry = entry
        entry.watches.append(watch)
        entry.deadline = min(entry.deadline, watch.deadline)
        if watch.deadline < entry.due:  # a short timeout ends with one look at least
            entry.due = max(now, min(entry.due, watch.deadline - 1.0))
        if len(self._entries) == 1 and len(entry.watches) == 1:
            self._outlook.failures = now + _plan.FAILURES_EVERY
            self._outlook.rare = now + _plan.RARE_EVERY
        self._plan_at(min(entry.due, entry.look, entry.deadline))

    def _leave(self, entry: Entry, watch: Watch) -> None:
        if watch in entry.watches:
            entry.watches.remove(watch)
        if not entry.watches:
            self._forget(entry)
        else:
            entry.deadline = min(each.deadline for each in entry.watches)

    def _forget(self, entry: Entry) -> None:
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]
            if entry.asked > _now() - SPACING:
                self._recent[entry.id] = entry.asked
        if not self._entries and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _settle(self, entry: Entry, outcome: Prediction | WaveSpeedError) -> None:
        watches, entry.watches = entry.watches, []
        self._forget(entry)
        for watch in watches:
            watch._finish(outcome)  # noqa: SLF001

    def _expire(self, entry: Entry, now: float) -> None:
        for watch in [each for each in entry.watches if each.deadline <= now]:
            if watch.entry is entry:
                entry.watches.remove(watch)
                watch._finish(timed_out(entry.id, now - watch.since))  # noqa: SLF001
        if not entry.watches:
            self._forget(entry)
        else:
            entry.deadline = min(each.deadline for each in entry.watches)

    def _fail_all(self, error: WaveSpeedError) -> None:
        for entry in list(self._entries.values()):
            self._settle(entry, about(error, entry.id))

    def _learn(self, entry: Entry, prediction: Prediction, now: float) -> None:
        if not prediction.ok or entry.created is None:
            return
        took = prediction.timings.get("inference")
        told = took / 1000 if isinstance(took, int | float) and took > 0 else None
        missed = max(0.0, entry.missed - entry.born)
        self._paces[entry.model].learn(now - entry.born, missed=missed, told=told)

    # Pushes that came before their watch

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

    # Acting on plans

    def _plan_at(self, when: float) -> None:
        if self._closed or not self._entries:
            return
        when = max(when, self._planned + _plan.pause_between_plans(len(self._entries)))
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._act, context=self._context)

    def _act(self) -> None:
        self._timer = None
        now = self._planned = _now()
        self._forget_recent(now)
        self._outlook.listing = self._lists and self._trust.usable(now)
        plan = make_plan(self._entries.values(), now, self._outlook)
        for entry in plan.checks:
            entry.asked = math.inf
            self._outlook.checking += 1
            self._start(self._check(entry.id), "check a prediction")
        if plan.sweeps:
            self._outlook.sweeping = True
            self._start(self._sweep(plan.sweeps), "list predictions")
        for entry in plan.expired:
            self._expire(entry, now)
        wake = plan.wake if self._outlook.listing else min(plan.wake, self._retry_of_list(now))
        self._plan_at(wake)

    def _retry_of_list(self, now: float) -> float:
        until = self._trust.off_until
        return until if self._lists and until > now else math.inf

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._tasks.start(work, name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _forget_recent(self, now: float) -> None:
        for prediction_id, asked in list(self._recent.items())[:256]:
            if asked <= now - SPACING:
                del self._recent[prediction_id]

    # Single checks

    async def _check(self, prediction_id: str) -> None:
        def read(answer: Answer) -> Prediction:
            return read_prediction(answer, prediction_id)

        answer: Prediction | WaveSpeedError
        try:
            answer = await self._api.ask(result_request(prediction_id), read, again=False)
        except WaveSpeedError as error:
            answer = error
        finally:
            self._outlook.checking -= 1
            self._asked(prediction_id, _now())
        self._answered(prediction_id, answer, _now())

    def _asked(self, prediction_id: str, now: float) -> None:
        entry = self._entries.get(prediction_id)
        if entry is not None:
            entry.asked = now
        else:
            self._recent[prediction_id] = now

    def _answered(self, prediction_id: str, answer: Prediction | WaveSpeedError, now: float) -> None:
        self._weigh(answer, now)
        entry = self._entries.get(prediction_id)
        if entry is not None:
            if isinstance(answer, Prediction) and entry.created is None:
                due = entry.due
                self._place(entry, answer, now)
                entry.due = max(due, entry.due)
            outcome = verdict(entry, answer, now, self._rng)
            if isinstance(outcome, Prediction):
                self._learn(entry, outcome, now)
                if outcome.ok and self._outlook.listing and not entry.single and entry.created is not None:
                    self._trust.expect(entry.id, entry.created, now)
            if outcome is not None:
                self._settle(entry, outcome)
        self._plan_at(now)

    def _weigh(self, answer: Prediction | WaveSpeedError, now: float) -> None:
        """What an answer says about all: a server out of reach or a refused key concerns every prediction."""
        if isinstance(answer, AuthenticationError):
            self._refused_since = now if self._refusals == 0 else self._refused_since
            self._refusals += 1
            self._outlook.paused = now + SPACING
            if self._refusals >= _KEY_REFUSALS and now - self._refused_since >= _KEY_REFUSED_FOR:
                self._fail_all(answer)
            return
        self._refusals = 0
        if not isinstance(answer, WaveSpeedError) or not answer.transient:
            self._failures = 0
            return
        self._failures += 1
        if isinstance(answer, RateLimitError) or self._failures >= 3:  # noqa: PLR2004 - more than an accident
            wait = self._rng.uniform(0.5, 1.0) * min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(self._failures, 10))
            self._outlook.paused = max(self._outlook.paused, now + wait + (answer.retry_after or 0.0))

    # Sweeps

    async def _sweep(self, windows: list[Window]) -> None:
        began = _now()
        pages = 0
        try:
            for window in windows:
                pages += await self._read_window(window, began)
            self._trust.answered(_now())
        except WaveSpeedError as error:
            self._sweep_failed(error)
        except TimeoutError:
            self._sweep_failed(LostAnswerError("the list of predictions took too long"))
        finally:
            now = _now()
            self._outlook.sweeping = False
            self._outlook.pages = max(1, pages)
            self._outlook.swept = max(began + _plan.SWEEP_EVERY, began + _PAGE_REST * pages, now + 0.1)
        self._plan_at(now)

    async def _read_window(self, window: Window, began: float) -> int:
        proofs: dict[str, Proof] = {}
        if window.status == "completed":
            proofs = self._trust.due_proofs(began)
            window = _listing.widened(window, proofs)
        shown: set[str] = set()
        for number in range(1, _MOST_PAGES + 1):
            async with asyncio.timeout(_PAGE_TIMEOUT):
                page = await self._api.ask(_listing.page_request(window, number), _listing.read_listing, again=False)
            self._take_page(page, shown)
            if page.is_last(number) or len(shown) >= window.wanted:
                break
        if self._trust.judge(shown, proofs, _now()):
            self._tell("it does not show what single checks show")
        return number

    def _take_page(self, page: _listing.Page, shown: set[str]) -> None:
        now = _now()
        for item in page.items:
            prediction_id = item.get("id") if isinstance(item, dict) else None
            if not isinstance(prediction_id, str):
                continue
            entry = self._entries.get(prediction_id)
            if entry is None:
                if prediction_id in self._trust.proofs:
                    shown.add(prediction_id)
                continue
            shown.add(prediction_id)
            prediction = _listing.whole(item)
            if prediction is not None:
                self._learn(entry, prediction, now)
                self._settle(entry, prediction)
            elif item.get("status") in FINAL_STATUSES and not entry.single:
                entry.single, entry.due = True, now
        if page.size > _listing.HEAVY and self._trust.failed(now, final=True):
            self._tell("its pages are too large")

    def _sweep_failed(self, error: WaveSpeedError) -> None:
        now = _now()
        if isinstance(error, RateLimitError):
            self._weigh(error, now)
            return
        if isinstance(error, NotSentError):
            return  # the network's fault, not the list's; single checks would fare no better
        if self._trust.failed(now, final=not error.transient):
            self._tell(error.message)

    def _tell(self, why: str) -> None:
        level = logging.DEBUG if self._told else logging.WARNING
        self._told = True
        logger.log(
            level,
            "the list of predictions is of no use for now (%s): results are awaited one by one",
            why,
            extra={"in_flight": len(self._entries)},
        )


def _believable(prediction: Prediction) -> bool:
    """Whether it is finished, with its images where it is completed."""
    return prediction.finished and (not prediction.ok or bool(prediction.raw_outputs))


def _now() -> float:
    return asyncio.get_running_loop().time()
