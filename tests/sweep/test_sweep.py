"""A sweep's table: which jobs it makes, in which order, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wavespeed_qwen_async import Edit, InvalidJobError, TextToImage
from wavespeed_qwen_async.bulk.gallery._sweeps import _key_of_job
from wavespeed_qwen_async.bulk.sweep import SCALES, Sweep
from wavespeed_qwen_async.errors import ConfigurationError


def loras(job):
    return [(lora.path, lora.scale) for lora in job.loras or ()]


def test_the_seed_is_locked_while_loras_vary():
    jobs = list(Sweep(prompt="a fox", lora=["a/x", "a/y"]))
    assert len({job.seed for job in jobs}) == 1
    assert jobs[0].seed >= 0


def test_the_locked_seed_is_the_same_each_time_and_for_an_extended_sweep():
    seed = Sweep(prompt="a fox")[0].seed
    assert {job.seed for job in Sweep(prompt=["a fox", "a cat"], lora=["a/x", "a/y"], size=["512x512", "256x256"])} == {
        seed
    }
    assert Sweep(prompt="a cat")[0].seed != seed
    assert Sweep(prompt="a fox", image="https://a/b.png")[0].seed != seed


def test_loras_are_tried_at_the_usual_scales():
    sweep = Sweep(prompt="a fox", lora=["a/x", "a/y"])
    assert SCALES == (0.2, 0.5, 0.8, 1.0)
    assert [loras(job) for job in sweep] == [[(path, scale)] for path in ("a/x", "a/y") for scale in SCALES]
    assert (sweep.rows, sweep.columns, len(sweep)) == ("lora", "scale", 8)


def test_one_lora_is_tried_at_them_too_and_its_own_scale_is_kept():
    assert [loras(job)[0][1] for job in Sweep(prompt="a fox", lora="a/x")] == list(SCALES)
    assert [loras(job) for job in Sweep(prompt="a fox", lora="a/x:0.7")] == [[("a/x", 0.7)]]
    assert [loras(job) for job in Sweep(prompt="a fox", lora="a/x", scale=0.3)] == [[("a/x", 0.3)]]


def test_equal_images_are_made_once():
    sweep = Sweep(prompt="a fox", lora=["a/x", "none", "a/y:0.6"], scale=[0.5, 1.0])
    assert [loras(job) for job in sweep] == [[("a/x", 0.5)], [("a/x", 1.0)], [], [("a/y", 0.6)]]
    assert len(sweep) == 4
    cells = list(sweep.cells())
    assert [cell.number for cell in cells] == [0, 1, 2, 2, 3, 3]
    assert [cell.place for cell in cells] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [cell.job for cell in cells][2] == [cell.job for cell in cells][3]


@pytest.mark.parametrize("both", ["a/x + a/y:0.5", ("a/x", "a/y:0.5"), ({"path": "a/x"}, ("a/y", 0.5))])
def test_loras_together(both):
    sweep = Sweep(prompt="a fox", lora=[both, None], scale=[0.2, 0.8])
    assert [loras(job) for job in sweep] == [[("a/x", 0.2), ("a/y", 0.5)], [("a/x", 0.8), ("a/y", 0.5)], []]
    assert sweep.axes[0].labels == ("a/x + a/y \u00d70.5", "no LoRA")


def test_a_pair_is_one_lora_with_its_scale():
    assert [loras(job) for job in Sweep(prompt="a fox", lora=[("a/x", 0.4), ("a/y", 1)])] == [
        [("a/x", 0.4)],
        [("a/y", 1.0)],
    ]


def test_loras_of_all_images_come_first():
    sweep = Sweep(prompt="a fox", loras=["b/style:0.3"], lora=["a/x:1", "none"])
    assert [loras(job) for job in sweep] == [[("b/style", 0.3), ("a/x", 1.0)], [("b/style", 0.3)]]


def test_all_axes_multiply():
    sweep = Sweep(
        prompt=["a", "b"],
        seed=[1, 2, 3],
        size=["512x512", (256, 512)],
        model=["text-to-image-lora", "text-to-image-2512-lora"],
        lora=["a/x", "a/y"],
        scale=[0.5, 1],
        output_format="png",
    )
    jobs = list(sweep)
    assert len(sweep) == len(jobs) == len({job.model_dump_json() for job in jobs}) == 96
    assert all(isinstance(job, TextToImage) and job.output_format == "png" for job in jobs)
    assert [axis.key for axis in sweep.axes] == ["prompt", "model", "size", "seed", "lora", "scale"]
    assert (sweep.rows, sweep.columns) == ("lora", "scale")


def test_edits_over_source_images():
    sweep = Sweep(prompt=["snow", "rain"], image=["https://a/fox.png", "cat.png", b"bytes"])
    assert all(isinstance(job, Edit) and job.model == "edit-lora" for job in sweep)
    sources = ["https://a/fox.png", Path("cat.png"), b"bytes"]
    assert [(job.prompt, job.image) for job in sweep] == [(text, it) for text in ("snow", "rain") for it in sources]
    assert {axis.key: axis.labels for axis in sweep.axes}["image"] == ("fox.png", "cat.png", "an image")
    assert (sweep.rows, sweep.columns) == ("prompt", "image")


def test_models_that_take_several_images():
    (job,) = Sweep(prompt="both", image=("https://a/1.png", "https://a/2.png"), model="edit-plus")
    assert job.images == ("https://a/1.png", "https://a/2.png")
    (job,) = Sweep(prompt="one", image="https://a/1.png", model="edit-2511-lora")
    assert job.images == ("https://a/1.png",)
    with pytest.raises(InvalidJobError, match="takes one"):
        Sweep(prompt="both", image=("https://a/1.png", "https://a/2.png"))


def test_what_does_not_vary_is_told_apart():
    sweep = Sweep(prompt="a fox", size="768x512", seed=[1, 2], model="text-to-image-lora")
    assert sweep.fixed == {"prompt": "a fox", "model": "text-to-image-lora", "size": "768 \u00d7 512"}
    assert [axis.name for axis in sweep.axes] == ["Seed"]
    assert (sweep.rows, sweep.columns) == (None, "seed")


def test_labels_are_short_where_that_tells_them_apart():
    urls = ["https://a/one/ink.safetensors?x=1", "https://a/two/oil.safetensors"]
    assert Sweep(prompt="a", lora=urls, scale=1).axes[0].labels == ("ink", "oil")
    same = ["https://a/one/ink.safetensors", "https://a/two/ink.safetensors"]
    assert Sweep(prompt="a", lora=same, scale=1).axes[0].labels == tuple(same)
    assert Sweep(prompt="a", image=[Path("1/fox.png"), Path("2/fox.png")]).axes[0].labels == (
        "1: fox.png",
        "2: fox.png",
    )
    assert Sweep(prompt="a", lora="a/x").axes[0].labels == ("0.2", "0.5", "0.8", "1.0")


@pytest.mark.parametrize(
    ("given", "edges"),
    [
        ({"rows": "seed"}, ("seed", "scale")),
        ({"columns": "lora"}, ("seed", "lora")),
        ({"rows": "scale"}, ("scale", "seed")),
        ({"rows": "scale", "columns": "seed"}, ("scale", "seed")),
    ],
)
def test_the_edges_are_chosen(given, edges):
    sweep = Sweep(prompt="a", lora=["a/x", "a/y"], seed=[1, 2], **given)
    assert (sweep.rows, sweep.columns) == edges
    assert [axis.key for axis in sweep.axes][1:] == list(edges)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": []}, "prompt: an axis needs a value"),
        ({"prompt": " "}, "prompt is empty"),
        ({"seed": [1, 1]}, "seed: the same value"),
        ({"lora": "a/x", "scale": [0.5, 0.5]}, "scale: the same value"),
        ({"lora": "a/x", "scale": 5}, "scale = 5"),
        ({"scale": [0.5]}, "scale: there is no LoRA"),
        ({"lora": "a/x:1", "scale": [0.5]}, "scale: there is no LoRA"),
        ({"lora": ["no lora at all"]}, "a LoRA is"),
        ({"size": "9x9"}, "width = 9"),
        ({"seed": -5}, "seed = -5"),
        ({"model": "text-to-image", "lora": "a/x"}, "takes no loras"),
        ({"rows": "lora"}, "name an axis that varies .none."),
        ({"seed": [1, 2], "size": ["256x256", "512x512"], "rows": "seed", "columns": "seed"}, "name two axes"),
        ({"steps": 3}, "unknown parameter 'steps'"),
        ({"seed": list(range(201))}, "201 Seed are 201 images, more than max_images = 200"),
        (
            {"seed": list(range(10**4)), "prompt": [str(n) for n in range(10**4)]},
            "100000000 images, more than max_images",
        ),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_sent(given, message):
    with pytest.raises(InvalidJobError, match=message):
        Sweep(**({"prompt": "a"} | given))


def test_the_limit_counts_images_not_cells():
    assert len(Sweep(prompt="a", lora=["none", "a/x:1"], scale=None, max_images=2)) == 2
    assert len(Sweep(prompt="a", lora=["none", "a/x"], scale=[0.1, 0.2], max_images=3)) == 3
    with pytest.raises(InvalidJobError, match="3 images, more than max_images = 2"):
        Sweep(prompt="a", lora=["none", "a/x"], scale=[0.1, 0.2], max_images=2)


def test_jobs_are_made_as_they_are_asked_for():
    sweep = Sweep(prompt="a", seed=list(range(200)))
    jobs = iter(sweep)
    assert [next(jobs).seed for _ in range(2)] == [0, 1]
    assert sweep[3].seed == 3
    assert "200 images: 200 seed" in repr(sweep)


# --- files ------------------------------------------------------------------------------------------------------------

TABLE = {"prompt": "a fox", "lora": ["a/x", "none"], "scale": [0.5], "seed": [1, 2], "rows": "seed"}


@pytest.mark.parametrize("kind", ["json", "yaml", "yml"])
def test_a_file(tmp_path, kind):
    path = tmp_path / f"sweep.{kind}"
    text = (
        json.dumps(TABLE)
        if kind == "json"
        else "prompt: a fox\nlora: [a/x, none]\nscale: [0.5]\nseed: [1, 2]\nrows: seed\n"
    )
    path.write_text(text)
    assert list(Sweep.from_file(path)) == list(Sweep(**TABLE))
    assert [job.seed for job in Sweep.from_file(path, seed=9, rows=None)] == [9, 9]


def test_source_images_are_beside_the_file(tmp_path):
    (tmp_path / "fox.png").write_bytes(b"x")
    (tmp_path / "sweep.json").write_text(
        json.dumps({"prompt": "snow", "image": ["fox.png", "https://a/b.png", "no.png"]})
    )
    assert [job.image for job in Sweep.from_file(tmp_path / "sweep.json")] == [
        tmp_path / "fox.png",
        "https://a/b.png",
        Path("no.png"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("a.json", "{", ConfigurationError, "is no JSON"),
        ("a.json", "[1]", ConfigurationError, "give a mapping"),
        ("a.yaml", "a: [", ConfigurationError, "is no YAML"),
        ("a.json", "{}", InvalidJobError, "prompt: missing"),
        ("a.json", '{"prompt": "a", "steps": 3}', InvalidJobError, "unknown parameter 'steps'"),
        ("b.json", None, ConfigurationError, "can't be read: No such file"),
    ],
)
def test_a_file_that_is_no_sweep(tmp_path, name, text, error, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        Sweep.from_file(tmp_path / name)


def test_loras_that_differ_by_their_query_alone_are_two_to_a_contact_sheet():
    urls = [f"https://civitai.com/api/download/models/7?format={name}" for name in ("a", "b")]
    jobs = [TextToImage(prompt="a fox", seed=1, loras=[url]) for url in urls]
    assert len({_key_of_job(job) for job in jobs}) == 2
