from __future__ import annotations

import unicodedata
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from wavespeed_qwen_async.errors import ConfigurationError
from wavespeed_qwen_async.models import Edit, Job, TextToImage
from wavespeed_qwen_async.names import FIELDS, NameTemplate, file_name

FOLDER = Path("/data/out")
RESERVED = {"CON", "PRN", "AUX", "NUL", "COM1", "COM9", "LPT1", "LPT\u00b2", "CONIN$", "CONOUT$"}


def job(prompt: str = "A red fox, ink wash", **options: Any) -> Job:
    return TextToImage(prompt=prompt, **{"seed": 42, **options})


def name(template: str = "", prompt: str = "A red fox", index: int = 7, ext: str = "jpg", **options: Any) -> str:
    made = NameTemplate(template) if template else NameTemplate()
    return made.path(FOLDER, job(prompt), index, ext, **options).relative_to(FOLDER).as_posix()


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", "000007-a-red-fox-42.jpg"),
        ("{index}.{ext}", "7.jpg"),
        ("{ext}", "_~7.jpg"),
        ("{ext}-{index}", "jpg-7~7.jpg"),
        ("{index}", "7.jpg"),
        ("{slug}.{ext}", "a-red-fox~7.jpg"),
        ("{slug}-{index:04d}.{ext}", "a-red-fox-0007~7.jpg"),
        ("{model}/{index:03d}-{slug:.5}.{ext}", "text-to-image-lora/007-a-red.jpg"),
        ("{index}/{slug}", "7/a-red-fox.jpg"),
        ("{index}{seed}", "742~7.jpg"),
        ("{index:9>6}-x", "999997-x~7.jpg"),
        ("{index:x}-x", "7-x~7.jpg"),
        ("{index}2-x", "72-x~7.jpg"),
        ("image.{seed:06d}", "image.000042~7.jpg"),
        ("{size}_{prediction}_{output}", "auto_none_0~7.jpg"),
        ("a{{b}}{index}", "a{b}7~7.jpg"),
    ],
)
def test_templates(template: str, expected: str) -> None:
    assert name(template) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{index}-{slug}", ["7-a-red-fox.jpg", "7-a-red-fox~2.jpg"]),
        ("{slug}", ["a-red-fox~7.jpg", "a-red-fox~7-2.jpg"]),
        ("{index}-{output}", ["7-0.jpg", "7-1.jpg"]),
        ("{index}-{output}-{slug}", ["7-0-a-red-fox.jpg", "7-1-a-red-fox.jpg"]),
        ("{index}-{slug}-{output}", ["7-a-red-fox-0.jpg", "7-a-red-fox-1~2.jpg"]),
    ],
)
def test_several_outputs_of_one_job(template: str, expected: list[str]) -> None:
    assert [name(template, output=output) for output in range(2)] == expected


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{prompt}", "unknown field 'prompt'; known are index, slug, seed"),
        ("{}", "unknown field ''"),
        ("{index.real}", "unknown field"),
        ("{slug.__class__}", "unknown field"),
        ("{slug[0]}", "unknown field"),
        ("{slug!r}", "conversion"),
        ("{slug:{index}}", "can't be used"),
        ("{slug:>99999}", "can't be used"),
        ("{slug:d}", "field 'slug'"),
        ("{index:zz}", "field 'index'"),
        ("{index", "name template '{index'"),
        ("../{index}", "inside the folder"),
        ("a/../{index}", "inside the folder"),
        ("./{index}", "inside the folder"),
        ("/{index}", "empty part"),
        ("a//{index}", "empty part"),
        ("{index}/", "empty part"),
        ("", "empty part"),
        ("a\\{index}", "inside the folder"),
        ("a\n{index}", "control characters"),
    ],
)
def test_a_bad_template_names_what_is_wrong(template: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        NameTemplate(template)
    assert says in caught.value.message
    assert repr(template) in caught.value.message


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("\u4e00\u53ea\u7ea2\u72d0\u72f8\uff0c\u6c34\u58a8", "\u4e00\u53ea\u7ea2\u72d0\u72f8-\u6c34\u58a8"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", "image"),
        ("\U0001f98a!?", "image"),
        ("a\u200b\u202eb\x7fc", "a-b-c"),
        (
            "Cafe\u0301 \u0928\u093f\u0930\u094d\u0935\u093e\u0923",
            "caf\u00e9-\u0928\u093f\u0930\u094d\u0935\u093e\u0923",
        ),
        ("C:\\con\\nul", "c-con-nul"),
    ],
)
def test_slugs(prompt: str, expected: str) -> None:
    assert name("{index}-{slug}", prompt) == f"7-{expected}.jpg"


