"""Rendered pictures: size, format, repeatability, what they depend on, legible text."""

from __future__ import annotations

from io import BytesIO

import pytest

image_module = pytest.importorskip("PIL.Image")
from PIL import Image, ImageChops, ImageStat  # noqa: E402

from wavespeed_qwen_async.emulator.captions import (  # noqa: E402
    _font,
    _script,
    clean,
    fit,
    text_width,
    wrap,
)
from wavespeed_qwen_async.emulator.render import render  # noqa: E402
from wavespeed_qwen_async.emulator.scenes import MOODS, SCENES, paint, weave  # noqa: E402

SMALL = (256, 256)


def opened(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        image.load()
        return image


@pytest.mark.parametrize("size", [(256, 256), (1536, 256), (256, 1536), (640, 480)])
@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_size_and_format_are_those_asked_for(size: tuple[int, int], output_format: str) -> None:
    image = opened(render("a fox", 1, (), size, output_format))
    assert (image.size, image.format) == (size, output_format.upper())


def test_the_same_inputs_give_the_same_bytes() -> None:
    arguments = ("雪中的狐狸", 7, [("o/ink", 0.8)], SMALL, "webp")
    assert render(*arguments) == render(*arguments)


def test_prompt_seed_loras_and_scale_each_make_a_difference() -> None:
    variants = [
        render("a fox", 1, [], SMALL, "png"),
        render("a dog", 1, [], SMALL, "png"),
        render("a fox", 2, [], SMALL, "png"),
        render("a fox", 1, [("o/ink", 0.5)], SMALL, "png"),
        render("a fox", 1, [("o/ink", 1.0)], SMALL, "png"),
        render("a fox", 1, [("o/pen", 1.0)], SMALL, "png"),
        render("a fox", 1, [("o/ink", 0.0)], SMALL, "png"),
    ]
    assert len(set(variants)) == len(variants)


@pytest.mark.parametrize("scene", sorted(SCENES))
def test_every_scene_is_a_picture_of_many_colours(scene: str) -> None:
    prompt = next((words[0] for words, _, name in MOODS if name == scene), scene)
    image = paint(prompt, 3, (), (320, 240))
    assert image.size == (320, 240)
    assert len(image.getcolors(maxcolors=100_000)) > 500
    assert paint(prompt, 3, (), (320, 240)).tobytes() == image.tobytes()


def test_a_larger_scale_shows_more_of_a_lora() -> None:
    plain = Image.new("RGB", SMALL, "navy")
    faint, strong = plain.copy(), plain.copy()
    weave(faint, "o/ink", 0.5)
    weave(strong, "o/ink", 2.0)
    assert 0 < difference(plain, faint) < difference(plain, strong) / 2


@pytest.mark.parametrize("prompt", ["a red fox", "一只红色的狐狸在雪地里", "Ωμέγα Привет", "x" * 900, "雪" * 3000])
def test_the_prompt_is_written_light_on_dark(prompt: str) -> None:
    image = opened(render(prompt, 1, (), (512, 512), "png")).convert("L")
    panel = image.crop((24, 512 - 80, 488, 512 - 20))
    low, high = panel.getextrema()
    assert high > 230
    assert ImageStat.Stat(panel).median[0] < 90
    assert low < 60


def test_every_gb2312_character_and_ascii_has_a_glyph() -> None:
    missing = {name: _font(name, 16).getmask("\U000f0000").getbbox() for name in ("latin", "han")}
    shapes = {name: bytes(_font(name, 16).getmask("\U000f0000")) for name in missing}
    han = [bytes([high, low]).decode("gb2312", "ignore") for high in range(0xB0, 0xF8) for low in range(0xA1, 0xFF)]
    characters = [
        *filter(None, han),
        *map(chr, range(0x21, 0x7F)),
        *map(chr, range(0xA1, 0x100)),
        *"\uff0c\u3002\uff01\uff1f\u201c\u201d\u300a\u300b",
    ]
    assert len(characters) > 6763 + 94
    without = [char for char in characters if bytes(_font(_script(char), 16).getmask(char)) == shapes[_script(char)]]
    assert "".join(without).strip("\xad") == ""


def test_text_is_wrapped_within_the_width() -> None:
    text = "the quick brown fox jumps over the lazy dog and 敏捷的棕色狐狸跳过了懒狗。 " * 5
    lines = wrap(clean(text), 12.0)
    assert all(text_width(line) <= 12.5 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap("敏捷的狐狸跳。", 6.1) == ["敏捷的狐狸", "跳。"]
    assert all(text_width(piece) <= 5.0 for piece in wrap("x" * 50, 5.0))
    assert wrap("one\ntwo", 50.0) == ["one", "two"]


def test_short_text_is_large_and_long_text_is_small_then_cut() -> None:
    short, long, longest = (fit(text, 200, 100, 30) for text in ("fox", "a fox " * 20, "a fox " * 900))
    assert short.size == 30
    assert 11 <= longest.size <= long.size < 30
    assert max(short.height, long.height, longest.height) <= 100
    assert longest.lines[-1].endswith("…")
    assert not long.lines[-1].endswith("…")


def test_any_text_can_be_drawn() -> None:
    assert clean("a\tb\r\n\n\x00c \ud800 😀") == "a b\n□c □ □"
    assert opened(render("\x00\ud800😀\u202e", 1, [("o/\u202e", 1.0)], SMALL, "jpeg")).size == SMALL


def difference(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean) / 3


def test_an_edit_shows_its_source_changed() -> None:
    sources = [Image.new("RGB", SMALL, colour) for colour in ("white", "black")]
    files = []
    for source in sources:
        file = BytesIO()
        source.save(file, "PNG")
        files.append(file.getvalue())
    edits = [opened(render("make it snow", 1, (), None, "png", [data])) for data in files]
    box = (40, 40, 216, 150)
    assert difference(edits[0].crop(box), edits[1].crop(box)) > 60
    assert difference(edits[0].crop(box), sources[0].crop(box)) > 10
    other = opened(render("make it rain", 1, (), None, "png", [files[0]]))
    assert difference(edits[0].crop(box), other.crop(box)) > 1
    both = opened(render("combine", 1, (), (512, 256), "png", files))
    light, dark = both.crop((60, 40, 200, 140)).convert("L"), both.crop((300, 40, 450, 140)).convert("L")
    assert ImageStat.Stat(light).mean[0] > ImageStat.Stat(dark).mean[0] + 60
    plain, woven = (opened(render("x", 1, loras, None, "png", files[:1])) for loras in ([], [("o/a", 4.0)]))
    assert difference(plain.crop(box), woven.crop(box)) > 1


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((100, 100), (256, 256)), ((3000, 1500), (1536, 768)), ((300, 301), (300, 301)), ((4000, 100), (1536, 256))],
)
def test_an_edit_without_size_takes_that_of_its_source(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    file = BytesIO()
    Image.new("RGB", size, "red").save(file, "JPEG")
    assert opened(render("x", 1, (), None, "jpeg", [file.getvalue()])).size == wanted


def test_a_source_that_cannot_be_read_gets_a_stand_in() -> None:
    one, other = (render("x", 1, (), None, "png", [data]) for data in (b"no image", b"nor this"))
    assert one != other
    assert opened(one).size == (768, 768)
    assert render("x", 1, (), SMALL, "png", ["https://a.co/1.png"]) != render(
        "x", 1, (), SMALL, "png", ["https://a.co/2.png"]
    )
