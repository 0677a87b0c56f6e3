"""The journal: moves that are legal, on the disk when they are told to be, and one run a folder."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavespeed_qwen_async.bulk import JournalError, _schema
from wavespeed_qwen_async.bulk._results import ResultsFile
from wavespeed_qwen_async.bulk._states import MOVES, SOURCES_OF, State
from wavespeed_qwen_async.bulk._store import Move, Store
from wavespeed_qwen_async.bulk.journal import JOURNAL_NAME, RESULTS_NAME, Journal

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / JOURNAL_NAME, tmp_path / RESULTS_NAME)
    yield opened
    opened.close()


def row_of(store, digest=b"d"):
    (row,) = store.commit([lambda store: store.insert(0, 1, b"m", digest)])
    return row


def test_nothing_leads_from_a_paid_state_to_one_that_is_sent():
    reachable = {State.SUBMITTED, State.DONE, State.SAVED}
    for _ in State:
        reachable |= {to for state in reachable for to in MOVES[state]} - {State.FAILED}
    assert not reachable & {State.NEW, State.SUBMITTING, State.UNKNOWN}
    assert State.SUBMITTING not in MOVES[State.UNKNOWN]
    assert {(a, b) for a, to in MOVES.items() for b in to} == {(a, b) for b, of in SOURCES_OF.items() for a in of}


@given(st.lists(st.sampled_from(State), max_size=8))
@settings(max_examples=60, deadline=None)
def test_only_legal_moves_are_made(tmp_path_factory, path):
    folder = tmp_path_factory.mktemp("journal")
    store = Store(folder / JOURNAL_NAME, folder / RESULTS_NAME)
    try:
        row, now = row_of(store), State.NEW
        for to in path:
            if to in MOVES[now]:
                store.commit([Move(row, to)])
                now = to
            else:
                with pytest.raises(AssertionError, match="no legal move"):
                    store.commit([Move(row, to)])
            assert store.state(row)[0] is now
    finally:
        store.close()


def test_a_commit_is_whole_or_not_at_all(store):
    row = row_of(store)
    with pytest.raises(AssertionError):
        store.commit([Move(row, State.SUBMITTING), Move(row, State.SAVED)])
    assert store.state(row)[0] is State.NEW


def test_results_of_a_failed_commit_are_cut_off(store, tmp_path):
    row = row_of(store)
    store.commit([Move(row, State.SUBMITTING)])
    with pytest.raises(AssertionError):
        store.commit([Move(row, State.FAILED, result={"index": 0}), Move(row, State.SAVED)])
    store.commit([Move(row, State.FAILED, result={"index": 1})])
    assert (tmp_path / RESULTS_NAME).read_text().count("\n") == 1


def test_results_written_behind_the_last_commit_are_cut_off(tmp_path):
    """As a kill between the line and the commit leaves them."""
    store = Store(tmp_path / JOURNAL_NAME, tmp_path / RESULTS_NAME)
    row = row_of(store)
    store.commit([Move(row, State.FAILED, result={"index": 1})])
    store.close()
    with (tmp_path / RESULTS_NAME).open("a") as file:
        file.write('{"index": 2}\n{"ind')
    Store(tmp_path / JOURNAL_NAME, tmp_path / RESULTS_NAME).close()
    assert (tmp_path / RESULTS_NAME).read_text() == '{"index": 1, "job": 1}\n'


def test_results_that_were_cut_off_by_another_hand_go_on_with_a_line_of_their_own(tmp_path):
    """As a copy of the folder has them that was made while they grew."""
    path = tmp_path / "results.jsonl"
    file = ResultsFile(path, 0)
    size = file.append([{"job": 1, "prompt": "a fox"}])
    file.close()
    path.write_bytes(path.read_bytes()[:-5])
    file = ResultsFile(path, size)
    file.append([{"job": 2}])
    file.close()
    assert path.read_bytes().splitlines()[1:] == [b'{"job": 2}']


def test_the_file_is_the_owners_alone(store, tmp_path):
    for path in tmp_path.glob(JOURNAL_NAME + "*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_it_is_durable_by_itself(store):
    assert store._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_migrations_run_one_after_the_other(tmp_path, monkeypatch):
    Store(tmp_path / JOURNAL_NAME, tmp_path / RESULTS_NAME).close()
    now = len(_schema.MIGRATIONS)
    later = (*_schema.MIGRATIONS, "ALTER TABLE jobs ADD COLUMN later TEXT;")
    monkeypatch.setattr(_schema, "MIGRATIONS", later)
    store = Store(tmp_path / JOURNAL_NAME, tmp_path / RESULTS_NAME)
    assert store._database.execute("SELECT later FROM jobs").fetchall() == []
    assert store._database.execute("PRAGMA user_version").fetchone() == (now + 1,)
    store.close()
    monkeypatch.undo()
    with pytest.raises(JournalError, match=f"version {now + 1}, and this release knows up to {now}"):
        Store(tmp_path / JOURNAL_NAME, tmp_path / RESULTS_NAME)


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_told_clearly(tmp_path, content):
    (tmp_path / JOURNAL_NAME).write_bytes(content)
    with pytest.raises(JournalError, match="is damaged"):
        Store(tmp_path / JOURNAL_NAME, tmp_path / RESULTS_NAME)
    assert (tmp_path / JOURNAL_NAME).read_bytes() == content


def test_another_programs_database_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / JOURNAL_NAME) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    with pytest.raises(JournalError, match="no journal of a batch"):
        Store(tmp_path / JOURNAL_NAME, tmp_path / RESULTS_NAME)


async def test_a_second_run_on_a_folder_is_refused(tmp_path):
    journal = await Journal.open(tmp_path)
    with pytest.raises(JournalError, match=r"another run \(process \d+\) is at work"):
        await Journal.open(tmp_path)
    await journal.close()
    await (await Journal.open(tmp_path)).close()


def test_a_killed_process_does_not_leave_it_locked(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom wavespeed_qwen_async.bulk._lock import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1]))\nprint('locked', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        with pytest.raises(JournalError, match=f"process {child.pid}"):
            asyncio.run(Journal.open(tmp_path))
        child.kill()
    asyncio.run(_open_and_close(tmp_path))


async def _open_and_close(folder):
    await (await Journal.open(folder)).close()


async def test_many_moves_share_one_commit(tmp_path, monkeypatch):
    commits = []
    original = Store.commit
    monkeypatch.setattr(Store, "commit", lambda self, moves: commits.append(len(moves)) or original(self, moves))
    journal = await Journal.open(tmp_path)
    rows = await asyncio.gather(
        *(journal.write(lambda store, n=n: store.insert(n, n, b"m", bytes([n]))) for n in range(100))
    )
    await asyncio.gather(*(journal.move(row, State.SUBMITTING) for row in rows))
    assert sum(commits) == 200
    assert len(commits) <= 4
    await journal.close()


@pytest.mark.parametrize("count", [1, 100])
def test_a_commit_takes_as_many_statements_as_there_are_kinds_of_moves(store, count):
    """Whatever the number of jobs: each statement is a wait for the lock that the event loop holds."""
    statements = []
    store._database.set_trace_callback(statements.append)

    def taken(*changes):
        statements.clear()
        answers = store.commit(changes)
        return len(statements), answers

    lines = [(n, n, b"m%d" % n, b"d%d" % n) for n in range(count)]
    number, (rows,) = taken(lambda store: store.insert_all(lines))
    assert number == 4  # with BEGIN and COMMIT
    sent = [Move(row, State.SUBMITTING, {"inputs": "{}", "sent_at": float(row)}, price=25_000) for row in rows]
    assert taken(*sent)[0] == 7
    accepted = [Move(row, State.SUBMITTED, {"prediction_id": f"p{row}"}, holds=f"p{row}") for row in rows]
    assert taken(*accepted)[0] == 5
    done = [Move(row, State.DONE, {"path": f"{row}.jpg"}) for row in rows]
    saved = [Move(row, State.SAVED, {"seconds": 1.0}, result={"index": row}) for row in rows]
    assert taken(*done, *saved)[0] == 7
    assert {row.state for row in store.rows([*rows])} == {State.SAVED}
    assert store.rows([rows[0]])[0].path == f"{rows[0]}.jpg"
    assert store.held([f"p{rows[-1]}"]) == {f"p{rows[-1]}"}
    assert store.counts().cost == count * 25_000


def test_of_many_moves_an_illegal_one_is_named_and_none_is_made(store):
    rows = store.commit([lambda store: store.insert_all([(n, n, b"m", b"d%d" % n) for n in range(3)])])[0]
    store.commit([Move(rows[1], State.FAILED)])
    with pytest.raises(AssertionError, match=rf"no legal move to SUBMITTING: jobs {rows[1]} from FAILED"):
        store.commit([Move(row, State.SUBMITTING) for row in rows])
    assert [store.state(row)[0] for row in rows] == [State.NEW, State.FAILED, State.NEW]


async def test_a_move_is_made_even_if_nobody_waits_for_it(tmp_path):
    journal = await Journal.open(tmp_path)
    row = await journal.write(lambda store: store.insert(0, 1, b"m", b"d"))
    task = asyncio.create_task(journal.move(row, State.SUBMITTING))
    await asyncio.sleep(0)
    task.cancel()
    await journal.close()
    journal = await Journal.open(tmp_path)
    assert (await journal.read(lambda store: store.state(row)))[0] is State.SUBMITTING
    await journal.close()


async def test_after_a_failure_nothing_more_is_written(tmp_path, monkeypatch):
    journal = await Journal.open(tmp_path)
    row = await journal.write(lambda store: store.insert(0, 1, b"m", b"d"))
    monkeypatch.setattr(
        Store, "apply", lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("database or disk is full"))
    )
    with pytest.raises(JournalError, match="no room on the disk"):
        await journal.move(row, State.SUBMITTING)
    monkeypatch.undo()
    with pytest.raises(JournalError, match="no room on the disk"):
        await journal.move(row, State.SUBMITTING)
    await journal.close()


async def test_uploads_are_remembered_with_their_expiry(tmp_path):
    journal = await Journal.open(tmp_path)
    await journal.put("key", "https://cdn/x.png", 123.5)
    await journal.close()
    journal = await Journal.open(tmp_path)
    assert await journal.get("key") == ("https://cdn/x.png", 123.5)
    assert await journal.get("other") is None
    await journal.close()
