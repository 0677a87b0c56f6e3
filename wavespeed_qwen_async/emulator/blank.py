"""Valid images of one colour, made by hand: no Pillow, a few bytes, any size. For speed, where looks do not matter."""

from __future__ import annotations

import json
import struct
import zlib
from functools import lru_cache


@lru_cache(maxsize=256)
def blank_image(width: int, height: int, output_format: str) -> bytes:
    """Return a plain image as `jpeg`, `png` or `webp`."""
    if output_format == "png":
        return _png(width, height)
    if output_format == "webp":
        return _webp(width, height)
    return _jpeg(width, height)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits of grey
    rows = (b"\0" + b"\x80" * width) * height
    parts = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _jpeg(width: int, height: int) -> bytes:
    # Baseline grey JPEG whose two Huffman tables know one symbol each, of one bit: every block of 8x8 pixels is
    # "no difference" and "end of block", so two zero bits.
    blocks = -(-width // 8) * -(-height // 8)
    bits = blocks * 2
    scan = bytes(bits // 8) + (bytes([0xFF >> (bits % 8)]) if bits % 8 else b"")
    one_code = bytes([1] + [0] * 15) + b"\0"
    return b"".join(
        [
            b"\xff\xd8",
            _segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
            _segment(0xDB, b"\0" + b"\x08" * 64),
            _segment(0xC0, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0"),
            _segment(0xC4, b"\0" + one_code),
            _segment(0xC4, b"\x10" + one_code),
            _segment(0xDA, b"\x01\x01\0\0\x3f\0"),
            scan,
            b"\xff\xd9",
        ]
    )


def _webp(width: int, height: int) -> bytes:
    # Lossless WebP with five prefix codes of one symbol each: its pixels then take no bits at all.
    bits, position = 0, 0
    fields = [(width - 1, 14), (height - 1, 14), (0, 1), (0, 3), (0, 1), (0, 1), (0, 1)]
    for symbol in (0x80, 0x80, 0x80, 0xFF, 0):  # green, red, blue, alpha, distance
        fields += [(1, 1), (0, 1), (1, 1), (symbol, 8)]
    for value, count in fields:
        bits |= value << position
        position += count
    stream = b"\x2f" + bits.to_bytes((position + 7) // 8, "little")
    padded = stream + b"\0" * (len(stream) % 2)
    body = b"WEBPVP8L" + struct.pack("<I", len(stream)) + padded
    return b"RIFF" + struct.pack("<I", len(body)) + body


def safetensors(metadata: dict[str, str]) -> bytes:
    """Return a tiny valid `.safetensors` file, the output of a training task."""
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    head = json.dumps({"__metadata__": metadata, "lora.weight": tensor}).encode()
    return struct.pack("<Q", len(head)) + head + b"\0\0\0\0"
