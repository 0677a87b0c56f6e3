"""Lost submits of a plain session, against a list that is whole, late, bare, full of holes, or down."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from wavespeed_qwen_async import AuthenticationError, ConfigurationError, SubmissionUnknown, TextToImage

pytestmark = pytest.mark.anyio

LOST = ["drop_after", "status_after", "html", "truncate"]


def now():
    return asyncio.get_running_loop().time()


async def test_a_session_says_what_it_does_about_lost_submits(opened):
    with pytest.raises(ConfigurationError, match="on_unknown"):
        opened(on_unknown="guess")


@pytest.mark.parametrize("action", LOST)
async def test_accepted_and_lost_it_is_found(session, emulator, action):
    emulator.faults.add("submit", action)
    prediction = await session.generate("a fox")
    assert prediction.ok
    assert prediction.job.prompt == "a fox"
    assert [record.id for record in emulator.ledger.accepted] == [prediction.id]


@pytest.mark.parametrize("action", ["drop", "status"])
async def test_lost_before_it_was_accepted_it_is_sent_again(session, emulator, action):
    emulator.faults.add("submit", action, times=1)
    prediction = await session.generate("a fox")
    assert prediction.ok
    assert len(emulator.ledger.accepted) == 1


async def test_alone_it_is_sent_again_only_when_the_settle_time_has_passed(session, emulator):
    emulator.faults.add("submit", "drop", times=1)
    began = now()
    await session.submit(TextToImage(prompt="x"))
    assert now() - began > 60


async def test_something_newer_in_the_list_proves_it_fresh_sooner(session, emulator):
    emulator.faults.add("submit", "drop", times=1)
    began = now()
    lost = asyncio.create_task(session.submit(TextToImage(prompt="x")))
    await asyncio.sleep(5)
    await session.submit(TextToImage(prompt="newer"))
    await lost
    assert now() - began < 30
    assert len(emulator.ledger.accepted) == 2


@pytest.mark.parametrize("action", LOST)
async def test_a_list_that_lags_20_s_bills_nothing_twice(session, emulator, action):
    emulator.faults.add("submit", action, probability=0.5)
    emulator.faults.add("list", "lag", seconds=20)
    outcomes = [outcome async for outcome in session.stream(jobs(40))]
    assert all(outcome.ok for outcome in outcomes)
    assert len(emulator.ledger.accepted) == 40
    assert not emulator.ledger.doubles()


@pytest.mark.parametrize("lag", [90, 300])
async def test_a_list_that_is_seen_to_lag_more_than_it_may_proves_no_absence(session, emulator, lag):
    """Predictions of the session's own that are missing in it show that it is late: a lost one may be, too."""
    emulator.faults.add("submit", "drop_after", nth=5)
    emulator.faults.add("list", "lag", seconds=lag)
    outcomes = [outcome async for outcome in session.stream(jobs(40), max_in_flight=2)]
    assert not emulator.ledger.doubles()
    assert len(emulator.ledger.accepted) == 40
    assert {type(outcome.error) for outcome in outcomes if not outcome.ok} <= {SubmissionUnknown}


@pytest.mark.parametrize("item", [{"uuid": "a"}, {"id": 5, "status": "completed"}, None])
async def test_a_list_whose_items_cannot_be_read_proves_no_absence(opened, item):
    """Any of them may be what was lost."""
    sent, began = [], time.time() - now()

    async def answer(request):
        if request.path != "/api/v3/predictions":
            sent.append(await request.json())
            request.transport.close()
        page = {"code": 200, "message": "success", "data": {"items": [item]}}
        return web.json_response(page, headers={"Date": formatdate(began + now(), usegmt=True)})

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    async with TestServer(app) as server, opened(base_url=str(server.make_url(""))) as session:
        with pytest.raises(SubmissionUnknown):
            await session.submit(TextToImage(prompt="a fox"))
    assert len(sent) == 1


async def test_a_list_that_is_down_for_good_bills_nothing_twice(session, emulator):
    emulator.faults.add("submit", "drop_after", every=3)
    emulator.faults.add("submit", "drop", every=5)
    emulator.faults.add("list", "status", status=500)
    outcomes = [outcome async for outcome in session.stream(jobs(30))]
    lost = [outcome for outcome in outcomes if not outcome.ok]
    assert len(lost) == 14
    assert all(isinstance(outcome.error, SubmissionUnknown) for outcome in lost)
    assert all(outcome.error.billed == "unknown" for outcome in lost)
    assert all("could not be read" in str(outcome.error) for outcome in lost)
    assert not emulator.ledger.doubles()


async def test_without_inputs_one_lost_alone_is_found_by_its_time(session, emulator):
    emulator.faults.add("list", "without_inputs")
    await session.generate("before")
    emulator.faults.add("submit", "drop_after", times=1)
    prediction = await session.generate("a fox")
    assert prediction.ok
    assert len(emulator.ledger.accepted) == 2


async def test_without_inputs_several_at_a_time_stay_unknown(session, emulator):
    emulator.faults.add("list", "without_inputs")
    emulator.faults.add("submit", "drop_after", nth=(2, 3))
    outcomes = [outcome async for outcome in session.stream(jobs(6))]
    assert sum(isinstance(outcome.error, SubmissionUnknown) for outcome in outcomes) == 2
    assert len(emulator.ledger.accepted) == 6
    assert not emulator.ledger.doubles()


