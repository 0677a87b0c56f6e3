"""How many requests a second one emulator answers on one core, rendering off: `python benchmarks/emulator_speed.py`.

The emulator is a process of its own (`--blank`), bound to one core; the load comes from this one, over raw sockets with
prepared bytes, so that it costs next to nothing. Median, least and most of several runs, each of one kind of request:

    submit    POST of a text-to-image job
    result    GET of a finished prediction
    list      POST of the list, one page of 100 predictions
    balance   GET, the least there is
    bare      nothing at all, by aiohttp: the yardstick for a machine
    mixed     what a sweeping client sends: 10 submits to 1 list to 2 results

    python benchmarks/emulator_speed.py --runs 5 --seconds 3 --connections 32
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import time
import urllib.request
from pathlib import Path

from aiohttp import web

from wavespeed_qwen_async.emulator import run

T2I = "/api/v3/wavespeed-ai/qwen-image/text-to-image-lora"
ANSWER = json.dumps({"code": 200, "data": {"id": "0" * 32, "outputs": ["x" * 300]}}).encode()
BODY = {"prompt": "a red fox, ink wash", "size": "1024*1024", "loras": [{"path": "o/n", "scale": 0.8}], "seed": 1}


def serve(sending, kind: str, core: int | None) -> None:
    """What `wavespeed-qwen emulator --blank` does; for "bare" an aiohttp server that does nothing."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    if kind == "bare":
        asyncio.run(bare(sending))
    else:
        options = {"blank": True, "tier": None, "balance": 1e9, "inference": (0.0, 0.0)}
        run(port=0, on_start=lambda emulator: sending.send(emulator.url), **options)


async def bare(sending) -> None:
    async def handle(_request: web.BaseRequest) -> web.Response:
        return web.Response(body=ANSWER, content_type="application/json")

    server = await asyncio.get_running_loop().create_server(web.Server(handle, access_log=None), "127.0.0.1", 0)
    sending.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await asyncio.Event().wait()


def request(method: str, path: str, body: object = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


class Caller(asyncio.Protocol):
    """Sends the next request as soon as the last one is answered."""

    def __init__(self, requests: list[bytes]) -> None:
        self.requests = requests
        self.answered = 0
        self.refused = 0
        self.rest = 0
        self.running = True

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.transport.write(self.requests[0])

    def data_received(self, data: bytes) -> None:
        if self.rest:  # of an answer that did not fit into one read
            self.rest -= len(data)
        else:
            head = data.index(b"\r\n\r\n") + 4
            place = data.index(b"Content-Length: ") + 16
            self.rest = int(data[place : data.index(b"\r", place)]) - (len(data) - head)
            self.refused += data[9:12] != b"200"
        if self.rest == 0:
            self.answered += 1
            if self.running:
                self.transport.write(self.requests[self.answered % len(self.requests)])


def cpu_seconds(pid: int) -> float:
    """Processor time of a process; what it could do alone on a machine that others use as well."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(port: int, pid: int, requests: list[bytes], connections: int, seconds: float) -> tuple[float, float]:
    """Requests a second by the clock, and by the emulator's own processor time."""
    loop = asyncio.get_running_loop()
    callers = [Caller(requests[n % len(requests) :] + requests[: n % len(requests)]) for n in range(connections)]
    for caller in callers:
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port)
    await asyncio.sleep(0.3)
    before, began, used = sum(caller.answered for caller in callers), time.perf_counter(), cpu_seconds(pid)
    await asyncio.sleep(seconds)
    done, took = sum(caller.answered for caller in callers) - before, time.perf_counter() - began
    used = cpu_seconds(pid) - used
    for caller in callers:
        caller.running = False
        caller.transport.close()
    if refused := sum(caller.refused for caller in callers):
        raise SystemExit(f"{refused} answers were no 200")
    return done / took, done / used


def submitted(url: str, count: int) -> str:
    for _ in range(count):
        data = json.dumps(BODY).encode()
        headers = {"Authorization": "Bearer k", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url + T2I, data, headers)) as answer:
            prediction = json.load(answer)["data"]["id"]
    return prediction


def kinds(prediction: str) -> dict[str, list[bytes]]:
    submit = request("POST", T2I, BODY)
    result = request("GET", f"/api/v3/predictions/{prediction}/result")
    page = request("POST", "/api/v3/predictions", {"page": 1, "page_size": 100})
    few = request("POST", "/api/v3/predictions", {"page": 1, "page_size": 100, "status": "processing"})
    return {
        "bare": [submit],
        "submit": [submit],
        "result": [result],
        "list": [page],
        "balance": [request("GET", "/api/v3/balance")],
        "mixed": [submit] * 5 + [result] + [submit] * 5 + [result, few],
    }


def measure(kind: str, options: argparse.Namespace, cores: list[int]) -> tuple[float, float]:
    """One run on a fresh emulator."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(
        target=serve, args=(sending, kind, cores[-1] if len(cores) > 1 else None), daemon=True
    )
    process.start()
    try:
        url = receiving.recv()
        requests = kinds(submitted(url, 100))[kind]
        return asyncio.run(
            load(int(url.rpartition(":")[2]), process.pid, requests, options.connections, options.seconds)
        )
    finally:
        process.terminate()
        process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--kind", action="append", choices=list(kinds("")))
    options = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[:-1]))
    print(f"{'requests/s':10} {'median':>8} {'least':>8} {'most':>8}   {'median of each processor second':>12}")
    for kind in options.kind or kinds(""):
        rates, own = zip(*(measure(kind, options, cores) for _ in range(options.runs)), strict=True)
        figures = (statistics.median(rates), min(rates), max(rates))
        print(f"{kind:10} {' '.join(f'{each:8.0f}' for each in figures)}   {statistics.median(own):12.0f}", flush=True)


if __name__ == "__main__":
    main()
