"""Where images are saved to: names, formats, and whether the disk will take them, looked at before anything is paid."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from wavespeed_qwen_async.errors import InvalidJobError

if TYPE_CHECKING:
    from wavespeed_qwen_async import Job

__all__ = ["ENDINGS", "Target", "check_room", "format_of", "name_of", "slug"]

ENDINGS = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
"""The ending of an image's file, and its format."""
_ROOM = 8 * 2**20
"""Bytes that an image may need: a noisy PNG of 1536 x 1536 pixels."""
_SLUG = 40


def format_of(out: Path | None, asked: str | None) -> str | None:
    """The output format: the one asked for, else the one that the file's ending says.

    Raises:
        InvalidJobError: they contradict each other, or the ending is no image's.
    """
    if out is None or _is_folder(out):
        return asked
    by_name = ENDINGS.get(out.suffix.lower())
    if by_name is None:
        raise InvalidJobError(f"--out {out}: end the file's name in .jpg, .png or .webp, or give a folder")
    if asked is not None and asked != by_name:
        raise InvalidJobError(f"--out {out} says {by_name} and --format {asked}: make them agree")
    return by_name


def name_of(job: Job) -> str:
    """A file name that tells the prompt and the seed, by which the image can be made again."""
    ending = {"png": "png", "webp": "webp"}.get(job.output_format or "", "jpg")
    return f"{slug(job.prompt)}-{'x' if job.seed == -1 else job.seed}.{ending}"


class Target:
    """Names for the images of one command.

    Args:
        out: A file, a folder, or nothing: the current folder.
        count: How many images there will be; several get numbers.
        overwrite: Whether files that exist may be replaced.
    """

    def __init__(self, out: Path | None, *, count: int, overwrite: bool) -> None:
        self._out = out or Path()
        self._in_folder = out is None or _is_folder(out)
        self._count = count
        self._overwrite = overwrite

    def check(self) -> None:
        """See now what would go wrong later.

        Raises:
            InvalidJobError: a file exists, or is none that can be written.
            OSError: the disk won't take an image.
        """
        if self._in_folder:
            check_room(self._out)
            return
        for place in range(self._count):
            path = self.path(place, "")
            if path.exists() and not path.is_file():
                raise InvalidJobError(f"--out {path} is no regular file: give another name")
            if path.exists() and not self._overwrite:
                raise InvalidJobError(f"--out {path} exists: choose another name or pass --overwrite")
        check_room(self._out.parent)

    def path(self, place: int, name: str) -> Path:
        """The file for the image at ``place``, called ``name`` where no file was given."""
        if self._in_folder:
            return self._free(self._out / name)
        if self._count == 1:
            return self._out
        return self._out.with_name(f"{self._out.stem}-{place + 1}{self._out.suffix}")

    def _free(self, path: Path) -> Path:
        stem, number = path.stem, 2
        while path.exists() and not self._overwrite:
            path = path.with_name(f"{stem}-{number}{path.suffix}")
            number += 1
        return path


def check_room(folder: Path, size: int = _ROOM) -> None:
    """Make ``folder``, and see that ``size`` bytes can be written there.

    Raises:
        InvalidJobError: it is a file, or lies in one.
        OSError: they can't: no right, no room, a limit on file sizes.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InvalidJobError(f"--out {folder} is a file, or lies in one: give a folder") from None
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            _reserve(probe.fileno(), size)
    except OSError as error:
        raise OSError(error.errno, f"can't write images there: {error.strerror}", str(folder)) from error


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.write(file, bytes(size))


def slug(prompt: str) -> str:
    """The prompt as part of a file name: letters and digits of any language, joined by hyphens."""
    text = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:_SLUG].rstrip("-")
    return text.encode()[:120].decode(errors="ignore") or "image"


def _is_folder(path: Path) -> bool:
    return path.is_dir() or (not path.suffix and not path.exists())
