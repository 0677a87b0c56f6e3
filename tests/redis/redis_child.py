"""A process that shares an account's limits: `redis_child.py API REDIS JSON`; one line on stdout for each outcome.

Makes as many images as `jobs` says. Without an API it takes so many places, tells of each, and holds them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import aclosing

from wavespeed_qwen_async import QwenImageSession, TextToImage
from wavespeed_qwen_async.integrations.redis import RedisLimits


def tell(line: dict) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def hold(redis: str, places: int, limits: dict) -> None:
    async with RedisLimits(redis, **limits) as shared:
        for held in range(places):
            await shared.acquire()
            tell({"held": held})
        await asyncio.Event().wait()


async def main(api: str, redis: str, jobs: int, limits: dict) -> None:
    if not api:
        await hold(redis, jobs, limits)
    source = (TextToImage(prompt=f"{os.getpid()} {n}") for n in range(jobs))
    async with RedisLimits(redis, **limits) as shared, QwenImageSession(api_key="k", base_url=api, limits=shared) as s:
        tell({"open": True})
        await asyncio.to_thread(sys.stdin.readline)  # all begin together
        async with aclosing(s.stream(source)) as outcomes:
            async for outcome in outcomes:
                error = outcome.error
                tell({"ok": outcome.ok, "error": error and type(error).__name__})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3])))
