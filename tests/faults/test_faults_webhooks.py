"""Deliveries that go wrong: each result comes once, whatever becomes of its webhook."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from wavespeed_qwen_async import MediaUnreachable
from wavespeed_qwen_async.emulator.webhooks import FORGED
from wavespeed_qwen_async.webhooks import WebhookReceiver

pytestmark = pytest.mark.anyio
fault = pytest.mark.fault
RESULT = "the result"


@asynccontextmanager
async def mounted(secret):
    """A receiver in an application of the user's, on virtual time; and how it answered."""
    wall, loop = time.time() - asyncio.get_running_loop().time(), asyncio.get_running_loop()
    app, statuses = web.Application(), Counter()
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def hook(request):
        answer = await receiver.aiohttp_handler(request)
        statuses[answer.status] += 1
        return answer

    app.router.add_post("/hook", hook)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    receiver = WebhookReceiver(f"http://{host}:{port}/hook", secrets=[secret], clock=lambda: wall + loop.time())
    try:
        yield receiver, statuses
    finally:
        await runner.cleanup()


@pytest.mark.wavespeed_emulator(inference=(10.0, 10.0))
@pytest.mark.parametrize(
    ("what", "options", "statuses", "soon"),
    [
        pytest.param(*each, marks=fault("webhook", each[0], RESULT))
        for each in [
            ("lose", {}, {}, False),
            ("duplicate", {"copies": 2}, {200: 30}, True),
            ("duplicate", {"copies": 1, "seconds": 5}, {200: 20}, True),
            ("early", {"seconds": 5}, {200: 10}, True),
            ("early", {"seconds": 20}, {200: 10}, True),
            ("late", {"seconds": 3}, {200: 10}, True),
            ("late", {"seconds": 60}, {200: 10}, False),
            ("forge", {}, {200: 10, 401: 10}, True),
        ]
    ],
)
async def test_deliveries_that_go_wrong(  # noqa: PLR0917 - pytest gives them by name
    opened, emulator, what, options, statuses, soon
):
    emulator.faults.add("webhook", what, **options)
    loop = asyncio.get_running_loop()
    async with mounted(emulator.webhook_secret) as (receiver, answered):
        async with opened(wait="webhook", webhooks=receiver) as session:
            began = loop.time()
            images = await asyncio.gather(*(session.generate("a fox") for _ in range(10)))
            took = loop.time() - began
            await asyncio.sleep(100)
    assert {image.id for image in images} == {row.id for row in emulator.ledger.accepted}
    assert not any(FORGED in image.raw_outputs for image in images)
    assert len(emulator.ledger.submit_times) == 10
    assert answered == statuses
    assert took < (13.1 if what == "late" else 10.1) if soon else 12 < took < 30  # the net below lost ones
    assert (emulator.ledger.requests["list"] + emulator.ledger.requests["result"] == 0) is soon


@fault("submit", "drop_after", RESULT)
@fault("webhook", "duplicate", RESULT)
async def test_a_lost_submit_whose_webhook_comes_is_paid_once(opened, emulator):
    emulator.faults.add("submit", "drop_after")
    emulator.faults.add("webhook", "duplicate")
    async with mounted(emulator.webhook_secret) as (receiver, _):
        async with opened(wait="webhook", webhooks=receiver) as session:
            assert (await session.generate("a fox")).id == emulator.ledger.accepted[0].id
    assert len(emulator.ledger.submit_times) == 1


@fault("submit", "fail", "MediaUnreachable")
async def test_a_failure_is_pushed_too(opened, emulator):
    emulator.faults.add("submit", "fail", code=1402)
    async with mounted(emulator.webhook_secret) as (receiver, answered):
        async with opened(wait="webhook", webhooks=receiver) as session:
            with pytest.raises(MediaUnreachable) as caught:
                await session.generate("a fox")
    assert caught.value.billed == "yes"
    assert answered == {200: 1}
    assert emulator.ledger.requests["result"] == 0
