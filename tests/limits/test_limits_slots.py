from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wavespeed_qwen_async._limits.slots import Slot, Slots
from wavespeed_qwen_async.errors import ConfigurationError
from wavespeed_qwen_async.limits import Limits
from wavespeed_qwen_async.testing.clock import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_free_place_is_taken_without_yielding_to_the_loop():
    slots = Slots(1)
    with pytest.raises(StopIteration) as taken:
        slots.acquire().send(None)
    taken.value.value.release()
    assert slots.in_use == 0


async def test_first_come_first_served():
    slots, served = Slots(2), []

    async def worker(number: int) -> None:
        async with slots:
            served.append(number)
            await asyncio.sleep(1)

    await asyncio.gather(*(worker(number) for number in range(20)))
    assert served == list(range(20))


async def test_nobody_overtakes_one_that_was_just_handed_a_place():
    slots, served = Slots(1), []
    held = await slots.acquire()

    async def worker(name: str) -> None:
        async with slots:
            served.append(name)

    waiting = asyncio.create_task(worker("waited"))
    await settle()
    held.release()
    await worker("came later")
    await waiting
    assert served == ["waited", "came later"]


async def test_nobody_overtakes_one_that_is_waking_up_even_where_there_is_enough_for_both():
    limits = Limits(max_per_minute=60, max_in_flight=1, burst=True)
    served = []
    held = [await limits.acquire()]

    async def worker(name: str) -> None:
        held.append(await limits.acquire())
        served.append(name)

    waiting = asyncio.create_task(worker("waited"))
    await settle()
    limits.max_in_flight = 3
    await worker("came later")
    await waiting
    assert served == ["waited", "came later"]


async def test_a_second_release_gives_nothing():
    slots = Slots(1)
    slot = await slots.acquire()
    assert "held" in repr(slot)
    slot.release()
    slot.release()
    assert "released" in repr(slot)
    assert slots.in_use == 0


async def test_a_slot_is_a_context_manager_of_both_kinds():
    slots = Slots(1)
    with await slots.acquire() as slot:
        assert slots.in_use == 1
    async with await slots.acquire():
        assert slots.in_use == 1
    slot.release()
    assert slots.in_use == 0
    assert repr(slots) == "<Slots 0 of 1 in use, 0 waiting>"


async def test_cancelled_while_waiting_it_takes_nothing():
    slots = Slots(1)
    held = await slots.acquire()
    tasks = [asyncio.create_task(slots.acquire()) for _ in range(3)]
    await settle()
    tasks[1].cancel()
    await settle()
    assert slots.waiting == 2
    held.release()
    (await tasks[0]).release()
    (await tasks[2]).release()
    assert (slots.in_use, slots.waiting) == (0, 0)


async def test_cancelled_at_the_moment_of_being_served_it_passes_the_place_on():
    slots = Slots(1)
    held = await slots.acquire()
    served, following = (asyncio.create_task(slots.acquire()) for _ in range(2))
    await settle()
    held.release()
    served.cancel()
    with pytest.raises(asyncio.CancelledError):
        await served
    (await following).release()
    assert slots.in_use == 0
    with pytest.raises(StopIteration):  # nobody is thought to be waking up still
        slots.acquire().send(None)


async def test_served_in_the_pass_in_which_the_head_was_cancelled():
    slots = Slots(1)
    held = await slots.acquire()
    head, following = (asyncio.create_task(slots.acquire()) for _ in range(2))
    await settle()
    head.cancel()
    held.release()
    (await following).release()
    assert head.cancelled() or await asyncio.gather(head, return_exceptions=True)
    assert slots.in_use == 0


async def test_waits_that_time_out_again_and_again_leave_nothing_behind():
    slots = Slots(1)
    async with slots:
        for _ in range(100):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slots.acquire(), 1)
            assert slots.waiting == 0


