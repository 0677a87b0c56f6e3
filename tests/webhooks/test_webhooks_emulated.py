"""A thousand jobs whose results are pushed by the emulator, over HTTP and on virtual time."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from wavespeed_qwen_async import Limits, QwenImageSession, TextToImage
from wavespeed_qwen_async.emulator import Emulator
from wavespeed_qwen_async.webhooks import WebhookReceiver, sign

pytestmark = pytest.mark.anyio

JOBS = 500
FORGED = "https://evil.example/forged.png"


@asynccontextmanager
async def receiving(secrets):
    """A receiver mounted in an aiohttp application, and how it answered."""
    loop = asyncio.get_running_loop()
    wall = time.time() - loop.time()
    app = web.Application()
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    receiver = None
    statuses = Counter()

    async def hook(request):
        answer = await receiver.aiohttp_handler(request)
        statuses[answer.status] += 1
        return answer

    app.router.add_post("/hook", hook)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    receiver = WebhookReceiver(f"http://{host}:{port}/hook", secrets=secrets, clock=lambda: wall + loop.time())
    try:
        yield receiver, statuses
    finally:
        await runner.cleanup()


async def forge(receiver, ids, count):
    """A stranger who knows ids, not the secret."""
    rng = random.Random(1)
    async with aiohttp.ClientSession() as client:
        for index in range(count):
            await asyncio.sleep(0.2)
            body = json.dumps({"id": rng.choice(ids()), "status": "completed", "outputs": [FORGED]}).encode()
            stamp = str(int(receiver._clock()))
            signature = rng.choice([sign(f"f{index}", stamp, body, "whsec_guess"), "v3," + "0" * 64, "", "v1,x"])
            headers = {"webhook-id": f"f{index}", "webhook-timestamp": stamp, "webhook-signature": signature}
            async with client.post(receiver.url, data=body, headers=headers) as response:
                assert response.status == 401


def lists_and_checks(emulator):
    return emulator.ledger.requests["list"] + emulator.ledger.requests["result"]


async def test_lost_repeated_early_and_forged_deliveries_change_nothing():
    async with (
        Emulator(tier=None, blank=True, inference=(6.0, 12.0)) as emulator,
        receiving([emulator.webhook_secret]) as (receiver, statuses),
    ):
        emulator.faults.add("webhook", "lose", probability=0.1)
        emulator.faults.add("webhook", "duplicate", probability=0.1)
        emulator.faults.add("submit", "slow_headers", probability=0.05, seconds=15.0)  # pushed before it is answered
        limits = Limits(max_per_minute=1_000_000, max_in_flight=300, burst=True)
        ends = {}
        async with QwenImageSession(
            api_key="k", base_url=emulator.url, limits=limits, webhooks=receiver, wait="webhook", rng=random.Random(2)
        ) as session:
            forging = asyncio.create_task(
                forge(receiver, lambda: [row.id for row in emulator.ledger._predictions] or ["?"], 100)
            )
            async for outcome in session.stream(TextToImage(prompt=f"p{index}") for index in range(JOBS)):
                prediction = outcome.unwrap()
                assert prediction.id not in ends
                assert FORGED not in prediction.raw_outputs
                ends[prediction.id] = asyncio.get_running_loop().time()
            await forging
        done = {row.id: row.end for row in emulator.ledger._predictions}
        kinds = Counter(kind for _, _, kind, _ in emulator.ledger.webhooks)
    delays = sorted(at - done[prediction_id] for prediction_id, at in ends.items())
    print(kinds, statuses, dict(emulator.ledger.requests), delays[JOBS // 2], delays[-1])  # noqa: T201
    assert len(ends) == JOBS == emulator.ledger.requests["submit"]
    assert kinds["lost"] > 20
    assert kinds["duplicate"] > 20
    assert statuses[401] == 100
    assert delays[JOBS // 2] < 0.05
    assert delays[-1] < 30
    assert lists_and_checks(emulator) < 0.25 * JOBS
    assert emulator.ledger.spacing() is None or emulator.ledger.spacing() >= 2


async def test_deliveries_that_never_come_are_found_by_asking(caplog):
    async with (
        Emulator(tier=None, blank=True, inference=(6.0, 12.0)) as emulator,
        receiving([emulator.webhook_secret]) as (receiver, _),
    ):
        emulator.faults.add("webhook", "lose")
        limits = Limits(max_per_minute=1_000_000, max_in_flight=100, burst=True)
        async with QwenImageSession(
            api_key="k", base_url=emulator.url, limits=limits, webhooks=receiver, rng=random.Random(2)
        ) as session:
            began = asyncio.get_running_loop().time()
            outcomes = [outcome async for outcome in session.stream(TextToImage(prompt="p") for _ in range(400))]
            took = asyncio.get_running_loop().time() - began
    assert all(outcome.ok for outcome in outcomes)
    assert took < 75  # about 45 s by asking from the start; each of four rounds by the net alone would take 16 s
    assert ["no webhook delivery has come" in record.getMessage() for record in caplog.records] == [True]


async def test_the_session_asks_for_the_secret_where_the_receiver_has_none():
    async with Emulator(tier=None, blank=True) as emulator, receiving(()) as (receiver, statuses):
        async with QwenImageSession(api_key="k", base_url=emulator.url, webhooks=receiver, wait="webhook") as session:
            images = await asyncio.gather(*(session.generate("x") for _ in range(5)))
            assert all(image.ok for image in images)
        assert not receiver.needs_secret
        assert (emulator.ledger.requests["secret"], statuses[200]) == (1, 5)
        assert receiver.receive({}, b"") == 503  # closed, the session takes nothing more


async def test_without_a_secret_to_be_had_it_goes_on_without_webhooks(caplog):
    async with Emulator(tier=None, blank=True) as emulator, receiving(()) as (receiver, _):
        emulator.faults.add("secret", "status", status=404)
        async with QwenImageSession(api_key="k", base_url=emulator.url, webhooks=receiver) as session:
            assert (await session.generate("x")).ok
    assert emulator.ledger.accepted[0].webhook is None
    assert "no webhooks for now" in caplog.text


async def test_a_secret_that_can_not_be_read_does_not_hold_up_each_submit():
    async with Emulator(tier=None, blank=True) as emulator, receiving(()) as (receiver, _):
        emulator.faults.add("secret", "slow_headers", seconds=1000)
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with QwenImageSession(api_key="k", base_url=emulator.url, tier="gold", webhooks=receiver) as session:
            await asyncio.gather(*(session.submit({"prompt": "x"}) for _ in range(5)))
            assert loop.time() - began < 65
            assert emulator.ledger.requests["secret"] == 1
            emulator.faults.clear()
            await asyncio.sleep(60)
            await session.submit({"prompt": "x"})
    assert [submit.webhook is None for submit in emulator.ledger.accepted] == [True] * 5 + [False]
