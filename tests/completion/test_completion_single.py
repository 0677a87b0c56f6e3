"""Single checks: when they are made, and what follows from each answer."""

from __future__ import annotations

import asyncio
import logging
import random
from itertools import pairwise

import pytest
from waiting_server import Ends, WaitingServer, answer, keeping, now, watch_all

from wavespeed_qwen_async._answers import failure_of
from wavespeed_qwen_async._completion.keeper import Keeper
from wavespeed_qwen_async._tasks import Tasks
from wavespeed_qwen_async.errors import (
    AuthenticationError,
    NotSentError,
    PermissionDeniedError,
    RateLimitError,
    ResultTimeout,
    ResultUnavailable,
    ServerError,
    SessionClosedError,
)
from wavespeed_qwen_async.predictions import Prediction

pytestmark = pytest.mark.anyio


@pytest.fixture
def server():
    return WaitingServer()


async def test_one_job_is_first_checked_near_the_time_such_jobs_take_then_ever_more_rarely(server):
    async with keeping(server) as keeper:
        began = now()
        await keeper.wait(server.submitted("p", 40.0))
        times = [at - began for at in server.checks["p"]]
        assert 7.0 < times[0] < 9.5
        gaps = [later - sooner for sooner, later in pairwise(times)]
        assert gaps[0] >= 2.05
        assert gaps[-1] > 2 * gaps[0]
        assert len(times) <= 9
        assert server.requests["list"] == 0


async def test_what_is_known_by_its_id_only_is_checked_at_once(server):
    server.submitted("p", 5.0, age=100.0)
    async with keeping(server) as keeper:
        began = now()
        assert (await keeper.wait("p")).ok
        assert now() - began < 0.1
    assert server.requests == {"result": 1}


async def test_an_id_that_is_not_finished_yet_takes_its_place_in_the_schedule(server):
    server.submitted("p", 9.0)
    async with keeping(server) as keeper:
        assert (await keeper.wait("p")).ok
    assert len(server.checks["p"]) <= 3
    assert server.spacing() >= 2


async def test_the_schedule_follows_what_such_jobs_take(server):
    async with keeping(server) as keeper:
        for index in range(40):
            await keeper.wait(server.submitted(f"p{index}", 1.5))
        began = now()
        await keeper.wait(server.submitted("last", 1.5))
        assert now() - began < 1.8
        for index in range(150):
            await keeper.wait(server.submitted(f"q{index}", 30.0))
        assert len(server.checks["q149"]) <= 2


async def test_the_schedule_comes_down_even_where_the_server_does_not_tell_how_long_it_took(server):
    async with keeping(server) as keeper:
        for index in range(80):
            await keeper.wait(server.submitted(f"p{index}", 1.5, timings={}))
        began = now()
        await keeper.wait(server.submitted("last", 1.5, timings={}))
        assert now() - began < 3.0


async def test_times_compared_are_the_servers_own(server):
    """A prediction created 5 s ago by the server's clock is checked 5 s sooner than one created now."""
    async with keeping(server) as keeper:
        began = now()
        await keeper.wait(server.submitted("old", 5.5, age=5.0))
        assert server.checks["old"][0] - began < 4.6
        await asyncio.sleep(1)
        server.told_time = False
        began = now()
        await keeper.wait(server.submitted("young", 9.0, age=5.0))
        assert server.checks["young"][0] - began > 5.0


async def test_many_watches_of_one_id_share_one_set_of_requests(server):
    async with keeping(server) as keeper:
        prediction = server.submitted("p", 9.0)
        results = await asyncio.gather(*(keeper.wait(prediction) for _ in range(50)), *(keeper.wait("p"),))
    assert len({result.id for result in results}) == 1
    assert server.requests["result"] <= 3


async def test_cancelling_one_waiter_disturbs_no_other(server):
    async with keeping(server) as keeper:
        prediction = server.submitted("p", 9.0)
        waiters = [asyncio.create_task(keeper.wait(prediction)) for _ in range(3)]
        await asyncio.sleep(1)
        waiters[0].cancel()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        alone = asyncio.create_task(keeper.wait(server.submitted("q", 9.0)))
        await asyncio.sleep(1)
        alone.cancel()
        await asyncio.gather(alone, return_exceptions=True)
        assert len(keeper) == 0
    assert isinstance(results[0], asyncio.CancelledError)
    assert [result.id for result in results[1:]] == ["p", "p"]


async def test_what_nobody_awaits_any_more_is_not_asked_for(server):
    async with keeping(server) as keeper:
        ends = Ends()
        watch = keeper.watch(server.submitted("p", 9.0), ends.take("p"))
        await asyncio.sleep(1)
        watch.cancel()
        watch.cancel()
        await asyncio.sleep(100)
        assert len(keeper) == 0
    assert not ends.all
    assert not server.requests


