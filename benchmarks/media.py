"""How fast verified, atomic, fsynced downloads are, against a bare aiohttp loop that does none of it; and their memory.

    python benchmarks/media.py [--files 200] [--megabytes 2] [--runs 5] [--folder /tmp]

The host is a process of its own. Both ways take turns, run by run; what is told is the median.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import aiohttp
from aiohttp import web

from wavespeed_qwen_async._api import Api
from wavespeed_qwen_async._retry import Retry
from wavespeed_qwen_async._tasks import Tasks
from wavespeed_qwen_async._transport import Transport
from wavespeed_qwen_async.limits import Limits
from wavespeed_qwen_async.media import Media
from wavespeed_qwen_async.predictions import Output

AT_ONCE = 32


def png(size: int, extra: bytes = b"") -> bytes:
    """A PNG of about `size` bytes, most of them in a chunk that readers ignore; `extra` makes it another."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    rest = chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"teSt", random.Random(1).randbytes(size) + extra) + rest


async def serve() -> None:
    kept: dict[int, bytes] = {}

    async def get(request: web.Request) -> web.Response:
        size = int(request.match_info["size"])
        if size not in kept:
            kept[size] = png(size)
        return web.Response(body=kept[size], headers={"ETag": '"1"', "Content-Type": "image/png"})

    app = web.Application()
    app.router.add_get("/{size}/{name}", get)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def bare(url: str, files: int, folder: Path) -> float:
    places = asyncio.Semaphore(AT_ONCE)

    async def fetch(client: aiohttp.ClientSession, number: int) -> None:
        async with places, client.get(f"{url}/{number}") as response:
            with (folder / f"{number}.png").open("wb") as file:
                async for piece in response.content.iter_any():
                    file.write(piece)

    async with aiohttp.ClientSession() as client:
        began = time.perf_counter()
        await asyncio.gather(*(fetch(client, number) for number in range(files)))
        return time.perf_counter() - began


@contextlib.asynccontextmanager
async def making():
    transport = Transport(api_key="wsk_benchmark", base_url="http://127.0.0.1:9")
    limits = Limits(max_per_minute=3000, max_in_flight=3000, downloads=AT_ONCE)
    tasks = Tasks()
    media = Media(Api(transport, limits, retry=Retry(), rng=random.Random(1)), tasks)
    await transport.open()
    try:
        yield media
    finally:
        await media.close()
        await tasks.close()
        await transport.close()


async def ours(url: str, files: int, folder: Path) -> float:
    async with making() as media:
        began = time.perf_counter()
        outputs = (Output(f"{url}/{number}") for number in range(files))
        await asyncio.gather(*(media.save(output, folder / f"{n}.png") for n, output in enumerate(outputs)))
        return time.perf_counter() - began


def peak_memory(url: str, files: int) -> float:
    """MiB that a process needs at its most, above what it has before its first download."""
    command = [sys.executable, __file__, "--child", url, "--files", str(files)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


async def child(url: str, files: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        await ours(url.rsplit("/", 1)[0] + "/1000000", 8, Path(name))
        before = peak(forget=True)
        await ours(url, files, Path(name))
        print((peak() - before) / 1024)


def peak(*, forget: bool = False) -> int:
    """KiB resident at most since that was last forgotten (Linux); a child process inherits its parent's."""
    if forget:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--megabytes", type=float, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return asyncio.run(serve())
    if options.child:
        return asyncio.run(child(options.child, options.files))
    host = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        compare(f"http://127.0.0.1:{int(host.stdout.readline())}", options)
    finally:
        host.terminate()


def compare(host: str, options: argparse.Namespace) -> None:
    size = int(options.megabytes * 1e6)
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    for run in range(options.runs + 1):
        for name, way in (("bare", bare), ("ours", ours)):
            folder = Path(tempfile.mkdtemp(dir=options.folder))
            took = asyncio.run(way(f"{host}/{size}", options.files, folder))
            assert all(path.stat().st_size > size for path in folder.iterdir())
            shutil.rmtree(folder)
            os.sync()  # what one way left to be written must not slow the other
            if run:  # the first is for warming up
                seconds[name].append(took)
    total = options.files * size / 1e6
    for name, took in seconds.items():
        middle = statistics.median(took)
        print(f"{name}: {total / middle:7.1f} MB/s, median of {[round(one, 2) for one in took]} s")
    ratios = [one / other for one, other in zip(seconds["bare"], seconds["ours"], strict=True)]
    print(f"ours is at {statistics.median(ratios):.0%} of bare, median of {[f'{ratio:.0%}' for ratio in ratios]}")
    for megabytes in (1, 4, 16, 60):
        print(f"memory, 8 files of {megabytes:2} MB at once: {peak_memory(f'{host}/{megabytes * 10**6}', 8):5.1f} MiB")


if __name__ == "__main__":
    main()
