"""The limiter, each case a thousand times within one run of an event loop; `limits_micro.py` has the waiting lines."""

from __future__ import annotations

import asyncio

from aiolimiter import AsyncLimiter

from wavespeed_qwen_async import Limits

TIMES = 1000


def repeated(once, make):
    async def thousand() -> None:
        shared = make()
        for _ in range(TIMES):
            await once(shared)

    return lambda: asyncio.run(thousand())


def limits() -> Limits:
    return Limits(max_per_minute=1_000_000_000, max_in_flight=10_000_000, window=0.001)


async def slot(shared: Limits) -> None:
    (await shared.acquire()).release()


async def send(shared: Limits) -> None:
    shared.report(await shared.start())


def test_a_thousand_slots(benchmark):
    benchmark(repeated(slot, limits))


def test_a_thousand_sends(benchmark):
    benchmark(repeated(send, limits))


def test_a_thousand_reads(benchmark):
    benchmark(repeated(lambda shared: shared.read(), limits))


def test_a_thousand_of_aiolimiter_for_comparison(benchmark):
    benchmark(repeated(lambda shared: shared.acquire(), lambda: AsyncLimiter(1_000_000, 0.001)))
