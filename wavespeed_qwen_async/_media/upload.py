"""Source images to the API: each content once, whoever asks and however often."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

import aiohttp
from aiohttp.payload import Payload

from wavespeed_qwen_async._answers import read_upload_ticket, read_uploaded
from wavespeed_qwen_async._headers import retry_after
from wavespeed_qwen_async._retry import next_wait
from wavespeed_qwen_async._wire import multipart_upload_path, ticket_request
from wavespeed_qwen_async.errors import (
    AuthenticationError,
    ConfigurationError,
    InsufficientCreditsError,
    InvalidJobError,
    PermissionDeniedError,
    RequestError,
    SessionClosedError,
    UploadError,
    WaveSpeedError,
)

from .files import CHUNK
from .flights import Flights
from .images import SUFFIXES
from .sources import Blob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.abc import AbstractStreamWriter

    from wavespeed_qwen_async._answers import UploadTicket
    from wavespeed_qwen_async._api import Api
    from wavespeed_qwen_async._tasks import Tasks

    from .files import Workers
    from .sources import Source

__all__ = ["KEPT", "MARGIN", "MemoryUploads", "UploadStore", "Uploader"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

KEPT = 7 * 24 * 3600.0
"""Seconds that the API keeps an upload (wavespeed-api.md, media)."""
MARGIN = 12 * 3600.0
"""Seconds before its end from which an upload is no longer used: the job has to wait its turn and run."""

_CHANGED = "the file changed while it was read"
_MISSING = frozenset({404, 405, 501})
_MAY_PASS = frozenset({408, 409, 425, 429})
_OLD_TICKET = frozenset({400, 401, 403, 404, 410})
_MAX_REFUSALS = 3
# What is wrong with the account or the session is said as such, not as a failed upload.
_NOT_THE_UPLOAD = (
    AuthenticationError,
    ConfigurationError,
    InsufficientCreditsError,
    InvalidJobError,
    PermissionDeniedError,
    SessionClosedError,
)


class UploadStore(Protocol):
    """Remembers uploads beyond a session; the journal of a durable run is one.

    ``key`` stands for content, what was done to it and the API it was sent to; ``expires_at`` is Unix time in seconds.
    """

    async def get(self, key: str) -> tuple[str, float] | None:
        """The upload's URL and when it expires, or None where it is not known."""

    async def put(self, key: str, url: str, expires_at: float) -> None:
        """Remember an upload; on return it should be durable, since what is paid may hang on it."""


