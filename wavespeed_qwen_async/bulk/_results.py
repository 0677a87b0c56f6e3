"""``results.jsonl``: one line for each job that came to an end, never one too many after a kill.

The journal knows how long the file was at each commit. What a killed run wrote behind that is cut off again: those
jobs are not at their end in the journal either, and get their line when they are.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["ResultsFile"]


class ResultsFile:
    """Blocking: for the journal's thread."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        self.size = min(size, os.fstat(self._file).st_size)
        os.ftruncate(self._file, self.size)
        if 0 < self.size < size:  # cut off by another hand, or copied while it grew: the next line is a line of its own
            os.lseek(self._file, self.size - 1, os.SEEK_SET)
            if os.read(self._file, 1) != b"\n":
                self.size += os.write(self._file, b"\n")
        os.lseek(self._file, self.size, os.SEEK_SET)

    def append(self, lines: Iterable[dict[str, Any]]) -> int:
        """Write lines and bring them to the disk; gives the file's length then, which is kept by ``keep``."""
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8", "replace")
        os.lseek(self._file, self.size, os.SEEK_SET)  # over what a failed commit left
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.ftruncate(self._file, self.size + len(data))
        os.fsync(self._file)
        return self.size + len(data)

    def keep(self, size: int) -> None:
        """The commit that holds this length has succeeded."""
        self.size = size

    def compact(self, rows: set[int]) -> int:
        """Of each job in ``rows`` keep only the last line; gives the new length."""
        counts = Counter(row for row, _ in self._lines() if row in rows)
        part = self.path.with_name(".results.jsonl.part")
        with part.open("wb") as file:
            for row, line in self._lines():
                if row is not None and counts[row] > 1:
                    counts[row] -= 1
                    continue
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.close(self._file)
        self._file = -1
        part.replace(self.path)
        self._file = os.open(self.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self.size = size
        return size

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _lines(self) -> Iterable[tuple[int | None, bytes]]:
        with self.path.open("rb") as file:
            for line in file:
                try:
                    yield json.loads(line)["job"], line
                except (ValueError, KeyError, TypeError):
                    yield None, line
