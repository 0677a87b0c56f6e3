"""One run a folder: a lock that the system frees however its process ends."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ._schema import JournalError

if TYPE_CHECKING:
    from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]
    import msvcrt

__all__ = ["FolderLock"]

LOCK_NAME = "journal.lock"


class FolderLock:
    """Held from the making to ``release``.

    Raises:
        JournalError: another run holds it, or the folder can't be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_NAME
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as error:
            raise JournalError(f"can't write into {folder}: {error.strerror or error}. Nothing was sent") from error
        try:
            _lock(self._file)
        except OSError:
            holder = _holder(self._file)
            os.close(self._file)
            raise JournalError(
                f"another run{holder} is at work in {folder}: let it end, or choose another folder. Nothing was sent"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: the pid is a courtesy, the lock stands without it
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(os.getpid()).encode(), 0) if fcntl else None

    def release(self) -> None:
        """Let others in."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def _lock(file: int) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)


def _holder(file: int) -> str:
    try:
        pid = os.pread(file, 20, 0).decode("ascii", "replace") if fcntl else ""
    except OSError:
        return ""
    return f" (process {pid})" if pid.isdigit() else ""
