"""Client and server in one loop, over real sockets: the same microseconds each time."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiolimiter import AsyncLimiter

from wavespeed_qwen_async.testing.clock import VirtualClockLoop


async def slow_answer(request: web.Request) -> web.Response:
    body = await request.read()
    await asyncio.sleep(20)
    return web.Response(body=body * 40)


async def serve() -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_post("/", slow_answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    return runner, f"http://{host}:{port}/"


async def run_jobs(number: int) -> list[tuple[int, float]]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    limiter = AsyncLimiter(50, 6)
    ends: list[tuple[int, float]] = []
    runner, url = await serve()

    async def job(index: int, session: aiohttp.ClientSession) -> None:
        await limiter.acquire()
        async with session.post(url, data=b"x" * 5000) as response:
            assert len(await response.read()) == 200_000
        ends.append((index, loop.elapsed))

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(job(index, session) for index in range(number)))
    await runner.cleanup()
    return ends


def timed_run(number: int) -> list[tuple[int, Any]]:
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(run_jobs(number))


def test_jobs_behind_a_limiter_end_at_the_same_microseconds_each_time():
    first, second = timed_run(200), timed_run(200)
    assert first == second
    assert first[0] == (0, 20.0)
    assert first[-1][1] == pytest.approx(150 * 6 / 50 + 20, abs=0.001)


@pytest.mark.anyio
async def test_a_timeout_beats_an_answer_that_is_a_second_too_late():
    runner, url = await serve()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3.5)) as session:
        with pytest.raises(TimeoutError):
            await session.post(url, data=b"x")
    assert asyncio.get_running_loop().time() == 1003.5
    await runner.cleanup()
