"""`RedisLimits` as a session uses it, with a real Redis that goes away, hangs and says no."""

from __future__ import annotations

import asyncio
import signal

import pytest

from wavespeed_qwen_async import QwenImageSession, TextToImage
from wavespeed_qwen_async.emulator import Emulator
from wavespeed_qwen_async.errors import ConfigurationError, LimitsBrokenError, RateLimitError, SessionClosedError
from wavespeed_qwen_async.integrations._redis.exchange import connected
from wavespeed_qwen_async.integrations.redis import RedisLimits

pytestmark = pytest.mark.anyio


async def until(holds):
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what Redis tells
            await asyncio.sleep(0.01)


SMALL = {"max_per_minute": 60, "max_in_flight": 4, "trust_empty": True, "burst": True}


async def test_a_session_works_with_them_and_the_books_are_right(server):
    async with (
        Emulator(tier=None, blank=True, inference=(0.0, 0.0)) as api,
        RedisLimits(server.url, **SMALL) as limits,
        QwenImageSession(api_key="k", base_url=api.url, limits=limits) as session,
    ):
        assert session.limits is limits
        outcomes = [outcome async for outcome in session.stream(TextToImage(prompt=f"{n}") for n in range(8))]
        assert [outcome.ok for outcome in outcomes] == [True] * 8
        await until(lambda: limits.snapshot().used == 8)
        now = limits.snapshot()
        assert (now.sent, now.used, now.in_flight, now.waiting, now.allowance) == (8, 8, 0, 0, 60)
        assert "8 of 60" in repr(limits)


async def test_a_refusal_in_one_session_pauses_another(server):
    async with RedisLimits(server.url, **SMALL) as one, RedisLimits(server.url, **SMALL) as other:
        one.report(await one.start(), RateLimitError("429", retry_after=30.0))
        await until(lambda: one.snapshot().pauses)
        waiting = asyncio.create_task(other.start())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        now = other.snapshot()
        assert 25 < now.paused_for <= 30
        assert (now.pauses, now.pause_reason) == (1, "rate limit")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_stop_when_redis_is_gone(server):
    async with RedisLimits(server.url, **SMALL, grace=0.5) as limits:
        held = await limits.acquire()
        limits.report(await limits.start())
        server.kill()
        with pytest.raises(LimitsBrokenError, match="Redis") as caught:
            await limits.start()
        assert caught.value.billed == "no"
        with pytest.raises(LimitsBrokenError):
            await limits.start()
        with pytest.raises(LimitsBrokenError):
            await limits.acquire()
        held.release()


async def test_a_redis_that_hangs_lets_nothing_leave_and_then_goes_on(server):
    async with RedisLimits(server.url, **SMALL, grace=30.0) as limits:
        limits.report(await limits.start())
        await asyncio.sleep(0.3)
        server.signal(signal.SIGSTOP)
        waiting = asyncio.create_task(limits.start())
        await asyncio.sleep(3.0)  # beyond the patience with one question
        assert not waiting.done()
        server.signal(signal.SIGCONT)
        limits.report(await waiting)
        await until(lambda: limits.snapshot().used >= 2)
        await asyncio.sleep(0.3)
        assert limits.snapshot().used <= 3  # a permit whose answer was lost counts as sent


async def test_a_process_that_comes_back_without_redis_waits_for_it(server):
    server.kill()
    async with RedisLimits(server.url, **SMALL, grace=30.0) as limits:
        waiting = asyncio.create_task(limits.start())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await asyncio.to_thread(server.start)
        limits.report(await waiting)


async def test_closing_gives_back_what_is_held(server):
    async with RedisLimits(server.url, **SMALL) as one:
        for _ in range(4):
            await one.acquire()
    async with RedisLimits(server.url, **SMALL) as other:
        await asyncio.wait_for(other.acquire(), 5)


async def test_a_client_of_the_callers_is_not_closed(server):
    async with connected(server.url) as client:
        async with RedisLimits(client, **SMALL) as limits:
            limits.report(await limits.start())
        assert await client.ping()


async def test_accounts_are_apart(server):
    rules = SMALL | {"max_per_minute": 1}
    async with RedisLimits(server.url, account="one", **rules) as one, RedisLimits(server.url, **rules) as other:
        await one.start()
        await asyncio.wait_for(other.start(), 5)


async def test_a_wrong_password_is_said_at_once_and_never_shown(server):
    async with connected(server.url) as client:
        await client.config_set("requirepass", "right")
    limits = RedisLimits(server.url.replace("//", "//:s3cret@"), **SMALL)
    with pytest.raises(ConfigurationError, match="refuses") as caught:
        await limits.__aenter__()
    assert "s3cret" not in f"{caught.value}{limits!r}"


async def test_not_open_is_said():
    limits = RedisLimits("redis://localhost:1/0", **SMALL)
    for call in (limits.start, limits.acquire):
        with pytest.raises(SessionClosedError, match="async with"):
            await call()
    assert limits.snapshot().allowance == 60
    await limits.close()
    with pytest.raises(SessionClosedError, match="closed"):
        await limits.__aenter__()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"when_down": "share"}, "processes="),
        ({"when_down": "share", "processes": 5, "max_per_minute": 4}, "can't be divided"),
        ({"when_down": "go on"}, "choose"),
        ({"processes": 0}, "processes"),
        ({"lease": 0.5}, "lease"),
        ({"grace": 0}, "grace"),
        ({"account": "a{b}"}, "account"),
        ({"tier": "platinum"}, "tier"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"burst": 501}, "burst"),
        ({"redis": "http://localhost"}, "URL of a Redis"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        RedisLimits(**{"redis": "redis://localhost:1/0"} | options)


def test_a_tier_and_silver_without_one():
    assert RedisLimits("redis://localhost:1/0", tier="gold").max_in_flight == 3000
    assumed = RedisLimits("redis://localhost:1/0")
    assert (assumed.assumed, assumed.max_per_minute) == (True, 500)
