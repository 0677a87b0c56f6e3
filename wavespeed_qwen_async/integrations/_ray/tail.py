"""The results of a run, read from their file while it grows: each once, whoever was killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async.bulk import Batch
from wavespeed_qwen_async.bulk.journal import RESULTS_NAME, JournalError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from wavespeed_qwen_async.bulk import BatchOutcome
    from wavespeed_qwen_async.bulk.journal import Journal

__all__ = ["Tail", "TailedBatch", "size_of"]

_AT_ONCE = 256 * 1024  # bytes
_LONGEST_HOLD = 2.0  # seconds that a reader waits for some
_COMMIT_GATHER = 0.25  # seconds: moves come in handfuls from the workers, and one commit serves them all
_GATHER = 0.5  # seconds for which results are gathered for their reader


class Tail:
    """The end of ``results.jsonl`` in ``folder``, as far as it is committed.

    ``unread``: results that wait for their reader, beyond which no further job is taken up.
    """

    def __init__(self, folder: Path, *, unread: int = 2000) -> None:
        self._unread = unread
        self._path = folder / RESULTS_NAME
        self._journal: Journal | None = None
        self._size = 0
        self._read = 0
        self._waiting = 0
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self._closed = False

    async def after(self, offset: int) -> bytes:
        """Whole lines from ``offset`` on, of which all before were read; where there are none, after a while none."""
        self._read, self._waiting = offset, 0
        self._taken.set()
        await self._measure()
        if self._size <= offset and not self._closed:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_HOLD):
                    await self._news.wait()
                    if not self._closed:
                        await asyncio.sleep(_GATHER)
            await self._measure()
        return await asyncio.get_running_loop().run_in_executor(None, _lines, self._path, offset, self._size)

    async def told(self) -> None:
        """There is one more; wait where their reader is far behind."""
        self._waiting += 1
        self._news.set()
        while self._waiting >= self._unread and not self._closed:
            self._taken.clear()
            await self._taken.wait()

    async def all_read(self) -> None:
        """Wait until the reader has come to the end."""
        while True:
            await self._measure()
            if self._read >= self._size:
                return
            self._taken.clear()
            self._news.set()
            await self._taken.wait()

    def close(self) -> None:
        """There will be no more."""
        self._closed = True
        self._news.set()

    @asynccontextmanager
    async def of(self, journal: Journal) -> AsyncIterator[None]:
        """While a journal is open, it knows what is committed."""
        self._journal = journal
        try:
            yield
        finally:
            await self._measure()
            self._journal = None

    async def _measure(self) -> None:
        if self._journal is not None:
            with contextlib.suppress(JournalError):
                self._size = await self._journal.read(lambda store: store.meta("results_size"))


class TailedBatch(Batch):
    """A batch whose results are read by ``tail`` while it runs."""

    def __init__(self, tail: Tail, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tail = tail

    async def _outcomes(self, journal: Journal) -> AsyncGenerator[BatchOutcome, None]:
        journal.gather = _COMMIT_GATHER
        async with self._tail.of(journal), aclosing(super()._outcomes(journal)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def _compact(self, journal: Journal) -> None:
        await self._tail.all_read()
        await super()._compact(journal)


def size_of(folder: Path) -> int:
    """How long the results of a folder are now. Blocking."""
    try:
        return (folder / RESULTS_NAME).stat().st_size
    except FileNotFoundError:
        return 0


def _lines(path: Path, start: int, end: int) -> bytes:
    if end <= start:
        return b""
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(min(end - start, _AT_ONCE))
        if start + len(data) < end and b"\n" not in data:
            data += file.readline()
    return data[: data.rfind(b"\n") + 1]
