"""Ten minutes of more demand than the account allows, against a server that counts strictly."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import pairwise

import pytest
from strict_server import Client, StrictServer, now

from wavespeed_qwen_async.errors import RateLimitError
from wavespeed_qwen_async.limits import AccountTier, Limits

pytestmark = pytest.mark.anyio

TEN_MINUTES = 600.0


@pytest.mark.parametrize(
    ("tier", "jitter"),
    [
        *((tier, 0.3) for tier in (AccountTier.BRONZE, AccountTier.SILVER)),
        *(pytest.param(tier, 0.3, marks=pytest.mark.slow) for tier in (AccountTier.GOLD, AccountTier.ULTRA)),
        ("bronze", 0.0),
        ("silver", 0.0),
        ("silver", 1.0),
    ],
)
async def test_ten_minutes_use_the_allowance_and_never_break_it(tier, jitter):
    tier = AccountTier(tier)
    server = StrictServer(tier.max_per_minute)
    client = Client(Limits.for_tier(tier), server, jitter=jitter)
    began = now()
    async with client.saturating():
        await asyncio.sleep(TEN_MINUTES)
    assert server.refused() == 0
    assert server.fullest <= tier.max_per_minute
    assert server.accepted(began, began + TEN_MINUTES) >= 0.98 * 10 * tier.max_per_minute


async def test_bronze_uses_both_images_of_every_minute():
    server = StrictServer(2)
    began = now()
    async with Client(Limits.for_tier("bronze"), server).saturating():
        await asyncio.sleep(TEN_MINUTES)
    minutes = [server.accepted(began + 60 * minute, began + 60 * minute + 60) for minute in range(10)]
    assert minutes == [2] * 10


@pytest.mark.parametrize(
    ("tier", "killed_after"),
    [
        (AccountTier.BRONZE, 100.0),
        (AccountTier.BRONZE, 171.3),
        (AccountTier.SILVER, 100.0),
        (AccountTier.SILVER, 171.3),
        *(pytest.param(tier, 130.0, marks=pytest.mark.slow) for tier in (AccountTier.GOLD, AccountTier.ULTRA)),
    ],
)
async def test_a_restart_in_mid_window_breaks_no_window_and_costs_little(tier, killed_after):
    server = StrictServer(tier.max_per_minute)
    first = Client(Limits.for_tier(tier), server)
    began = now()
    async with first.saturating():
        await asyncio.sleep(killed_after)
    second = Client(Limits.for_tier(tier, burst=True), server, seed=1)
    second.limits.seed(now() - at for at in first.sent)
    async with second.saturating():
        await asyncio.sleep(began + TEN_MINUTES - now())
    assert server.refused() == 0
    assert server.fullest <= tier.max_per_minute
    lost = len(first.sent) + len(second.sent) - len(server.arrivals)  # killed on their way
    assert server.accepted(began, began + TEN_MINUTES) + lost >= 0.98 * 10 * tier.max_per_minute


async def test_smooth_by_default():
    client = Client(Limits.for_tier("silver"), StrictServer(500), jitter=0.0)
    async with client.saturating():
        await asyncio.sleep(55)
    gaps = [after - before for before, after in pairwise(client.sent)]
    assert client.sent[5] - client.sent[0] > 0.1  # what half a second's catching up is worth leaves at once
    assert gaps[10:] == pytest.approx([60 / 500] * len(gaps[10:]), abs=2e-6)


@pytest.mark.parametrize("jitter", [0.0, 0.3])
async def test_above_ten_a_second_a_few_leave_together(jitter):
    """Whenever answers come meanwhile."""
    client = Client(Limits.for_tier("gold"), StrictServer(3000), jitter=jitter)
    async with client.saturating():
        await asyncio.sleep(20)
    sent = [at for at in client.sent if at > client.sent[0] + 10]
    together = Counter(round(at, 3) for at in sent)
    assert len(sent) == pytest.approx(50 * 10, abs=10)
    assert len(together) <= 101
    assert max(together.values()) <= 6


async def test_who_joins_the_line_does_not_part_those_that_leave_together():
    limits, rng, left = Limits.for_tier("gold"), random.Random(1), []

    async def one() -> None:
        await asyncio.sleep(rng.uniform(0, 10))
        limits.report(await limits.start())
        left.append(now())

    await asyncio.gather(*(one() for _ in range(1000)))
    assert left[-1] - left[0] == pytest.approx(1000 / 50, abs=1.5)
    waited = [at for at in left if left[0] + 5 < at < left[0] + 15]  # by then there is always somebody in line
    assert len(waited) == pytest.approx(500, abs=10)
    assert len({round(at, 3) for at in waited}) <= 101


async def test_a_trial_that_is_accepted_lets_the_next_leave_at_once_however_slow_the_pace():
    limits = Limits(max_per_minute=6, max_in_flight=10, learn=False)
    limits.report(await limits.start(), RateLimitError("wait", retry_after=5.0))
    trial = await limits.start()
    after = asyncio.create_task(limits.start())
    await asyncio.sleep(0.3)
    limits.report(trial)
    limits.report(await after)
    assert now() - trial.started == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(("burst", "at_once", "after"), [(True, 48, 0.0), (True, 500, 3.0), (100, 100, 0.1)])
async def test_burst_lets_the_first_images_leave_at_once(burst, at_once, after):
    server = StrictServer(500)
    client = Client(Limits.for_tier("silver", burst=burst), server)
    began = now()
    async with client.saturating():
        await asyncio.sleep(after)
        assert client.limits.snapshot().sent == at_once
        await asyncio.sleep(TEN_MINUTES - after)
    assert server.refused() == 0
    assert server.fullest <= 500
    assert server.accepted(began, began + TEN_MINUTES) >= 0.98 * 5000


async def test_answers_that_come_30_s_late_cost_5_s_a_window_and_lock_nothing_up():
    limits = Limits(max_per_minute=60, max_in_flight=100)
    left = []
    for _ in range(240):
        send = await limits.start()
        left.append(now())
        asyncio.get_running_loop().call_later(30, limits.report, send)
    assert left[-1] - left[0] == pytest.approx(3 * 65 + 59, abs=2)
    assert limits.snapshot().used <= 60


async def test_a_send_that_is_never_reported_counts_as_arrived():
    limits = Limits(max_per_minute=1, max_in_flight=1)
    began = now()
    await limits.start()
    (await limits.start()).cancel()
    assert now() - began == pytest.approx(65.01, abs=1e-3)
    await limits.start()
    assert now() - began == pytest.approx(65.01 + 65.01, abs=1e-3)  # cut off, it may be on its way still


async def test_the_rate_can_be_changed_while_submits_wait():
    limits = Limits(max_per_minute=1, max_in_flight=1)
    limits.report(await limits.start())
    began = now()
    waiting = [asyncio.create_task(limits.start()) for _ in range(3)]
    await asyncio.sleep(1)
    limits.max_per_minute = 60
    await asyncio.gather(*waiting)
    assert now() - began < 5
    assert limits.max_per_minute == limits.snapshot().max_per_minute == 60
