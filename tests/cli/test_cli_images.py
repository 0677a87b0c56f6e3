"""``generate`` and ``edit``: every parameter arrives, and the images are where the command says."""

from __future__ import annotations

import signal
import time

import pytest
from command_line import child, finished
from PIL import Image

ALL_OPTIONS = [
    *("--size", "512x768", "--lora", "owner/ink:0.8", "--lora", "https://example.com/a.safetensors"),
    *("--seed", "7", "--format", "png", "--sync", "--base64"),
]
ALL_INPUTS = {
    "size": "512*768",
    "loras": [{"path": "owner/ink", "scale": 0.8}, {"path": "https://example.com/a.safetensors", "scale": 1.0}],
    "seed": 7,
    "output_format": "png",
    "enable_sync_mode": True,
    "enable_base64_output": True,
}


def sent(emulator):
    return [(accepted.model, accepted.inputs) for accepted in emulator.ledger.accepted]


def test_generate_sends_every_parameter(command, wavespeed_emulator, tmp_path):
    ended = command("generate", "a red fox", "-o", "fox.png", *ALL_OPTIONS)
    assert (ended.code, ended.err) == (0, "")
    assert sent(wavespeed_emulator) == [
        ("wavespeed-ai/qwen-image/text-to-image-lora", {"prompt": "a red fox"} | ALL_INPUTS)
    ]
    with Image.open(tmp_path / "fox.png") as image:
        assert (image.format, image.size) == ("PNG", (512, 768))
    (line,) = ended.out.splitlines()
    assert line.startswith("fox.png  seed 7, ")
    assert line.endswith(wavespeed_emulator.ledger.accepted[0].id)


def test_what_is_left_out_is_not_sent(command, wavespeed_emulator):
    assert command("generate", "a red fox", "--model", "text-to-image-2512-lora", "--sync").code == 0
    ((model, inputs),) = sent(wavespeed_emulator)
    assert model == "wavespeed-ai/qwen-image/text-to-image-2512-lora"
    assert inputs.keys() == {"prompt", "seed", "enable_sync_mode"}


def test_edit_uploads_a_local_source(command, wavespeed_emulator, fox, tmp_path):
    ended = command("edit", fox, "make it snow", "-o", "snow.png", *ALL_OPTIONS)
    assert (ended.code, ended.err) == (0, "")
    ((model, inputs),) = sent(wavespeed_emulator)
    assert model == "wavespeed-ai/qwen-image/edit-lora"
    assert inputs.pop("image").startswith(wavespeed_emulator.media_url)
    assert inputs == {"prompt": "make it snow"} | ALL_INPUTS
    assert (tmp_path / "snow.png").exists()


def test_edit_takes_a_url_and_several_sources(command, wavespeed_emulator, fox):
    url = "https://example.com/lake.jpg"
    assert command("edit", url, "snow", "--sync").code == 0
    assert command("edit", url, "snow", "-i", fox, "-i", fox, "--model", "edit-plus-lora", "--sync").code == 0
    (_, single), (model, several) = sent(wavespeed_emulator)
    assert single["image"] == url
    assert model == "wavespeed-ai/qwen-image/edit-plus-lora"
    assert several["images"][0] == url
    assert len(several["images"]) == 3
    assert several["images"][1] == several["images"][2]  # one content, one upload


@pytest.mark.parametrize(("out", "kind"), [("a.jpg", "jpeg"), ("a.JPEG", "jpeg"), ("a.png", "png"), ("a.webp", "webp")])
def test_the_files_ending_sets_the_format(command, wavespeed_emulator, tmp_path, out, kind):
    assert command("generate", "a fox", "-o", out, "--sync").code == 0
    ((_, inputs),) = sent(wavespeed_emulator)
    assert inputs["output_format"] == kind
    with Image.open(tmp_path / out) as image:
        assert image.format == kind.upper()


def test_without_out_the_name_tells_prompt_and_seed(command, wavespeed_emulator, tmp_path):
    prompt = "A red fox: ink/wash, ../../etc \U0001f98a \u4e00\u53ea\u72d0\u72f8"
    for _ in range(2):
        assert command("generate", prompt, "--seed", "5", "--sync").code == 0
    stem = "a-red-fox-ink-wash-etc-\u4e00\u53ea\u72d0\u72f8-5"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{stem}-2.jpg", f"{stem}.jpg"]


def test_several_images_have_seeds_and_files_of_their_own(command, wavespeed_emulator, tmp_path):
    assert command("generate", "a fox", "-n", "3", "--seed", "5", "-o", "fox.jpg", "--sync").code == 0
    assert [inputs["seed"] for _, inputs in sent(wavespeed_emulator)] == [5, 6, 7]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fox-1.jpg", "fox-2.jpg", "fox-3.jpg"]
    assert command("generate", "a fox", "-n", "3", "-o", "more", "--sync").code == 0
    assert len({inputs["seed"] for _, inputs in sent(wavespeed_emulator)[3:]}) == 3
    assert len(list((tmp_path / "more").iterdir())) == 3


def test_one_that_fails_leaves_the_others(command, wavespeed_emulator, tmp_path):
    wavespeed_emulator.faults.add("submit", "fail", nth=2, code=5000)
    ended = command("generate", "a fox", "-n", "3", "-o", "fox.jpg", "--sync")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "5000" in ended.err
    assert len(list(tmp_path.iterdir())) == 2


def test_events_for_programs(command, wavespeed_emulator, tmp_path):
    ended = command("generate", "a fox", "--seed", "9", "-o", "fox.webp", "--sync", "--json")
    (event,) = ended.events
    assert event.pop("seconds") > 0
    assert event == {
        "event": "image",
        "path": "fox.webp",
        "prediction_id": wavespeed_emulator.ledger.accepted[0].id,
        "model": "wavespeed-ai/qwen-image/text-to-image-lora",
        "seed": 9,
        "nsfw": False,
    }


def test_a_large_size_is_warned_of_in_one_line(command, wavespeed_emulator):
    ended = command("generate", "a fox", "--size", "1536x512", "-n", "2", "--sync")
    assert ended.code == 0
    assert ended.err.startswith("warning: size 1536*512: ")
    assert ended.err.count("\n") == 1


def test_the_in_process_emulator_needs_no_key(command, tmp_path):
    ended = command(
        "generate", "a fox", "-o", "fox.jpg", "--size", "256x256", "--sync", "--emulator", "--emulator-speed", "100"
    )
    assert (ended.code, ended.err) == (0, "")
    with Image.open(tmp_path / "fox.jpg") as image:
        assert image.size == (256, 256)


@pytest.mark.wavespeed_emulator(inference=(9000.0, 9000.0))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_tells_what_is_paid(wavespeed_emulator, number):
    process = child("generate", "a fox")
    while not wavespeed_emulator.ledger.accepted:
        time.sleep(0.05)
    time.sleep(0.2)  # for the answer to arrive
    process.send_signal(number)
    ended = finished(process)
    prediction_id = wavespeed_emulator.ledger.accepted[0].id
    assert ended.code == 130
    assert ended.err.splitlines() == [
        f"prediction {prediction_id} is paid and goes on: 'wavespeed-qwen download {prediction_id}' gets its image",
        "interrupted",
    ]
