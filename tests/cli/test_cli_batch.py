"""``batch``: what it tells, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time

import pytest
from command_line import ENTRY, NO_BYTECODE, child, finished, one_line
from PIL import Image

from wavespeed_qwen_async.cli.live import Pace, span

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


@pytest.fixture
def jobs(tmp_path):
    """Write a file of jobs."""

    def write(*lines: object, name="jobs.jsonl"):
        path = tmp_path / name
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return path

    return write


def foxes(count):
    return [{"prompt": f"fox {number}", "seed": number, "size": "256*256"} for number in range(count)]


def test_it_makes_every_image_and_sums_up(command, wavespeed_emulator, jobs, tmp_path):
    ended = command("batch", jobs(*foxes(3)), "--out", "out")
    assert (ended.code, ended.err) == (0, "")
    *lines, summary, gallery = ended.out.splitlines()
    assert len(lines) == 3
    assert gallery == "out/index.html  3 images"
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(rf"\[{number}/3\]  \d+\.\d s  \$0\.025  out/00000\d-fox-\d-\d\.jpg", line)
    assert re.fullmatch(r"3 images saved in out, 0 failed, cost \$0\.075, time \d+\.\d s", summary)
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 3
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 3


def test_piped_it_has_no_control_characters(wavespeed_emulator, jobs):
    ended = finished(child("batch", jobs(*foxes(3), {"prompt": "\x1b[31m[moderated]\x07"})))
    assert ended.code == 1
    assert not CONTROL.search(ended.out + ended.err)
    assert "3 images saved in out, 1 failed" in ended.out


def test_it_goes_on_when_nobody_listens_any_more(wavespeed_emulator, jobs, tmp_path):
    reading, writing = os.pipe()
    process = child("batch", jobs(*foxes(3)), stdout=writing)
    os.close(writing)
    os.close(reading)
    ended = finished(process)
    assert (ended.code, ended.err) == (0, "")
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 3


def test_started_again_it_pays_nothing_twice(command, wavespeed_emulator, jobs):
    source = jobs(*foxes(3))
    assert command("batch", source, "--limit", "2").code == 0
    ended = command("batch", source)
    assert ended.code == 0
    assert ended.out.splitlines()[-3].startswith("1 image saved in out, 0 failed, cost $0.025, ")
    assert ended.out.splitlines()[-2] == "  2 were there before; the folder cost $0.075 in all"
    assert len(wavespeed_emulator.ledger.accepted) == 3


def test_what_fails_is_told_with_its_line_and_whether_it_was_paid(command, wavespeed_emulator, jobs):
    source = jobs("no json", {"prompt": "a [moderated] fox"}, *foxes(1), {"prompt": "x", "sise": "512*512"})
    ended = command("batch", source)
    assert (ended.code, ended.err) == (1, "")
    failures = sorted(line.partition("failed: ")[2] for line in ended.out.splitlines() if "  failed: " in line)
    assert failures[0].startswith("line 1: no JSON")
    assert failures[0].endswith("[not billed]")
    assert failures[1].startswith("line 2: prediction")
    assert failures[1].endswith("[to be refunded]")
    assert "did you mean 'size'?" in failures[2]
    assert "1 image saved in out, 3 failed, cost $0.025" in ended.out
    assert "2 x InvalidJobError: line 1" in ended.out
    assert "1 x ContentModerated" in ended.out
    assert "$0.025 of failed tasks comes back" in ended.out


def test_strict_sends_nothing_unless_all_lines_are_jobs(command, wavespeed_emulator, jobs):
    ended = command("batch", jobs(*foxes(2), "no json"), "--strict")
    assert (ended.code, ended.out) == (2, "")
    assert "line 3" in one_line(ended.err)
    assert not wavespeed_emulator.ledger.submit_times


def test_a_dry_run_tells_the_price_and_sends_nothing(command, wavespeed_emulator, jobs, tmp_path):
    source = jobs(*foxes(4))
    ended = command("batch", source, "--dry-run", "--budget", "0.05", "--tier", "silver")
    assert ended.code == 0
    assert "4 jobs: 4 to be sent" in ended.out
    assert "4 x $0.025  wavespeed-ai/qwen-image/text-to-image-lora" in ended.out
    assert "cost $0.10, balance $1000.00" in ended.out
    assert "the budget of $0.05 covers 2 of the 4 new ones" in ended.out
    (plan,) = command("batch", source, "--dry-run", "--json").events
    assert (plan["event"], plan["total"], plan["cost"]) == ("plan", 4, 0.1)
    assert command("batch", jobs("no json"), "--dry-run").code == 2
    assert not wavespeed_emulator.ledger.submit_times
    assert not (tmp_path / "out").exists()


def test_the_budget_ends_it(command, wavespeed_emulator, jobs):
    ended = command("batch", jobs(*foxes(4)), "--budget", "0.05")
    assert ended.code == 6
    assert "2 images saved" in ended.out
    assert "2 are not at their end" in ended.out
    assert "--budget" in ended.out.splitlines()[-2]
    assert len(wavespeed_emulator.ledger.accepted) == 2


@pytest.mark.wavespeed_emulator(balance=0.06)
def test_so_do_the_credits(command, wavespeed_emulator, jobs):
    ended = command("batch", jobs(*foxes(4)))
    assert ended.code == 6
    assert "top up" in ended.out + ended.err
    assert len(wavespeed_emulator.ledger.accepted) == 2


@pytest.mark.wavespeed_emulator(api_key="another")
def test_a_wrong_key_ends_it(command, wavespeed_emulator, jobs):
    ended = command("batch", jobs(*foxes(4)))
    assert ended.code == 3
    assert "WAVESPEED_API_KEY" in one_line(ended.err)
    assert not wavespeed_emulator.ledger.accepted


@pytest.mark.usefixtures("hasty")
def test_an_unreachable_server_ends_it(command, jobs, monkeypatch):
    monkeypatch.setenv("WAVESPEED_API_KEY", "key")
    ended = command("batch", jobs(*foxes(4)), "--base-url", "http://127.0.0.1:9")
    assert ended.code == 4
    assert "no connection" in one_line(ended.err)


def test_a_lost_answer_that_nothing_settles_is_left_unknown(command, wavespeed_emulator, jobs):
    wavespeed_emulator.faults.add("submit", "status_after", status=502, nth=1)
    wavespeed_emulator.faults.add("list", "status", status=403)
    ended = command("batch", jobs(*foxes(2)))
    assert ended.code == 7, ended.out
    assert "--resubmit-unknown" in ended.out
    assert "may be billed" in ended.out


def test_predictions_of_nobody_are_told_listed_and_fetched(command, wavespeed_emulator, jobs, tmp_path):
    assert command("batch", jobs(*foxes(1)), "-o", "an out").code == 0
    command("generate", "somebody else's", "-o", "theirs.jpg")
    command("generate", "[moderated]", "-o", "none.jpg")
    theirs = wavespeed_emulator.ledger.accepted[1].id
    wavespeed_emulator.faults.add("submit", "drop_after", nth=1)  # a lost answer is looked for
    told = command("batch", jobs(*foxes(3)), "-o", "an out").out
    assert "2 predictions of this time belong to none of these jobs" in told
    lists, fetches = (
        re.search(rf"wavespeed-qwen ({name} --strangers 'an out')  ", told) for name in ("history", "download")
    )
    listed = [event["id"] for event in command(*shlex.split(lists[1]), "--json").events]
    assert len(listed) == 2
    assert theirs in listed
    assert command(*shlex.split(fetches[1]), "-o", "found").out == f"found/{theirs}.jpeg\n"
    assert len(list((tmp_path / "found").iterdir())) == 1


def test_strangers_of_a_folder_without_a_batch(command, wavespeed_emulator, tmp_path):
    for name in ("history", "download"):
        ended = command(name, "--strangers", "out")
        assert (ended.code, ended.out) == (2, "")
        assert "--strangers out: no batch was run there" in one_line(ended.err)
    assert not (tmp_path / "out").exists()
    assert "leave out --status" in one_line(command("history", "--strangers", "out", "--since", "1").err)
    assert "give ids of predictions" in one_line(command("download").err)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["fox.png"], "ends in .jsonl, .ndjson, .csv, .txt, .yaml, .yml"),
        (["jobs.jsonl", "--limit", "0"], "--limit"),
    ],
)
def test_bad_usage(command, wavespeed_emulator, jobs, fox, arguments, word):  # noqa: PLR0917 - pytest gives them
    jobs(*foxes(1))
    ended = command("batch", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert word in one_line(ended.err)
    assert not wavespeed_emulator.ledger.submit_times


@pytest.mark.parametrize(
    ("option", "value", "word"), [("--names", "../{index}.jpg", "template"), ("--budget", "-1", "budget = -1")]
)
def test_bad_options(command, wavespeed_emulator, jobs, option, value, word):  # noqa: PLR0917 - pytest gives them
    ended = command("batch", jobs(*foxes(1)), option, value)
    assert (ended.code, ended.out) == (2, "")
    assert word in one_line(ended.err)
    assert not wavespeed_emulator.ledger.submit_times


def test_a_folder_that_is_in_use_or_damaged(command, wavespeed_emulator, jobs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "journal.sqlite3").write_bytes(b"no journal at all" * 100)
    ended = command("batch", jobs(*foxes(1)))
    assert ended.code == 5
    assert "journal" in one_line(ended.err)
    assert not wavespeed_emulator.ledger.submit_times


def test_a_limit_of_the_disk_is_seen_before_anything_is_paid(wavespeed_emulator, jobs):
    source = jobs(*foxes(1))
    small = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); {ENTRY}"
    line = [sys.executable, "-c", small, "batch", str(source)]
    ended = subprocess.run(line, env=os.environ | NO_BYTECODE, capture_output=True, text=True, check=False)
    assert ended.returncode == 5
    assert "File too large" in one_line(ended.stderr)
    assert not wavespeed_emulator.ledger.submit_times


def test_a_folder_of_images_and_its_prompt(command, wavespeed_emulator, tmp_path):
    (tmp_path / "photos").mkdir()
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / "photos" / name)
    assert command("batch", "photos", "--prompt", "make it snow", "--out", "snow").code == 0
    assert [accepted.inputs["prompt"] for accepted in wavespeed_emulator.ledger.accepted] == ["make it snow"] * 2
    assert len(list((tmp_path / "snow").glob("*.jpg"))) == 2


def test_events_for_programs(command, wavespeed_emulator, jobs):
    ended = command("batch", jobs(*foxes(2), "no json"), "--json")
    assert (ended.code, ended.err) == (1, "")
    *outcomes, summary, gallery = [event for event in ended.events if event["event"] != "progress"]
    assert {event["event"] for event in outcomes} == {"outcome"}
    by_index = {event["index"]: event for event in outcomes}
    assert [by_index[index]["ok"] for index in range(3)] == [True, True, False]
    assert (by_index[1]["line"], by_index[1]["seed"], by_index[1]["price"]) == (2, 1, 0.025)
    assert by_index[2]["error"]["kind"] == "InvalidJobError"
    assert by_index[2]["error"]["billed"] == "no"
    assert (summary["event"], summary["saved"], summary["failed"], summary["cost"]) == ("summary", 2, 1, 0.05)
    assert gallery == {"event": "gallery", "path": "out/index.html", "images": 2, "failed": 1, "unread": 0}


def test_a_gallery_of_another_hand_changes_no_outcome(command, wavespeed_emulator, jobs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("mine")
    ended = command("batch", jobs(*foxes(1)))
    assert ended.code == 0
    assert one_line(ended.err).startswith("warning: no gallery: out/index.html is not a gallery of ours")
    assert (tmp_path / "out" / "index.html").read_text() == "mine"


def test_nor_does_a_defect_of_the_gallery(command, wavespeed_emulator, jobs, monkeypatch):
    monkeypatch.setattr("wavespeed_qwen_async.bulk.gallery._make.read_entries", lambda folder: 1 / 0)
    ended = command("batch", jobs(*foxes(1), "no json"))
    assert ended.code == 1
    assert "1 image saved" in ended.out
    assert "warning: no gallery: unexpected ZeroDivisionError" in one_line(ended.err)


def test_no_gallery_where_none_is_wanted_or_of_too_many(command, wavespeed_emulator, jobs, tmp_path, monkeypatch):
    source = jobs(*foxes(2))
    assert command("batch", source, "--no-gallery").err == ""
    assert not (tmp_path / "out" / "index.html").exists()
    monkeypatch.setattr("wavespeed_qwen_async.cli.gallery._AT_ONCE", 1)
    ended = command("batch", source)
    assert (ended.code, one_line(ended.err)) == (
        0,
        "no gallery of more than 1 images by itself: 'wavespeed-qwen gallery out' makes it",
    )
    assert not (tmp_path / "out" / "index.html").exists()


def test_the_gallery_shows_sources_of_edits_but_not_the_wrong_ones(command, wavespeed_emulator, jobs, fox, tmp_path):
    for number, name in enumerate(("a/fox.png", "b/fox.png", "b/hen.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (number * 50, 0, 0)).save(tmp_path / name)
    names = ("a/fox.png", "b/hen.png", "b/fox.png", "b/hen.png")
    source = jobs("no json", *({"prompt": f"{n}", "image": name, "seed": n} for n, name in enumerate(names)))
    assert command("batch", source).code == 1
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count('"b":"./thumbs/') == 2  # results.jsonl tells bare names, and fox.png may be either


@pytest.fixture
def slow_first_three(wavespeed_emulator):
    """The first three images take their time, in the answer to their submit; all others none."""
    wavespeed_emulator.faults.add("submit", "inference", seconds=3.0, times=3)


@pytest.mark.usefixtures("slow_first_three")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_first_signal_collects_what_is_paid(command, wavespeed_emulator, jobs, number):
    source = jobs(*({"enable_sync_mode": True} | fox for fox in foxes(8)))
    process = child("batch", source, "--max-in-flight", "3")
    while len(wavespeed_emulator.ledger.accepted) < 3:
        time.sleep(0.05)
    process.send_signal(number)
    ended = finished(process)
    assert ended.code == 130
    assert one_line(ended.err) == "stopping: 3 in flight are collected first; once more leaves at once"
    assert "3 images saved in out, 0 failed" in ended.out
    assert "5 are not at their end: the same command goes on with them" in ended.out
    assert "index.html" not in ended.out  # whoever wants to leave does not wait for a gallery
    assert len(wavespeed_emulator.ledger.accepted) == 3
    assert command("batch", source).code == 0
    assert len(wavespeed_emulator.ledger.accepted) == 8
    assert not wavespeed_emulator.ledger.doubles()


@pytest.mark.wavespeed_emulator(inference=(600.0, 600.0))
def test_the_second_signal_leaves_at_once(wavespeed_emulator, jobs):
    process = child("batch", jobs(*foxes(8)), "--max-in-flight", "3")
    while len(wavespeed_emulator.ledger.accepted) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("stopping: 3 in flight")
    process.send_signal(signal.SIGINT)
    ended = finished(process)  # which has less patience than the images take
    assert ended.code == 130
    assert one_line(ended.err) == "interrupted: what is paid is in the journal, the same command collects it"


def on_a_terminal(*arguments, columns=80, keys=()):
    """Run the command on a pseudo-terminal; its exit code, and all that came to the screen.

    ``keys`` are pressed one by one, each when its text is on the screen after the last: ``(text, key)``.
    """
    keys, seen = list(keys), 0
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"}
        os.execv(sys.executable, [sys.executable, "-c", ENTRY, *map(str, arguments)])
    screen = b""
    while select.select([terminal], [], [], 30)[0]:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux' way of saying that the other side has closed
            break
        if not piece:
            break
        screen += piece
        if keys and (at := screen.find(keys[0][0], seen)) >= 0:
            seen = at + len(keys[0][0])
            os.write(terminal, keys.pop(0)[1])
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), screen.decode()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.wavespeed_emulator(inference=(1.0, 1.5))
def test_on_a_terminal_there_is_a_picture_of_it(wavespeed_emulator, jobs):
    lines = [{"enable_sync_mode": True} | fox for fox in foxes(5)]
    code, screen = on_a_terminal("batch", jobs(*lines, "no json"), "--max-in-flight", "3", "--budget", "1")
    assert code == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).replace("\r\n", "\n")
    assert re.search(r"━+ \d/6", text)
    assert re.search(r"^jobs +\d saved, 1 failed", text, re.MULTILINE)
    assert re.search(r"^in flight +3 of 3", text, re.MULTILINE)
    assert re.search(r"^cost +\$0\.\d+ with those in flight, \$0\.\d+ of budget left", text, re.MULTILINE)
    assert re.search(r"^errors +1 x InvalidJobError: line 6: no JSON", text, re.MULTILINE)
    assert "[1/6]  failed: line 6: no JSON" in text
    assert "5 images saved in out, 1 failed, cost $0.125" in text
    longest = max(len(line) for piece in text.split("\r") for line in piece.split("\n"))
    assert longest <= 110, text  # the summary's error line is the longest; the bar itself has 80
    assert screen.endswith("\r\n")
    assert "\x1b[?25h" in screen.rpartition("\x1b[?25l")[2]  # the cursor is shown again


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("slow_first_three")
@pytest.mark.parametrize("times", [1, *(pytest.param(times, marks=pytest.mark.slow) for times in (2, 3))])
def test_ctrl_c_on_a_terminal_leaves_it_as_it_was(command, wavespeed_emulator, jobs, times):
    source = jobs(*({"enable_sync_mode": times == 1} | fox for fox in foxes(6)))
    keys = [(b"3 of 3", b"\x03"), (b"stopping: ", b"\x03"), (b"stopping: ", b"\x03")][:times]
    keys[2:] = [(b"", b"\x03")][: times - 2]
    code, screen = on_a_terminal("batch", source, "--max-in-flight", "3", keys=keys)
    assert code == 130
    assert "Traceback" not in screen
    assert "stopping: " in screen
    assert screen.rfind("\x1b[?25h") > screen.rfind("\x1b[?25l")
    assert ("3 images saved" in screen) == (times == 1)
    assert command("batch", source).code == 0
    assert len(wavespeed_emulator.ledger.accepted) == 6


def test_ctrl_c_while_it_starts_shows_nothing_of_its_inside():
    early = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell of these tests ignores
class Early:
    def find_spec(self, name, *_):
        if name == "wavespeed_qwen_async.cli.app":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Early())
"""
    line = [sys.executable, "-c", early + ENTRY, "balance"]
    ended = subprocess.run(line, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


def test_the_pace_is_measured_from_the_first_end_on():
    pace = Pace()
    pace.take(0.0, 0)
    assert pace.per_minute == 0.0
    pace.take(8.0, 1)
    pace.take(9.0, 5)
    assert pace.per_minute == 0.0
    pace.take(11.0, 7)
    assert pace.per_minute == 120.0
    for second in range(12, 200):
        pace.take(float(second), 7 + second - 11)
    assert pace.per_minute == pytest.approx(60.0)


def test_a_length_of_time():
    assert [span(seconds) for seconds in (0.4, 61, 3600, 90061)] == ["0:00", "1:01", "1:00:00", "25:01:01"]
