"""What a run would do and cost, told before it does."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wavespeed_qwen_async._stream import FATAL
from wavespeed_qwen_async.errors import WaveSpeedError

from ._budget import Prices, dollars, micro
from ._claim import claim
from ._home import move_in
from ._reports import BatchPlan, PlannedPrice
from ._states import OPEN, State
from .journal import JOURNAL_NAME, Journal
from .sources import FileSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from wavespeed_qwen_async.session import QwenImageSession

    from ._claim import Claimed, Claims
    from ._store import Counts, Store
    from ._work import Options
    from .sources import JobSource, SourceChunk

__all__ = ["make_plan"]

T = TypeVar("T")

_SHOWN = 20
_ONE_TASK = 10.0  # seconds, as both models' pages tell: 6 to 10, and 6 to 12


async def make_plan(
    session: QwenImageSession,
    source: JobSource,
    folder: Path,
    options: Options,
    budget: float | None,
    *,
    address: str,
) -> BatchPlan:
    """Read the source against a copy of the journal, ask prices and balance, and add it all up."""
    if isinstance(source, FileSource):
        await source.check_apart(folder)
    await source.keep()
    work = await _copied(folder)
    try:
        journal = await Journal.open(work)
        try:
            await journal.write(lambda store: move_in(store, folder, address))
            before = await journal.read(lambda store: store.counts())
            tally = _Tally(session)
            async with aclosing(source.chunks()) as chunks:
                async for chunk in chunks:
                    if tally.total == options.limit:
                        break
                    await tally.take(journal, chunk, options)
            after = await journal.read(lambda store: store.counts(tally.total))
            removed = await journal.read(lambda store: store.gone(tally.total))
            if options.resubmit_unknown:
                tally.again = await journal.read(lambda store: store.unknown_cost())
        finally:
            await journal.close()
    finally:
        await _in_thread(_remove, work)
    return await tally.plan(before, after, removed, options, budget)


class _Tally:
    """Adds up a plan."""

    def __init__(self, session: QwenImageSession) -> None:
        self._session = session
        self._prices = Prices(session)
        self.total = 0
        self.again = 0  # micro-dollars that unknown jobs cost once more
        self._new: Counter[tuple[str, int, str]] = Counter()
        self._invalid: list[tuple[int | None, str]] = []
        self._invalid_count = 0
        self._changed: list[int] = []
        self._changed_count = 0

    async def take(self, journal: Journal, chunk: SourceChunk, options: Options) -> None:
        """Count some lines of the source."""
        room = len(chunk) if options.limit is None else max(0, options.limit - self.total)
        start, lines = self.total, chunk.first(room)

        def look(store: Store) -> Claims:
            return claim(store, start, lines, again=options.retry_failed)

        claims = await journal.write(look)
        self._changed_count += len(claims.changed)
        self._changed += [item.position for item in claims.changed[: _SHOWN - len(self._changed)]]
        for item in claims.new:
            await self._count(item)
        self.total += len(lines)

    async def _count(self, item: Claimed) -> None:
        if item.error is not None:
            self._invalid_count += 1
            self._invalid += [(item.line, item.error.message)] if len(self._invalid) < _SHOWN else []
        elif item.job is not None:
            price = await self._prices.of(item.job)
            self._new[item.job.model_id, micro(price.amount), price.source] += 1

    async def plan(
        self, before: Counts, after: Counts, removed: int, options: Options, budget: float | None
    ) -> BatchPlan:
        """The plan, of all that was counted."""
        new = sum(self._new.values())
        cost = sum(price * count for (_, price, _), count in self._new.items())
        states = after.states
        balance = await self._balance()
        resent = states.get(State.UNKNOWN, 0) if options.resubmit_unknown else 0
        left = None if budget is None else max(0, micro(budget) - before.cost)
        return BatchPlan(
            total=self.total,
            new=new,
            resumable=sum(states.get(state, 0) for state in OPEN),
            saved=states.get(State.SAVED, 0),
            failed=states.get(State.FAILED, 0),
            unknown=states.get(State.UNKNOWN, 0),
            invalid=self._invalid,
            invalid_count=self._invalid_count,
            changed=self._changed,
            changed_count=self._changed_count,
            removed=removed,
            prices=[
                PlannedPrice(model, count, dollars(price), "api" if source == "api" else "pages")
                for (model, price, source), count in self._new.items()
            ],
            cost=dollars(cost),
            cost_before=dollars(before.cost),
            budget=budget,
            affordable=self._affordable(left, new),
            balance=balance,
            seconds=self._seconds(new + resent),
            notes=self._notes(cost + self.again, left, balance, resent),
        )

    async def _balance(self) -> float | None:
        try:
            return await self._session.balance()
        except FATAL:
            raise
        except WaveSpeedError:
            return None

    def _affordable(self, left: int | None, new: int) -> int:
        if left is None:
            return new
        count = 0
        for (_, price, _), many in sorted(self._new.items(), key=lambda item: item[0][1]):
            some = many if price <= 0 else min(many, left // price)
            count += some
            left -= some * price
        return count

    def _seconds(self, count: int) -> float:
        if not count:
            return 0.0
        limits = self._session.limits
        by_rate = (count - 1) / limits.max_per_minute * 60
        by_places = (count - 1) // limits.max_in_flight * _ONE_TASK
        return max(by_rate, by_places) + _ONE_TASK

    def _notes(self, cost: int, left: int | None, balance: float | None, resent: int) -> list[str]:
        notes = []
        if any(source == "pages" for _, _, source in self._new):
            notes.append("the API tells no price for some: $0.025 an image is the figure of its pages")
        if self._session.limits.assumed:
            notes.append("no tier was given: the time is silver's")
        if balance is None:
            notes.append("the API does not tell the balance")
        elif micro(balance) < cost:
            notes.append(f"the balance of ${balance:.2f} does not cover it")
        if left is not None and left < cost:
            notes.append("the budget does not cover all: the rest stays for a later run")
        if resent:
            more = f"${dollars(self.again):g} more"
            notes.append(f"up to {resent} unknown jobs are sent again for {more}, and may be billed twice")
        if self._new:
            notes.append("tasks that fail are refunded; how many will, and how long the server takes, can't be known")
        return notes


async def _copied(folder: Path) -> Path:
    """A folder with a copy of the journal, so that reading it changes nothing; the lock shows that nobody writes."""
    if await _in_thread((folder / JOURNAL_NAME).exists):
        journal = await Journal.open(folder)
        await journal.close()  # what the log held is in the file now
    return await _in_thread(_copy, folder)


async def _in_thread(function: Callable[..., T], *args: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)


def _copy(folder: Path) -> Path:
    work = Path(tempfile.mkdtemp(prefix="wavespeed-plan-"))
    if (folder / JOURNAL_NAME).exists():
        shutil.copyfile(folder / JOURNAL_NAME, work / JOURNAL_NAME)
    return work


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
