"""`start` and `report`: order, pauses, the breaker, cancellation."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strict_server import now

from wavespeed_qwen_async.errors import (
    BadRequestError,
    InsufficientCreditsError,
    LimitsBrokenError,
    LostAnswerError,
    NotSentError,
    RateLimitError,
    SubmissionUnknown,
    WaveSpeedError,
)
from wavespeed_qwen_async.limits import Limits, Send
from wavespeed_qwen_async.testing.clock import VirtualClockLoop

pytestmark = pytest.mark.anyio


def quick(**options) -> Limits:
    """No pace and no rate to speak of: what is left are the pauses."""
    return Limits(**{"max_per_minute": 100_000, "max_in_flight": 10, "burst": True, **options})


def refusal(retry_after: float | None = None) -> RateLimitError:
    return RateLimitError("429", status=429, retry_after=retry_after)


async def started_at(limits: Limits, *, report: bool = True) -> float:
    send = await limits.start()
    if report:
        limits.report(send)
    return now()


async def submit_forever(limits: Limits, error: WaveSpeedError) -> None:
    while True:
        limits.report(await limits.start(), error)


async def test_permission_that_is_there_is_given_without_yielding_to_the_loop():
    with pytest.raises(StopIteration) as given:
        quick().start().send(None)
    assert isinstance(given.value.value, Send)
    assert "under way" in repr(given.value.value)


async def test_first_come_first_served():
    limits, served = Limits(max_per_minute=60, max_in_flight=1), []

    async def worker(number: int) -> None:
        limits.report(await limits.start())
        served.append(number)

    await asyncio.gather(*(worker(number) for number in range(150)))
    assert served == list(range(150))


async def test_nobody_overtakes_one_that_is_waking_up():
    limits, served = Limits(max_per_minute=1, max_in_flight=1), []
    await limits.start()

    async def worker(name: str) -> None:
        await limits.start()
        served.append(name)

    waiting = asyncio.create_task(worker("waited"))
    await asyncio.sleep(1)
    limits.max_per_minute = 600
    await worker("came later")
    await waiting
    assert served == ["waited", "came later"]


async def test_one_that_is_sent_again_keeps_its_place():
    limits, served = Limits(max_per_minute=60, max_in_flight=1), []

    async def worker(name: str, *, again: bool = False) -> None:
        limits.report(await limits.start(again=again))
        served.append(name)

    await limits.start()
    names = [("first", False), ("second", False), ("again", True), ("again too", True)]
    await asyncio.gather(*(worker(name, again=again) for name, again in names))
    assert served == ["again", "again too", "first", "second"]


async def test_one_that_is_cancelled_before_its_turn_comes_is_passed_over():
    limits = Limits(max_per_minute=1, max_in_flight=1)
    await limits.start()
    waiting = asyncio.create_task(limits.start())
    given_up = asyncio.create_task(limits.start(again=True))
    await asyncio.sleep(1)
    given_up.cancel()
    limits.max_per_minute = 600  # at once: the cancelled one has not run since
    limits.report(await waiting)
    assert given_up.cancelled()
    assert limits.snapshot().waiting == 0


@pytest.mark.parametrize("seconds", [0.5, 7.25, 90.0])
async def test_a_refusal_stops_every_submit_until_retry_after(seconds):
    limits = quick()
    sends = [await limits.start() for _ in range(3)]
    limits.report(sends[0], refusal(seconds))
    began = now()
    limits.report(sends[1])
    snapshot = limits.snapshot()
    assert (snapshot.paused_for, snapshot.pause_reason, snapshot.pauses) == (seconds, "rate limit", 1)
    times = await asyncio.gather(*(started_at(limits) for _ in range(5)))
    assert min(times) - began == pytest.approx(seconds, abs=2e-6)
    assert limits.snapshot().pause_reason is None


async def test_a_refusal_without_retry_after_stops_them_for_the_rest_of_the_window():
    limits = quick(learn=False)
    began = await started_at(limits)
    await asyncio.sleep(20)
    limits.report(await limits.start(), refusal())
    assert await started_at(limits) - began == pytest.approx(60.01, abs=1e-4)


async def test_nothing_to_count_from_a_refusal_without_retry_after_takes_a_window():
    limits = quick()
    began = now()
    limits.report(await limits.start(), refusal())
    assert await started_at(limits) - began == pytest.approx(60.01, abs=1e-4)


async def test_after_a_pause_one_goes_first_and_the_others_follow_at_the_pace():
    limits = Limits(max_per_minute=600, max_in_flight=10, burst=True, learn=False)
    limits.report(await limits.start(), refusal(10))
    trial = await limits.start()
    waiting = [asyncio.create_task(started_at(limits)) for _ in range(4)]
    await asyncio.sleep(1.05)
    assert limits.snapshot().waiting == 4
    limits.report(trial)
    began = now()
    times = [await task - began for task in waiting]
    assert times[-1] - times[0] == pytest.approx(0.3, abs=1e-4)  # not what the trial's answer took


async def test_endless_refusals_cost_one_request_a_pause_and_end():
    limits, began = quick(), now()
    with pytest.raises(LimitsBrokenError) as broken:
        await submit_forever(limits, refusal(1.0))
    assert 300 <= now() - began < 400
    assert limits.snapshot().sent < 15
    assert broken.value.billed == "no"
    assert broken.value.retry_after == pytest.approx(60)
    assert limits.snapshot().broken


async def test_endless_failures_end_with_few_that_may_be_billed():
    limits, began = quick(), now()
    with pytest.raises(LimitsBrokenError, match="server errors"):
        await submit_forever(limits, SubmissionUnknown("503", status=503))
    assert 300 <= now() - began < 400
    assert limits.snapshot().sent < 15


async def test_the_breaker_lets_everybody_go_and_tries_again_later():
    limits = quick(breaker_seconds=20, breaker_answers=1)
    waiting = []
    send = await limits.start()
    limits.report(send, refusal(1))
    trial = await limits.start()
    waiting = [asyncio.create_task(limits.start()) for _ in range(3)]
    await asyncio.sleep(0)
    limits.report(trial, refusal(30))
    for task in waiting:
        with pytest.raises(LimitsBrokenError):
            await task
    assert len({id(task.exception()) for task in waiting}) == 3
    with pytest.raises(LimitsBrokenError) as broken:
        await limits.start()
    assert broken.value.retry_after == pytest.approx(60)
    assert limits.snapshot().waiting == 0
    await asyncio.sleep(60)
    limits.report(await limits.start())
    assert not limits.snapshot().broken
    limits.report(await limits.start())


async def test_too_long_a_pause_that_is_asked_for_by_a_second_refusal_ends_the_waits_too():
    limits = quick()
    first, second = await limits.start(), await limits.start()
    limits.report(first, refusal(2))
    waiting = asyncio.create_task(limits.start())
    await asyncio.sleep(0)
    limits.report(second, refusal(86_400))
    with pytest.raises(LimitsBrokenError) as broken:
        await asyncio.wait_for(waiting, 1)
    assert broken.value.retry_after == pytest.approx(86_400)
    await asyncio.sleep(86_400)
    limits.report(await limits.start())
    assert not limits.snapshot().broken


@pytest.mark.parametrize("error", [None, BadRequestError("no such LoRA"), InsufficientCreditsError("empty")])
async def test_an_answer_of_any_other_kind_shows_that_the_server_works(error):
    limits = quick()
    for _ in range(4):
        limits.report(await limits.start(), SubmissionUnknown("503", status=503))
    limits.report(await limits.start(), error)
    limits.report(await limits.start(), SubmissionUnknown("503", status=503))
    assert limits.snapshot().pauses == 0


async def test_an_answer_that_says_nothing_changes_nothing():
    limits = quick()
    for _ in range(10):
        limits.report(await limits.start(), LostAnswerError("lost"))
    snapshot = limits.snapshot()
    assert (snapshot.pauses, snapshot.used, snapshot.allowance) == (0, 10, 100_000)


async def test_one_that_never_left_gives_its_permission_back():
    limits = Limits(max_per_minute=1, max_in_flight=1)
    began = now()
    for _ in range(20):
        limits.report(await limits.start(), NotSentError("refused"))
    assert now() == began
    assert limits.snapshot().used == limits.snapshot().sent == 0


async def test_one_that_never_left_lets_a_waiter_go():
    limits = Limits(max_per_minute=1, max_in_flight=1)
    send = await limits.start()
    waiter = asyncio.create_task(started_at(limits))
    await asyncio.sleep(1)
    limits.report(send, NotSentError("refused"))
    assert await waiter == now()


async def test_only_the_first_report_counts():
    limits = Limits(max_per_minute=2, max_in_flight=1)
    send = await limits.start()
    limits.report(send)
    limits.report(send, NotSentError("refused"))
    limits.report(send, refusal(60))
    send.cancel()
    snapshot = limits.snapshot()
    assert (snapshot.used, snapshot.pauses, snapshot.refused, snapshot.sent) == (1, 0, 0, 1)


async def test_cancelled_at_the_moment_of_being_served_it_passes_permission_on():
    limits = Limits(max_per_minute=1, max_in_flight=1)
    send = await limits.start()
    served, following = (asyncio.create_task(limits.start()) for _ in range(2))
    await asyncio.sleep(1)
    limits.report(send, NotSentError("refused"))
    served.cancel()
    with pytest.raises(asyncio.CancelledError):
        await served
    began = now()
    await following
    assert now() == began


async def test_a_cancelled_trial_is_followed_by_another():
    limits = quick()
    limits.report(await limits.start(), refusal(5))
    trial = await limits.start()
    waiter = asyncio.create_task(started_at(limits))
    await asyncio.sleep(1)
    cancelled = now()
    trial.cancel()
    assert await waiter == cancelled


async def test_those_refused_after_the_first_lower_what_was_learned():
    limits = Limits(max_per_minute=100, max_in_flight=10, burst=True)
    sends = [await limits.start() for _ in range(60)]
    for number, send in enumerate(sends):
        limits.report(send, refusal(5) if number % 2 else None)
    assert limits.snapshot().allowance == 30


async def test_a_trial_that_fails_begins_the_next_pause_at_once():
    limits = quick()
    limits.report(await limits.start(), refusal(5))
    limits.report(await limits.start(), SubmissionUnknown("503", status=503))
    assert (limits.snapshot().pauses, limits.snapshot().pause_reason) == (2, "server errors")


async def test_after_a_trial_without_an_answer_no_herd_follows_either():
    limits = Limits(max_per_minute=600, max_in_flight=10, burst=True, learn=False)
    limits.report(await limits.start(), refusal(10))
    waiting = [asyncio.create_task(limits.start()) for _ in range(400)]
    await asyncio.sleep(15.01)
    assert limits.snapshot().sent <= 3 + 50  # what those 5 s would have let go
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_nobody_overtakes_those_whose_timer_is_due_and_has_not_fired():
    limits, loop = Limits(max_per_minute=1, max_in_flight=1), asyncio.get_running_loop()
    limits.report(await limits.start())
    waiting = asyncio.create_task(started_at(limits))
    await asyncio.sleep(1)
    assert isinstance(loop, VirtualClockLoop)
    loop.advance(100)
    late = asyncio.create_task(started_at(limits))
    assert await waiting < await late


async def test_after_a_wait_permission_is_given_without_yielding_again():
    limits = Limits(max_per_minute=600, max_in_flight=1)
    for take in (limits.start, limits.acquire):
        first = await take()
        waiting = asyncio.create_task(take())
        cancelled = asyncio.create_task(take())
        await asyncio.sleep(0)
        if not isinstance(first, Send):
            first.release()
            cancelled.cancel()
        (await waiting) if isinstance(first, Send) else (await waiting).release()
        await asyncio.gather(cancelled, return_exceptions=True)
        await asyncio.sleep(30)
        with pytest.raises(StopIteration):
            take().send(None)


async def test_a_burst_of_a_whole_window_grows_with_the_rate():
    limits = Limits(max_per_minute=2, max_in_flight=1, burst=True)
    limits.max_per_minute = 100
    began = now()
    for _ in range(100):
        limits.report(await limits.start())
    assert now() == began


async def test_a_timer_that_is_set_earlier_replaces_the_later_one():
    limits = Limits(max_per_minute=1, max_in_flight=1)
    limits.report(await limits.start())
    waiting = [asyncio.create_task(limits.start()) for _ in range(3)]
    await asyncio.sleep(1)
    limits.max_per_minute = 2
    assert sum(not timer.cancelled() for timer in asyncio.get_running_loop()._scheduled) == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_one_timer_however_many_wait():
    limits = Limits(max_per_minute=1, max_in_flight=1)
    await limits.start()
    waiting = [asyncio.create_task(limits.start()) for _ in range(1000)]
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    assert sum(not timer.cancelled() for timer in loop._scheduled) == 1
    assert limits.snapshot().waiting == 1000
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert limits.snapshot().waiting == 0


def test_on_a_second_loop_the_window_goes_on():
    """A virtual loop's clock begins anew: as if no time had passed."""
    limits = Limits(max_per_minute=2, max_in_flight=1)

    async def use() -> float:
        began = now()
        limits.report(await limits.start())
        return now() - began

    async def leave_one_waiting() -> None:
        await use()
        task = asyncio.create_task(use())
        await asyncio.sleep(1)
        task.cancel()

    took = []
    for main in (use, leave_one_waiting, use):
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            took.append(runner.run(main()))
    assert took[0] == 0
    assert took[2] == pytest.approx(60.01 - 29.5, abs=0.1)
    assert limits.snapshot().used == 2


