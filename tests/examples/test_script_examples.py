"""examples/bulk_script.py, edit_pipeline.py and bot.py, as a user starts them and on virtual time."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys

import pytest
from examples_loading import EXAMPLES, example, typed

from wavespeed_qwen_async import QwenImageSession
from wavespeed_qwen_async.emulator import Emulator
from wavespeed_qwen_async.testing import next_outcomes

PROMPTS = EXAMPLES / "prompts.jsonl"


# --- without a key, as their first lines say --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_each_runs_without_a_key(tmp_path):
    bulk = typed("bulk_script.py", str(PROMPTS), "pictures", "--emulator", "--budget", "5", cwd=tmp_path)
    assert bulk.returncode == 0, bulk.stderr
    assert bulk.stdout.splitlines()[0] == "24 images to make for $0.60, 0 to collect that are paid"
    assert bulk.stdout.splitlines()[-1] == "24 saved, 0 failed, 0 left for the next run, $0.60 spent"
    pipeline = typed("edit_pipeline.py", "--emulator", cwd=tmp_path)
    assert pipeline.returncode == 0, pipeline.stderr
    assert len(list((tmp_path / "pipeline").glob("*.jpg"))) == 6
    sweep = typed("sweep.py", "--emulator", cwd=tmp_path)
    assert sweep.returncode == 0, sweep.stderr
    assert sweep.stdout.splitlines()[0] == "9 images, $0.23"  # two LoRAs at four scales, and none
    assert (tmp_path / "sweep" / "contact-sheet.png").exists()
    command = [sys.executable, str(EXAMPLES / "bot.py"), "--emulator"]
    said = "ann: !draw a fox\nbob: !draw an owl\nnobody\ncyd: hello\nann: !draw a badger\n"
    bot = subprocess.run(command, input=said, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    answers = [line.rpartition(":http")[0] or line.rpartition(": http")[0] for line in bot.stdout.splitlines()]
    assert sorted(answers) == ["@ann a badger", "@ann a fox", "@bob an owl"]
    assert answers.index("@ann a fox") < answers.index("@ann a badger")


# --- bulk_script.py ---------------------------------------------------------------------------------------------------


def bulk(tmp_path, *words):
    command = [sys.executable, str(EXAMPLES / "bulk_script.py"), str(PROMPTS), "pictures", *words]
    return subprocess.Popen(
        command, cwd=tmp_path, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.wavespeed_emulator(inference=(0, 0), max_per_minute=None)
def test_a_batch_is_stopped_and_goes_on_and_pays_nothing_twice(tmp_path, wavespeed_emulator):
    first = bulk(tmp_path)
    assert "24 images" in first.stdout.readline()
    first.stdout.readline()  # the first picture is there
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=40)
    assert "collecting what is paid" in err
    assert "left for the next run" in out.splitlines()[-1]
    assert first.returncode == (0 if " 0 left" in out else 1)
    second = bulk(tmp_path)
    out, err = second.communicate(timeout=40)
    assert second.returncode == 0, err
    assert wavespeed_emulator.ledger.doubles() == []
    assert len(wavespeed_emulator.ledger.accepted) == 24
    assert len([path for path in (tmp_path / "pictures").iterdir() if path.suffix in {".jpg", ".png", ".webp"}]) == 24


def test_a_batch_tells_what_failed_and_keeps_to_its_budget(tmp_path, wavespeed_emulator):
    next_outcomes(wavespeed_emulator, 1200)
    script = bulk(tmp_path, "--budget", "0.10")
    out, err = script.communicate(timeout=40)
    assert script.returncode == 1
    assert re.search(r"line \d+: .* \(billed: yes\)", err)
    assert re.search(r" 1 failed, \d\d left for the next run, \$0\.10 spent", out.splitlines()[-1])


# --- edit_pipeline.py -------------------------------------------------------------------------------------------------


@pytest.fixture
def account(monkeypatch):
    """Lead the examples' sessions to an emulator of the test."""

    def lead(emulator):
        monkeypatch.setenv("WAVESPEED_BASE_URL", emulator.url)
        monkeypatch.setenv("WAVESPEED_API_KEY", "k")

    return lead


