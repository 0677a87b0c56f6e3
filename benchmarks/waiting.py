"""How results are awaited, measured on a real clock: this library beside what people write and what the vendor ships.

    python benchmarks/waiting.py                      # everything, one run each
    python benchmarks/waiting.py --runs 3 figures     # medians of three
    python benchmarks/waiting.py figures --only poller

The emulator runs in a process of its own, each client in a fresh one. Both read the same monotonic clock, so that the
delay from completion on the server to delivery is exact. CPU is the client's own process time.

Rivals: `poller`, a hand-written aiohttp script that asks for each image every 2 s, as the documentation suggests;
`sdk`, the official `wavespeed` package with a thread a job, where it can be imported.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import itertools
import json
import logging
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from wavespeed_qwen_async import Limits, QwenImageSession, TextToImage
from wavespeed_qwen_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

MODEL = "wavespeed-ai/qwen-image/text-to-image-lora"
JOBS, IN_FLIGHT = 1200, 300
WAITING, WATCHED_FOR = 3000, 20.0
MANY = 10_000


# The server, in a process of its own


async def serve(pipe: Connection, options: dict[str, Any]) -> None:
    async with Emulator(**{"tier": None, "blank": True} | options) as emulator:
        pipe.send(emulator.url)
        while True:
            await asyncio.to_thread(pipe.poll, None)
            if pipe.recv() == "stop":
                return
            ends = {row.id: row.end for row in emulator.ledger._predictions}  # noqa: SLF001 - exact ends
            pipe.send((dict(emulator.ledger.requests), ends))


def server_process(pipe: Connection, options: dict[str, Any]) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(pipe, options))


@contextlib.contextmanager
def emulator(**options: Any) -> Iterator[Connection]:
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=server_process, args=(there, options), daemon=True)
    process.start()
    try:
        yield here
    finally:
        here.send("stop")
        process.join(10)
        process.terminate()


# The clients: each returns when every prediction was delivered, by id


async def ours(url: str) -> dict[str, float]:
    ends = {}
    limits = Limits(max_per_minute=1_000_000, max_in_flight=IN_FLIGHT, burst=True)
    async with QwenImageSession(api_key="k", base_url=url, limits=limits) as session:
        async for outcome in session.stream(TextToImage(prompt=f"p{index}") for index in range(JOBS)):
            ends[outcome.unwrap().id] = time.monotonic()
    return ends


async def poller(url: str) -> dict[str, float]:
    ends = {}
    slots = asyncio.Semaphore(IN_FLIGHT)
    headers = {"Authorization": "Bearer k"}

    async def job(session: aiohttp.ClientSession, index: int) -> None:
        async with slots:
            async with session.post(f"{url}/api/v3/{MODEL}", json={"prompt": f"p{index}", "seed": index}) as response:
                prediction_id = (await response.json())["data"]["id"]
            while True:
                await asyncio.sleep(2.0)
                async with session.get(f"{url}/api/v3/predictions/{prediction_id}/result") as response:
                    data = (await response.json())["data"]
                if data["status"] in {"completed", "failed"}:
                    break
            ends[prediction_id] = time.monotonic()

    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(job(session, index) for index in range(JOBS)))
    return ends


async def sdk(url: str) -> dict[str, float]:
    import wavespeed  # noqa: PLC0415 - only where it is there

    ends = {}
    client = wavespeed.Client(api_key="k", base_url=url)

    def job(index: int) -> None:
        prediction_id, _ = client._submit(MODEL, {"prompt": f"p{index}", "seed": index})  # noqa: SLF001
        client._wait(prediction_id, 600, 1.0)  # noqa: SLF001 - the two halves of its `run`, which hides the id
        ends[prediction_id] = time.monotonic()

    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        list(threads.map(job, range(JOBS)))
    return ends


CLIENTS = {"ours": ours, "poller": poller, "sdk": sdk}


def client_process(name: str, url: str, pipe: Connection) -> None:
    logging.basicConfig(level=logging.ERROR)
    began = time.process_time()
    ends = asyncio.run(CLIENTS[name](url))
    pipe.send((ends, time.process_time() - began))


def figures(name: str) -> dict[str, float]:
    """Requests and CPU a job, and the delay to delivery, of one client."""
    spawn = multiprocessing.get_context("spawn")
    with emulator(inference=(6.0, 12.0)) as server:
        url = server.recv()
        here, there = spawn.Pipe()
        process = spawn.Process(target=client_process, args=(name, url, there))
        process.start()
        ends, cpu = here.recv()
        process.join()
        server.send("report")
        requests, done = server.recv()
    delays = sorted(at - done[prediction_id] for prediction_id, at in ends.items())
    asked = sum(requests.get(kind, 0) for kind in ("submit", "result", "list"))
    return {
        "jobs": len(ends),
        "requests/job": asked / JOBS,
        "CPU ms/job": 1000 * cpu / JOBS,
        "delay p50 s": delays[len(delays) // 2],
        "delay p99 s": delays[int(0.99 * len(delays))],
    }


# What waiting costs


def resident() -> int:
    """Bytes of memory of this process, as the kernel counts them."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def filled(url: str, count: int, measure: Any) -> Any:
    """Have ``count`` predictions in flight in a stream, then measure."""
    limits = Limits(max_per_minute=20_000, max_in_flight=count)  # four times the ultra tier's rate
    async with QwenImageSession(api_key="k", base_url=url, limits=limits) as session:
        await session.balance()
        before = resident()
        jobs = (TextToImage(prompt=f"prompt number {index}") for index in itertools.count())
        stream = session.stream(jobs, max_in_flight=count)
        first = asyncio.ensure_future(anext(stream))
        while len(session._engine.keeper) < count:  # noqa: SLF001, ASYNC110 - a benchmark may look inside
            await asyncio.sleep(0.2)
        await asyncio.sleep(1.0)
        result = await measure(before)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await stream.aclose()
    return result