@pytest.mark.parametrize("character", [*map(chr, range(128))])
def test_plain_characters_are_taken_alike_beside_others_that_are_not(character: str) -> None:
    """Text of ASCII alone goes a quicker way."""
    assert name("{index}-{slug}.", f"a{character}b \u0101") == name("{index}-{slug}.", f"a{character}b a")[:-5] + (
        "\u0101.jpg"
    )
    if character.isprintable() and character not in "{}/\\":
        among = name(f"{{index}}-{character}\u0101-{{slug}}")
        assert among == name(f"{{index}}-{character}a-{{slug}}").replace("a-", "\u0101-", 1)


def test_long_prompts_are_cut_and_between_characters() -> None:
    for prompt in ("fox " * 2500, "\u7ea2" * 10_000, "\U0001f98a" * 10_000, "\U00020000" * 10_000):
        found = name("{slug}-{slug}-{slug}-{slug}/{slug}{slug}{slug}{slug}{slug}", prompt)
        assert all(len(part.encode()) <= 255 for part in found.split("/"))
        assert found.endswith("~7.jpg")


@pytest.mark.parametrize("reserved", sorted(RESERVED))
def test_no_name_is_a_device_of_windows(reserved: str) -> None:
    for template in (f"{reserved}/{{index}}", f"{reserved.lower()}.x/{{index}}", f"{reserved} .x/{{index}}"):
        assert name(template).startswith("_")


def test_trailing_dots_and_spaces_go_and_names_do_not_begin_like_options() -> None:
    assert name("a. . /b{index}") == "a/b7~7.jpg"
    assert name("-rf {slug}") == "_rf a-red-fox~7.jpg"
    assert name(".hidden{index}") == "_hidden7~7.jpg"
    assert name("  {index}") == "7~7.jpg"


@pytest.mark.parametrize(
    ("ext", "expected"), [("jpg", "jpg"), (".PNG", "png"), ("../x", "x"), ("", "img"), ("a" * 99, "a" * 10)]
)
def test_the_suffix_is_letters_and_digits(ext: str, expected: str) -> None:
    assert name("{index}", ext=ext) == f"7.{expected}"


def test_a_predictions_id_can_do_no_harm() -> None:
    ids = {"../x": 1, "a~2": 0, "a": 1, "a\u202eb\0c": 0}
    names = [name("{index}-{prediction}", prediction_id=each, output=output) for each, output in ids.items()]
    assert names == ["7-..-x~2.jpg", "7-a-2.jpg", "7-a~2.jpg", "7-a-b-c.jpg"]


def test_what_is_not_ours_is_one_name_and_no_way_out() -> None:
    assert file_name("../../etc/x", ".jpg") == "_.-..-etc-x.jpg"
    assert file_name("", ".jpg") == "_.jpg"
    assert file_name("0a5d2f", ".png") == "0a5d2f.png"
    assert len(file_name("\u72d0" * 200, ".webp").encode()) <= 255


def test_an_unknown_seed_is_said_as_such() -> None:
    template = NameTemplate("{index}-{seed:08d}")
    assert template.path(FOLDER, job(seed=-1), 1, "png").name == "1-random.png"
    assert template.path(FOLDER, job(seed=7), 1, "png").name == "1-00000007.png"


def test_the_hash_tells_jobs_apart_and_is_the_same_in_every_process() -> None:
    template = NameTemplate("{index}-{hash}")
    sources = ["https://h.io/a.png", "https://h.io/b.png", "a.png", b"x", b"y", Image.new("RGB", (1, 1))]
    jobs = [job(), job(seed=1), job("b"), job(size="512*512"), job(loras=["a/b:0.5"])]
    jobs += [Edit(prompt="x", image=source) for source in sources]
    names = {template.path(FOLDER, each, 1, "png").name for each in jobs}
    assert len(names) == len(jobs)
    assert template.path(FOLDER, job(), 1, "png").name == "1-e789f77c.png"


