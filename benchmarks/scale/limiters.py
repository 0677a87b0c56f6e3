# ruff: noqa: PLC0415 - each library is there only for its own name
"""Do public limiters on Redis keep a moving window? `python benchmarks/scale/limiters.py REDIS_URL NAME...`

Four clients share 50 sends in any 2 s for 12 s and always have more to send; each send takes 0 to 0.5 s to arrive.
Printed: the most that left, and the most that arrived, in any window. With `--lose` Redis loses its data after 6 s.
Never against a Redis that others use. Needs limits, pyrate-limiter or throttled-py, each for its own name.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

LIMIT, WINDOW, SECONDS, SLOWEST = 50, 2.0, 12.0, 0.5


@asynccontextmanager
async def limits_moving(url):
    from limits import RateLimitItemPerSecond
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import MovingWindowRateLimiter

    limiter = MovingWindowRateLimiter(RedisStorage(f"async+{url}", implementation="redispy"))
    yield lambda: limiter.hit(RateLimitItemPerSecond(LIMIT, int(WINDOW)), "account"), None


@asynccontextmanager
async def pyrate(url):
    from pyrate_limiter import Rate, RedisBucket

    client = Redis.from_url(url)
    bucket = await RedisBucket.init([Rate(LIMIT, int(WINDOW * 1000))], client, "account")
    from pyrate_limiter import RateItem

    yield lambda: bucket.put(RateItem("account", bucket.now())), None
    await client.aclose()


def throttled(kind):
    @asynccontextmanager
    async def opened(url):
        from throttled.asyncio import RedisStore, Throttled, rate_limiter

        quota = rate_limiter.per_duration(timedelta(seconds=WINDOW), LIMIT)
        throttle = Throttled(key="account", using=kind, quota=quota, store=RedisStore(server=url))

        async def hit():
            return not (await throttle.limit()).limited

        yield hit, None

    return opened


@asynccontextmanager
async def ours(url):
    from wavespeed_qwen_async.integrations.redis import RedisLimits

    async with RedisLimits(
        url, max_per_minute=LIMIT, max_in_flight=10_000, window=WINDOW, burst=True, trust_empty=True
    ) as limits:
        yield limits.start, limits.report


KINDS = {
    "limits-moving": limits_moving,
    "pyrate": pyrate,
    "throttled-sliding": throttled("sliding_window"),
    "throttled-bucket": throttled("token_bucket"),
    "throttled-gcra": throttled("gcra"),
    "ours": ours,
}


def fullest(times):
    times.sort()
    most = first = 0
    for last, moment in enumerate(times):
        while times[first] < moment - WINDOW:
            first += 1
        most = max(most, last - first + 1)
    return most


async def client(opened, url, ends, left, arrived):
    async with opened(url) as (allow, report), asyncio.TaskGroup() as group:

        async def send(permit):
            delay = random.uniform(0, SLOWEST)
            await asyncio.sleep(delay)
            arrived.append(time.monotonic())
            await asyncio.sleep(SLOWEST - delay)
            if report is not None:
                report(permit)

        while (now := time.monotonic()) < ends:
            try:
                async with asyncio.timeout(ends - now):
                    permit = await allow()
            except TimeoutError:
                break
            if permit:
                left.append(time.monotonic())
                group.create_task(send(permit))
            else:
                await asyncio.sleep(0.01)


async def measure(name, url, lose):
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        left, arrived, ends = [], [], time.monotonic() + SECONDS
        clients = [asyncio.create_task(client(KINDS[name], url, ends, left, arrived)) for _ in range(4)]
        if lose:
            await asyncio.sleep(SECONDS / 2 + 0.3)
            await redis.flushall()
            await redis.script_flush()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        stopped = {type(each).__name__ for each in ended if each is not None}
    used = len(left) / (LIMIT * SECONDS / WINDOW)
    note = f", clients ended with {stopped}" if stopped else ""
    print(f"{name:18} left {fullest(left):3}, arrived {fullest(arrived):3} of {LIMIT}; {used:.0%} used{note}")


if __name__ == "__main__":
    for each in sys.argv[2:]:
        if each != "--lose":
            asyncio.run(measure(each, sys.argv[1], "--lose" in sys.argv))
