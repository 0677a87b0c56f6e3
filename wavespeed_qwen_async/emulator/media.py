"""The second origin: takes uploads by PUT, serves uploads and outputs, as a CDN would. Needs no key and wants none."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from aiohttp import web

from .ledger import KeyLeak
from .origin import SERVER, Origin, Route
from .service import RefusalError

if TYPE_CHECKING:
    from .faults import Plan
    from .outputs import Outputs
    from .service import Service

_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
TYPES: Final = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "safetensors": "application/octet-stream",
}


class Media(Origin):
    """Answers `/outputs/...` and `/uploads/...`."""

    def __init__(self, service: Service, outputs: Outputs) -> None:
        super().__init__(service)
        self.outputs = outputs

    def route(self, method: str, path: str) -> Route:
        """Find who answers a request."""
        folder, _, name = path[1:].partition("/")
        if folder == "outputs" and method in {"GET", "HEAD"}:
            return "download", self.download, name
        if folder == "uploads" and method in {"GET", "HEAD"}:
            return "source", self.source, name.partition("/")[0]
        if folder == "uploads" and method == "PUT":
            return "put", self.put, name.partition("/")[0]
        return "unknown", self.missing, "method" if folder in {"outputs", "uploads"} else ""

    def admit(self, request: web.BaseRequest, kind: str) -> None:  # noqa: ARG002 - everybody is let in
        """Write down any API key that comes here; everybody is let in."""
        ledger = self.service.ledger
        values = [*request.headers.values(), request.raw_path]
        if "Authorization" in request.headers or any(key in value for key in ledger.keys for value in values):
            ledger.key_leaks.append(KeyLeak(self.service.clock.now(), request.method, request.raw_path))

    async def download(self, request: web.BaseRequest, name: str, plan: Plan) -> web.StreamResponse:
        """Serve an output."""
        now = self.service.clock.now()
        prediction = self.service.finished_output(name, now)
        if prediction is None or ((hide := plan.find("hide")) is not None and now - prediction.end < hide["seconds"]):
            raise RefusalError(404, "no such output, or no longer")
        self.service.ledger.downloads[name] += 1
        data = await self.outputs.get(prediction)
        return self._serve(request, data, TYPES[prediction.output_format])

    async def source(self, request: web.BaseRequest, name: str, _plan: Plan) -> web.StreamResponse:
        """Serve an uploaded file."""
        upload = self.service.uploads.get(name, self.service.clock.now())
        if upload is None or upload.data is None:
            raise RefusalError(404, "no such upload, or no longer")
        return self._serve(request, upload.data, upload.content_type)

    async def put(self, request: web.BaseRequest, name: str, _plan: Plan) -> web.StreamResponse:
        """Take the bytes that a ticket was given for."""
        upload = self.service.uploads.ticket(name, self.service.clock.now())
        ticket = parse_qs(request.raw_path.partition("?")[2]).get("ticket", [""])[0]
        if upload is None or not upload.ticket or ticket != upload.ticket:
            raise RefusalError(403, "no such ticket")
        if request.headers.get("Content-Type", "") != upload.content_type:
            raise RefusalError(403, "the signature does not cover this Content-Type")
        data = await request.read()
        if len(data) != upload.size:
            raise RefusalError(400, f"the ticket is for {upload.size} bytes, {len(data)} came")
        upload.data = data
        return web.Response(headers=self._file_headers(data, upload.content_type), status=200)

    def _file_headers(self, data: bytes, content_type: str) -> dict[str, str]:
        clock = self.service.clock
        return {
            "Date": clock.http_date(clock.now()),
            "Server": SERVER,
            "Content-Type": content_type.replace("\r", "").replace("\n", "") or "application/octet-stream",
            "ETag": f'"{sha256(data).hexdigest()[:32]}"',
            "Accept-Ranges": "bytes",
        }

    def _serve(self, request: web.BaseRequest, data: bytes, content_type: str) -> web.Response:
        headers = self._file_headers(data, content_type)
        asked = request.headers.get("Range")
        if asked is None or request.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
            return web.Response(body=data, headers=headers)
        span = _span(asked, len(data))
        if span is None:
            return web.Response(body=data, headers=headers)
        low, high = span
        if low >= high:
            return web.Response(status=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {low}-{high - 1}/{len(data)}"
        return web.Response(status=206, body=data[low:high], headers=headers)


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """Read a `Range` header as [low, high); None if it is none that is understood, low >= high if it fits nothing."""
    match = _RANGE.match(asked.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size
