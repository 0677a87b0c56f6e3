"""Who awaits what: small records, no task and no timer each. Nothing here asks anything."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import sys
from typing import TYPE_CHECKING

from wavespeed_qwen_async.predictions import Prediction

from .pace import SPACING, Paces
from .plan import Entry
from .verdict import about, timed_out

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from datetime import datetime

    from wavespeed_qwen_async.errors import WaveSpeedError

    from .pace import Schedule

__all__ = ["Book", "Watch"]

logger = logging.getLogger(__name__)

_PUSHES_MISSED = 20  # results in a row found by asking, after which pushes are no longer waited for
_RECENT_A_TIME = 256  # how many old records one plan clears away


class Watch:
    """One caller's interest in one prediction."""

    __slots__ = ("_book", "_done", "deadline", "entry", "since")

    def __init__(
        self, book: Book, done: Callable[[Prediction | WaveSpeedError], None], since: float, deadline: float
    ) -> None:
        self._book = book
        self._done: Callable[[Prediction | WaveSpeedError], None] | None = done
        self.entry: Entry | None = None
        self.since = since
        self.deadline = deadline

    def cancel(self) -> None:
        """Lose interest: ``done`` is never called after this. The prediction itself goes on."""
        self._done = None
        entry, self.entry = self.entry, None
        if entry is not None:
            self._book.leave(entry, self)

    def finish(self, outcome: Prediction | WaveSpeedError) -> None:
        """Call ``done``, unless it was called or cancelled before."""
        done, self._done, self.entry = self._done, None, None
        if done is None:
            return
        try:
            done(outcome)
        except Exception as error:  # noqa: BLE001 - one caller's mistake must not cost the others their results
            context = {"message": "a callback of the completion keeper failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


class Book:
    """All that is watched: one entry a prediction, however many watch it. Times are the loop's."""

    def __init__(self, rng: random.Random, server_time: Callable[[], datetime | None]) -> None:
        self.entries: dict[str, Entry] = {}
        self.paces = Paces(rng)
        self.patient = False
        """Pushes come, and asking is only the net below them."""
        self.unpushed = 0
        """How many completed predictions were found by asking since the last push."""
        self._rng = rng
        self._server_time = server_time
        self._clock_read = self._clock_ahead = -math.inf
        self._recent: dict[str, float] = {}

    def enter(self, prediction_id: str, now: float, *, single: bool = False) -> Entry:
        """The entry of a prediction, a new one where there is none. What is not known is asked at once."""
        entry = self.entries.get(prediction_id)
        if entry is None:
            entry = Entry(prediction_id, born=now, look=now, due=now)
            entry.asked = self._recent.pop(prediction_id, -math.inf)
            self.entries[prediction_id] = entry
        entry.single = entry.single or single
        return entry

    def place(self, entry: Entry, known: Prediction, now: float) -> bool:
        """Fit an entry into the schedule of its model, by its age on the server's own clock; False: it is, or can't."""
        if known.created_at is None or entry.created is not None:
            return False
        entry.model = sys.intern(known.model)  # each answer brings a text of its own
        entry.created = known.created_at.timestamp()
        entry.born = now - max(0.0, now + self._ahead(now) - entry.created)
        schedule = self.paces[entry.model].schedule
        look, patience = (schedule.late, 2.0) if self.patient else (schedule.look, 1.0)
        entry.look = entry.born + look
        entry.late = entry.born + schedule.late * patience
        entry.due = entry.born + max(look, schedule.check) * self._rng.uniform(0.95, 1.05)
        return True

    def _ahead(self, now: float) -> float:
        """Seconds that the server's clock is ahead of the loop's; minus infinity where it never told its time.

        Read anew once a second: it is told in whole seconds, and reading a date costs more than all the rest here.
        """
        if now - self._clock_read >= 1.0:
            server = self._server_time()
            self._clock_read = now if server is not None else -math.inf
            self._clock_ahead = server.timestamp() - now if server is not None else -math.inf
        return self._clock_ahead

    def join(self, entry: Entry, watch: Watch, now: float) -> None:
        """Let a watch wait for an entry. A short timeout ends with one look at least."""
        watch.entry = entry
        entry.watches.append(watch)
        entry.deadline = min(entry.deadline, watch.deadline)
        if watch.deadline < entry.due:
            entry.due = max(now, min(entry.due, watch.deadline - 1.0))

    def leave(self, entry: Entry, watch: Watch) -> None:
        """Take a watch away."""
        if watch in entry.watches:
            entry.watches.remove(watch)
        self._after_leaving(entry)

    def settle(self, entry: Entry, outcome: Prediction | WaveSpeedError) -> None:
        """Tell everybody how it ended."""
        watches, entry.watches = entry.watches, []
        self._after_leaving(entry)
        for number, watch in enumerate(watches):
            # an error raised in several places at once would mix up their tracebacks
            watch.finish(outcome if number == 0 or isinstance(outcome, Prediction) else copy.copy(outcome))

    def expire(self, entry: Entry, now: float) -> None:
        """End those watches of an entry whose time is over."""
        for watch in [each for each in entry.watches if each.deadline <= now]:
            if watch in entry.watches:  # it may have been cancelled by the one before it
                entry.watches.remove(watch)
                watch.finish(timed_out(entry.id, now - watch.since))
        self._after_leaving(entry)

    def fail_all(self, error: WaveSpeedError) -> None:
        """Tell everybody about an error that concerns them all."""
        for entry in list(self.entries.values()):
            self.settle(entry, about(error, entry.id))

    def learn(self, entry: Entry, prediction: Prediction, now: float, *, pushed: bool = False) -> None:
        """Learn from a completed prediction how long such jobs take."""
        if not prediction.ok or entry.created is None:
            return
        if self.patient and not pushed:
            self._miss_push()
        took = prediction.timings.get("inference")
        told = took / 1000 if isinstance(took, int | float) and took > 0 else None
        if told is None and self.patient and not pushed:
            return  # asked for so late that its age says nothing
        pace = self.paces[entry.model]
        pace.learn(now - entry.born, missed=max(0.0, entry.missed - entry.born), told=told)
        if pace.slower():
            self._postpone(entry.model, pace.schedule)

    def _postpone(self, model: str, schedule: Schedule) -> None:
        """Jobs of a model take longer than was thought when these were submitted: they are not late yet."""
        patience = 2.0 if self.patient else 1.0
        for entry in self.entries.values():
            if entry.model == model:
                entry.late = max(entry.late, entry.born + schedule.late * patience)

    def _miss_push(self) -> None:
        self.unpushed += 1
        if self.unpushed >= _PUSHES_MISSED:
            self.patient = False
            logger.warning(
                "no webhook delivery has come for the last %d results: asking for them instead", self.unpushed
            )

    def asked(self, prediction_id: str, now: float) -> None:
        """Note that a single check was answered, whether or not anybody still waits for it."""
        entry = self.entries.get(prediction_id)
        if entry is not None:
            entry.asked = now
        else:
            self._recent[prediction_id] = now

    def forget_recent(self, now: float) -> None:
        """Clear away notes of checks that are no longer needed to keep two checks of one id apart."""
        for prediction_id, asked in list(self._recent.items())[:_RECENT_A_TIME] if self._recent else ():
            if asked <= now - SPACING:
                del self._recent[prediction_id]

    def _after_leaving(self, entry: Entry) -> None:
        if entry.watches:
            entry.deadline = min(watch.deadline for watch in entry.watches)
        elif self.entries.get(entry.id) is entry:
            del self.entries[entry.id]
            if entry.asked > -math.inf and entry.asked > asyncio.get_running_loop().time() - SPACING:
                self._recent[entry.id] = entry.asked
