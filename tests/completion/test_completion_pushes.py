"""Results that are pushed: before, while and after somebody waits for them."""

from __future__ import annotations

import asyncio

import pytest
from waiting_server import Ends, WaitingServer, keeping, now, watch_all

from wavespeed_qwen_async._completion import keeper as _completion
from wavespeed_qwen_async.predictions import Prediction

pytestmark = pytest.mark.anyio


@pytest.fixture
def server():
    return WaitingServer()


def pushed(server, name):
    return Prediction.model_validate(server.tasks[name].item(float("inf")))


async def test_a_push_ends_the_wait_at_once_and_nothing_is_asked(server):
    async with keeping(server, pushed=True) as keeper:
        waiting = asyncio.create_task(keeper.wait(server.submitted("p", 9.0)))
        await asyncio.sleep(9.0)
        at = now()
        keeper.push(pushed(server, "p"))
        assert (await waiting).ok
        assert now() - at < 0.001
    assert not server.requests


async def test_a_push_before_its_watch_is_kept_for_it(server):
    async with keeping(server, pushed=True) as keeper:
        prediction = server.submitted("p", 9.0)
        keeper.push(pushed(server, "p"))
        await asyncio.sleep(60)
        assert (await keeper.wait(prediction)).ok
    assert not server.requests


async def test_what_is_kept_is_bounded_and_expires(server):
    async with keeping(server, pushed=True) as keeper:
        for index in range(_completion._STORED_PUSHES + 50):
            keeper.push(Prediction(id=f"p{index}", status="failed"))
        assert len(keeper._pushed) == _completion._STORED_PUSHES
        assert "p49" not in keeper._pushed
        await asyncio.sleep(601)
        server.submitted("p500", 0.0)
        assert (await keeper.wait("p500")).ok, "asked for anew, not taken from the store"
        keeper.push(Prediction(id="fresh", status="failed"))
        assert list(keeper._pushed) == ["fresh"]


async def test_repeats_and_news_of_strangers_change_nothing(server):
    async with keeping(server, pushed=True) as keeper:
        ends = Ends()
        keeper.watch(server.submitted("p", 9.0), ends.take("p"))
        server.submitted("other", 1.0)
        keeper.push(pushed(server, "other"))
        for _ in range(3):
            keeper.push(pushed(server, "p"))
        await asyncio.sleep(100)
        assert ends.of("p").ok


async def test_a_push_of_what_goes_on_is_no_end(server):
    async with keeping(server, pushed=True) as keeper:
        waiting = asyncio.create_task(keeper.wait(server.submitted("p", 9.0)))
        await asyncio.sleep(1)
        keeper.push(Prediction(id="p", status="processing"))
        await asyncio.sleep(1)
        assert not waiting.done()
        assert not server.requests
        keeper.push(Prediction(id="p", status="failed", code=1200))
        assert (await waiting).code == 1200


async def test_a_push_without_the_images_leads_to_a_check(server):
    async with keeping(server, pushed=True) as keeper:
        waiting = asyncio.create_task(keeper.wait(server.submitted("p", 9.0)))
        await asyncio.sleep(9.0)
        keeper.push(Prediction(id="p", status="completed"))
        at = now()
        assert (await waiting).raw_outputs
        assert now() - at < 0.1
        keeper.push(Prediction(id="unknown", status="completed"))
    assert server.requests == {"result": 1}


async def test_lost_pushes_are_found_by_a_slow_check(server):
    async with keeping(server, pushed=True) as keeper:
        began = now()
        await keeper.wait(server.submitted("p", 9.0))
        assert 12 < now() - began < 25
    assert server.requests == {"result": 1}


async def test_pushes_that_never_come_are_noticed_and_asking_starts_in_time(server, caplog):
    async with keeping(server, pushed=True) as keeper:
        await watch_all(keeper, server.many(100))
        assert len(caplog.records) == 1
        server.tasks.clear()
        began = now()
        ends = await watch_all(keeper, server.many(50, lambda _: 8.0))
        assert max(ends.at(name) for name in server.tasks) - began < 9
        keeper.push(Prediction(id="sign of life", status="failed"))
        server.requests.clear()
        for prediction in server.many(50, lambda _: 8.0):
            keeper.watch(prediction, lambda _: None)
        await asyncio.sleep(9)
        assert not server.requests, "pushes come again: time to wait for them"


async def test_after_the_end_pushes_fall_on_deaf_ears(server):
    async with keeping(server, pushed=True) as keeper:
        await keeper.close()
        keeper.push(Prediction(id="p", status="failed"))
        assert not keeper._pushed
