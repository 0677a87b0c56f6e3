"""An API and a media host on two ports of this machine: they fail as told, and remember what they were sent."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
import struct
import zlib
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from PIL import Image

from wavespeed_qwen_async._api import Api
from wavespeed_qwen_async._retry import Retry
from wavespeed_qwen_async._tasks import Tasks
from wavespeed_qwen_async._transport import Timeout, Transport
from wavespeed_qwen_async.limits import Limits
from wavespeed_qwen_async.media import Media
from wavespeed_qwen_async.predictions import Output

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

KEY = "wsk_test_0123456789"
Behaviour = str


def picture(seed: int = 0, size: tuple[int, int] = (64, 48), kind: str = "png", **options: Any) -> bytes:
    """A small image whose bytes depend on the seed."""
    rng = random.Random(seed)
    small = Image.frombytes("RGB", (8, 8), rng.randbytes(192))
    target = io.BytesIO()
    small.resize(size).save(target, kind, **options)
    return target.getvalue()


def padded_png(seed: int, extra: int) -> bytes:
    """A PNG with `extra` random bytes in a chunk that readers ignore."""
    data = _PNG
    body = b"teSt" + random.Random(seed).randbytes(extra)
    chunk = struct.pack(">I", extra) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


_PNG = picture()


@dataclass
class Seen:
    host: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class World:
    """Both servers, what they hold and what they saw."""

    api_url: str = ""
    media_url: str = ""
    seen: list[Seen] = field(default_factory=list)
    outputs: dict[str, bytes] = field(default_factory=dict)
    """By path on the media host."""
    fresh: dict[str, list[str]] = field(default_factory=dict)
    """Outputs of each prediction id, as the API tells them."""
    uploaded: dict[str, bytes] = field(default_factory=dict)
    scripts: dict[str, list[Behaviour]] = field(default_factory=lambda: defaultdict(list))
    """By path, or by `ticket`, `put`, `binary`, `result`: what the next requests meet; then all goes well."""
    chance: Callable[[], Behaviour] = lambda: "ok"
    etags: bool = True
    gate: asyncio.Event | None = None
    """Uploads wait for it, where it is set."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def to(self, part: str) -> list[Seen]:
        return [seen for seen in self.seen if part in seen.path]

    def behaviour(self, *names: str) -> Behaviour:
        for name in names:
            if self.scripts[name]:
                return self.scripts[name].pop(0)
        return "ok"

    def add(self, name: str, data: bytes, prediction_id: str = "") -> Output:
        self.outputs[f"/out/{name}"] = data
        url = f"{self.media_url}/out/{name}"
        if prediction_id:
            self.fresh[prediction_id] = [url]
        return Output(url, prediction_id=prediction_id)


def _envelope(data: Any, code: int = 200) -> web.Response:
    return web.json_response({"code": code, "message": "success", "data": data}, status=200)


async def _note(world: World, host: str, request: web.Request, body: bytes = b"") -> None:
    world.seen.append(Seen(host, request.method, request.path_qs, dict(request.headers), body))


