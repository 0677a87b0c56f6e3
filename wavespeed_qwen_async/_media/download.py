"""Outputs from the media hosts: fetched until they are whole, resumed or asked for anew where they are not."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Protocol

import aiohttp
from yarl import URL

from wavespeed_qwen_async._answers import read_prediction
from wavespeed_qwen_async._headers import retry_after
from wavespeed_qwen_async._retry import next_wait
from wavespeed_qwen_async._wire import result_request
from wavespeed_qwen_async.errors import DownloadError, NotFoundError, RequestError, WaveSpeedError

from .images import HEAD, TAIL, is_whole, sniff

if TYPE_CHECKING:
    from wavespeed_qwen_async._api import Api
    from wavespeed_qwen_async.predictions import Output

__all__ = ["LEADS_NOWHERE", "MAX_OUTPUT_BYTES", "Downloader", "Landing", "MemoryLanding"]

logger = logging.getLogger(__name__)

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""1536 x 1536 pixels are 9 MB without any compression (RGBA); what is far beyond is no output of these models."""
MAX_REDIRECTS = 5
_PATIENCE = 10  # times the read timeout for one attempt: a byte a minute would else hold its place for days
_FRESH_AFTER = 3  # failures on one URL, before the result is asked for another
_LEAST_ATTEMPTS = 6  # two stalls of a minute each would use up the time for it, and the image is paid
_MAX_REFUSALS = 3
_REFUSED = frozenset({400, 401, 402, 403, 405, 406, 410, 414, 451})  # 404 is none: a CDN may lag behind the API
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
LEADS_NOWHERE = (
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.RedirectClientError,
    aiohttp.TooManyRedirects,
)
"""What aiohttp raises for a URL or a redirect that is no http(s) one, or goes round in a circle."""


class Landing(Protocol):
    """Where the bytes go."""

    async def add(self, piece: bytes) -> None:
        """Take the next bytes."""

    async def restart(self) -> None:
        """Forget what was taken: it begins anew."""


