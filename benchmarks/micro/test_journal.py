"""The journal, each move on the disk before the next: one by one, and a hundred jobs at once, which share an fsync."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from wavespeed_qwen_async.bulk.journal import Journal, State


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def journal(loop, tmp_path):
    journal = loop.run_until_complete(Journal.open(tmp_path))
    yield journal
    loop.run_until_complete(journal.close())


NUMBERS = count()


async def one_job(journal: Journal) -> None:
    number = next(NUMBERS)
    mark = number.to_bytes(16, "big")
    row = await journal.write(lambda store: store.insert(number, number, mark, mark))
    await journal.move(row, State.SUBMITTING, price=25_000, model="m", inputs='{"prompt":"p"}', sent_at=1.0)
    await journal.move(row, State.SUBMITTED, prediction_id=f"{number:032x}", holds=f"{number:032x}")


def test_one_job(benchmark, loop, journal):
    benchmark(lambda: loop.run_until_complete(one_job(journal)))


def test_a_hundred_jobs_at_once(benchmark, loop, journal):
    async def hundred() -> None:
        await asyncio.gather(*(one_job(journal) for _ in range(100)))

    benchmark(lambda: loop.run_until_complete(hundred()))
