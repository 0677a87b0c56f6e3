"""Pictures in, pictures out: sources uploaded once per content, outputs verified and put under their name whole."""

from __future__ import annotations

import asyncio
import errno
import io
import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from ._inputs import is_url
from ._media.containers import pieces
from ._media.download import MAX_OUTPUT_BYTES, Downloader, MemoryLanding
from ._media.files import CHUNK, MAX_PIECES, PartFile, Workers, sweep, sync_folder, write_whole
from ._media.flights import Flights
from ._media.reach import check_reachable
from ._media.sources import Sources
from ._media.upload import MemoryUploads, Uploader, UploadStore
from .errors import ConfigurationError, ContentFlaggedError, DownloadError, InvalidJobError, WaveSpeedError
from .provenance import Provenance, splices

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from ._api import Api
    from ._inputs import ImageSource
    from ._tasks import Tasks
    from .predictions import Output

__all__ = ["Media", "UploadStore"]

_THREADS = 16  # most of them wait for the disk; measured by benchmarks/media.py
_REACHABLE_KEPT = 10_000
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})


class Media:
    """Uploads and downloads of one session.

    Args:
        api: Asks the API; its limits give the places for uploads and downloads.
        tasks: Owns the uploads, which outlive a caller that is cancelled while others wait for the same one.
        nsfw: What happens to outputs flagged as NSFW: ``"keep"`` them as any other; ``"skip"``: not downloaded,
            ``skips`` tells, and saving one raises ContentFlaggedError; ``"fail"``: the same, and ``check`` raises.
        check_urls: Look whether a source URL leads to an image before a job is paid.
        fit: Longest side in pixels that larger local sources are scaled down to; needs ``[images]``.
        autorotate: Turn the pixels of local sources as their EXIF orientation says; needs ``[images]``.
        store: Remembers uploads beyond this session, for their 7 days. In memory by default.
        embed: Write what ``save`` is told about an image's making into the image.
        max_bytes: An output larger than this is refused.

    Raises:
        ConfigurationError: an option is out of range, or needs Pillow and there is none.
    """

    def __init__(
        self,
        api: Api,
        tasks: Tasks,
        *,
        nsfw: Literal["keep", "skip", "fail"] = "keep",
        check_urls: bool = False,
        fit: int | None = None,
        autorotate: bool = False,
        store: UploadStore | None = None,
        embed: bool = True,
        max_bytes: int = MAX_OUTPUT_BYTES,
    ) -> None:
        if nsfw not in {"keep", "skip", "fail"}:
            raise ConfigurationError(f"nsfw = {nsfw!r}: 'keep', 'skip' or 'fail'")
        self._api = api
        self._nsfw = nsfw
        self._check_urls = check_urls
        self._embed = embed
        self._workers = Workers(_THREADS)
        self._sources = Sources(fit=fit, autorotate=autorotate)
        self._uploader = Uploader(api, tasks, self._workers, store or MemoryUploads())
        self._downloader = Downloader(api, max_bytes=max_bytes)
        self._looks: Flights[None] = Flights(tasks, "check of a source URL")
        self._reachable: OrderedDict[str, None] = OrderedDict()
        self._swept: set[str] = set()

    @property
    def store(self) -> UploadStore:
        """Where uploads are remembered; a durable run puts its journal here."""
        return self._uploader.store

    @store.setter
    def store(self, store: UploadStore) -> None:
        self._uploader.store = store

    async def url_for(self, source: ImageSource) -> str:
        """The URL that a job's source image becomes: itself, or that of its upload.

        Raises:
            InvalidJobError: ``field="image"``; the source is missing, unreadable, no image or too large, or with
                ``check_urls`` its URL leads to no image. Nothing was sent.
            UploadError: it did not reach the API. Nothing was submitted.
        """
        if isinstance(source, str) and is_url(source):
            if self._check_urls:
                await self._check_url(source)
            return source
        return await self.upload(source)

    async def upload(self, source: ImageSource | BinaryIO) -> str:
        """Upload a path, bytes, a binary file object or a PIL image; the same content only once in 7 days.

        Raises:
            InvalidJobError: as for ``url_for``.
            UploadError: it did not reach the API.
        """
        if isinstance(source, str) and is_url(source):
            raise InvalidJobError("image: a URL needs no upload: give it to the job as it is", field="image")
        return await self._uploader.url_of(await self._workers.run(self._sources.read, source))

    async def upload_folder(self, folder: str | os.PathLike[str]) -> dict[Path, str]:
        """Upload the images right inside a folder, hidden files left out; gives the URL of each, in order of names.

        Raises:
            InvalidJobError: the folder can't be read, or one of its files is no image that the API takes.
            UploadError: one did not reach the API; the others stay uploaded.
        """
        paths = await self._workers.run(_files_in, Path(folder))
        try:
            async with asyncio.TaskGroup() as group:
                uploads = {path: group.create_task(self.upload(path)) for path in paths}
        except* WaveSpeedError as failures:
            raise failures.exceptions[0] from None
        return {path: upload.result() for path, upload in uploads.items()}

    async def save(
        self,
        output: Output,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        provenance: Provenance | None = None,
        sync_folder: bool = True,
    ) -> Path:
        """Put an output under ``path``: whole, verified and on the disk, or not at all. Folders are made as needed.

        Args:
            output: What to save, from a URL or from base64.
            path: Its name; nothing of it is taken from the server.
            overwrite: Whether a file that is there may be replaced.
            provenance: How the image came to be, to be written into it; its pixels stay as they are, byte for byte.
            sync_folder: Bring its folder's entry to the disk as well. Without, the caller does that, for many at once,
                before it relies on the file being there after a power cut.

        Raises:
            DownloadError: it could not be fetched or written; it is still paid and kept for 7 days.
            ContentFlaggedError: it is flagged, and ``nsfw`` says that such are not downloaded.
        """
        self._admit(output)
        path = path if isinstance(path, Path) else Path(path)
        landing = _FileLanding(self._workers, path, output, overwrite=overwrite)
        try:
            if not landing.prepared(self._swept):
                await self._workers.run(landing.prepare, self._swept)
            await self._downloader.fetch(output, landing, await self._inline(output))
            # A large one would keep those that go along waiting, and disks take large ones best side by side.
            run = self._workers.run if landing.begun else self._workers.run_along
            await run(landing.finish, provenance if self._embed else None, sync_folder)
        finally:
            await landing.discard()
        return path

    async def read(self, output: Output) -> bytes:
        """An output's bytes, verified, as the server made them.

        Raises:
            DownloadError: as for ``save``.
            ContentFlaggedError: as for ``save``.
        """
        self._admit(output)
        landing = MemoryLanding()
        await self._downloader.fetch(output, landing, await self._inline(output))
        return bytes(landing.data)

    async def open(self, output: Output) -> PILImage:
        """An output as a PIL image, decoded.

        Raises:
            ConfigurationError: Pillow is not installed.
            DownloadError: as for ``save``, or the image is damaged.
            ContentFlaggedError: as for ``save``.
        """
        return await self._workers.run(_decode, await self.read(output), output)

    def skips(self, output: Output) -> bool:
        """Whether the output is not to be downloaded, by the ``nsfw`` policy."""
        return bool(output.nsfw) and self._nsfw != "keep"

    def check(self, output: Output) -> None:
        """Raise ContentFlaggedError for a flagged output where ``nsfw="fail"``."""
        if self._nsfw == "fail":
            self._admit(output)

    async def close(self) -> None:
        """End the uploads under way and let the threads go."""
        await self._uploader.close()
        await self._looks.close()
        self._workers.close()

    def _admit(self, output: Output) -> None:
        if self.skips(output):
            raise ContentFlaggedError(
                f"output {output.index} of prediction {output.prediction_id} is flagged NSFW, and nsfw={self._nsfw!r}",
                prediction_id=output.prediction_id or None,
            )

    async def _inline(self, output: Output) -> bytes | None:
        return None if output.base64 is None else await self._workers.run(output.decoded)

    async def _check_url(self, url: str) -> None:
        if url not in self._reachable:
            await self._looks.join(url, lambda: self._look(url))

    async def _look(self, url: str) -> None:
        async with self._api.limits.uploads:
            await check_reachable(self._api, url)
        self._reachable[url] = None
        if len(self._reachable) > _REACHABLE_KEPT:
            self._reachable.popitem(last=False)


