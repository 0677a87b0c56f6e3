"""The journal's file: rows, moves and questions. Blocking, and used from one thread only: see ``journal``."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._media.files import sync_folder

from ._moves import IN_JSON, insert, waves, write
from ._results import ResultsFile
from ._rows import Counts, Joint, Known, Move, Row
from ._schema import connect, explained
from ._states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Change = Move | Joint | Callable[["Store"], Any]

__all__ = ["Change", "Counts", "Joint", "Known", "Move", "Row", "Store"]

_LARGEST_BLOCK = 4096  # lines
_ALL = ", ".join(str(int(state)) for state in State)
_IN_ONE_QUESTION = 500  # SQLite takes at least 999 parameters
_IN_ONE_INSERT = 160  # of five each


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

    def commit(self, changes: Sequence[Change]) -> list[Any]:
        """Make moves, and other changes, durable together: one fsync for them all. All of them or none.

        Raises:
            JournalError: the disk is full, the file damaged, ...
            AssertionError: a move that is not legal: a defect, and nothing was written.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                answers = self._answers(changes)
                moves = [change for change in changes if isinstance(change, Move)]
                for folder in {file.parent for move in moves for file in move.files}:
                    sync_folder(folder)
                size = self._tell_results(moves)
                self._database.execute("COMMIT")
            except BaseException:
                self._rollback()
                raise
        except (OSError, sqlite3.Error) as error:
            told = (error.filename or self._results.path) if isinstance(error, OSError) else self.path
            raise explained(error, Path(told)) from error
        if size is not None:
            self._results.keep(size)
        return answers

    def _answers(self, changes: Sequence[Change]) -> list[Any]:
        """Make changes in their order; moves, and joint changes, of different jobs together."""
        answers: list[Any] = [None] * len(changes)
        together: list[tuple[int, Move | Joint]] = []
        for place, change in enumerate(changes):
            if isinstance(change, (Move, Joint)):
                together.append((place, change))
                continue
            self._make(together, answers)
            together = []
            answers[place] = change(self)
        self._make(together, answers)
        return answers

    def _make(self, changes: list[tuple[int, Move | Joint]], answers: list[Any]) -> None:
        for wave in waves(changes):
            kinds: defaultdict[type[Joint], list[tuple[int, Any]]] = defaultdict(list)
            for place, change in wave:
                if isinstance(change, Joint):
                    kinds[type(change)].append((place, change))
            for kind, some in kinds.items():
                found = kind.make(self, [change for _, change in some])
                for (place, _), answer in zip(some, found, strict=True):
                    answers[place] = answer
            self.apply(*(change for _, change in wave if isinstance(change, Move)))

    def _rollback(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def _tell_results(self, moves: Iterable[Move]) -> int | None:
        told = [{**move.result, "job": move.row} for move in moves if move.result is not None]
        if not told:
            return None
        size = self._results.append(told)
        self.set_meta("results_size", size)
        return size

    def apply(self, *moves: Move) -> None:
        """Make moves, of different jobs, inside of a commit."""
        write(self._database, moves)

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

    def _leave(self, row: int) -> None:
        """The blocks that hold the job's place no longer stand for the lines that they were matched with."""
        _, position = self.state(row)
        if position is None:
            return
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

    def any_free(self, digests: Sequence[bytes], position: int) -> bool:
        """Whether there is a job of one of these contents that no line before ``position`` stands for."""
        for start in range(0, len(digests), _IN_ONE_QUESTION):
            some = digests[start : start + _IN_ONE_QUESTION]
            question = f"SELECT EXISTS (SELECT 1 FROM jobs WHERE digest IN ({', '.join('?' * len(some))}) AND position "  # noqa: S608 - question marks
            if self._database.execute(question + "IS NULL)", some).fetchone()[0]:
                return True
            if self._database.execute(question + ">= ?)", (*some, position)).fetchone()[0]:
                return True
        return False

    def insert(self, position: int, line: int | None, mark: bytes, digest: bytes) -> int:
        """A new job."""
        return self.insert_all([(position, line, mark, digest)])[0]

    def insert_all(self, jobs: Sequence[tuple[int, int | None, bytes, bytes]]) -> range:
        """New jobs: position, line, mark and digest of each. Gives their ids."""
        (last,) = self._database.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchone()
        for start in range(0, len(jobs), _IN_ONE_INSERT):
            some = jobs[start : start + _IN_ONE_INSERT]
            values = [value for place, job in enumerate(some, last + 1 + start) for value in (place, *job)]
            rows = ", ".join(["(?, ?, ?, ?, ?)"] * len(some))
            self._database.execute(f"INSERT INTO jobs (id, position, line, mark, digest) VALUES {rows}", values)  # noqa: S608
        return range(last + 1, last + 1 + len(jobs))

    def place(self, row: int, position: int | None, line: int | None, mark: bytes) -> None:
        """The job stands at another line, as ``mark``."""
        self._leave(row)
        self._database.execute(
            "UPDATE jobs SET position = ?, line = ?, mark = ? WHERE id = ?", (position, line, mark, row)
        )

    def displace(self, row: int) -> None:
        """The source no longer has the job where it was."""
        self._leave(row)
        self._database.execute("UPDATE jobs SET position = NULL WHERE id = ?", (row,))

    def again(self, row: int) -> None:
        """A failed or unknown job is to be sent once more; what it cost, or perhaps did, stays counted beside that."""
        self._database.execute(
            "INSERT INTO given_up SELECT id, price FROM jobs WHERE id = ? AND price > 0 "
            "ON CONFLICT (row) DO UPDATE SET price = price + excluded.price",
            (row,),
        )
        self.apply(Move(row, State.NEW, price=0))

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
        (cost,) = self._database.execute("SELECT coalesce(sum(price), 0) FROM given_up").fetchone()
        refund = 0
        for state, here, paid, back in self._database.execute(
            f"SELECT state, sum({where}), sum(price), sum(refund) FROM jobs GROUP BY state"  # noqa: S608
        ):
            states[State(state)] = here or 0
            cost += paid
            refund += back
        return Counts(states, cost, refund)

    def unknown_cost(self) -> int:
        """Micro-dollars that jobs perhaps cost of which nothing tells whether they were accepted."""
        question = "SELECT coalesce(sum(price), 0) FROM jobs WHERE state = ?"
        (cost,) = self._database.execute(question, (int(State.UNKNOWN),)).fetchone()
        return int(cost)

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
        self._database.execute("INSERT OR IGNORE INTO files VALUES (?, ?)", (name.casefold(), row))
        question = "SELECT row FROM files WHERE name = ?"
        return bool(self._database.execute(question, (name.casefold(),)).fetchone()[0] == row)

    def claim_names(self, names: Sequence[tuple[str, int]]) -> bool:
        """Make file names their jobs' own, if not one of them is another's or wanted twice; else none of them."""
        wanted = {name.casefold(): row for name, row in names}
        question = f"SELECT EXISTS (SELECT 1 FROM files WHERE name IN {IN_JSON})"  # noqa: S608 - see there
        if len(wanted) < len(names) or self._database.execute(question, (json.dumps([*wanted]),)).fetchone()[0]:
            return False
        insert(self._database, "INTO files", [*wanted.items()])
        return True

    def paths_of(self, rows: Sequence[int]) -> dict[int, str]:
        """The names chosen for jobs' files, where some were."""
        question = f"SELECT row, path FROM details WHERE row IN {IN_JSON} AND path IS NOT NULL"  # noqa: S608 - see there
        return dict(self._database.execute(question, (json.dumps(rows),)).fetchall())

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
