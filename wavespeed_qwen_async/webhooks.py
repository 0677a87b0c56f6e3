"""Results pushed by the API to a web application of yours: signatures verified, repeats dropped.

The vendor signs like Standard Webhooks but for the key: it is the secret without its ``whsec_`` prefix, as it is, not
base64-decoded, so that libraries for Standard Webhooks fail (wavespeed-api.md, await the result).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import ValidationError
from yarl import URL

from ._answers import parsed
from .errors import ConfigurationError
from .predictions import Prediction

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Mapping,
        MutableMapping,
    )

__all__ = ["TOLERANCE", "WebhookError", "WebhookReceiver", "sign", "verify"]

logger: logging.Logger = logging.getLogger(__name__)

TOLERANCE = 300.0  # seconds of age that the documentation asks to reject beyond
_PREFIX = "whsec_"
_VERSION = "v3"


class WebhookError(ValueError):
    """A delivery that is not believed: unsigned, wrongly signed, too old, or none at all."""


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secrets: Iterable[str],
    *,
    now: float,
    tolerance: float = TOLERANCE,
) -> str:
    """Check that a delivery is the API's own, in constant time; return its ``webhook-id``.

    Args:
        headers: Of the request, in any case.
        body: Raw, exactly as it came.
        secrets: Any of them may have signed it, so that a secret can be rotated.
        now: Unix seconds.
        tolerance: Seconds that its timestamp may be away from ``now``, either way.

    Raises:
        WebhookError: It is not; the message says why, and nothing secret.
    """
    given = {name.lower(): value for name, value in headers.items()}
    webhook_id, timestamp, signatures = (
        given.get(name, "").strip() for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    )
    if not webhook_id or not timestamp or not signatures:
        raise WebhookError("not signed: webhook-id, webhook-timestamp or webhook-signature is missing")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 16):  # noqa: PLR2004 - no such time
        raise WebhookError("webhook-timestamp is no number of seconds")
    if abs(now - int(timestamp)) > tolerance:
        raise WebhookError(f"its timestamp is more than {tolerance:g} s away from now")
    claimed = [_bytes(part) for part in signatures.split() if part.startswith(f"{_VERSION},")]
    genuine = False
    for secret in secrets:
        expected = _bytes(sign(webhook_id, timestamp, body, secret))
        for signature in claimed:
            genuine |= hmac.compare_digest(expected, signature)  # every pair is compared: the time tells nothing
    if not genuine:
        raise WebhookError("the signature is wrong")
    return webhook_id


def sign(webhook_id: str, timestamp: str, body: bytes, secret: str) -> str:
    """The ``webhook-signature`` of a delivery, for tests and emulators."""
    message = b".".join((_bytes(webhook_id), _bytes(timestamp), body))
    return f"{_VERSION},{hmac.new(_bytes(secret.removeprefix(_PREFIX)), message, hashlib.sha256).hexdigest()}"


def _bytes(text: str) -> bytes:
    """A header as bytes, whatever a stranger put into it."""
    return text.encode("utf-8", "surrogateescape")


class WebhookReceiver:
    """Takes the API's deliveries in a web application of yours and hands them to the session.

        receiver = WebhookReceiver("https://me.example/wavespeed", secrets=["whsec_..."])
        app.router.add_post("/wavespeed", receiver.aiohttp_handler)      # aiohttp
        app.mount("/wavespeed", receiver.asgi)                           # FastAPI, Starlette, any ASGI application
        async with QwenImageSession(webhooks=receiver) as session: ...

    Each delivery is answered at once: 200 taken (repeats too), 400 unreadable, 401 not signed by the API, 413 too
    large, 503 no secret or session yet, so that the API tries again.

    Args:
        url: Where the API reaches the application; each submit carries it.
        secrets: What deliveries are signed with; several while a secret is rotated. Empty: the session asks the API.
        tolerance: Seconds that a delivery may be old (or ahead of this machine's clock).
        max_body: Bytes of the largest delivery; base64 outputs come inside.
        remembered: How many ``webhook-id`` are remembered, to drop repeats.
        clock: Tells Unix seconds.

    Raises:
        ConfigurationError: ``url`` is no http(s) URL, or a secret is empty.
    """

    def __init__(
        self,
        url: str,
        *,
        secrets: Iterable[str] = (),
        tolerance: float = TOLERANCE,
        max_body: int = 16 * 1024 * 1024,
        remembered: int = 100_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if URL(url).scheme not in {"http", "https"} or not URL(url).host:
            raise ConfigurationError(f"url = {url!r}: give the http(s) URL at which the API reaches your application")
        self.url = url
        self.tolerance = tolerance
        self.max_body = max_body
        self._secrets: list[str] = []
        self._remembered = remembered
        self._clock = clock
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._pushes: list[tuple[asyncio.AbstractEventLoop, Callable[[Prediction], None]]] = []
        for secret in secrets:
            self.add_secret(secret)

    def __repr__(self) -> str:
        return f"WebhookReceiver({self.url!r}, secrets=<{len(self._secrets)}>)"

    @property
    def needs_secret(self) -> bool:
        """Whether no secret is known yet, so that every delivery is answered with 503."""
        return not self._secrets

    def add_secret(self, secret: str) -> None:
        """Believe deliveries signed with this one, too.

        Raises:
            ConfigurationError: It is empty: everybody could sign with it.
        """
        if not secret.strip().removeprefix(_PREFIX):
            raise ConfigurationError("secrets: an empty webhook secret would let anybody sign")
        if secret.strip() not in self._secrets:
            self._secrets.append(secret.strip())

    def attach(self, push: Callable[[Prediction], None]) -> None:
        """Hand what is delivered to ``push`` from now on, in the event loop that runs now."""
        self._pushes.append((asyncio.get_running_loop(), push))

    def detach(self, push: Callable[[Prediction], None]) -> None:
        """Hand nothing to ``push`` any more."""
        self._pushes = [each for each in self._pushes if each[1] != push]

    def receive(self, headers: Mapping[str, str], body: bytes) -> int:
        """Take one delivery in; return the HTTP status to answer it with."""
        if not self._secrets or not self._pushes:
            return 503
        now = self._clock()
        try:
            webhook_id = verify(headers, body, self._secrets, now=now, tolerance=self.tolerance)
        except WebhookError as error:
            logger.warning("a webhook delivery was not believed: %s", error)
            return 401
        if webhook_id in self._seen:
            return 200
        prediction = _read(body)
        if prediction is None:
            logger.warning("a webhook delivery is signed, but holds no prediction", extra={"webhook_id": webhook_id})
            return 400
        self._hand_over(prediction)
        self._remember(webhook_id, now)
        return 200

    async def aiohttp_handler(self, request: web.Request) -> web.Response:
        """Answer a delivery in an aiohttp application: ``app.router.add_post(path, receiver.aiohttp_handler)``."""
        status = self._glance(request.headers)
        if status == 0:
            body = await _capped(request.content.iter_any(), self.max_body)
            status = 413 if body is None else self.receive(request.headers, body)
        return web.Response(status=status, text=_REASONS[status])

    async def asgi(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer deliveries as an ASGI application: ``app.mount(path, receiver.asgi)``."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"a webhook receiver speaks http, not {scope['type']!r}")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status = self._glance(headers) if scope["method"] == "POST" else 405
        if status == 0:
            body = await _capped(_pieces(receive), self.max_body)
            status = 413 if body is None else self.receive(headers, body)
        text = _REASONS[status].encode()
        answered = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": answered})
        await send({"type": "http.response.body", "body": text})

    def _glance(self, headers: Mapping[str, str]) -> int:
        """Refuse by the headers alone what needs no reading: a stranger's body takes no memory. 0: go on."""
        given = {name.lower() for name in headers}
        if not {"webhook-id", "webhook-timestamp", "webhook-signature"} <= given:
            return 401
        length = next((value for name, value in headers.items() if name.lower() == "content-length"), "0")
        return 413 if length.isdecimal() and int(length) > self.max_body else 0

    def _remember(self, webhook_id: str, now: float) -> None:
        """Keep an id for as long as a repeat of it could still be believed."""
        self._seen[webhook_id] = now
        while self._seen:
            oldest = next(iter(self._seen))
            if len(self._seen) <= self._remembered and self._seen[oldest] > now - 2 * self.tolerance - 1:
                break
            del self._seen[oldest]

    def _hand_over(self, prediction: Prediction) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:  # a thread of a WSGI application
            running = None
        for number, (loop, push) in enumerate(tuple(self._pushes)):
            own = prediction if number == 0 else prediction.model_copy()  # a session binds what it is handed to itself
            if loop is running:
                push(own)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(push, own)


_REASONS = {
    200: "taken",
    400: "no prediction in it",
    401: "not signed by the API",
    405: "POST only",
    413: "too large",
    503: "not ready, try again",
}


def _read(body: bytes) -> Prediction | None:
    try:
        value = parsed(body)
        inner = value.get("data") if isinstance(value, dict) and "id" not in value else value
        return Prediction.model_validate(inner)
    except ValidationError:
        return None


async def _capped(pieces: AsyncIterable[bytes], most: int) -> bytes | None:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > most:
            return None
    return bytes(body)


async def _pieces(receive: Callable[[], Awaitable[MutableMapping[str, Any]]]) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _live(
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
