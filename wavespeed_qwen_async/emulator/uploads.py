"""Files that clients upload: by ticket and PUT, or in one multipart request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

MAX_IMAGE: Final = 20 * 1024 * 1024
MAX_FILE: Final = 64 * 1024 * 1024
IMAGES: Final = frozenset({"jpeg", "jpg", "png", "webp", "gif", "bmp", "tiff"})
"""The kinds of images that may be uploaded, as in `image/png`."""


@dataclass(slots=True, eq=False)
class Upload:
    """One file, or the ticket for one as long as `data` is None."""

    id: str
    filename: str
    content_type: str
    size: int
    created: float
    ticket: str = ""
    data: bytes | None = None

    @property
    def path(self) -> str:
        """The path on the media host."""
        return f"/uploads/{self.id}/{quote(self.filename, safe='')}"


def is_taken(content_type: str) -> bool:
    """Tell whether such a file may be uploaded: any but an image of a kind that is not listed."""
    kind, _, name = content_type.partition(";")[0].strip().lower().partition("/")
    return kind != "image" or name in IMAGES


def limit_for(content_type: str) -> int:
    """Return the largest size of a file of that type."""
    return MAX_IMAGE if content_type.startswith("image/") else MAX_FILE


class Uploads:
    """All uploads, by their id."""

    def __init__(self, retention: float) -> None:
        self._retention = retention
        self._files: dict[str, Upload] = {}

    def add(self, upload: Upload) -> None:
        """Keep a new upload or ticket."""
        self._files[upload.id] = upload

    def ticket(self, upload_id: str, now: float) -> Upload | None:
        """Return an upload by id, whether its bytes have come or not."""
        found = self._files.get(upload_id)
        return found if found is not None and now - found.created <= self._retention else None

    def get(self, upload_id: str, now: float) -> Upload | None:
        """Return an upload whose bytes are there."""
        found = self.ticket(upload_id, now)
        return found if found is not None and found.data is not None else None
