"""Many jobs: lazily pulled, bounded, one outcome each, nothing left behind however the stream is left."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import types
from collections import Counter
from contextlib import aclosing, asynccontextmanager

import pytest

from wavespeed_qwen_async import (
    AuthenticationError,
    ConfigurationError,
    ContentModerated,
    InsufficientCreditsError,
    InvalidJobError,
    Limits,
    LimitsBrokenError,
    SessionClosedError,
    SubmissionUnknown,
    TextToImage,
)

pytestmark = pytest.mark.anyio


def now() -> float:
    return asyncio.get_running_loop().time()


class Source:
    """Jobs on demand; knows how many were pulled and whether it was closed."""

    def __init__(self, count, *, prompt="p{}", fails_at=None):
        self.count = count
        self.prompt = prompt
        self.fails_at = fails_at
        self.pulled = 0
        self.closed = False

    def __iter__(self):
        try:
            for index in range(self.count):
                if index == self.fails_at:
                    raise OSError("the source broke")
                self.pulled += 1
                yield {"prompt": self.prompt.format(index), "seed": index}
        finally:
            self.closed = True

    async def slowly(self, seconds=0.0):
        try:
            for job in self:
                await asyncio.sleep(seconds)
                yield job
        finally:
            self.closed = True


@pytest.mark.parametrize("jobs", [500, pytest.param(2000, marks=pytest.mark.slow)])
async def test_never_more_than_fifty_in_flight_nor_sixty_ahead(session, emulator, jobs):
    source = Source(jobs)
    most_ahead, seen = 0, []
    async for outcome in session.stream(source, max_in_flight=50):
        seen.append(outcome.index)
        most_ahead = max(most_ahead, source.pulled - len(seen))
    assert sorted(seen) == list(range(jobs))
    assert emulator.ledger.peak_in_flight() == 50
    assert most_ahead <= 60
    assert len(emulator.ledger.accepted) == jobs
    assert emulator.ledger.doubles() == []
    assert session.limits.snapshot().in_flight == 0


@asynccontextmanager
async def waited_for(outcomes):
    """A stream whose consumer waits for its first outcome meanwhile."""
    first = asyncio.ensure_future(anext(outcomes))
    try:
        yield
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await outcomes.aclose()


async def test_a_job_without_a_turn_is_not_pulled_however_much_may_be_in_flight(opened, emulator):
    emulator.faults.add("submit", "inference", seconds=3600)
    source = Source(2000)
    async with (
        opened(limits=Limits(max_per_minute=600, max_in_flight=2000)) as session,
        waited_for(session.stream(source)),
    ):
        for minutes in (0.5, 1):
            await asyncio.sleep(30)
            sent = len(emulator.ledger.accepted)
            assert sent >= 550 * minutes
            assert sent + 100 <= source.pulled <= sent + 300  # enough stand by for a steep start, no more


async def test_submits_that_are_held_until_the_image_is_there_keep_no_other_from_leaving(opened, emulator):
    emulator.faults.add("submit", "inference", seconds=60)
    async with opened(wait="sync") as session:
        assert len([outcome async for outcome in session.stream(Source(600))]) == 600
    assert emulator.ledger.peak_in_flight() == 600


async def test_a_job_in_flight_has_no_task(opened, emulator):
    emulator.faults.add("submit", "inference", seconds=600)
    async with opened() as session, waited_for(session.stream(Source(1000))):
        await asyncio.sleep(60)
        assert len(emulator.ledger.accepted) == 1000
        ours = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("wavespeed")]
        assert "wavespeed stream job" not in ours
        assert len(ours) <= 3  # the keeper, and what it asks


async def test_a_job_in_flight_is_a_handful_of_small_objects(opened, emulator):
    emulator.faults.add("submit", "inference", seconds=600)
    async with opened() as session:
        stream = session.stream({"prompt": f"p{index}"} for index in range(1000))
        before = alive()
        async with waited_for(stream):
            await asyncio.sleep(60)
            assert len(emulator.ledger.accepted) == 1000
            grown = alive() - before
    ours = {kind: count for kind, count in grown.items() if is_the_clients(kind) and count >= 500}
    assert sum(ours.values()) <= 6 * 1000, ours  # its flight, job, slot, watch, and what is watched
    for dear in (set, types.FunctionType, types.CellType, types.CoroutineType, asyncio.Future, asyncio.Task):
        assert grown[dear] < 500, f"{dear}: the connections' own are fewer"


def alive():
    gc.collect()
    return Counter(type(each) for each in gc.get_objects())


def is_the_clients(kind):
    return kind.__module__.startswith("wavespeed_qwen_async.") and ".emulator." not in kind.__module__


async def test_outcomes_come_as_they_finish(session, emulator):
    emulator.faults.add("submit", "inference", seconds=60, nth=1)
    outcomes = [outcome async for outcome in session.stream(Source(5))]
    assert outcomes[-1].prediction.id == emulator.ledger.accepted[0].id
    assert all(outcome.ok and outcome.job.seed == outcome.index for outcome in outcomes)
    assert outcomes[-1].seconds == pytest.approx(60, abs=15)
    assert outcomes[0].source == {"prompt": f"p{outcomes[0].index}", "seed": outcomes[0].index}
    assert outcomes[0].unwrap() is outcomes[0].prediction


async def test_ordered_outcomes_come_in_the_sources_order(session, emulator):
    emulator.faults.add("submit", "inference", seconds=60, nth=1)
    assert [outcome.index async for outcome in session.stream(Source(20), ordered=True)] == list(range(20))


async def test_ordered_streams_are_bounded_too(session, emulator):
    emulator.faults.add("submit", "inference", seconds=600, nth=1)
    source = Source(100)
    async for _ in session.stream(source, ordered=True, max_in_flight=10):
        assert source.pulled <= 11 or now() > 600
    assert emulator.ledger.peak_in_flight() <= 10


async def test_a_slow_consumer_slows_the_submits(session, emulator):
    source = Source(100)
    taken = 0
    async with aclosing(session.stream(source, max_in_flight=5)) as outcomes:
        async for _ in outcomes:
            taken += 1
            await asyncio.sleep(100)
            assert source.pulled <= taken + 5
            if taken == 4:
                break


async def test_async_sources(session):
    source = Source(20)
    assert len([outcome async for outcome in session.stream(source.slowly(1.0))]) == 20
    assert source.closed


async def test_failing_jobs_are_outcomes(opened, emulator):
    emulator.faults.add("submit", "drop_after", nth=2)
    jobs = [
        {"prompt": "fine"},
        {"prompt": "[moderated]"},
        {"prompt": "x", "size": "1*1"},
        "no job at all",
        {"prompt": "x", "image": "missing.png"},
        TextToImage(prompt="fine too"),
    ]
    async with opened(on_unknown="raise") as session:
        outcomes = [outcome async for outcome in session.stream(jobs, ordered=True, max_in_flight=1)]
    assert [type(outcome.error) for outcome in outcomes] == [
        type(None),
        SubmissionUnknown,
        InvalidJobError,
        InvalidJobError,
        InvalidJobError,
        type(None),
    ]
    assert [outcome.ok for outcome in outcomes] == [True, False, False, False, False, True]
    assert outcomes[3].job is None
    assert outcomes[3].source == "no job at all"
    with pytest.raises(InvalidJobError):
        outcomes[3].unwrap()


async def test_a_moderated_job_is_billed(session):
    (outcome,) = [outcome async for outcome in session.stream([{"prompt": "[moderated]"}])]
    assert isinstance(outcome.error, ContentModerated)
    assert outcome.error.billed == "yes"


@pytest.mark.parametrize("slowly", [False, True])
async def test_a_broken_source_is_raised_after_what_is_in_flight(session, slowly):
    source = Source(10, fails_at=7)
    outcomes = []
    with pytest.raises(OSError, match="the source broke"):
        async for outcome in session.stream(source.slowly() if slowly else source):
            outcomes.append(outcome)
    assert sorted(outcome.index for outcome in outcomes) == list(range(7))
    assert all(outcome.ok for outcome in outcomes)


@pytest.mark.parametrize("jobs", [[], iter(())])
async def test_no_jobs_no_outcomes(session, jobs):
    assert [outcome async for outcome in session.stream(jobs)] == []


async def test_a_source_that_is_cancelled_does_not_look_like_one_that_ended(session):
    async def source():
        yield {"prompt": "x"}
        never = asyncio.get_running_loop().create_future()
        never.cancel()  # a task of the source's own, say, that somebody cancelled
        await never

    seen = []
    with pytest.raises(asyncio.CancelledError):
        async for outcome in session.stream(source()):
            seen.append(outcome.ok)
    assert seen == [True]


async def test_leaving_early_leaves_nothing_and_names_what_was_paid(session, emulator, caplog):
    source = Source(1000)
    async with aclosing(session.stream(source, max_in_flight=20)) as outcomes:
        async for _ in outcomes:
            break
    assert source.closed
    snapshot = session.limits.snapshot()
    assert (snapshot.in_flight, snapshot.waiting, snapshot.waiting_for_slot) == (0, 0, 0)
    sent = len(emulator.ledger.accepted)
    assert sent <= 21
    told = [record.prediction_ids for record in caplog.records if hasattr(record, "prediction_ids")]
    assert len(told) == 1
    assert len(told[0]) == sent - 1
    await asyncio.sleep(100)
    assert len(emulator.ledger.accepted) == sent


async def test_leaving_while_submits_are_under_way_tells_their_ids(session, emulator, caplog):
    emulator.faults.add("submit", "slow_headers", seconds=3, every=2)
    async with aclosing(session.stream(Source(10), max_in_flight=10)) as outcomes:
        left = asyncio.create_task(anext(outcomes))
        await asyncio.sleep(1)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
    for row in emulator.ledger.accepted:
        assert row.id in caplog.text or any(row.id in getattr(r, "prediction_ids", ()) for r in caplog.records)
    assert len(emulator.ledger.accepted) == 10


async def test_leaving_lets_no_job_go_that_waited_for_a_slot(opened, emulator):
    emulator.faults.add("submit", "inference", seconds=60)
    limits = Limits(max_per_minute=60_000, max_in_flight=2)
    async with opened(limits=limits) as session:
        async with waited_for(session.stream(Source(5), max_in_flight=5)):
            await asyncio.sleep(1)
        assert limits.snapshot().in_flight == 0
        await asyncio.sleep(5)
        assert len(emulator.ledger.accepted) == limits.snapshot().sent == 2
        assert limits.snapshot().in_flight == 0
        emulator.faults.clear()
        assert (await asyncio.wait_for(session.generate("x"), 60)).ok


async def test_break_without_closing_ends_with_the_loops_own_clean_up(session, emulator):
    async for _ in session.stream(Source(1000), max_in_flight=5):
        break
    await asyncio.sleep(1)
    assert session.limits.snapshot().in_flight == 0
    sent = len(emulator.ledger.accepted)
    await asyncio.sleep(100)
    assert len(emulator.ledger.accepted) == sent


async def test_a_cancelled_consumer_leaves_nothing(session):
    async def consume():
        async for _ in session.stream(Source(1000), max_in_flight=20):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert session.limits.snapshot().in_flight == 0


async def test_an_error_of_the_consumer_leaves_nothing(session):
    with pytest.raises(ZeroDivisionError):
        async with aclosing(session.stream(Source(1000), max_in_flight=20)) as outcomes:
            async for _ in outcomes:
                raise ZeroDivisionError
    assert session.limits.snapshot().in_flight == 0


async def test_a_consumer_may_submit_from_inside_its_loop(opened, emulator):
    """With two slots, both held by outcomes that wait for the consumer, an edit in the loop must not wait for ever."""
    async with opened(max_in_flight=2) as session:
        edited = 0
        async with asyncio.timeout(1000):
            async for outcome in session.stream(Source(6)):
                assert (await session.edit(outcome.prediction, "make it snow")).ok
                edited += 1
    assert edited == 6
    assert emulator.ledger.peak_in_flight() <= 2


async def test_two_streams_share_the_accounts_slots(opened, emulator):
    async def drain(stream):
        return [outcome async for outcome in stream]

    async with opened(max_in_flight=4) as session:
        first, second = await asyncio.gather(drain(session.stream(Source(20))), drain(session.stream(Source(20))))
    assert len(first) == len(second) == 20
    assert emulator.ledger.peak_in_flight() == 4


@pytest.mark.parametrize(("status", "kind"), [(401, AuthenticationError), (402, InsufficientCreditsError)])
async def test_an_error_that_no_job_can_survive_ends_the_stream_with_every_outcome_told(opened, emulator, status, kind):
    emulator.faults.add("submit", "status", status=status, since=20)
    source = Source(10_000)
    outcomes = []
    async with opened(max_in_flight=10) as session:
        with pytest.raises(kind):
            async for outcome in session.stream(source):
                outcomes.append(outcome)
        assert session.limits.snapshot().in_flight == 0
    assert sorted(outcome.index for outcome in outcomes) == list(range(source.pulled))
    assert sum(outcome.ok for outcome in outcomes) == len(emulator.ledger.accepted)
    assert source.pulled < 200


async def test_a_fatal_error_while_the_source_thinks(opened, emulator):
    emulator.faults.add("submit", "status", status=401, nth=2)
    outcomes = []
    async with opened() as session:
        with pytest.raises(AuthenticationError):
            async for outcome in session.stream(Source(100).slowly(5.0)):
                outcomes.append(outcome)
    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2]
    assert [outcome.ok for outcome in sorted(outcomes, key=lambda o: o.index)] == [True, False, False]
    assert len(emulator.ledger.accepted) == 1


async def test_endless_refusals_end_the_stream(opened, emulator):
    emulator.faults.add("submit", "status", status=429)
    limits = Limits(max_per_minute=600, max_in_flight=10, breaker_seconds=100, breaker_answers=3)
    async with opened(limits=limits) as session:
        with pytest.raises(LimitsBrokenError):
            async for outcome in session.stream(Source(10_000)):
                assert outcome.error.billed == "no"
    assert emulator.ledger.accepted == []


@pytest.mark.parametrize("max_in_flight", [0, -1])
async def test_a_window_of_nothing_is_refused(session, max_in_flight):
    with pytest.raises(ConfigurationError, match="max_in_flight"):
        await anext(session.stream([], max_in_flight=max_in_flight))


async def test_a_stream_ends_without_waiting_for_the_submits_of_others(opened, emulator):
    async with opened() as session:
        emulator.faults.add("submit", "slow_headers", seconds=8)
        other = asyncio.create_task(session.generate("another's"))
        await asyncio.sleep(0.1)
        emulator.faults.clear()
        async for _ in session.stream([{"prompt": "x"}], max_in_flight=1):
            emulator.faults.add("submit", "slow_headers", seconds=8)
            others = asyncio.create_task(session.generate("another's"))
            await asyncio.sleep(0.1)
            last = now()
        assert now() == last
        await asyncio.gather(other, others)


async def test_a_session_closed_under_its_stream_leaves_no_job_without_an_outcome(opened, emulator):
    emulator.faults.add("submit", "slow_headers", seconds=1000)
    outcomes = []
    async with opened(limits=Limits(max_per_minute=60, max_in_flight=100)) as session:

        async def consume():
            async for outcome in session.stream(Source(8)):
                outcomes.append(outcome)

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(3.5)
    with pytest.raises(SessionClosedError):
        await asyncio.wait_for(consumer, 60)
    assert [outcome.index for outcome in sorted(outcomes, key=lambda each: each.index)] == list(range(8))
    assert {type(outcome.error) for outcome in outcomes} == {SessionClosedError}
    assert Counter(outcome.error.billed for outcome in outcomes)["unknown"] == len(emulator.ledger.accepted)
    assert session.limits.snapshot().in_flight == 0


async def test_a_session_closed_under_it_ends_a_stream_of_a_source_without_end(opened):
    """Each further job would end the same way, for ever."""
    outcomes = []
    async with opened() as session:

        async def consume():
            async for outcome in session.stream(({"prompt": "x"} for _ in itertools.count()), max_in_flight=4):
                outcomes.append(outcome)

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(30)
    with pytest.raises(SessionClosedError):
        await asyncio.wait_for(consumer, 60)
    assert len([outcome for outcome in outcomes if not outcome.ok]) == 4, "what was in flight, and no more"


async def test_a_stream_of_a_closed_session(opened):
    session = opened()
    with pytest.raises(SessionClosedError):
        await anext(session.stream([{"prompt": "x"}]))


async def test_a_source_that_is_no_iterable(session):
    with pytest.raises(TypeError):
        await anext(session.stream(7))


async def test_a_source_whose_closing_fails_is_logged_and_no_more(session, caplog):
    caplog.set_level(logging.ERROR)

    def bad():
        try:
            yield {"prompt": "x"}
            yield {"prompt": "y"}
        finally:
            raise RuntimeError("on closing")

    async with aclosing(session.stream(bad(), max_in_flight=1)) as outcomes:
        async for _ in outcomes:
            break
    assert "closing the source" in caplog.text


async def test_a_defect_ends_the_stream_loudly(session, monkeypatch):
    async def broken(*_, **__):
        raise KeyError("a defect")

    monkeypatch.setattr(session._engine, "submit", broken)
    outcomes = []
    with pytest.raises(KeyError):
        async for outcome in session.stream(Source(100), max_in_flight=2):
            outcomes.append(outcome)
    assert {outcome.error.billed for outcome in outcomes} == {"unknown"}
    assert session.limits.snapshot().in_flight == 0
