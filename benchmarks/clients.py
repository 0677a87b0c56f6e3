"""The same work through each client: each function returns when all was delivered, with the time of each by id.

Nothing is imported before it is needed, so that a process holds one client only.
"""

# ruff: noqa: PLC0415 - what one client needs must not be imported for another

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MODEL = "wavespeed-ai/qwen-image/text-to-image-lora"


class Work(NamedTuple):
    """What is to be done: ``per_second`` limits the submits (0: none does), all clients by the same even pace."""

    url: str
    other: str
    jobs: int
    in_flight: int
    per_second: float = 0.0
    poll: float = 2.0


class Pace:
    """One submit at a time, evenly spaced; what the rivals' users write, and lighter than any limiter."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._next = time.monotonic()

    async def turn(self) -> None:
        if self._gap:
            wait, self._next = self._next - time.monotonic(), self._next + self._gap
            if wait > 0:
                await asyncio.sleep(wait)


async def _all(work: Work, job: Callable[[int], Awaitable[str]]) -> dict[str, float]:
    ends: dict[str, float] = {}
    slots, pace = asyncio.Semaphore(work.in_flight), Pace(work.per_second)

    async def one(index: int) -> None:
        async with slots:
            await pace.turn()
            task = await job(index)
            ends[task] = time.monotonic()

    await asyncio.gather(*(one(index) for index in range(work.jobs)))
    return ends


async def ours(work: Work) -> dict[str, float]:
    from wavespeed_qwen_async import Limits, QwenImageSession, TextToImage

    ends = {}
    per_minute = round(60 * work.per_second) or 10_000_000
    limits = Limits(max_per_minute=per_minute, max_in_flight=work.in_flight, burst=not work.per_second)
    async with QwenImageSession(api_key="k", base_url=work.url, limits=limits) as session:
        async for outcome in session.stream(TextToImage(prompt=f"p{index}") for index in range(work.jobs)):
            ends[outcome.unwrap().id] = time.monotonic()
    return ends


async def script(work: Work, *, check: bool = True) -> dict[str, float]:
    """What one writes by hand with aiohttp: no validation, no limits of an account, no errors, no retries."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer k"}, connector=connector) as client:

        async def job(index: int) -> str:
            async with client.post(f"{work.url}/api/v3/{MODEL}", json={"prompt": f"p{index}", "seed": index}) as answer:
                data = (await answer.json())["data"]
            result = f"{work.url}/api/v3/predictions/{data['id']}/result"
            while check:
                await asyncio.sleep(work.poll)
                async with client.get(result) as answer:
                    data = (await answer.json())["data"]
                if data["status"] in {"completed", "failed"}:
                    break
            return str(data["id"])

        return await _all(work, job)


async def script_submit_only(work: Work) -> dict[str, float]:
    """The same that takes the submit's answer for the result, where the server answers `completed` at once."""
    return await script(work, check=False)


async def sdk(work: Work) -> dict[str, float]:
    """The official SDK with a thread a job; its `run` in its two halves, since it hides the id."""
    from concurrent.futures import ThreadPoolExecutor

    import wavespeed

    client = wavespeed.Client(api_key="k", base_url=work.url)
    ends = {}

    def job(index: int) -> None:
        prediction_id, _ = client._submit(MODEL, {"prompt": f"p{index}", "seed": index})  # noqa: SLF001
        client._wait(prediction_id, 600, 1.0)  # noqa: SLF001
        ends[prediction_id] = time.monotonic()

    with ThreadPoolExecutor(work.in_flight) as threads:
        list(threads.map(job, range(work.jobs)))
    return ends


async def replicate(work: Work) -> dict[str, float]:
    import httpx
    import replicate as package

    patience = httpx.Timeout(60.0)  # its own 5 s to connect are too few for 300 at once on a busy machine
    client = package.Client(api_token="k", base_url=work.other, timeout=patience)

    async def job(index: int) -> str:
        prediction = await client.models.predictions.async_create("qwen/qwen-image", {"prompt": f"p{index}"})
        await prediction.async_wait()
        return str(prediction.id)

    return await _all(work, job)


async def fal(work: Work) -> dict[str, float]:
    os.environ["FAL_KEY"] = "k"
    import fal_client
    import fal_client.client as inside

    inside.QUEUE_URL_FORMAT = f"{work.other}/fal/"  # it knows https hosts only
    client = fal_client.AsyncClient(key="k")

    async def job(index: int) -> str:
        handle = await client.submit("qwen/qwen-image", {"prompt": f"p{index}"})
        await handle.get()
        return str(handle.request_id)

    return await _all(work, job)


CLIENTS: dict[str, Any] = {
    "ours": ours,
    "script": script,
    "script, submit only": script_submit_only,
    "sdk": sdk,
    "replicate": replicate,
    "fal": fal,
}
NEEDS = {"sdk": "wavespeed", "replicate": "replicate", "fal": "fal_client"}
