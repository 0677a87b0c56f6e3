"""The server allows a third of what is configured."""

from __future__ import annotations

import asyncio

import pytest
from strict_server import Client, StrictServer, now

from wavespeed_qwen_async.limits import Limits

pytestmark = pytest.mark.anyio

SERVERS = {
    "moving window": {},
    "moving window, no Retry-After": {"tells_when": False},
    "moving window that counts refused ones": {"counts_refused": True},
    "minutes of the clock": {"fixed": True},
    "minutes of the clock, no Retry-After": {"fixed": True, "tells_when": False},
}


def silver(**options) -> Limits:
    return Limits(max_per_minute=500, max_in_flight=300, **options)


@pytest.mark.parametrize("kind", SERVERS.values(), ids=SERVERS)
@pytest.mark.parametrize("burst", [False, True], ids=["smooth", "burst"])
async def test_a_third_is_found_and_used(kind, burst):
    server = StrictServer(166, **kind)
    began = now()
    async with Client(silver(burst=burst), server).saturating():
        await asyncio.sleep(120 + 1200)
    settled = began + 120
    accepted, refused = server.accepted(settled, now()), server.refused(settled)
    assert refused <= 0.02 * (accepted + refused)
    assert accepted >= 0.9 * 166 * 20


async def test_a_server_that_always_asks_for_a_minute_is_tried_rarely():
    server = StrictServer(166, tells_when=60.0)
    began = now()
    async with Client(silver(), server).saturating():
        await asyncio.sleep(120 + 2400)
    assert server.accepted(began + 120, now()) >= 0.9 * 166 * 40


async def test_a_third_of_gold_is_found_and_used():
    server = StrictServer(1000)
    began = now()
    async with Client(Limits.for_tier("gold"), server).saturating():
        await asyncio.sleep(600)
    accepted, refused = server.accepted(began + 120, now()), server.refused(began + 120)
    assert refused <= 0.02 * (accepted + refused)
    assert accepted >= 0.9 * 1000 * 8


@pytest.mark.parametrize("lifted_at", range(400, 480, 10))
async def test_a_lifted_limit_is_found_within_three_windows(lifted_at):
    """Whenever it is lifted between two probes."""
    server = StrictServer(166)
    async with Client(silver(), server).saturating():
        await asyncio.sleep(lifted_at)
        server.limit, lifted = 500, now()
        await asyncio.sleep(240)
    assert server.accepted(lifted + 120, lifted + 180) >= 0.9 * 500
    assert server.accepted(lifted + 180, lifted + 240) >= 0.98 * 500


async def test_refusals_fall_off_at_once():
    """The first refusal shows how many were accepted; nothing more than what was under way is refused for it."""
    server = StrictServer(166)
    limits = silver()
    async with Client(limits, server).saturating():
        await asyncio.sleep(59)
    assert server.refused() <= 1 + 0.6 * 500 / 60
    assert limits.snapshot().allowance == pytest.approx(166, rel=0.02)
    assert limits.snapshot().learned


async def test_two_programs_on_one_account_share_it():
    server = StrictServer(500)
    clients = [Client(silver(), server, seed=seed) for seed in range(2)]
    began = now()
    async with clients[0].saturating(), clients[1].saturating():
        await asyncio.sleep(1200)
    assert server.accepted(began + 120, now()) >= 0.9 * 500 * 18
    assert server.refused(began + 120) <= 0.02 * 500 * 18
    assert min(len(client.sent) for client in clients) > 0.3 * len(server.arrivals)


async def test_without_learning_the_rate_stays():
    limits = silver(learn=False)
    async with Client(limits, StrictServer(166)).saturating():
        await asyncio.sleep(120)
    assert limits.snapshot().allowance == 500
    assert not limits.snapshot().learned