async def test_a_watch_cancelled_by_another_ones_end_is_not_called(server):
    async with keeping(server) as keeper:
        ends, prediction = Ends(), server.submitted("p", 9.0)
        keeper.watch(prediction, lambda _: second.cancel())
        second = keeper.watch(prediction, ends.take("second"))
        third = ends.take("third")
        keeper.watch(prediction, third)
        await asyncio.sleep(60)
    assert set(ends.all) == {"third"}


async def test_two_checks_are_2_s_apart_even_when_the_watch_was_given_up_in_between(server):
    async with keeping(server) as keeper:
        server.submitted("p", 60.0)
        server.latency = 0.5
        for _ in range(40):
            watch = keeper.watch("p", lambda _: None)
            await asyncio.sleep(0.3)
            watch.cancel()
    assert len(server.checks["p"]) >= 5
    assert server.spacing() >= 2


async def test_a_check_that_outlives_its_watch_still_counts_and_blocks_no_later_one(server):
    server.submitted("p", 0.0)
    server.latency = 0.5
    async with keeping(server) as keeper:
        watch = keeper.watch("p", lambda _: None)
        await asyncio.sleep(0.1)
        watch.cancel()
        await asyncio.sleep(1.0)
        assert (await keeper.wait("p", timeout=20)).ok
    assert len(server.checks["p"]) == 2
    assert server.spacing() >= 2


async def test_of_two_that_time_out_together_one_may_cancel_the_other(server):
    async with keeping(server) as keeper:
        ends, prediction = Ends(), server.submitted("p", 100.0)
        keeper.watch(prediction, lambda _: second.cancel(), timeout=10)
        second = keeper.watch(prediction, ends.take("second"), timeout=10)
        keeper.watch(prediction, ends.take("third"), timeout=10)
        await asyncio.sleep(11)
        assert set(ends.all) == {"third"}
        assert len(keeper) == 0


async def test_waiting_ends_at_its_timeout_to_the_millisecond_and_tells_the_id(server):
    async with keeping(server, timeout=100.0) as keeper:
        prediction, began = server.submitted("p", 1000.0), now()
        with pytest.raises(ResultTimeout, match="p was not finished after 100 s") as caught:
            await keeper.wait(prediction)
        assert now() - began == pytest.approx(100.0, abs=0.002)
        assert (caught.value.prediction_id, caught.value.billed, caught.value.transient) == ("p", "yes", True)
        with pytest.raises(ResultTimeout):
            await keeper.wait(prediction, timeout=0)


async def test_each_watch_has_a_timeout_of_its_own(server):
    async with keeping(server) as keeper:
        prediction, began, ends = server.submitted("p", 50.0), now(), Ends()
        keeper.watch(prediction, ends.take("short"), timeout=20)
        keeper.watch(prediction, ends.take("long"), timeout=200)
        await asyncio.sleep(100)
    assert isinstance(ends.of("short"), ResultTimeout)
    assert ends.at("short") - began == pytest.approx(20, abs=0.002)
    assert ends.of("long").ok


async def test_a_short_timeout_ends_with_one_look_at_least(server):
    async with keeping(server) as keeper:
        assert (await keeper.wait(server.submitted("p", 1.5), timeout=3.0)).ok


async def test_an_answer_that_hangs_does_not_hold_up_the_timeout(server):
    server.latency = 500.0
    async with keeping(server) as keeper:
        began = now()
        with pytest.raises(ResultTimeout):
            await keeper.wait(server.submitted("p", 5.0), timeout=30)
        assert now() - began == pytest.approx(30, abs=0.01)


async def test_no_such_prediction_is_not_believed_just_after_the_submit(server):
    hidden_until = now() + 25

    def late(name):
        return server.result_of(name) if now() > hidden_until else answer(None, 404)

    server.tell_result = late
    async with keeping(server) as keeper:
        assert (await keeper.wait(server.submitted("p", 9.0))).ok


async def test_no_such_prediction_is_believed_in_the_end(server):
    server.tell_result = lambda _: answer(None, 404)
    async with keeping(server) as keeper:
        began = now()
        with pytest.raises(ResultUnavailable, match="knows no prediction p") as caught:
            await keeper.wait(server.submitted("p", 9.0))
        assert 30 <= now() - began < 60
        assert (caught.value.status, caught.value.prediction_id, caught.value.billed) == (404, "p", "yes")


async def test_an_id_that_nobody_knows_is_told_soon(server):
    async with keeping(server) as keeper:
        began = now()
        with pytest.raises(ResultUnavailable):
            await keeper.wait("typing-error")
        assert now() - began < 6
        assert server.requests["result"] == 3


