"""``sweep`` and ``gallery`` on the command line, against an emulator: from the axes to the table of images."""

from __future__ import annotations

import json
from math import ceil
from types import SimpleNamespace

import pytest
from PIL import Image

from wavespeed_qwen_async import TextToImage
from wavespeed_qwen_async.bulk.gallery import make_contact_sheets
from wavespeed_qwen_async.bulk.gallery._lettering import width_of
from wavespeed_qwen_async.bulk.sweep import Sweep
from wavespeed_qwen_async.cli import main
from wavespeed_qwen_async.provenance import Provenance, embed

SMALL = ("--size", "256x256", "--yes")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch, wavespeed_emulator):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    def once(*arguments):
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return SimpleNamespace(code=int(code), out=out, err=err)

    return once


def results(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_sizes_and_models_by_commas_are_axes_as_numbers_are(run):
    told = run(
        "sweep", "a fox", "--size", "512x512,256x256", "--model", "text-to-image, text-to-image-lora", "--dry-run"
    )
    assert (told.code, told.err) == (0, "")
    assert "4 jobs" in told.out


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--size", "big", "size = 'big': write 'width*height'"),
        ("--size", "9000x512", "size: width = 9000: "),
        ("--lora", "ink", "lora: path = 'ink': a LoRA is "),
    ],
)
def test_a_value_that_is_none_is_told_with_its_axis(run, option, value, words):
    told = run("sweep", "a fox", option, value, "--dry-run")
    assert told.code == 2
    assert words in told.err


def test_a_sweep_from_axes_to_table(run, tmp_path):
    command = ("sweep", "a red fox", "--lora", "owner/ink", "--lora", "owner/oil", "--lora", "none", "--seed", "1,2")
    command += ("--scale", "0.5,1", *SMALL)
    ended = run(*command)
    assert ended.code == 0, ended.err
    assert "10 jobs: 10 to be sent" in ended.out  # 2 seeds x (2 LoRAs x 2 scales + none)
    assert "cost $0.25" in ended.out
    assert "LoRA    owner/ink  owner/oil  no LoRA" in ended.out
    folder = tmp_path / "sweep"
    assert len(results(folder)) == 10
    assert (folder / "contact-sheet-1.png").is_file()
    assert (folder / "contact-sheet-2.png").is_file()
    assert "10 images" in (ended.out.splitlines()[-1])
    again = run(*command)
    assert "0 to be sent, 0 to be collected, 10 saved before" in again.out
    extended = run(*command, "--lora", "owner/new")
    assert "14 jobs: 4 to be sent, 0 to be collected, 10 saved before" in extended.out


@pytest.mark.wavespeed_emulator(blank=False)
def test_every_image_of_the_sheet_is_the_one_that_its_labels_say(run, tmp_path):
    sweep = Sweep(prompt="a red fox", lora=["owner/ink", "none"], scale=[0.5, 1.0], seed=[1, 2], size="256x256")
    command = ("sweep", "a red fox", "--scale", "0.5,1", "--seed", "1,2", *SMALL)
    assert run(*command, "--lora", "owner/ink", "--out", "out").code == 0
    assert run(*command, "--lora", "owner/ink", "--lora", "none", "--out", "out").code == 0  # places have changed
    by_job = {}
    for told in results(tmp_path / "out"):
        inputs = told["inputs"]
        with Image.open(tmp_path / "out" / told["file"]) as image:
            key = (inputs["seed"], *((lora["path"], lora["scale"]) for lora in inputs.get("loras", ())))
            by_job[key] = image.convert("RGB").resize((8, 8)).tobytes()
    assert len(set(by_job.values())) == len(by_job) == 6
    pages = make_contact_sheets(sweep, tmp_path / "out", side=256)
    assert [path.name for path in pages] == ["contact-sheet-1.png", "contact-sheet-2.png"]
    for page, seed in zip(pages, (1, 2), strict=True):
        found = [near(image, by_job) for image in cells(page)]
        ink = [(seed, ("owner/ink", scale)) for scale in (0.5, 1.0)]
        assert found == [*ink, (seed,), (seed,)]


def cells(page, side=256, gap=14):
    """The four images of a page, by where they must be: at its right and lower end."""
    with Image.open(page) as sheet:
        for row in (1, 0):
            for column in (1, 0):
                x = 40 + width_of_labels() + 2 * gap + (1 - column) * (side + gap)
                y = sheet.height - 40 - side - row * (side + gap)
                yield sheet.crop((x, y, x + side, y + side)).convert("RGB")


