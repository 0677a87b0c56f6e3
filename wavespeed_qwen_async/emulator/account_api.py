"""The API's smaller endpoints: balance, prices, models, billings, usage, the webhook secret, both upload flows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .clock import iso
from .origin import Endpoint, Origin, read_json, success
from .schema import MODELS
from .service import RefusalError
from .uploads import Upload, is_taken, limit_for

if TYPE_CHECKING:
    from aiohttp import BodyPartReader, web

    from .account import Billing
    from .faults import Plan

MONTH_NS: Final = 31 * 86_400 * 1_000_000_000
MAX_NAME: Final = 255


class AccountApi:
    """Endpoints of the API that are about the account and its files."""

    def __init__(self, origin: Origin) -> None:
        self._service = origin.service
        self.routes: dict[str, tuple[str, str, Endpoint]] = {
            "balance": ("GET", "balance", self.balance),
            "model/price": ("POST", "price", self.price),
            "model/pricing": ("POST", "price", self.pricing),
            "models": ("GET", "models", self.models),
            "billings/search": ("POST", "billings", self.billings),
            "user/usage_stats": ("POST", "usage", self.usage),
            "webhook/secret": ("GET", "secret", self.secret),
            "media/uploads": ("POST", "ticket", self.ticket),
            "media/upload/binary": ("POST", "upload", self.upload),
        }

    async def balance(self, _request: web.BaseRequest, _: str, _plan: Plan) -> bytes:
        """Tell the balance in dollars."""
        return success({"balance": self._service.account.balance(self._service.clock.now())})

    async def _model(self, request: web.BaseRequest) -> str:
        model = (await read_json(request)).get("model_id")
        if not isinstance(model, str) or model not in MODELS:
            raise RefusalError(404, f"model not found: {model}")
        return model

    async def price(self, request: web.BaseRequest, _: str, _plan: Plan) -> bytes:
        """Tell what a task would cost."""
        model = await self._model(request)
        price = self._service.account.price(model)
        return success(
            {
                "model_id": model,
                "price": price,
                "discounted_price": price,
                "discount_rate": 100,
                "currency": "USD",
            }
        )

    async def pricing(self, request: web.BaseRequest, _: str, _plan: Plan) -> bytes:
        """Tell what a task would cost, in the older form."""
        model = await self._model(request)
        price = self._service.account.price(model)
        return success({"model_id": model, "unit_price": price, "currency": "USD"})

    async def models(self, _request: web.BaseRequest, _: str, _plan: Plan) -> bytes:
        """Tell the models there are."""
        return success([self._describe(name) for name in MODELS])

    def _describe(self, name: str) -> dict[str, Any]:
        model = MODELS[name]
        schema = {
            "type": "object",
            "required": list(model.required),
            "properties": {field: {"title": field} for field in model.checks},
        }
        return {
            "model_id": name,
            "name": name,
            "type": model.kind,
            "base_price": self._service.account.price(name),
            "description": f"Emulated {model.kind} model.",
            "api_schema": {"api_schemas": [{"type": "model_run", "request_schema": schema}]},
        }

    async def billings(self, request: web.BaseRequest, _: str, _plan: Plan) -> bytes:
        """Tell the account's lines: by prediction, kind and time (milliseconds since the epoch)."""
        from .api import MAX_PAGE, page_number  # noqa: PLC0415 - the two halves of one API

        body = await read_json(request)
        page, size = page_number(body, "page", 1), page_number(body, "page_size", 10, MAX_PAGE)
        store, now = self._service.store, self._service.clock.now()
        wanted = body.get("prediction_uuids")
        if wanted is not None and not (isinstance(wanted, list) and all(isinstance(item, str) for item in wanted)):
            raise RefusalError(400, "prediction_uuids must be a list of ids", error_code=1401)
        rows = store if not wanted else [store.by_id[key] for key in wanted if key in store.by_id]
        lines = self._service.account.billings(rows, now)
        low, high = _milliseconds(body, "start_time"), _milliseconds(body, "end_time")
        kind = body.get("billing_type") or None
        lines = [
            line
            for line in lines
            if (kind is None or line.kind == kind)
            and (low is None or line.time_ns // 1_000_000 >= low)
            and (high is None or line.time_ns // 1_000_000 <= high)
        ]
        if body.get("sort") != "created_at ASC":
            lines.reverse()
        items = [_billing(line, now) for line in lines[(page - 1) * size : page * size]]
        return success({"page": page, "total": len(lines), "items": items})

    async def usage(self, request: web.BaseRequest, _: str, _plan: Plan) -> bytes:
        """Tell usage by model and day in a span of at most 31 days."""
        from .api import time_field  # noqa: PLC0415 - the two halves of one API

        body = await read_json(request)
        low, high = time_field(body, "start_time"), time_field(body, "end_time")
        if low is None or high is None or not 0 <= high - low <= MONTH_NS:
            raise RefusalError(400, "start_time and end_time must span at most 31 days", error_code=1401)
        model = body.get("model_uuid")
        rows = [
            row for row in self._service.store if low <= row.created_ns <= high and (not model or row.model == model)
        ]
        return success(self._service.account.usage(rows, self._service.clock.now()))

    async def secret(self, _request: web.BaseRequest, _: str, _plan: Plan) -> bytes:
        """Tell the secret that webhooks are signed with."""
        return success({"secret": self._service.settings.webhook_secret})

    async def ticket(self, request: web.BaseRequest, _: str, _plan: Plan) -> bytes:
        """Give a ticket for an upload: where to PUT the bytes, and where they will be found."""
        body = await read_json(request)
        name, size = body.get("filename"), body.get("size")
        kind = body.get("content_type", "application/octet-stream")
        if not isinstance(name, str) or not name or not isinstance(kind, str):
            raise RefusalError(400, "filename and content_type must be strings", error_code=1401)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise RefusalError(400, "size must be the number of bytes", error_code=1401)
        upload = self._new(name, kind, size)
        upload.ticket = self._service.new_id()
        self._service.uploads.add(upload)
        url = self._service.media_url + upload.path
        headers = {"Content-Type": kind}
        instruction = {"method": "PUT", "url": f"{url}?ticket={upload.ticket}", "headers": headers}
        return success({"download_url": url, "upload": instruction})

    async def upload(self, request: web.BaseRequest, _: str, _plan: Plan) -> bytes:
        """Take a file in one multipart request."""
        if not request.content_type.startswith("multipart/"):
            raise RefusalError(400, "the request must be multipart/form-data with a field 'file'")
        try:
            part = await _file_part(request)
            data = bytes(await part.read(decode=False)) if part is not None else b""
        except (ValueError, AssertionError, RuntimeError) as error:
            raise RefusalError(400, "the multipart body is broken") from error
        if part is None:
            raise RefusalError(400, "the field 'file' is missing", error_code=1400)
        kind = part.headers.get("Content-Type", "application/octet-stream")
        upload = self._new(part.filename or "upload", kind, len(data))
        upload.data = data
        self._service.uploads.add(upload)
        answer = {"type": kind.partition("/")[0], "download_url": self._service.media_url + upload.path}
        return success({**answer, "filename": upload.filename, "size": upload.size})

    def _new(self, name: str, kind: str, size: int) -> Upload:
        if not is_taken(kind):
            raise RefusalError(400, f"images of type {kind} are not taken", error_code=1401)
        if size > limit_for(kind):
            raise RefusalError(413, f"the file is larger than {limit_for(kind)} bytes")
        name = name.replace("\\", "/").rpartition("/")[2][-MAX_NAME:]
        name = name.encode("utf-8", "replace").decode() if name.strip(".") else "file"
        return Upload(self._service.new_id(), name, kind, size, self._service.clock.now())


async def _file_part(request: web.BaseRequest) -> BodyPartReader | None:
    from aiohttp import BodyPartReader  # noqa: PLC0415 - used in one place

    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if isinstance(part, BodyPartReader) and part.name == "file":
            return part
    return None


def _milliseconds(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RefusalError(400, f"{name} must be milliseconds since the epoch", error_code=1401)
    try:
        return int(value)
    except ValueError as error:
        raise RefusalError(400, f"{name} must be milliseconds since the epoch", error_code=1401) from error


def _billing(line: Billing, now: float) -> dict[str, Any]:
    row, when = line.prediction, iso(line.time_ns // 1_000_000 * 1_000_000)[:-7] + "Z"
    price = row.price / 1_000_000
    order = {"uuid": row.id[16:] + row.id[:16], "state": "done", "price": price, "origin_price": price}
    return {
        "uuid": line.uuid,
        "billing_type": line.kind,
        "price": price,
        "created_at": when,
        "updated_at": when,
        "order": order,
        "prediction": {"uuid": row.id, "model_uuid": row.model, "status": row.status(now)},
        "access_key_name": "emulator",
    }
