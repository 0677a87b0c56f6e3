"""What users set and see: tiers, options, snapshots, reads; and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections import Counter

import pytest
from strict_server import now

from wavespeed_qwen_async.errors import ConfigurationError, RateLimitError
from wavespeed_qwen_async.limits import AccountTier, Limiter, Limits, LimitsSnapshot

pytestmark = pytest.mark.anyio

FIGURES = {"bronze": (2, 2), "silver": (500, 300), "gold": (3000, 3000), "ultra": (5000, 10000)}


@pytest.mark.parametrize(("name", "figures"), FIGURES.items())
def test_the_tiers(name, figures):
    tier = AccountTier(name)
    assert (tier.max_per_minute, tier.max_in_flight) == figures
    for given in (tier, name, f" {name.upper()} "):
        limits = Limits.for_tier(given)
        assert (limits.max_per_minute, limits.max_in_flight, limits.tier, limits.assumed) == (*figures, tier, False)


def test_no_tier_is_silvers_figures_assumed():
    limits = Limits.for_tier(None)
    assert (limits.max_per_minute, limits.max_in_flight, limits.tier, limits.assumed) == (500, 300, None, True)
    assert limits.snapshot().assumed
    assert "assumed" in repr(limits)
    assert Limits.for_tier(None, max_per_minute=100).assumed
    assert not Limits.for_tier(None, max_per_minute=100, max_in_flight=10).assumed


def test_a_tiers_figures_can_be_overridden():
    limits = Limits.for_tier("gold", max_per_minute=100, max_in_flight=10, downloads=3)
    assert (limits.max_per_minute, limits.max_in_flight, limits.downloads.size) == (100, 10, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_per_minute": 0}, "max_per_minute=0: must be a whole number from 1 up"),
        ({"max_per_minute": True}, "max_per_minute=True"),
        ({"max_per_minute": 1.5}, "max_per_minute=1.5"),
        ({"max_in_flight": 0}, "max_in_flight=0"),
        ({"burst": 11}, "burst=11: must be a whole number from 0 to 10"),
        ({"burst": -1}, "burst=-1"),
        ({"window": 0}, "window=0: must be a number above 0"),
        ({"window": float("inf")}, "window=inf"),
        ({"window": "60"}, "window='60'"),
        ({"reads_per_second": 0}, "reads_per_second=0"),
        ({"downloads": 0}, "downloads=0"),
        ({"uploads": 0}, "uploads=0"),
        ({"breaker_seconds": -1}, "breaker_seconds=-1"),
        ({"breaker_answers": 0}, "breaker_answers=0"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(ConfigurationError) as refused:
        Limits(**{"max_per_minute": 10, "max_in_flight": 10, **options})
    assert message in str(refused.value)


def test_edges_of_the_ranges():
    Limits(max_per_minute=1, max_in_flight=1, burst=1, downloads=1, uploads=1, reads_per_second=0.1, breaker_answers=1)
    Limits(max_per_minute=10, max_in_flight=1, burst=10)


@pytest.mark.parametrize("tier", ["platinum", "", 3])
def test_an_unknown_tier_is_named_with_those_there_are(tier):
    with pytest.raises(ConfigurationError, match="bronze, silver, gold, ultra") as refused:
        Limits.for_tier(tier)
    assert repr(tier) in str(refused.value)


def test_changes_while_running_are_checked_too():
    limits = Limits(max_per_minute=10, max_in_flight=10)
    with pytest.raises(ConfigurationError, match="max_per_minute=0"):
        limits.max_per_minute = 0
    with pytest.raises(ConfigurationError, match="max_in_flight=-1"):
        limits.max_in_flight = -1
    assert (limits.max_per_minute, limits.max_in_flight) == (10, 10)


def test_limits_serve_the_protocol():
    limiter: Limiter = Limits.for_tier("bronze")
    assert limiter.snapshot().max_per_minute == 2


async def test_a_snapshot_tells_it_all_and_keeps_still():
    limits = Limits(max_per_minute=60, max_in_flight=2, burst=2)
    await limits.acquire()
    limits.report(await limits.start())
    limits.report(await limits.start(), RateLimitError("429", status=429, retry_after=12))
    waiting = [asyncio.create_task(call()) for call in (limits.start, limits.acquire, limits.acquire)]
    await asyncio.sleep(2)
    async with limits.downloads, limits.uploads:
        snapshot = limits.snapshot()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert snapshot == LimitsSnapshot(
        max_per_minute=60,
        allowance=7,
        learned=True,
        assumed=False,
        used=2,
        sent=2,
        refused=1,
        waiting=1,
        max_in_flight=2,
        in_flight=2,
        waiting_for_slot=1,
        paused_for=10.0,
        pauses=1,
        pause_reason="rate limit",
        broken=False,
        downloads=1,
        uploads=1,
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.used = 3
    assert repr(limits).startswith("<Limits 2 of 7 a minute used, 2 of 2 in flight, 0 waiting")


def test_a_snapshot_needs_no_loop():
    limits = Limits.for_tier("silver")
    assert limits.snapshot().used == 0

    async def use() -> None:
        limits.report(await limits.start())

    asyncio.run(use())
    assert limits.snapshot().used == 1


async def test_reads_have_a_budget_of_their_own():
    limits = Limits(max_per_minute=1, max_in_flight=1, reads_per_second=10)
    limits.report(await limits.start(), RateLimitError("429", status=429, retry_after=50))
    began = now()
    for _ in range(110):
        await limits.read()
    assert now() - began == pytest.approx(10, abs=0.01)


async def test_reads_slower_than_one_a_second():
    limits = Limits(max_per_minute=1, max_in_flight=1, reads_per_second=0.5)
    began = now()
    for _ in range(3):
        await limits.read()
    assert now() - began == pytest.approx(4, abs=0.01)


def test_reads_on_a_second_loop_warn_of_nothing():
    limits = Limits.for_tier("bronze")
    asyncio.run(limits.read())
    asyncio.run(limits.read())


async def test_downloads_and_uploads_have_slots_of_their_own():
    limits = Limits(max_per_minute=1, max_in_flight=1, downloads=2, uploads=1)
    began = now()

    async def move(slots) -> float:
        async with slots:
            await asyncio.sleep(1)
        return now() - began

    downloads = asyncio.gather(*(move(limits.downloads) for _ in range(4)))
    uploads = asyncio.gather(*(move(limits.uploads) for _ in range(2)))
    assert await downloads == pytest.approx([1, 1, 2, 2])
    assert await uploads == pytest.approx([1, 2])


async def test_several_sessions_share_one_account():
    """Two users of one object get together what one would."""
    limits, served = Limits(max_per_minute=60, max_in_flight=2), []

    async def session(name: str) -> None:
        for _ in range(10):
            with await limits.acquire():
                limits.report(await limits.start())
                served.append(name)

    began = now()
    await asyncio.gather(session("a"), session("b"))
    assert now() - began == pytest.approx(18.5, abs=0.1)
    assert 5 <= served[:12].count("a") <= 7


@contextlib.contextmanager
def counted_calls():
    """A counter of all calls made inside, of functions in C too: what something costs, on any machine the same."""
    calls = Counter()
    sys.setprofile(lambda frame, event, function: calls.update([event.removeprefix("c_")]))
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def test_a_free_slot_costs_a_handful_of_calls_and_does_not_wait():
    limits, others = Limits.for_tier("ultra"), []
    (await limits.acquire()).release()
    asyncio.get_running_loop().call_soon(others.append, "ran")
    with counted_calls() as calls:
        (await limits.acquire()).release()
    assert not others
    assert calls["call"] <= 15


async def test_a_waiter_costs_the_same_however_many_there_are():
    """`benchmarks/limits_micro.py` tells what."""
    assert await _calls_of_a_waiter(2000) == pytest.approx(await _calls_of_a_waiter(200), rel=0.05)


async def _calls_of_a_waiter(count: int) -> float:
    """Calls for one of `count` tasks in line to be served, its own task included."""
    limits = Limits(max_per_minute=1, max_in_flight=1, burst=True)
    limits.report(await limits.start())
    held = await limits.acquire()

    async def worker() -> None:
        with await limits.acquire():
            limits.report(await limits.start())

    tasks = [asyncio.create_task(worker()) for _ in range(count)]
    await asyncio.sleep(0)
    with counted_calls() as calls:
        limits.max_per_minute = 10_000_000
        held.release()
        await asyncio.gather(*tasks)
    return calls["call"] / count
