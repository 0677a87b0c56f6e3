"""The journal's file: rows, moves and questions. Blocking, and used from one thread only: see ``journal``."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from ._results import ResultsFile
from ._rows import Counts, Known, Move, Row
from ._schema import connect, explained
from ._states import SOURCES_OF, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

__all__ = ["Counts", "Known", "Move", "Row", "Store"]

_LARGEST_BLOCK = 4096  # lines
_SENDS_KEPT = 120.0  # seconds
_ALL = ", ".join(str(int(state)) for state in State)
_IN_ONE_QUESTION = 500  # SQLite takes at least 999 parameters


class Store:
    """An open journal.

    Raises:
        JournalError: it can't be used.
    """

    def __init__(self, path: Path, results: Path) -> None:
        self.path = path
        self.cursor = 0  # lines of the source that were claimed in this run
        self._database = connect(path)
        try:
            self._results = ResultsFile(results, self.meta("results_size"))
        except (OSError, sqlite3.Error) as error:
            self._database.close()
            raise explained(error, results if isinstance(error, OSError) else path) from error

    def close(self) -> None:
        """Close the files."""
        self._results.close()
        self._database.close()

    # --- writing ------------------------------------------------------------------------------------------------------

    def commit(self, moves: Sequence[Move | Callable[[Store], Any]]) -> list[Any]:
        """Make moves, and other changes, durable together: one fsync for them all. All of them or none.

        Raises:
            JournalError: the disk is full, the file damaged, ...
            AssertionError: a move that is not legal: a defect, and nothing was written.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                answers = [self._answer(move) for move in moves]
                size = self._tell_results(move for move in moves if isinstance(move, Move))
                self._database.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise
        except (OSError, sqlite3.Error) as error:
            raise explained(error, self._results.path if isinstance(error, OSError) else self.path) from error
        if size is not None:
            self._results.keep(size)
        return answers

    def _answer(self, change: Move | Callable[[Store], Any]) -> Any:
        if not isinstance(change, Move):
            return change(self)
        self.apply(change)
        return None

    def _rollback(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def _tell_results(self, moves: Iterable[Move]) -> int | None:
        told = [move for move in moves if move.result is not None]
        if not told:
            return None
        size = self._results.append({**(move.result or {}), "job": move.row} for move in told)
        self.set_meta("results_size", size)
        self._database.executemany("UPDATE details SET lines = lines + 1 WHERE row = ?", [(move.row,) for move in told])
        return size

    def apply(self, move: Move) -> None:
        """Make one move, inside of a commit."""
        if move.to is not None:
            self._change_state(move, move.to)
        if move.details or move.result is not None:
            names = ["row", *move.details]
            updates = ", ".join(f"{name} = excluded.{name}" for name in names)
            self._database.execute(
                f"INSERT INTO details ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) "  # noqa: S608 - our own names
                f"ON CONFLICT (row) DO UPDATE SET {updates}",
                [move.row, *move.details.values()],
            )
        if move.to is State.SUBMITTING:
            self._note_send(move)
        if move.holds is not None:
            self._database.execute("INSERT OR IGNORE INTO held VALUES (?, ?)", (move.holds, move.row))

    def _note_send(self, move: Move) -> None:
        """The last minute's sends, which the account's limit counts over a restart, and the first of all."""
        at = move.details.get("sent_at")
        if at is not None:
            self._database.execute("INSERT OR REPLACE INTO sends VALUES (?, ?)", (at, move.row))
            self._database.execute("DELETE FROM sends WHERE at < ?", (at - _SENDS_KEPT,))
            self._database.execute("INSERT OR IGNORE INTO meta VALUES ('first_sent', ?)", (int(at),))

    def _change_state(self, move: Move, to: State) -> None:
        sources = SOURCES_OF[to]
        changed = self._database.execute(
            "UPDATE jobs SET state = ?, price = coalesce(?, price), refund = refund + coalesce(?, 0) "  # noqa: S608 - numbers
            f"WHERE id = ? AND state IN ({', '.join(str(int(state)) for state in sources)})",
            (int(to), move.price, move.refund, move.row),
        ).rowcount
        if changed != 1:
            now = self._database.execute("SELECT state FROM jobs WHERE id = ?", (move.row,)).fetchone()
            raise AssertionError(f"job {move.row}: no legal move from {now and State(now[0]).name} to {to.name}")

    # --- the source's lines -------------------------------------------------------------------------------------------

    def marks(self, start: int, count: int) -> list[bytes]:
        """What stood at these places; fewer than ``count`` where some are empty."""
        rows = self._database.execute(
            "SELECT mark FROM jobs WHERE position >= ? AND position < ? ORDER BY position", (start, start + count)
        )
        return [row[0] for row in rows.fetchall()]

    def block(self, start: int, count: int) -> bytes | None:
        """The digest of the lines that these places were last matched with, as long as nothing there has moved."""
        row = self._database.execute(
            "SELECT digest FROM blocks WHERE start = ? AND count = ?", (start, count)
        ).fetchone()
        return row[0] if row else None

    def set_block(self, start: int, count: int, digest: bytes) -> None:
        """These places hold the jobs of these lines."""
        self._database.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", (start, count, digest))

    def _break_block(self, position: int) -> None:
        self._database.execute(
            "DELETE FROM blocks WHERE start > ? AND start <= ? AND start + count > ?",
            (position - _LARGEST_BLOCK, position, position),
        )

    def states(self, start: int, count: int) -> dict[int, int]:
        """How many at these places are in each state. By the index that holds both: the rows are not looked at."""
        rows = self._database.execute(
            "SELECT state, count(*) FROM jobs INDEXED BY jobs_state "  # noqa: S608 - numbers
            f"WHERE state IN ({_ALL}) AND position >= ? AND position < ? GROUP BY state",
            (start, start + count),
        )
        return dict(rows.fetchall())

    def at_positions(self, start: int, end: int, states: Iterable[State] = State) -> dict[int, Known]:
        """What is known of the lines from ``start`` up to, not including, ``end``."""
        within = ", ".join(str(int(state)) for state in states)
        rows = self._database.execute(
            "SELECT id, position, mark, digest, state FROM jobs "  # noqa: S608 - numbers
            f"WHERE position >= ? AND position < ? AND +state IN ({within}) ORDER BY position",
            (start, end),
        )
        return {row[1]: Known._make(row) for row in rows}

    def free(self, digest: bytes, position: int) -> Known | None:
        """A job of this content that no line before ``position`` stands for."""
        question = "SELECT id, position, mark, digest, state FROM jobs WHERE digest = ? AND position "
        for row in (
            self._database.execute(question + "IS NULL LIMIT 1", (digest,)).fetchone(),
            self._database.execute(question + "> ? ORDER BY position LIMIT 1", (digest, position)).fetchone(),
        ):
            if row is not None:
                return Known._make(row)
        return None

    def insert(self, position: int, line: int | None, mark: bytes, digest: bytes) -> int:
        """A new job."""
        row = self._database.execute(
            "INSERT INTO jobs (position, line, mark, digest) VALUES (?, ?, ?, ?)", (position, line, mark, digest)
        ).lastrowid
        assert row is not None  # noqa: S101 - a row was inserted
        return row

    def place(self, row: int, position: int | None, line: int | None, mark: bytes) -> None:
        """The job stands at another line, as ``mark``."""
        (before,) = self._database.execute("SELECT position FROM jobs WHERE id = ?", (row,)).fetchone()
        if before is not None:
            self._break_block(before)
        self._database.execute(
            "UPDATE jobs SET position = ?, line = ?, mark = ? WHERE id = ?", (position, line, mark, row)
        )

    def displace(self, row: int) -> None:
        """The source no longer has the job where it was."""
        self._database.execute("UPDATE jobs SET position = NULL WHERE id = ?", (row,))

    def again(self, row: int) -> None:
        """A failed job is to be sent once more; what failed stays told until then."""
        self.apply(Move(row, State.NEW))

    def renew(self, row: int) -> None:
        """A job that was to be sent, and certainly was not accepted, is new again and costs nothing."""
        state, _ = self.state(row)
        if state is not State.NEW:
            self.apply(Move(row, State.NEW, price=0))

    def state(self, row: int) -> tuple[State, int | None]:
        """Where a job stands, and its place in the source."""
        state, position = self._database.execute("SELECT state, position FROM jobs WHERE id = ?", (row,)).fetchone()
        return State(state), position

    def inputs(self, row: int) -> str | None:
        """What was sent for a job, as JSON."""
        found = self._database.execute("SELECT inputs FROM details WHERE row = ?", (row,)).fetchone()
        return found[0] if found else None

    # --- questions ----------------------------------------------------------------------------------------------------

    def in_state(self, states: Iterable[State], after: int, most: int = _IN_ONE_QUESTION) -> list[Row]:
        """Jobs in one of these states, in order of their ids, from behind ``after`` on."""
        within = ", ".join(str(int(state)) for state in states)
        return self._rows(
            f"SELECT id FROM jobs WHERE state IN ({within}) AND id > ? ORDER BY id LIMIT ?",  # noqa: S608 - numbers
            (after, most),
        )

    def rows(self, ids: Sequence[int]) -> list[Row]:
        """These jobs."""
        found = []
        for start in range(0, len(ids), _IN_ONE_QUESTION):
            some = ids[start : start + _IN_ONE_QUESTION]
            found += self._rows(", ".join("?" * len(some)), tuple(some))
        return found

    def _rows(self, which: str, values: Sequence[Any]) -> list[Row]:
        rows = self._database.execute(
            "SELECT id, position, line, state, price, model, inputs, sent_at, prediction_id, path "  # noqa: S608
            f"FROM jobs LEFT JOIN details ON row = id WHERE id IN ({which}) ORDER BY id",
            values,
        )
        return [Row._make((*row[:3], State(row[3]), row[4], row[5] or "", row[6] or "", *row[7:])) for row in rows]

    def failures(self, rows: Sequence[int]) -> dict[int, tuple[str, bool]]:
        """Of failed jobs, whether they are billed, and whether the reason may pass."""
        found = self._database.execute(
            f"SELECT row, billed, transient FROM details WHERE row IN ({', '.join('?' * len(rows))})",  # noqa: S608
            rows,
        )
        return {row: (billed or "yes", bool(transient)) for row, billed, transient in found}

    def held(self, ids: Sequence[str]) -> set[str]:
        """Which of these predictions are a job's already."""
        found: set[str] = set()
        for start in range(0, len(ids), _IN_ONE_QUESTION):
            some = ids[start : start + _IN_ONE_QUESTION]
            marks = ", ".join("?" * len(some))
            question = f"SELECT prediction_id FROM held WHERE prediction_id IN ({marks})"  # noqa: S608 - question marks
            found.update(row[0] for row in self._database.execute(question, some))
        return found

    def counts(self, end: int | None = None) -> Counts:
        """How many jobs of the source's first ``end`` lines are in each state; the money is that of all jobs."""
        where = "position IS NOT NULL" if end is None else f"position < {int(end)}"
        states: dict[State, int] = {}
        cost = refund = 0
        for state, here, paid, back in self._database.execute(
            f"SELECT state, sum({where}), sum(price), sum(refund) FROM jobs GROUP BY state"  # noqa: S608
        ):
            states[State(state)] = here or 0
            cost += paid
            refund += back
        return Counts(states, cost, refund)

    def errors(self) -> list[tuple[str, int, str]]:
        """The errors of failed and unknown jobs by kind: how many, and one of them; the most frequent first."""
        rows = self._database.execute(
            "SELECT kind, count(*) AS many, error FROM jobs JOIN details ON row = id "
            "WHERE state IN (?, ?) AND position IS NOT NULL GROUP BY kind ORDER BY many DESC, kind",
            (int(State.FAILED), int(State.UNKNOWN)),
        )
        return [(kind or "", many, error or "") for kind, many, error in rows]

    def gone(self, end: int) -> int:
        """How many jobs were begun that the source's first ``end`` lines no longer have."""
        (count,) = self._database.execute(
            "SELECT count(*) FROM jobs WHERE state != 0 AND (position IS NULL OR position >= ?)", (end,)
        ).fetchone()
        return int(count)

    def sent_since(self, moment: float) -> list[float]:
        """When jobs were lately sent, after ``moment``."""
        return [row[0] for row in self._database.execute("SELECT at FROM sends WHERE at > ?", (moment,))]

    def first_sent(self) -> float | None:
        """When the first of all jobs was sent."""
        return float(self.meta("first_sent")) or None

    # --- file names, uploads, the rest --------------------------------------------------------------------------------

    def claim_name(self, name: str, row: int) -> bool:
        """Make a file name the job's own, unless it is another's. Upper and lower case are the same on many disks."""
        claimed = self._database.execute("INSERT OR IGNORE INTO files VALUES (?, ?)", (name.casefold(), row)).rowcount
        return claimed == 1

    def path_of(self, row: int) -> str | None:
        """The name chosen for a job's file, where one was."""
        found = self._database.execute("SELECT path FROM details WHERE row = ?", (row,)).fetchone()
        return found[0] if found else None

    def upload(self, key: str) -> tuple[str, float] | None:
        """An upload's URL and when it expires."""
        found: tuple[str, float] | None = self._database.execute(
            "SELECT url, expires_at FROM uploads WHERE key = ?", (key,)
        ).fetchone()
        return found

    def set_upload(self, key: str, url: str, expires_at: float) -> None:
        """Remember an upload."""
        self._database.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?)", (key, url, expires_at))

    def api(self) -> str | None:
        """Whose jobs these are: see ``_home``."""
        found = self._database.execute("SELECT address FROM api").fetchone()
        return found[0] if found else None

    def set_api(self, address: str) -> None:
        """Remember whose jobs these are."""
        self._database.execute("INSERT OR REPLACE INTO api VALUES (1, ?)", (address,))

    def begun(self) -> bool:
        """Whether any job was ever accepted, or perhaps accepted."""
        within = (int(State.SUBMITTING), int(State.UNKNOWN))
        question = "SELECT EXISTS (SELECT 1 FROM held) OR EXISTS (SELECT 1 FROM jobs WHERE state IN (?, ?))"
        return bool(self._database.execute(question, within).fetchone()[0])

    def meta(self, name: str) -> int:
        """A number of the journal's own, 0 where it was never set."""
        found = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return found[0] if found else 0

    def set_meta(self, name: str, value: int) -> None:
        """Keep a number."""
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def compact_results(self) -> None:
        """Drop the lines of jobs that came to another end since: failed, say, and saved when it was tried again."""
        rows = {row[0] for row in self._database.execute("SELECT row FROM details WHERE lines > 1")}
        if rows:
            self.set_meta("results_size", self._results.compact(rows))
            self._database.execute("UPDATE details SET lines = 1 WHERE lines > 1")
