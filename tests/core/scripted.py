"""A server over loopback whose answers a test writes itself: for what no well-behaved emulator does."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """An aiohttp server that hands every request to ``handler``; gives its base URL."""
    runner = web.ServerRunner(web.Server(handler, handler_cancellation=True), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


class Script:
    """Answers given one after the other, the last one again and again; remembers what was asked."""

    def __init__(self, *answers: web.Response | Handler) -> None:
        self.answers = list(answers)
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.read())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request) if callable(answer) else clone(answer)


def clone(answer: web.Response) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


def ok(data: object) -> web.Response:
    return web.json_response({"code": 200, "message": "success", "data": data})


def error(status: int, message: str = "no", **headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"code": status, "message": message}, status=status, headers=named)


def accepted(prediction_id: str = "p1", status: str = "created", **more: object) -> web.Response:
    return ok({"id": prediction_id, "status": status, **more})


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Take the request, then drop the connection without a word."""
    request.transport.close()
    await asyncio.sleep(0)
    return web.Response()


def json_of(body: bytes) -> dict[str, object]:
    return json.loads(body)