def test_a_timer_of_a_loop_that_has_ended_is_not_waited_for():
    limits = Limits(max_per_minute=1, max_in_flight=1, window=0.3)

    async def leave_one_waiting() -> None:
        limits.report(await limits.start())
        task = asyncio.create_task(limits.start())
        await asyncio.sleep(0.01)
        task.cancel()

    async def wait() -> None:
        await asyncio.wait_for(limits.start(), 5)

    asyncio.run(leave_one_waiting())
    asyncio.run(wait())


def test_seeding_without_a_clock_is_refused():
    with pytest.raises(RuntimeError, match="no running event loop"):
        quick().seed([1.0])


@settings(deadline=None)
@given(
    limit=st.integers(1, 4),
    jobs=st.lists(
        st.tuples(
            st.floats(0, 100),  # when it comes
            st.one_of(st.none(), st.floats(0, 100)),  # how long until it is cancelled
            st.sampled_from(["accepted", "accepted", "never left", "no answer", "cancelled"]),
        ),
        max_size=15,
    ),
)
def test_whatever_is_cancelled_no_permit_is_lost_or_made_and_the_order_is_kept(limit, jobs):
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(_whatever_is_cancelled(limit, sorted(jobs, key=lambda job: job[0])))


async def _whatever_is_cancelled(limit: int, jobs: list[tuple[float, float | None, str]]) -> None:
    limits, served, left = Limits(max_per_minute=limit, max_in_flight=1, burst=True), [], []

    async def worker(number: int, fate: str) -> None:
        send = await limits.start()
        served.append(number)
        if fate != "never left":
            left.append(now())
        await asyncio.sleep(0.25)
        if fate == "accepted":
            limits.report(send)
        elif fate == "never left":
            limits.report(send, NotSentError("refused"))
        elif fate == "cancelled":
            send.cancel()

    loop, tasks = asyncio.get_running_loop(), []
    for number, (comes, cancelled_after, fate) in enumerate(jobs):
        await asyncio.sleep(max(0.0, 1000 + comes - now()))
        tasks.append(asyncio.create_task(worker(number, fate)))
        if cancelled_after is not None:
            loop.call_later(cancelled_after, tasks[-1].cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert served == sorted(served)
    for first in left:
        assert sum(first <= at <= first + 60 for at in left) <= limit

    await asyncio.sleep(70)
    assert limits.snapshot().used == limits.snapshot().waiting == 0
    began = now()
    for _ in range(limit):
        limits.report(await limits.start())
    assert now() == began
    limits.report(await limits.start())
    assert now() - began == pytest.approx(60.01, abs=1e-3)