def width_of_labels():
    return ceil(max(width_of(text, 21) for text in ("owner/ink", "no LoRA", "LoRA"))) + 2


def near(image, known):
    small = image.resize((8, 8)).tobytes()
    return min(known, key=lambda key: sum(abs(a - b) for a, b in zip(known[key], small, strict=True)))


def test_a_dry_run_sends_and_writes_nothing(run, tmp_path):
    ended = run("sweep", "a fox", "--lora", "a/x", "--dry-run")
    assert ended.code == 0
    assert "4 jobs: 4 to be sent" in ended.out
    assert "cost $0.10" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_without_a_yes_nothing_is_paid(run, tmp_path, wavespeed_emulator):
    ended = run("sweep", "a fox", "--seed", "1,2")
    assert ended.code == 2
    assert "pass --yes" in ended.err
    assert wavespeed_emulator.ledger.submit_times == []
    assert list(tmp_path.iterdir()) == []
    assert run("sweep", "a fox", "--seed", "1,2", "--size", "256x256", "--yes").code == 0
    assert len(wavespeed_emulator.ledger.submit_times) == 2


def test_a_file_and_options_that_replace_its_own(run, tmp_path):
    (tmp_path / "table.yaml").write_text("prompt: a fox\nseed: [1, 2, 3]\nsize: 256x256\nmax_images: 2\n")
    ended = run("sweep", "--file", "table.yaml", "--dry-run")
    assert ended.code == 2
    assert "more than max_images = 2" in ended.err
    ended = run("sweep", "-f", "table.yaml", "--seed", "7,8", "--dry-run", "--json")
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert events[0] == {"event": "sweep", "images": 2, "axes": {"seed": ["7", "8"]}}
    assert events[1]["new"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--scale", "x"), "--scale x: give numbers"),
        (("--seed", "1.5"), "--seed 1.5: give numbers"),
        (("--rows", "lora"), "name an axis that varies"),
        (("--file", "gone.yaml"), "gone.yaml: can't be read"),
    ],
)
def test_bad_usage_is_one_line(run, arguments, message):
    ended = run("sweep", "a fox", *arguments)
    assert ended.code in {2, 3}
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_the_source_of_an_edit_is_in_the_gallery(run, tmp_path):
    Image.new("RGB", (256, 256), "orange").save(tmp_path / "fox.png")
    ended = run("sweep", "snow", "rain", "--image", "fox.png", *SMALL)
    assert ended.code == 0, ended.err
    assert len(list((tmp_path / "sweep" / "thumbs").glob("*-1536.jpg"))) == 1


def test_without_pillow_there_are_images_and_a_word(run, tmp_path, monkeypatch):
    import wavespeed_qwen_async.bulk.gallery._sweeps as module
    from wavespeed_qwen_async import ConfigurationError

    def refuse(*_):
        raise ConfigurationError("contact sheets need Pillow")

    monkeypatch.setattr(module, "read_entries", refuse)
    ended = run("sweep", "a fox", *SMALL)
    assert ended.code == 0
    assert "warning: no contact sheets: contact sheets need Pillow" in ended.err
    assert len(results(tmp_path / "sweep")) == 1


def test_gallery_of_a_folder(run, tmp_path):
    (tmp_path / "out").mkdir()
    Image.new("RGB", (64, 64), "orange").save(tmp_path / "plain.png")
    told = Provenance(job=TextToImage(prompt="a fox", seed=5))
    (tmp_path / "out" / "fox.png").write_bytes(embed((tmp_path / "plain.png").read_bytes(), told))
    ended = run("gallery", "out", "--title", "Foxes", "--json")
    assert ended.code == 0, ended.err
    event = json.loads(ended.out)
    assert (event["event"], event["images"], event["failed"], event["unread"]) == ("gallery", 1, 0, 0)
    assert "<title>Foxes</title>" in (tmp_path / "out" / "index.html").read_text()


def test_gallery_of_no_folder(run):
    ended = run("gallery", "gone")
    assert (ended.code, ended.err) == (2, "error: gone: no such folder\n")


def test_gallery_tells_of_lines_that_it_leaves_out(run, tmp_path):
    (tmp_path / "results.jsonl").write_text('{"index": 0}\n{"ind')
    ended = run("gallery", ".", "--no-thumbs")
    assert "0 images, 1 jobs without" in ended.out
    assert "1 lines of results.jsonl can't be read" in ended.err
    assert not (tmp_path / "thumbs").exists()
