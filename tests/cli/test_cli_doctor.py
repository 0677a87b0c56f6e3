"""``doctor``: each check by a thing that is wrong."""

from __future__ import annotations

import pytest

KEY = "sk-secret-0123456789"


def told(ended):
    """The state and text of each check."""
    return {event["name"]: (event["state"], event["text"]) for event in ended.events if event["event"] == "check"}


def states(ended):
    return {name: state for name, (state, _) in told(ended).items()}


def test_all_is_well(command, wavespeed_emulator):
    ended = command("doctor", "--tier", "gold")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith("ok       versions  wavespeed-qwen 0.")
    assert "setting  tier           gold  (--tier)" in lines
    assert "ok       key       accepted" in lines
    assert "ok       balance   $1000.00" in lines
    assert "ok       tier      gold: 3,000 submits a minute, 3,000 at once" in lines
    assert lines[-1] == "all is well"
    assert not wavespeed_emulator.ledger.submit_times


def test_it_works_on_an_emulator_of_its_own(command):
    ended = command("doctor", "--emulator", "--json")
    assert ended.code == 0
    assert set(states(ended)) == {"versions", "server", "key", "balance", "clock", "tier", "disk"}
    assert ended.events[-1] == {"event": "doctor", "checks": 7, "failed": 0, "warnings": 1}
    assert told(ended)["tier"][0] == "warning"
    assert "WAVESPEED_TIER" in told(ended)["tier"][1]


def test_no_key_is_told_and_the_server_asked_all_the_same(command, wavespeed_emulator, monkeypatch):
    monkeypatch.delenv("WAVESPEED_API_KEY")
    wavespeed_emulator.faults.add("balance", "status", status=401)
    ended = command("doctor", "--json")
    assert ended.code == 3
    assert told(ended)["key"] == (
        "failed",
        "set WAVESPEED_API_KEY to one of https://wavespeed.ai/accesskey; --emulator needs none",
    )
    assert states(ended)["server"] == "ok"
    assert "setting  api_key        not set  (WAVESPEED_API_KEY)" in command("doctor").out


@pytest.mark.wavespeed_emulator(api_key="the-right-one")
def test_a_wrong_key_is_told_and_never_shown(command, wavespeed_emulator, monkeypatch):
    monkeypatch.setenv("WAVESPEED_API_KEY", KEY)
    ended = command("doctor", "--json", "--verbose")
    assert ended.code == 3
    assert (states(ended)["server"], states(ended)["key"]) == ("ok", "failed")
    assert KEY not in ended.out + ended.err + command("doctor").out


def test_a_key_that_can_be_none(command, wavespeed_emulator, monkeypatch):
    monkeypatch.setenv("WAVESPEED_API_KEY", "two words")
    ended = command("doctor", "--json")
    assert ended.code == 3
    assert "white space" in told(ended)["session"][1]
    assert "disk" in told(ended)


@pytest.mark.usefixtures("hasty")
def test_an_unreachable_server(command, wavespeed_emulator):
    ended = command("doctor", "--base-url", "http://127.0.0.1:9", "--json")
    assert ended.code == 4
    assert told(ended)["server"][0] == "failed"
    assert "no connection to 127.0.0.1:9" in told(ended)["server"][1]
    assert "clock" not in told(ended)
    assert "disk" in told(ended)


@pytest.mark.parametrize(("seconds", "words"), [(-400.0, "ahead of"), (400.0, "behind")])
def test_a_clock_that_is_off(command, wavespeed_emulator, seconds, words):
    wavespeed_emulator.faults.add("balance", "skew", seconds=seconds)
    state, text = told(command("doctor", "--json"))["clock"]
    assert state == "warning"
    assert f" s {words} the server's" in text
    assert 390 < float(text.split()[0]) < 410


def test_a_broken_file_of_settings(command, wavespeed_emulator, tmp_path):
    (tmp_path / "wavespeed-qwen.toml").write_text("teir = 'gold'\n")
    ended = command("doctor", "--json")
    assert ended.code == 3
    assert "did you mean tier?" in told(ended)["settings"][1]
    assert states(ended)["disk"] == "ok"


@pytest.mark.wavespeed_emulator(balance=0.0)
def test_an_empty_account(command, wavespeed_emulator):
    assert told(command("doctor", "--json"))["balance"] == ("warning", "$0.00")


def test_the_disk_is_looked_at_where_images_would_go(command, wavespeed_emulator, tmp_path, monkeypatch):
    ended = command("doctor", "--out", "not/yet", "--json")
    assert told(ended)["disk"][1].endswith(f" GiB free in {tmp_path}")
    assert not (tmp_path / "not").exists()
    monkeypatch.setattr("wavespeed_qwen_async.cli.targets._ROOM", 2**62)
    monkeypatch.setattr("wavespeed_qwen_async.cli.targets.check_room.__defaults__", (2**62,))
    ended = command("doctor", "--json")
    assert (ended.code, states(ended)["disk"]) == (5, "failed")
