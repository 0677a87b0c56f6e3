"""Images known by their bytes, purely: format, width and height, whether the end is there. Nothing is decoded.

Everything is read through ``read(offset, length)``, so that a file of any size is known by its headers alone.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "CONTENT_TYPES",
    "HEAD",
    "SUFFIXES",
    "TAIL",
    "ImageFormat",
    "ImageInfo",
    "Reader",
    "is_whole",
    "measure",
    "sniff",
]

ImageFormat: TypeAlias = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff"]
Reader: TypeAlias = "Callable[[int, int], bytes]"

HEAD = 32
"""So many first bytes are enough for ``sniff``."""
TAIL = 4096
"""So many last bytes ``is_whole`` looks at: room for the little that some encoders put behind an image."""

CONTENT_TYPES: dict[ImageFormat, str] = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tiff": "image/tiff",
}
SUFFIXES: dict[ImageFormat, str] = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "gif": "gif",
    "bmp": "bmp",
    "tiff": "tif",
}

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END = b"\xff\xd9"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the start-of-frame markers (ITU T.81, table B.1)
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_MAX_SEGMENTS = 2000
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257


class ImageInfo(NamedTuple):
    """What an image's headers say; ``width`` and ``height`` in pixels."""

    format: ImageFormat
    width: int
    height: int


def sniff(head: bytes) -> ImageFormat | None:  # noqa: PLR0911 - one a format
    """The format that the first ``HEAD`` bytes show; None for all but the six that the API takes."""
    if head.startswith(_PNG):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith((b"II*\0", b"MM\0*")):
        return "tiff"
    # "BM" alone begins many a text: the size of the second header must be one of those that exist.
    if head.startswith(b"BM") and head[14:18] in _BMP_HEADERS:
        return "bmp"
    return None


_BMP_HEADERS = frozenset(struct.pack("<I", size) for size in (12, 16, 40, 52, 56, 64, 108, 124))


def measure(read: Reader) -> ImageInfo | None:
    """Format, width and height by the headers; None for what is no image, or one whose headers are broken."""
    head = read(0, HEAD)
    kind = sniff(head)
    if kind is None:
        return None
    try:
        width, height = _sizes(kind, head, read)
    except (struct.error, IndexError):
        return None
    return ImageInfo(kind, width, height) if width > 0 and height > 0 else None


def is_whole(head: bytes, tail: bytes, size: int) -> bool:
    """Whether the end of a JPEG, PNG or WebP is there; of other formats only that they begin.

    ``tail`` is the last ``TAIL`` bytes, or all there are. A transfer can be cut where no header tells: a wrong
    Content-Length, a connection closed early by a proxy.
    """
    match sniff(head):
        case None:
            return False
        case "png":
            return _PNG_END in tail
        case "jpeg":  # inside the compressed data a 0xFF is always followed by 0x00 or a restart marker
            return _JPEG_END in tail
        case "webp":
            return int.from_bytes(head[4:8], "little") + 8 <= size
        case _:
            return True


def _sizes(kind: ImageFormat, head: bytes, read: Reader) -> tuple[int, int]:
    match kind:
        case "png":
            width, height = struct.unpack(">II", head[16:24])
        case "gif":
            width, height = struct.unpack("<HH", head[6:10])
        case "bmp":
            core = head[14] == 12  # noqa: PLR2004 - the header of OS/2, with 16-bit sizes
            width, height = struct.unpack("<HH", head[18:22]) if core else struct.unpack("<ii", head[18:26])
        case "webp":
            return _webp_sizes(head)
        case "jpeg":
            return _jpeg_sizes(read)
        case "tiff":
            return _tiff_sizes(head, read)
    return width, abs(height)


def _webp_sizes(head: bytes) -> tuple[int, int]:
    kind, data = head[12:16], head[20:]
    if kind == b"VP8X":
        return int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1
    if kind == b"VP8L" and data[0] == 0x2F:  # noqa: PLR2004 - its signature
        bits = int.from_bytes(data[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", data[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def jpeg_segments(read: Reader) -> Iterator[tuple[int, int, int]]:
    """Marker, offset and whole length (marker included) of each segment before the compressed data."""
    place = 2
    for _ in range(_MAX_SEGMENTS):
        head = read(place, 4)
        if len(head) < 4 or head[0] != 0xFF:  # noqa: PLR2004 - marker and length; every marker begins with 0xFF
            return
        marker = head[1]
        if marker == 0xFF:  # noqa: PLR2004 - fill bytes may stand before any marker
            place += 1
            continue
        length = 2 if marker in _JPEG_BARE else 2 + struct.unpack(">H", head[2:])[0]
        yield marker, place, length
        if marker in {0xDA, 0xD9}:
            return
        place += length


def _jpeg_sizes(read: Reader) -> tuple[int, int]:
    for marker, place, _ in jpeg_segments(read):
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", read(place + 5, 4))
            return width, height
    return 0, 0


def _tiff_sizes(head: bytes, read: Reader) -> tuple[int, int]:
    order = "<" if head[:2] == b"II" else ">"
    (place,) = struct.unpack(order + "I", head[4:8])
    (count,) = struct.unpack(order + "H", read(place, 2))
    found = {}
    for entry in range(min(count, 512)):
        tag, kind, _, value = struct.unpack(order + "HHI4s", read(place + 2 + 12 * entry, 12))
        if tag in {_TIFF_WIDTH, _TIFF_HEIGHT}:
            short = kind == 3  # noqa: PLR2004 - SHORT; LONG otherwise (TIFF 6.0, section 2)
            (found[tag],) = struct.unpack(order + ("H" if short else "I"), value[: 2 if short else 4])
    return found.get(_TIFF_WIDTH, 0), found.get(_TIFF_HEIGHT, 0)
