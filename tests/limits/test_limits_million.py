"""A million jobs at gold: 3,000 a minute, 6 to 12 s each."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import tracemalloc
from pathlib import Path

import pytest
from strict_server import StrictServer, now

from wavespeed_qwen_async.limits import AccountTier, Limits, Send, Slot

pytestmark = pytest.mark.anyio


class Run:
    """Each job: a slot, a send of 0 to 0.3 s each way, the image 6 to 12 s later."""

    def __init__(self, jobs: int, tier: AccountTier = AccountTier.GOLD) -> None:
        self.limits = Limits.for_tier(tier)
        self.server = StrictServer(tier.max_per_minute)
        self.server.arrivals = Nothing()  # type: ignore[assignment]  # a million of them would be the memory measured
        self.jobs = jobs
        self.done = 0
        self.refused = 0
        self._rng = random.Random(1)
        self._all_done = asyncio.Event()

    async def finish(self) -> None:
        for _ in range(self.jobs):
            slot = await self.limits.acquire()
            send = await self.limits.start()
            self._later(0.0, 0.3, self._arrive, slot, send)
        await self._all_done.wait()

    def _arrive(self, slot: Slot, send: Send) -> None:
        error = self.server.submit()
        self.refused += error is not None
        self._later(0.0, 0.3, self.limits.report, send, error)
        self._later(6.0, 12.0, self._complete, slot)

    def _complete(self, slot: Slot) -> None:
        slot.release()
        self.done += 1
        if self.done == self.jobs:
            self._all_done.set()

    def _later(self, low: float, high: float, *call: object) -> None:
        asyncio.get_running_loop().call_later(self._rng.uniform(low, high), *call)


class Nothing:
    def append(self, _: object) -> None: ...


def theoretical_seconds(jobs: int, tier: AccountTier = AccountTier.GOLD) -> float:
    return jobs / tier.max_per_minute * 60 + 12


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
async def test_five_thousand_jobs_at_silver_end_in_time_and_memory_stays_flat():
    run = Run(5_000, AccountTier.SILVER)
    began = now()
    task = asyncio.create_task(run.finish())
    await asyncio.sleep(120)
    tracemalloc.start()
    try:
        await asyncio.sleep(90)
        before = tracemalloc.get_traced_memory()[0]
        await asyncio.sleep(240)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    await task
    assert run.refused == 0
    assert now() - began <= 1.01 * theoretical_seconds(5_000, AccountTier.SILVER)
    assert after - before < 20_000  # 24 bytes for each of 2,000 sends are more


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
async def test_a_million_jobs_end_in_time_and_memory_stays_flat():
    run = Run(1_000_000)
    began = now()
    task = asyncio.create_task(run.finish())
    memory = []
    while not task.done():
        await asyncio.wait([task], timeout=1000)
        memory.append(resident_bytes())
    await task
    took = now() - began
    print(f"{took:.1f} s, {took / theoretical_seconds(1_000_000) - 1:+.3%}; MiB: {[m >> 20 for m in memory]}")  # noqa: T201 - the figures, with -s
    assert run.done == 1_000_000
    assert run.refused == 0
    assert run.server.fullest <= 3000
    assert took <= 1.01 * theoretical_seconds(1_000_000)
    assert max(memory[2:]) - memory[1] < 4 << 20
