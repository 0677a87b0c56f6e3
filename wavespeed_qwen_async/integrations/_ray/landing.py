"""Where a worker puts images: a folder that all workers share, or any place that fsspec reaches."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async.errors import ConfigurationError, DownloadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wavespeed_qwen_async.media import Media

    from .orders import SaveOrder

__all__ = ["Landing", "is_remote", "opened"]


def is_remote(place: str) -> bool:
    """Whether it is a URL of fsspec's (``s3://bucket/images``) and no path."""
    return "://" in place and not place.startswith(("file://", "local://"))


def opened(place: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. Blocking.

    Raises:
        ConfigurationError: what it needs is not installed, or there is no such thing.
    """
    try:
        import fsspec  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise ConfigurationError(f"{place}: needs fsspec: pip install 'wavespeed-qwen-async[ray]'") from None
    try:
        filesystem, path = fsspec.core.url_to_fs(place, **options)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"{place}: {error}") from error
    return filesystem, path


class Landing:
    """Saves outputs under a folder or URL."""

    def __init__(self, place: str, options: Mapping[str, Any]) -> None:
        self._place = place
        self._options = options
        self._remote: tuple[Any, str] | None = None

    async def save(self, media: Media, order: SaveOrder) -> None:
        """Put an output in its place, whole or not at all.

        Raises:
            DownloadError: it could not be fetched or written.
        """
        if not is_remote(self._place):
            folder = Path(self._place.removeprefix("file://").removeprefix("local://"))
            await media.save(order.output, folder / order.name, provenance=order.provenance)
            return
        part = Path(tempfile.gettempdir()) / f"wavespeed-ray-{uuid.uuid4().hex}{Path(order.name).suffix}"
        loop = asyncio.get_running_loop()
        try:
            await media.save(order.output, part, provenance=order.provenance)
            await loop.run_in_executor(None, self._put, part, order)
        finally:
            with contextlib.suppress(FileNotFoundError):
                await loop.run_in_executor(None, part.unlink)

    def _put(self, part: Path, order: SaveOrder) -> None:
        if self._remote is None:
            self._remote = opened(self._place, self._options)
        filesystem, root = self._remote
        target = f"{root.rstrip('/')}/{order.name}"
        try:
            filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
            filesystem.put_file(str(part), target)
        except Exception as error:
            raise DownloadError(
                f"can't write {self._place.rstrip('/')}/{order.name} ({type(error).__name__}: {error}); the image is "
                "paid and kept for 7 days: run again when it can be written",
                prediction_id=order.output.prediction_id or None,
            ) from error
