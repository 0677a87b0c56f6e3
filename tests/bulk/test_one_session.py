"""Several runs in one session, one after the other and at the same time."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing, closing

import aiohttp
import pytest
from durable import images, prompts

from wavespeed_qwen_async.bulk import Batch, JournalError
from wavespeed_qwen_async.bulk._states import State
from wavespeed_qwen_async.bulk._store import Store
from wavespeed_qwen_async.bulk.journal import JOURNAL_NAME
from wavespeed_qwen_async.emulator.blank import blank_image

pytestmark = pytest.mark.anyio


async def all_of(batch):
    async with aclosing(batch.run()) as outcomes:
        return [outcome async for outcome in outcomes]


async def leave(batch, after):
    """Run for a while and leave at once, as a second Ctrl+C does."""
    task = asyncio.create_task(all_of(batch))
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_submit_that_is_answered_after_its_run_was_left_is_the_next_runs(opened, write, folder, emulator):
    """The answer comes when the journal is closed: nobody holds the prediction, and the next run must find it."""
    emulator.faults.add("submit", "slow_headers", seconds=15)
    source = write(*prompts(5))
    async with opened() as session:
        await leave(Batch(source, folder, session), 1.0)
        outcomes = await all_of(Batch(source, folder, session))
    assert [outcome.ok for outcome in outcomes] == [True] * 5
    assert len(emulator.ledger.accepted) == 5
    assert not emulator.ledger.doubles()


@pytest.mark.parametrize("answer", ["drop_after", "ok"])
async def test_a_prediction_that_could_not_be_written_down_is_found_by_the_next_run(  # noqa: PLR0917 - fixtures
    opened, write, folder, emulator, monkeypatch, answer
):
    """Answered, or found in the list after its answer was lost, and then the disk is full."""
    emulator.faults.script("submit", answer)
    apply = Store.apply

    def full(store, *moves):
        if any(move.to is State.SUBMITTED for move in moves):
            raise sqlite3.OperationalError("database or disk is full")
        apply(store, *moves)

    source = write(*prompts(1))
    async with opened() as session:
        monkeypatch.setattr(Store, "apply", full)
        with pytest.raises(JournalError, match="no room"):
            await all_of(Batch(source, folder, session))
        monkeypatch.undo()
        (outcome,) = await all_of(Batch(source, folder, session))
    assert outcome.ok
    assert len(emulator.ledger.accepted) == 1


async def test_a_prediction_found_for_an_earlier_run_that_could_not_be_written_down(
    opened, write, folder, emulator, monkeypatch
):
    emulator.faults.add("submit", "slow_headers", seconds=15, times=1)
    apply = Store.apply

    def full(store, *moves):
        if any(move.to is State.SUBMITTED for move in moves):
            raise sqlite3.OperationalError("database or disk is full")
        apply(store, *moves)

    source = write(*prompts(1))
    async with opened() as session:
        await leave(Batch(source, folder, session), 1.0)
    async with opened() as session:
        monkeypatch.setattr(Store, "apply", full)
        with pytest.raises(JournalError, match="no room"):
            await all_of(Batch(source, folder, session))
        monkeypatch.undo()
        (outcome,) = await all_of(Batch(source, folder, session))
    assert outcome.ok
    assert len(emulator.ledger.accepted) == 1


async def test_two_runs_at_once_leave_the_sessions_uploads_as_they_were(opened, write, tmp_path, emulator):
    (tmp_path / "a.png").write_bytes(blank_image(256, 256, "png"))
    short, long = [{"prompt": f"{n}", "image": "a.png"} for n in range(2)], prompts(30)
    async with opened(max_in_flight=300) as session:
        store = session._engine.media.store
        first = asyncio.create_task(all_of(Batch(write(*short, name="1.jsonl"), tmp_path / "1", session)))
        await asyncio.sleep(1)
        second = asyncio.create_task(
            all_of(Batch(write(*long, name="2.jsonl"), tmp_path / "2", session, max_in_flight=5))
        )
        await first
        assert not second.done()
        await second
        assert session._engine.media.store is store
        assert await session.upload(tmp_path / "a.png")
    assert len(images(tmp_path / "1")) == 2
    assert len(images(tmp_path / "2")) == 30


async def test_a_batch_that_was_drained_runs_again(opened, write, folder, emulator):
    async with opened() as session:
        batch = Batch(write(*prompts(40)), folder, session, max_in_flight=5)
        async with aclosing(batch.run()) as outcomes:
            async for _ in outcomes:
                batch.drain()
        assert batch.summary().stopped == "drained"
        await all_of(batch)
        assert batch.summary().stopped is None
    assert len(images(folder)) == 40
    assert len(emulator.ledger.accepted) == 40


async def test_a_submit_still_under_way_is_not_taken_for_one_that_never_arrived(opened, write, folder, emulator):
    """It arrives late: a list that shows newer predictions, and not this one, proves nothing as long as it may come."""
    emulator.faults.add("submit", "delay", seconds=30, times=1)
    source = write(*prompts(1))
    async with opened() as session:
        await leave(Batch(source, folder, session), 1.0)
        second = asyncio.create_task(all_of(Batch(source, folder, session)))
        await asyncio.sleep(5)
        await session.submit({"prompt": "newer"})
        (outcome,) = await second
    assert outcome.ok
    assert len(emulator.ledger.accepted) == 2


async def test_a_submit_may_arrive_after_its_process_is_gone(opened, write, folder, emulator):
    """A gateway held it while its sender died; something newer in the list does not prove that it never comes."""
    emulator.faults.add("submit", "drop", times=1)
    source = write(*prompts(1))
    async with opened() as session:
        await leave(Batch(source, folder, session), 0.3)
    with closing(sqlite3.connect(folder / JOURNAL_NAME)) as database:
        model, inputs = database.execute("SELECT model, inputs FROM details").fetchone()
    async with opened() as session:
        second = asyncio.create_task(all_of(Batch(source, folder, session)))
        await asyncio.sleep(4)
        await session.submit({"prompt": "newer"})
        await asyncio.sleep(4)
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as gateway:
            (await gateway.post(f"{emulator.url}/api/v3/{model}", data=inputs)).raise_for_status()
        await session.submit({"prompt": "newer still"})
        (outcome,) = await second
    assert outcome.ok
    assert len(emulator.ledger.accepted) == 3
