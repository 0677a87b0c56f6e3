"""A submit whose answer was lost, found again in the account's list of predictions.

It may have been accepted, and then it is billed; sent again blindly it would be billed twice. So it is looked for:
found, it is adopted; shown to be not there, it may be sent again; else it stays unknown, and is never sent again by
itself. Below the session, so that a plain ``run`` has this as well as a durable batch. What follows from a list is
decided in `_matching`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _answers, _wire
from ._matching import GUARD, Listing, Rival, Seen, Verdict, Wanted, fingerprint, judge
from .errors import AuthenticationError, PermissionDeniedError, SubmissionUnknown, WaveSpeedError

if TYPE_CHECKING:
    from ._api import Api
    from ._tasks import Tasks
    from .predictions import Prediction

__all__ = ["Lost", "Patience", "Reconciler", "Sending"]

logger = logging.getLogger(__name__)

Books = Callable[[list[str]], Awaitable[set[str]]]

_HOPELESS = (AuthenticationError, PermissionDeniedError)  # the list will not be read by asking again
_CLUSTER = 600.0  # seconds: lost submits nearer to each other than this are looked for in one reading of the list
_MOST_PAGES = 300
# The list counts in nanoseconds, a datetime in microseconds: pinned a hair too early, the newest item would leave the
# first page, all others move up by one, and the first of the second page would never be seen.
_TICK = timedelta(microseconds=1)
_PAGE_TIMEOUT = 30.0


class Patience(NamedTuple):
    """How long, and how exactly, is looked. Seconds.

    Attributes:
        margin: By which the server's clock may be misjudged: ``Date`` tells whole seconds, and travels.
        arrival: In which a submit that was sent arrives, or never will, though whoever sent it is gone.
        settle: After which a list shows what happened even if it shows nothing newer; above any lag it may have.
        unknown: After which a submit that can't be settled is given up as unknown.
        first: Between the loss and the first look.
        longest: Between two looks at most.
    """

    margin: float = 3.0
    arrival: float = 30.0
    settle: float = 60.0
    unknown: float = 180.0
    first: float = 0.5
    longest: float = 10.0


@dataclass(slots=True, eq=False)
class Lost:
    """A submit of which nobody knows whether it was accepted; times by the server's clock, in Unix seconds.

    Attributes:
        model: The model's whole name.
        inputs: What was sent.
        after: When it was sent.
        before: When it was lost; None: by a process that is gone, and what it sent may still be on its way.
    """

    model: str
    inputs: Mapping[str, Any]
    after: float | None
    before: float | None = None
    once: bool = False
    failed: WaveSpeedError | None = None
    deadline: float = 0.0
    end: asyncio.Future[Prediction | None] = field(init=False, repr=False)

    @classmethod
    def of_inputs(cls, model: str, inputs: str, *, sent_at: float | None) -> Lost:
        """What another process sent."""
        return cls(model, json.loads(inputs or "{}"), sent_at)


class Sending:
    """The trace of one submit: tells the reconciler when it left and what came of it."""

    __slots__ = ("_reconciler", "model", "request", "started")

    def __init__(self, reconciler: Reconciler, request: _wire.Request, model: str) -> None:
        self._reconciler = reconciler
        self.request = request
        self.model = model
        self.started: float | None = None

    def left(self, now: float) -> None:
        """As in ``Trace``."""
        self.started = now
        self._reconciler.airborne[self] = None

    def arrived(self, prediction: Prediction) -> None:
        """As in ``Trace``."""
        self._reconciler.hold(prediction)

    def unwritten(self, prediction: Prediction) -> None:
        """As in ``Trace``: nobody holds the prediction, and whoever looks may find it."""
        self._reconciler.release(prediction)

    def end(self) -> None:
        """As in ``Trace``."""
        self._reconciler.airborne.pop(self, None)

    def inputs(self) -> dict[str, Any]:
        """What was sent."""
        inputs: dict[str, Any] = json.loads(self.request.body or b"{}")
        return inputs


class Reconciler:
    """Settles lost submits by the list of predictions; one reading of it serves all that are lost at a time.

    Attributes:
        books: Who else to ask which predictions are some job's already: the journals of durable runs.
        airborne: Submits whose answers are still to come, in the order in which they left.
        strangers: How many predictions the last reading showed that belong to nobody.
    """

    def __init__(self, api: Api, tasks: Tasks, *, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self.books: list[Books] = []
        self.airborne: dict[Sending, None] = {}
        self.strangers = 0
        self._api = api
        self._tasks = tasks
        self._lost: list[Lost] = []
        self._held: deque[tuple[float, str, datetime | None]] = deque()
        self._ids: set[str] = set()
        self._worker: asyncio.Task[None] | None = None

    @property
    def looking_for(self) -> int:
        """How many lost submits are being looked for."""
        return len(self._lost)

    def watch(self, request: _wire.Request, model: str) -> Sending:
        """A trace for one submit."""
        return Sending(self, request, model)

    def hold(self, prediction: Prediction) -> None:
        """A prediction is some job's of this session."""
        now = _now()
        self._ids.add(prediction.id)
        self._held.append((now, prediction.id, prediction.created_at))
        self._forget(now)

    def release(self, prediction: Prediction) -> None:
        """It is no job's after all: it could not be written down whose it is."""
        self._ids.discard(prediction.id)

    async def find(self, sending: Sending) -> Prediction | None:
        """What became of a submit of this session whose answer has just been lost. As ``settle``."""
        sending.end()
        offset = self._offset()
        lost = Lost(sending.model, sending.inputs(), None if sending.started is None else sending.started + offset)
        lost.before = _now() + offset
        return await self.settle(lost)

    async def settle(self, lost: Lost, *, once: bool = False) -> Prediction | None:
        """The prediction that a lost submit made, or None where it certainly made none.

        ``once``: it was looked for before; one more look must do.

        Raises:
            SubmissionUnknown: it can't be told.
        """
        loop = asyncio.get_running_loop()
        lost.once = once
        lost.deadline = loop.time() + self.patience.unknown
        if lost.before is None:
            lost.before = max(self._server_now(), (lost.after or 0.0) + self.patience.arrival)
        lost.end = loop.create_future()
        self._lost.append(lost)
        if self._worker is None or self._worker.done():
            self._worker = self._tasks.start(self._work(), "wavespeed reconcile")
        try:
            return await lost.end
        except asyncio.CancelledError:
            if not lost.end.cancelled() and lost.end.exception() is None and (found := lost.end.result()) is not None:
                self.release(found)  # found in the same instant, and nobody takes it
            raise
        finally:
            if lost in self._lost:
                self._lost.remove(lost)

    async def _work(self) -> None:
        wait = self.patience.first
        try:
            while self._lost:
                await asyncio.sleep(wait)
                wait = min(self.patience.longest, wait * 1.6)
                known = len(self._lost)
                for cluster in _clusters(self._lost):
                    await self._look_for(cluster)
                if len(self._lost) > known:
                    wait = self.patience.first
        finally:
            for lost in self._lost:
                _end(lost, _unknown(lost, "the session was closed"))

    async def _look_for(self, cluster: list[Lost]) -> None:
        try:
            listing, found = await self._read(cluster)
        except (WaveSpeedError, TimeoutError) as error:
            failure = error if isinstance(error, WaveSpeedError) else None
            for lost in cluster:
                if isinstance(error, _HOPELESS) or lost.once or _now() >= lost.deadline:
                    _end(lost, _unknown(lost, "the list of predictions could not be read", failure))
            return
        cluster = [lost for lost in cluster if not lost.end.done()]
        rivals = self._rivals()
        airborne = {rival.print for rival in rivals}
        for lost in cluster if airborne else ():
            if fingerprint(lost.model, lost.inputs) in airborne:  # left by an earlier run, it may be this one
                lost.before = max(lost.before or 0.0, self._server_now())
        wanted = [self._wanted(lost) for lost in cluster]
        # Answers that came while the list was read.
        listing = listing._replace(held=listing.held | self._ids.intersection(found))
        answers = judge(wanted, listing, rivals, settle=self.patience.settle)
        for lost, answer in zip(cluster, answers, strict=True):
            self._take(lost, answer, found)
        self.strangers = sum(seen.id not in listing.held and seen.id not in self._ids for seen in listing.seen)

    def _take(self, lost: Lost, answer: str | Verdict, found: Mapping[str, Prediction]) -> None:
        if isinstance(answer, str):
            self.hold(found[answer])
            logger.warning("a submit whose answer was lost is prediction %s", answer, extra={"prediction_id": answer})
            _end(lost, found[answer])
        elif answer is Verdict.ABSENT:
            logger.info("a submit whose answer was lost never arrived")
            _end(lost, None)
        elif answer is not Verdict.WAIT or lost.once or _now() >= lost.deadline:
            _end(lost, _unknown(lost, answer.value))

    # --- the list -----------------------------------------------------------------------------------------------------

    async def _read(self, cluster: Sequence[Lost]) -> tuple[Listing, dict[str, Prediction]]:
        now = self._server_now()
        starts = [self._wanted(lost).after for lost in cluster]
        ends = [self._wanted(lost).before for lost in cluster]
        since, until = min(starts) - GUARD, max(ends) + GUARD
        fresh = now - until < self.patience.settle  # then what is newer is of interest too: it shows that the list is
        found, readable = await self._pages(since, None if fresh else until)
        ids = list(found)
        held = self._ids.intersection(ids)
        for book in self.books:
            held |= await book(ids)
        seen = [
            Seen(item.id, item.model, item.created_at.timestamp() if item.created_at else None, item.inputs)
            for item in found.values()
        ]
        newest = max((item.created for item in seen if item.created is not None), default=float("-inf"))
        # What is older than `settle` is believed without anything newer: all that is known up to there must be in it.
        settled = min(now - self.patience.settle, until)
        whole = readable and self._shows_all(found, since, max(newest, settled))
        return Listing(seen, frozenset(held), self._server_now(), whole), found

    async def _pages(self, since: float, until: float | None) -> tuple[dict[str, Prediction], bool]:
        """All predictions of a span, and whether every item could be read: one that could not may be any of them.

        From the second page on its end is pinned, so that new ones can't shift pages.
        """
        found: dict[str, Prediction] = {}
        readable = True
        start = datetime.fromtimestamp(since, UTC)
        end = None if until is None else datetime.fromtimestamp(until, UTC)
        for page in range(1, _MOST_PAGES + 1):
            request = _wire.list_request(page=page, created_after=start, created_before=end, include_inputs=True)
            async with asyncio.timeout(_PAGE_TIMEOUT):
                items = await self._api.ask(request, _answers.read_items, again=False)
            readable = readable and None not in items
            fresh = [item for item in items if item is not None and item.id not in found]
            found.update((item.id, item) for item in fresh)
            times = [item.created_at for item in fresh if item.created_at is not None]
            if not fresh or (times and min(times).timestamp() < since):
                return found, readable
            if end is None and times:
                end = max(times) + _TICK
        raise SubmissionUnknown(f"the list has more than {_MOST_PAGES} pages of predictions of that time")

    def _shows_all(self, found: Mapping[str, Prediction], since: float, end: float) -> bool:
        """Whether it shows every prediction of this session from before ``end``: a list with gaps proves no absence.

        Nor does one that is known to be later than it is taken to be.
        """
        must = (
            prediction_id
            for _, prediction_id, created in self._held
            if created is not None and since <= created.timestamp() < end - self.patience.margin
        )
        return all(prediction_id in found for prediction_id in must)

    def _wanted(self, lost: Lost) -> Wanted:
        margin = self.patience.margin
        before = (self._server_now() if lost.before is None else lost.before) + margin
        after = before - 2 * margin - self._longest_exchange() if lost.after is None else lost.after - margin
        soon = after + 2 * margin + self.patience.arrival
        return Wanted(lost.model, lost.inputs, after, max(before, after), soon)

    def _longest_exchange(self) -> float:
        timeout = self._api.transport.timeout
        return timeout.connect + max(2 * timeout.read, timeout.sync)

    def _rivals(self) -> list[Rival]:
        offset = self._offset()
        return [
            Rival(sending.model, fingerprint(sending.model, sending.inputs()), (sending.started or 0.0) + offset)
            for sending in self.airborne
        ]

    # --- clocks and memory --------------------------------------------------------------------------------------------

    def _server_now(self) -> float:
        now = self._api.transport.server_time()
        return datetime.now(UTC).timestamp() if now is None else now.timestamp()

    def _offset(self) -> float:
        return self._server_now() - _now()

    def _forget(self, now: float) -> None:
        """Drop what no lost submit can be confused with any more."""
        held = self._held
        if self._lost or held[0][0] >= now - 2 * GUARD:
            return
        oldest = next(iter(self.airborne), None)
        horizon = (now if oldest is None or oldest.started is None else oldest.started) - 2 * GUARD
        while held and held[0][0] < horizon:
            self._ids.discard(held.popleft()[1])


def _clusters(lost: Sequence[Lost]) -> list[list[Lost]]:
    clusters: list[list[Lost]] = []
    for one in sorted(lost, key=_when):
        if clusters and _when(one) - _when(clusters[-1][-1]) < _CLUSTER:
            clusters[-1].append(one)
        else:
            clusters.append([one])
    return clusters


def _when(lost: Lost) -> float:
    return lost.before or lost.after or 0.0


def _end(lost: Lost, answer: Prediction | SubmissionUnknown | None) -> None:
    if lost.end.done():
        return
    if isinstance(answer, SubmissionUnknown):
        lost.end.set_exception(answer)
    else:
        lost.end.set_result(answer)


def _unknown(lost: Lost, why: str, cause: WaveSpeedError | None = None) -> SubmissionUnknown:
    since = "" if lost.after is None else f" sent at {datetime.fromtimestamp(lost.after, UTC):%Y-%m-%d %H:%M:%S} UTC"
    error = SubmissionUnknown(f"a submit{since} may have been accepted and billed: {why}")
    error.__cause__ = cause
    return error


def _now() -> float:
    return asyncio.get_running_loop().time()
