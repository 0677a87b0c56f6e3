"""The journal: what is intended is on the disk before it can cost anything, what came of it right after.

One thread owns the SQLite file. Moves of many jobs that come while it is at work are committed together: one fsync
serves them all, so that being safe costs little. Each caller goes on when its own move is on the disk, not before.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from ._lock import FolderLock
from ._schema import JournalError
from ._states import State
from ._store import Move, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ._rows import Joint
    from ._store import Change

__all__ = ["JOURNAL_NAME", "RESULTS_NAME", "Journal", "JournalError", "Move", "State"]

logger: logging.Logger = logging.getLogger(__name__)

JOURNAL_NAME = "journal.sqlite3"
RESULTS_NAME = "results.jsonl"

T = TypeVar("T")


class Journal:
    """The journal of one folder, locked for one run. Made by ``open``.

    It is the ``UploadStore`` of its run as well: what was uploaded is known to later runs, until it expires.

    Attributes:
        gather: Seconds for which moves are gathered before they are written; 0: as soon as the thread is free.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gather: float = 0.0
        self._lock: FolderLock | None = None
        self._store: Store | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wavespeed-journal")
        self._waiting: list[tuple[Change, asyncio.Future[Any]]] = []
        self._soon = False  # a commit of what waits is about to begin
        self._work: asyncio.Future[list[Any]] | None = None
        self._broken: BaseException | None = None

    @classmethod
    async def open(cls, folder: Path) -> Journal:
        """Open the journal in ``folder``, which is made where there is none.

        Raises:
            JournalError: another run is at work there; the journal is damaged or of a newer version; nothing can be
                written there.
        """
        journal = cls(folder)
        try:
            await _to_its_end(asyncio.get_running_loop().run_in_executor(journal._thread, journal._open))
        except BaseException:
            await journal._let_go()
            raise
        return journal

    async def move(
        self,
        row: int,
        to: State | None,
        *,
        price: int | None = None,
        refund: int | None = None,
        holds: str | None = None,
        result: dict[str, Any] | None = None,
        files: Sequence[Path] = (),
        **details: Any,
    ) -> None:
        """Move a job to another state; it is on the disk on return.

        Cancelled, the move is made all the same, only nobody waits for it.

        Raises:
            JournalError: it could not be written; then no later move can be either.
        """
        await self._add(Move(row, to, details, price, refund, holds, result, files))

    async def write(self, change: Callable[[Store], T]) -> T:
        """Make another change, among the moves and as durable as they are."""
        answer: T = await self._add(change)
        return answer

    async def make(self, change: Joint) -> Any:
        """Make a change together with those of its kind that come at the same time; gives its answer."""
        return await self._add(change)

    async def read(self, question: Callable[[Store], T]) -> T:
        """Ask, after all moves that were made before."""
        return await self.write(question)

    async def close(self) -> None:
        """Write what is waiting, then let go of the files and the lock."""
        try:
            while self._waiting or self._work is not None:
                self._commit()
                if self._work is not None:
                    await _to_its_end(self._work, raising=False)
                await asyncio.sleep(0)  # its callback comes right after it
        finally:
            self._broken = self._broken or JournalError("the journal is closed")
            await self._let_go()

    # --- as a store of uploads ----------------------------------------------------------------------------------------

    async def get(self, key: str) -> tuple[str, float] | None:
        """The URL of an upload and when it expires."""
        return await self.read(lambda store: store.upload(key))

    async def put(self, key: str, url: str, expires_at: float) -> None:
        """Remember an upload."""
        await self.write(lambda store: store.set_upload(key, url, expires_at))

    # --- the thread ---------------------------------------------------------------------------------------------------

    async def _let_go(self) -> None:
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        await _to_its_end(closing)

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"can't make the folder {self.folder}: {error.strerror or error}") from error
        self._lock = FolderLock(self.folder)
        try:
            self._store = Store(self.folder / JOURNAL_NAME, self.folder / RESULTS_NAME)
        except BaseException:
            self._lock.release()
            raise

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
        if self._lock is not None:
            self._lock.release()

    def _opened(self) -> Store:
        if self._broken is not None:
            raise self._broken
        assert self._store is not None  # noqa: S101 - opened by `open`
        return self._store

    def _add(self, change: Change) -> asyncio.Future[Any]:
        """Have a change made. Cancelled by whoever waits for it, it is made all the same."""
        self._opened()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, answer))
        if self._work is None:
            self._commit_soon()
        return answer

    def _commit_soon(self) -> None:
        """What else comes in this pass of the loop goes along, or in the time to gather."""
        if self._soon:
            return
        self._soon = True
        loop = asyncio.get_running_loop()
        if self.gather > 0:
            loop.call_later(self.gather, self._commit)
        else:
            loop.call_soon(self._commit)

    def _commit(self) -> None:
        self._soon = False
        if self._work is None and self._waiting:
            group, self._waiting = self._waiting, []
            changes = [change for change, _ in group]
            self._work = asyncio.get_running_loop().run_in_executor(self._thread, self._written, changes)
            self._work.add_done_callback(lambda done: self._committed(group, done))

    def _written(self, changes: list[Change]) -> list[Any]:
        return self._opened().commit(changes)

    def _committed(self, group: list[tuple[Change, asyncio.Future[Any]]], work: asyncio.Future[list[Any]]) -> None:
        self._work = None
        error = JournalError("the journal was closed") if work.cancelled() else work.exception()
        if error is not None:
            self._broken = error
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
                    answer.exception()  # seen, whoever waits for it
        else:
            for (_, answer), found in zip(group, work.result(), strict=True):
                if not answer.done():
                    answer.set_result(found)
        if self._waiting:
            self._commit_soon() if self.gather > 0 else self._commit()


async def _to_its_end(work: asyncio.Future[Any], *, raising: bool = True) -> None:
    """Wait for a thread's work. Cancelled, wait on and be cancelled then: files and locks are never left half open."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # seen: cancelled comes first
        raise cancelled
    if raising:
        work.result()
