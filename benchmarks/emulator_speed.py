"""How cheap the emulator is, rendering off: its processor time a request, beside a yardstick's.

The emulator is a process of its own (`--blank`), bound to one core; the load comes from this one, over raw sockets with
prepared bytes, so that it costs next to nothing. A machine's speed varies, within a minute too. So the yardstick, an
aiohttp server that answers a constant, takes the same load in turn with the emulator, and what counts is how many times
its processor time the emulator takes. Kinds of requests:

    bare      nothing at all, by aiohttp: the yardstick
    submit    POST of a text-to-image job
    result    GET of a finished prediction
    list      POST of the list, one page of 100 predictions
    few       POST of the list, of those that are processing: none
    balance   GET, the least there is
    mixed     what a sweeping client sends: 10 submits to 1 list to 2 results

    python benchmarks/emulator_speed.py --rounds 10 --seconds 0.5 --connections 32
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
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from wavespeed_qwen_async.emulator import run

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """Processor time of a process: what it would need alone on a machine that others use as well."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(port: int, pid: int, requests: list[bytes], connections: int, seconds: float) -> tuple[float, float]:
    """Requests a second, and the server's own microseconds a request."""
    loop = asyncio.get_running_loop()
    callers = [Caller(requests[n % len(requests) :] + requests[: n % len(requests)]) for n in range(connections)]
    for caller in callers:
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port)
    await asyncio.sleep(0.1)
    before, began, used = sum(caller.answered for caller in callers), time.perf_counter(), cpu_seconds(pid)
    await asyncio.sleep(seconds)
    done, took = sum(caller.answered for caller in callers) - before, time.perf_counter() - began
    used = cpu_seconds(pid) - used
    for caller in callers:
        caller.running = False
        caller.transport.close()
    if refused := sum(caller.refused for caller in callers):
        raise SystemExit(f"{refused} answers were no 200")
    return done / took, used / done * 1e6


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
        "few": [few],
        "balance": [request("GET", "/api/v3/balance")],
        "mixed": [submit] * 5 + [result] + [submit] * 5 + [result, few],
    }


@contextmanager
def served(kind: str, core: int | None) -> Iterator[tuple[str, int]]:
    """A server in a process of its own: its URL and process id."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=serve, args=(sending, kind, core), daemon=True)
    process.start()
    try:
        yield receiving.recv(), process.pid
    finally:
        process.terminate()
        process.join()


def measure(options: argparse.Namespace, core: int | None) -> dict[str, list[tuple[float, float]]]:
    """(requests a second, microseconds a request) of each round, by kind; the kinds take turns in each round."""
    rounds = defaultdict(list)
    with served("bare", core) as yardstick:
        for _ in range(options.rounds):
            # A fresh emulator each round: its records grow, and a busy one is asked for pages of many thousands.
            with served("emulator", core) as emulator:
                requests = kinds(submitted(emulator[0], 100))
                for kind in ["bare", *(options.kind or [name for name in requests if name != "bare"])]:
                    url, pid = yardstick if kind == "bare" else emulator
                    port = int(url.rpartition(":")[2])
                    run = load(port, pid, requests[kind], options.connections, options.seconds)
                    rounds[kind].append(asyncio.run(run))
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--kind", action="append", choices=[name for name in kinds("") if name != "bare"])
    options = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[:-1]))
    rounds = measure(options, cores[-1] if len(cores) > 1 else None)
    print(f"{'':8} {'us of processor a request':>36}   {'times bare':>10}   {'requests/s':>19}")
    print(f"{'':8} {'median':>12} {'least':>11} {'most':>11}   {'median':>10}   {'median':>9} {'most':>9}")
    for kind, figures in rounds.items():
        rates, costs = zip(*figures, strict=True)
        times = statistics.median(own / bare for (_, own), (_, bare) in zip(figures, rounds["bare"], strict=True))
        print(
            f"{kind:8} {statistics.median(costs):12.0f} {min(costs):11.0f} {max(costs):11.0f}   {times:10.2f}   "
            f"{statistics.median(rates):9.0f} {max(rates):9.0f}"
        )


if __name__ == "__main__":
    main()
