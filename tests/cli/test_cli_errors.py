"""What goes wrong is told in one line, with a documented exit code, and costs nothing."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import pytest
from command_line import ENTRY, NO_BYTECODE, child, finished, one_line

from wavespeed_qwen_async import errors
from wavespeed_qwen_async.cli import targets
from wavespeed_qwen_async.cli.exits import MEANINGS, Exit, exit_of


def refused(ended, code, *words):
    """One clear line, the code, nothing on stdout."""
    line = one_line(ended.err)
    assert ended.code == code, line
    assert ended.out == ""
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    return line


def test_a_missing_key(command, wavespeed_emulator, monkeypatch):
    monkeypatch.delenv("WAVESPEED_API_KEY")
    refused(command("generate", "a fox"), 3, "WAVESPEED_API_KEY", "--emulator")
    assert not wavespeed_emulator.ledger.accepted


@pytest.mark.wavespeed_emulator(api_key="the right one")
def test_a_wrong_key(command, wavespeed_emulator):
    line = refused(command("generate", "a fox"), 3, "401", "check WAVESPEED_API_KEY")
    assert "api_key=" not in line
    assert not wavespeed_emulator.ledger.accepted


@pytest.mark.parametrize("size", ["100x100", "2000*512", "big", "512"])
def test_a_bad_size(command, wavespeed_emulator, size):
    refused(command("generate", "a fox", "--size", size), 2, "size")
    assert not wavespeed_emulator.ledger.submit_times


def test_four_loras(command, wavespeed_emulator):
    loras = [item for number in range(4) for item in ("--lora", f"owner/lora-{number}:0.5")]
    refused(command("generate", "a fox", *loras), 2, "4 LoRAs", "at most 3")
    assert not wavespeed_emulator.ledger.submit_times


def test_a_missing_source_image(command, wavespeed_emulator):
    refused(command("edit", "nowhere.jpg", "snow"), 2, "nowhere.jpg", "No such file")
    assert not wavespeed_emulator.ledger.submit_times


def test_a_source_that_is_no_image(command, wavespeed_emulator, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    refused(command("edit", "notes.txt", "snow"), 2, "notes.txt")
    assert not wavespeed_emulator.ledger.submit_times


@pytest.mark.usefixtures("hasty")
def test_an_unreachable_server(command, monkeypatch):
    monkeypatch.setenv("WAVESPEED_API_KEY", "key")
    ended = command("generate", "a fox", "--base-url", "http://127.0.0.1:9")
    refused(ended, 4, "no connection to 127.0.0.1:9", "--base-url")


@pytest.mark.wavespeed_emulator(balance=0.01)
def test_no_credits(command, wavespeed_emulator):
    refused(command("generate", "a fox"), 6, "top up")
    assert not wavespeed_emulator.ledger.accepted


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "a fox", "-o", "fox.gif"], ["fox.gif", ".jpg"]),
        (["generate", "a fox", "-o", "fox.png", "--format", "webp"], ["png", "webp"]),
        (["generate", "a fox", "-o", "/dev/null"], ["/dev/null"]),
        (["generate", "a fox", "--model", "edit"], ["text-to-image-lora"]),
        (["generate", "a fox", "--seed", "-2"], ["seed"]),
        (["generate", " "], ["prompt"]),
        (["edit", "fox.png", "snow", "--image", "fox.png"], ["edit-plus-lora"]),
        (["generate"], ["PROMPT", "--help"]),
        (["generate", "a fox", "--tier", "iron"], ["iron", "silver"]),
        (["generate", "a fox", "--max-in-flight", "0"], ["--max-in-flight"]),
        (["generate", "a fox", "--sise", "512x512"], ["--sise", "--size"]),
        (["genrate", "a fox"], ["genrate", "generate"]),
        (["delete", "some-id"], ["--yes"]),
        (["batch", "-"], ["-: ", "save it to a file"]),
        (["batch", "."], ["folder of images", "--prompt"]),
        (["batch", ".", "--prompt", "snow", "--out", "fox.png"], ["--out fox.png", "give a folder"]),
        (["sweep", "a fox", "--out", "fox.png", "--yes"], ["--out fox.png", "give a folder"]),
        (["generate", "a fox", "-o", "fox.png/new.jpg"], ["fox.png", "give a folder"]),
        (["price", "--model", "flux"], ["flux", "text-to-image-lora", "edit-lora"]),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_bad_usage(command, wavespeed_emulator, fox, arguments, words):
    ended = command(*arguments)
    line = one_line(ended.err)
    assert ended.code == 2, line
    for word in words:
        assert word in line
    assert not wavespeed_emulator.ledger.submit_times


@pytest.mark.parametrize("arguments", [["--base-url", "nonsense"], ["--base-url", "http://x/", "--emulator"]])
def test_a_base_url_that_is_none(command, monkeypatch, arguments):
    monkeypatch.setenv("WAVESPEED_API_KEY", "key")
    refused(command("balance", *arguments), 3, "base")


def test_a_file_that_exists_stays(command, wavespeed_emulator, fox):
    before = fox.read_bytes()
    refused(command("generate", "a fox", "-o", fox), 2, "exists", "--overwrite")
    assert fox.read_bytes() == before
    assert not wavespeed_emulator.ledger.submit_times
    assert command("generate", "a fox", "-o", fox, "--overwrite", "--sync").code == 0
    assert fox.read_bytes() != before


def test_a_full_disk_is_seen_before_anything_is_paid(command, wavespeed_emulator, monkeypatch):
    def full(file, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(targets.os, "posix_fallocate", full)
    refused(command("generate", "a fox", "-o", "deep/fox.jpg"), 5, "deep: can't write", "No space left")
    assert not wavespeed_emulator.ledger.submit_times


def test_a_real_limit_of_the_disk(wavespeed_emulator, tmp_path):
    """A process that may write files of 1,000 bytes: the kernel refuses, as a full disk would."""

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    ended = finished(child("generate", "a fox", "-o", "fox.jpg", preexec_fn=small_files, env=NO_BYTECODE))
    refused(ended, 5, "can't write", "File too large")
    assert not wavespeed_emulator.ledger.submit_times
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_while_the_image_is_made(command, wavespeed_emulator, monkeypatch):
    monkeypatch.setattr(targets, "_reserve", lambda file, size: None)
    monkeypatch.setattr(
        os, "writev", lambda file, pieces: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
    )
    ended = command("generate", "a fox", "-o", "fox.jpg", "--sync")
    accepted = wavespeed_emulator.ledger.accepted[0]
    refused(ended, 5, "No space left", f"wavespeed-qwen download {accepted.id}")


def test_a_failed_prediction(command, wavespeed_emulator):
    refused(command("generate", "a [moderated] fox", "--sync"), 1, "1200", "moderation")


@pytest.mark.wavespeed_emulator(inference=(9000.0, 9000.0))
def test_a_result_that_takes_too_long(command, wavespeed_emulator):
    ended = command("generate", "a fox", "--timeout", "0.05")
    accepted = wavespeed_emulator.ledger.accepted[0]
    refused(ended, 8, f"wavespeed-qwen download {accepted.id}")


def test_a_lost_answer(command, wavespeed_emulator):
    wavespeed_emulator.faults.add("submit", "status_after", status=502)
    wavespeed_emulator.faults.add("list", "status", status=403)
    ended = command("generate", "a fox", "--sync")
    assert ended.code == 7, ended.err
    assert "history" in one_line(ended.err)


def test_verbose_shows_the_traceback(command, monkeypatch):
    ended = command("balance", "--verbose")
    assert ended.code == 3
    assert ended.err.startswith("error: no API key")
    assert "Traceback" in ended.err


def test_errors_for_programs(command, wavespeed_emulator):
    ended = command("generate", "a [moderated] fox", "--sync", "--json")
    (event,) = ended.events
    assert event["event"] == "error"
    assert event["kind"] == "ContentModerated"
    assert (event["exit_code"], event["billed"], event["code"]) == (1, "yes", 1200)
    assert event["prediction_id"] == wavespeed_emulator.ledger.accepted[0].id
    assert "moderation" in one_line(ended.err)


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_its_parts_it_says_what_to_install(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; {ENTRY}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert one_line(ended.stderr) == (
        f"error: wavespeed-qwen needs {missing}, which is not installed: pip install 'wavespeed-qwen-async[cli]'"
    )


def test_a_defect_is_told_in_one_line(command, wavespeed_emulator, monkeypatch):
    monkeypatch.setattr("wavespeed_qwen_async.session.QwenImageSession.balance", lambda self: 1 / 0)
    refused(command("balance"), 70, "ZeroDivisionError", "--verbose")


def test_every_error_has_an_exit_code():
    tree = [getattr(errors, name) for name in errors.__all__ if name != "Billed"]
    plain = {errors.WaveSpeedError, errors.RequestError, errors.SessionClosedError}
    assert {kind for kind in tree if exit_of(kind("x")) is Exit.DEFECT} == plain
    assert list(MEANINGS) == list(Exit)


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_streams_end_nothing(wavespeed_emulator, tmp_path, closed):
    """As daemons, cron and ``>&-`` have them: the image is paid, saved, and the command ends well."""
    ended = finished(child("generate", "a fox", "-o", "fox.jpg", "--sync", preexec_fn=lambda: os.close(closed)))
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "fox.jpg").exists()


def test_what_is_wrong_is_told_by_the_code_where_nobody_hears_it():
    assert finished(child("generate", " ", preexec_fn=lambda: os.close(2), env={"WAVESPEED_API_KEY": "key"})).code == 2


def test_control_characters_of_a_server_stay_out_of_the_terminal(command, wavespeed_emulator):
    wavespeed_emulator.faults.add("balance", "status", status=400, message="\x1b[2J\x07gone\nTraceback")
    line = command("balance").err
    assert line.count("\n") == 1
    assert line.isprintable() or line[:-1].isprintable()
