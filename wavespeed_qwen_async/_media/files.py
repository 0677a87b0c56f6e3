"""Files, off the event loop: worker threads, and part files that come under their final name whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

try:
    import fcntl
except ImportError:  # Windows, where a file in use can't be removed anyway
    fcntl = None  # type: ignore[assignment]

__all__ = ["CHUNK", "MAX_PIECES", "PART_PATTERN", "PartFile", "Workers", "sweep", "sync_folder"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CHUNK = 512 * 1024
"""Bytes read or written in one go: what a transfer holds in memory, whatever the file's size."""
MAX_PIECES = 512
"""As many are written in one go; systems take 1,024 (IOV_MAX)."""
PART_PATTERN = re.compile(r"\.wavespeed-[0-9a-f]{16}\.part")
"""The names of part files. Those of a killed process are known by it, and by their lock being free."""

_numbers = count(secrets.randbits(64))


class Workers:
    """Threads for blocking work. Their own, so that a slow disk doesn't hold up name look-ups.

    All goes through the loop's ``run_in_executor``, where the tests' virtual clock can count it.
    """

    def __init__(self, threads: int) -> None:
        self._count = threads
        self._threads: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call ``function`` in a thread. If this task is cancelled, the thread's work is awaited before that shows.

        So a file is never closed under the thread that writes to it.
        """
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="wavespeed-files")
        work = asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # seen: cancelled comes first
            raise

    def close(self) -> None:
        """Let the threads end; they are idle when nobody awaits them any more."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)


class PartFile:
    """A file in the making, beside its target, under a name of its own. Blocking: use it from a worker thread.

    A lock on it tells that its process lives; the system frees it however the process ends.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self._file = _create(folder)
        self.gone = False
        self.size = 0

    def write(self, pieces: Sequence[bytes]) -> None:
        """Append ``pieces``, by one call of the system where it takes them all, and without joining them first."""
        size = sum(map(len, pieces))
        written = os.writev(self._file, pieces) if hasattr(os, "writev") and pieces else 0
        view = memoryview(b"" if written == size else b"".join(pieces))[written:]
        while view:
            view = view[os.write(self._file, view) :]
        self.size += size

    def restart(self) -> None:
        """Forget what was written."""
        os.lseek(self._file, 0, os.SEEK_SET)
        os.ftruncate(self._file, 0)
        self.size = 0

    def read(self, offset: int, length: int) -> bytes:
        """Read back what was written."""
        os.lseek(self._file, offset, os.SEEK_SET)
        try:
            return _read_fully(self._file, length)
        finally:
            os.lseek(self._file, 0, os.SEEK_END)

    def finish(self, target: Path, *, overwrite: bool) -> None:
        """Bring it to the disk, then under its final name, in one step.

        Raises:
            FileExistsError: ``target`` exists, and ``overwrite`` is False.
        """
        os.fsync(self._file)
        if os.name == "nt":
            self._close()
        _rename(self.path, target, overwrite=overwrite)
        self.gone = True
        self._close()  # the lock goes with it, so not before the part file has gone

    def discard(self) -> None:
        """Remove it. Does nothing after ``finish``."""
        if os.name == "nt":  # removes no open file; elsewhere the lock is kept to the end
            self._close()
        if not self.gone:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.gone = True
        self._close()

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def _create(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / f".wavespeed-{next(_numbers) % 2**64:016x}.part"
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        except FileExistsError:  # of a process that was forked from this one
            continue
        if fcntl is None:
            return path, file
        with contextlib.suppress(OSError):  # a file system without locks: then nothing is ever taken for stale
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink:
            return path, file
        os.close(file)  # swept by another process in the instant before the lock


def _rename(part: Path, target: Path, *, overwrite: bool) -> None:
    if overwrite:
        part.replace(target)
    elif os.name == "nt":
        part.rename(target)  # which refuses there what exists
    else:
        try:
            target.hardlink_to(part)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: a look and a rename must do
            if target.exists():
                raise FileExistsError(f"{target} exists") from None
            part.replace(target)
        else:
            part.unlink()


def sync_folder(folder: Path) -> None:
    """Bring the folder's entries to the disk, so that a finished file is still there after a power cut."""
    if os.name == "nt":
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError:  # some file systems can't, and need not
        pass
    finally:
        os.close(file)


def sweep(folder: Path) -> int:
    """Remove the part files that killed processes left in ``folder``; returns how many. Those in use stay."""
    removed = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if PART_PATTERN.fullmatch(entry.name) and _remove_if_stale(Path(entry.path)):
                removed += 1
    return removed


def _remove_if_stale(path: Path) -> bool:
    try:
        if fcntl is None:
            path.unlink()
            return True
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(file)


def _read_fully(file: int, length: int) -> bytes:
    pieces = []
    while length > 0 and (piece := os.read(file, length)):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)