async def test_the_size_changes_while_in_use():
    limits = Limits(max_per_minute=10, max_in_flight=1)
    tasks = [asyncio.create_task(limits.acquire()) for _ in range(4)]
    await settle()
    assert limits.snapshot().in_flight == 1
    limits.max_in_flight = 3
    await settle()
    assert (limits.snapshot().in_flight, limits.snapshot().waiting_for_slot) == (3, 1)
    limits.max_in_flight = 1
    for held in [await task for task in tasks[:2]]:
        held.release()
    await settle()
    assert not tasks[3].done()
    (await tasks[2]).release()
    (await tasks[3]).release()
    assert limits.snapshot().in_flight == 0
    assert limits.max_in_flight == 1


def test_on_a_second_loop_after_the_first_has_ended():
    slots = Slots(1)
    kept = []

    async def leave_it_held_and_waited_for() -> None:
        kept.append(await slots.acquire())
        task = asyncio.create_task(slots.acquire())
        await settle()
        task.cancel()

    async def use() -> None:
        async with slots:
            kept[0].release()  # of a loop that is gone: not this one's to give
            assert slots.in_use == 1
        assert slots.in_use == 0

    asyncio.run(leave_it_held_and_waited_for())
    asyncio.run(use())
    asyncio.run(use())


def test_on_two_loops_at_once_it_says_so():
    limits, ready, done = Limits.for_tier("silver"), threading.Event(), threading.Event()

    async def hold() -> None:
        with await limits.acquire():
            limits.report(await limits.start())
            ready.set()
            await asyncio.get_running_loop().run_in_executor(None, done.wait)

    async def look() -> None:
        assert (limits.snapshot().in_flight, limits.snapshot().used) == (1, 1)

    async def intrude(take: Callable[[], Awaitable[object]]) -> None:
        await take()

    thread = threading.Thread(target=asyncio.run, args=(hold(),))
    thread.start()
    try:
        assert ready.wait(10)
        asyncio.run(look())
        for take in (limits.acquire, limits.start):
            with pytest.raises(ConfigurationError, match="another event loop"):
                asyncio.run(intrude(take))
    finally:
        done.set()
        thread.join(10)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["acquire", "pass"]), st.just(0)),
        st.tuples(st.sampled_from(["cancel", "release"]), st.integers(0, 30)),
        st.tuples(st.just("resize"), st.integers(1, 5)),
    ),
    max_size=60,
)


@settings(deadline=None)
@example(size=1, operations=[("acquire", 0), ("acquire", 0), ("pass", 0), ("acquire", 0), ("resize", 3)])
@given(size=st.integers(1, 4), operations=OPERATIONS)
def test_whatever_is_cancelled_no_place_is_lost_or_made_and_the_order_is_kept(size, operations):
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(_whatever_is_cancelled(size, operations))


async def _whatever_is_cancelled(size: int, operations: list[tuple[str, int]]) -> None:
    users = Users(Slots(size))
    for operation, number in operations:
        await users.perform(operation, number)
    await settle()
    users.check()

    for task in users.tasks:
        task.cancel()
    await settle()
    for slot in users.held:
        slot.release()
    assert (users.slots.in_use, users.slots.waiting) == (0, 0)
    for _ in range(users.slots.size):
        await asyncio.wait_for(users.slots.acquire(), 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(users.slots.acquire(), 1)


class Users:
    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.tasks: list[asyncio.Task[None]] = []
        self.held: list[Slot] = []
        self.served: list[int] = []

    async def perform(self, operation: str, number: int) -> None:
        if operation == "acquire":
            self.tasks.append(asyncio.create_task(self._acquire(len(self.tasks))))
        elif operation == "pass":
            await asyncio.sleep(0)
        elif operation == "resize":
            self.slots.size = number
        elif operation == "cancel" and self.tasks:
            self.tasks[number % len(self.tasks)].cancel()
        elif operation == "release" and self.held:
            self.held.pop(number % len(self.held)).release()

    def check(self) -> None:
        assert self.served == sorted(self.served)
        assert self.slots.in_use == len(self.held)
        assert self.slots.waiting == sum(not task.done() for task in self.tasks)
        assert self.slots.in_use >= self.slots.size or not self.slots.waiting

    async def _acquire(self, number: int) -> None:
        slot = await self.slots.acquire()
        self.served.append(number)
        self.held.append(slot)
