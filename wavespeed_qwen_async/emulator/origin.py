"""One listening origin: the frame around each request. Counts it, lets faults have it, turns refusals into answers."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import HttpVersion11, web

from .faults import NOTHING, Plan
from .misbehave import misbehave
from .service import RefusalError

if TYPE_CHECKING:
    from .service import Service

SERVER: Final = "wavespeed-emulator"
JSON: Final = "application/json"

Endpoint = Callable[[web.BaseRequest, str, Plan], Awaitable[bytes | web.StreamResponse]]
"""Answers a request, with the JSON of an HTTP 200 or with a whole response."""
Route = tuple[str, Endpoint, str]
"""Kind of request, who answers it, and what the path says (an id, a model ...)."""


class _Sent(web.StreamResponse):
    """Tells aiohttp that the answer is on its way already; see `Origin.send`."""

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        pass

    async def write_eof(self, data: bytes = b"") -> None:
        pass


class Origin(ABC):
    """Answers the requests of one host and port. `waiting` holds the handlers that sleep, for a clean stop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.waiting: set[asyncio.Task[Any]] = set()
        self._sent = _Sent()
        self._head: tuple[str, bytes] = ("", b"")

    @abstractmethod
    def route(self, method: str, path: str) -> Route:
        """Find who answers a request."""

    @abstractmethod
    def admit(self, request: web.BaseRequest, kind: str) -> None:
        """Look at a request's key."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        service, path = self.service, request.raw_path
        kind, endpoint, argument = self.route(request.method, path.partition("?")[0])
        now = service.clock.now()
        service.ledger.arrive(now, kind, argument)
        plan = NOTHING
        if service.faults.rules and kind != "control":
            plan = service.faults.draw(kind, path, now - service.clock.started)
        if plan is not NOTHING:
            return await misbehave(self, request, (kind, endpoint, argument), plan)
        answer = await self.answer(request, kind, endpoint, argument, NOTHING)
        return await self.send(request, answer) if isinstance(answer, bytes) else answer

    async def answer(
        self, request: web.BaseRequest, kind: str, endpoint: Endpoint, argument: str, plan: Plan
    ) -> bytes | web.StreamResponse:
        """Answer one request as the API would."""
        try:
            self.admit(request, kind)
            return await endpoint(request, argument, plan)
        except RefusalError as refusal:
            return self.refuse(kind, refusal)
        except web.HTTPRequestEntityTooLarge:
            return self.refuse(kind, RefusalError(413, "Request entity too large"))

    def refuse(self, kind: str, refusal: RefusalError) -> web.Response:
        """Make the answer to a refused request."""
        self.service.ledger.refuse(self.service.clock.now(), kind, refusal.status)
        body: dict[str, Any] = {"code": refusal.status, "message": refusal.message, "data": None}
        if refusal.error_code is not None:
            body["error_code"] = refusal.error_code
        response = self.reply(json.dumps(body).encode(), refusal.status)
        response.headers.update(refusal.headers)
        return response

    async def send(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        """Send the JSON of an HTTP 200 in one go: aiohttp's way of putting a response together costs as much again."""
        transport = request.transport
        # A mounted application (`create_app`) has middlewares and signals, which want to see a response.
        if (
            transport is None
            or isinstance(request, web.Request)
            or request.version != HttpVersion11
            or not request.keep_alive
        ):
            return self.reply(body)
        transport.write(b"%b%d\r\n\r\n%b" % (self._ok(), len(body), body))
        await request.writer.drain()
        return self._sent

    def _ok(self) -> bytes:
        """The head of a JSON answer up to its length; put together once a second."""
        date = self._date()
        if self._head[0] != date:
            fields = f"Date: {date}\r\nServer: {SERVER}\r\nContent-Type: {JSON}"
            self._head = (date, f"HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: ".encode())
        return self._head[1]

    def reply(self, body: bytes, status: int = 200) -> web.Response:
        """Make a JSON answer as a response that can still be changed."""
        return web.Response(
            body=body, status=status, headers={"Date": self._date(), "Server": SERVER, "Content-Type": JSON}
        )

    def _date(self) -> str:
        clock = self.service.clock
        return clock.http_date(clock.now())

    async def pause(self, seconds: float) -> None:
        """Sleep within a handler, in a way that `stop` can end."""
        task = asyncio.current_task()
        if task is None or seconds <= 0:
            return
        self.waiting.add(task)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.waiting.discard(task)

    async def missing(self, _request: web.BaseRequest, argument: str, _plan: Plan) -> bytes:
        """Answer a request for something that is not there."""
        raise RefusalError(405 if argument == "method" else 404, argument or "Not found")


def success(data: Any) -> bytes:
    """Return an answer in the API's envelope."""
    envelope = {"code": 200, "message": "success", "data": data}
    return json.dumps(envelope, ensure_ascii=False).encode("utf-8", "replace")


async def read_body(request: web.BaseRequest) -> bytes:
    """Read a request's body: what `request.read()` does, for less where all of it is there and nobody has read it."""
    content = request.content
    if content.is_eof() and not content.at_eof():  # so it came in one piece, which is far from the limit of size
        return content.read_nowait()
    return await request.read()


async def read_json(request: web.BaseRequest) -> dict[str, Any]:
    """Read a request's body as a JSON object; an empty body counts as an empty object.

    Raises:
        RefusalError: it is none.
    """
    body = await read_body(request)
    if not body.strip():
        return {}
    try:
        data = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RefusalError(400, "the request body is not valid JSON") from error
    if not isinstance(data, dict):
        raise RefusalError(400, "the request body must be a JSON object")
    return data
