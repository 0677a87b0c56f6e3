"""Small copies of images for the gallery: made once, kept in ``thumbs/``, made again when an image has changed."""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from wavespeed_qwen_async._media.images import measure

from ._entries import THUMBS

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable
    from pathlib import Path

    from PIL import Image

__all__ = ["Picture", "Pictures"]

SIDE = 480
"""Pixels of a thumbnail's longer side: two for each pixel of a row of 220, and a bit."""
SIDE_OF_SOURCE = 1536
"""... of the copy of a source image: the largest that a model gives."""

_OURS = re.compile(r"[0-9a-f]{20}-\d+\.jpg(\.part)?")
_WORKERS = 4


class Picture(NamedTuple):
    """An image and its size in pixels, 0 where that is not known; paths are relative to the folder."""

    file: str
    thumb: str | None
    width: int
    height: int


class Pictures:
    """Makes small copies within one folder. Blocking.

    Args:
        out: The folder.
        copies: Whether to make any: without Pillow, or where disk matters more, the page shows the images themselves.
        stop: Once set, nothing more is looked at: ``concurrent.futures.CancelledError``.
    """

    def __init__(self, out: Path, *, copies: bool = True, stop: threading.Event | None = None) -> None:
        self._out = out
        self._stop = stop
        self._copies = copies and _has_pillow()
        self._used: set[str] = set()
        if self._copies:
            (out / THUMBS).mkdir(exist_ok=True)

    def look_at(self, files: Iterable[str]) -> dict[str, Picture]:
        """Sizes and thumbnails of images in the folder."""
        names = list(dict.fromkeys(files))
        with ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1)) as workers:
            return dict(zip(names, workers.map(self._look, names), strict=True))

    def keep_source(self, path: Path) -> Picture | None:
        """A copy of an image elsewhere, so that the folder can be moved or given away; None where it can't be read."""
        self._go_on()
        with suppress(OSError):
            path, out = path.resolve(), self._out.resolve()
            if path.is_relative_to(out):
                return self._look(path.relative_to(out).as_posix())
            copy = self._copy_of(path, SIDE_OF_SOURCE, str(path))
            if copy is not None:
                width, height = _size(self._out / copy)
                return Picture(copy, copy, width, height)
        return None

    def sweep(self) -> None:
        """Remove the copies that nothing asked for any more."""
        if not self._copies:
            return
        for path in (self._out / THUMBS).iterdir():
            if _OURS.fullmatch(path.name) and path.name not in self._used:
                path.unlink(missing_ok=True)

    def _look(self, file: str) -> Picture:
        self._go_on()
        path = self._out / file
        try:
            return Picture(file, self._copy_of(path, SIDE, file), *_size(path))
        except OSError:
            return Picture(file, None, 0, 0)

    def _go_on(self) -> None:
        if self._stop is not None and self._stop.is_set():
            raise CancelledError

    def _copy_of(self, path: Path, side: int, known_as: str) -> str | None:
        """The copy's name tells the image's path, size and time of change: another image, another name."""
        if not self._copies:
            return None
        status = path.stat()
        key = f"{known_as}\0{status.st_size}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape")
        name = f"{hashlib.blake2b(key, digest_size=10).hexdigest()}-{side}.jpg"
        copy = self._out / THUMBS / name
        if not copy.exists() and not _shrink(path, copy, side):
            return None
        self._used.add(name)
        return f"{THUMBS}/{name}"


def _has_pillow() -> bool:
    try:
        import PIL  # noqa: F401, PLC0415 - an extra of the package, so it may be missing
    except ImportError:
        return False
    return True


def _size(path: Path) -> tuple[int, int]:
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        info = measure(read)
    return (info.width, info.height) if info else (0, 0)


def _shrink(path: Path, copy: Path, side: int) -> bool:
    """JPEG: a third of the time that WebP takes, for a few KB more. False for what is no image."""
    from PIL import Image, ImageOps  # noqa: PLC0415 - optional, and heavy

    part = copy.with_name(copy.name + ".part")
    try:
        with Image.open(path) as image:
            image.draft("RGB", (side, side))  # a JPEG is decoded at the nearest size above
            small = ImageOps.exif_transpose(image)
            small.thumbnail((side, side), Image.Resampling.BICUBIC)
            _on_white(small).save(part, "JPEG", quality=82)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        part.unlink(missing_ok=True)
        return False
    part.replace(copy)
    return True


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image  # noqa: PLC0415 - see above

    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    return ground.convert("RGB")
