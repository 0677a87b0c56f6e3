"""One listening origin: the frame around each request. Counts it, lets faults have it, turns refusals into answers."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from multidict import CIMultiDict

from .faults import NOTHING, Plan
from .misbehave import misbehave
from .service import RefusalError

if TYPE_CHECKING:
    from .service import Service

SERVER: Final = "wavespeed-emulator"

Endpoint = Callable[[web.BaseRequest, str, Plan], Awaitable[web.StreamResponse]]
Route = tuple[str, Endpoint, str]
"""Kind of request, who answers it, and what the path says (an id, a model ...)."""


class Origin(ABC):
    """Answers the requests of one host and port. `waiting` holds the handlers that sleep, for a clean stop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.waiting: set[asyncio.Task[Any]] = set()
        self._headers: tuple[str, CIMultiDict[str]] = ("", CIMultiDict())

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
        if not service.faults.rules or kind == "control":
            return await self.answer(request, kind, endpoint, argument, NOTHING)
        plan = service.faults.draw(kind, path, now - service.clock.started)
        if plan is NOTHING:
            return await self.answer(request, kind, endpoint, argument, NOTHING)
        return await misbehave(self, request, (kind, endpoint, argument), plan)

    async def answer(
        self, request: web.BaseRequest, kind: str, endpoint: Endpoint, argument: str, plan: Plan
    ) -> web.StreamResponse:
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

    def reply(self, body: bytes, status: int = 200) -> web.Response:
        """Make a JSON answer."""
        return web.Response(body=body, status=status, headers=self.headers())

    def success(self, data: Any) -> web.Response:
        """Make an answer in the API's envelope."""
        envelope = {"code": 200, "message": "success", "data": data}
        return self.reply(json.dumps(envelope, ensure_ascii=False).encode("utf-8", "replace"))

    def headers(self) -> CIMultiDict[str]:
        """Return the headers of a JSON answer; made anew once a second, for speed."""
        clock = self.service.clock
        date = clock.http_date(clock.now())
        if self._headers[0] != date:
            fields = {"Date": date, "Server": SERVER, "Content-Type": "application/json"}
            self._headers = (date, CIMultiDict(fields))
        return self._headers[1]

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

    async def missing(self, _request: web.BaseRequest, argument: str, _plan: Plan) -> web.StreamResponse:
        """Answer a request for something that is not there."""
        raise RefusalError(405 if argument == "method" else 404, argument or "Not found")


async def read_json(request: web.BaseRequest) -> dict[str, Any]:
    """Read a request's body as a JSON object; an empty body counts as an empty object.

    Raises:
        RefusalError: it is none.
    """
    body = await request.read()
    if not body.strip():
        return {}
    try:
        data = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RefusalError(400, "the request body is not valid JSON") from error
    if not isinstance(data, dict):
        raise RefusalError(400, "the request body must be a JSON object")
    return data