class MemoryUploads:
    """Remembers uploads as long as the process lives."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float]] = {}

    async def get(self, key: str) -> tuple[str, float] | None:
        """As in :class:`UploadStore`."""
        return self._known.get(key)

    async def put(self, key: str, url: str, expires_at: float) -> None:
        """As in :class:`UploadStore`."""
        self._known[key] = (url, expires_at)


class Uploader:
    """Uploads each content once: those who ask while it is under way wait for the same upload."""

    def __init__(
        self, api: Api, tasks: Tasks, workers: Workers, store: UploadStore, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.store = store
        self._api = api
        self._workers = workers
        self._clock = clock
        self._flights: Flights[str] = Flights(tasks, "upload")
        self._old_flow = False

    async def url_of(self, source: Source) -> str:
        """The URL of the source's upload; uploads it where it is not there yet, or no longer for long.

        Raises:
            UploadError: it did not reach the API. Nothing is remembered: the next call tries again.
        """
        key = hashlib.sha256(f"{self._api.transport.base_url} {source.key}".encode()).hexdigest()
        return await self._flights.join(key, lambda: self._fly(key, source))

    async def close(self) -> None:
        """End the uploads under way."""
        await self._flights.close()

    async def _fly(self, key: str, source: Source) -> str:
        known = await self.store.get(key)
        if known is not None and known[1] - MARGIN > self._clock():
            return known[0]
        async with self._api.limits.uploads:
            blob = source.blob if isinstance(source.blob, Blob) else await self._workers.run(source.blob)
            began = self._clock()
            url = await self._send(blob, source.name)
        await self.store.put(key, url, began + KEPT)
        return url

    async def _send(self, blob: Blob, name: str) -> str:
        attempt, refusals, began = 0, 0, _now()
        while True:
            attempt += 1
            try:
                return await self._try(blob)
            except WaveSpeedError as error:
                if isinstance(error, _NOT_THE_UPLOAD):
                    raise
                refusals += error.status in _OLD_TICKET and isinstance(error, UploadError)
                wait = self._wait(error, attempt, _now() - began) if refusals < _MAX_REFUSALS else None
                if wait is None:
                    raise _failed(error, name) from error
                logger.info("an upload failed and is tried again", extra={"attempt": attempt, "reason": str(error)})
            await asyncio.sleep(wait)

    def _wait(self, error: WaveSpeedError, attempt: int, elapsed: float) -> float | None:
        api = self._api
        return next_wait(
            api.retry,
            error,
            attempt=attempt,
            elapsed=elapsed,
            submit=False,
            reached=api.transport.reached,
            rng=api.rng,
        )

    async def _try(self, blob: Blob) -> str:
        if not self._old_flow:
            request = ticket_request(_filename(blob), blob.size, blob.content_type)
            try:
                ticket = await self._api.ask(request, read_upload_ticket, again=False)
            except RequestError as error:
                if error.status not in _MISSING:
                    raise
            else:
                await self._put(ticket, blob)
                return ticket.download_url
        url = await self._post(blob)
        self._old_flow = True
        return url

    async def _put(self, ticket: UploadTicket, blob: Blob) -> None:
        body = _Body(blob, self._workers)
        try:
            async with self._api.transport.foreign(
                ticket.method, ticket.url, headers=ticket.headers, data=body
            ) as response:
                if not 200 <= response.status < 300:  # noqa: PLR2004 - success
                    raise _refused(response)
        except RequestError:
            body.check()
            raise

    async def _post(self, blob: Blob) -> str:
        body = _Body(blob, self._workers)
        form = aiohttp.FormData()
        form.add_field("file", body, filename=_filename(blob), content_type=blob.content_type)
        try:
            answer = await self._api.transport.multipart(multipart_upload_path(), form)
        except RequestError:
            body.check()
            raise
        return read_uploaded(answer)


class _Body(Payload):
    """A request body read in worker threads, of known length, and hashed on the way: in chunks, or small ones whole.

    It can be written again from its start: aiohttp re-sends a PUT when a kept connection turns out dead.
    """

    def __init__(self, blob: Blob, workers: Workers) -> None:
        super().__init__(blob, content_type=blob.content_type)
        self._size = blob.size
        self._blob = blob
        self._workers = workers
        self._problem = ""

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 - aiohttp's signature
        raise TypeError("an image is no text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        del content_length  # always the whole
        self._problem = ""
        if self._blob.size <= CHUNK:
            await writer.write(await self._here(self._workers.run_along, _read_whole, self._blob))
            return
        file = await self._here(self._workers.run, self._blob.open)
        try:
            await self._copy(file, writer)
        finally:
            await self._workers.run(file.close)

    async def _copy(self, file: BinaryIO, writer: AbstractStreamWriter) -> None:
        digest, rest = hashlib.sha256(), self._blob.size
        while rest > 0:
            piece = await self._here(self._workers.run, _read, file, min(CHUNK, rest), digest)
            rest -= len(piece)
            if not piece or (not rest and digest.hexdigest() != self._blob.digest):
                # Not sent to its end, so that the host keeps nothing.
                self._problem = _CHANGED
                raise OSError(_CHANGED)
            await writer.write(piece)

    async def _here(self, run: Callable[..., Awaitable[T]], *work: Any) -> T:
        """What fails in a thread is wrong here, not there."""
        try:
            return await run(*work)
        except OSError as error:
            self._problem = error.strerror or str(error) or type(error).__name__
            raise

    def check(self) -> None:
        """Raise what went wrong here, not there."""
        if self._problem:
            raise UploadError(self._problem)


def _read_whole(blob: Blob) -> bytes:
    with blob.open() as file:
        data = file.read(blob.size)
    if hashlib.sha256(data).hexdigest() != blob.digest:
        raise OSError(_CHANGED)
    return data


def _read(file: BinaryIO, length: int, digest: Any) -> bytes:
    piece = file.read(length)
    digest.update(piece)
    return piece


def _filename(blob: Blob) -> str:
    """A name that tells nothing about this machine and can't trouble any server."""
    return f"{blob.digest[:32]}.{SUFFIXES[blob.info.format]}"


def _refused(response: aiohttp.ClientResponse) -> UploadError:
    status = response.status
    error = UploadError(
        f"the upload host {response.url.host} answered HTTP {status}",
        status=status,
        retry_after=retry_after(response.headers),
    )
    error.transient = status >= 500 or status in _MAY_PASS or status in _OLD_TICKET  # noqa: PLR2004 - server errors
    return error


def _failed(error: WaveSpeedError, name: str) -> UploadError:
    failure = UploadError(
        f"{name} could not be uploaded: {error.message}",
        status=error.status,
        code=error.code,
        retry_after=error.retry_after,
        request_id=error.request_id,
    )
    failure.transient = error.transient
    return failure


def _now() -> float:
    return asyncio.get_running_loop().time()
