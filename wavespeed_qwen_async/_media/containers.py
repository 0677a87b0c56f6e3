"""Text into PNG, JPEG and WebP files, and out again, purely: by chunks and segments, so that no pixel's byte changes.

What is to change is a list of splices, found by reading headers alone; applying them is a copy with insertions.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from .images import jpeg_segments, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .images import Reader

__all__ = [
    "EXIF_LIMIT",
    "Splice",
    "exif_of",
    "jpeg_splices",
    "make_exif",
    "pieces",
    "png_splices",
    "png_texts",
    "read_exif",
    "webp_splices",
]

EXIF_LIMIT = 65_527
"""Bytes that an EXIF block may have in a JPEG: a segment's length is 16 bits, and counts itself and ``Exif\\0\\0``."""

_EXIF = b"Exif\0\0"
_IMAGE_DESCRIPTION, _ORIENTATION, _SOFTWARE = 0x010E, 0x0112, 0x0131
_EXIF_POINTER, _EXIF_VERSION, _MAKER_NOTE, _USER_COMMENT = 0x8769, 0x9000, 0x927C, 0x9286
_ASCII, _SHORT, _LONG, _UNDEFINED = 2, 3, 4, 7
_SIZES = {_ASCII: 1, _SHORT: 2, _LONG: 4, _UNDEFINED: 1}
_UNICODE = b"UNICODE\0"
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_MAX_CHUNKS = 100_000
_VP8X_EXIF, _VP8X_ALPHA = 0x08, 0x10


class Splice(NamedTuple):
    """At ``offset``, leave out ``remove`` bytes and put in ``insert``."""

    offset: int
    remove: int
    insert: bytes


def pieces(read: Reader, size: int, splices: Iterable[Splice], chunk: int) -> Iterator[bytes]:
    """The file with its splices made, in pieces of at most ``chunk`` bytes of the old file."""
    place = 0
    for splice in sorted(splices):
        yield from _span(read, place, splice.offset, chunk)
        if splice.insert:
            yield splice.insert
        place = splice.offset + splice.remove
    yield from _span(read, place, size, chunk)


def _span(read: Reader, start: int, end: int, chunk: int) -> Iterator[bytes]:
    while start < end and (piece := read(start, min(chunk, end - start))):
        yield piece
        start += len(piece)


# PNG (W3C PNG specification, 11.3.3): text chunks, before the image data, where readers find them without decoding


def png_splices(read: Reader, texts: Mapping[str, str]) -> list[Splice]:
    """Text chunks right behind the header; older ones of the same keywords go."""
    found = [Splice(33, 0, b"".join(_text_chunk(keyword, text) for keyword, text in texts.items()))]
    for kind, place, length in _png_chunks(read):
        if kind in _TEXT_CHUNKS and _keyword(read(place + 8, 80)) in texts:
            found.append(Splice(place, length + 12, b""))
    return found


def png_texts(read: Reader) -> dict[str, str]:
    """The uncompressed texts before the image data."""
    texts = {}
    for kind, place, length in _png_chunks(read):
        if kind not in _TEXT_CHUNKS - {b"zTXt"}:
            continue
        keyword, _, rest = read(place + 8, length).partition(b"\0")
        if kind == b"tEXt":
            texts[keyword.decode("latin-1")] = rest.decode("latin-1")
        elif rest[:1] == b"\0":  # an iTXt that is not compressed
            text = rest[2:].split(b"\0", 2)[-1]
            texts[keyword.decode("latin-1")] = text.decode("utf-8", "replace")
    return texts


def _png_chunks(read: Reader) -> Iterator[tuple[bytes, int, int]]:
    """Type, offset and length of the data of each chunk before the image data."""
    place = 8
    for _ in range(_MAX_CHUNKS):
        head = read(place, 8)
        if len(head) < 8 or head[4:] in {b"IDAT", b"IEND"}:  # noqa: PLR2004 - length and type
            return
        length = int.from_bytes(head[:4], "big")
        yield head[4:], place, length
        place += length + 12


