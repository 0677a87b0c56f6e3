"""Over real loopback HTTP, on virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, web
from strict_server import StrictServer, now

from wavespeed_qwen_async.errors import RateLimitError
from wavespeed_qwen_async.limits import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(server: StrictServer) -> AsyncIterator[str]:
    async def submit(_: web.Request) -> web.Response:
        refused = server.submit()
        await asyncio.sleep(0.2)
        if refused is None:
            return web.json_response({"code": 200})
        return web.json_response({"code": 429}, status=429, headers={"Retry-After": str(refused.retry_after)})

    app = web.Application()
    app.router.add_post("/", submit)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def submit_for(seconds: float, limits: Limits, url: str) -> None:
    ends = now() + seconds

    async def worker(session: ClientSession) -> None:
        while True:
            with await limits.acquire():
                send = await limits.start()
                async with session.post(url) as answer:
                    retry_after = answer.headers.get("Retry-After")
                refused = RateLimitError("429", retry_after=float(retry_after)) if retry_after else None
                limits.report(send, refused)

    async with ClientSession() as session, asyncio.TaskGroup() as group:
        workers = [group.create_task(worker(session)) for _ in range(50)]
        await asyncio.sleep(ends - now())
        for task in workers:
            task.cancel()


@pytest.mark.slow
async def test_two_minutes_at_silver():
    server = StrictServer(500)
    began = now()
    async with serving(server) as url:
        await submit_for(120, Limits.for_tier("silver"), url)
    assert server.refused() == 0
    assert server.fullest <= 500
    assert server.accepted(began, began + 120) >= 0.98 * 1000


async def test_a_third_of_silver():
    server = StrictServer(166)
    began = now()
    async with serving(server) as url:
        await submit_for(300, Limits.for_tier("silver"), url)
    assert server.refused(began + 120) <= 0.02 * 166 * 3
    assert server.accepted(began + 120, began + 300) >= 0.9 * 166 * 3
