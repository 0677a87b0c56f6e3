"""Making a folder's gallery: read what is there, shrink what is new, write the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wavespeed_qwen_async.errors import ConfigurationError

from ._entries import read_entries
from ._page import GENERATOR, payload, render
from ._pictures import Pictures
from ._sources import SourceFinder

if TYPE_CHECKING:
    import os
    import threading
    from collections.abc import Iterable

    from ._entries import Entry
    from ._pictures import Picture

__all__ = ["PAGE", "GalleryReport", "make_gallery"]

PAGE = "index.html"


@dataclass(frozen=True, slots=True)
class GalleryReport:
    """What a gallery shows.

    Attributes:
        path: The page.
        images: How many images are there.
        failed: Jobs without an image: failed, perhaps accepted, or their file is gone.
        unread: Lines of ``results.jsonl`` that could not be read.
    """

    path: Path
    images: int
    failed: int
    unread: int


def make_gallery(
    out: str | os.PathLike[str],
    *,
    title: str | None = None,
    sources: Iterable[str | os.PathLike[str]] = (),
    thumbs: bool = True,
    stop: threading.Event | None = None,
) -> GalleryReport:
    """Write ``index.html`` into a batch's folder: its images, to look at, filter and compare, from disk.

    Blocking; in an event loop use ``await asyncio.to_thread(make_gallery, out)``. Only what changed since the last
    time is worked on.

    Args:
        out: The folder: of a batch, or of images that this library saved.
        title: The page's title; default: the folder's name.
        sources: Where the source images of edits lie, folders or files, for the before/after slider.
        thumbs: Whether to make small copies in ``thumbs/``. Without, the page shows the images themselves, and scrolls
            less smoothly where there are many.
        stop: Set it to give up soon: ``concurrent.futures.CancelledError``, and the page is left as it was.

    Raises:
        ConfigurationError: there is no such folder, it has an ``index.html`` of another hand, or Jinja2 is missing.
        OSError: the disk is full, ...
    """
    folder = Path(out)
    _check(folder)
    entries, unread = read_entries(folder)
    pictures = Pictures(folder, copies=thumbs, stop=stop)
    shown = pictures.look_at(entry.file for entry in entries if entry.file and entry.status == "saved")
    befores = _befores(folder, entries, pictures, [Path(place) for place in sources])
    data = {**payload(entries, shown, befores), "unread": unread}
    _write(folder / PAGE, render(title or folder.resolve().name or "Gallery", data))
    pictures.sweep()
    saved = sum(entry.status == "saved" for entry in entries)
    return GalleryReport(folder / PAGE, saved, len(entries) - saved, unread)


def _befores(folder: Path, entries: list[Entry], pictures: Pictures, places: list[Path]) -> dict[int, Picture]:
    finder = SourceFinder(folder, entries, places)
    known: dict[Path, Picture | None] = {}
    found = {}
    for place, entry in enumerate(entries):
        path = finder.find(entry)
        if path is None:
            continue
        if path not in known:
            known[path] = pictures.keep_source(path)
        picture = known[path]
        if picture is not None:
            found[place] = picture
    return found


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder")
    page = folder / PAGE
    if page.exists():
        with page.open("rb") as file:
            ours = GENERATOR.encode() in file.read(2000)
        if not ours:
            raise ConfigurationError(f"{page} is not a gallery of ours: move it away, it is not overwritten")


def _write(path: Path, text: str) -> None:
    """Whole or not at all: whoever has the page open finds the old one or the new."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    part.replace(path)
