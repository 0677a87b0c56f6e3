"""The one module of the client that sends requests. The API key goes to the API's own origin and nowhere else."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import platform
import socket
import ssl
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.payload import BytesPayload
from yarl import URL

from ._answers import Answer
from ._deadlines import Deadlines
from ._headers import http_date
from ._origin import DEFAULT_BASE_URL, checked_base_url, checked_key
from ._version import __version__
from .errors import (
    ConfigurationError,
    LostAnswerError,
    NotSentError,
    SessionClosedError,
    SubmissionUnknown,
    WaveSpeedError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from aiohttp.abc import AbstractStreamWriter

    from ._wire import Request

__all__ = ["DEFAULT_BASE_URL", "Timeout", "Transport"]

_logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 128 * 1024 * 1024  # three images as base64 with room; an answer beyond it is not the API's
_FIRST_YEAR, _LAST_YEAR = 1971, 9998  # of a server's clock that can be reckoned with
MAX_CONNECTIONS = 1000  # the limits bound what is in flight; this bounds the sockets whatever they are set to


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """Seconds, each for one thing.

    Attributes:
        connect: To get a connection.
        read: For a whole answer of the API, from its request on; of a media host, between two pieces. Its first has to
            come within both, redirects included.
        sync: For a submit that is held until its image is there (``wait="sync"``, ``enable_sync_mode``).
        job: Overall, from the accepted submit until the result; then the error carries the id, ``billed="yes"``.

    Raises:
        ConfigurationError: a value is not above 0.
    """

    connect: float = 15.0
    read: float = 60.0
    sync: float = 300.0
    job: float = 3600.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"timeout.{name} = {getattr(self, name)!r}: give seconds, more than 0")


class _TrackedBody(BytesPayload):
    """A body that knows whether any of it was handed to the socket; before that, a submit can't have been accepted.

    aiohttp (3.12 and later) writes headers and a small body in one go, from here.
    """

    handed_over = False
    fence: Callable[[], object] | None = None

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        if self.fence is not None:
            self.fence()  # what it raises is an error of the connection to aiohttp: nothing is sent
        transport = getattr(writer, "transport", None)
        self.handed_over = transport is not None and not transport.is_closing()
        await super().write_with_length(writer, content_length)


class Transport:
    """Sends requests to the API, and keyless ones to the media hosts, over one ``aiohttp.ClientSession``.

    A client session that the caller brought is used and not closed.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = DEFAULT_BASE_URL,
        timeout: Timeout | None = None,
        proxy: str | None = None,
        client_session: aiohttp.ClientSession | None = None,
    ) -> None:
        self.base_url: URL = checked_base_url(base_url)
        self.timeout: Timeout = timeout or Timeout()
        self.reached: bool = False
        self._headers = _headers(checked_key(api_key))
        self._keyless = {"User-Agent": self._headers["User-Agent"]}
        self._proxy = proxy
        self._proxies: dict[str, str] = {}
        self._own = client_session is None
        self._client = client_session
        self._foreign = client_session
        self._places: dict[str, URL] = {}
        # No limit is None to aiohttp, and infinity an OverflowError.
        connect, read = (None if math.isinf(limit) else limit for limit in (self.timeout.connect, self.timeout.read))
        self._connecting = aiohttp.ClientTimeout(total=None, sock_connect=connect)
        self._sending = aiohttp.ClientTimeout(total=None, connect=connect, sock_read=read)
        self._fetching = aiohttp.ClientTimeout(total=None, connect=connect)
        self._deadlines = Deadlines(self.timeout.read)
        self._heads = Deadlines(self.timeout.connect + self.timeout.read)
        self._date: tuple[str, float] | None = None

    def __repr__(self) -> str:
        return f"Transport(base_url={str(self.base_url)!r}, api_key='***')"

    async def open(self) -> None:
        """Make the client sessions, where the caller brought none.

        Two over one pool of connections: the API's has the key among its headers, which is cheaper than to give
        them with each request; the one for media hosts does not know it.
        """
        self._proxies = urllib.request.getproxies_environment()
        if self._client is None:
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ttl_dns_cache=300)
            jar = aiohttp.DummyCookieJar()
            self._client = aiohttp.ClientSession(connector=connector, cookie_jar=jar, headers=self._headers)
            self._foreign = aiohttp.ClientSession(connector=connector, cookie_jar=jar, connector_owner=False)

    async def close(self) -> None:
        """Close what was made here."""
        self._deadlines.close()
        self._heads.close()
        own = (self._foreign, self._client) if self._own else ()
        self._client = self._foreign = None
        for client in own:
            if client is not None:
                await client.close()

    async def send(
        self, request: Request, *, read_timeout: float | None = None, fence: Callable[[], object] | None = None
    ) -> Answer:
        """One exchange with the API. No redirect is followed, nothing is sent again.

        Args:
            request: What to send.
            read_timeout: Seconds for the whole answer, in place of ``timeout.read``.
            fence: Called when there is a connection, before the first byte: what it raises stops a request with a
                body, as a NotSentError.

        Raises:
            NotSentError: It never left this machine.
            SubmissionUnknown: A submit left, and no whole answer came.
            LostAnswerError: The same for a read.
        """
        client, url = _open(self._client), self._place_of(request)
        deadlines = self._deadlines if read_timeout is None else Deadlines(read_timeout)
        body = None if request.body is None else _TrackedBody(request.body, content_type="application/json")
        if body is not None:
            body.fence = fence
        try:
            with deadlines.wait():
                response = await client.request(
                    request.method,
                    url,
                    data=body,
                    headers=None if self._own else self._headers,
                    timeout=self._connecting,
                    allow_redirects=False,
                    proxy=self._proxy_for(url) if self._proxies else self._proxy,
                )
                return await self._answer(response)
        except _FAILURES as error:
            sent = body is not None and body.handed_over
            raise self._failure(request, error, url=url, sent=sent) from error
        finally:
            if deadlines is not self._deadlines:
                deadlines.close()

    def foreign(
        self,
        method: str,
        url: str | URL,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        redirects: int = 0,
    ) -> Foreign:
        """One exchange with a media host: without the key. ``redirects`` of them are followed, to http(s) only.

        Raises, on entry and for what goes wrong inside:
            NotSentError: No connection.
            LostAnswerError: No whole answer.
        """
        target = URL(url)
        return Foreign(
            functools.partial(
                _open(self._foreign).request,
                method,
                target,
                data=data,
                headers=self._keyless if headers is None else {**self._keyless, **headers},
                # How long it takes to send a body is not known. What is only read has the deadlines' one timer.
                timeout=self._fetching if data is None else self._sending,
                allow_redirects=redirects > 0,
                max_redirects=max(redirects, 1),
                proxy=self._proxy_for(target) if self._proxies else self._proxy,
            ),
            host=target.host,
            deadlines=self._heads if data is None else None,
        )

    async def next_piece(self, response: aiohttp.ClientResponse) -> bytes:
        """The next bytes of an answer's body, as they come; empty at its end.

        Raises:
            TimeoutError: None came within ``timeout.read``.
        """
        with self._deadlines.wait():
            while True:
                piece, more = await response.content.readchunk()
                if piece or not more:
                    return piece

    async def multipart(self, path: str, form: aiohttp.FormData) -> Answer:
        """Post a form to the API itself, with the key (the older upload flow)."""
        url = self.base_url.joinpath(path[1:], encoded=True)
        try:
            response = await _open(self._client).post(
                url,
                data=form,
                headers=self._headers,
                timeout=self._sending,
                allow_redirects=False,
                proxy=self._proxy_for(url),
            )
            return await self._answer(response)
        except _FAILURES as error:
            raise LostAnswerError(f"{url.host}: {_reason(error)}") from error

    async def _answer(self, response: aiohttp.ClientResponse) -> Answer:
        """Read it whole, which gives its connection back; cheaper than to do both by ``async with``."""
        try:
            self.reached = True
            headers = response.headers
            date = headers.get("Date")
            if date is not None and (self._date is None or date != self._date[0]):
                # The first answer of a second tells the time best.
                self._date = (date, asyncio.get_running_loop().time())
            if (size := response.content_length) is None or size > MAX_ANSWER_BYTES or "Content-Encoding" in headers:
                return Answer(response.status, headers, await _bounded(response))
            return Answer(response.status, headers, await response.read())
        except BaseException:
            response.close()
            raise

    def server_time(self) -> datetime | None:
        """What the server's clock shows now, by its last ``Date`` header, to a second; None where it never told."""
        if self._date is None:
            return None
        text, seen = self._date
        told = http_date(text)
        if told is None or not _FIRST_YEAR <= told.year <= _LAST_YEAR:
            return None
        return told + timedelta(seconds=asyncio.get_running_loop().time() - seen)

    def _place_of(self, request: Request) -> URL:
        """Its URL. Those of the few paths that are posted to are kept: they are asked for all the time."""
        url = self._places.get(request.path)
        if url is None:
            url = self.base_url.joinpath(request.path[1:], encoded=True)
            if request.method == "POST":
                self._places[request.path] = url
        return url.with_query(request.query) if request.query else url

    def _proxy_for(self, url: URL) -> str | None:
        """The proxy given, else what HTTPS_PROXY, HTTP_PROXY and NO_PROXY said when the session was opened.

        aiohttp's own ``trust_env`` would also read ``~/.netrc`` in the event loop and could put its password in place
        of the API key.
        """
        if self._proxy is not None or not self._proxies or urllib.request.proxy_bypass(url.host or ""):
            return self._proxy
        return self._proxies.get(url.scheme, self._proxies.get("all"))

    def _failure(self, request: Request, error: Exception, *, url: URL, sent: bool) -> WaveSpeedError:
        place = f"{url.host}:{url.port}"
        if isinstance(error, _NO_CONNECTION) or (request.body is not None and not sent):
            failure: WaveSpeedError = NotSentError(f"no connection to {place}: {_reason(error)}")
            if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
                failure.transient = False  # a certificate does not mend itself in a minute
            return failure
        if request.kind == "submit":
            return SubmissionUnknown(
                f"the submit was sent to {place} and its answer lost ({_reason(error)}): it may have been accepted"
            )
        return LostAnswerError(f"the answer of {place} was lost: {_reason(error)}")


