from __future__ import annotations

import io
import json
import re
import shutil
import struct
import subprocess
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from media_server import picture
from PIL import Image

from wavespeed_qwen_async._media import containers as _containers
from wavespeed_qwen_async.models import Edit, TextToImage
from wavespeed_qwen_async.predictions import Prediction
from wavespeed_qwen_async.provenance import Provenance, embed, extract

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ["png", "jpeg", "webp"]
PROMPT = 'A red fox, ink wash: "quiet", \u4e00\u53ea\u7ea2\u72d0\u72f8 \U0001f98a\nsecond line'
EXIFTOOL = shutil.which("exiftool")
# The web UI's own pattern for the last line (infotext_utils.py).
PAIRS = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def made(prompt: str = PROMPT, **options: Any) -> Provenance:
    job = TextToImage(prompt=prompt, seed=1234, loras=["owner/ink:0.8", "https://h.io/a,b.safetensors"], size="512*512")
    prediction = Prediction(
        id="pred-1",
        model="wavespeed-ai/qwen-image/text-to-image-lora",
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        timings={"inference": 6021},
    ).bound(job, None)
    return Provenance.of(prediction, price=0.025, **options)


def pixels(data: bytes) -> tuple[Any, ...]:
    with Image.open(io.BytesIO(data)) as image:
        return image.format, image.size, image.mode, image.tobytes()


def payload(data: bytes) -> bytes:
    """The compressed pixels as they lie in the file."""
    if data.startswith(b"\x89PNG"):
        place, found = 8, b""
        while place < len(data):
            length = int.from_bytes(data[place : place + 4], "big")
            if data[place + 4 : place + 8] == b"IDAT":
                found += data[place : place + 12 + length]
            place += 12 + length
        return found
    if data.startswith(b"\xff\xd8"):
        return data[data.index(b"\xff\xda") :]
    return next(data[place : place + 8 + length] for kind, place, length in riff(data) if kind in {b"VP8 ", b"VP8L"})


def riff(data: bytes) -> list[tuple[bytes, int, int]]:
    place, found = 12, []
    assert int.from_bytes(data[4:8], "little") + 8 == len(data)
    while place < len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        found.append((data[place : place + 4], place, length))
        place += 8 + length + length % 2
    assert place == len(data)
    return found


