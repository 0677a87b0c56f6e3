"""Runs that are cut off and lose answers, with a list of predictions that tells little, late, or nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing

import pytest
from durable import images, prompts, results

from wavespeed_qwen_async import SubmissionUnknown
from wavespeed_qwen_async.bulk import Batch

pytestmark = pytest.mark.anyio

JOBS = 60
POOR = {
    "no inputs": ("without_inputs", {}),
    "20 s late": ("lag", {"seconds": 20}),
    "down for good": ("status", {"status": 500}),
}


@pytest.mark.parametrize("how", POOR)
async def test_nothing_is_billed_twice_and_what_is_not_settled_is_told(opened, run, write, folder, emulator, how):  # noqa: PLR0917 - fixtures
    action, options = POOR[how]
    emulator.faults.add("list", action, **options)
    emulator.faults.add("submit", "drop_after", every=5)
    emulator.faults.add("submit", "drop", every=7)
    source = write(*prompts(JOBS))

    async def cut_off():
        async with opened() as session:
            async with aclosing(Batch(source, folder, session, max_in_flight=20).run()) as outcomes:
                async for _ in outcomes:
                    pass

    for after in (0.2, 3.0, 15.0):  # seconds
        task = asyncio.create_task(cut_off())
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    batch, outcomes = await run(source)
    unknown = [outcome for outcome in outcomes if isinstance(outcome.error, SubmissionUnknown)]
    summary = batch.summary()
    assert not emulator.ledger.doubles()
    accepted = Counter(record.inputs["prompt"] for record in emulator.ledger.accepted)
    assert set(accepted.values()) == {1}
    assert summary.saved + summary.skipped == len(images(folder)) == JOBS - summary.unknown
    assert summary.open == summary.failed == 0
    assert {outcome.error.billed for outcome in unknown} <= {"unknown"}
    assert sum(line["status"] == "unknown" for line in results(folder)) == summary.unknown
    assert (summary.unknown == 0) is (how == "20 s late"), "late is late; the others leave what they can't tell apart"