class MemoryLanding:
    """Bytes in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    async def add(self, piece: bytes) -> None:
        """As in :class:`Landing`."""
        self.data += piece

    async def restart(self) -> None:
        """As in :class:`Landing`."""
        self.data.clear()


class _SpoiltError(RequestError):
    """An answer that is not the image; another try may bring it."""

    transient = True


class _Received:
    """What has come so far: how much, how it begins and how it ends."""

    def __init__(self) -> None:
        self.size = 0
        self.head = b""
        self.tail = b""
        self.total: int | None = None
        self.validator: str | None = None

    def add(self, piece: bytes) -> None:
        if len(self.head) < HEAD:
            self.head += piece[: HEAD - len(self.head)]
            if len(self.head) == HEAD and sniff(self.head) is None:
                raise _SpoiltError(f"the answer is no image, it begins with {self.head[:16]!r}")
        self.tail = piece[-TAIL:] if len(piece) >= TAIL else (self.tail + piece)[-TAIL:]
        self.size += len(piece)

    def goes_on(self, response: aiohttp.ClientResponse) -> bool:
        """Whether an answer is the rest of these bytes, as far as its headers tell."""
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or self.total is None or "Content-Encoding" in response.headers:
            return False
        rest = self.total - self.size
        etag = response.headers.get("ETag")
        return (
            (etag in {None, self.validator} or _is_date(self.validator))
            and (int(found[1]), int(found[2])) == (self.size, self.total - 1)
            and found[3] in {str(self.total), "*"}
            and response.content_length in {rest, None}
        )

    def check(self) -> None:
        if sniff(self.head) is None:
            raise _SpoiltError(f"the answer is no image, it begins with {self.head[:16]!r}")
        if self.total is not None and self.size != self.total:
            raise _SpoiltError(f"{self.size} bytes came where {self.total} were told")
        if not is_whole(self.head, self.tail, self.size):
            raise _SpoiltError(f"the image is cut off after {self.size} bytes")


class Downloader:
    """Fetches outputs, each until it is whole or the time for it is over."""

    def __init__(self, api: Api, *, max_bytes: int = MAX_OUTPUT_BYTES) -> None:
        self.api = api
        self.max_bytes = max_bytes

    async def fetch(self, output: Output, landing: Landing, inline: bytes | None = None) -> None:
        """Bring the output's bytes to ``landing``: fetched by its URL, or ``inline`` where they came as base64.

        Raises:
            DownloadError: they can't be had now; ``transient`` tells whether later may help.
        """
        if inline is not None:
            return await _Fetch(self, output, landing, "").take(inline)
        if output.url is None:
            raise DownloadError("the output has neither URL nor data", prediction_id=output.prediction_id)
        return await _Fetch(self, output, landing, output.url).run()


class _Fetch:
    """One output on its way, over as many attempts as it takes."""

    def __init__(self, owner: Downloader, output: Output, landing: Landing, url: str) -> None:
        self._api = owner.api
        self._max_bytes = owner.max_bytes
        self._output = output
        self._landing = landing
        self._url = url
        self._received = _Received()
        self._attempt = self._on_this_url = self._refusals = self._most = 0
        self._began = 0.0

    async def run(self) -> None:
        self._began = _now()
        while True:
            try:
                async with self._api.limits.downloads:
                    return await self._try()
            except DownloadError:
                raise
            except WaveSpeedError as error:
                wait = self._wait(error)
                if isinstance(error, _SpoiltError) and error.status is None:
                    await self._restart()  # a part of something else must not be gone on with
                if wait is None:
                    raise self._failed(error) from error
                logger.info("a download failed and is tried again", extra={"reason": str(error)})
            await asyncio.sleep(wait)
            if self._refusals or self._on_this_url >= _FRESH_AFTER:
                await self._ask_for_another_url()

    async def take(self, data: bytes) -> None:
        """The whole in one piece."""
        try:
            await self._restart()
            await self._add(data)
            self._received.check()
        except _SpoiltError as error:
            raise self._failed(error, again=False) from error

    async def _try(self) -> None:
        if not self._url:
            return
        transport = self._api.transport
        async with transport.foreign(
            "GET", self._checked_url(), headers=self._headers(), redirects=MAX_REDIRECTS
        ) as response:
            await self._open(response)
            until = _now() + _PATIENCE * transport.timeout.read
            while piece := await transport.next_piece(response):  # as they come: nothing is joined
                if _now() > until:
                    raise TimeoutError
                await self._add(piece)
        self._received.check()

    def _checked_url(self) -> URL:
        try:
            return URL(self._url)
        except ValueError:
            raise self._failed(DownloadError("its URL can't be read")) from None

    def _headers(self) -> dict[str, str]:
        # A length can be checked, and a part resumed, of the bytes as they are only.
        headers = {"Accept": "image/*", "Accept-Encoding": "identity"}
        received = self._received
        if received.size and received.validator and received.total:
            headers["Range"] = f"bytes={received.size}-"
            headers["If-Range"] = received.validator
        return headers

    async def _open(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 206 and self._received.size:  # noqa: PLR2004 - partial content
            if not self._received.goes_on(response):
                raise _SpoiltError("the host sent another part than the one asked for")
            return
        if response.status != 200:  # noqa: PLR2004 - OK; other successes carry no image
            if response.status == 416:  # noqa: PLR2004 - range not satisfiable
                await self._restart()
            raise self._refusal(response)  # what has come stays good
        await self._restart()
        if "Content-Encoding" in response.headers:
            return
        self._received.total = response.content_length
        self._received.validator = _validator(response)
        self._check_size(response.content_length or 0)

    def _refusal(self, response: aiohttp.ClientResponse) -> _SpoiltError:
        if response.status in _REFUSED:
            self._refusals += 1
        return _SpoiltError(
            f"{response.url.host} answered HTTP {response.status}",
            status=response.status,
            retry_after=retry_after(response.headers),
        )

    async def _restart(self) -> None:
        if self._received.size:
            await self._landing.restart()
        self._received = _Received()

    async def _add(self, piece: bytes) -> None:
        self._received.add(piece)
        self._check_size(self._received.size)
        await self._landing.add(piece)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise self._failed(DownloadError(f"it is larger than {self._max_bytes} bytes"), again=False)

    def _wait(self, error: WaveSpeedError) -> float | None:
        self._attempt += 1
        self._on_this_url += 1
        if isinstance(error.__cause__, LEADS_NOWHERE):
            self._refusals += 1
        if self._refusals >= _MAX_REFUSALS:
            return None
        if self._received.size > self._most and self._received.validator:
            self._most, self._attempt, self._began = self._received.size, 1, _now()  # it gets on
        api = self._api
        elapsed = _now() - self._began if self._attempt >= _LEAST_ATTEMPTS else 0.0
        return next_wait(
            api.retry, error, attempt=self._attempt, elapsed=elapsed, submit=False, reached=True, rng=api.rng
        )

    async def _ask_for_another_url(self) -> None:
        """The API knows best where the output is now; where it doesn't answer, the old URL has to do."""
        prediction_id, index = self._output.prediction_id, self._output.index
        self._on_this_url = 0
        if not prediction_id:
            return
        request = result_request(prediction_id)
        try:
            prediction = await self._api.ask(
                request, lambda answer: read_prediction(answer, prediction_id), again=False
            )
        except NotFoundError as error:
            raise self._failed(error, again=False) from error
        except WaveSpeedError:
            return
        if index >= len(prediction.outputs):
            return
        fresh = prediction.outputs[index]
        if fresh.url is None:
            await self.take(fresh.decoded() or b"")
            self._url = ""
        elif fresh.url != self._url:
            await self._restart()
            self._url = fresh.url

    def _failed(self, error: WaveSpeedError, *, again: bool = True) -> DownloadError:
        output = self._output
        what = f"output {output.index} of prediction {output.prediction_id}" if output.prediction_id else "the output"
        failure = DownloadError(
            f"{what} could not be fetched: {error.message}; it is paid, and kept for 7 days",
            prediction_id=output.prediction_id or None,
            status=error.status,
            code=error.code,
            retry_after=error.retry_after,
        )
        failure.transient = again and error.transient
        return failure


def _validator(response: aiohttp.ClientResponse) -> str | None:
    """What shows that a later part belongs to the same bytes (RFC 9110, 13.1.5: strong ones only)."""
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        return etag
    return None if etag else response.headers.get("Last-Modified")


def _is_date(validator: str | None) -> bool:
    return validator is not None and not validator.startswith('"')


def _now() -> float:
    return asyncio.get_running_loop().time()
