"""One timer ends all waits of a kind, each at its own time, as `asyncio.timeout` would."""

from __future__ import annotations

import asyncio

import pytest

from wavespeed_qwen_async._deadlines import Deadlines

pytestmark = pytest.mark.anyio


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
async def deadlines():
    made = Deadlines(60.0)
    yield made
    made.close()


async def ended(deadlines: Deadlines, seconds: float) -> tuple[str, float]:
    try:
        with deadlines.wait():
            await asyncio.sleep(seconds)
    except TimeoutError:
        return "timed out", now()
    return "in time", now()


async def test_each_wait_ends_at_its_own_time(deadlines) -> None:
    began = now()

    async def later(start: float, seconds: float) -> tuple[str, float]:
        await asyncio.sleep(start)
        return await ended(deadlines, seconds)

    ends = await asyncio.gather(later(0, 59), later(1, 100), later(20, 30), later(30, 100))
    assert [what for what, _ in ends] == ["in time", "timed out", "in time", "timed out"]
    assert [at - began for _, at in ends] == pytest.approx([59, 61, 50, 90], abs=1e-3)


async def test_a_wait_that_timed_out_leaves_no_cancellation_behind(deadlines) -> None:
    assert await ended(deadlines, 100) == ("timed out", now())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(1)  # a cancellation left behind would be raised here


async def test_who_cancels_at_the_same_moment_is_obeyed(deadlines) -> None:
    task = asyncio.create_task(ended(deadlines, 100))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(now() + 60.0, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_its_own_is_raised_as_it_is(deadlines) -> None:
    with pytest.raises(ValueError, match="mine"), deadlines.wait():
        await asyncio.sleep(1)
        raise ValueError("mine")
    assert await ended(deadlines, 59) == ("in time", now())


async def test_an_error_in_answer_to_the_timeout_is_raised_as_it_is(deadlines) -> None:
    with pytest.raises(ValueError, match="mine"), deadlines.wait():
        try:
            await asyncio.sleep(100)
        finally:
            raise ValueError("mine")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_who_waits_when_it_is_closed_is_not_left_waiting(deadlines) -> None:
    task = asyncio.create_task(ended(deadlines, 100))
    await asyncio.sleep(1)
    deadlines.close()
    began = now()
    assert (await task)[0] == "timed out"
    assert now() - began == pytest.approx(59, abs=1e-3)
