"""The one server of a run, in a process of its own: the emulator, and beside it the rivals' own protocols.

The shapes of replicate and fal live here and not in the emulator. All draw their inference times from the same range.
Prints its addresses as one line of JSON; `GET <other>/report` tells how many requests came and when each task ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import uuid
from collections import Counter

from aiohttp import web

from wavespeed_qwen_async.emulator import Emulator


class Others:
    """Tasks in the shapes of replicate and fal: as little work a request as their protocols allow."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._rng = random.Random(0)
        self._ends: dict[str, float] = {}
        self.requests: Counter[str] = Counter()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/models/{owner}/{name}/predictions", self.replicate_submit),
                web.get("/v1/predictions/{id}", self.replicate_result),
                web.post("/fal/{owner}/{name}", self.fal_submit),
                web.get("/fal/requests/{id}/status", self.fal_status),
                web.get("/fal/requests/{id}", self.fal_result),
                web.get("/report", self.report),
            ]
        )
        return app

    def _accept(self) -> str:
        task_id = uuid.UUID(int=self._rng.getrandbits(128)).hex
        self._ends[task_id] = time.monotonic() + self._rng.uniform(*self._emulator.inference)
        self.requests["submit"] += 1
        return task_id

    def _done(self, request: web.Request) -> bool:
        self.requests["result"] += 1
        return self._ends[request.match_info["id"]] <= time.monotonic()

    async def replicate_submit(self, request: web.Request) -> web.Response:
        await request.read()
        return self._replicate(self._accept(), done=False)

    async def replicate_result(self, request: web.Request) -> web.Response:
        return self._replicate(request.match_info["id"], done=self._done(request))

    def _replicate(self, task_id: str, *, done: bool) -> web.Response:
        body = {
            "id": task_id,
            "model": "qwen/qwen-image",
            "version": "hidden",
            "input": {"prompt": "p"},
            "status": "succeeded" if done else "processing",
            "output": ["https://example.org/1.jpeg"] if done else None,
            "logs": "",
            "error": None,
            "created_at": "2026-01-01T00:00:00.000Z",
            "urls": {"get": f"https://api.replicate.com/v1/predictions/{task_id}", "cancel": "https://example.org/c"},
        }
        return web.json_response(body)

    async def fal_submit(self, request: web.Request) -> web.Response:
        await request.read()
        task_id = self._accept()
        url = f"http://{request.host}/fal/requests/{task_id}"
        body = {
            "request_id": task_id,
            "response_url": url,
            "status_url": f"{url}/status",
            "cancel_url": f"{url}/cancel",
        }
        return web.json_response(body)

    async def fal_status(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "COMPLETED" if self._done(request) else "IN_PROGRESS", "logs": None})

    async def fal_result(self, _: web.Request) -> web.Response:
        self.requests["result"] += 1
        return web.json_response({"images": [{"url": "https://example.org/1.jpeg"}], "seed": 1})

    async def report(self, _: web.Request) -> web.Response:
        ledger = self._emulator.ledger
        ends = {row.id: row.end for row in ledger._predictions}  # noqa: SLF001 - exact ends
        asked = sum(ledger.requests.get(kind, 0) for kind in ("submit", "result", "list"))
        return web.json_response({"requests": asked + sum(self.requests.values()), "ends": ends | self._ends})


async def serve(inference: tuple[float, float]) -> None:
    async with Emulator(tier=None, blank=True, balance=1e9, inference=inference) as emulator:
        runner = web.AppRunner(Others(emulator).app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
        other = f"http://127.0.0.1:{runner.addresses[0][1]}"
        print(json.dumps({"url": emulator.url, "other": other}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shortest", type=float)
    parser.add_argument("longest", type=float)
    options = parser.parse_args()
    asyncio.run(serve((options.shortest, options.longest)))
