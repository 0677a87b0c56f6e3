"""Whose jobs a folder holds: runs of another API are refused, and an emulator that has ended costs nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing, closing

import pytest
from durable import images, prompts, results

from wavespeed_qwen_async import ConfigurationError, QwenImageSession
from wavespeed_qwen_async.bulk import Batch, _schema
from wavespeed_qwen_async.bulk.journal import JOURNAL_NAME
from wavespeed_qwen_async.emulator import Emulator

pytestmark = pytest.mark.anyio


@pytest.fixture
async def real():
    """Another server, in place of the real one."""
    async with Emulator(tier=None, blank=True) as running:
        yield running


async def test_after_the_emulator_a_real_run_is_refused_before_anything_is_sent(run, write, folder, emulator, real):
    source = write(*prompts(3))
    await run(source, emulator=True)
    for what in ("run", "plan", "strangers"):
        async with QwenImageSession(api_key="k", base_url=real.url) as session:
            batch = Batch(source, folder, session)
            with pytest.raises(
                ConfigurationError, match=f"{folder} holds a run of the emulator.*choose another folder"
            ):
                await (batch.plan() if what == "plan" else anext(getattr(batch, what)()))
    assert not real.ledger.requests["submit"]
    assert len(images(folder)) == 3


async def test_an_emulated_run_leaves_a_real_ones_folder_alone(run, write, folder, emulator):
    source = write(*prompts(3))
    await run(source)
    with pytest.raises(ConfigurationError, match=f"holds a run at {emulator.url}, and this one is at an emulator"):
        await run(source, emulator=True)
    batch, _ = await run(source)
    assert batch.summary().skipped == 3


async def test_another_address_or_path_is_another_api(run, write, emulator, real):
    source = write(*prompts(3))
    await run(source, session={"base_url": emulator.url + "/"})
    for elsewhere in (real.url, emulator.url + "/wavespeed"):
        with pytest.raises(ConfigurationError, match=f"go on with base URL {emulator.url}[.]"):
            await run(source, session={"base_url": elsewhere})
    assert not real.ledger.requests["submit"]
    batch, _ = await run(source)
    assert batch.summary().skipped == 3


async def test_a_folder_where_nothing_was_accepted_belongs_to_nobody(run, write, emulator, real):
    emulator.faults.add("submit", "status", status=400)
    source = write(*prompts(3))
    await run(source)
    _, outcomes = await run(source, session={"base_url": real.url}, retry_failed=True)
    assert [outcome.ok for outcome in outcomes] == [True] * 3


async def test_a_lost_submit_makes_it_somebodys(run, write, emulator, real):
    emulator.faults.add("submit", "drop_after")
    emulator.faults.add("list", "status", status=401)
    source = write(*prompts(1))
    await run(source)
    with pytest.raises(ConfigurationError, match="holds a run at"):
        await run(source, session={"base_url": real.url})


async def test_what_an_emulator_had_under_way_when_it_ended_is_sent_to_the_next(  # noqa: PLR0917 - fixtures
    opened, run, write, folder, emulator, real
):
    source = write(*prompts(40))

    async def cut_off():
        async with opened() as session:
            async with aclosing(Batch(source, folder, session, emulator=True, max_in_flight=10).run()) as outcomes:
                async for _ in outcomes:
                    pass

    task = asyncio.create_task(cut_off())
    await asyncio.sleep(12)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    had = len(images(folder))
    assert 0 < had < len(emulator.ledger.accepted) < 40
    batch, outcomes = await run(source, emulator=True, session={"base_url": real.url})
    assert all(outcome.ok for outcome in outcomes)
    assert len(images(folder)) == 40
    assert len(real.ledger.accepted) == 40 - had
    assert batch.summary().cost_total == pytest.approx(1.0)
    assert sorted(line["index"] for line in results(folder)) == list(range(40))


async def test_a_journal_of_the_first_version_is_taken_along(run, write, folder, emulator, real, monkeypatch):  # noqa: PLR0917 - fixtures
    source = write(*prompts(3))
    await run(source)
    with closing(sqlite3.connect(folder / JOURNAL_NAME)) as database:  # back to what version 1 made
        database.executescript(
            "DROP TABLE api; DROP INDEX details_lines; DROP TABLE given_up; PRAGMA user_version = 1;"
        )
    batch, _ = await run(source)
    assert batch.summary().skipped == 3
    with pytest.raises(ConfigurationError, match="holds a run at"):
        await run(source, session={"base_url": real.url})
    assert len(_schema.MIGRATIONS) >= 2
