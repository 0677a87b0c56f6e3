"""A batch from its source to its folder, and again."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import aclosing

import pytest
from durable import images, prompts, results

from wavespeed_qwen_async import (
    ConfigurationError,
    InvalidJobError,
    NotSentError,
    ResultTimeout,
    TaskInternalError,
    TextToImage,
)
from wavespeed_qwen_async.bulk import Batch

pytestmark = pytest.mark.anyio


async def test_each_job_is_one_file_and_one_line(run, write, folder, emulator):
    batch, outcomes = await run(write(*prompts(20)))
    assert sorted(outcome.index for outcome in outcomes) == list(range(20))
    assert all(outcome.ok and outcome.path.is_file() and outcome.prediction.ok for outcome in outcomes)
    assert len(images(folder)) == 20
    told = results(folder)
    assert {line["index"]: line["file"] for line in told} == {o.index: o.path.name for o in outcomes}
    assert told[0]["inputs"]["seed"] >= 0
    summary = batch.summary()
    assert (summary.total, summary.saved, summary.failed, summary.open) == (20, 20, 0, 0)
    assert summary.cost == summary.cost_total == pytest.approx(0.5)
    assert len(emulator.ledger.accepted) == 20


async def test_a_second_run_sends_and_saves_nothing(run, write, folder, emulator):
    source = write(*prompts(10))
    await run(source)
    before = (folder / "results.jsonl").read_bytes()
    requests = emulator.ledger.requests["download"]
    batch, outcomes = await run(source)
    assert outcomes == []
    assert batch.summary().skipped == 10
    assert batch.summary().cost == 0
    assert (folder / "results.jsonl").read_bytes() == before
    assert len(emulator.ledger.accepted) == 10
    assert emulator.ledger.requests["download"] == requests


async def test_lines_are_known_by_content_wherever_they_stand(run, write, folder, emulator):
    jobs = prompts(6)
    await run(write(*jobs))
    moved = [{"prompt": "first now"}, *reversed(jobs), {"prompt": "last now"}]
    rewritten = [json.dumps(job, indent=None, separators=(" , ", " : ")) for job in moved]
    batch, outcomes = await run(write(*rewritten))
    assert sorted(outcome.index for outcome in outcomes) == [0, 7]
    assert batch.summary().skipped == 6
    assert len(emulator.ledger.accepted) == 8
    assert len(images(folder)) == 8


async def test_equal_lines_are_made_as_often_as_they_stand_there(run, write, emulator, folder):
    same = {"prompt": "twice", "seed": 5}
    await run(write(same, same))
    assert len(emulator.ledger.accepted) == 2
    await run(write(same, {"prompt": "other"}, same, same))
    assert len(emulator.ledger.accepted) == 4
    assert len(images(folder)) == 4


async def test_a_job_taken_from_a_block_further_on_is_missed_there(run, write, emulator, monkeypatch):
    """Blocks of unchanged lines are not looked into: one that lost a job to an earlier line is not unchanged."""
    monkeypatch.setattr("wavespeed_qwen_async.bulk.sources._CHUNK", 2)
    a, b, c, d = prompts(4)
    await run(write(a, b, c, d))
    await run(write(c, b, c, d))
    assert len(emulator.ledger.accepted) == 5


async def test_a_file_as_it_was_before_is_not_taken_for_what_came_between(run, write, emulator, monkeypatch):
    """A blank line moves the blocks, so that one of the first run outlives the second: its places hold other jobs."""
    monkeypatch.setattr("wavespeed_qwen_async.bulk.sources._CHUNK", 4)
    jobs = [json.dumps(job) for job in prompts(8)]
    before = ["", *jobs]
    await run(write(*before))
    emulator.faults.add("submit", "status", status=402, times=1)
    await run(write(*jobs[:3], json.dumps({"prompt": "between"}), *jobs[3:6], jobs[7]))
    batch, outcomes = await run(write(*before))
    assert outcomes == []
    assert batch.summary().skipped == 8
    assert len(emulator.ledger.accepted) == 8, "all of them were paid by the first run"


async def test_a_changed_line_is_a_new_job_and_is_told_before_paying(run, write, opened, folder, emulator, caplog):  # noqa: PLR0917 - fixtures
    await run(write({"prompt": "a", "seed": 1}, {"prompt": "b", "seed": 1}))
    source = write({"prompt": "a", "seed": 1, "size": "512*512"}, {"prompt": "b", "seed": 1})
    async with opened() as session:
        plan = await Batch(source, folder, session).plan()
    assert (plan.new, plan.saved, plan.changed, plan.removed) == (1, 1, [0], 1)
    _batch, outcomes = await run(source)
    assert [outcome.index for outcome in outcomes] == [0]
    assert "not what they were" in caplog.text
    assert len(images(folder)) == 3, "the image of the job that stood there before is not written over"
    assert len(emulator.ledger.accepted) == 3


async def test_a_bad_line_is_an_outcome_with_its_number(run, write, folder, emulator):
    batch, outcomes = await run(write({"prompt": "a"}, "no json", {"prompt": "b", "sise": "1"}, "7", {"prompt": "c"}))
    wrong = {outcome.line: outcome.error for outcome in outcomes if not outcome.ok}
    assert sorted(wrong) == [2, 3, 4]
    assert all(isinstance(error, InvalidJobError) and f"line {line}:" in str(error) for line, error in wrong.items())
    assert batch.summary().failed == 3
    assert batch.summary().errors[0][:2] == ("InvalidJobError", 3)
    assert len(emulator.ledger.accepted) == 2
    assert sum(line["status"] == "failed" for line in results(folder)) == 3


async def test_strict_sends_nothing_until_all_lines_are_jobs(run, write, folder, emulator):
    with pytest.raises(InvalidJobError, match="2 lines.*line 3:.*line 4:"):
        await run(write(*prompts(2), "nonsense", "{}"), strict=True)
    assert emulator.ledger.requests["submit"] == 0
    with pytest.raises(InvalidJobError, match="1 lines of the given jobs"):
        await run(iter([{"prompt": "a"}, {"prompt": ""}]), strict=True)
    _, outcomes = await run(iter(prompts(3)), strict=True)
    assert len(outcomes) == 3, "a generator that was checked is still there to be run"


async def test_what_failed_for_good_is_left_and_what_may_pass_is_sent_again(run, write, folder, emulator):
    emulator.faults.add("submit", "fail", nth=2, code=5000)
    emulator.faults.add("submit", "status", nth=4, status=400)
    source = write({"prompt": "[moderated]"}, *prompts(4))
    batch, outcomes = await run(source, max_in_flight=1)
    assert [type(o.error).__name__ for o in outcomes if not o.ok] == [
        "ContentModerated",
        "TaskInternalError",
        "BadRequestError",
    ]
    assert batch.summary().failed == 3
    assert batch.summary().refunded == pytest.approx(0.05)
    assert batch.summary().cost == pytest.approx(0.05)
    _, again = await run(source)
    assert again == []
    batch, again = await run(source, retry_failed=True)
    assert sorted(outcome.index for outcome in again if outcome.ok) == [1, 3]
    assert batch.summary().failed == 1
    lines = results(folder)
    assert sorted(line["index"] for line in lines) == [0, 1, 2, 3, 4], "the newer line stands for the older"
    assert [line["ok"] for line in sorted(lines, key=lambda line: line["index"])] == [False, True, True, True, True]


async def test_a_retry_after_a_failed_task_does_not_adopt_the_failed_one(run, write, emulator):
    """The failed task has the same inputs; the lost answer of the retry must not be taken for it."""
    emulator.faults.script("submit", ("fail", {"code": 5000}), "drop_after")
    source = write({"prompt": "x"})
    _, (first,) = await run(source)
    assert isinstance(first.error, TaskInternalError)
    _, (second,) = await run(source, retry_failed=True, session={"rng": random.Random(8)})
    assert second.ok
    assert second.prediction.id != first.error.prediction_id
    assert len(emulator.ledger.accepted) == 2
    assert len({record.inputs["seed"] for record in emulator.ledger.accepted}) == 1, "the same job, the same seed"


async def test_what_takes_too_long_is_awaited_by_the_next_run(run, write, emulator):
    emulator.faults.add("submit", "inference", nth=1, seconds=500)
    source = write({"prompt": "slow"})
    batch, (outcome,) = await run(source, timeout=60)
    assert isinstance(outcome.error, ResultTimeout)
    assert batch.summary().open == 1
    batch, (outcome,) = await run(source)
    assert outcome.ok
    assert outcome.resumed
    assert len(emulator.ledger.accepted) == 1


async def test_an_unreachable_server_ends_the_run_and_the_next_goes_on(run, write, opened, folder, emulator):
    source = write(*prompts(5))
    with pytest.raises(NotSentError):
        await run(source, session={"base_url": "http://127.0.0.1:9"})
    _, outcomes = await run(source)
    assert sum(outcome.ok for outcome in outcomes) == 5


async def test_iterables_are_sources_and_resume_too(run, emulator):
    async def lazily():
        for number in range(5):
            yield TextToImage(prompt=f"{number}")

    _, outcomes = await run([*prompts(3), TextToImage(prompt="x")])
    assert len(outcomes) == 4
    _batch, outcomes = await run(iter([*prompts(3), TextToImage(prompt="y")]))
    assert [outcome.index for outcome in outcomes] == [3]
    _, outcomes = await run(lazily())
    assert len(outcomes) == 5


async def test_only_the_first_lines(run, write, emulator):
    batch, outcomes = await run(write(*prompts(700)), limit=3)
    assert len(outcomes) == 3
    assert batch.summary().total == 3
    assert batch.progress().total == 3


async def test_a_slow_consumer_slows_the_submits(run, opened, write, folder, emulator):
    async with opened() as session:
        batch = Batch(write(*prompts(100)), folder, session, max_in_flight=5)
        async with aclosing(batch.run()) as outcomes:
            taken = 0
            async for _ in outcomes:
                taken += 1
                await asyncio.sleep(60)
                assert len(emulator.ledger.accepted) <= taken + 5
                assert batch.progress().in_flight <= 6
                if taken == 5:
                    break
    _, rest = await run(write(*prompts(100)))
    assert batch.summary().saved + len(rest) == 100
    assert len(emulator.ledger.accepted) == 100
    assert len(images(folder)) == 100


async def test_options_out_of_range_are_refused(opened, write, folder):
    source = write(*prompts(1))
    async with opened() as session:
        for options in (
            {"budget": 0},
            {"budget": -1},
            {"budget": float("inf")},
            {"limit": 0},
            {"max_in_flight": 0},
            {"names": "{nonsense}"},
        ):
            with pytest.raises(ConfigurationError):
                Batch(source, folder, session, **options)
        with pytest.raises(ConfigurationError):
            Batch(7, folder, session)


async def test_provenance_is_written_unless_not_wanted(run, write, folder):
    from wavespeed_qwen_async.provenance import extract

    _, (outcome,) = await run(write({"prompt": "a fox", "output_format": "png"}))
    assert "a fox" in repr(extract(outcome.path.read_bytes()))
    _, (outcome,) = await run(write({"prompt": "a cat", "output_format": "png"}), provenance=False)
    assert b"a cat" not in outcome.path.read_bytes()


async def test_a_file_in_a_folder_of_its_template_is_told_with_that_folder(run, write, folder, emulator):
    _, (outcome,) = await run(write(*prompts(1)), names="{slug}/{index}.{ext}")
    (told,) = results(folder)
    assert "/" in told["file"]
    assert (folder / told["file"]) == outcome.path
    assert outcome.path.is_file()


async def test_a_name_that_is_taken_by_anything_is_left_alone(run, write, folder):
    folder.mkdir()
    (folder / "000000-a-fox-7.jpg").symlink_to("nowhere")  # which a save would follow, or replace
    (folder / "000001-a-fox-8.jpg").write_bytes(b"somebody's")
    await run(write({"prompt": "a fox", "seed": 7}, {"prompt": "a fox", "seed": 8}))
    assert (folder / "000000-a-fox-7.jpg").is_symlink()
    assert (folder / "000001-a-fox-8.jpg").read_bytes() == b"somebody's"
    assert {path.name for path in folder.glob("*-2.jpg")} == {"000000-a-fox-7-2.jpg", "000001-a-fox-8-2.jpg"}
