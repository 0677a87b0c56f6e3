"""What an observer is promised: every send and its end in order, and the job's end exactly once, whatever happens."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from wavespeed_qwen_async import Batch, ContentModerated, Retry, TextToImage
from wavespeed_qwen_async.predictions import Prediction
from wavespeed_qwen_async.testing import next_outcomes

pytestmark = pytest.mark.anyio

FOX = TextToImage(prompt="a fox", seed=1)


class Diary:
    """One job's observation, as words."""

    def __init__(self, job, prediction_id):
        self.job, self.known, self.lines = job, prediction_id, ["began"]

    def sending(self):
        self.lines.append("sending")

    def failed(self, error):
        self.lines.append(f"failed {type(error).__name__}")

    def accepted(self, prediction):
        self.known = prediction.id
        self.lines.append("accepted")

    def ended(self, end):
        self.lines.append(f"ended {end.status if isinstance(end, Prediction) else type(end).__name__}")


class Library:
    def __init__(self):
        self.diaries = []

    def began(self, job, *, prediction_id=None):
        self.diaries.append(Diary(job, prediction_id))
        return self.diaries[-1]

    @property
    def lines(self):
        return [" · ".join(diary.lines) for diary in self.diaries]


WELL = "began · sending · accepted · ended completed"


@pytest.fixture
def library():
    return Library()


async def test_each_way_of_asking_tells_the_same_story(opened, library, tmp_path):
    async with opened(observer=library) as session:
        await session.generate("a fox")
        await session.result(await session.submit(FOX))
        assert [outcome.ok async for outcome in session.stream([FOX, FOX])] == [True, True]
        assert [outcome.ok async for outcome in Batch([{"prompt": "owl"}], tmp_path, session).run()] == [True]
    assert library.lines == [WELL] * 5
    assert library.diaries[0].job.seed is not None  # as it was sent


async def test_what_was_submitted_ends_by_itself_though_nobody_awaits_it(opened, library):
    async with opened(observer=library) as session:
        await session.submit(FOX)
        await asyncio.sleep(30)
        assert library.lines == [WELL]


async def test_what_is_finished_when_it_is_accepted_ends_at_once(opened, library):
    held = FOX.model_copy(update={"enable_sync_mode": True})
    async with opened(observer=library) as session:
        await session.submit(held)
        assert library.lines == [WELL]
        assert [outcome.ok async for outcome in session.stream([held])] == [True]
    assert library.lines == [WELL] * 2


async def test_refusals_failures_and_lost_answers_are_told_in_order(opened, library, emulator):
    next_outcomes(emulator, 429, 503, "ok", 1200, "drop_after", "drop")
    async with opened(observer=library) as session:
        await session.run(FOX)
        with pytest.raises(ContentModerated):
            await session.run(FOX)
        await session.generate("found again")
        await session.generate("never arrived")
    refused_twice = "began · sending · failed RateLimitError · sending · failed SubmissionUnknown · sending"
    assert library.lines == [
        f"{refused_twice} · accepted · ended completed",
        "began · sending · accepted · ended ContentModerated",
        "began · sending · failed SubmissionUnknown · accepted · ended completed",
        "began · sending · failed SubmissionUnknown · sending · accepted · ended completed",
    ]


async def test_a_submit_that_fails_as_a_prediction_ends_with_its_error_in_every_way(
    opened, library, emulator, tmp_path
):
    next_outcomes(emulator, 1200, 1200, 1200)
    async with opened(observer=library) as session:
        await session.submit(FOX)
        await asyncio.sleep(30)
        assert [outcome.ok async for outcome in session.stream([FOX])] == [False]
        assert [outcome.ok async for outcome in Batch([{"prompt": "owl"}], tmp_path, session).run()] == [False]
    assert library.lines == ["began · sending · accepted · ended ContentModerated"] * 3


async def test_cancelled_while_it_waits_it_ends_once_with_its_id(opened, library, emulator):
    async with opened(observer=library) as session:
        waiting = asyncio.create_task(session.run(FOX))
        await asyncio.sleep(3)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert library.lines == ["began · sending · accepted · ended CancelledError"]
    assert library.diaries[0].known == emulator.ledger.accepted[0].id