def comment_of(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG":
            return image.info["parameters"]
        raw = image.getexif().get_ifd(0x8769)[0x9286]
    assert raw.startswith(b"UNICODE\0")
    return raw[8:].decode("utf-16-be")


@pytest.mark.parametrize("kind", KINDS)
def test_pillow_reads_it_back_and_no_pixel_has_changed(kind: str) -> None:
    plain = picture(kind=kind)
    data = embed(plain, made())
    assert pixels(data) == pixels(plain)
    assert payload(data) == payload(plain)
    text = comment_of(data)
    *prompt, line = text.split("\n")
    assert "\n".join(prompt) == PROMPT
    pairs = dict(PAIRS.findall(line))
    assert (pairs["Seed"], pairs["Size"], pairs["Prediction"]) == ("1234", "64x48", "pred-1")
    assert line.startswith("Steps: ")
    assert (pairs["Lora 0"], pairs["Lora 0 scale"]) == ("owner/ink", "0.8")
    assert json.loads(pairs["Lora 1"]) == "https://h.io/a,b.safetensors"
    assert pairs["Price"] == "0.025 USD"


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_reading_gives_the_record(kind: str) -> None:
    text, record = extract(embed(picture(kind=kind), made()))
    assert text.startswith(PROMPT)
    assert record["seed"] == 1234
    assert record["loras"][0] == {"path": "owner/ink", "scale": 0.8}
    assert record["prompt"] == PROMPT
    assert record["created_at"] == "2026-01-02T03:04:05+00:00"
    assert {"saved_at", "model", "price", "inference_ms", "software", "prediction_id"} <= record.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(EXIFTOOL is None, reason="exiftool is not installed (apt-get install libimage-exiftool-perl)")
def test_exiftool_reads_it_back_without_a_warning(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(embed(picture(kind=kind), made()))
    assert EXIFTOOL is not None
    command = [EXIFTOOL, "-j", "-b", "-Parameters", "-Wavespeed", "-UserComment", "-MakerNoteUnknownText"]
    output = subprocess.run([*command, "-Warning", "-Error", path], check=True, capture_output=True).stdout
    found = json.loads(output)[0]
    text = found["Parameters"] if kind == "png" else found["UserComment"]
    assert text.startswith(PROMPT + "\nSteps: ")
    assert "Seed: 1234" in text
    note = found["Wavespeed"] if kind == "png" else found["MakerNoteUnknownText"]
    assert json.loads(note)["prediction_id"] == "pred-1"
    assert not {"Warning", "Error"} & found.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_again_replaces_and_does_not_pile_up(kind: str) -> None:
    once = embed(picture(kind=kind), made("first"))
    twice = embed(once, made("other"))
    assert extract(twice)[1]["prompt"] == "other"
    assert comment_of(twice).startswith("other\n")
    assert len(twice) == len(once)
    assert twice.count(b"pred-1") == once.count(b"pred-1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", ["\u7ea2" * 10_000, "\U0001f98a" * 10_000, "x" * 100_000, "caf\u00e9"])
def test_long_prompts(kind: str, prompt: str) -> None:
    plain = picture(kind=kind)
    data = embed(plain, made(prompt))
    assert pixels(data) == pixels(plain)
    text, record = extract(data)
    assert record["seed"] == 1234
    if kind == "png" or len(prompt) <= 10_000:
        assert text.startswith(prompt + "\nSteps")
    else:
        assert text.startswith("x" * 20_000)
        assert "Seed: 1234" in text


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_orientation_survives(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "old"
    for kind in ("jpeg", "webp"):
        data = embed(picture(kind=kind, exif=exif), made())
        with Image.open(io.BytesIO(data)) as image:
            assert image.getexif().get(0x0112, 1) == orientation
        assert data.lower().count(b"exif\0\0") <= 1


@pytest.mark.parametrize(
    "options",
    [{"lossless": True}, {"lossless": True, "alpha": True}, {"alpha": True}, {"xmp": b"<x/>"}, {"icc": b"12345678"}],
)
def test_every_shape_of_webp(options: dict[str, Any]) -> None:
    image = Image.new("RGBA" if options.pop("alpha", False) else "RGB", (31, 17), (200, 10, 10, 90)[:4])
    if image.mode == "RGB":
        image = Image.new("RGB", (31, 17), (200, 10, 10))
    target = io.BytesIO()
    if "icc" in options:
        options["icc_profile"] = options.pop("icc")
    image.save(target, "webp", **options)
    data = embed(target.getvalue(), made())
    assert pixels(data) == pixels(target.getvalue())
    kinds = [kind for kind, *_ in riff(data)]
    assert kinds[0] == b"VP8X"
    assert data[20] & 0x08  # there is EXIF
    assert bool(data[20] & 0x10) == (image.mode == "RGBA")
    assert kinds.count(b"EXIF") == 1
    assert kinds.index(b"EXIF") == len(kinds) - 1 - kinds.count(b"XMP ")


def test_an_exif_block_of_odd_length_is_padded_in_a_webp() -> None:
    plain = picture(kind="webp")
    read = lambda offset, length: plain[offset : offset + length]  # noqa: E731 - one line is enough
    changes = _containers.webp_splices(read, len(plain), lambda _: b"odd")
    assert riff(b"".join(_containers.pieces(read, len(plain), changes, 100)))[-1][2] == 3


def test_a_jfif_header_stays_in_front() -> None:
    data = embed(picture(kind="jpeg"), made())
    assert data[2:4] == b"\xff\xe0"
    length = int.from_bytes(data[4:6], "big")
    assert data[4 + length : 6 + length] == b"\xff\xe1"


def test_what_is_after_an_image_stays_there() -> None:
    for kind in KINDS:
        plain = picture(kind=kind) + b"trailing"
        data = embed(plain, made())
        assert data.endswith(b"trailing")
        assert extract(data)[1]["seed"] == 1234


def test_other_formats_stay_as_they_are() -> None:
    assert embed(picture(kind="gif"), made()) == picture(kind="gif")
    assert embed(b"", made()) == b""
    assert extract(b"text") == ("", {})


def test_an_edit_tells_its_source_by_name_and_never_by_folder() -> None:
    job = Edit(prompt="snow", image="/home/ann/private/fox.png", seed=-1)
    record = Provenance(job=job, prediction_id="p").record()
    assert record["images"] == ["fox.png"]
    url = Edit(prompt="snow", image="https://h.io/a.png?token=secret")
    assert Provenance(job=url).record()["images"] == ["https://h.io/a.png"]
    assert Provenance(job=Edit(prompt="s", image=b"x")).record()["images"] == ["(bytes)"]
    assert "private" not in Provenance(job=job).parameters()
    assert "Seed" not in Provenance(job=job).parameters()  # -1: the server does not tell which one it drew


def test_a_loras_url_is_told_without_its_query() -> None:
    job = TextToImage(prompt="a", seed=1, loras=["https://civitai.com/api/download/models/7?token=secret"])
    told = Provenance(job=job)
    assert told.record()["loras"][0]["path"] == "https://civitai.com/api/download/models/7"
    assert "secret" not in told.parameters()


def test_a_webp_that_lies_about_its_length_stays_as_it_is() -> None:
    lying = bytearray(picture(kind="webp"))
    lying[4:8] = b"\xff\xff\xff\xff"
    assert embed(bytes(lying), made()) == lying


def test_what_is_not_known_is_left_out() -> None:
    assert Provenance(prediction_id="p").record().keys() == {"software", "prediction_id"}
    line = Provenance(prediction_id="p").parameters()
    assert line.startswith("Steps: 0, Prediction: p, Version: ")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_headers_never_raise(kind: str) -> None:
    plain = embed(picture(kind=kind), made("short"))
    for cut in range(0, min(len(plain), 600), 7):
        extract(plain[:cut])
        embed(plain[:cut], made("short"))
    for place in range(0, min(len(plain), 400), 3):
        broken = bytearray(plain)
        broken[place] ^= 0xFF
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            extract(bytes(broken))
            embed(bytes(broken), made("short"))


def test_only_headers_are_read_of_a_large_file() -> None:
    target = io.BytesIO()
    Image.new("RGB", (2000, 1500)).save(target, "png", compress_level=0)
    data = target.getvalue()
    asked: list[int] = []

    def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return data[offset : offset + length]

    from wavespeed_qwen_async.provenance import splices

    splices(read, len(data), made())
    assert sum(asked) < 1000


def test_exif_of_others_is_read_in_either_byte_order() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for order in ("<", ">"):
        exif.endian = order
        assert _containers.read_exif(exif.tobytes().removeprefix(b"Exif\0\0"))[2] == 3
    assert _containers.read_exif(b"MM\0*" + struct.pack(">I", 9999)) == ("", "", 1)
