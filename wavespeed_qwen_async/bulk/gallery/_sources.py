"""The image that an edit began with, as far as it is on this disk: the page asks no network for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wavespeed_qwen_async._inputs import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ._entries import Entry

__all__ = ["SourceFinder"]

_WORD = re.compile(r"[0-9A-Za-z_-]{8,}")


class SourceFinder:
    """Finds source images. Blocking.

    Args:
        out: The batch's folder.
        entries: Its entries: one may be the source of another.
        places: Folders where source images lie, and images themselves, for sources told by a bare name. Of two
            images with the same name none is taken: the wrong one would be worse than none.
    """

    def __init__(self, out: Path, entries: Iterable[Entry], places: Sequence[Path] = ()) -> None:
        self._folders = [out, *(place for place in places if place.is_dir())]
        self._files: dict[str, Path | None] = {}
        for place in dict.fromkeys(place.absolute() for place in places if place.is_file()):
            self._files[place.name] = None if place.name in self._files else place
        self._made = {entry.prediction_id: out / entry.file for entry in entries if entry.prediction_id and entry.file}

    def find(self, entry: Entry) -> Path | None:
        """The first source image of an edit; None where it is not here."""
        for source in entry.sources[:1]:
            return self._of_url(source) if is_url(source) else self._of_path(source)
        return None

    def _of_url(self, url: str) -> Path | None:
        """An edit of an image of the same folder: its URL holds the id of the prediction that made it."""
        return next((self._made[word] for word in _WORD.findall(url) if word in self._made), None)

    def _of_path(self, text: str) -> Path | None:
        if "\0" in text:
            return None
        if text in self._files:
            return self._files[text]
        found = (folder / text for folder in self._folders)  # an absolute path stays what it is
        return next((path for path in found if path.is_file()), None)
