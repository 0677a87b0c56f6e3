"""What the limits cost: `python benchmarks/limits_micro.py`. Real clock, one loop, best of several rounds."""

from __future__ import annotations

import asyncio
import time
from itertools import count

from wavespeed_qwen_async.limits import Limits

ROUNDS = 15
PLENTY = 1_000_000_000


def limits(**options: object) -> Limits:
    return Limits(**{"max_per_minute": PLENTY, "max_in_flight": 10_000_000, "window": 0.001, **options})


async def best_of(once, times: int) -> float:
    """Microseconds for each of `times`, in the best round."""
    results = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await once(times)
        results.append((time.perf_counter() - started) / times * 1e6)
    return min(results)


async def slot_free(times: int) -> None:
    shared = limits()
    for _ in range(times):
        (await shared.acquire()).release()


async def semaphore_free(times: int) -> None:
    shared = asyncio.Semaphore(10)
    for _ in range(times):
        await shared.acquire()
        shared.release()


async def send_free(times: int) -> None:
    shared = limits()
    for _ in range(times):
        shared.report(await shared.start())


async def slot_waiters(times: int) -> None:
    """`times` tasks in line for one slot, each served once."""
    shared = limits(max_in_flight=1)

    async def worker() -> None:
        (await shared.acquire()).release()

    async with asyncio.TaskGroup() as group:
        for _ in range(times):
            group.create_task(worker())


async def send_waiters(times: int) -> None:
    """`times` tasks in line for permission, of which the window opens for all at once, again and again."""
    shared = Limits(max_per_minute=1, max_in_flight=1, learn=False)
    shared.report(await shared.start())

    async def worker() -> None:
        shared.report(await shared.start())

    async with asyncio.TaskGroup() as group:
        for _ in range(times):
            group.create_task(worker())
        await asyncio.sleep(0)
        shared.max_per_minute = PLENTY


async def bare_tasks(times: int) -> None:
    """What the tasks of the two above cost by themselves: each sleeps once."""

    async def worker() -> None:
        await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(times):
            group.create_task(worker())


async def main() -> None:
    print(f"best of {ROUNDS} rounds, microseconds each\n")
    cases = [
        ("slot free: acquire + release", slot_free, 2_000),
        ("  asyncio.Semaphore, for comparison", semaphore_free, 2_000),
        ("send free: start + report", send_free, 2_000),
        ("100 tasks in line for a slot", slot_waiters, 100),
        ("10,000 tasks in line for a slot", slot_waiters, 10_000),
        ("100 tasks in line to send", send_waiters, 100),
        ("10,000 tasks in line to send", send_waiters, 10_000),
        ("  10,000 tasks that sleep once", bare_tasks, 10_000),
    ]
    for number, (name, once, times) in zip(count(1), cases, strict=False):
        print(f"{number}. {name:<40} {await best_of(once, times):8.2f}")


if __name__ == "__main__":
    asyncio.run(main())
