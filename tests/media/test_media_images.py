from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from media_server import picture
from PIL import Image

from wavespeed_qwen_async._media.images import HEAD, TAIL, is_whole, measure, sniff


def measured(data: bytes) -> tuple[str, int, int] | None:
    return measure(lambda offset, length: data[offset : offset + length])


def shaped(kind: str, mode: str = "RGB", size: tuple[int, int] = (301, 157), **options: Any) -> bytes:
    target = io.BytesIO()
    Image.new(mode, size, 1).save(target, kind, **options)
    return target.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("png", "RGB", {}),
        ("png", "P", {}),
        ("jpeg", "RGB", {}),
        ("jpeg", "CMYK", {"progressive": True}),
        ("jpeg", "L", {"exif": b"Exif\0\0" + b"x" * 60_000, "icc_profile": b"y" * 100_000}),
        ("webp", "RGB", {}),
        ("webp", "RGB", {"lossless": True}),
        ("webp", "RGBA", {}),
        ("gif", "P", {}),
        ("bmp", "RGB", {}),
        ("tiff", "RGB", {}),
        ("tiff", "I;16B", {}),
        ("tiff", "RGB", {"compression": "tiff_lzw"}),
    ],
)
def test_format_and_size_by_the_bytes(kind: str, mode: str, options: dict[str, Any]) -> None:
    data = shaped(kind, mode, **options)
    assert measured(data) == (kind, 301, 157)
    assert is_whole(data[:HEAD], data[-TAIL:], len(data))


def test_an_animated_webp() -> None:
    frames = [Image.new("RGB", (301, 157), color) for color in ("red", "blue")]
    target = io.BytesIO()
    frames[0].save(target, "webp", save_all=True, append_images=frames[1:])
    assert measured(target.getvalue()) == ("webp", 301, 157)


def test_a_bitmap_upside_down_and_one_of_os2() -> None:
    data = bytearray(shaped("bmp"))
    data[22:26] = struct.pack("<i", -157)
    assert measured(bytes(data)) == ("bmp", 301, 157)
    assert measured(b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 301, 157, 1, 24) + bytes(20)) == ("bmp", 301, 157)


def test_fill_bytes_before_a_jpeg_marker() -> None:
    data = shaped("jpeg")
    assert measured(data[:2] + b"\xff\xff" + data[2:]) == ("jpeg", 301, 157)


@pytest.mark.parametrize(
    "data",
    [b"", b"BM", b"BMW", b"<html>", b"RIFF1234WAVE", b"GIF90a", b"\x89PNG", b"II*\0", b"\xff\xd8\xff", b"PK\3\4"],
)
def test_what_is_no_image(data: bytes) -> None:
    assert measured(data) is None


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_every_cut_is_seen(kind: str) -> None:
    data = picture(size=(200, 150), kind=kind)
    for size in range(len(data) - 1):
        assert not is_whole(data[:HEAD][:size], data[:size][-TAIL:], size)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
def test_damaged_headers_never_raise(kind: str) -> None:
    data = shaped(kind)
    for place in range(min(len(data), 200)):
        for value in (0, 0xFF, data[place] ^ 1):
            broken = data[:place] + bytes([value]) + data[place + 1 :]
            measured(broken)
            measured(data[:place])
            sniff(broken[:HEAD])