class _FileLanding:
    """Bytes into a part file beside their target, through worker threads, a chunk at a time."""

    def __init__(self, workers: Workers, target: Path, output: Output, *, overwrite: bool) -> None:
        self._workers = workers
        self._folder = os.path.dirname(target)  # noqa: PTH120 - a third of the time, and one is made for each image
        self._target = target
        self._output = output
        self._overwrite = overwrite
        self._pieces: list[bytes] = []
        self._held = 0
        self._part: PartFile | None = None

    def prepared(self, swept: set[str]) -> bool:
        """Whether others went before into the same folder, so that a thread need not be asked to look."""
        return self._overwrite and self._folder in swept

    @property
    def begun(self) -> bool:
        """Whether some of it was written already, being too much to hold."""
        return self._part is not None

    def prepare(self, swept: set[str]) -> None:
        """Make the folder and clear it of what killed processes left there; see early what would fail late."""
        try:
            self._target = self._target.absolute()
            if self._target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder: give the file's name")
            if not self._overwrite and self._target.exists():
                raise FileExistsError
            folder = self._target.parent
            _make_folder(folder)
            if self._folder not in swept:
                swept.add(self._folder)
                sweep(folder)
        except OSError as error:
            raise self._failed(error) from error

    async def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held >= CHUNK or len(self._pieces) >= MAX_PIECES:
            await self._workers.run(self._write)

    async def restart(self) -> None:
        self._pieces, self._held = [], 0
        if self._part is not None:
            await self._workers.run(self._part.restart)

    def finish(self, provenance: Provenance | None, synced: bool) -> None:  # noqa: FBT001 - by position, for a thread
        """Write the rest, and bring the whole under its name."""
        try:
            if provenance is not None and self._part is None:  # all of it is still here: then it is written once
                self._splice(provenance)
                provenance = None
            if self._part is not None or not write_whole(self._target, self._pieces, overwrite=self._overwrite):
                self._write()
                part = self._written()
                if provenance is not None:
                    part = self._embedded(part, provenance)
                part.finish(self._target, overwrite=self._overwrite)
            if synced:
                sync_folder(self._target.parent)
        except OSError as error:
            raise self._failed(error) from error

    async def discard(self) -> None:
        """Remove the part file, unless it is finished."""
        if self._part is not None and not self._part.gone:
            await self._workers.run(self._part.discard)

    def _write(self) -> None:
        pieces, self._pieces, self._held = self._pieces, [], 0
        try:
            self._written().write(pieces)
        except OSError as error:
            raise self._failed(error) from error

    def _written(self) -> PartFile:
        if self._part is None:
            try:
                self._part = PartFile(self._target.parent)
            except FileNotFoundError:  # the folder was taken away since another image went there
                _make_folder(self._target.parent)
                self._part = PartFile(self._target.parent)
        return self._part

    def _splice(self, provenance: Provenance) -> None:
        """Change the pieces held in memory, which are the whole image."""
        whole = b"".join(self._pieces)

        def read(offset: int, length: int) -> bytes:
            return whole[offset : offset + length]

        self._pieces = list(pieces(read, len(whole), splices(read, len(whole), provenance), CHUNK))

    def _embedded(self, part: PartFile, provenance: Provenance) -> PartFile:
        """A second part file, the first with its splices made."""
        changes = splices(part.read, part.size, provenance)
        self._part = PartFile(self._target.parent)
        try:
            for piece in pieces(part.read, part.size, changes, CHUNK):
                self._part.write([piece])
        finally:
            part.discard()
        return self._part

    def _failed(self, error: OSError) -> DownloadError:
        """One line that says what to do; never an OSError, which the transport would take for one of the network."""
        paid = "the image is paid and kept for 7 days: save it again"
        if isinstance(error, FileExistsError):
            text = f"{self._target} exists, and overwrite=False; {paid} under another name"
        elif error.errno in _DISK:
            text = f"can't write {self._target}: {error.strerror}; {paid} when there is room"
        else:
            text = f"can't write {self._target}: {error.strerror or type(error).__name__}; {paid} elsewhere"
        return DownloadError(text, prediction_id=self._output.prediction_id or None)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder") from None


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InvalidJobError(f"image: {folder}: {error.strerror}", field="image") from error


def _decode(data: bytes, output: Output) -> PILImage:
    try:
        from PIL import Image  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise ConfigurationError("PIL images need Pillow: pip install 'wavespeed-qwen-async[images]'") from None
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DownloadError(
            f"output {output.index} of prediction {output.prediction_id} can't be decoded: {error}",
            prediction_id=output.prediction_id or None,
        ) from error
    return image
