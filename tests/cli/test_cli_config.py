"""What is set beforehand: who goes before whom, and what no file may say."""

from __future__ import annotations

import pytest
from command_line import one_line

from wavespeed_qwen_async.cli.config import KEYS, user_file

SECRET = "sk-0123456789"


@pytest.fixture
def here(tmp_path):
    return (tmp_path / "wavespeed-qwen.toml").write_text


@pytest.fixture
def own():
    def write(text):
        user_file().parent.mkdir(parents=True, exist_ok=True)
        user_file().write_text(text)

    return write


def setting(command, name, *arguments):
    """A setting's value and source, as the doctor tells it."""
    events = command("doctor", "--json", *arguments).events
    (found,) = [event for event in events if event["event"] == "setting" and event["name"] == name]
    return found["value"], found["source"]


@pytest.mark.usefixtures("wavespeed_emulator")
def test_arguments_then_environment_then_here_then_the_users_then_defaults(command, here, own, monkeypatch):
    assert setting(command, "max_per_minute") == ("the tier's", "default")
    own("max_per_minute = 10\ntier = 'gold'\n")
    assert setting(command, "max_per_minute") == ("10", str(user_file()))
    here("max_per_minute = 20\n")
    assert setting(command, "max_per_minute") == ("20", "wavespeed-qwen.toml")
    assert setting(command, "tier") == ("gold", str(user_file()))
    monkeypatch.setenv("WAVESPEED_MAX_PER_MINUTE", "30")
    assert setting(command, "max_per_minute") == ("30", "WAVESPEED_MAX_PER_MINUTE")
    assert setting(command, "max_per_minute", "--max-per-minute", "40") == ("40", "--max-per-minute")


def test_what_is_set_takes_effect(command, wavespeed_emulator, here, tmp_path):
    (tmp_path / "jobs.txt").write_text("a fox\na hen\na dog\n")
    here("budget = 0.05\nnames = '{index}.{ext}'\ngallery = false\n")
    ended = command("batch", "jobs.txt")
    assert ended.code == 6  # the budget
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == ["0.jpg", "1.jpg"]
    assert not (tmp_path / "out" / "index.html").exists()
    assert command("batch", "jobs.txt", "--budget", "1", "--gallery").code == 0
    assert (tmp_path / "out" / "index.html").is_file()


@pytest.mark.wavespeed_emulator(inference=(9000.0, 9000.0))
def test_so_does_what_the_environment_says(command, wavespeed_emulator, monkeypatch):
    monkeypatch.setenv("WAVESPEED_TIMEOUT", "0.05")
    assert command("generate", "a fox").code == 8


@pytest.mark.usefixtures("hasty")
def test_the_users_base_url_is_taken_but_not_before_an_emulator(command, own, monkeypatch):
    monkeypatch.setenv("WAVESPEED_API_KEY", "key")
    own("base_url = 'http://127.0.0.1:9'\n")
    assert "127.0.0.1:9" in one_line(command("balance").err)
    assert command("balance", "--emulator").out == "$1000.00\n"


def test_a_folder_may_not_say_where_the_key_goes(command, wavespeed_emulator, here):
    here(f"base_url = '{wavespeed_emulator.url}'\n")
    ended = command("balance")
    assert (ended.code, ended.out) == (3, "")
    assert "may not say where the API key is sent" in one_line(ended.err)
    assert str(user_file()) in ended.err


@pytest.mark.parametrize("name", ["api_key", "API-Key", "token", "WAVESPEED_API_KEY"])
@pytest.mark.parametrize("place", ["here", "own"])
def test_no_file_may_hold_the_key(command, wavespeed_emulator, request, name, place):
    request.getfixturevalue(place)(f"{name} = '{SECRET}'\n")
    ended = command("balance")
    assert ended.code == 3
    assert "set WAVESPEED_API_KEY in the environment" in one_line(ended.err)
    assert SECRET not in ended.err + ended.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("teir = 'gold'", ["wavespeed-qwen.toml: teir", "did you mean tier?"]),
        ("max-per-minute = 3", ["did you mean max_per_minute?"]),
        ("[batch]\nbudget = 3", ["batch: there is no such key", "known are", "max_in_flight"]),
        ("tier = 'iron'", ["tier = 'iron': give one of bronze, silver"]),
        ("tier = 3", ["tier = 3: give one of"]),
        ("max_in_flight = 0", ["max_in_flight = 0", "1 or more"]),
        ("max_in_flight = true", ["a whole number"]),
        ("timeout = 'soon'", ["timeout = 'soon': give a number above 0"]),
        ("budget = inf", ["a number above 0"]),
        ("gallery = 'maybe'", ["give true or false"]),
        ("names = ['a']", ["names = 'list': give a text"]),
        ("tier = ", ["can't be read", "line 1"]),
    ],
)
def test_what_is_wrong_is_told_with_file_key_and_fix(command, wavespeed_emulator, here, text, words):
    here(text + "\n")
    ended = command("balance")
    assert (ended.code, ended.out) == (3, "")
    for word in ["wavespeed-qwen.toml", *words]:
        assert word in one_line(ended.err)


def test_a_wrong_variable_is_told_by_its_name(command, wavespeed_emulator, monkeypatch):
    monkeypatch.setenv("WAVESPEED_TIER", "iron")
    assert "WAVESPEED_TIER = 'iron': give one of" in one_line(command("balance").err)
    monkeypatch.setenv("WAVESPEED_TIER", " Gold ")
    monkeypatch.setenv("WAVESPEED_GALLERY", "off")
    monkeypatch.setenv("WAVESPEED_BUDGET", "")
    assert setting(command, "tier") == ("gold", "WAVESPEED_TIER")
    assert setting(command, "gallery") == ("false", "WAVESPEED_GALLERY")
    assert setting(command, "budget") == ("none", "default")


def test_help_needs_no_configuration(command, here):
    here("no toml")
    assert command("balance", "--help").code == 0


def test_every_key_is_an_option_of_some_command(command):
    texts = [command(name, "--help").out for name in ("batch", "generate")]
    for key in KEYS.values():
        assert any(key.option in text for text in texts)
