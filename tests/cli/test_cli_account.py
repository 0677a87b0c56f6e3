"""The account's commands, and files by themselves."""

from __future__ import annotations

import re
import urllib.request

import pytest
from command_line import child, finished, one_line
from PIL import Image

from wavespeed_qwen_async import Output
from wavespeed_qwen_async.cli.pictures import _name
from wavespeed_qwen_async.emulator.clock import iso


@pytest.fixture
def made(command, wavespeed_emulator):
    """Two predictions, the second of which failed; their ids."""
    command("generate", "a fox", "--seed", "1", "-o", "fox.webp", "--sync")
    command("edit", "https://example.com/a.jpg", "a [moderated] fox", "--sync")
    return [accepted.id for accepted in wavespeed_emulator.ledger.accepted]


def test_balance(command, wavespeed_emulator):
    assert command("balance").out == "$1000.00\n"
    assert command("balance", "--json").events == [{"event": "balance", "amount": 1000.0, "currency": "USD"}]


@pytest.mark.parametrize(
    "model", ["text-to-image-lora", "edit-lora", "edit-plus", "wavespeed-ai/qwen-image/edit-2511-lora"]
)
def test_price(command, wavespeed_emulator, model):
    ended = command("price", "--model", model, "--count", "1000")
    assert ended.out == "$0.025 an image, $25.00 for 1000 (USD, as the API says)\n"
    assert not wavespeed_emulator.ledger.accepted


def test_price_where_the_api_gives_none(command, wavespeed_emulator):
    wavespeed_emulator.faults.add("price", "status", status=404)
    (event,) = command("price", "--json").events
    assert (event["amount"], event["source"]) == (0.025, "pages")
    assert "per the API's pages" in command("price").out


def test_history(command, made):
    lines = command("history").out.splitlines()
    assert [line.split()[:2] for line in lines] == [[made[1], "failed"], [made[0], "completed"]]
    assert "moderation" in lines[0]
    assert '"a fox"' in lines[1]
    assert command("history", "-n", "1").out.count("\n") == 1
    assert [event["id"] for event in command("history", "--status", "completed", "--json").events] == [made[0]]
    assert [event["id"] for event in command("history", "--model", "edit-lora", "--json").events] == [made[1]]
    ended = command("history", "--since", "0")
    assert (ended.code, ended.out, ended.err) == (0, "", "no predictions\n")


def test_status(command, made):
    ended = command("status", *made, "no-such-id", "--json")
    assert ended.code == 1
    assert [event.get("status") for event in ended.events] == ["completed", "failed", 404]
    assert one_line(ended.err).startswith("error: no-such-id: HTTP 404")


@pytest.mark.wavespeed_emulator(inference=(600.0, 600.0))
def test_status_waits_if_asked(command, wavespeed_emulator):
    command("generate", "a fox", "--timeout", "0.01")
    (row,) = wavespeed_emulator.ledger._predictions
    assert command("status", row.id, "--json").events[0]["status"] == "processing"
    row.created_at = iso(row.created_ns - 8 * 10**9)  # as old as such images are when they are there
    row.end = wavespeed_emulator.ledger._now() + 1.0
    ended = command("status", row.id, "--wait", "--json")
    assert (ended.code, ended.events[0]["status"]) == (0, "completed")


def test_download(command, made, tmp_path):
    assert command("download", made[0], "-o", "again.webp").out == "again.webp\n"
    with Image.open(tmp_path / "again.webp") as again, Image.open(tmp_path / "fox.webp") as fox:
        assert again.tobytes() == fox.tobytes()  # their bytes differ by what is told of their making
    (event,) = command("download", made[0], "-o", "folder", "--json").events
    assert event["path"] == f"folder/{made[0]}.webp"
    (event,) = command("download", event["url"], "-o", "folder", "--json").events
    assert event["path"] == f"folder/{made[0]}-2.webp"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://cdn.io/a/b/fox.PNG?x=1", "fox.PNG"),
        ("https://cdn.io/wavespeed-qwen.toml", "p1-0.jpg"),
        ("https://cdn.io/setup.py", "p1-0.jpg"),
        ("https://cdn.io/..", "p1-0.jpg"),
        (f"https://cdn.io/{'x' * 400}.webp", f"{'x' * 250}.webp"),
    ],
)
def test_a_server_gives_no_name_but_an_images(url, name):
    assert _name(Output(url=url, prediction_id="p1")) == name


def test_download_of_what_failed_and_of_what_is_not_there(command, made):
    ended = command("download", made[1], made[0], "-o", "folder")
    assert ended.code == 1
    assert made[1] in one_line(ended.err)
    assert ended.out == f"folder/{made[0]}.webp\n"


def test_upload(command, wavespeed_emulator, fox):
    ended = command("upload", fox, "nowhere.png")
    assert ended.code == 2
    assert "nowhere.png" in one_line(ended.err)
    with urllib.request.urlopen(ended.out.strip()) as answer:
        assert answer.read() == fox.read_bytes()


def test_delete(command, made):
    ended = command("delete", *made, "no-such-id", "--yes")
    assert (ended.code, ended.out) == (1, "2 of 3 removed\n")
    assert command("history").out == ""


def test_the_emulator_serves_until_it_is_told_to_stop(command, monkeypatch):
    process = child("emulator", "--port", "0", "--speed", "100", "--api-key", "the key", "--blank")
    url = re.search(r"listening on (http://127.0.0.1:\d+);", process.stdout.readline())[1]
    monkeypatch.setenv("WAVESPEED_API_KEY", "the key")
    monkeypatch.setenv("WAVESPEED_BASE_URL", url)
    try:
        assert command("generate", "a fox", "--sync").code == 3  # a key with white space is none
        monkeypatch.setenv("WAVESPEED_API_KEY", "wrong")
        assert command("balance").code == 3
    finally:
        process.terminate()
    ended = finished(process)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == "0 images were accepted"


def test_an_emulator_for_others_must_be_asked_for(command):
    ended = command("emulator", "--host", "0.0.0.0", "--port", "0")
    assert ended.code == 3
    assert "--allow-remote" in one_line(ended.err)


def test_a_port_that_is_taken(command, wavespeed_emulator):
    port = wavespeed_emulator.url.rpartition(":")[2]
    ended = command("emulator", "--port", port)
    assert ended.code == 5
    assert port in one_line(ended.err)
