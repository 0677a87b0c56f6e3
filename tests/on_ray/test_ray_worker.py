"""A worker by itself: what it may still send, and what it does not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from socket import AF_INET

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from wavespeed_qwen_async._answers import Answer
from wavespeed_qwen_async._wire import Request
from wavespeed_qwen_async.emulator.blank import blank_image
from wavespeed_qwen_async.errors import NotSentError, SubmissionUnknown
from wavespeed_qwen_async.integrations._ray.orders import Handful, Order, SaveOrder, SendOrder
from wavespeed_qwen_async.integrations._ray.worker import LinkError, Worker
from wavespeed_qwen_async.predictions import Output

pytestmark = pytest.mark.anyio

SUBMIT = Request("POST", "/api/v3/wavespeed-ai/qwen-image/text-to-image-lora", b'{"prompt": "a fox"}', (), "submit")


class Desk:
    """A coordinator that hands out what a test wants, and keeps what it is told."""

    def __init__(self, *handfuls, held=0.0, before=None):
        self.handfuls = list(handfuls)
        self.before = before
        self.held = held
        self.names = []
        self.asked = []
        self.done = {}
        self.life = "first"
        self.broken = 0
        self.lost = 0
        self.over = asyncio.Event()

    async def hello(self, place, name):
        self.names.append(name)
        return self.life

    async def take(self, name, received, room, done):
        self.asked.append((name, received, room))
        if self.broken:
            self.broken -= 1
            raise LinkError("not there")
        if done and self.lost:
            self.lost -= 1
            raise LinkError("gone in the middle")
        if done and name == self.names[-1]:
            self.done |= {number: end for number, end, _ in done}
            self.over.set()
        if not self.handfuls:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), 0.5)
            return Handful(self.life, len(self.asked), 0.0, 3.0, [], stop=self.over.is_set())
        orders = self.handfuls.pop(0)
        if callable(orders):
            return orders()
        if self.before is not None:
            await self.before()
        return Handful(self.life, len(self.asked), self.held, 3.0, orders)


def worker_of(desk, emulator, tmp_path, **options):
    session = {"api_key": "k", "base_url": emulator.url}
    clock = asyncio.get_running_loop().time
    return Worker("w", desk, out=str(tmp_path), **{"session": session, "clock": clock} | options)


def send(number=1):
    return Order(number, SendOrder(SUBMIT, None))


async def test_it_sends_what_it_is_handed(emulator, tmp_path):
    desk = Desk([send()])
    await worker_of(desk, emulator, tmp_path).run()
    assert isinstance(desk.done[1], Answer)
    assert desk.done[1].status == 200
    assert len(emulator.ledger.accepted) == 1


async def test_what_it_could_not_send_in_time_it_does_not_send(emulator, tmp_path):
    """Stopped, starved or cut off for longer than the send was good for: the answer came too late."""

    async def late():
        await asyncio.sleep(3.1)

    desk = Desk([send()], before=late)
    await worker_of(desk, emulator, tmp_path).run()
    assert isinstance(desk.done[1], NotSentError)
    assert emulator.ledger.submit_times == []


async def test_time_that_its_question_was_held_back_is_not_counted(emulator, tmp_path):
    async def held():
        await asyncio.sleep(4.9)

    desk = Desk([send()], before=held, held=4.9)
    await worker_of(desk, emulator, tmp_path).run()
    assert desk.done[1].status == 200


async def test_it_looks_again_when_the_connection_is_there(emulator, tmp_path):
    """The time ran out between the first look and the first byte."""
    looks = 0

    def clock():
        nonlocal looks
        looks += 1
        return 0.0 if looks <= 2 else 100.0  # asking, the look before there is a connection

    desk = Desk([send()])
    await worker_of(desk, emulator, tmp_path, clock=clock).run()
    assert looks > 2
    assert isinstance(desk.done[1], NotSentError)
    assert "the time to do it was over" in str(desk.done[1])
    assert emulator.ledger.submit_times == []


async def test_a_lost_answer_is_told_as_unknown(emulator, tmp_path):
    emulator.faults.add("submit", "drop_after")
    desk = Desk([send()])
    await worker_of(desk, emulator, tmp_path).run()
    assert isinstance(desk.done[1], SubmissionUnknown)
    assert desk.done[1].billed == "unknown"


@pytest.mark.parametrize("what", ["send", "save"])
async def test_a_defect_is_an_end_too(emulator, tmp_path, what):
    """Else the coordinator would wait for it as long as the worker lives, and the run would never end."""
    image = base64.b64encode(blank_image(256, 256, "png")).decode()
    output = Output(url=None, base64=image, prediction_id="p1")
    order = SendOrder(SUBMIT, "no number") if what == "send" else SaveOrder(output, "\0.png", None)
    desk = Desk([Order(1, order)])
    async with asyncio.timeout(60):
        await worker_of(desk, emulator, tmp_path).run()
    assert desk.done[1].billed == {"send": "unknown", "save": "yes"}[what]


async def test_a_coordinator_that_is_not_there_is_waited_for(emulator, tmp_path, virtual_clock):
    desk = Desk([send()])
    desk.broken = 20
    await worker_of(desk, emulator, tmp_path).run()
    assert virtual_clock.elapsed > 20 * 0.5
    assert desk.done[1].status == 200
    assert len(desk.names) == 1


async def test_what_ended_is_told_again_where_the_call_was_lost(emulator, tmp_path):
    desk = Desk([send()])
    desk.lost = 3
    await worker_of(desk, emulator, tmp_path).run()
    assert desk.done[1].status == 200
    assert len(emulator.ledger.accepted) == 1


async def test_it_calls_twice_a_second_or_when_half_of_its_orders_have_ended(emulator, tmp_path, virtual_clock):
    times, orders = [], [[send(1)], [send(2), send(3)], [send(4), send(5)], []]

    async def ask():
        times.append(round(virtual_clock.elapsed, 1))

    desk = Desk(*orders, before=ask)
    await worker_of(desk, emulator, tmp_path, at_once=4).run()
    assert times == [0.0, 0.5, 0.5, 0.5]
    assert virtual_clock.elapsed == pytest.approx(1.0)
    assert set(desk.done) == {1, 2, 3, 4, 5}


async def test_to_another_life_of_the_coordinator_it_says_hello_again(emulator, tmp_path):
    """Orders are numbered anew in each life: what ended in an earlier one is told to nobody."""
    emulator.faults.add("submit", "slow_headers", seconds=1.0, nth=1)
    desk = Desk([send(1)], lambda: None, [send(7)])
    await worker_of(desk, emulator, tmp_path).run()
    await asyncio.sleep(2)
    assert len(set(desk.names)) == 2
    assert set(desk.done) == {7}


async def test_what_an_earlier_life_handed_out_is_not_sent(emulator, tmp_path):
    """It is on its way to the connection when the worker learns that its coordinator is gone."""

    class Slow(AbstractResolver):
        async def resolve(self, host, port=0, family=AF_INET):
            await asyncio.sleep(2.0)
            return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=AF_INET, proto=0, flags=0)]

        async def close(self):
            pass

    desk = Desk([send(1)], lambda: None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Slow())) as client:
        session = {"api_key": "k", "base_url": emulator.url.replace("127.0.0.1", "far.test"), "client_session": client}
        running = asyncio.create_task(worker_of(desk, emulator, tmp_path, session=session).run())
        await asyncio.sleep(10)
        desk.over.set()
        await running
    assert len(set(desk.names)) == 2
    assert emulator.ledger.submit_times == []
    assert desk.done == {}


async def test_it_takes_no_more_than_it_has_room_for(emulator, tmp_path):
    emulator.faults.add("submit", "slow_headers", seconds=10.0)
    desk = Desk([send(1), send(2)], [send(3)])
    running = asyncio.create_task(worker_of(desk, emulator, tmp_path, at_once=3).run())
    await asyncio.sleep(1)
    assert [room for _, _, room in desk.asked] == [3, 1]
    desk.over.set()
    await asyncio.sleep(5)
    assert desk.asked[2][2] == 0  # full: a sign of life, no more
    await running
