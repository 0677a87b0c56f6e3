"""Budget, credits, and the plan made before either is touched."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from durable import images, prompts, results
from hypothesis import given
from hypothesis import strategies as st

from wavespeed_qwen_async import AuthenticationError, BudgetError, ConfigurationError, InsufficientCreditsError, Limits
from wavespeed_qwen_async.bulk import Batch
from wavespeed_qwen_async.bulk._budget import Budget, micro

pytestmark = pytest.mark.anyio


async def test_a_dollar_buys_exactly_forty(run, write, emulator, folder):
    batch, outcomes = await run(write(*prompts(1000)), budget=1.00, session={"max_in_flight": 300})
    assert len(emulator.ledger.accepted) == 40
    assert len(outcomes) == len(images(folder)) == 40
    summary = batch.summary()
    assert summary.stopped == "budget"
    assert summary.cost == 1.0
    with pytest.raises(BudgetError, match=r"the folder cost \$1 so far") as raised:
        summary.raise_if_stopped()
    assert raised.value.billed == "no"
    assert batch.progress().budget_left == 0


async def test_the_budget_is_the_folders_and_a_larger_one_goes_on(run, write, emulator):
    source = write(*prompts(100))
    await run(source, budget=0.25)
    batch, outcomes = await run(source, budget=0.25)
    assert outcomes == []
    assert batch.summary().stopped == "budget"
    batch, outcomes = await run(source, budget=0.5)
    assert len(outcomes) == 10
    assert batch.summary().cost_total == 0.5
    assert len(emulator.ledger.accepted) == 20


async def test_what_is_refunded_may_be_spent_again(run, write, emulator):
    jobs = [{"prompt": "[moderated]"}] * 5 + prompts(20)
    batch, outcomes = await run(write(*jobs), budget=0.25)
    assert sum(outcome.ok for outcome in outcomes) == 10
    assert len(emulator.ledger.accepted) == 15
    assert batch.summary().refunded == pytest.approx(0.125)
    assert batch.summary().cost == pytest.approx(0.25)


async def test_used_up_credits_end_it_cleanly(run, write, emulator, opened, folder):
    emulator.faults.add("submit", "status", status=402, nth=range(11, 1000))
    source = write(*prompts(50))
    batch, outcomes = await run(source, max_in_flight=5)
    assert all(outcome.ok for outcome in outcomes)
    assert len(outcomes) == 10
    assert batch.summary().stopped == "credits"
    with pytest.raises(InsufficientCreditsError, match="top it up"):
        batch.summary().raise_if_stopped()
    emulator.faults.clear()
    batch, outcomes = await run(source)
    batch.summary().raise_if_stopped()
    assert len(outcomes) == 40
    assert len(emulator.ledger.accepted) == 50


@pytest.mark.wavespeed_emulator(balance=0.01)
async def test_the_balance_is_looked_at_first(run, write, emulator):
    batch, _outcomes = await run(write(*prompts(3)))
    assert batch.summary().stopped == "credits"
    assert emulator.ledger.requests["submit"] == 0


async def test_a_wrong_key_is_told_before_anything_is_sent(run, write, emulator):
    emulator.api_key = "right"
    with pytest.raises(AuthenticationError):
        await run(write(*prompts(3)))
    assert emulator.ledger.requests["submit"] == 0


async def test_a_plan_sends_nothing_and_writes_nothing(run, write, opened, folder, emulator):
    source = write(*prompts(3), {"prompt": "x", "image": "https://example.com/a.png"}, "nonsense")
    async with opened(tier="bronze") as session:
        plan = await Batch(source, folder, session, budget=0.06).plan()
    assert not folder.exists()
    assert emulator.ledger.requests["submit"] == 0
    assert (plan.total, plan.new, plan.invalid_count, plan.affordable) == (5, 4, 1, 2)
    assert plan.invalid == [(5, plan.invalid[0][1])]
    assert sum(price.count for price in plan.prices) == 4
    assert plan.cost == pytest.approx(0.1)
    assert plan.balance == pytest.approx(1000)
    assert 60 < plan.seconds < 120, "4 images at 2 a minute"
    assert any("budget" in note for note in plan.notes)
    await run(source, limit=2)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    async with opened() as session:
        plan = await Batch(source, folder, session).plan()
    assert (plan.saved, plan.new) == (2, 2)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


async def test_without_a_price_from_the_api_the_pages_figure_stands(opened, write, folder, emulator):
    emulator.faults.add("price", "status", status=404)
    async with opened() as session:
        plan = await Batch(write(*prompts(4)), folder, session).plan()
    assert plan.cost == pytest.approx(0.1)
    assert plan.prices[0].source == "pages"


@pytest.mark.parametrize("price", [0.0, -0.025])
async def test_a_price_of_nothing_voids_no_budget(opened, write, folder, emulator, price):
    emulator.service.account._price = price
    async with opened() as session:
        batch = Batch(write(*prompts(8)), folder, session, budget=0.1)
        async for _ in batch.run():
            pass
    assert batch.summary().stopped == "budget"
    assert len(emulator.ledger.accepted) == 4


async def test_a_price_that_changes_on_the_way_counts_from_then_on(opened, write, folder, emulator):
    """At two a minute fifty take 25 minutes."""
    async with opened(limits=Limits(max_per_minute=2, max_in_flight=2)) as session:
        batch = Batch(write(*prompts(100)), folder, session, budget=1.00, max_in_flight=2)
        async with aclosing(batch.run()) as outcomes:
            async for outcome in outcomes:
                if outcome.index == 3:
                    emulator.service.account._price = 0.1
    assert batch.summary().stopped == "budget"
    told = sum(line["price"] for line in results(folder))
    assert told == pytest.approx(batch.summary().cost_total)
    assert len(emulator.ledger.accepted) < 30, "asked again after ten minutes at the latest"


def test_money_is_counted_in_whole_parts():
    assert micro(0.025) * 40 == micro(1.0)
    with pytest.raises(ConfigurationError):
        Budget(float("nan"))


@given(st.integers(1, 100), st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=60))
def test_a_budget_is_never_exceeded(limit, jobs):
    import asyncio

    async def spend():
        budget, kept = Budget(limit / 1_000_000), 0
        for price, refunded in jobs:
            if not await budget.reserve(price):
                continue
            assert budget.spent <= limit
            budget.settle(price if refunded else 0)
            kept += 0 if refunded else price
        assert budget.spent == kept <= limit

    asyncio.run(spend())
