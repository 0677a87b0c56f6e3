"""A worker by itself: what it may still send, and what it does not."""

from __future__ import annotations

import asyncio

import pytest

from wavespeed_qwen_async._answers import Answer
from wavespeed_qwen_async._wire import Request
from wavespeed_qwen_async.errors import NotSentError, SubmissionUnknown
from wavespeed_qwen_async.integrations._ray.orders import Handful, Order, SendOrder
from wavespeed_qwen_async.integrations._ray.worker import LinkError, Worker

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
        self.over = asyncio.Event()

    async def hello(self, place, name):
        self.names.append(name)
        return self.life

    async def take(self, name, received, room):
        self.asked.append((name, received, room))
        if self.broken:
            self.broken -= 1
            raise LinkError("not there")
        if not self.handfuls:
            await self.over.wait()
            return Handful(self.life, 0, 0.0, 3.0, [], stop=True)
        orders = self.handfuls.pop(0)
        if callable(orders):
            return orders()
        if self.before is not None:
            await self.before()
        return Handful(self.life, len(self.asked), self.held, 3.0, orders)

    async def tell(self, name, done):
        if name != self.names[-1]:
            return False
        self.done |= {number: end for number, end, _ in done}
        self.over.set()
        return True


def worker_of(desk, emulator, tmp_path, **options):
    session = {"api_key": "k", "base_url": emulator.url}
    clock = asyncio.get_running_loop().time
    return Worker("w", desk, out=str(tmp_path), session=session, **{"clock": clock} | options)


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
        return 0.0 if looks <= 3 else 100.0  # asking, asking again, the look before there is a connection

    desk = Desk([send()])
    await worker_of(desk, emulator, tmp_path, clock=clock).run()
    assert looks == 4
    assert isinstance(desk.done[1], NotSentError)
    assert "the time to do it was over" in str(desk.done[1])
    assert emulator.ledger.submit_times == []


async def test_a_lost_answer_is_told_as_unknown(emulator, tmp_path):
    emulator.faults.add("submit", "drop_after")
    desk = Desk([send()])
    await worker_of(desk, emulator, tmp_path).run()
    assert isinstance(desk.done[1], SubmissionUnknown)
    assert desk.done[1].billed == "unknown"


async def test_a_coordinator_that_is_not_there_is_waited_for(emulator, tmp_path, virtual_clock):
    desk = Desk([send()])
    desk.broken = 20
    await worker_of(desk, emulator, tmp_path).run()
    assert virtual_clock.elapsed > 20 * 0.5
    assert desk.done[1].status == 200
    assert len(desk.names) == 1


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
    desk = Desk([send(1)], lambda: None)
    worker = worker_of(desk, emulator, tmp_path)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(10)
    desk.over.set()
    await running
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
