"""Handing out, and what becomes of orders when workers go away."""

from __future__ import annotations

import asyncio

import pytest

from wavespeed_qwen_async._answers import Answer
from wavespeed_qwen_async._wire import Request
from wavespeed_qwen_async.errors import DownloadError, NotSentError, SessionClosedError, SubmissionUnknown
from wavespeed_qwen_async.integrations._ray.desk import Desk
from wavespeed_qwen_async.integrations._ray.orders import Done, SaveOrder, SendOrder
from wavespeed_qwen_async.predictions import Output

pytestmark = pytest.mark.anyio

ANSWER = Answer(200, {}, b"{}")


@pytest.fixture
def desk():
    made = Desk(lease=20.0, start_within=3.0)
    yield made
    made.close()


@pytest.fixture
async def started():
    """Start tasks; what still waits at the end is cancelled."""
    tasks = []

    def start(work):
        tasks.append(asyncio.create_task(work))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def send_order(number=0):
    return SendOrder(Request("POST", f"/api/v3/m/{number}", b"{}", (), "submit"), None)


def save_order(number=0):
    return SaveOrder(Output(url=f"http://cdn/{number}", prediction_id=f"p{number}"), f"{number}.jpg", None)


async def test_orders_are_handed_out_in_order_and_answered(desk, started):
    desk.hello("a", "a1")
    sends = [started(desk.send(send_order(number))) for number in range(3)]
    handful = await desk.take("a1", 0, 10)
    assert [order.what.request.path for order in handful.orders] == [f"/api/v3/m/{number}" for number in range(3)]
    await desk.take("a1", 1, 10, [Done(order.number, ANSWER) for order in handful.orders])
    assert [await send for send in sends] == [ANSWER] * 3


async def test_workers_share_what_there_is(desk, started):
    for name in ("a", "b"):
        desk.hello(name, name)
    for number in range(80):
        started(desk.send(send_order(number)))
    first, second = await asyncio.gather(desk.take("a", 0, 100), desk.take("b", 0, 100))
    assert {len(first.orders), len(second.orders)} == {64, 16}


async def test_no_more_is_handed_out_than_there_is_room(desk, started):
    desk.hello("a", "a")
    for number in range(10):
        started(desk.send(send_order(number)))
        started(desk.save(save_order(number)))
    handful = await desk.take("a", 0, 4)
    assert len(handful.orders) == 4


async def test_saves_leave_half_of_the_room_to_sends(desk, started):
    desk.hello("a", "a")
    for number in range(10):
        started(desk.save(save_order(number)))
    assert len((await desk.take("a", 0, 8)).orders) == 4
    started(desk.send(send_order()))
    kinds = [type(order.what) for order in (await desk.take("a", 1, 4)).orders]
    assert kinds == [SendOrder]


async def test_a_permit_that_nobody_used_in_time_is_given_back(desk, virtual_clock):
    with pytest.raises(NotSentError):
        await desk.send(send_order())
    assert virtual_clock.elapsed == pytest.approx(3.0)
    desk.hello("a", "a")
    assert (await desk.take("a", 0, 10)).orders == []


async def test_of_a_worker_that_is_gone_sends_are_lost_when_they_can_no_longer_leave(desk, started, virtual_clock):
    desk.hello("a", "a1")
    send = started(desk.send(send_order()))
    await desk.take("a1", 0, 10)
    handed = virtual_clock.elapsed
    desk.bury("a")
    with pytest.raises(SubmissionUnknown):
        await send
    assert virtual_clock.elapsed - handed > 3.0 + 1.0


async def test_a_worker_that_is_not_heard_is_gone(desk, started, virtual_clock):
    desk.hello("a", "a1")
    send = started(desk.send(send_order()))
    await desk.take("a1", 0, 10)
    heard = virtual_clock.elapsed
    with pytest.raises(SubmissionUnknown):
        await send
    assert 20.0 < virtual_clock.elapsed - heard < 23.0
    assert desk.workers == 0
    assert await desk.take("a1", 1, 10, [Done(1, ANSWER)]) is None


async def test_a_worker_that_asks_is_heard(desk, started):
    desk.hello("a", "a1")
    send = started(desk.send(send_order()))
    number = (await desk.take("a1", 0, 10)).number
    for _ in range(10):
        await asyncio.sleep(5)
        await desk.take("a1", number, 10)
    assert not send.done()
    assert desk.workers == 1


