"""The figures that the keeper is built for, over HTTP against the emulator, through the session, on virtual time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from wavespeed_qwen_async import Limits, QwenImageSession, TextToImage
from wavespeed_qwen_async.emulator import Emulator
from wavespeed_qwen_async.emulator.faults import Action

pytestmark = pytest.mark.anyio

BROKEN_LISTS = {
    "disabled": ("status", {"status": 404}),
    "answers 500": ("status", {"status": 500}),
    "lags 30 s": ("lag", {"seconds": 30.0}),
    "leaves out every third": ("gaps", {"every": 3}),
}


def break_list(emulator: Emulator, name: str) -> None:
    fault, options = BROKEN_LISTS[name]
    rule = emulator.faults.add("list", fault)
    rule.action = Action(fault, {**rule.action.options, **options})


async def run(emulator: Emulator, jobs: int, in_flight: int) -> dict[str, float]:
    """Prediction ids to seconds from completion on the server to delivery."""
    ends = {}
    loop = asyncio.get_running_loop()
    limits = Limits(max_per_minute=1_000_000, max_in_flight=in_flight, burst=True)
    async with QwenImageSession(api_key="k", base_url=emulator.url, limits=limits, rng=random.Random(5)) as session:
        async for outcome in session.stream(TextToImage(prompt=f"p{index}") for index in range(jobs)):
            prediction = outcome.unwrap()
            assert prediction.id not in ends
            ends[prediction.id] = loop.time()
    done = {row.id: row.end for row in emulator.ledger._predictions}
    assert ends.keys() == done.keys()
    return {prediction_id: at - done[prediction_id] for prediction_id, at in ends.items()}


def requests(emulator: Emulator) -> Counter[str]:
    return Counter({kind: emulator.ledger.requests[kind] for kind in ("submit", "list", "result")})


async def test_1200_jobs_300_in_flight_take_a_quarter_request_each_and_half_come_within_half_a_second():
    async with Emulator(tier=None, blank=True, inference=(6.0, 12.0)) as emulator:
        delays = sorted((await run(emulator, 1200, 300)).values())
    print(dict(requests(emulator)), "p50", delays[600], "p99", delays[1188], "max", delays[-1])  # noqa: T201
    assert len(delays) == 1200
    assert requests(emulator).total() <= 1.25 * 1200
    assert delays[600] <= 0.45
    assert delays[1188] <= 1.2
    assert emulator.ledger.spacing() is None or emulator.ledger.spacing() >= 2


@pytest.mark.parametrize("name", BROKEN_LISTS)
@pytest.mark.parametrize(("jobs", "in_flight"), [(240, 120), pytest.param(1200, 300, marks=pytest.mark.slow)])
async def test_a_broken_list_loses_and_doubles_nothing(name, jobs, in_flight):
    async with Emulator(tier=None, blank=True, inference=(6.0, 12.0)) as emulator:
        break_list(emulator, name)
        delays = await run(emulator, jobs, in_flight)
    print(name, dict(requests(emulator)), "spacing", emulator.ledger.spacing())  # noqa: T201
    assert len(delays) == jobs
    assert requests(emulator)["submit"] == jobs
    assert requests(emulator).total() <= 4 * jobs
    assert emulator.ledger.spacing() >= 2
    assert max(delays.values()) < 15


async def test_reads_that_fail_every_now_and_then_lose_nothing():
    async with Emulator(tier=None, blank=True, inference=(6.0, 12.0)) as emulator:
        for fault, options in [("status", {"status": 503}), ("truncate", {}), ("html", {})]:
            emulator.faults.add(("list", "result"), fault, probability=0.05, **options)
        emulator.faults.add("list", "drop", probability=0.05)  # a dropped GET is sent again by aiohttp itself, at once
        delays = await run(emulator, 240, 120)
    assert len(delays) == 240
    assert emulator.ledger.spacing() is None or emulator.ledger.spacing() >= 2


async def test_failed_tasks_are_outcomes_told_by_the_list():
    async with Emulator(tier=None, blank=True, inference=(6.0, 12.0)) as emulator:
        emulator.faults.add("submit", "fail", every=5, code=1200)
        limits = Limits(max_per_minute=1_000_000, max_in_flight=200, burst=True)
        async with QwenImageSession(api_key="k", base_url=emulator.url, limits=limits) as session:
            outcomes = [outcome async for outcome in session.stream(TextToImage(prompt="p") for _ in range(200))]
    codes = Counter(outcome.error.code if outcome.error else None for outcome in outcomes)
    assert codes == {None: 160, 1200: 40}
    assert requests(emulator)["result"] < 30
