"""Carries out the faults that are about requests and answers themselves."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from .faults import AFTER, BEFORE, Action, Plan
from .service import MESSAGES

if TYPE_CHECKING:
    from .origin import Origin, Route

GATEWAY_PAGE: Final = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    b"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
FOREVER: Final = 30 * 86_400.0
STICKY: Final = frozenset({"skew", "revoke"})


async def misbehave(origin: Origin, request: web.BaseRequest, route: Route, plan: Plan) -> web.StreamResponse:
    """Answer one request with everything that its plan says."""
    kind, endpoint, argument = route
    service, now = origin.service, origin.service.clock.now()
    service.ledger.faults.extend((now, kind, action.name) for action in plan.actions)
    for action in plan.among(STICKY):
        _turn(origin, action)
    for action in plan.among(BEFORE):
        if action.name == "delay":
            await origin.pause(action["seconds"])
        else:
            return _instead(origin, request, kind, action)
    answer = await origin.answer(request, kind, endpoint, argument, plan)
    response = origin.reply(answer) if isinstance(answer, bytes) else answer
    for action in plan.among(AFTER):
        if action.name in {"drop_after", "status_after"}:
            return _instead(origin, request, kind, action)
        response = await _spoil(origin, request, response, action)
    return response


def _turn(origin: Origin, action: Action) -> None:
    if action.name == "skew":
        origin.service.clock.skew = action["seconds"]
    else:
        origin.service.revoked = True


def _instead(origin: Origin, request: web.BaseRequest, kind: str, action: Action) -> web.Response:
    """Cut the connection, or give an error in place of the answer."""
    if action.name.startswith("drop"):
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    return _error(origin, kind, action)


def _error(origin: Origin, kind: str, action: Action) -> web.Response:
    status = action["status"]
    code = status if action["code"] is None else action["code"]
    origin.service.ledger.refuse(origin.service.clock.now(), kind, max(status, code))
    if action["html"]:
        response = origin.reply(GATEWAY_PAGE, status)
        response.headers["Content-Type"] = "text/html"
    else:
        body: dict[str, Any] = {"code": code, "message": action["message"] or _message(code), "data": None}
        if action["error_code"] is not None:
            body["error_code"] = action["error_code"]
        response = origin.reply(json.dumps(body).encode(), status)
    if action["retry_after"] is not None:
        response.headers["Retry-After"] = str(action["retry_after"])
    return response


def _message(status: int) -> str:
    return {429: "Too many requests", 401: "Unauthorized: invalid API key", 503: MESSAGES[5003]}.get(
        status, f"HTTP {status}"
    )


async def _spoil(
    origin: Origin, request: web.BaseRequest, answer: web.StreamResponse, action: Action
) -> web.StreamResponse:
    """Do to an answer what a bad network or a bad gateway does."""
    if not isinstance(answer, web.Response) or not isinstance(answer.body, bytes):
        return answer
    body, name = answer.body, action.name
    if name == "slow_headers":
        await origin.pause(action["seconds"])
    elif name == "content_type":
        answer.headers["Content-Type"] = action["value"]
    elif name == "html":
        answer.body = GATEWAY_PAGE
        answer.headers["Content-Type"] = "text/html"
    elif name == "truncate":
        answer.body = body[: int(len(body) * action["keep"])]
    else:
        return await _trickle(origin, request, answer, action)
    return answer


async def _trickle(
    origin: Origin, request: web.BaseRequest, answer: web.Response, action: Action
) -> web.StreamResponse:
    """Send the body slowly, or only a part of what was announced."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    stream = web.StreamResponse(status=answer.status, headers=answer.headers)
    stream.content_length = len(body)
    await stream.prepare(request)
    if action.name == "slow_body":
        step = max(1, -(-len(body) // action["pieces"]))
        for start in range(0, len(body), step):
            await origin.pause(action["seconds"] / action["pieces"])
            await stream.write(body[start : start + step])
        await stream.write_eof()
        return stream
    await stream.write(body[: int(len(body) * action["keep"])])
    if action.name == "stall_body":
        await origin.pause(FOREVER)
    await _flush(request)
    return stream


async def _flush(request: web.BaseRequest) -> None:
    """Let what was written go out, then close: the client must see a part, not a reset."""
    await asyncio.sleep(0)
    if request.transport is not None:
        request.transport.close()