async def test_without_inputs_a_stranger_is_not_taken_for_it(opened, emulator):
    """Another run's prediction of the same moment must not become this one's, though it is the only one."""
    emulator.faults.add("list", "without_inputs")
    async with opened(1) as mine, opened(2) as other:
        await other.submit(TextToImage(prompt="other's, before"))
        emulator.faults.add("submit", "drop", times=1)
        lost = asyncio.create_task(mine.generate("mine"))
        await asyncio.sleep(0.2)
        await other.submit(TextToImage(prompt="other's, after"))
        with pytest.raises(SubmissionUnknown):
            await lost
    assert len(emulator.ledger.accepted) == 2


async def test_a_list_with_holes_proves_no_absence(session, emulator):
    emulator.faults.add("submit", "drop_after", nth=10)
    emulator.faults.add("list", "gaps", every=10)
    outcomes = [outcome async for outcome in session.stream(jobs(10))]
    holes = [outcome for outcome in outcomes if not outcome.ok]
    assert len(emulator.ledger.accepted) == 10
    assert all(isinstance(outcome.error, SubmissionUnknown) for outcome in holes) or not holes


@pytest.mark.wavespeed_emulator(clock_skew=86_400.0)
async def test_the_servers_clock_counts(session, emulator):
    emulator.faults.add("submit", "drop_after", every=2)
    outcomes = [outcome async for outcome in session.stream(jobs(20))]
    assert all(outcome.ok for outcome in outcomes)
    assert len(emulator.ledger.accepted) == 20


async def test_the_same_job_wanted_twice_is_made_twice(session, emulator):
    emulator.faults.add("submit", "drop_after", nth=(1, 2, 4))
    same = TextToImage(prompt="same", seed=5)
    outcomes = [outcome async for outcome in session.stream([same] * 5)]
    assert len({outcome.prediction.id for outcome in outcomes}) == 5
    assert len(emulator.ledger.accepted) == 5


async def test_two_runs_on_one_account_do_not_take_each_others(opened, emulator):
    emulator.faults.add("submit", "drop_after", every=3)
    emulator.faults.add("submit", "drop", every=7)
    async with opened(1) as one, opened(2) as two:

        async def run(session, name):
            return [o async for o in session.stream({"prompt": f"{name} {n}"} for n in range(30))]

        first, second = await asyncio.gather(run(one, "one"), run(two, "two"))
    assert all(outcome.ok for outcome in first + second)
    prompts = {record.id: record.inputs["prompt"] for record in emulator.ledger.accepted}
    for outcome in first + second:
        assert prompts[outcome.prediction.id] == outcome.job.prompt
    assert len(prompts) == 60


async def test_it_is_found_behind_many_pages_that_grow_while_they_are_read(opened, emulator):
    async with opened(1) as session, opened(2) as other:
        emulator.faults.add("submit", "drop_after", times=1)
        lost = asyncio.create_task(session.submit(TextToImage(prompt="found")))
        await asyncio.sleep(0.05)
        crowd = [asyncio.create_task(other.submit(TextToImage(prompt=f"{n}"))) for n in range(350)]
        prediction = await lost
        await asyncio.gather(*crowd)
    assert prediction.job.prompt == "found"
    assert len(emulator.ledger.accepted) == 351


@pytest.mark.parametrize("newer", [99, 100, 101, 199, 200])
async def test_it_is_found_at_the_edges_of_pages(opened, emulator, newer):
    async with opened(1) as session, opened(2) as other:
        emulator.faults.add("submit", "drop_after", times=1)
        lost = asyncio.create_task(session.submit(TextToImage(prompt="found")))
        await asyncio.sleep(0.05)
        await asyncio.gather(*(other.submit(TextToImage(prompt=f"{n}")) for n in range(newer)))
        assert now() - emulator.ledger.accepted_times[0] < 0.5, "before the first look"
        await lost
    assert len(emulator.ledger.accepted) == newer + 1


async def test_a_wrong_key_ends_the_search_at_once(session, emulator):
    emulator.faults.add("submit", "drop_after")
    emulator.faults.add("list", "status", status=401)
    began = now()
    with pytest.raises(SubmissionUnknown) as caught:
        await session.generate("x")
    assert now() - began < 5
    assert isinstance(caught.value.__cause__.__cause__, AuthenticationError)


async def test_a_cancelled_search_leaves_nothing(session, emulator, caplog):
    emulator.faults.add("submit", "drop")
    task = asyncio.create_task(session.generate("x"))
    await asyncio.sleep(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert session._engine.reconciler.looking_for == 0
    assert "its caller was cancelled" in caplog.text


async def test_closing_the_session_ends_the_search(opened, emulator):
    emulator.faults.add("submit", "drop")
    async with opened() as session:
        task = asyncio.create_task(session.generate("x"))
        await asyncio.sleep(3)
    with pytest.raises(SubmissionUnknown, match="closed"):
        await task


async def test_memory_of_held_ids_stays_small(session, emulator):
    async for _ in session.stream(jobs(300), max_in_flight=50):
        pass
    await asyncio.sleep(300)
    await session.submit(TextToImage(prompt="x"))
    assert len(session._engine.reconciler._ids) == 1
    assert not session._engine.reconciler.airborne


def jobs(count):
    return [{"prompt": f"picture {number}"} for number in range(count)]


@pytest.mark.wavespeed_emulator(list_inputs="asked")
async def test_inputs_are_asked_for_where_the_list_has_them_for_the_asking(session, emulator):
    """With them several lost at one time are told apart; without, they would stay unknown."""
    emulator.faults.add("submit", "drop_after", nth=(2, 3))
    outcomes = [outcome async for outcome in session.stream(jobs(6))]
    assert all(outcome.ok for outcome in outcomes)
    assert len(emulator.ledger.accepted) == 6
