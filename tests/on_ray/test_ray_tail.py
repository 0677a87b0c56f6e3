"""Results read while they are written, and a journal that gathers its moves."""

from __future__ import annotations

import asyncio

import pytest

from wavespeed_qwen_async.bulk.journal import Journal
from wavespeed_qwen_async.integrations._ray.tail import Tail

pytestmark = pytest.mark.anyio


@pytest.fixture
async def journal(tmp_path):
    opened = await Journal.open(tmp_path)
    yield opened
    await opened.close()


async def test_a_journal_that_gathers_writes_at_the_end_of_the_time(journal, virtual_clock):
    journal.gather = 0.5
    commits = []
    began = virtual_clock.elapsed

    async def write():
        await journal.write(commits.append)
        return virtual_clock.elapsed - began

    first, second = asyncio.create_task(write()), asyncio.create_task(write())
    await asyncio.sleep(0.3)
    third = asyncio.create_task(write())
    assert await asyncio.gather(first, second, third) == pytest.approx([0.5] * 3, abs=0.01)
    later = asyncio.create_task(write())
    assert await later == pytest.approx(1.0, abs=0.02)


async def test_a_journal_that_gathers_writes_all_when_it_is_closed(tmp_path):
    journal = await Journal.open(tmp_path)
    journal.gather = 60.0
    writing = asyncio.create_task(journal.write(lambda store: store.set_meta("mark", 7)))
    await asyncio.sleep(0)
    await journal.close()
    await writing
    journal = await Journal.open(tmp_path)
    assert await journal.read(lambda store: store.meta("mark")) == 7
    await journal.close()


async def test_lines_are_read_whole_and_as_far_as_they_are_committed(tmp_path, journal):
    tail = Tail(tmp_path)
    results = tmp_path / "results.jsonl"
    results.write_bytes(b'{"a": 1}\n{"b": 2}\n{"c"')
    async with tail.of(journal):
        await journal.write(lambda store: store.set_meta("results_size", 9))
        assert await tail.after(0) == b'{"a": 1}\n'
        await journal.write(lambda store: store.set_meta("results_size", 18))
        assert await tail.after(9) == b'{"b": 2}\n'
        assert await tail.after(18) == b""


async def test_a_line_longer_than_one_reading_is_read_whole(tmp_path, journal):
    line = b'"' + b"x" * 600_000 + b'"\n'
    (tmp_path / "results.jsonl").write_bytes(line * 2)
    tail = Tail(tmp_path)
    async with tail.of(journal):
        await journal.write(lambda store: store.set_meta("results_size", 2 * len(line)))
        assert await tail.after(0) == line
        assert await tail.after(len(line)) == line


async def test_the_end_waits_until_all_is_read(tmp_path, journal):
    (tmp_path / "results.jsonl").write_bytes(b"1\n2\n")
    tail = Tail(tmp_path)
    async with tail.of(journal):
        await journal.write(lambda store: store.set_meta("results_size", 4))
        waiting = asyncio.create_task(tail.all_read())
        await tail.after(0)
        await asyncio.sleep(10)
        assert not waiting.done()
        await tail.after(4)
        await waiting
