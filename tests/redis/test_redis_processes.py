"""Real processes, a real Redis, and the emulator, which counts strictly and writes down each arrival."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wavespeed_qwen_async.emulator import Emulator
from wavespeed_qwen_async.integrations.redis import RedisLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio

PIPE = asyncio.subprocess.PIPE
CHILD = Path(__file__).with_name("redis_child.py")


class Child:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))

    @property
    def outcomes(self) -> list[dict]:
        return self.lines[1:]

    async def opened(self) -> None:
        await until(lambda: self.lines or self.process.returncode is not None)
        assert self.lines

    async def ended(self) -> int:
        await self.reading
        return await self.process.wait()


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 - what other processes do
        await asyncio.sleep(0.01)


@asynccontextmanager
async def children(
    api: Emulator, redis_url: str, count: int, *, jobs: int = 100_000, **limits
) -> AsyncIterator[list[Child]]:
    arguments = json.dumps({"jobs": jobs, "limits": limits})
    started = [
        Child(
            await asyncio.create_subprocess_exec(
                sys.executable, str(CHILD), api.url, redis_url, arguments, stdin=PIPE, stdout=PIPE
            )
        )
        for _ in range(count)
    ]
    try:
        await asyncio.gather(*(child.opened() for child in started))
        for child in started:
            child.process.stdin.write(b"\n")
        yield started
    finally:
        for child in started:
            if child.process.returncode is None:
                child.process.kill()
        await asyncio.gather(*(child.ended() for child in started))


def fullest(times: list[float], window: float) -> int:
    """The most arrivals in any window, both edges included."""
    most = first = 0
    for last, time in enumerate(times):
        while times[first] < time - window:
            first += 1
        most = max(most, last - first + 1)
    return most


async def share(server, *, processes: int, windows: int, window: float, limit: int) -> tuple[int, int]:
    """Run processes for so many windows; gives the fullest window and the submits of all."""
    settings = {"tier": None, "blank": True, "inference": (0.05, 0.2)}
    async with Emulator(max_per_minute=limit, window=window, **settings) as api:
        rules = {"max_per_minute": limit, "max_in_flight": 200, "window": window, "trust_empty": True}
        async with children(api, server.url, processes, **rules) as running:
            await until(lambda: api.ledger.submit_times)
            began = api.ledger.submit_times[0]
            await asyncio.sleep(windows * window - (asyncio.get_running_loop().time() - began))
            within = [time for time in api.ledger.submit_times if time < began + windows * window]
            pids = {int(record.inputs["prompt"].split()[0]) for record in api.ledger.accepted}
            assert pids == {child.process.pid for child in running}
        assert api.ledger.refused[429] == 0
        assert all(outcome["ok"] for child in running for outcome in child.outcomes)
        return fullest(api.ledger.submit_times, window), len(within)


async def test_two_processes_share_a_limit(server):
    most, sent = await share(server, processes=2, windows=2, window=2.0, limit=60)
    assert most <= 60
    assert sent >= 0.75 * 2 * 60  # a busy machine starves them; ten windows, below, show that they use it


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_four_processes_share_ten_scaled_minutes(server):
    most, sent = await share(server, processes=4, windows=10, window=3.0, limit=90)
    sys.stdout.write(f"fullest window {most} of 90, {sent} of 900 used\n")
    assert most <= 90
    assert sent >= 0.95 * 10 * 90


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_redis_is_killed_in_mid_run_and_comes_back_empty(server):
    limit, window = 60, 2.0
    async with Emulator(max_per_minute=limit, window=window, tier=None, blank=True, inference=(0.05, 0.2)) as api:
        rules = {"max_per_minute": limit, "max_in_flight": 200, "window": window, "trust_empty": True, "grace": 60.0}
        async with children(api, server.url, 4, jobs=75, **rules) as processes:
            await until(lambda: len(api.ledger.submit_times) >= 130)
            server.kill()
            await asyncio.to_thread(server.start)
            assert [await child.ended() for child in processes] == [0] * 4
        assert sum(outcome["ok"] for child in processes for outcome in child.outcomes) == 300
        assert len(api.ledger.accepted_times) == 300
        assert api.ledger.refused[429] == 0
        assert fullest(api.ledger.submit_times, window) <= limit


async def test_the_places_of_a_killed_process_come_back(server):
    rules = {"max_per_minute": 60, "max_in_flight": 3, "lease": 1.5, "trust_empty": True}
    arguments = [sys.executable, str(CHILD), "", server.url, json.dumps({"jobs": 3, "limits": rules})]
    holder = Child(await asyncio.create_subprocess_exec(*arguments, stdout=PIPE))
    await until(lambda: len(holder.lines) == 3)
    async with RedisLimits(server.url, **rules) as limits:
        waiting = asyncio.create_task(limits.acquire())
        await asyncio.sleep(2.5)  # beyond its lease, which it renews while it lives
        assert not waiting.done()
        killed_at = asyncio.get_running_loop().time()
        os.kill(holder.process.pid, signal.SIGKILL)
        slots = [await waiting, await limits.acquire(), await limits.acquire()]
        assert asyncio.get_running_loop().time() - killed_at > 0.5, "given away while its lease ran"
        assert limits.snapshot().in_flight == 3
        for slot in slots:
            slot.release()
    await holder.ended()
