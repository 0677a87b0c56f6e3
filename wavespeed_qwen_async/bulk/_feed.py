"""What a run takes up, in this order: what is paid already, then the lines of the source that are not at their end."""

from __future__ import annotations

import logging
from contextlib import aclosing
from itertools import accumulate
from typing import TYPE_CHECKING

from wavespeed_qwen_async._stream import FATAL
from wavespeed_qwen_async.errors import InsufficientCreditsError, NotSentError, WaveSpeedError

from ._ahead import Ahead
from ._budget import dollars, micro
from ._claim import claim, job_of
from ._entry import Entry
from ._states import State
from .sources import FileSource

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ._claim import Claimed, Claims
    from ._store import Row, Store
    from ._work import Work
    from .sources import JobSource, SourceChunk

__all__ = ["Feed"]

logger = logging.getLogger(__name__)

_BEGUN = (State.SUBMITTED, State.DONE, State.SUBMITTING, State.UNKNOWN)
_SHOWN = 5
_AHEAD = 64  # lines pulled while those before are written down: a generator is not pulled far ahead of what is sent


class Feed:
    """Gives the jobs of a run, one when there is room for one."""

    def __init__(self, work: Work, source: JobSource) -> None:
        self._work = work
        self._source = source
        self._balance: int | None = None

    async def entries(self) -> AsyncGenerator[Entry, None]:
        """The jobs, each with its price reserved."""
        self._balance = await self._ask_balance()
        async with aclosing(self._begun()) as begun:
            async for entry in begun:
                yield entry
        async with aclosing(self._lines()) as lines:
            async for entry in lines:
                yield entry

    async def _ask_balance(self) -> int | None:
        """In micro-dollars, where the API tells it; a wrong key shows here, before anything is sent."""
        try:
            return micro(await self._work.session.balance())
        except (NotSentError, *FATAL):
            raise
        except WaveSpeedError:
            return None

    async def _begun(self) -> AsyncGenerator[Entry, None]:
        last = 0
        while True:
            after = last
            rows = await self._work.journal.read(lambda store: store.in_state(_BEGUN, after))  # noqa: B023 - read at once
            if not rows:
                return
            for row in rows:
                yield self._carried(row)
            last = rows[-1].row

    def _carried(self, row: Row) -> Entry:
        entry = Entry(row.row, row.position, row.line, row.state, job_of(row))
        entry.known = row
        entry.price = row.price
        entry.resumed = entry.reserved = True
        self._work.budget.carry()
        return entry

    async def _lines(self) -> AsyncGenerator[Entry, None]:
        work = self._work
        most, limit = min(_AHEAD, work.options.window), work.options.limit
        ahead = Ahead(self._source, most=most, limit=limit, stopping=work.stopping)
        try:
            while chunks := await ahead.some():
                items = await self._claimed(chunks)
                await self._check_source()
                for item in items:
                    ahead.check()
                    entry = await self._taken_up(item)
                    if work.stopping.is_set():
                        return
                    if entry is not None:
                        yield entry
        finally:
            await ahead.close()

    async def _check_source(self) -> None:
        """Raise, before lines that were just taken are paid, if their file is no more what it was."""
        if isinstance(self._source, FileSource):
            await self._source.check()

    async def _claimed(self, chunks: list[SourceChunk]) -> list[Claimed]:
        work = self._work
        start, again = work.tally.seen, work.options.retry_failed

        def claim_all(store: Store) -> list[Claims]:
            starts = accumulate(map(len, chunks), initial=start)
            return [claim(store, place, chunk, again=again) for place, chunk in zip(starts, chunks, strict=False)]

        claims = await work.journal.write(claim_all)
        work.tally.seen += sum(map(len, chunks))
        work.tally.skipped += sum(found.saved for found in claims)
        changed = [item for found in claims for item in found.changed]
        if changed:
            work.tally.changed += len(changed)
            logger.warning(
                "%d lines of the source are not what they were: new jobs, to be paid (lines %s%s)",
                len(changed),
                ", ".join(str(item.line or item.position + 1) for item in changed[:_SHOWN]),
                ", ..." if len(changed) > _SHOWN else "",
            )
        return [item for found in claims for item in found.new]

    async def _taken_up(self, item: Claimed) -> Entry | None:
        """The job of a line as far as it is to be sent, its price reserved."""
        work = self._work
        job = None if item.job is None else work.engine.drawn(item.job)
        entry = Entry(item.row, item.position, item.line, item.state, job)
        entry.error = item.error
        if job is None:
            return entry
        price = micro((await work.prices.of(job)).amount)
        if self._balance is not None and self._balance < price and not work.tally.spent:
            work.stop(InsufficientCreditsError(f"the balance is ${dollars(self._balance):.2f}, an image costs more"))
            return None
        if not await work.budget.reserve(price):
            work.stop("budget")
            return None
        entry.price, entry.reserved = price, True
        work.tally.spent += price
        if work.stopping.is_set():
            work.settle(entry, back=price)
        return entry