@pytest.mark.parametrize("status", ["failed", "cancelled", "timeout", "deleted"])
async def test_every_final_status_ends_the_wait(server, status):
    async with keeping(server) as keeper:
        ended = await keeper.wait(server.submitted("p", 3.0, status=status, outputs=[], error="why", code=1200))
    assert ended.status == status
    assert "why" in str(failure_of(ended))


async def test_an_unknown_status_goes_on_with_one_warning(server, caplog):
    async with keeping(server) as keeper:
        with pytest.raises(ResultTimeout):
            await keeper.wait(server.submitted("p", 3.0, status="archived"), timeout=60)
    assert [record.getMessage() for record in caplog.records if "archived" in record.getMessage()] == [
        "unknown status 'archived' of a prediction, taken to be not final"
    ]


async def test_completed_without_outputs_is_not_believed_at_once(server):
    shown_from = now() + 11

    def late(name):
        item = server.tasks[name].item(now())
        return answer(item if now() > shown_from else item | {"outputs": []})

    server.tell_result = late
    async with keeping(server) as keeper:
        assert (await keeper.wait(server.submitted("p", 5.0))).raw_outputs


async def test_completed_without_outputs_is_believed_in_the_end(server):
    async with keeping(server) as keeper:
        with pytest.raises(ResultUnavailable, match="no longer tells its outputs") as caught:
            await keeper.wait(server.submitted("p", 5.0, outputs=[]))
    assert caught.value.prediction_id == "p"


async def test_a_finished_prediction_is_handed_over_by_the_loop_not_in_the_call(server):
    async with keeping(server) as keeper:
        server.submitted("p", 0.0)
        finished = await keeper.wait("p")
        ends = Ends()
        keeper.watch(finished, ends.take("p"))
        keeper.watch(finished, ends.take("cancelled")).cancel()
        assert not ends.all
        await asyncio.sleep(0)
        assert ends.of("p") is finished
        assert "cancelled" not in ends.all
    assert server.requests["result"] == 1


async def test_server_errors_are_waited_out(server):
    well_from = now() + 60

    def ill(name):
        return server.result_of(name) if now() > well_from else answer(None, 503)

    server.tell_result = ill
    async with keeping(server) as keeper:
        assert (await keeper.wait(server.submitted("p", 5.0))).ok
    assert server.requests["result"] < 15


async def test_a_server_that_says_when_to_come_back_is_obeyed(server):
    busy = iter([ServerError("503", retry_after=10.0)])
    server.tell_result = lambda name: next(busy, None) or server.result_of(name)
    async with keeping(server) as keeper:
        await keeper.wait(server.submitted("p", 5.0))
    first, second = server.checks["p"]
    assert second - first >= 10.0


async def test_a_server_out_of_reach_is_left_in_peace_however_many_wait(server):
    away_until = now() + 120

    def away(told):
        return lambda *args: told(*args) if now() > away_until else NotSentError("no connection")

    server.tell_result, server.tell_list = away(server.result_of), away(server.list_of)
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(200))
        assert all(ends.of(name).ok for name in server.tasks)
        assert max(ends.at(name) for name in server.tasks) - away_until < 40
    asked = [at for at, _ in server.lists] + [at for times in server.checks.values() for at in times]
    assert sum(at < away_until for at in asked) < 60
    assert server.spacing() >= 2


async def test_a_rate_limit_on_reads_pauses_all_of_them(server):
    refused_at = []

    def refuse_first(name):
        if not refused_at:
            refused_at.append(now())
            return RateLimitError("429", retry_after=10.0)
        return server.result_of(name)

    server.tell_result = refuse_first
    async with keeping(server, lists=False) as keeper:
        await watch_all(keeper, server.many(30))
    after = [at for times in server.checks.values() for at in times if refused_at[0] + 0.1 < at]
    assert min(after) - refused_at[0] >= 10.0


async def test_a_revoked_key_is_told_to_all_soon(server):
    def refuse(_):
        return answer(None, 401)

    server.tell_result = server.tell_list = refuse
    async with keeping(server) as keeper:
        began = now()
        ends = await watch_all(keeper, server.many(50))
        assert now() - began < 20
    for name in server.tasks:
        error = ends.of(name)
        assert isinstance(error, AuthenticationError)
        assert (error.billed, error.prediction_id) == ("yes", name)


async def test_a_revoked_key_is_told_to_those_too_whose_turn_is_not_yet_come(server):
    server.tell_result = lambda _: answer(None, 401)
    async with keeping(server) as keeper:
        began = now()
        server.submitted("old", 0.0)
        ends = await watch_all(keeper, [*server.many(20), Prediction(id="old")])
        assert now() - began < 6
    assert all(isinstance(ends.of(name), AuthenticationError) for name in server.tasks)
    assert server.requests == {"result": 3} | ({"list": server.requests["list"]} if server.requests["list"] else {})


