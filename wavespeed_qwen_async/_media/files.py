"""Files, off the event loop: worker threads, and part files that come under their final name whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
from collections import deque
from concurrent import futures  # its pool is imported when one is made
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    _Answer = tuple[Any, BaseException | None]

try:
    import fcntl
except ImportError:  # Windows, where a file in use can't be removed anyway
    fcntl = None  # type: ignore[assignment]

__all__ = ["CHUNK", "MAX_PIECES", "PART_PATTERN", "PartFile", "Workers", "sweep", "sync_folder", "write_whole"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CHUNK = 512 * 1024
"""Bytes read or written in one go: what a transfer holds in memory, whatever the file's size."""
MAX_PIECES = 512
"""As many are written in one go; systems take 1,024 (IOV_MAX)."""
PART_PATTERN = re.compile(r"\.wavespeed-[0-9a-f]{16}\.part")
"""The names of part files. Those of a killed process are known by it, and by their lock being free."""

_numbers = count(secrets.randbits(64))
_GROUPS = 2  # at work at a time; more of them only wait for each other's turn at the interpreter
_GROUP = 16
_LONG = 0.1  # seconds that work waits behind them; then the disk is what is slow, and another group goes beside them


class Workers:
    """Threads for blocking work. Their own, so that a slow disk doesn't hold up name look-ups.

    All goes through the loop's ``run_in_executor``, where the tests' virtual clock can count it.
    """

    def __init__(self, threads: int) -> None:
        self._count = threads
        self._threads: futures.ThreadPoolExecutor | None = None
        self._errands: deque[_Errand] = deque()
        self._groups = 0
        self._soon = False
        self._waiting: asyncio.TimerHandle | None = None

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call ``function`` in a thread. If this task is cancelled, the thread's work is awaited before that shows.

        So a file is never closed under the thread that writes to it.
        """
        work = asyncio.get_running_loop().run_in_executor(self._pool(), function, *args)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await _ended(work)
            raise

    async def run_along(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """As ``run``, for short work of which much comes at a time: one trip to a thread takes many along.

        A thread of its own for each costs more than the work: at each call of the system it lets go of the
        interpreter, and all of them have to win it back from the loop.
        """
        loop = asyncio.get_running_loop()
        errand = _Errand(partial(function, *args), loop.create_future())
        self._errands.append(errand)
        if self._groups >= _GROUPS:
            self._wait(loop)
        elif not self._soon:
            self._soon = True  # what else comes in this pass of the loop goes along
            loop.call_soon(self._set_out, loop)
        try:
            return await errand.answer  # type: ignore[no-any-return]  # what the function gives
        except asyncio.CancelledError:
            if errand.work is not None:
                await _ended(errand.work)
            raise

    def _set_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._soon = False
        while self._errands and self._groups < _GROUPS:
            self._send(loop)
        self._wait(loop)

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        some = [self._errands.popleft() for _ in range(min(_GROUP, len(self._errands)))]
        group = [errand for errand in some if not errand.answer.done()]  # others were cancelled
        if not group:
            return
        try:
            work = loop.run_in_executor(self._pool(), _in_turn, [errand.function for errand in group])
        except RuntimeError as error:  # no more threads can be started
            _tell(group, [(None, error)] * len(group))
            return
        for errand in group:
            errand.work = work
        self._groups += 1
        work.add_done_callback(partial(self._come_back, group, loop))

    def _come_back(
        self, group: list[_Errand], loop: asyncio.AbstractEventLoop, work: asyncio.Future[list[_Answer]]
    ) -> None:
        self._groups -= 1
        _tell(group, work.result())
        self._set_out(loop)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._errands and self._waiting is None and self._groups < self._count:
            self._waiting = loop.call_later(_LONG, self._go_beside, loop)

    def _go_beside(self, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting = None
        if self._errands and self._groups < self._count:
            self._send(loop)
        self._wait(loop)

    def _pool(self) -> futures.ThreadPoolExecutor:
        if self._threads is None:
            self._threads = futures.ThreadPoolExecutor(self._count, thread_name_prefix="wavespeed-files")
        return self._threads

    def close(self) -> None:
        """Let the threads end; they are idle when nobody awaits them any more."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)


class _Errand:
    """A piece of work that goes to a thread together with others."""

    __slots__ = ("answer", "function", "work")

    def __init__(self, function: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        self.function = function
        self.answer = answer
        self.work: asyncio.Future[Any] | None = None


def _tell(group: Sequence[_Errand], answers: Sequence[_Answer]) -> None:
    for errand, (value, error) in zip(group, answers, strict=True):
        if errand.answer.done():  # cancelled
            continue
        if error is None:
            errand.answer.set_result(value)
        else:
            errand.answer.set_exception(error)


def _in_turn(functions: Sequence[Callable[[], Any]]) -> list[_Answer]:
    return [_answer(function) for function in functions]


def _answer(function: Callable[[], Any]) -> _Answer:
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - raised where its caller waits
        return None, error


async def _ended(work: asyncio.Future[Any]) -> None:
    """Wait for a thread's work, of a task that is cancelled, however often."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([work])
    if not work.cancelled():
        work.exception()  # seen: cancelled comes first


def write_whole(target: Path, pieces: Sequence[bytes], *, overwrite: bool) -> bool:
    """Put a file of few pieces under its name, whole and on the disk, by way of one without a name.

    A kill leaves nothing behind, and it takes five calls of the system. Returns False where it can't be done: there is
    something to be replaced, or it takes Linux and a file system that knows such files (ext4, xfs, btrfs, tmpfs, ...).
    Then a part file has to do, or tells what is wrong.

    Raises:
        FileExistsError: ``target`` exists, and ``overwrite`` is False.
        OSError: it has its name, and could not be brought to the disk.
    """
    folder = os.path.dirname(target) or "."  # noqa: PTH120 - a third of the time
    try:
        file = os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_SYNC, 0o666)
    except (AttributeError, OSError):
        return False
    try:
        done = _linked(file, target, pieces, overwrite=overwrite)
        if done:
            # What `O_SYNC` brought to the disk had no name: some releases of btrfs, and ext4 without a journal, keep
            # a file only by a sync that sees one.
            os.fsync(file)
    finally:
        os.close(file)
    return done


def _linked(file: int, target: Path, pieces: Sequence[bytes], *, overwrite: bool) -> bool:
    try:
        if not pieces or os.writev(file, pieces) != sum(map(len, pieces)):
            return False
        # The path being absolute, `src_dir_fd` is not used; but given one, Python follows the link behind it.
        os.link(f"/proc/self/fd/{file}", target, src_dir_fd=file)
    except OSError as error:
        if isinstance(error, FileExistsError) and not overwrite:
            raise
        return False
    return True


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