@pytest.mark.anyio
async def test_each_edit_starts_when_its_input_is_there_whatever_the_others_do(tmp_path, account, virtual_clock):
    async with Emulator(blank=True, inference=(10, 10)) as emulator:
        account(emulator)
        emulator.faults.add("submit", "inference", seconds=100, nth=1)
        prompts = [f"picture {number}" for number in range(8)]
        await example("edit_pipeline").main(*prompts, out=str(tmp_path))
        accepted = emulator.ledger.accepted
        assert len(accepted) == 24
        edits = [each for each in accepted if each.model.endswith("edit-lora")]
        outputs = {each.id for each in accepted}
        assert all(re.search(r"/outputs/(\w+)\.", each.inputs["image"])[1] in outputs for each in edits)
        assert emulator.ledger.requests["upload"] == emulator.ledger.requests["ticket"] == 0  # pictures stay there
        late = [each for each in edits if each.time > accepted[0].time + 60]
        assert len(late) == 2  # of the slow one alone: nobody waits for it
        assert len(list(tmp_path.glob("*-*.jpg"))) == 24


@pytest.mark.anyio
async def test_a_chain_that_breaks_says_where_and_leaves_the_others(tmp_path, account, capsys):
    async with Emulator(blank=True) as emulator:
        account(emulator)
        next_outcomes(emulator, 1200, to="edit")
        await example("edit_pipeline").main("one", "two", "three", out=str(tmp_path))
        told = capsys.readouterr().err
        assert re.search(r"step 1: .*\(billed: yes; step before it: prediction \w+\)", told)
        assert len(list(tmp_path.glob("*-0.jpg"))) == 3
        assert len(list(tmp_path.glob("*-2.jpg"))) == 2


# --- bot.py -----------------------------------------------------------------------------------------------------------


class Chat:
    """A bot, and what it said with when."""

    def __init__(self, session, group):
        self.said = []
        self.hear = example("bot").Bot(session, self._say, group).hear

    async def _say(self, user, text):
        self.said.append((user, text.split(": http")[0]))

    async def until(self, count):
        for _ in range(300):  # seconds of virtual time
            if len(self.said) >= count:
                return
            await asyncio.sleep(1)
        pytest.fail(f"said only {self.said}")


@pytest.fixture
async def chat():
    async with (
        Emulator(blank=True, inference=(10, 10)) as emulator,
        QwenImageSession(api_key="k", base_url=emulator.url, tier="silver") as session,
        asyncio.TaskGroup() as group,
    ):
        chat = Chat(session, group)
        chat.emulator, chat.session = emulator, session
        yield chat


@pytest.mark.anyio
async def test_users_are_served_at_once_and_each_in_order(chat, virtual_clock):
    chat.emulator.faults.add("submit", "inference", seconds=100, nth=1)
    for user, prompt in [("ann", "one"), ("ann", "two"), ("bob", "three"), ("ann", "four")]:
        await chat.hear(user, f"!draw {prompt}")
    await chat.until(4)
    assert chat.said == [("bob", "three"), ("ann", "one"), ("ann", "two"), ("ann", "four")]


@pytest.mark.anyio
async def test_a_user_has_only_so_many_in_line(chat):
    for number in range(5):
        await chat.hear("ann", f"!draw {number}")
    await chat.hear("bob", "!draw his")
    assert [text.split(":")[0] for _, text in chat.said] == ["you have 3 pictures in line"] * 2
    await chat.until(6)
    assert len(chat.emulator.ledger.accepted) == 4
    await chat.hear("ann", "!draw another")
    await chat.until(7)


@pytest.mark.anyio
async def test_what_is_stopped_is_not_paid_or_can_still_be_seen(chat):
    for prompt in ("one", "two"):
        await chat.hear("ann", f"!draw {prompt}")
    await asyncio.sleep(5)
    await chat.hear("ann", "!stop")
    await chat.hear("ann", "!draw three")
    await chat.until(1)
    (paid, _) = chat.emulator.ledger.accepted
    assert [each.inputs["prompt"] for each in chat.emulator.ledger.accepted] == ["one", "three"]
    assert chat.said == [("ann", f"one: stopped; say !show {paid.id} to see it all the same")]
    await chat.hear("bob", f"!show {paid.id}")
    await chat.until(3)
    assert set(chat.said[1:]) == {("bob", paid.id), ("ann", "three")}
    await chat.hear("ann", "!stop")
    assert chat.said[3] == ("ann", "nothing to stop")


@pytest.mark.anyio
async def test_what_fails_is_told_and_the_next_one_is_made(chat):
    next_outcomes(chat.emulator, 1200, 400)
    for number in range(3):
        await chat.hear("ann", f"!draw {number}")
    await chat.hear("ann", "!show nothing")
    await chat.until(4)
    assert chat.said[-1] == ("ann", "2")
    assert {user for user, _ in chat.said} == {"ann"}
