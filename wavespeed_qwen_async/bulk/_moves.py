"""Moves of many jobs, written by one statement for all of a kind.

Each step of SQLite's lets go of Python's lock and has to get it back from an event loop that is busy: what a commit
costs is the number of its statements, hardly what is in them. So many rows travel in one, as JSON.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ._states import SOURCES_OF, State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from ._rows import Joint, Move

__all__ = ["IN_JSON", "insert", "waves", "write"]

IN_JSON = "(SELECT value FROM json_each(?))"
"""What stands in a list of values: any number of them, in one parameter."""
_SENDS_KEPT = 120.0  # seconds


def waves(changes: Iterable[tuple[int, Move | Joint]]) -> Iterator[list[tuple[int, Move | Joint]]]:
    """Changes with their places, cut where a job comes for the second time: within a wave, their order is the same."""
    wave: list[tuple[int, Move | Joint]] = []
    rows: set[int] = set()
    for place, change in changes:
        if change.row in rows:
            yield wave
            wave, rows = [], set()
        wave.append((place, change))
        rows.add(change.row)
    if wave:
        yield wave


def write(database: sqlite3.Connection, moves: Sequence[Move]) -> None:
    """Make moves, of different jobs, inside of a transaction.

    Raises:
        AssertionError: one is not legal; then the transaction is to be rolled back.
    """
    _change_states(database, moves)
    _write_details(database, moves)
    _note_sends(database, moves)
    held = [(move.holds, move.row) for move in moves if move.holds is not None]
    insert(database, "OR IGNORE INTO held", held)


def insert(database: sqlite3.Connection, into: str, rows: Sequence[Sequence[Any]], conflict: str = "") -> None:
    """Insert rows of numbers, texts and nulls; the texts hold no NUL, at which SQLite's JSON would cut them off."""
    if rows:
        database.execute(_insertion(into, len(rows[0]), conflict), (json.dumps(rows, ensure_ascii=False),))


@lru_cache(maxsize=64)
def _insertion(into: str, width: int, conflict: str) -> str:
    values = ", ".join(f"json_extract(value, '$[{number}]')" for number in range(width))
    return f"INSERT {into} SELECT {values} FROM json_each(?) WHERE true {conflict}"  # noqa: S608 - our own names


def _change_states(database: sqlite3.Connection, moves: Sequence[Move]) -> None:
    kinds: defaultdict[tuple[State, int | None, int | None], list[int]] = defaultdict(list)
    for move in moves:
        if move.to is not None:
            kinds[move.to, move.price, move.refund].append(move.row)
    for (to, price, refund), rows in kinds.items():
        changed = database.execute(_CHANGES[to], (price, refund, ids := json.dumps(rows))).rowcount
        if changed != len(rows):
            raise AssertionError(_illegal(database, ids, to))


_CHANGES = {
    to: f"UPDATE jobs SET state = {int(to)}, price = coalesce(?, price), refund = refund + coalesce(?, 0) "  # noqa: S608 - numbers
    f"WHERE id IN {IN_JSON} AND +state IN ({', '.join(str(int(state)) for state in sources)})"
    for to, sources in SOURCES_OF.items()
}


def _illegal(database: sqlite3.Connection, ids: str, to: State) -> str:
    now = database.execute(f"SELECT id, state FROM jobs WHERE id IN {IN_JSON}", (ids,)).fetchall()  # noqa: S608 - see there
    where = ", ".join(f"{row} from {State(state).name}" for row, state in now if state != to)
    return f"no legal move to {to.name}: jobs {where or ids}"


def _write_details(database: sqlite3.Connection, moves: Sequence[Move]) -> None:
    """The columns that each move tells, and how many lines the results have of a job."""
    kinds: defaultdict[tuple[str, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for move in moves:
        if move.result is not None:
            kinds["row", *move.details, "lines"].append((move.row, *move.details.values(), 1))
        elif move.details:
            kinds["row", *move.details].append((move.row, *move.details.values()))
    for names, rows in kinds.items():
        insert(database, f"INTO details ({', '.join(names)})", rows, _update(names))


@lru_cache(maxsize=64)
def _update(names: tuple[str, ...]) -> str:
    changes = (f"{name} = {'lines + ' if name == 'lines' else ''}excluded.{name}" for name in names)
    return f"ON CONFLICT (row) DO UPDATE SET {', '.join(changes)}"


def _note_sends(database: sqlite3.Connection, moves: Sequence[Move]) -> None:
    """The last minutes' sends, which the account's limit counts over a restart, and the first of all."""
    sends = [
        (move.details["sent_at"], move.row)
        for move in moves
        if move.to is State.SUBMITTING and move.details.get("sent_at") is not None
    ]
    if sends:
        first, last = min(sends)[0], max(sends)[0]
        insert(database, "OR REPLACE INTO sends", sends)
        database.execute("DELETE FROM sends WHERE at < ?", (last - _SENDS_KEPT,))
        database.execute("INSERT OR IGNORE INTO meta VALUES ('first_sent', ?)", (int(first),))