async def test_what_a_lost_worker_was_to_save_is_saved_by_another(desk, started):
    desk.hello("a", "a1")
    save = started(desk.save(save_order()))
    await desk.take("a1", 0, 10)
    desk.hello("b", "b1")
    desk.bury("a")
    handful = await desk.take("b1", 0, 10)
    assert handful.orders[0].what.name == "0.jpg"
    await desk.take("b1", 1, 0, [Done(handful.orders[0].number, None)])
    assert await save is None


async def test_an_image_that_takes_workers_down_is_given_up(desk, started):
    save = started(desk.save(save_order()))
    for number in range(4):
        desk.hello("a", f"a{number}")
        assert len((await desk.take(f"a{number}", 0, 10)).orders) == 1
        desk.bury("a")
    with pytest.raises(DownloadError, match="4 workers") as caught:
        await save
    assert (caught.value.billed, caught.value.prediction_id) == ("yes", "p0")


async def test_a_handful_that_never_arrived_was_not_sent(desk, started):
    """Its worker asks again, and says that the last one it has is an older one."""
    desk.hello("a", "a1")
    send, save = started(desk.send(send_order())), started(desk.save(save_order()))
    lost = await desk.take("a1", 0, 10)
    assert len(lost.orders) == 2
    again = await desk.take("a1", 0, 10)
    with pytest.raises(NotSentError):
        await send
    assert [order.what for order in again.orders] == [save_order()]
    assert not save.done()


async def test_one_that_was_taken_for_gone_may_come_back_and_ends_nobody(desk, started):
    """Two processes at one place, as after a break in the network, must not go on ending each other."""
    desk.hello("a", "a1")
    parked = started(desk.take("a1", 0, 10))
    await asyncio.sleep(0)
    desk.bury("a")
    assert await parked is None
    desk.hello("a", "a2")
    desk.hello("a", "a3")
    assert desk.workers == 2
    assert await desk.take("a2", 0, 10) is not None


async def test_nobody_takes_permits_while_nobody_works(desk, started):
    ready = started(desk.ready())
    await asyncio.sleep(60)
    assert not ready.done()
    desk.hello("a", "a1")
    await ready
    desk.bury("a")
    ready = started(desk.ready())
    await asyncio.sleep(60)
    assert not ready.done()


async def test_an_order_that_nobody_waits_for_is_not_handed_out(desk, started):
    send = started(desk.send(send_order()))
    await asyncio.sleep(0)
    send.cancel()
    desk.hello("a", "a1")
    assert (await desk.take("a1", 0, 10)).orders == []


async def test_orders_are_gathered(desk, started, virtual_clock):
    """One handful each 0.15 s, whatever comes: questions and answers are what a coordinator's time goes into."""
    desk.hello("a", "a1")
    handfuls = received = 0

    async def work():
        nonlocal handfuls, received
        number, done = 0, []
        while True:
            handful = await desk.take("a1", number, 64, done)
            number = handful.number
            handfuls += bool(handful.orders)
            received += len(handful.orders)
            done = [Done(order.number, ANSWER) for order in handful.orders]

    started(work())
    for number in range(300):
        started(desk.send(send_order(number)))
        await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    assert received == 300
    assert handfuls <= 3.0 / 0.15 + 2


async def test_a_question_is_held_back_but_not_for_long_while_there_is_something_to_tell(desk, started, virtual_clock):
    desk.hello("a", "a1")
    assert (await desk.take("a1", 0, 10)).held == pytest.approx(5.0)
    started(desk.send(send_order()))
    number = (await desk.take("a1", 0, 10)).number
    assert (await desk.take("a1", number, 10)).held == pytest.approx(0.5)
    assert (await desk.take("a1", number, 0)).held == 0.0  # no room: there is nothing to wait for


async def test_at_the_end_workers_stop_and_who_waits_is_told(desk, started):
    desk.hello("a", "a1")
    send, save = started(desk.send(send_order())), started(desk.save(save_order()))
    await desk.take("a1", 0, 10)
    desk.close()
    for waiter in (send, save):
        with pytest.raises(SessionClosedError):
            await waiter
    assert (await desk.take("a1", 1, 10)).stop
    with pytest.raises(SessionClosedError):
        await desk.send(send_order())