def _keyword(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("latin-1")


def _text_chunk(keyword: str, text: str) -> bytes:
    try:
        kind, data = b"tEXt", keyword.encode() + b"\0" + text.encode("latin-1")
    except UnicodeEncodeError:
        kind, data = b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text.encode("utf-8", "replace")
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# EXIF (CIPA DC-008): a small TIFF, big-endian as piexif writes it, whose readers in this field expect UTF-16 likewise


def make_exif(comment: str, *, software: str, note: str = "", orientation: int = 1) -> bytes:
    """A TIFF with the comment as UserComment, ``software``, and ASCII for machines as ``note`` (MakerNote)."""
    inner = {
        _EXIF_VERSION: (_UNDEFINED, b"0232"),
        _USER_COMMENT: (_UNDEFINED, _UNICODE + comment.encode("utf-16-be", "replace")),
    }
    if note:
        inner[_MAKER_NOTE] = (_UNDEFINED, note.encode("ascii"))
    outer = {_SOFTWARE: (_ASCII, software.encode("ascii") + b"\0"), _EXIF_POINTER: (_LONG, bytes(4))}
    if orientation != 1:
        outer[_ORIENTATION] = (_SHORT, struct.pack(">H", orientation))
    first = _directory(outer, 8)
    outer[_EXIF_POINTER] = (_LONG, struct.pack(">I", 8 + len(first)))
    return b"MM\0*\0\0\0\x08" + _directory(outer, 8) + _directory(inner, 8 + len(first))


def _directory(entries: Mapping[int, tuple[int, bytes]], place: int) -> bytes:
    """One IFD at ``place``, its longer values behind it."""
    values_at = place + 2 + 12 * len(entries) + 4
    table, values = struct.pack(">H", len(entries)), b""
    for tag, (kind, data) in sorted(entries.items()):
        count = len(data) // _SIZES[kind]
        if len(data) <= 4:  # noqa: PLR2004 - then it stands in its place
            field = data.ljust(4, b"\0")
        else:
            field = struct.pack(">I", values_at + len(values))
            values += data + b"\0" * (len(data) % 2)
        table += struct.pack(">HHI", tag, kind, count) + field
    return table + bytes(4) + values


def read_exif(exif: bytes) -> tuple[str, str, int]:
    """UserComment, MakerNote and orientation; empty and 1 where they are absent or can't be read."""
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        outer = _entries(exif, order, struct.unpack(order + "I", exif[4:8])[0])
        pointer = outer.get(_EXIF_POINTER)
        inner = _entries(exif, order, struct.unpack(order + "I", pointer)[0]) if pointer else {}
        orientation = struct.unpack(order + "H", outer.get(_ORIENTATION, struct.pack(order + "H", 1))[:2])[0]
    except (KeyError, struct.error):
        return "", "", 1
    comment, note = inner.get(_USER_COMMENT, b""), inner.get(_MAKER_NOTE, b"")
    text = comment[8:].decode("utf-16-be" if order == ">" else "utf-16-le", "replace")
    return (
        text if comment.startswith(_UNICODE) else "",
        note.decode() if note.isascii() else "",
        orientation if orientation in range(1, 9) else 1,
    )


def _entries(exif: bytes, order: str, place: int) -> dict[int, bytes]:
    (count,) = struct.unpack(order + "H", exif[place : place + 2])
    found = {}
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack(order + "HHI", exif[entry : entry + 8])
        size = length * {3: 2, 4: 4}.get(kind, 1)
        start = entry + 8 if size <= 4 else struct.unpack(order + "I", exif[entry + 8 : entry + 12])[0]  # noqa: PLR2004
        found[tag] = exif[start : start + size]
    return found


def exif_of(read: Reader, size: int) -> bytes:
    """The EXIF block of a JPEG or WebP; empty where there is none."""
    if read(0, 2) == b"\xff\xd8":
        return _jpeg_exif(read, _exif_segments(read, jpeg_segments(read)))
    return _webp_exif(read, _riff_chunks(read, size))


# JPEG (ITU T.81, B.1.1.4; Exif 4.5.4): APP1 at the beginning, behind a JFIF header where there is one


def jpeg_splices(read: Reader, renewed: Callable[[bytes], bytes]) -> list[Splice]:
    """An APP1 segment with what ``renewed`` makes of the EXIF block that was there, which goes.

    ``renewed`` is given no bytes where there was none, and gives at most ``EXIF_LIMIT``.
    """
    segments = list(jpeg_segments(read))
    old = _exif_segments(read, segments)
    body = _EXIF + renewed(_jpeg_exif(read, old))
    marker, start, length = segments[0] if segments else (0, 2, 0)
    place = start + length if marker == 0xE0 and start == 2 else 2  # noqa: PLR2004 - APP0, at the beginning
    added = Splice(place, 0, b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body)
    return [added, *(Splice(start, length, b"") for start, length in old)]


def _exif_segments(read: Reader, segments: Iterable[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Offset and whole length of those that hold EXIF."""
    return [
        (place, length)
        for marker, place, length in segments
        if marker == 0xE1 and read(place + 4, 6) == _EXIF  # noqa: PLR2004 - APP1
    ]


def _jpeg_exif(read: Reader, segments: Sequence[tuple[int, int]]) -> bytes:
    return read(segments[0][0] + 10, segments[0][1] - 10).removeprefix(_EXIF) if segments else b""


# WebP (RFC 9649, 2.7): a VP8X header that says so, and the EXIF chunk behind the image data


def webp_splices(read: Reader, size: int, renewed: Callable[[bytes], bytes]) -> list[Splice]:
    """An EXIF chunk, as ``jpeg_splices`` has it; a simple file becomes an extended one."""
    chunks = list(_riff_chunks(read, size))
    exif = renewed(_webp_exif(read, chunks))
    old = [Splice(place, 8 + length + length % 2, b"") for kind, place, length in chunks if kind == b"EXIF"]
    end = 8 + int.from_bytes(read(4, 4), "little")
    # The metadata goes behind the image data, and in front of XMP.
    place = next((place for kind, place, _ in chunks if kind == b"XMP "), end)
    added = [Splice(place, 0, b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2))]
    flags = read(20, 1)
    if chunks and chunks[0][0] == b"VP8X":
        changed = [Splice(20, 1, bytes([flags[0] | _VP8X_EXIF]))]
    else:
        changed, added = [], [Splice(12, 0, _vp8x(read)), *added]
    whole = end - 8 + sum(len(splice.insert) - splice.remove for splice in added + old)
    return [Splice(4, 4, struct.pack("<I", whole)), *changed, *added, *old]


def _webp_exif(read: Reader, chunks: Iterable[tuple[bytes, int, int]]) -> bytes:
    found = next((read(place + 8, length) for kind, place, length in chunks if kind == b"EXIF"), b"")
    return found.removeprefix(_EXIF)


def _vp8x(read: Reader) -> bytes:
    info = measure(read)
    width, height = (info.width, info.height) if info else (1, 1)
    alpha = read(12, 4) == b"VP8L" and read(24, 1)[0] & 0x10  # the bit before the version, in the fifth byte
    flags = _VP8X_EXIF | (_VP8X_ALPHA if alpha else 0)
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X" + struct.pack("<II", 10, flags) + sizes


def _riff_chunks(read: Reader, size: int) -> Iterator[tuple[bytes, int, int]]:
    place, end = 12, min(size, 8 + int.from_bytes(read(4, 4), "little"))
    for _ in range(_MAX_CHUNKS):
        head = read(place, 8)
        if place >= end or len(head) < 8:  # noqa: PLR2004 - type and length
            return
        length = int.from_bytes(head[4:], "little")
        yield head[:4], place, length
        place += 8 + length + length % 2