@pytest.mark.parametrize(("index", "output"), [(-1, 0), (0, -1), (10**18, 0)])
def test_the_index_is_a_count(index: int, output: int) -> None:
    with pytest.raises(ValueError, match="from 0"):
        NameTemplate().path(FOLDER, job(), index, "png", output=output)


def test_repr() -> None:
    assert repr(NameTemplate("{index}")) == "NameTemplate('{index}')"


SPECS = {"index": ["", ":06d", ":x", ":>4", ":9>3", ":0300", ":,"], "output": ["", ":02d"], "seed": ["", ":d", ":012d"]}
FIELD = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda field: st.sampled_from(SPECS.get(field, ["", ":.3", ":>30", ":/>9"])).map(lambda spec: f"{{{field}{spec}}}")
)
LITERAL = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="{}\\"), max_size=6)
EASY = st.sampled_from(["-", "_", "~", "~2", "1", " ", ".", "/", "..", "con", "aux.", "{index}-", "{index}-{output}"])
TEMPLATE = st.lists(FIELD | EASY | LITERAL, max_size=7).map("".join)
PROMPT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400) | st.sampled_from(
    ["../../x", "CON", "a" * 10_000, "\u7ea2\u72d0" * 5000, "~3", "1-2-3", "\u0660\u0661", "."]
)


def _template(text: str) -> NameTemplate | None:
    try:
        return NameTemplate(text)
    except ConfigurationError:
        return None


def _job(prompt: str, seed: int) -> Job:
    return job(prompt if prompt.strip() else "x", seed=seed)


IMAGE = st.tuples(PROMPT, st.integers(-1, 50), st.integers(0, 130) | st.integers(0, 10**17), st.integers(0, 12))


@settings(max_examples=150, deadline=None)
@given(template=TEMPLATE, images=st.lists(IMAGE, min_size=2, max_size=6, unique_by=lambda image: image[2:]))
@example(template="{index}{output}", images=[("a", 1, 1, 11), ("a", 1, 11, 1)])
@example(template="{slug}~{index}", images=[("a~1", 1, 1, 0), ("a", 1, 1, 1)])
@example(template="{index}~{output}", images=[("a", 1, 1, 0), ("a", 1, 1, 1)])
@example(template="{index}.{output}", images=[("a", 1, 1, 0), ("a", 1, 1, 1)])
@example(template="{index}-{slug}-{output}", images=[("a-1", 1, 1, 0), ("a", 1, 1, 1)])
def test_always_inside_the_folder_and_never_one_file_for_two(template: str, images: list[Any]) -> None:
    made = _template(template)
    if made is None:
        return
    paths = [
        made.path(FOLDER, _job(prompt, seed), index, "png", output=output) for prompt, seed, index, output in images
    ]
    for path in paths:
        parts = path.relative_to(FOLDER).parts
        assert ".." not in parts
        assert path.is_relative_to(FOLDER)
        assert len(PureWindowsPath("C:/out", *parts).parts) == 2 + len(parts)
        for part in parts:
            assert 0 < len(part.encode()) <= 255
            assert not part.endswith((".", " "))
            assert not set('<>:"/\\|?*') & set(part)
            assert part.partition(".")[0].rstrip().upper() not in RESERVED
            assert all(unicodedata.category(c)[0] != "C" for c in part)
    # As a file system sees them that takes capitals and decomposed letters for the same.
    folded = {unicodedata.normalize("NFD", str(path)).casefold() for path in paths}
    assert len(folded) == len(paths)


@settings(max_examples=100, deadline=None)
@given(template=TEMPLATE, image=IMAGE)
def test_the_same_image_gets_the_same_name_again(template: str, image: Any) -> None:
    prompt, seed, index, output = image
    first, second = _template(template), _template(template)
    if first is not None and second is not None:
        each = [made.path(FOLDER, _job(prompt, seed), index, "png", output=output) for made in (first, second)]
        assert each[0] == each[1]
