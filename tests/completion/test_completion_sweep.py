"""The list of predictions: what is asked of it, what of it is believed, and what happens when it is of no use."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from waiting_server import MODEL, Ends, WaitingServer, answer, iso, keeping, loop_time, now, watch_all

from wavespeed_qwen_async._answers import Answer
from wavespeed_qwen_async.errors import LostAnswerError
from wavespeed_qwen_async.predictions import Prediction

pytestmark = pytest.mark.anyio


@pytest.fixture
def server():
    return WaitingServer()


def delays(server, ends):
    return sorted(ends.at(name) - task.ends for name, task in server.tasks.items())


def completed_queries(server):
    return [(at, query) for at, query in server.lists if query["status"] == "completed"]


async def test_many_are_told_by_few_requests_within_half_a_second(server):
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(500, lambda index: 6 + index % 60 / 10))
    assert all(ends.of(name).ok for name in server.tasks)
    late = delays(server, ends)
    assert late[250] <= 0.45
    assert late[494] <= 1.2
    assert sum(server.requests.values()) <= 0.25 * 500


async def test_the_window_spans_what_is_in_flight_and_no_more(server):
    async with keeping(server) as keeper:
        oldest = server.submitted("old", 14.0)
        watches = [oldest]
        await asyncio.sleep(2)
        watches += server.many(20)
        newest = max(task.created for task in server.tasks.values())
        began = min(task.created for task in server.tasks.values())
        await watch_all(keeper, watches)
    for _, query in server.lists:
        assert query["page_size"] == 100
        assert query["model"] == MODEL
        assert began - 0.1 <= loop_time(query["created_after"]) <= newest
        assert loop_time(query["created_before"]) <= newest + 1.01
    assert {query["status"] for _, query in server.lists} <= {"completed", "failed", "cancelled", "timeout", "deleted"}


async def test_the_lower_bound_moves_up_with_what_is_still_awaited(server):
    async with keeping(server) as keeper:
        ends = Ends()
        for index in range(300):
            keeper.watch(server.submitted(f"p{index}", 8.0), ends.take(f"p{index}"))
            await asyncio.sleep(0.1)
        await asyncio.sleep(15)
    for at, query in completed_queries(server):
        assert at - loop_time(query["created_after"]) < 8.0 + 3.5  # what a single check has shown is looked for, too
    assert len(ends.all) == 300
    assert delays(server, ends)[-1] < 1.0


async def test_two_models_in_flight_are_asked_for_together(server):
    async with keeping(server) as keeper:
        predictions = [server.submitted(f"p{index}", 7.0, model=MODEL) for index in range(10)]
        predictions += [
            prediction.model_copy(update={"model": "wavespeed-ai/qwen-image/text-to-image-lora"})
            for prediction in (server.submitted(f"q{index}", 7.0) for index in range(10))
        ]
        ends = await watch_all(keeper, predictions)
    assert len(ends.all) == 20
    assert all("model" not in query for _, query in server.lists)


@pytest.mark.parametrize("total", [True, False])
async def test_pages_are_read_as_far_as_needed_with_both_ends_pinned(server, total):
    server.tell_list = lambda query: server.list_of(query, total=total)
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(250, lambda _: 7.0))
    assert len(ends.all) == 250
    pages = [query for _, query in completed_queries(server) if query["page"] > 1]
    assert [query["page"] for query in pages] == [2, 3]
    first = next(query for _, query in reversed(completed_queries(server)) if query["page"] == 1)
    for query in pages:
        assert (query["created_after"], query["created_before"]) == (first["created_after"], first["created_before"])


async def test_paging_stops_when_all_that_is_awaited_was_seen(server):
    """A thousand predictions of others lie between ours; the oldest of ours is pushed while the first page is read."""
    async with keeping(server) as keeper:
        ends = Ends()
        keeper.watch(server.submitted("first", 8.0), ends.take("first"))
        await asyncio.sleep(0.5)
        server.many(1000, lambda _: 1.0)
        await asyncio.sleep(0.5)
        for index in range(50):
            keeper.watch(server.submitted(f"ours{index}", 7.0), ends.take(f"ours{index}"))

        def push_meanwhile(query):
            if now() >= server.tasks["first"].ends:
                keeper.push(Prediction.model_validate(server.tasks["first"].item(now())))
            return server.list_of(query)

        server.tell_list = push_meanwhile
        await asyncio.sleep(10)
    assert len(ends.all) == 51
    after = [query["page"] for at, query in completed_queries(server) if at >= server.tasks["first"].ends]
    assert after[after.index(1) :] == [1]


@pytest.mark.parametrize("young", [0, 30])
async def test_no_page_is_read_beyond_the_last_that_tells_something(server, young):
    """Three hundred of others lie between ours, of whom the first is given up while the first page is read.

    Those of ours that are too young are of no interest to this sweep.
    """
    async with keeping(server) as keeper:
        ends = Ends()
        first = keeper.watch(server.submitted("first", 100.0), ends.take("first"))
        await asyncio.sleep(0.2)
        server.many(300, lambda _: 0.5)
        await asyncio.sleep(0.2)
        for index in range(50):
            keeper.watch(server.submitted(f"ours{index}", 1.0), ends.take(f"ours{index}"))

        def give_up_meanwhile(query):
            if query["status"] == "completed":
                first.cancel()
            return server.list_of(query)

        server.tell_list = give_up_meanwhile
        await asyncio.sleep(3)
        for index in range(young):
            keeper.watch(server.submitted(f"young{index}", 100.0), ends.take(f"young{index}"))
        await asyncio.sleep(2.3)
        assert len(ends.all) == 50
        assert [query["page"] for _, query in completed_queries(server)] == [1]


async def test_a_straggler_does_not_stretch_the_window(server):
    """One job takes two minutes; hundreds of others come and go meanwhile."""
    async with keeping(server) as keeper:
        ends = Ends()
        keeper.watch(server.submitted("slow", 120.0), ends.take("slow"))
        for index in range(1500):
            keeper.watch(server.submitted(f"p{index}", 8.0), ends.take(f"p{index}"))
            await asyncio.sleep(0.1)
        await asyncio.sleep(30)
    assert ends.of("slow").ok
    assert ends.at("slow") - server.tasks["slow"].ends < 30
    assert len(ends.all) == 1501
    assert max(query["page"] for _, query in server.lists) <= 3
    assert server.requests["list"] < 1.6 * 2 * 150


@pytest.mark.slow
async def test_jobs_that_take_longer_than_was_thought_are_no_stragglers(server):
    async with keeping(server) as keeper:
        ends = Ends()
        for index in range(
            1500
        ):  # when the first of them ends, at 60 s, all others were submitted as jobs of 6 to 10 s
            keeper.watch(server.submitted(f"p{index}", 60.0 + index * 37 % 600 / 10), ends.take(f"p{index}"))
            await asyncio.sleep(0.03)
        await asyncio.sleep(130)
    late = delays(server, ends)
    assert len(late) == 1500
    assert late[-1] < 2.5  # one taken for a straggler would wait for its turn to be checked singly
    assert server.requests["result"] < 120


async def test_predictions_of_yesterday_do_not_make_the_list_long(server):
    """Ten thousand others lie between them and ours: they are checked singly, and ours are told by the list."""
    for index in range(10_000):
        server.submitted(f"other{index}", 5.0, age=80_000 - 7 * index)
    async with keeping(server) as keeper:
        old = [server.submitted(f"old{index}", 90_000.0, age=80_000) for index in range(20)]
        young = [server.submitted(f"young{index}", 8.0) for index in range(30)]
        ends = Ends()
        for prediction in old + young:
            keeper.watch(prediction, ends.take(prediction.id), timeout=120)
        await asyncio.sleep(121)
    assert all(ends.of(prediction.id).ok for prediction in young)
    assert server.requests["list"] < 150
    assert all(len(server.checks[prediction.id]) <= 8 for prediction in old)


async def test_the_last_of_a_large_burst_are_checked_singly_instead_of_paging_for_them(server):
    """3,000 submitted at once: when all but a few are there, thirty pages would be read for those."""
    async with keeping(server) as keeper:
        ends = await watch_all(
            keeper, server.many(3000, lambda index: 20.0 if index % 300 == 7 else 6 + index % 60 / 10)
        )
    assert len(ends.all) == 3000
    at = max(task.ends for task in server.tasks.values())
    assert sum(at - 6 < asked for asked, _ in server.lists) < 30
    assert max(ends.at(name) for name in server.tasks) - at < 6
    assert sum(server.requests.values()) < 0.2 * 3000


async def test_no_dozens_of_pages_are_read_for_the_few_that_are_left_though_they_are_not_late(server):
    async with keeping(server) as keeper:
        predictions = server.many(3000, lambda index: 12.0 if index % 300 == 7 else 6 + index % 20 / 10)
        ends = await watch_all(keeper, predictions)
    assert len(ends.all) == 3000
    slow = [name for name, task in server.tasks.items() if task.ends - task.created > 11]
    all_others_seen = max(ends.at(name) for name in server.tasks if name not in slow)
    assert sum(all_others_seen < asked for asked, _ in server.lists) < 15  # a sweep has thirty pages
    assert all(ends.at(name) - server.tasks[name].ends < 4 for name in slow)


async def test_ten_that_are_late_together_do_not_make_the_list_long_for_all_others(server):
    async with keeping(server) as keeper:
        ends = Ends()
        for index in range(1500):
            name = f"p{index}"
            keeper.watch(server.submitted(name, 90.0 if 100 <= index < 110 else 7.0), ends.take(name), timeout=200)
            await asyncio.sleep(0.04)
        await asyncio.sleep(60)
    assert len(ends.all) == 1500
    assert server.requests["list"] < 180  # 360 where each sweep reaches back to the ten


async def test_a_list_that_shows_all_it_should_is_seldom_audited(server):
    async with keeping(server) as keeper:
        ends = Ends()
        for index in range(1200):
            name = f"p{index}"
            keeper.watch(server.submitted(name, 6.0 + index % 60 / 10), ends.take(name))
            await asyncio.sleep(0.05)
        await asyncio.sleep(20)
    assert len(ends.all) == 1200
    assert server.requests["result"] < 22  # in 60 s: every 2 s at first, then every 6 s


@pytest.mark.parametrize("total", [True, False])
async def test_many_ids_of_a_crashed_run_are_told_by_the_list(server, total):
    server.tell_list = lambda query: server.list_of(query, total=total)
    async with keeping(server) as keeper:
        old = [server.submitted(f"p{index}", 9.0, age=300 + index / 10) for index in range(1000)]
        ends = await watch_all(keeper, old)
    assert len(ends.all) == 1000
    assert sum(server.requests.values()) < 100


async def test_failed_ones_are_told_by_the_list_soon(server):
    async with keeping(server) as keeper:
        predictions = server.many(50)
        bad = server.submitted("bad", 1.0, status="failed", outputs=[], code=1200, error="no")
        ends = await watch_all(keeper, [*predictions, bad])
    assert ends.of("bad").code == 1200
    assert ends.at("bad") - server.tasks["bad"].ends < 3
    assert not server.checks["bad"]


@pytest.mark.parametrize("status", ["cancelled", "timeout", "deleted"])
async def test_rare_ends_are_told_too(server, status):
    async with keeping(server) as keeper:
        predictions = server.many(50, lambda _: 60.0)
        odd = server.submitted("odd", 1.0, status=status, outputs=[])
        ends = await watch_all(keeper, [*predictions, odd])
    assert ends.of("odd").status == status
    assert ends.at("odd") - server.tasks["odd"].ends < 40


@pytest.mark.parametrize(
    "told",
    [
        {"outputs": []},
        {"outputs": ["iVBORw0KGgoAAA"]},
        {"has_nsfw_contents": [False, False]},
        {"outputs": None},
        {"status": "failed", "outputs": []},
    ],
    ids=["no outputs", "cut base64", "fewer outputs than flags", "null", "a failure without reason"],
)
async def test_an_item_that_does_not_tell_all_is_checked_singly(server, told):
    def without(query):
        page = json.loads(server.list_of(query).body)["data"]
        page["items"] = [item | told if item["id"] == "p0" else item for item in page["items"]]
        return answer(page)

    server.tell_list = without
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(30, lambda _: 7.0))
        whole = Prediction.model_validate(server.tasks["p0"].item(now()))
    assert ends.of("p0") == whole
    assert ends.at("p0") - server.tasks["p0"].ends < 0.8
    assert len(server.checks["p0"]) <= 2


async def test_the_list_and_a_single_check_hand_over_the_same(server):
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(30, lambda _: 7.0))
        for name in server.tasks:
            assert ends.of(name) == Prediction.model_validate(server.tasks[name].item(now()))


@pytest.mark.parametrize(
    "ill",
    [
        answer(None, 500),
        answer(None, 404),
        answer(None, 401),
        answer({"nothing": 1}),
        answer({"items": [1, None, {"id": 5}, {"id": "p0", "status": "completed", "outputs": {"a": 1}}]}),
        Answer(200, {}, b"<html>502</html>"),
        Answer(200, {}, b'{"code":200,"data":{"items":[{"id":"p0","sta'),
        LostAnswerError("lost"),
        ZeroDivisionError("a mistake of ours"),
    ],
    ids=["500", "404", "401", "no items", "odd items", "html", "cut", "lost", "mistake"],
)
async def test_a_list_of_no_use_costs_nobody_a_result(server, ill):
    server.tell_list = lambda _: ill
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(200, lambda index: 6 + index % 60 / 10))
    assert all(ends.of(name).ok for name in server.tasks)
    assert server.spacing() >= 2
    assert sum(server.requests.values()) <= 3 * 200
    assert delays(server, ends)[-1] < 9


async def test_a_list_that_hangs_is_left_alone(server):
    server.list_latency = 1000.0
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(50))
    assert len(ends.all) == 50
    assert server.requests["list"] <= 3
    assert delays(server, ends)[-1] < 40


async def test_a_list_of_another_known_shape_is_read(server):
    def bare(query):
        return answer(json.loads(server.list_of(query).body)["data"]["items"])

    server.tell_list = bare
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(100))
    assert len(ends.all) == 100
    assert server.requests["result"] < 20


async def test_a_list_that_heeds_no_filter_is_still_right(server):
    def unfiltered(query):
        return server.list_of({"page": query["page"], "page_size": query["page_size"]})

    server.tell_list = unfiltered
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(250))
    assert all(ends.of(name).ok for name in server.tasks)
    assert delays(server, ends)[125] < 1.2


async def test_pages_too_large_to_be_cheap_end_the_sweeps(server):
    def fat(query):
        page = json.loads(server.list_of(query).body)["data"]
        for item in page["items"]:
            item["ballast"] = "x" * 1_000_000
        return answer(page)

    server.tell_list = fat
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(24, lambda index: 7.0 + index))
    assert len(ends.all) == 24
    assert server.requests["list"] < 40


async def test_a_list_that_had_proven_itself_and_then_lags_is_found_out_too(server, caplog):
    async with keeping(server) as keeper:
        ends = Ends()
        for index in range(700):
            if index == 435:  # of six moments between two audits, the one after which it took longest
                began, server.lag = now(), 30.0
            name = f"p{index}"
            keeper.watch(server.submitted(name, 6.0 + index % 60 / 10), ends.take(name))
            await asyncio.sleep(0.1)
        await asyncio.sleep(20)
    assert len(ends.all) == 700
    assert "the list of predictions is of no use" in caplog.text
    assert max(at for at, _ in server.lists if at < began + 60) - began < 10.5
    assert delays(server, ends)[-1] < 11


async def test_a_list_that_lags_is_found_out_said_once_and_tried_again_later(server, caplog):
    server.lag = 30.0
    async with keeping(server) as keeper:
        ends = Ends()
        for index in range(1000):
            name = f"p{index}"
            keeper.watch(server.submitted(name, 8.0), ends.take(name))
            await asyncio.sleep(0.25)
            if index == 500:
                server.lag = 0.0
        await asyncio.sleep(20)
    assert len(ends.all) == 1000
    assert delays(server, ends)[-1] < 12
    assert server.spacing() >= 2
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "one by one" in warnings[0].getMessage()
    late_checks = [at for times in server.checks.values() for at in times if at > now() - 70]
    assert len(late_checks) < 200, "the list is used again"


async def test_a_list_that_shows_things_a_second_late_is_no_reason_to_leave_it(server, caplog):
    server.lag = 1.0
    async with keeping(server) as keeper:
        ends = await watch_all(keeper, server.many(400, lambda index: 6 + index % 60 / 10))
    assert len(ends.all) == 400
    assert not caplog.records
    assert server.requests["result"] < 60


async def test_one_failure_of_the_list_is_an_accident(server, caplog):
    failures = iter([answer(None, 502)])
    server.tell_list = lambda query: next(failures, None) or server.list_of(query)
    async with keeping(server) as keeper:
        await watch_all(keeper, server.many(100))
    assert not caplog.records
    assert server.requests["result"] < 20


async def test_thousands_in_flight_are_not_paged_through_while_none_is_finished(server):
    async with keeping(server) as keeper:
        for prediction in server.many(3000, lambda _: 300.0):
            keeper.watch(prediction, lambda _: None)
        await asyncio.sleep(100)
        assert server.requests["list"] < 300
        assert server.requests["result"] < 100


async def test_predictions_without_a_readable_time_are_checked_singly(server):
    async with keeping(server) as keeper:
        predictions = [
            prediction.model_copy(update={"created_at": None}) for prediction in server.many(10, lambda _: 7.0)
        ]
        ends = Ends()
        for prediction in predictions:
            keeper.watch(prediction, ends.take(prediction.id))
        await asyncio.sleep(0.2)
        assert server.requests["result"] == 10  # which tells the time; from there on the list will do
        await asyncio.sleep(20)
    assert len(ends.all) == 10
    assert server.requests["list"] > 0


def test_times_are_written_as_the_server_tells_them():
    assert loop_time(iso(1234.5)) == pytest.approx(1234.5, abs=1e-5)
