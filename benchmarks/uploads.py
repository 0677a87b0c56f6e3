"""What source images cost: files uploaded once each, and edits that share a few; beside a script and the vendor's SDK.

    python benchmarks/uploads.py [--files 200] [--kilobytes 500] [--edits 1000] [--rounds 3]

The server is the emulator in a process of its own, and each client's a fresh process. `files`: as many different
images, 16 at a time. `edits`: jobs on ten images, the server answering at once; the script and the SDK upload for each
job, as one does who keeps no books. CPU is the client's; KiB are what crossed the loopback, both ways.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from media import png
from rounds import available, crossed_loopback, environment, server

from wavespeed_qwen_async import Edit, Limits, QwenImageSession

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = 16
SHARED = 10
EDIT = "wavespeed-ai/qwen-image/edit-lora"


def limits() -> Limits:
    return Limits(max_per_minute=10_000_000, max_in_flight=100, burst=True, uploads=AT_ONCE)


def ours(url: str, sources: list[Path], edits: int) -> None:
    async def files() -> None:
        async with QwenImageSession(api_key="k", base_url=url, limits=limits()) as session:
            await asyncio.gather(*(session.upload(source) for source in sources))

    async def jobs() -> None:
        async with QwenImageSession(api_key="k", base_url=url, limits=limits()) as session:
            made = (Edit(prompt=f"p{index}", image=sources[index % len(sources)]) for index in range(edits))
            async with aclosing(session.stream(made)) as outcomes:
                async for outcome in outcomes:
                    outcome.unwrap()

    asyncio.run(jobs() if edits else files())


def script(url: str, sources: list[Path], edits: int) -> None:
    """By hand with aiohttp: a ticket, the file read and PUT; for an edit, then the job, whose answer is its result."""

    async def main() -> None:
        places = asyncio.Semaphore(AT_ONCE)
        key = {"Authorization": "Bearer k"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as web:

            async def upload(source: Path) -> str:
                content = await asyncio.to_thread(source.read_bytes)
                ticket = {"filename": source.name, "content_type": "image/png", "size": len(content)}
                async with web.post(f"{url}/api/v3/media/uploads", json=ticket, headers=key) as answer:
                    data = (await answer.json())["data"]
                to = data["upload"]
                async with web.request(to["method"], to["url"], data=content, headers=to["headers"]) as put:
                    put.raise_for_status()
                return data["download_url"]

            async def one(index: int) -> None:
                async with places:
                    image = await upload(sources[index % len(sources)])
                    if edits:
                        body = {"prompt": f"p{index}", "image": image, "seed": index}
                        async with web.post(f"{url}/api/v3/{EDIT}", json=body, headers=key) as answer:
                            assert (await answer.json())["data"]["outputs"]

            await asyncio.gather(*(one(index) for index in range(edits or len(sources))))

    asyncio.run(main())


def sdk(url: str, sources: list[Path], edits: int) -> None:
    import wavespeed  # noqa: PLC0415 - it may be missing

    client = wavespeed.Client(api_key="k", base_url=url)

    def one(index: int) -> None:
        image = client.upload(str(sources[index % len(sources)]))
        if edits:
            client._submit(EDIT, {"prompt": f"p{index}", "image": image, "seed": index})  # noqa: SLF001

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(one, range(edits or len(sources))))


CLIENTS: dict[str, Callable[[str, list[Path], int], None]] = {"ours": ours, "script": script, "sdk": sdk}


def once(client: str, sources: list[Path], edits: int) -> tuple[float, float, float]:
    """Seconds, CPU ms and KiB on the loopback, the last two for each file or job."""
    with server((0.0, 0.0)) as place:
        order = [sys.executable, __file__, "--child", client, place["url"], str(edits), *map(str, sources)]
        crossed = crossed_loopback()
        told = json.loads(subprocess.run(order, check=True, capture_output=True, text=True, env=environment()).stdout)
        count = edits or len(sources)
        return told["seconds"], 1000 * told["cpu"] / count, (crossed_loopback() - crossed) / 1024 / count


def compared(what: str, sources: list[Path], edits: int, rounds: int) -> None:
    clients = [client for client in CLIENTS if available(client)]
    found: dict[str, list[tuple[float, float, float]]] = {client: [] for client in clients}
    for _ in range(rounds):
        for client in clients:
            found[client].append(once(client, sources, edits))
    for client, runs in found.items():
        seconds, cpu, kib = (statistics.median(run) for run in zip(*runs, strict=True))
        rate = (edits or len(sources)) / seconds
        print(f"{what:>6}, {client:>6}: {rate:7.1f} a second, {cpu:6.2f} ms CPU and {kib:7.1f} KiB each", flush=True)


def child(client: str, url: str, edits: str, *sources: str) -> None:
    began, before = time.perf_counter(), os.times()
    CLIENTS[client](url, [Path(source) for source in sources], int(edits))
    after = os.times()
    cpu = after.user + after.system - before.user - before.system
    print(json.dumps({"seconds": time.perf_counter() - began, "cpu": cpu}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--kilobytes", type=int, default=500)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for number in range(options.files):
            source = Path(folder, f"{number}.png")
            tail = random.Random(number).randbytes(16)
            source.write_bytes(png(1000 * options.kilobytes, extra=tail))
            sources.append(source)
        compared("files", sources, 0, options.rounds)
        compared("edits", sources[:SHARED], options.edits, options.rounds)
    return None


if __name__ == "__main__":
    main()