async def memory_of(before: int) -> dict[str, float]:
    gc.collect()
    return {"KiB/job": (resident() - before) / MANY / 1024}


async def cpu_of(_: int) -> dict[str, float]:
    began, cpu = time.monotonic(), time.process_time()
    await asyncio.sleep(WATCHED_FOR)
    return {"% of a core": 100 * (time.process_time() - cpu) / (time.monotonic() - began)}


def waiting_process(url: str, count: int, what: str, pipe: Connection) -> None:
    logging.basicConfig(level=logging.ERROR)
    gc.collect()
    pipe.send(asyncio.run(filled(url, count, {"memory": memory_of, "cpu": cpu_of}[what])))


def waiting(what: str) -> dict[str, float]:
    """Memory of 10,000 in flight, or CPU while waiting on 3,000."""
    count = MANY if what == "memory" else WAITING
    spawn = multiprocessing.get_context("spawn")
    with emulator(inference=(900.0, 900.0)) as server:
        url = server.recv()
        here, there = spawn.Pipe()
        process = spawn.Process(target=waiting_process, args=(url, count, what, there))
        process.start()
        result: dict[str, float] = here.recv()
        process.join()
    return result


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["figures", "memory", "cpu"])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--only", choices=CLIENTS, nargs="*")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table: dict[str, dict[str, float]] = {}
    for what in options.what:
        if what != "figures":
            table[what] = medians([waiting(what) for _ in range(options.runs)])
            continue
        for name in options.only or CLIENTS:
            if name == "sdk" and importlib.util.find_spec("wavespeed") is None:
                print("sdk: the package `wavespeed` is not installed", file=sys.stderr)
                continue
            table[name] = medians([figures(name) for _ in range(options.runs)])
    if options.json:
        print(json.dumps(table, indent=2))
        return
    for name, row in table.items():
        print(f"{name:8}", "  ".join(f"{key} {value:g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
