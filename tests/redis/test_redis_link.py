"""When one process asks, and what it does without an answer: on virtual time, with an exchange that the test plays."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, suppress

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from wavespeed_qwen_async.errors import LimitsBrokenError, NotSentError, RateLimitError, SessionClosedError
from wavespeed_qwen_async.integrations._redis.exchange import SETTLING, Answer, Rules
from wavespeed_qwen_async.integrations._redis.link import Link
from wavespeed_qwen_async.limits import Limits
from wavespeed_qwen_async.testing.clock import VirtualClockLoop

pytestmark = pytest.mark.anyio

RULES = Rules(
    limit=40,
    places=40,
    window=60.0,
    burst=0,
    lease=30.0,
    learn=True,
    breaker_seconds=300.0,
    breaker_answers=5,
    trust_empty=False,
)


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": VirtualClockLoop}


class Played:
    """Answers as it is set to, and writes down each question."""

    def __init__(self):
        self.up = True
        self.grant = True
        self.takes = 0.001
        self.failure: Exception | None = None
        self.again = 0.0
        self.broken = 0.0
        self.asked: list[dict] = []
        self.given = 0

    async def __call__(self, ends, **question):
        self.asked.append(question | {"time": now(), "ends": list(ends)})
        end = now() + self.takes
        while now() < end:  # redis-py 8.1 swallows a cancellation now and then
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(end - now())
        if self.failure is not None:
            raise self.failure
        if not self.up:
            raise RedisConnectionError("refused")
        permits = []
        if self.grant:
            permits = [(f"p{self.given + n}", 0.0) for n in range(question["ask"])]
            self.given += len(permits)
        return Answer(
            permits=permits,
            again=self.again,
            places=question["in_use"] + question["waiting"] if self.grant else 0,
            places_again=0.125,
            used=0,
            allowance=40,
            learned=False,
            paused=self.broken,
            pauses=0,
            reason="rate limit",
            broken=bool(self.broken),
            on_trial=False,
            full=0.0,
        )


@asynccontextmanager
async def linked(played, *, shares=False, grace=10.0):
    own = Limits(max_per_minute=10, max_in_flight=10)
    link = Link(played, RULES, own=own, shares=shares, grace=grace, rng=random.Random(1))
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        link.leave()
        await running


def now():
    return asyncio.get_running_loop().time()


async def test_no_question_without_a_need():
    played = Played()
    async with linked(played):
        await asyncio.sleep(3600)
        assert played.asked == []


async def test_all_who_wait_share_one_question():
    played = Played()
    async with linked(played) as link:
        sends = await asyncio.gather(*(link.permits.start(again=False) for _ in range(300)))
        assert len(sends) == 300
        assert len(played.asked) <= 2
        assert played.asked[-1]["ask"] >= 299


async def test_nobody_asks_before_an_answer_can_differ():
    played = Played()
    played.grant, played.again = False, 3.0
    async with linked(played) as link:
        waiters = []
        for _ in range(100):
            waiters.append(asyncio.create_task(link.permits.start(again=False)))
            await asyncio.sleep(0.1)  # ten seconds, one more waiter each tenth
        assert 3 <= len(played.asked) <= 5
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)


async def test_ends_are_told_together_and_soon():
    played = Played()
    async with linked(played) as link:
        sends = await asyncio.gather(*(link.permits.start(again=False) for _ in range(50)))
        before = len(played.asked)
        for send in sends:
            link.permits.report(send, None)
            link.permits.report(send, None)  # once each
        await asyncio.sleep(0.2)
        assert len(played.asked) == before + 1
        assert [end.kind for end in played.asked[-1]["ends"]] == ["worked"] * 50


async def test_a_refusal_is_told_at_once():
    played = Played()
    async with linked(played) as link:
        send = await link.permits.start(again=False)
        await asyncio.sleep(1)
        at = now()
        link.permits.report(send, RateLimitError("429", retry_after=7.0))
        await asyncio.sleep(0.05)
        (end,) = played.asked[-1]["ends"]
        assert (end.kind, end.retry_after) == ("refused", 7.0)
        assert played.asked[-1]["time"] - at <= 0.011


async def test_a_waiter_that_is_cancelled_gives_its_permit_back():
    played = Played()
    async with linked(played) as link:
        await asyncio.sleep(1)
        waiter = asyncio.create_task(link.permits.start(again=False))
        await asyncio.sleep(0.0005)  # the question is on its way
        waiter.cancel()
        await asyncio.sleep(1)
        assert [end.kind for asked in played.asked for end in asked["ends"]] == ["unsent"]
        assert link.permits.sent == 0


async def test_what_never_left_gives_its_permit_back():
    played = Played()
    async with linked(played) as link:
        link.permits.report(await link.permits.start(again=False), NotSentError("no connection"))
        await asyncio.sleep(1)
        assert [end.kind for asked in played.asked for end in asked["ends"]] == ["unsent"]


async def test_a_place_that_is_held_renews_its_lease_and_no_more():
    played = Played()
    async with linked(played) as link:
        slot = await link.places.acquire()
        await asyncio.sleep(104)  # in the middle of two
        assert 9 <= len(played.asked) <= 12  # each third of the lease
        slot.release()
        await asyncio.sleep(0.2)
        assert played.asked[-1]["in_use"] == 0
        count = len(played.asked)
        await asyncio.sleep(100)
        assert len(played.asked) == count


async def test_a_place_that_nobody_took_after_all_is_given_back():
    played = Played()
    async with linked(played) as link:
        await asyncio.sleep(1)
        waiter = asyncio.create_task(link.places.acquire())
        await asyncio.sleep(0.0005)
        waiter.cancel()
        await asyncio.sleep(1)
        assert (link.places.in_use, link.places.size) == (0, 0)
        assert (played.asked[-1]["in_use"], played.asked[-1]["waiting"]) == (0, 0)


async def test_stop_ends_the_waits_after_the_grace_and_not_before():
    played = Played()
    played.up = False
    async with linked(played, grace=10.0) as link:
        began = now()
        waits = await asyncio.gather(link.permits.start(again=False), link.places.acquire(), return_exceptions=True)
        assert 10.0 <= now() - began < 11.1
        assert [type(error) for error in waits] == [LimitsBrokenError] * 2
        for error in waits:
            assert error.billed == "no"
            assert "Redis" in error.message
            assert "refused" in error.message
        with pytest.raises(LimitsBrokenError):
            link.check()
        assert len(played.asked) < 30  # no storm
        played.up = True
        await asyncio.sleep(1.1)
        link.check()
        assert await link.permits.start(again=False)


async def test_a_short_outage_is_waited_for():
    played = Played()
    async with linked(played, grace=10.0) as link:
        played.up = False
        waiter = asyncio.create_task(link.permits.start(again=False))
        await asyncio.sleep(8)
        assert not waiter.done()
        played.up = True
        await waiter
        assert not any(asked["shared"] for asked in played.asked)


async def test_a_redis_that_is_down_is_asked_once_a_second_whoever_comes():
    played = Played()
    played.up = False
    async with linked(played, grace=60.0) as link:
        waiters = []
        for _ in range(100):
            waiters.append(asyncio.create_task(link.permits.start(again=False)))
            await asyncio.sleep(0.1)
        assert 10 <= len(played.asked) <= 24
        played.up = True
        await asyncio.gather(*waiters)


async def test_share_sends_nothing_for_a_window_then_its_share_and_says_so():
    played = Played()
    async with linked(played, shares=True, grace=1.0) as link:
        for _ in range(5):
            link.permits.report(await link.permits.start(again=False), None)
        await asyncio.sleep(1)
        played.up = False
        down_at, sent = now(), []

        async def submit():
            while True:
                slot = await link.places.acquire()
                send = await link.permits.start(again=False)
                sent.append(now())
                link._own.report(send, None)
                slot.release()

        submits = [asyncio.create_task(submit()) for _ in range(5)]
        await asyncio.sleep(300)
        silence = 60 + SETTLING
        assert sent[0] >= down_at + silence
        assert sent[0] < down_at + silence + 3
        assert link.sharing
        for first, last in zip(sent, sent[10:], strict=False):
            assert last - first > 60  # ten a minute: the share
        assert len(sent) >= 0.9 * 10 * (300 - silence) / 60
        played.up, played.grant = True, False
        asked = len(played.asked)
        await asyncio.sleep(1.1)
        assert played.asked[asked]["shared"]
        assert not played.asked[-1]["shared"]
        count = len(sent)
        await asyncio.sleep(120)
        assert len(sent) == count  # Redis decides again
        for task in submits:
            task.cancel()
        await asyncio.gather(*submits, return_exceptions=True)


async def test_a_broken_account_fails_all_until_the_pause_is_over():
    played = Played()
    played.broken, played.grant = 30.0, False
    async with linked(played) as link:
        with pytest.raises(LimitsBrokenError, match="any process") as caught:
            await link.permits.start(again=False)
        assert 29 < caught.value.retry_after <= 30
        with pytest.raises(LimitsBrokenError):
            link.check()
        await asyncio.sleep(31)
        link.check()


async def test_permits_that_this_process_was_too_late_for_are_given_back():
    played = Played()
    async with linked(played) as link:
        waiter = asyncio.create_task(link.permits.start(again=False))
        await asyncio.sleep(0)
        link.permits.give([("late", -2.0)], 0, now())
        send = await waiter
        assert send.id != "late"
        await asyncio.sleep(1)
        assert [end.id for asked in played.asked for end in asked["ends"]] == ["late"]


async def test_an_error_that_nobody_foresaw_is_an_outage_too(caplog):
    played = Played()
    played.failure = AttributeError("'NoneType' object has no attribute 'readline'")
    async with linked(played, grace=10) as link:
        with pytest.raises(LimitsBrokenError, match="AttributeError"):
            await asyncio.wait_for(link.permits.start(again=False), 60)
        played.failure = None
        await asyncio.sleep(2)
        assert await asyncio.wait_for(link.permits.start(again=False), 60)
    assert "unexpectedly" in caplog.text


async def test_permits_of_an_answer_that_came_too_late_are_not_used():
    played = Played()
    played.takes = 10.0
    async with linked(played) as link:
        waiter = asyncio.create_task(link.permits.start(again=False))
        await asyncio.sleep(5)
        played.takes = 0.001
        assert (await waiter).id == "p1"


async def test_closed_limits_let_nobody_wait_for_ever():
    async with linked(Played()) as link:
        pass
    with pytest.raises(SessionClosedError):
        link.check()


async def test_a_share_that_nobody_waits_for_any_more_is_not_used_up():
    played = Played()
    played.up = False
    async with linked(played, shares=True) as link:
        await link.permits.start(again=False)
        assert link.sharing
        given_up = asyncio.create_task(link.permits.start(again=False))
        await asyncio.sleep(1)
        given_up.cancel()
        await asyncio.sleep(60)
        assert link._own.snapshot().sent == 1


async def test_who_waits_when_it_is_closed_is_told():
    played = Played()
    played.grant = False
    async with linked(played) as link:
        waiters = [asyncio.create_task(link.permits.start(again=False)), asyncio.create_task(link.places.acquire())]
        await asyncio.sleep(1)
    for error in await asyncio.gather(*waiters, return_exceptions=True):
        assert isinstance(error, SessionClosedError)
    assert (played.asked[-1]["ask"], played.asked[-1]["waiting"]) == (0, 0)
