"""examples/service.py, served by uvicorn on a real port: alone, and with 200 browsers, 50 of which leave."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
import uvicorn
from examples_loading import example

from wavespeed_qwen_async.emulator import Emulator
from wavespeed_qwen_async.testing import next_outcomes

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def served(monkeypatch, emulator, **environment):
    """The example on a port of its own, in this event loop: gives the module and its URL."""
    service = example("service")
    server = uvicorn.Server(uvicorn.Config(service.app, port=0, log_level="warning"))
    server.config.load()
    listening = server.config.bind_socket()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    monkeypatch.setenv("WAVESPEED_BASE_URL", emulator.url)
    monkeypatch.setenv("WAVESPEED_API_KEY", "k")
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(url=url))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it no other way
        await asyncio.sleep(0.05)
    try:
        yield service, url
    finally:
        server.should_exit = True
        await serving
        listening.close()


@asynccontextmanager
async def browser(url):
    """A visitor who has opened the page and so has its cookie; left, its connections are closed."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(url, cookie_jar=aiohttp.CookieJar(unsafe=True), connector=connector) as client:
        async with client.get("/") as page:
            assert page.status == 200
            assert "<form>" in await page.text()
        yield client


async def pictures_of(answer):
    """As they come."""
    assert answer.status == 200
    assert answer.content_type == "text/event-stream"
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


async def album(client):
    async with client.get("/pictures") as answer:
        return [picture async for picture in pictures_of(answer)]


async def made(client, prompt, count=1):
    async with client.post("/pictures", json={"prompt": prompt, "count": count}) as answer:
        return [picture async for picture in pictures_of(answer)]


async def test_pictures_are_told_as_they_finish_and_a_reload_shows_them(monkeypatch):
    async with (
        Emulator(blank=True) as emulator,
        served(monkeypatch, emulator, TIER="gold") as (_, url),
        browser(url) as client,
    ):
        pictures, times = {}, []
        async with client.post("/pictures", json={"prompt": "a fox", "count": 8}) as answer:
            async for picture in pictures_of(answer):
                pictures[picture["id"]] = picture
                times.append(asyncio.get_running_loop().time())
        assert times[-1] - times[0] > 1  # second: not all in one piece at the end
        assert set(pictures) == {accepted.id for accepted in emulator.ledger.accepted}
        assert all(picture["url"].startswith(emulator.media_url) for picture in pictures.values())
        assert {picture["id"]: picture for picture in await album(client)} == pictures
        async with browser(url) as stranger:
            assert await album(stranger) == []


async def test_what_fails_is_told_and_what_nobody_may_ask_for_is_refused(monkeypatch):
    async with (
        Emulator(blank=True) as emulator,
        served(monkeypatch, emulator, TIER="gold") as (_, url),
        browser(url) as client,
    ):
        next_outcomes(emulator, 1200)
        (picture,) = await made(client, "a rude fox")
        assert (picture["url"], picture["id"]) == (None, emulator.ledger.accepted[0].id)
        assert picture["error"]
        assert await album(client) == [picture]
        next_outcomes(emulator, 401)
        (picture,) = await made(client, "a fox")
        assert (picture["url"], picture["id"]) == (None, None)
        assert picture["error"]
        for wish in ({"prompt": ""}, {"prompt": "fox", "count": 9}, {"prompt": "fox", "count": 0}, {}):
            async with client.post("/pictures", json=wish) as answer:
                assert answer.status == 422
        assert len(emulator.ledger.accepted) == 1


async def test_results_are_pushed_to_the_mounted_receiver(monkeypatch):
    async with (
        Emulator(blank=True) as emulator,
        served(monkeypatch, emulator, TIER="gold", PUBLIC_URL="{url}") as (_, url),
        browser(url) as client,
    ):
        assert None not in {picture["url"] for picture in await made(client, "a fox", count=3)}
        assert [status for *_, status in emulator.ledger.webhooks] == [200, 200, 200]
        assert emulator.ledger.requests["result"] == emulator.ledger.requests["list"] == 0
        async with client.post("/wavespeed/", json={"id": "forged", "status": "completed"}) as answer:
            assert answer.status == 401


async def test_a_browser_that_leaves_while_its_submit_is_on_the_way_finds_the_picture_later(monkeypatch):
    async with (
        Emulator(blank=True) as emulator,
        served(monkeypatch, emulator, TIER="gold") as (_, url),
        browser(url) as client,
    ):
        next_outcomes(emulator, ("delay", {"seconds": 2}))
        leaving = asyncio.create_task(made(client, "a fox"))
        await asyncio.sleep(1)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert len(emulator.ledger.accepted) == 0
        await asyncio.sleep(2)
        (picture,) = await album(client)
        assert picture["id"] == emulator.ledger.accepted[0].id
        assert picture["url"]


AT_ONCE = 40


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_200_browsers_at_once_of_which_50_leave(monkeypatch):
    rng = random.Random(5)
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(blank=True, tier="silver"))
        service, url = await stack.enter_async_context(served(monkeypatch, emulator, TIER="silver"))
        limits = service.app.state.session.limits
        limits.max_in_flight = AT_ONCE
        before = asyncio.all_tasks()
        answered: dict[str, str] = {}

        async with AsyncExitStack() as visitors:
            clients = [await visitors.enter_async_context(browser(url)) for _ in range(200)]

            async def visit(number):
                wish = {"prompt": f"picture {number}", "count": 2}
                async with clients[number].post("/pictures", json=wish) as answer:
                    async for picture in pictures_of(answer):
                        assert picture["url"]
                        assert picture["id"] not in answered
                        answered[picture["id"]] = picture["prompt"]

            visits = [asyncio.create_task(visit(number)) for number in range(200)]
            for _ in range(50):
                await asyncio.sleep(rng.uniform(0, 1.5))
                rng.choice([each for each in visits if not each.done() and not each.cancelling()]).cancel()
            ends = await asyncio.gather(*visits, return_exceptions=True)
            left = [number for number, end in enumerate(ends) if isinstance(end, asyncio.CancelledError)]
            assert not [end for end in ends if isinstance(end, Exception)]
            assert len(left) == 50
            now = limits.snapshot()
            assert (now.in_flight, now.waiting, now.waiting_for_slot) == (0, 0, 0)

            # No id is lost: each paid one was answered, or is in the album of who left, where a reload shows it.
            paid = {accepted.id: accepted.inputs["prompt"] for accepted in emulator.ledger.accepted}
            assert set(answered) < set(paid)
            reloaded = {}
            for number in left:
                for picture in await album(clients[number]):
                    assert picture["url"]
                    assert picture["prompt"] == f"picture {number}"
                    reloaded[picture["id"]] = picture["prompt"]
            assert answered | reloaded == paid
            assert set(reloaded) - set(answered)

        assert emulator.ledger.peak_in_flight() <= AT_ONCE
        assert emulator.ledger.refused[429] == 0
        assert len(paid) < 400  # who leaves takes back what was not sent
        await asyncio.sleep(1)
        assert limits.snapshot().in_flight == 0
        left_behind = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - before}
        assert left_behind <= {"RequestHandler.start"}  # the emulator's, of connections that the session keeps alive