class Foreign:
    """An exchange with a media host. ``async with`` gives its response, and takes the connection back.

    A class, since each image takes one and a context manager made of a generator costs more.
    """

    __slots__ = ("_ask", "_deadlines", "_host", "_response")

    def __init__(
        self, ask: Callable[[], Awaitable[aiohttp.ClientResponse]], *, host: str | None, deadlines: Deadlines | None
    ) -> None:
        self._ask = ask
        self._host = host
        self._deadlines = deadlines
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            if self._deadlines is None:
                response = await self._ask()
            else:
                with self._deadlines.wait():
                    response = await self._ask()
        except _FAILURES as error:
            raise self._failed(error) from error
        self._response = response
        return response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._response is not None  # noqa: S101 - entered
        self._response.release()
        if self._deadlines is None:
            await self._response.wait_for_close()  # a body that is still being sent
        if isinstance(error, _FAILURES) and not isinstance(error, WaveSpeedError):
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> WaveSpeedError:
        kind = NotSentError if isinstance(error, _NO_CONNECTION) else LostAnswerError
        return kind(f"{self._host}: {_reason(error)}")


_FAILURES = (aiohttp.ClientError, TimeoutError, OSError)
_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def _open(client: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
    if client is None or client.closed:
        raise SessionClosedError("the session is not open: use it inside 'async with QwenImageSession(...)'")
    return client


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """A body that does not say its length, says too much, or becomes larger when it is decompressed."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _reason(error: Exception) -> str:
    """Why, without what the library's own message might carry (a proxy's password, a signed URL)."""
    if isinstance(error, TimeoutError):
        return "timed out"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, socket.gaierror):
        return "the host's name is not known"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return type(cause).__name__


def _headers(api_key: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {api_key}",
        "Accept": "application/json",
        "User-Agent": f"wavespeed_qwen_async/{__version__} aiohttp/{aiohttp.__version__}",
        "X-Client-Name": "wavespeed_qwen_async",
        "X-Client-Version": __version__,
        "X-Client-OS": platform.system().lower(),
    }
