"""The source, read a little ahead: while some lines are written down, the next are already pulled."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from wavespeed_qwen_async._tasks import Tasks
from wavespeed_qwen_async.errors import ConfigurationError

if TYPE_CHECKING:
    from .sources import JobSource, SourceChunk

__all__ = ["Ahead"]


class Ahead:
    """Pulls the lines of a source in a task of its own, of which ``close`` leaves nothing behind.

    Args:
        source: Where they come from.
        most: So many lines may wait to be taken, and what the source gave at once with the last of them.
        limit: Lines that are taken in all; None: as many as there are.
        stopping: Set when no more are wanted, however long the source is thinking.
    """

    def __init__(self, source: JobSource, *, most: int, limit: int | None, stopping: asyncio.Event) -> None:
        self._source = source
        self._most = most
        self._limit = limit
        self._stopping = stopping
        self._chunks: list[SourceChunk] = []
        self._waiting = self._pulled = 0
        self._ended = False
        self._failure: Exception | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._tasks = Tasks()

    async def close(self) -> None:
        """End it, wherever it is."""
        await self._tasks.close()

    def check(self) -> None:
        """Raise, before more is paid, what tells that the lines pulled so far are no more what the source holds."""
        if isinstance(self._failure, ConfigurationError):
            raise self._failure

    async def some(self) -> list[SourceChunk]:
        """The next lines, in their order, as many as have come; none at their end, and when the run is to stop.

        Raises:
            Exception: what the source raised, after all lines that came before.
        """
        if not self._tasks and not self._ended:
            self._tasks.start(self._pull(), "wavespeed batch source")
            self._tasks.start(self._stop(), "wavespeed batch stop")
        while not self._chunks and not self._ended and not self._stopping.is_set():
            self._changed.clear()
            await self._changed.wait()
        if self._stopping.is_set():
            return []
        self.check()
        if not self._chunks and self._failure is not None:
            raise self._failure
        chunks, self._chunks, self._waiting = self._chunks, [], 0
        self._room.set()
        return chunks

    async def _stop(self) -> None:
        await self._stopping.wait()
        self._changed.set()

    async def _pull(self) -> None:
        try:
            async with aclosing(self._source.chunks()) as chunks:
                async for chunk in chunks:
                    await self._take(chunk if self._limit is None else chunk.first(self._limit - self._pulled))
                    if self._pulled == self._limit:
                        return
        except Exception as error:  # noqa: BLE001 - the source is the user's; what it raises is raised to its consumer
            self._failure = error
        finally:
            self._ended = True
            self._changed.set()

    async def _take(self, chunk: SourceChunk) -> None:
        self._chunks.append(chunk)
        self._pulled += len(chunk)
        self._waiting += len(chunk)
        self._changed.set()
        while self._waiting >= self._most:
            self._room.clear()
            await self._room.wait()
