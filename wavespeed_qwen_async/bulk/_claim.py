"""Which job of the journal each line of the source stands for: the same content is the same job, wherever it stands.

Lines that are where they were are known by their mark alone. For the others, content decides: a line that was moved
takes its job along, equal lines each take one job, and what is left over is new. Blocking: for the journal's thread.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from wavespeed_qwen_async.errors import InvalidJobError
from wavespeed_qwen_async.models import Job, as_job

from ._states import State
from ._store import Known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ._store import Row, Store
    from .sources import SourceChunk, SourceLine

__all__ = ["Claimed", "Claims", "claim", "job_of"]


class Claimed(NamedTuple):
    """A line of the source and its job in the journal.

    Attributes:
        row: The job's id in the journal.
        position: The line's place, from 0.
        line: Its number in the file.
        state: Where the job stands.
        job: What to send, where it is new.
        error: Why it is none, where it was found so now.
        changed: Another job stood at this place before, and is not in the source any more so far.
    """

    row: int
    position: int
    line: int | None
    state: State
    job: Job | None = None
    error: InvalidJobError | None = None
    changed: bool = False


class Claims(NamedTuple):
    """What became of some lines.

    Attributes:
        new: Those that are to be sent, or are no job.
        saved: How many have their file.
        changed: Those at whose place another job stood before, which is not in the source any more so far.
    """

    new: list[Claimed]
    saved: int
    changed: list[Claimed]


def claim(store: Store, start: int, chunk: SourceChunk, *, again: bool) -> Claims:
    """The jobs of some lines, the first of which is at place ``start``; what is new is written down.

    ``again``: failed jobs that cost nothing, or failed for a reason that may pass, are new once more.
    """
    store.cursor = start + len(chunk)
    if _is_unchanged(store, start, chunk):
        states = store.states(start, len(chunk))
        saved = states.get(State.SAVED, 0)
        open_ones = State.NEW in states or (again and State.FAILED in states)
        claimed = _unchanged(store, start, chunk, again=again) if open_ones else []
    else:
        claimed = list(_one_by_one(store, start, chunk, again=again))
        saved = sum(item.state is State.SAVED for item in claimed)
        store.set_block(start, len(chunk), chunk.digest)
    new = [item for item in claimed if item.state is State.NEW]
    return Claims(new, saved, [item for item in claimed if item.changed])


def _is_unchanged(store: Store, start: int, chunk: SourceChunk) -> bool:
    """Whether all lines are as they were: by one comparison for them all, else by their marks."""
    if store.block(start, len(chunk)) == chunk.digest:
        return True
    if store.marks(start, len(chunk)) != chunk.marks:
        return False
    store.set_block(start, len(chunk), chunk.digest)
    return True


def _unchanged(store: Store, start: int, chunk: SourceChunk, *, again: bool) -> list[Claimed]:
    """Of lines that all are as they were, those that are to be sent."""
    wanted = (State.NEW, State.FAILED) if again else (State.NEW,)
    known = list(store.at_positions(start, start + len(chunk), wanted).values())
    again_rows = _to_try_again(store, known) if again else set()
    claimed = []
    for item in known:
        if item.row in again_rows:
            store.again(item.row)
        elif item.state != State.NEW:
            continue
        position = item.position or 0
        claimed.append(_new(store, item.row, position, chunk.line(position - start), changed=False))
    return claimed


def _one_by_one(store: Store, start: int, chunk: SourceChunk, *, again: bool) -> Iterator[Claimed]:
    known = store.at_positions(start, start + len(chunk))
    lines = list(chunk)
    if not known and not store.any_free([line.digest() for line in lines], start):
        yield from _all_new(store, start, lines)
        return
    for position, line in enumerate(lines, start):
        there, changed = known.get(position), False
        if there is None or there.mark != line.mark:
            there, changed = _found(store, known, position, line)
        state = State(there.state)
        if again and state is State.FAILED and _to_try_again(store, [there]):
            store.again(there.row)
            state = State.NEW
        if state is State.NEW:
            yield _new(store, there.row, position, line, changed=changed)
        else:
            yield Claimed(there.row, position, line.line, state, changed=changed)


def _all_new(store: Store, start: int, lines: list[SourceLine]) -> Iterator[Claimed]:
    """Lines that the journal knows nothing of."""
    jobs = [(position, line.line, line.mark, line.digest()) for position, line in enumerate(lines, start)]
    for row, (position, *_), line in zip(store.insert_all(jobs), jobs, lines, strict=True):
        try:
            yield Claimed(row, position, line.line, State.NEW, line.job())
        except InvalidJobError as error:
            yield Claimed(row, position, line.line, State.NEW, error=error)


def _found(store: Store, known: dict[int, Known], position: int, line: SourceLine) -> tuple[Known, bool]:
    """The job of a line that does not stand where it stood."""
    there, digest = known.get(position), line.digest()
    if there is not None and there.digest == digest:
        store.place(there.row, position, line.line, line.mark)  # written differently, meaning the same
        return there, False
    other = store.free(digest, position)
    if there is not None:
        store.displace(there.row)
    if other is None:
        row = store.insert(position, line.line, line.mark, digest)
        return Known(row, position, line.mark, digest, State.NEW), there is not None
    if other.position is not None:
        known.pop(other.position, None)
    store.place(other.row, position, line.line, line.mark)
    return other, False


def _new(store: Store, row: int, position: int, line: SourceLine, *, changed: bool) -> Claimed:
    try:
        return Claimed(row, position, line.line, State.NEW, _seeded(store, row, line.job()), changed=changed)
    except InvalidJobError as error:
        return Claimed(row, position, line.line, State.NEW, error=error, changed=changed)


def _seeded(store: Store, row: int, job: Job) -> Job:
    """The job with the seed that was drawn for it before, where it was sent before."""
    if job.seed is not None:
        return job
    inputs = store.inputs(row)
    seed = json.loads(inputs).get("seed") if inputs else None
    return job if seed is None else job.model_copy(update={"seed": seed})


def _to_try_again(store: Store, known: Iterable[Known]) -> set[int]:
    failed = [item.row for item in known if item.state == State.FAILED]
    return {row for row, (billed, passes) in store.failures(failed).items() if billed == "no" or passes}


def job_of(row: Row) -> Job | None:
    """The job as it was sent, made again from the journal; its source images are the URLs that were sent."""
    if not row.inputs:
        return None
    try:
        return as_job({"model": row.model, **json.loads(row.inputs)})
    except (ValueError, InvalidJobError):
        return None
