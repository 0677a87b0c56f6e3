"""The one place of a run on a cluster: the batch, its journal, the account's limits and the desk of its workers.

A batch as on one machine, only that its submits and saves are orders. Killed, it begins again on its journal, and goes
on as any batch does; its workers find it again by themselves.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wavespeed_qwen_async.bulk.journal import RESULTS_NAME

from .desk import Desk
from .manifest import write_manifest
from .session import coordinating_session
from .tail import Tail, TailedBatch, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wavespeed_qwen_async.bulk import BatchProgress, BatchSummary

    from .orders import Done, Handful

__all__ = ["Coordinator", "Plan", "Results"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run: all that a coordinator needs to begin, and to begin again.

    Attributes:
        source: As ``Batch`` takes it, and such that it can be read again.
        folder: The journal's folder, on the coordinator's machine.
        manifest: Where the Parquet manifest goes, a path or a URL; None for none.
        session: Options of ``QwenImageSession``.
        storage: Options of fsspec's for ``manifest``.
        batch: Options of ``Batch``.
        desk: Options of ``Desk``.
        unread: See ``Tail``.
    """

    source: Any
    folder: str
    manifest: str | None = None
    session: Mapping[str, Any] = field(default_factory=dict)
    storage: Mapping[str, Any] = field(default_factory=dict)
    batch: Mapping[str, Any] = field(default_factory=dict)
    desk: Mapping[str, Any] = field(default_factory=dict)
    unread: int = 2000


class Results(NamedTuple):
    """A piece of ``results.jsonl``.

    Attributes:
        lines: Whole lines of it.
        offset: Where they end.
        progress: How the run stands.
        summary: How the run ended, when all was read.
        error: What it ended with, then.
    """

    lines: bytes
    offset: int
    progress: BatchProgress
    summary: BatchSummary | None = None
    error: BaseException | None = None


class Coordinator:
    """Runs a plan. ``begin`` it, and ``close`` it."""

    def __init__(self, plan: Plan) -> None:
        folder = Path(plan.folder)
        self.desk: Desk = Desk(**plan.desk)
        self.tail: Tail = Tail(folder, unread=plan.unread)
        self.session = coordinating_session(self.desk, folder, plan.session)
        self.batch: TailedBatch = TailedBatch(self.tail, plan.source, folder, self.session, **plan.batch)
        self._folder = folder
        self._plan = plan
        self._run: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._first = 0

    async def begin(self) -> int:
        """Begin, unless it has begun; gives where this run's results will begin in ``results.jsonl``."""
        if self._run is None:
            self._run = asyncio.get_running_loop().create_task(self._all(), name="wavespeed ray batch")
            self._first = await asyncio.get_running_loop().run_in_executor(None, size_of, self._folder)
        return self._first

    async def close(self) -> None:
        """End it; what is paid and not collected is left to the next run."""
        if self._run is not None and not self._run.done():
            self._run.cancel()
            await asyncio.wait([self._run])
        self.desk.close()

    async def drain(self) -> None:
        """Send nothing more; what is paid is collected, then the run ends."""
        self.batch.drain()

    async def hello(self, place: str, name: str) -> str:
        """See ``Desk.hello``."""
        await self.begin()
        return self.desk.hello(place, name)

    async def take(self, name: str, received: int, room: int, done: Iterable[Done]) -> Handful | None:
        """See ``Desk.take``."""
        return await self.desk.take(name, received, room, done)

    async def bury(self, place: str) -> None:
        """See ``Desk.bury``."""
        self.desk.bury(place)

    async def results(self, offset: int) -> Results:
        """What came to its end behind ``offset``; waits a little where that is nothing."""
        await self.begin()
        lines = await self.tail.after(offset)
        over = not lines and self._run is not None and self._run.done()
        return Results(
            lines,
            offset + len(lines),
            self.batch.progress(),
            self.batch.summary() if over else None,
            self._error if over else None,
        )

    async def manifest(self) -> int:
        """Write the Parquet manifest of all that the folder holds; gives the number of its rows."""
        plan = self._plan
        if plan.manifest is None:
            return 0
        results = self._folder / RESULTS_NAME
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, write_manifest, results, plan.manifest, plan.storage)

    async def _all(self) -> None:
        try:
            async with self.session, aclosing(self.batch.run()) as outcomes:
                async for _ in outcomes:
                    await self.tail.told()
        except Exception as error:  # noqa: BLE001 - told to the driver, which raises it
            self._error = error
        finally:
            self.tail.close()
            self.desk.close()
