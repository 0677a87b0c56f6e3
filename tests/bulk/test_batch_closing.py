"""A session that is closed under a batch."""

from __future__ import annotations

import asyncio

import pytest

from wavespeed_qwen_async import Batch, SessionClosedError

pytestmark = pytest.mark.anyio


async def test_a_submit_that_closing_cut_off_is_no_image_and_is_found_by_the_next_run(opened, emulator, tmp_path):
    emulator.faults.add("submit", "slow_headers", seconds=1000)
    jobs = [{"prompt": f"p{index}", "seed": index} for index in range(3)]
    told = []
    async with opened() as session:

        async def consume():
            async for outcome in Batch(jobs, tmp_path / "out", session).run():
                told.append(outcome)

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(3)
    with pytest.raises(SessionClosedError):
        await asyncio.wait_for(consumer, 60)
    assert told == []
    assert len(emulator.ledger.accepted) == 3
    emulator.faults.clear()
    async with opened() as session:
        outcomes = [outcome async for outcome in Batch(jobs, tmp_path / "out", session).run()]
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert len(emulator.ledger.accepted) == 3
