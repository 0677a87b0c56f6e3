"""How a run is ended: drained, left, cancelled at any moment; by its disk, its folder, its source."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import sqlite3
from contextlib import aclosing, closing

import pytest
from durable import images, prompts, results
from PIL import Image

from wavespeed_qwen_async import ConfigurationError, DownloadError, Limits, MediaUnreachable
from wavespeed_qwen_async.bulk import Batch, JournalError
from wavespeed_qwen_async.bulk._store import Store
from wavespeed_qwen_async.bulk.journal import JOURNAL_NAME
from wavespeed_qwen_async.emulator.blank import blank_image

pytestmark = pytest.mark.anyio


async def test_drained_it_collects_what_is_paid_and_sends_no_more(opened, run, write, folder, emulator):
    source = write(*prompts(200))
    async with opened() as session:
        batch = Batch(source, folder, session, max_in_flight=20)
        collected = []
        async with aclosing(batch.run()) as outcomes:
            async for outcome in outcomes:
                collected.append(outcome)
                if len(collected) == 5:
                    batch.drain()
                    sent = emulator.ledger.requests["submit"]
                    assert batch.progress().state == "draining"
    assert emulator.ledger.requests["submit"] == sent
    assert len(collected) == len(emulator.ledger.accepted) == len(images(folder))
    assert all(outcome.ok for outcome in collected)
    assert batch.summary().stopped == "drained"
    batch, rest = await run(source)
    assert len(rest) == 200 - len(collected)
    assert len(emulator.ledger.accepted) == 200


async def test_drained_at_a_slow_rate_it_does_not_wait_for_its_turns(opened, write, folder, emulator):
    async with opened(limits=Limits(max_per_minute=2, max_in_flight=50)) as session:
        batch = Batch(write(*prompts(50)), folder, session)
        async with aclosing(batch.run()) as outcomes:
            async for _ in outcomes:
                batch.drain()
                drained = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - drained < 5
    assert batch.summary().stopped == "drained"


async def test_drained_before_it_runs_and_while_its_source_thinks(opened, folder, emulator):
    async def thinking():
        yield {"prompt": "a"}
        await asyncio.sleep(10_000)
        yield {"prompt": "b"}

    async with opened() as session:
        batch = Batch(thinking(), folder, session)
        asyncio.get_running_loop().call_later(100, batch.drain)
        began = asyncio.get_running_loop().time()
        async with aclosing(batch.run()) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 1
        assert asyncio.get_running_loop().time() - began < 200
        batch = Batch(prompts(3), folder, session)
        batch.drain()
        async with aclosing(batch.run()) as outcomes:
            assert [outcome async for outcome in outcomes] == []
    assert len(emulator.ledger.accepted) == 1


@pytest.mark.parametrize("after", [0.0, 0.001, 0.01, 0.1, 1.0, 5.0, 7.0, 9.0, 11.0, 13.0])
async def test_cancelled_at_any_moment_the_next_run_goes_on(opened, run, write, folder, emulator, after):  # noqa: PLR0917 - fixtures
    emulator.faults.add("submit", "drop_after", every=7)
    emulator.faults.add("submit", "drop", every=11)
    source = write(*prompts(40))

    async def first():
        async with opened() as session:
            batch = Batch(source, folder, session, max_in_flight=10)
            async with aclosing(batch.run()) as outcomes:
                async for _ in outcomes:
                    pass

    task = asyncio.create_task(first())
    await asyncio.sleep(after)
    began = asyncio.get_running_loop().time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.get_running_loop().time() - began < 3, "it leaves at once"
    batch, _ = await run(source)
    assert len(images(folder)) == 40
    assert batch.summary().saved + batch.summary().skipped == 40
    assert len(emulator.ledger.accepted) == 40
    assert not emulator.ledger.doubles()
    assert sorted(line["index"] for line in results(folder)) == list(range(40))


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_disk_that_fills_while_images_are_saved(run, write, folder, emulator, monkeypatch):
    source = write(*prompts(60))
    original, written = os.writev, []

    def writev(file, pieces):
        written.append(file)
        return full() if len(written) > 5 else original(file, pieces)

    monkeypatch.setattr(os, "writev", writev)
    with pytest.raises(DownloadError, match="No space left"):
        await run(source, max_in_flight=10)
    paid = len(emulator.ledger.accepted)
    assert paid <= 5 + 2 * 10 + 1, "nothing paid after it"
    monkeypatch.undo()
    _, outcomes = await run(source)
    assert all(outcome.ok for outcome in outcomes)
    assert len(images(folder)) == 60
    assert len(emulator.ledger.accepted) == 60


async def test_a_disk_that_fills_under_the_journal(run, write, folder, emulator, monkeypatch):
    source = write(*prompts(60))
    original, commits = Store.commit, []

    def commit(store, moves):
        commits.append(len(moves))
        if len(commits) > 8:
            monkeypatch.setattr(Store, "apply", broken)
        return original(store, moves)

    def broken(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "commit", commit)
    with pytest.raises(JournalError, match="no room on the disk"):
        await run(source, max_in_flight=10)
    before = len(emulator.ledger.accepted)
    assert before <= 20
    monkeypatch.undo()
    _, _outcomes = await run(source)
    assert len(images(folder)) == 60
    assert len(emulator.ledger.accepted) == 60


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
async def test_a_read_only_folder_as_another_user(run, write, folder, emulator):
    folder.mkdir(mode=0o500)
    with pytest.raises(JournalError, match="can't write"):
        await run(write(*prompts(3)))
    assert emulator.ledger.requests["submit"] == 0


async def test_a_folder_that_cannot_be_written(run, write, folder, emulator, monkeypatch):
    def refused(*_args, **_options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    folder.write_text("a file where the folder should be")
    with pytest.raises(JournalError, match="can't make the folder"):
        await run(write(*prompts(3)))
    folder.unlink()
    monkeypatch.setattr("wavespeed_qwen_async.bulk._lock.os.open", refused)
    with pytest.raises(JournalError, match="can't write into .*Permission denied"):
        await run(write(*prompts(3)))
    monkeypatch.undo()
    assert emulator.ledger.requests["submit"] == 0


async def test_a_damaged_journal_stops_before_anything_is_paid(run, write, folder, emulator):
    source = write(*prompts(5))
    await run(source)
    data = bytearray((folder / JOURNAL_NAME).read_bytes())
    data[100:3000] = b"\xff" * 2900
    (folder / JOURNAL_NAME).write_bytes(data)
    with pytest.raises(JournalError, match="is damaged"):
        await run(source)
    assert len(emulator.ledger.accepted) == 5
    assert len(images(folder)) == 5


async def test_a_newer_journal_is_refused(run, write, folder, emulator):
    source = write(*prompts(5))
    await run(source)
    with sqlite3.connect(folder / JOURNAL_NAME) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(JournalError, match="version 99"):
        await run(source)
    assert len(emulator.ledger.accepted) == 5


async def test_two_runs_on_one_folder_are_refused(opened, write, folder, emulator):
    source = write(*prompts(20))
    async with opened() as session, opened() as other:
        async with aclosing(Batch(source, folder, session).run()) as outcomes:
            await anext(outcomes)
            with pytest.raises(JournalError, match="another run"):
                await anext(Batch(source, folder, other).run())
            assert len([outcome async for outcome in outcomes]) == 19
    assert len(emulator.ledger.accepted) == 20


async def test_a_source_that_changes_under_the_run(run, write, folder, emulator, monkeypatch):
    monkeypatch.setattr("wavespeed_qwen_async.bulk.sources._CHUNK", 50)
    source = write(*prompts(250))
    task = asyncio.create_task(run(source, session={"max_in_flight": 20}))
    await asyncio.sleep(5)
    with source.open("a") as file:
        file.write('{"prompt": "one more"}\n')
    with pytest.raises(ConfigurationError, match="was changed while it was read"):
        await task
    accepted = len(emulator.ledger.accepted)
    assert accepted == len(images(folder)) <= 150, "what was paid is collected, no more is paid"
    _, outcomes = await run(source)
    assert accepted + len(outcomes) == 251 == len(emulator.ledger.accepted)


async def test_a_source_that_raises_ends_after_what_is_paid(run, folder, emulator):
    def failing():
        yield from prompts(20)
        raise RuntimeError("the source's own")

    with pytest.raises(RuntimeError, match="own"):
        await run(failing())
    assert len(emulator.ledger.accepted) == len(images(folder)) == 16, "a chunk that came whole"
    _, outcomes = await run(prompts(20))
    assert len(outcomes) == 4


async def test_uploads_are_known_to_the_next_run(run, write, tmp_path, emulator):
    for name, side in (("a.png", 256), ("b.png", 300)):
        (tmp_path / name).write_bytes(blank_image(side, side, "png"))
    jobs = [{"prompt": f"{n}", "image": ("a.png", "b.png")[n % 2]} for n in range(20)]
    _, outcomes = await run(write(*jobs[:10]))
    assert all(outcome.ok for outcome in outcomes)
    assert emulator.ledger.requests["ticket"] == 2, "paths are seen from the file that names them, each content once"
    _, outcomes = await run(write(*jobs))
    assert len(outcomes) == 10
    assert emulator.ledger.requests["ticket"] == 2


@pytest.mark.wavespeed_emulator(retention=7 * 86_400.0)
async def test_an_upload_that_has_ended_is_made_again_when_asked(run, write, tmp_path, emulator, folder):
    (tmp_path / "a.png").write_bytes(blank_image(256, 256, "png"))
    source = write({"prompt": "a", "image": "a.png"})
    emulator.faults.script("submit", "drop")
    down = emulator.faults.add("list", "status", status=500)
    batch, _ = await run(source)
    assert batch.summary().unknown == 1
    emulator.faults.remove(down)
    await asyncio.sleep(8 * 86_400)
    with closing(sqlite3.connect(folder / JOURNAL_NAME)) as database, database:
        database.execute("UPDATE uploads SET expires_at = expires_at - 8 * 86400")  # the journal goes by the real time
    _, (outcome,) = await run(source, resubmit_unknown=True)
    assert isinstance(outcome.error, MediaUnreachable)
    _, (outcome,) = await run(source, retry_failed=True)
    assert outcome.ok
    assert emulator.ledger.requests["ticket"] == 2


async def test_names_that_the_disk_does_not_take_end_it_and_others_are_given(run, write, folder, emulator):
    too_long = "/".join(["x" * 200] * 21) + "/{index}.{ext}"
    with pytest.raises(DownloadError, match="name too long"):
        await run(write(*prompts(20)), names=too_long, max_in_flight=2)
    assert len(emulator.ledger.accepted) <= 4, "no more is paid"
    batch, outcomes = await run(write(*prompts(20)), names="{index}.{ext}")
    assert all(outcome.ok for outcome in outcomes)
    assert batch.summary().saved == 20
    assert images(folder) == sorted(f"{number}.jpg" for number in range(20))
    assert len(emulator.ledger.accepted) == 20


async def test_a_picture_that_is_cut_off_is_that_jobs_failure(run, emulator):
    whole = io.BytesIO()
    Image.effect_noise((300, 300), 50).save(whole, "png")
    cut = Image.open(io.BytesIO(whole.getvalue()[:2000]))
    _, outcomes = await run([{"prompt": "a", "image": cut}, {"prompt": "b"}])
    assert [outcome.ok for outcome in sorted(outcomes, key=lambda outcome: outcome.index)] == [False, True]
    assert len(emulator.ledger.accepted) == 1


async def test_a_defect_ends_it_and_no_job_is_told_to_have_gone_well(opened, write, folder, emulator):
    class Broken(Limits):
        async def acquire(self):
            raise RuntimeError("a defect")

    told = []
    async with opened(limits=Broken(max_per_minute=60, max_in_flight=5)) as session:
        batch = Batch(write(*prompts(3)), folder, session)
        with pytest.raises(RuntimeError, match="a defect"):
            async with aclosing(batch.run()) as outcomes:
                async for outcome in outcomes:
                    told.append(outcome)
    assert not any(outcome.ok for outcome in told)
    assert batch.progress().in_flight == 0


async def test_a_missing_source_image_is_that_jobs_failure(run, write, emulator):
    _, outcomes = await run(write({"prompt": "a", "image": "missing.png"}, {"prompt": "b"}))
    wrong = next(outcome for outcome in outcomes if not outcome.ok)
    assert wrong.error.billed == "no"
    assert wrong.price == 0
    assert len(emulator.ledger.accepted) == 1


async def cut_off(opened, folder, source, after):
    """Run for a while, then be gone as a killed process is: what was on its way stays `submitting`."""

    async def first():
        async with opened() as session:
            async with aclosing(Batch(source, folder, session).run()) as outcomes:
                async for _ in outcomes:
                    pass

    task = asyncio.create_task(first())
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cut_off_job_whose_line_is_gone_is_collected_if_paid_and_not_sent_if_not(
    opened, run, write, folder, emulator
):
    emulator.faults.script("submit", "drop_after", "drop", "drop")
    await cut_off(opened, folder, write(*prompts(3)), 0.3)
    assert len(emulator.ledger.accepted) == 1
    kept = emulator.ledger.accepted[0].inputs["prompt"]
    source = write(*[{"prompt": f"new {n}"} for n in range(2)], {"prompt": "picture 2"})
    _batch, outcomes = await run(source)
    accepted = [record.inputs["prompt"] for record in emulator.ledger.accepted]
    assert sorted(accepted) == sorted({kept, "new 0", "new 1", "picture 2"})
    assert sum(outcome.resumed for outcome in outcomes) >= 1
    assert len(images(folder)) == len(accepted)


async def test_a_cut_off_job_keeps_its_seed(opened, run, write, folder, emulator):
    emulator.faults.add("submit", "drop", times=3)
    source = write(*prompts(3))
    await cut_off(opened, folder, source, 0.3)
    assert len(emulator.ledger.accepted) == 0
    with sqlite3.connect(folder / JOURNAL_NAME) as database:
        before = {row[0] for row in database.execute("SELECT inputs FROM details")}
    database.close()
    await run(source)
    after = {record.inputs["seed"] for record in emulator.ledger.accepted}
    assert len(before) == 3
    assert all(any(f'"seed":{seed}' in text for text in before) for seed in after)


async def test_what_the_journal_holds_is_not_adopted_for_its_equal_twin(opened, run, write, folder, emulator):
    emulator.faults.script("submit", "ok", "drop")
    source = write(*[{"prompt": "twin", "seed": 5}] * 2)
    await cut_off(opened, folder, source, 0.3)
    assert len(emulator.ledger.accepted) == 1
    _, outcomes = await run(source)
    assert len({outcome.prediction.id for outcome in outcomes}) == 2
    assert len(emulator.ledger.accepted) == 2


async def test_unknown_ones_are_left_looked_for_again_and_sent_again_only_when_asked(run, write, folder, emulator):
    emulator.faults.script("submit", "drop_after", "drop")
    down = emulator.faults.add("list", "status", status=500)
    source = write(*prompts(4))
    batch, outcomes = await run(source)
    assert sum(outcome.ok for outcome in outcomes) == 2
    assert batch.summary().unknown == 2
    assert batch.summary().cost_total == pytest.approx(0.1), "perhaps paid counts as paid"
    batch, outcomes = await run(source)
    assert outcomes == []
    assert batch.summary().unknown == 2
    emulator.faults.remove(down)
    batch, outcomes = await run(source)
    assert [outcome.ok for outcome in outcomes] == [True], "the accepted one is found, the other is not sent by itself"
    assert len(emulator.ledger.accepted) == 3
    assert batch.summary().unknown == 1
    batch, outcomes = await run(source, resubmit_unknown=True)
    assert [outcome.ok for outcome in outcomes] == [True]
    assert not outcomes[0].resumed
    assert batch.summary().cost == pytest.approx(0.025), "this run paid it"
    assert len(emulator.ledger.accepted) == 4
    assert batch.summary().unknown == 0
    assert sorted(line["status"] for line in results(folder)) == ["saved"] * 4


async def test_sent_again_as_asked_it_costs_its_price_twice_and_the_budget_counts_both(
    run, opened, write, folder, emulator
):
    emulator.faults.script("submit", "drop_after")
    emulator.faults.add("list", "status", status=500)  # what became of it is never found out
    batch, _ = await run(write(*prompts(1)), budget=0.05)
    assert batch.summary().unknown == 1
    source = write(*prompts(3))
    async with opened() as session:
        plan = await Batch(source, folder, session, budget=0.06, resubmit_unknown=True).plan()
    assert "up to 1 unknown jobs are sent again for $0.025 more, and may be billed twice" in plan.notes
    assert "the budget does not cover all: the rest stays for a later run" in plan.notes
    for budget, sent in ((0.04, 0), (0.06, 1), (0.08, 2)):
        batch, outcomes = await run(source, budget=budget, resubmit_unknown=True)
        assert len(emulator.ledger.accepted) == 1 + sent, "one was accepted, and nobody knows it"
        assert batch.summary().cost_total == pytest.approx(0.025 + 0.025 * sent)
        assert batch.summary().cost_total <= budget
        assert batch.summary().stopped == "budget"
        assert all(outcome.ok for outcome in outcomes)
    batch, outcomes = await run(source, budget=0.125, resubmit_unknown=True)
    assert len(outcomes) == 1
    assert batch.summary().stopped is None
    assert batch.summary().cost_total == pytest.approx(0.1)
    assert batch.summary().unknown == 0


async def test_what_comes_back_of_a_second_send_is_the_second_price_only(run, write, emulator):
    emulator.faults.script("submit", "drop_after")
    emulator.faults.add("list", "status", status=500)
    source = write({"prompt": "[moderated]"})
    await run(source)
    batch, (outcome,) = await run(source, resubmit_unknown=True)
    assert outcome.error.billed == "yes"
    assert batch.summary().refunded == pytest.approx(0.025)
    assert batch.summary().cost == 0
    assert batch.summary().cost_total == pytest.approx(0.025), "the first was perhaps paid"


async def test_hundreds_that_are_looked_for_keep_no_new_one_from_being_sent(opened, run, write, folder, emulator):
    slow = emulator.faults.add("submit", "slow_headers", seconds=100)
    await cut_off(opened, folder, write(*prompts(280)), 40)
    assert len(emulator.ledger.accepted) == 280
    emulator.faults.remove(slow)
    emulator.faults.add("list", "slow_headers", seconds=20)
    began = asyncio.get_running_loop().time()
    _, outcomes = await run(write(*prompts(281)))
    assert len(outcomes) == len(emulator.ledger.accepted) == 281
    assert emulator.ledger.accepted[-1].time - began < 10, "no reading of the list was awaited first"


async def test_strangers_are_listed(opened, run, write, folder, emulator):
    await run(write(*prompts(2)))
    async with opened() as session:
        foreign = await session.generate("somebody else's")
        found = [prediction async for prediction in Batch([], folder, session).strangers()]
    assert [prediction.id for prediction in found] == [foreign.id]


async def test_the_accounts_window_goes_on_over_a_restart(opened, write, folder, emulator):
    source = write(*prompts(30))

    async def some(count):
        async with opened(limits=Limits(max_per_minute=10, max_in_flight=50, burst=True)) as session:
            async with aclosing(Batch(source, folder, session).run()) as outcomes:
                async for _ in outcomes:
                    count -= 1
                    if not count:
                        return

    await some(10)
    await some(5)
    assert emulator.ledger.peak_submits(60.0) <= 10
