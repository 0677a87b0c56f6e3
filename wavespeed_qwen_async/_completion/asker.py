"""Asks the API what the plan says, when it says so: one timer, short tasks for what is on the way."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from itertools import islice
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._answers import read_prediction
from wavespeed_qwen_async._wire import result_request
from wavespeed_qwen_async.errors import (
    AuthenticationError,
    InvalidResponseError,
    LostAnswerError,
    NotSentError,
    RateLimitError,
    SessionClosedError,
    WaveSpeedError,
)
from wavespeed_qwen_async.predictions import KNOWN_STATUSES, Prediction

from . import listing, plan
from .pace import SPACING
from .plan import Outlook, make_plan
from .verdict import verdict

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine

    from wavespeed_qwen_async._answers import Answer
    from wavespeed_qwen_async._api import Api
    from wavespeed_qwen_async._tasks import Tasks

    from .plan import Entry, Plan, Window
    from .watches import Book

__all__ = ["Asker"]

logger = logging.getLogger(__name__)

_PAGE_TIMEOUT = 15.0  # seconds; a list slower than this is no help
_MOST_PAGES = 120  # of one sweep: 12,000 predictions, more than any tier has in flight
_LONG = 3  # pages from which those that should long be finished are left to single checks
_VERY_LONG = 8  # the same for all that is still awaited
_WORTH = 4  # single checks that a page is worth
_KEY_REFUSALS = 3  # 401s in a row, over this many seconds, after which the key is taken to be revoked
_KEY_REFUSED_FOR = 4.0
_ACCIDENTS = 2  # failures in a row that are taken for accidents
_LONGEST_PAUSE = 20.0


class Asker:
    """Carries out plans over a book of entries."""

    def __init__(self, api: Api, tasks: Tasks, book: Book, rng: random.Random, *, lists: bool) -> None:
        self._api = api
        self._tasks = tasks
        self._book = book
        self._rng = rng
        self._lists = lists
        self.trust = listing.Trust()
        self._outlook = Outlook()
        self._failures = 0
        self._refusals = 0
        self._refused_since = 0.0
        self._told_singly = False
        self._told: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._planned = -math.inf
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False
        self._context = contextvars.copy_context()  # not that of whichever caller happens to set the timer

    def plan_at(self, when: float) -> None:
        """Make a plan at this time, unless one is made sooner."""
        if self._closed or not self._book.entries:
            return
        when = max(when, self._planned + plan.pause_between_plans(len(self._book.entries)))
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._act, context=self._context)
        self._timer_at = when  # uvloop's handles do not tell it where it has passed

    def begin(self, now: float) -> None:
        """The first prediction after a rest: nothing can have failed yet."""
        self._outlook.failures = max(self._outlook.failures, now + plan.FAILURES_EVERY)
        self._outlook.rare = max(self._outlook.rare, now + plan.RARE_EVERY)

    async def close(self) -> None:
        """Ask nothing more, and leave no task behind."""
        self._closed = True
        self._rest()
        while self._running:
            for task in tuple(self._running):
                task.cancel()
            await asyncio.wait(self._running)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _act(self) -> None:
        self._timer = None
        now = self._planned = _now()
        outlook = self._outlook
        outlook.listing = self._lists and self.trust.usable(now)
        outlook.suspicious, outlook.proven = self.trust.suspicious, self.trust.proven
        outlook.patient = self._book.patient
        plan = make_plan(self._book.entries.values(), now, outlook)
        try:
            self._ask(plan)
        except RuntimeError:  # the owner of the tasks was closed first
            self._book.fail_all(SessionClosedError("the session was closed before it was finished"))
            return
        for entry in plan.expired:
            self._book.expire(entry, now)
        self._book.forget_recent(now)
        wake = now if plan.expired else plan.wake  # those that expired may have other watches
        retry = self.trust.off_until if self._lists and not outlook.listing else math.inf
        self.plan_at(min(wake, retry))

    def _ask(self, plan: Plan) -> None:
        for entry in plan.checks:
            self._start(self._check(entry.id), "wavespeed check")
            entry.asked = math.inf
            self._outlook.checking += 1
        if plan.sweeps:
            self._start(self._sweep(plan.sweeps), "wavespeed list")
            self._outlook.sweeping = True

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._tasks.start(work, name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    # Single checks

    async def _check(self, prediction_id: str) -> None:
        def read(answer: Answer) -> Prediction:
            return read_prediction(answer, prediction_id)

        answer: Prediction | WaveSpeedError
        try:
            answer = await self._api.ask(result_request(prediction_id), read, again=False)
        except WaveSpeedError as error:
            answer = error
        except Exception as error:  # whatever it is, others wait for the next check
            logger.exception("a check of prediction %s failed unexpectedly", prediction_id)
            answer = InvalidResponseError(f"unexpected {type(error).__name__}")
        finally:
            self._outlook.checking -= 1
            self._book.asked(prediction_id, _now())
        self._weigh(answer, _now())
        self._answered(prediction_id, answer, _now())
        self.plan_at(_now())

    def _answered(self, prediction_id: str, answer: Prediction | WaveSpeedError, now: float) -> None:
        entry = self._book.entries.get(prediction_id)
        if entry is None:
            return
        due = 0.0
        if isinstance(answer, Prediction):
            if self._book.place(entry, answer, now):
                due = entry.due
            self._tell_of_status(answer.status)
        end = verdict(entry, answer, now, self._rng)
        if end is None:
            entry.due = max(entry.due, due)
            return
        if isinstance(end, Prediction):
            self._book.learn(entry, end, now)
            if end.ok and self._outlook.listing and not entry.single and entry.created is not None:
                self.trust.expect(entry.id, entry.created, now, model=entry.model)
        self._book.settle(entry, end)

    def _weigh(self, answer: Prediction | WaveSpeedError, now: float) -> None:
        """What an answer says about all: a server out of reach and a refused key concern every prediction."""
        if isinstance(answer, AuthenticationError):
            self._refused_since = now if self._refusals == 0 else self._refused_since
            self._refusals += 1
            self._outlook.paused = now + SPACING
            if self._refusals >= _KEY_REFUSALS and now - self._refused_since >= _KEY_REFUSED_FOR:
                self._book.fail_all(answer)
            return
        self._refusals = 0
        self._told_singly |= isinstance(answer, Prediction)
        if not isinstance(answer, WaveSpeedError) or not answer.transient:
            self._failures = 0
            return
        self._failures += 1
        if isinstance(answer, RateLimitError) or self._failures > _ACCIDENTS:
            wait = self._rng.uniform(0.5, 1.0) * min(_LONGEST_PAUSE, 0.5 * 2.0 ** min(self._failures, 10))
            self._outlook.paused = max(self._outlook.paused, now + wait + (answer.retry_after or 0.0))

    # Sweeps

    async def _sweep(self, windows: list[Window]) -> None:
        began, pages = _now(), 0
        try:
            for window in windows:
                read = await self._read_window(window, began)
                pages += read if window.status == "completed" else 0
            self.trust.answered(_now())
            self._failures = 0
        except WaveSpeedError as error:
            self._sweep_failed(error)
        except TimeoutError:
            self._sweep_failed(LostAnswerError("the list of predictions took too long"))
        except Exception as error:  # whatever it is, single checks go on
            logger.exception("listing predictions failed unexpectedly")
            self._sweep_failed(InvalidResponseError(f"unexpected {type(error).__name__}"))
        finally:
            self._outlook.sweeping = False
        if windows[0].status == "completed":
            self._outlook.pages = max(1, pages)
        self.plan_at(max(_now(), self._outlook.again))

    async def _read_window(self, window: Window, began: float) -> int:
        """Read a window page by page, as far as it is worth it; return how many pages that took."""
        proofs = self.trust.due_proofs(began) if window.status == "completed" else {}
        window = listing.widened(window, proofs)
        unproven = set(proofs)
        missing: list[Entry] = []
        late: list[Entry] = []
        for number in range(1, _MOST_PAGES + 1):
            page = await self._ask_page(window, number)
            self._take_page(page, unproven)
            if page.is_last(number):
                break
            if number == 1:  # all are gone through once: a sweep of thousands has dozens of pages
                missing = list(window.entries)
                late = [entry for entry in missing if entry.late <= began]
            while missing and not _is_awaited(missing[-1]):
                missing.pop()
            if not missing and not unproven:
                break
            if self._part_with(missing, late, page.in_all(number)):
                return number
        else:
            return number  # the end was not reached, so nothing is proven
        if self.trust.judge(proofs, unproven, _now()):
            self._tell("it does not show what single checks show")
        return number

    async def _ask_page(self, window: Window, number: int) -> listing.Page:
        async with asyncio.timeout(_PAGE_TIMEOUT):
            page = await self._api.ask(listing.page_request(window, number), listing.read_listing, again=False)
        if page.size > listing.HEAVY and self.trust.failed(_now(), final=True):
            self._tell("its pages are too large")
        return page

    def _take_page(self, page: listing.Page, unproven: set[str]) -> None:
        now = _now()
        entries = self._book.entries
        for item in page.items:
            try:
                prediction_id = item["id"]
                entry = entries.get(prediction_id)
            except (KeyError, TypeError):  # no item of a list of predictions
                continue
            if unproven:
                unproven.discard(prediction_id)
            if entry is None or not listing.ended(item):  # most were delivered by an earlier sweep
                continue
            prediction = listing.whole(item)
            if prediction is not None:
                self._book.learn(entry, prediction, now)
                self._book.settle(entry, prediction)
            elif not entry.single:
                entry.single, entry.due = True, now
                self.plan_at(now)

    def _part_with(self, missing: list[Entry], late: list[Entry], pages: int) -> bool:
        """Leave to single checks those for whom alone so many pages would be read; False: reading on is cheaper."""
        few = _few(missing, _WORTH * pages) if pages >= _VERY_LONG else []
        if not few and pages >= _LONG:
            few = _few(late, _WORTH * pages)
        now = _now()
        for entry in few:
            entry.single = True
            entry.due = max(entry.due, now + self._rng.uniform(0.5, SPACING))
        return bool(few)

    def _sweep_failed(self, error: WaveSpeedError) -> None:
        now = _now()
        if isinstance(error, RateLimitError | NotSentError):
            self._weigh(error, now)  # no fault of the list's: single checks would fare no better
            told, self._told_singly = self._told_singly, False
            if told and isinstance(error, RateLimitError) and self.trust.failed(now, final=False):
                self._tell("it is asked too often")  # but they do: the list alone is limited
        elif self.trust.failed(now, final=not error.transient):
            self._tell(error.message)

    def _tell(self, why: str) -> None:
        level = logging.DEBUG if "list" in self._told else logging.WARNING
        self._told.add("list")
        count = len(self._book.entries)
        logger.log(level, "the list of predictions is of no use (%s): results are awaited one by one for now", why)
        logger.debug("in flight: %d", count)

    def _tell_of_status(self, status: str) -> None:
        if status not in KNOWN_STATUSES and status not in self._told:
            self._told.add(status)
            logger.warning("unknown status %r of a prediction, taken to be not final", status)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _is_awaited(entry: Entry) -> bool:
    return bool(entry.watches) and not entry.single


def _few(entries: list[Entry], most: int) -> list[Entry]:
    """Those of them whom the list has yet to tell, if they are at most so many; else none."""
    found = list(islice(filter(_is_awaited, entries), most + 1))
    return found if len(found) <= most else []