def _api(world: World) -> web.Application:
    async def ticket(request: web.Request) -> web.StreamResponse:
        wanted = await request.json()
        await _note(world, "api", request, await request.read())
        match world.behaviour("ticket"):
            case "ok":
                number = len(world.to("/media/uploads"))
                return _envelope(
                    {
                        "download_url": f"{world.media_url}/files/{number}-{wanted['filename']}",
                        "upload": {
                            "method": "PUT",
                            "url": f"{world.media_url}/put/{number}-{wanted['filename']}?signature=secret",
                            "headers": {"Content-Type": wanted["content_type"], "x-amz-meta": "a"},
                        },
                    }
                )
            case status:
                return web.json_response({"code": int(status), "message": "no"}, status=int(status))

    async def binary(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file: Any = form["file"]
        data = file.file.read()
        await _note(world, "api", request, data)
        behaviour = world.behaviour("binary")
        if behaviour != "ok":
            return web.Response(status=int(behaviour))
        path = f"/files/{file.filename}"
        world.uploaded[path] = data
        return _envelope({"type": "image", "download_url": world.media_url + path, "filename": file.filename})

    async def result(request: web.Request) -> web.StreamResponse:
        await _note(world, "api", request)
        behaviour = world.behaviour("result")
        if behaviour != "ok":
            return web.Response(status=int(behaviour))
        prediction_id = request.match_info["id"]
        return _envelope({"id": prediction_id, "status": "completed", "outputs": world.fresh[prediction_id]})

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/api/v3/media/uploads", ticket)
    app.router.add_post("/api/v3/media/upload/binary", binary)
    app.router.add_get("/api/v3/predictions/{id}/result", result)
    return app


def _media(world: World) -> web.Application:
    async def put(request: web.Request) -> web.StreamResponse:
        if world.gate is not None:
            await world.gate.wait()
        data = await request.read()
        await _note(world, "media", request, data)
        behaviour = world.behaviour("put")
        if behaviour == "drop":
            assert request.transport is not None
            request.transport.abort()
        elif behaviour != "ok":
            return web.Response(status=int(behaviour))
        world.uploaded[request.path.replace("/put/", "/files/")] = data
        return web.Response()

    async def get(request: web.Request) -> web.StreamResponse:
        await _note(world, "media", request)
        data = world.outputs.get(request.path, world.uploaded.get(request.path))
        behaviour = world.behaviour(request.path, "get")
        if behaviour == "ok":
            behaviour = world.chance()
        if data is None:
            behaviour = "404" if behaviour == "ok" else behaviour
        return await BEHAVIOURS.get(behaviour, _status)(world, request, data or b"", behaviour)

    app = web.Application(client_max_size=2**26)
    app.router.add_put("/put/{name}", put)
    app.router.add_get("/{tail:.*}", get)
    return app


async def _status(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    if behaviour.startswith(("http://", "https://", "file:", "ftp:")):
        return web.Response(status=302, headers={"Location": behaviour})
    return web.Response(status=int(behaviour), text="<html>nothing here</html>")


async def _ok(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    headers = {"Content-Type": "image/png"}
    if world.etags:
        headers["ETag"] = f'"{zlib.crc32(data)}"'
    start = request.http_range.start
    if start and world.etags and request.headers.get("If-Range") == headers["ETag"]:
        if start >= len(data):
            return web.Response(status=416)
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return web.Response(status=206, headers=headers, body=data[start:])
    return web.Response(headers=headers, body=data)


async def _partly(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    """Half of what was promised: then the connection goes ("cut") or nothing more comes ("stall")."""
    headers = {"Content-Length": str(len(data)), "Content-Type": "image/png"}
    if world.etags:
        headers["ETag"] = f'"{zlib.crc32(data)}"'
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(data[: len(data) // 2])
    if behaviour == "stall":
        await world.over.wait()
    await asyncio.sleep(0.01)
    if request.transport is not None:
        request.transport.abort()
    return response


async def _mute(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    """A connection, and no answer."""
    await world.over.wait()
    return web.Response()


async def _trickle(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    """Whole and right, a hundredth every ten seconds."""
    response = web.StreamResponse(headers={"Content-Length": str(len(data)), "Content-Type": "image/png"})
    await response.prepare(request)
    step = len(data) // 100 + 1
    for start in range(0, len(data), step):
        await response.write(data[start : start + step])
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await world.over.wait()
                break
    return response


async def _wrong_length(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    """A Content-Length that fits what is sent, which is not the whole: no part of HTTP tells."""
    headers = {"ETag": f'"{zlib.crc32(data)}"'} if world.etags else {}
    return web.Response(body=data[: len(data) * 2 // 3], content_type="image/png", headers=headers)


async def _html(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    return web.Response(text="<html><body>Please wait</body></html>" * 9, content_type="text/html")


async def _wrong_range(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    headers = {"Content-Range": f"bytes 7-{len(data) - 1}/{len(data)}", "ETag": f'"{zlib.crc32(data)}"'}
    return web.Response(status=206, body=data[7:], headers=headers)


async def _long_range(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    """More than the rest, without a length that would tell."""
    start = request.http_range.start or 0
    headers = {"ETag": f'"{zlib.crc32(data)}"', "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
    response = web.StreamResponse(status=206 if start else 200, headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(data[start:] + b"and more")
    await response.write_eof()
    return response


async def _html_range(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    """A gateway's page under the headers of the rest, which is cut before its end."""
    start = request.http_range.start or 0
    headers = {"ETag": f'"{zlib.crc32(data)}"'}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    page = b"<html>Please wait</html>" * 99
    response = web.StreamResponse(status=206 if start else 200, headers=headers)
    response.content_length = len(page) + (500 if behaviour == "cut-html-range" else 0)
    await response.prepare(request)
    await response.write(page)
    if behaviour == "cut-html-range" and request.transport is not None:
        await asyncio.sleep(0.01)
        request.transport.abort()
    return response


async def _gzip(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    """Compressed, though nobody asked for it."""
    headers = {"Content-Encoding": "gzip", "ETag": '"1"'}
    return web.Response(body=gzip.compress(data, 1), headers=headers)


async def _weak(world: World, request: web.Request, data: bytes, behaviour: str) -> web.StreamResponse:
    """Half, with a version that promises no equal bytes."""
    response = web.StreamResponse(headers={"ETag": 'W/"1"', "Content-Length": str(len(data))})
    await response.prepare(request)
    await response.write(data[: len(data) // 2])
    await asyncio.sleep(0.01)
    if request.transport is not None:
        request.transport.abort()
    return response


BEHAVIOURS: dict[str, Callable[[World, web.Request, bytes, str], Awaitable[web.StreamResponse]]] = {
    "ok": _ok,
    "cut": _partly,
    "stall": _partly,
    "mute": _mute,
    "trickle": _trickle,
    "wrong-length": _wrong_length,
    "html": _html,
    "wrong-range": _wrong_range,
    "html-range": _html_range,
    "gzip": _gzip,
    "weak": _weak,
    "long-range": _long_range,
    "cut-html-range": _html_range,
}


@asynccontextmanager
async def serving() -> AsyncIterator[World]:
    """Both servers."""
    world = World()
    runners = []
    for name, app in (("api", _api(world)), ("media", _media(world))):
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        runners.append(runner)
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        setattr(world, f"{name}_url", url)
    try:
        yield world
    finally:
        world.over.set()
        for runner in runners:
            await runner.cleanup()


@dataclass
class Client:
    """Everything that a session makes around its media."""

    media: Media
    tasks: Tasks
    api: Api


@asynccontextmanager
async def client(
    world: World, *, retry: Retry | None = None, downloads: int = 32, **options: Any
) -> AsyncIterator[Client]:
    """Media as a session makes them."""
    transport = Transport(api_key=KEY, base_url=world.api_url, timeout=Timeout(read=20.0))
    limits = Limits(max_per_minute=3000, max_in_flight=3000, downloads=downloads)
    api = Api(transport, limits, retry=retry or Retry(), rng=random.Random(5))
    tasks = Tasks()
    media = Media(api, tasks, **options)
    await transport.open()
    try:
        yield Client(media, tasks, api)
    finally:
        await media.close()
        await tasks.close()
        await api.exchanges.close()
        await transport.close()