async def test_cancelled_while_its_submit_is_in_the_air_it_ends_when_that_lands(opened, library, emulator):
    next_outcomes(emulator, ("delay", {"seconds": 2}))
    async with opened(observer=library) as session:
        sending = asyncio.create_task(session.run(FOX))
        await asyncio.sleep(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert library.lines == ["began · sending"]
    assert library.lines == ["began · sending · accepted · ended CancelledError"]
    assert library.diaries[0].known == emulator.ledger.accepted[0].id


async def test_cut_off_for_good_it_ends_as_well(opened, library, emulator):
    next_outcomes(emulator, ("delay", {"seconds": 60}))  # longer than a closing session waits
    async with opened(observer=library) as session:
        sending = asyncio.create_task(session.run(FOX))
        await asyncio.sleep(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert library.lines == ["began · sending · failed CancelledError · ended CancelledError"]


async def test_cancelled_in_line_for_a_slot_it_was_never_sent(opened, library):
    async with opened(observer=library, limits=None, tier=None, max_in_flight=1) as session:
        first = asyncio.create_task(session.run(FOX))
        await asyncio.sleep(1)
        second = asyncio.create_task(session.run(FOX))
        third = asyncio.create_task(session.submit(FOX))
        await asyncio.sleep(1)
        second.cancel()
        third.cancel()
        await asyncio.wait([second, third])
        await first
    assert library.lines == [WELL, "began · ended CancelledError", "began · ended CancelledError"]


async def test_closing_the_session_ends_them_all(opened, library):
    async with opened(observer=library) as session:
        await session.submit(FOX)
        running = asyncio.create_task(session.run(FOX))
        await asyncio.sleep(1)
    with pytest.raises(Exception, match="closed"):
        await running
    assert sorted(library.lines) == ["began · sending · accepted · ended SessionClosedError"] * 2


async def test_leaving_a_stream_ends_those_in_flight(opened, library, emulator):
    async with opened(observer=library) as session, aclosing(session.stream([FOX] * 20, max_in_flight=5)) as outcomes:
        await anext(outcomes)
    ends = [line.rpartition(" · ")[2] for line in library.lines]
    assert set(ends) == {"ended completed", "ended CancelledError"}
    assert len(emulator.ledger.accepted) == sum("accepted" in line for line in library.lines)


async def test_a_resumed_batch_says_which_were_paid_before(opened, library, emulator, tmp_path):
    jobs = [{"prompt": f"owl {number}"} for number in range(3)]
    async with opened() as session, aclosing(Batch(jobs, tmp_path, session).run()) as outcomes:
        await anext(outcomes)
    async with opened(observer=library) as session:
        assert [outcome.ok async for outcome in Batch(jobs, tmp_path, session).run()] == [True, True]
    paid = {accepted.id for accepted in emulator.ledger.accepted}
    assert library.lines == ["began · ended completed"] * 2
    assert {diary.known for diary in library.diaries} < paid


async def test_a_submit_that_an_earlier_run_lost_is_accepted_when_it_is_found(opened, library, emulator, tmp_path):
    next_outcomes(emulator, "drop_after")
    async with opened(on_unknown="raise") as session:
        assert [outcome.ok async for outcome in Batch([{"prompt": "owl"}], tmp_path, session).run()] == [False]
    async with opened(observer=library) as session:
        assert [outcome.ok async for outcome in Batch([{"prompt": "owl"}], tmp_path, session).run()] == [True]
    assert library.lines == ["began · accepted · ended completed"]
    assert library.diaries[0].known == emulator.ledger.accepted[0].id


async def test_a_batch_that_is_drained_ends_what_it_leaves(opened, library, tmp_path):
    jobs = [{"prompt": f"owl {number}"} for number in range(30)]
    async with opened(observer=library) as session:
        batch = Batch(jobs, tmp_path, session, max_in_flight=5)
        async with aclosing(batch.run()) as outcomes:
            await anext(outcomes)
            batch.drain()
            async for _ in outcomes:
                pass
    assert len(library.lines) < 30
    assert set(library.lines) <= {WELL, "began · ended CancelledError"}


class Clumsy:
    """Fails at one of its calls."""

    def __init__(self, at):
        self.at = at

    def began(self, job, *, prediction_id=None):
        return self._fail("began") or self

    def _fail(self, name):
        if self.at == name:
            raise RuntimeError("an observer's own mistake")

    def sending(self):
        self._fail("sending")

    def failed(self, error):
        self._fail("failed")

    def accepted(self, prediction):
        self._fail("accepted")

    def ended(self, end):
        self._fail("ended")


@pytest.mark.parametrize("at", ["began", "sending", "failed", "accepted", "ended"])
async def test_an_observers_mistake_costs_no_image(at, opened, emulator, caplog):
    next_outcomes(emulator, 429)
    async with opened(observer=Clumsy(at), retry=Retry(base=0.01)) as session:
        image = await session.run(FOX)
        assert image.ok
    assert [accepted.id for accepted in emulator.ledger.accepted] == [image.id]
    assert "an observer failed" in caplog.text


async def test_a_job_that_is_none_is_not_observed(opened, library):
    async with opened(observer=library) as session:
        assert [outcome.ok async for outcome in session.stream([{"prompt": ""}])] == [False]
    assert library.lines == []