async def test_refusals_of_the_key_now_and_then_are_accidents(server):
    server.tell_result = lambda name: (
        answer(None, 401) if server.requests["result"] % 3 == 0 else server.result_of(name)
    )
    async with keeping(server, lists=False) as keeper:
        ends = await watch_all(keeper, [server.submitted(f"p{index}", 8.0 + 3 * index) for index in range(20)])
    assert all(ends.of(name).ok for name in server.tasks)


async def test_one_refusal_of_the_key_is_an_accident(server):
    refusals = iter([True, True])

    def refuse(name):
        return answer(None, 401) if next(refusals, False) else server.result_of(name)

    server.tell_result = refuse
    async with keeping(server) as keeper:
        assert (await keeper.wait(server.submitted("p", 9.0))).ok


async def test_a_refusal_of_one_prediction_concerns_no_other(server):
    def refuse(name):
        return answer(None, 403) if name == "p0" else server.result_of(name)

    server.tell_result = refuse
    async with keeping(server, lists=False) as keeper:
        ends = await watch_all(keeper, server.many(5))
    assert isinstance(ends.of("p0"), PermissionDeniedError)
    assert (ends.of("p0").billed, ends.of("p0").prediction_id) == ("yes", "p0")
    assert all(ends.of(f"p{index}").ok for index in range(1, 5))


async def test_base64_is_checked_singly_however_many_there_are(server):
    predictions = [server.submitted(f"p{index}", 6 + index % 5, outputs=["aGVsbG8="]) for index in range(50)]
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, predictions, single=True)
    assert all(ends.of(name).raw_outputs == ("aGVsbG8=",) for name in server.tasks)
    assert server.requests["list"] == 0
    assert server.requests["result"] <= 3 * 50


async def test_a_later_watch_may_know_that_the_list_can_not_tell(server):
    async with keeping(server) as keeper:
        ends, predictions = Ends(), server.many(10, lambda _: 30.0)
        for prediction in predictions:
            keeper.watch(prediction, ends.take(prediction.id))
            keeper.watch(prediction, ends.take(prediction.id + "b"), single=True)
        await asyncio.sleep(60)
    assert len(ends.all) == 20
    assert server.requests["list"] == 0


async def test_a_waiter_cancelled_in_the_moment_of_its_error_leaves_no_noise(server):
    async with keeping(server) as keeper:
        waiting = asyncio.create_task(keeper.wait(server.submitted("p", 1000.0), timeout=10.0))
        await asyncio.sleep(0)  # so that its watch is the first to end
        keeper.watch(server.tasks["p"].name, lambda _: waiting.cancel(), timeout=10.0)
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_poll_mode_never_asks_for_the_list(server):
    async with keeping(server, lists=False) as keeper:
        ends = await watch_all(keeper, server.many(200))
    assert len(ends.all) == 200
    assert server.requests["list"] == 0
    assert server.spacing() >= 2


async def test_a_callback_that_raises_harms_nobody_else(server):
    def broken(_):
        raise ValueError("mine")

    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    async with keeping(server) as keeper:
        prediction, ends = server.submitted("p", 5.0), Ends()
        keeper.watch(prediction, broken)
        keeper.watch(prediction, ends.take("p"))
        await asyncio.sleep(30)
        assert ends.of("p").ok
    assert [str(error) for error in told] == ["mine"]


async def test_an_unexpected_exception_in_a_check_is_logged_and_waited_out(server, caplog):
    failures = iter([ZeroDivisionError("bug")])

    def fail_first(name):
        return next(failures, None) or server.result_of(name)

    server.tell_result = fail_first
    async with keeping(server) as keeper:
        assert (await keeper.wait(server.submitted("p", 5.0))).ok
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_watches_end_even_when_the_owner_of_the_tasks_is_closed_first(server):
    tasks = Tasks()
    keeper = Keeper(server, tasks, timeout=600, rng=random.Random(1))
    ends = Ends()
    keeper.watch(server.submitted("p", 9.0), ends.take("p"))
    await tasks.close()
    await asyncio.sleep(60)
    assert isinstance(ends.of("p"), SessionClosedError)
    assert (ends.of("p").prediction_id, ends.of("p").billed) == ("p", "yes")
    await keeper.close()
    with pytest.raises(SessionClosedError):
        keeper.watch("p", ends.take("q"))


async def test_errors_handed_to_several_watches_are_not_one_object(server):
    server.tell_result = lambda _: answer(None, 404)
    async with keeping(server) as keeper:
        ends = Ends()
        keeper.watch("p", ends.take("one"))
        keeper.watch("p", ends.take("two"))
        await asyncio.sleep(20)
    assert str(ends.of("one")) == str(ends.of("two"))
    assert ends.of("one") is not ends.of("two")
    assert ends.of("two").prediction_id == "p"
