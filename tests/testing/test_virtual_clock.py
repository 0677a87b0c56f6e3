from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from aiolimiter import AsyncLimiter
from hypothesis import given
from hypothesis import strategies as st

from wavespeed_qwen_async.testing.clock import DeadlockError, VirtualClockLoop

pytestmark = pytest.mark.anyio


def virtual_loop() -> VirtualClockLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualClockLoop)
    return loop


async def test_a_sleep_takes_exactly_its_time_and_no_real_time():
    began = time.perf_counter()
    for _ in range(1000):
        await asyncio.sleep(0.1)
    assert virtual_loop().elapsed == 100
    assert virtual_loop().time() == 1100
    assert time.perf_counter() - began < 20


async def test_a_day_and_more_passes_too():
    await asyncio.sleep(3.5 * 86400)
    assert virtual_loop().elapsed == 3.5 * 86400


async def test_computing_takes_no_virtual_time():
    for _ in range(500):
        await asyncio.sleep(0)
    assert virtual_loop().elapsed == 0


async def test_timers_of_one_instant_fire_in_the_order_in_which_they_were_set():
    fired: list[int] = []
    for number in range(50):
        virtual_loop().call_later(1, fired.append, number)
    virtual_loop().call_later(0.5, fired.append, -1)
    await asyncio.sleep(1)
    assert fired == list(range(-1, 50))
    assert virtual_loop().elapsed == 1


async def test_a_timer_for_now_or_for_the_past_fires_a_microsecond_later():
    loop = virtual_loop()
    for when in (loop.time(), loop.time() - 5, loop.time() + 1e-17):
        passed = loop.create_future()
        before = loop.elapsed
        loop.call_at(when, passed.set_result, None)
        await passed
        assert loop.elapsed - before == pytest.approx(1e-6)


async def test_a_cancelled_timer_is_not_jumped_to():
    virtual_loop().call_later(5, pytest.fail, "was cancelled").cancel()
    await asyncio.sleep(10)
    assert virtual_loop().elapsed == 10


async def test_never_is_never():
    with anyio.move_on_after(60):
        await asyncio.sleep(math.inf)
    assert virtual_loop().elapsed == 60


async def test_anyio_timeouts():
    loop = virtual_loop()
    with pytest.raises(TimeoutError):
        with anyio.fail_after(3):
            await anyio.sleep(10)
    assert loop.elapsed == 3
    with anyio.move_on_after(2) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    with anyio.fail_after(2):
        await anyio.sleep(1)
    assert loop.elapsed == 6
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await asyncio.sleep(1)
    assert loop.elapsed == 6.5


@pytest.mark.parametrize(("rate", "period"), [(7, 3), (50, 6), (3, 0.7), (333, 1)])
async def test_a_limiter_that_computes_rests_of_nothing_does_not_live_lock(rate: int, period: float):
    limiter = AsyncLimiter(rate, period)
    for _ in range(rate + 500):
        await limiter.acquire()
    assert virtual_loop().elapsed == pytest.approx(500 * period / rate, abs=0.001)


async def test_code_that_spins_without_timers_sees_time_pass():
    ended = virtual_loop().time() + 0.5
    while virtual_loop().time() < ended:  # noqa: ASYNC110 - spinning is what is tested
        await asyncio.sleep(0)


async def test_executor_work_is_waited_for_while_the_clock_stands_still():
    loop = virtual_loop()
    alarm = loop.call_later(0.001, pytest.fail, "the clock moved")
    assert await asyncio.to_thread(lambda: time.sleep(0.05) or "done") == "done"
    with ThreadPoolExecutor() as own:
        await loop.run_in_executor(own, time.sleep, 0.05)
    await loop.getaddrinfo("localhost", 80)
    await loop.getnameinfo(("127.0.0.1", 80))
    alarm.cancel()
    assert loop.elapsed == 0


async def test_executor_work_that_nobody_awaits_any_more_still_counts():
    ended: list[float] = []
    work = asyncio.create_task(asyncio.to_thread(lambda: (time.sleep(0.1), ended.append(1))))
    await asyncio.sleep(0)
    work.cancel()
    await asyncio.sleep(3600)
    assert ended == [1]


async def test_an_error_in_an_executor_lets_the_clock_go_on():
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 / 0)
    await asyncio.sleep(1)
    assert virtual_loop().elapsed == 1


async def test_hold_makes_the_clock_wait_for_what_it_cannot_see():
    loop = virtual_loop()
    answered = asyncio.Event()
    thread = threading.Timer(0.05, loop.call_soon_threadsafe, [answered.set])
    thread.start()
    async with asyncio.timeout(1):
        with loop.hold():
            await answered.wait()
    thread.join()
    assert loop.elapsed == 0


async def test_another_thread_wakes_a_loop_that_has_no_timer():
    answered = asyncio.Event()
    thread = threading.Timer(0.05, virtual_loop().call_soon_threadsafe, [answered.set])
    thread.start()
    await answered.wait()
    thread.join()
    assert virtual_loop().elapsed == 0


async def test_advance_makes_the_running_code_slow():
    fired: list[float] = []
    loop = virtual_loop()
    loop.call_later(1, lambda: fired.append(loop.elapsed))
    loop.advance(2.5)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert fired == [2.5]
    with pytest.raises(ValueError, match="does not go back"):
        loop.advance(-1)


async def test_repr_shows_the_time():
    await asyncio.sleep(2)
    assert "elapsed=2.0" in repr(virtual_loop())


@pytest.mark.real_clock
async def test_real_clock_marker():
    assert not isinstance(asyncio.get_running_loop(), VirtualClockLoop)
    began = time.perf_counter()
    await asyncio.sleep(0.02)
    assert time.perf_counter() - began > 0.01


def run(main, **options):
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(**options)) as runner:
        return runner.run(main)


@given(st.lists(st.integers(1, 30_000_000), max_size=30), st.sampled_from([0.0, 1000.0, 86_400.5]))
def test_any_timers_fire_on_their_microsecond_and_in_order(delays: list[int], start: float):
    async def main():
        loop = virtual_loop()
        fired: list[tuple[float, int]] = []
        for number, microseconds in enumerate(delays):
            loop.call_later(microseconds / 1e6, lambda number=number: fired.append((loop.elapsed, number)))
        await asyncio.sleep(31)
        return fired

    expected = sorted((microseconds / 1e6, number) for number, microseconds in enumerate(delays))
    assert run(main(), start=start) == expected


async def waits_for(event: asyncio.Event) -> None:
    await event.wait()


async def deadlock() -> None:
    event = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(waits_for(event), name="the reader")
        group.create_task(waits_for(event), name="the writer")


def test_a_deadlock_is_reported_with_the_tasks_that_wait():
    began = time.perf_counter()
    with pytest.raises(DeadlockError) as caught:
        run(deadlock(), patience=0.1)
    assert 0.1 <= time.perf_counter() - began < 20
    report = str(caught.value)
    assert "0.1 s of real time" in report
    assert "the reader: waits_for (test_virtual_clock.py:" in report
    assert "the writer: waits_for (test_virtual_clock.py:" in report
    assert "Event.wait (locks.py:" in report
    assert ": deadlock (test_virtual_clock.py:" in report


def test_the_start_is_free_to_choose():
    async def sleep():
        await asyncio.sleep(0.3)
        return asyncio.get_running_loop().time()

    assert run(sleep(), start=0) == 0.3
    assert run(sleep(), start=1_800_000_000) == pytest.approx(1_800_000_000.3, abs=1e-5)
