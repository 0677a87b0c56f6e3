"""What Redis answers: the script itself, asked by several processes' exchanges."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from wavespeed_qwen_async.integrations._redis.exchange import SETTLING, End, Exchange, Rules, connected

pytestmark = pytest.mark.anyio

RULES = Rules(
    limit=10,
    places=10,
    window=60.0,
    burst=-1,
    lease=30.0,
    learn=True,
    breaker_seconds=300.0,
    breaker_answers=5,
    trust_empty=True,
)


class Asker:
    """A process: says what it was not asked to say differently."""

    def __init__(self, client, name, rules=RULES):
        self._exchange = Exchange(client, rules, account="test", process=name)

    async def __call__(self, *ends, ask=0, in_use=0, waiting=0, shared=False, known=False):
        return await self._exchange(
            ends, now=100.0, ask=ask, in_use=in_use, waiting=waiting, shared=shared, known=known
        )


def end(permit, kind="worked", *, ago=0.0, episode=0, retry_after=None):
    return End(permit[0], 100.0 - ago, kind, episode, retry_after)


async def granted(asker, **question):
    """The first answer that holds a permit."""
    async with asyncio.timeout(20):
        while not (answer := await asker(**question)).permits:  # noqa: ASYNC110 - what Redis' clock lets go
            await asyncio.sleep(0.02)
    return answer


@pytest.fixture
async def client(server):
    async with connected(server.url) as redis:
        yield redis


@pytest.fixture
def a(client):
    return Asker(client, "a")


@pytest.fixture
def b(client):
    return Asker(client, "b")


async def test_the_whole_allowance_and_not_one_more(a, b):
    mine = await a(ask=7)
    others = await b(ask=7)
    assert (len(mine.permits), len(others.permits)) == (7, 3)
    assert (await b(ask=1)).permits == []
    ids = {id_ for id_, _ in [*mine.permits, *others.permits]}
    assert len(ids) == 10


async def test_what_was_answered_counts_for_a_window_from_its_answer(client):
    a = Asker(client, "a", replace(RULES, limit=2))
    first, second = (await a(ask=2)).permits
    answer = await a(end(first, ago=59.5), end(second, ago=50.0), ask=1)
    assert answer.used == 2
    assert answer.permits == []  # they are given 0.25 s ahead, and this one is free after 0.51 s
    assert answer.again == pytest.approx(0.51 - 0.125, abs=0.001)
    free = await granted(a, ask=5)
    assert len(free.permits) == 1
    assert 0 <= free.permits[0][1] <= 0.25
    later = await a(ask=5)
    assert later.permits == []
    assert 8 < later.again < 10


async def test_a_permit_that_was_not_used_goes_to_somebody_else(a, b):
    permits = (await a(ask=10)).permits
    assert (await b(ask=1)).permits == []
    await a(end(permits[0], "unsent"))
    assert len((await b(ask=5)).permits) == 1


async def test_and_so_does_its_turn_in_the_pace(client):
    a, b = (Asker(client, name, replace(RULES, limit=2, burst=0)) for name in "ab")  # one each 30 s
    (permit,) = (await a(ask=1)).permits
    assert (await b(ask=1)).permits == []
    await a(end(permit, "unsent"))
    assert len((await b(ask=1)).permits) == 1


async def test_telling_twice_does_no_harm(a):
    permits = (await a(ask=10)).permits
    for _ in range(2):
        answer = await a(end(permits[0], "unsent"), end(permits[1]))
    assert answer.used == 9
    assert len((await a(ask=5)).permits) == 1


async def test_an_even_pace_is_shared(client):
    rules = replace(RULES, limit=600, burst=0)  # ten a second, 0.5 s of lateness made up for
    a, b = Asker(client, "a", rules), Asker(client, "b", rules)
    began = asyncio.get_running_loop().time()
    dues = [due for _ in range(20) for asker in (a, b) for _, due in (await asker(ask=5)).permits]
    took = asyncio.get_running_loop().time() - began
    assert 6 <= len(dues) <= 6 + 10 * (0.25 + took) + 1
    assert max(dues) <= 0.25


async def test_one_refusal_pauses_all_and_one_trial_ends_it(client):
    a, b = (Asker(client, name, replace(RULES, learn=False)) for name in "ab")
    first, second, *_ = (await a(ask=4)).permits
    news = await a(end(first, "refused", retry_after=1.5), end(second), ask=1)
    assert news.permits == []
    assert news.paused == pytest.approx(1.5, abs=0.001)
    told = await b(ask=3)
    assert told.permits == []
    assert 0 < told.paused < 1.5
    assert (told.pauses, told.reason, told.on_trial) == (1, "rate limit", True)
    (trial,) = (await granted(b, ask=3)).permits
    assert (await a(ask=3)).permits == []
    await b(end(trial, episode=1))
    assert len((await a(ask=3)).permits) >= 1


async def test_what_left_before_a_pause_says_nothing_new(a):
    first, second, third, _ = (await a(ask=4)).permits
    await a(end(first, "refused", retry_after=0.1))
    news = await a(end(second), end(third, "refused", retry_after=0.2))
    assert news.pauses == 1
    assert news.paused > 0.15
    assert news.on_trial


async def test_pauses_grow_while_the_server_refuses(client):
    a = Asker(client, "a", replace(RULES, learn=False))
    (first,) = (await a(ask=1)).permits
    await a(end(first, "refused", retry_after=0.1))
    (trial,) = (await granted(a, ask=5)).permits
    news = await a(end(trial, "refused", episode=1, retry_after=0.1))
    assert news.pauses == 2
    assert 3.9 < news.paused <= 4.0


async def test_five_failures_of_any_processes_pause_all(a, b):
    permits = (await a(ask=5)).permits
    assert (await a(*(end(permit, "failed") for permit in permits[:4]))).paused == 0.0
    news = await b(end(permits[4], "failed"))
    assert news.reason == "server errors"
    assert news.paused > 1.9


async def test_refusals_lower_the_allowance_for_all(client):
    rules = replace(RULES, limit=100)
    a, b = Asker(client, "a", rules), Asker(client, "b", rules)
    permits = (await a(ask=80)).permits
    await a(*(end(permit) for permit in permits[:40]), *(end(p, "refused", retry_after=1.0) for p in permits[40:]))
    news = await b()
    assert news.learned
    assert news.allowance < 97  # 39 more were refused than the one that began it
    no_learning = Asker(client, "c", replace(rules, learn=False, limit=50))
    assert (await no_learning()).allowance <= 50


async def test_the_breaker_is_shared(client):
    a, b = (Asker(client, name, replace(RULES, breaker_seconds=0.5)) for name in "ab")
    (first,) = (await a(ask=1)).permits
    await a(end(first, "refused", retry_after=1.0))
    told = await b(ask=1)
    assert told.broken
    assert told.paused > 59


async def test_an_empty_redis_is_trusted_only_by_the_newcomer_who_was_told_to(client, server):
    assert (await Asker(client, "a", replace(RULES, trust_empty=False))(ask=1)).permits == []
    await client.flushall()
    answer = await Asker(client, "a")(ask=1, known=True)
    assert answer.permits == []
    assert answer.full > 60 + SETTLING - 1
    assert answer.used == 10
    await client.flushall()
    assert len((await Asker(client, "a")(ask=1)).permits) == 1


async def test_state_that_another_run_of_redis_left_is_not_believed(client, server):
    first = Asker(client, "a")
    assert len((await first(ask=3)).permits) == 3
    await client.save()
    assert len((await first(ask=3)).permits) == 3  # lost by the kill
    server.kill()
    await asyncio.to_thread(server.start)
    async with connected(server.url) as again:
        assert await again.hget("wavespeed:1:{test}:state", "grants") == b"3.000000"
        answer = await Asker(again, "b")(ask=1)
        assert answer.permits == []
        assert answer.full > 60


async def test_a_clock_that_was_set_back_empties_nothing(client, a):
    await a(ask=10)
    now = float(await client.hget("wavespeed:1:{test}:state", "now"))
    await client.hset("wavespeed:1:{test}:state", "now", now + 3600)
    assert (await a(ask=1)).permits == []
    assert (await a(ask=1)).full > 60


async def test_who_sent_without_redis_closes_the_window_for_all(a, b):
    await b(ask=1)
    await a(shared=True)
    assert (await b(ask=1)).permits == []


async def test_places_are_shared_by_what_is_wanted(client):
    rules = replace(RULES, places=12, limit=1000)
    a, b, c = (Asker(client, name, rules) for name in "abc")
    assert (await a(waiting=20)).places == 12
    assert (await b(waiting=2)).places == 0
    assert (await a(in_use=12, waiting=8)).places == 10  # two are to be given back
    assert (await b(waiting=2)).places == 0
    assert (await a(in_use=10, waiting=10)).places == 10
    assert (await b(waiting=2)).places == 2
    assert (await c(waiting=20)).places == 0
    assert (await a(in_use=10, waiting=10)).places == 5
    await a(in_use=5, waiting=15)
    assert (await c(waiting=20)).places == 5
    await b()  # needs none any more
    assert (await c(in_use=5, waiting=15)).places == 6


async def test_nobody_hoards_places_for_which_it_has_no_permits(client):
    rules = replace(RULES, places=1000, limit=600, burst=0)
    a = Asker(client, "a", rules)
    first = (await a(waiting=900)).places
    assert 5 <= first < 30
    assert (await a(ask=first, in_use=first, waiting=900)).places == first


async def test_fewer_places_than_processes_go_round(client):
    rules = replace(RULES, places=1)
    a, b, c = (Asker(client, name, rules) for name in "abc")
    assert (await a(waiting=3)).places == 1
    assert (await b(waiting=3)).places == 0
    assert (await c(waiting=3)).places == 0
    assert (await a(in_use=1, waiting=2)).places == 0  # this one to its end, and no other before b and c
    assert (await a(waiting=2)).places == 0
    assert (await c(waiting=3)).places == 0
    assert (await b(waiting=3)).places == 1
    await b()
    assert (await a(waiting=2)).places == 0
    assert (await c(waiting=3)).places == 1


async def test_a_lease_that_is_not_renewed_ends(client):
    a, b = (Asker(client, name, replace(RULES, places=3, lease=2.0)) for name in "ab")
    await a(in_use=3)
    await asyncio.sleep(1.2)
    renewed = asyncio.get_running_loop().time()
    await a(in_use=3)
    async with asyncio.timeout(20):
        while (await b(waiting=3)).places == 0:  # noqa: ASYNC110 - until Redis' clock has it
            await asyncio.sleep(0.02)
    assert asyncio.get_running_loop().time() - renewed > 1.9  # the first would have ended at 0.8
    assert (await b(waiting=3)).places == 3


async def test_many_processes_ask_more_rarely(client):
    askers = [Asker(client, f"{n}", replace(RULES, limit=60_000, burst=0)) for n in range(120)]
    for asker in askers:
        answer = await asker(ask=100, waiting=1000)
    assert answer.again > 0.13  # 0.3, but for askers that are over 2 s ago on a slow machine
    assert answer.places_again >= 120 / 400


async def test_what_was_cut_off_may_arrive_yet(a, client):
    (permit,) = (await a(ask=1)).permits
    await a(end(permit, "cut off"))
    assert await client.zcard("wavespeed:1:{test}:away") == 1
    await a(end(permit))
    assert await client.zcard("wavespeed:1:{test}:away") == 0


async def test_a_refusal_that_is_told_again_lowers_nothing_again(a):
    permits = (await a(ask=8)).permits
    first = await a(end(permits[0], "refused", retry_after=1.0))
    again = await a(end(permits[0], "refused", retry_after=1.0))
    assert (again.allowance, again.pauses) == (first.allowance, first.pauses)
    assert again.paused < first.paused


async def test_a_longer_pause_that_is_asked_for_afterwards_breaks_too(a):
    first, second = (await a(ask=2)).permits
    assert not (await a(end(first, "refused", retry_after=2.0))).broken
    answer = await a(end(second, "refused", retry_after=3600.0))
    assert answer.broken
    assert answer.paused > 3590
