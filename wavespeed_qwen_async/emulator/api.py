"""The API's origin: submit, result, list, delete. Account and media questions are in `account_api`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from .account_api import AccountApi
from .clock import parse_iso
from .origin import Origin, Route, read_body, read_json, success
from .schema import MODELS
from .service import RefusalError
from .tasks import Prediction, Query

if TYPE_CHECKING:
    from aiohttp import web

    from .faults import Plan
    from .outputs import Outputs
    from .service import Service

ENVELOPE: Final = '{"code":200,"message":"success","data":'
MAX_PAGE: Final = 100


class Api(Origin):
    """Answers `<prefix>/api/v3/...` and the emulator's own control paths."""

    def __init__(self, service: Service, outputs: Outputs) -> None:
        super().__init__(service)
        self.outputs = outputs
        self._root = f"{service.settings.prefix}/api/v3/"
        self._control = "/__emulator__/"
        account = AccountApi(self)
        self._fixed: dict[str, tuple[str, Route]] = {
            self._root + path: (method, (kind, endpoint, path))
            for path, (method, kind, endpoint) in {
                "predictions": ("POST", "list", self.list_predictions),
                "predictions/delete": ("POST", "delete", self.delete),
                **dict.fromkeys(MODELS, ("POST", "submit", self.submit)),
                **account.routes,
            }.items()
        }
        self._results = f"{self._root}predictions/"
        from .control import Control  # noqa: PLC0415 - it needs this module's base

        self._controls = Control(self)

    def route(self, method: str, path: str) -> Route:
        """Find who answers a request."""
        if (found := self._fixed.get(path)) is not None:
            return found[1] if method == found[0] else ("unknown", self.missing, "method")
        if path.startswith(self._results) and method == "GET":
            name, _, tail = path[len(self._results) :].partition("/")
            if tail in {"", "result"}:
                return "result", self.result, name
        if path.startswith(self._control):
            return "control", self._controls.answer, path[len(self._control) :]
        return "unknown", self.missing, ""

    def admit(self, request: web.BaseRequest, kind: str) -> None:
        """Let requests with a good key in; the control paths need none."""
        if kind != "control":
            self.service.authorize(request.headers.get("Authorization"))

    async def submit(self, request: web.BaseRequest, model: str, plan: Plan) -> bytes:
        """Accept a task; in sync mode wait for its end."""
        body = await read_body(request)
        webhook = None
        if "?" in request.raw_path:
            webhook = parse_qs(request.raw_path.partition("?")[2]).get("webhook", [None])[0]
        prediction = self.service.accept(MODELS[model], body, webhook, plan)
        if b"enable_sync_mode" in body and prediction.inputs.get("enable_sync_mode"):
            return await self._sync(prediction)
        return await self._single(prediction, prediction.created, with_inputs=False)

    async def _sync(self, prediction: Prediction) -> bytes:
        settings = self.service.settings
        patience = settings.sync_timeout / settings.speed
        now = self.service.clock.now()
        await self.pause(min(prediction.end - now, patience))
        if prediction.end - now <= patience:
            ended = max(self.service.clock.now(), prediction.end)
            return await self._single(prediction, ended, with_inputs=settings.result_inputs)
        if settings.sync_ending == "504":
            raise RefusalError(504, "Gateway timeout")
        data = json.loads(self.describe(prediction, now))
        data |= {"status": "processing", "code": 5004, "error": "Sync mode timed out"}
        return success(data)

    async def result(self, _request: web.BaseRequest, name: str, plan: Plan) -> bytes:
        """Tell how a task stands."""
        now = self.service.clock.now()
        prediction = self.service.store.get(name, now)
        if prediction is None or ((hide := plan.find("hide")) and now - prediction.created < hide["seconds"]):
            raise RefusalError(404, "prediction not found")
        return await self._single(prediction, now, with_inputs=self.service.settings.result_inputs)

    async def _single(self, row: Prediction, now: float, *, with_inputs: bool) -> bytes:
        outputs = await self.base64(row, now) if row.base64 else None
        return f"{ENVELOPE}{self.describe(row, now, outputs, with_inputs=with_inputs)}}}".encode()

    async def base64(self, row: Prediction, now: float) -> str | None:
        """Return the outputs of a completed task as base64 in JSON, where that was asked for."""
        if not row.base64 or row.status(now) != "completed":
            return None
        return f'["{await self.outputs.text(row, prefix=self.service.settings.base64_prefix)}"]'

    def describe(
        self,
        row: Prediction,
        now: float,
        base64: str | None = None,
        *,
        with_inputs: bool = False,
        execution_time: bool = False,
    ) -> str:
        """Return a prediction as JSON, put together by hand: these are the emulator's hottest lines."""
        service, status = self.service, row.status(now)
        outputs, nsfw, error, code, took = base64 or "[]", "[]", '""', 0, 0
        if status == "completed":
            nsfw = "[true]" if row.nsfw else "[false]"
            if not row.base64:
                outputs = f'["{service.media_url}/outputs/{row.output_name}"]'
        if now >= row.end:
            took = row.inference_ms
            if row.outcome != "completed":
                error, code = json.dumps(row.error), row.code
        extra = f',"has_nsfw_contents":{nsfw},"code":{code}' if service.settings.optional_fields else ""
        if execution_time:
            extra += f',"executionTime":{took}'
        if with_inputs:
            extra += f',"{service.settings.inputs_key}":{row.body}'
        return (
            f'{{"id":"{row.id}","model":"{row.model}","outputs":{outputs},"urls":{{"get":"{service.api_url}'
            f'/api/v3/predictions/{row.id}/result"}},"status":"{status}","created_at":"{row.created_at}",'
            f'"error":{error},"timings":{{"inference":{took}}}{extra}}}'
        )

    async def list_predictions(self, request: web.BaseRequest, _: str, plan: Plan) -> bytes:
        """Tell a page of predictions, newest first."""
        body = await read_json(request)
        now = self.service.clock.now()
        lag = plan.find("lag")
        query = _query(body, now - (lag["seconds"] if lag is not None else 0.0))
        rows, total = self.service.store.page(query, now)
        if (gaps := plan.find("gaps")) is not None:
            rows = [row for row in rows if (row.number + 1) % gaps["one_in"]]
        wanted = body.get("include_inputs", self.service.settings.list_inputs == "always")
        told = wanted is not False and plan.find("without_inputs") is None
        as_of = query.as_of
        # A page of base64 images would be megabytes; the list leaves those outputs out, results have them.
        items = ",".join([self.describe(row, as_of, with_inputs=told, execution_time=True) for row in rows])
        return f'{ENVELOPE}{{"page":{query.page},"total":{total},"items":[{items}]}}}}'.encode()

    async def delete(self, request: web.BaseRequest, _: str, _plan: Plan) -> bytes:
        """Take predictions out of the account's records."""
        ids = (await read_json(request)).get("ids")
        if not isinstance(ids, list) or not ids or not all(isinstance(item, str) for item in ids):
            raise RefusalError(400, "ids must be a list of prediction ids", error_code=1401)
        return success({"deleted_count": self.service.store.delete(ids, self.service.clock.now())})


def page_number(body: dict[str, Any], name: str, default: int, high: int = 2**31) -> int:
    """Read a paging field.

    Raises:
        RefusalError: it is no whole number in range.
    """
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
        raise RefusalError(400, f"{name} must be a whole number from 1 to {high}", error_code=1401)
    return value


def time_field(body: dict[str, Any], name: str) -> int | None:
    """Read a field that holds an ISO time, as Unix nanoseconds.

    Raises:
        RefusalError: it is no time.
    """
    value = body.get(name)
    if value is None or value == "":
        return None
    try:
        return parse_iso(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        raise RefusalError(400, f"{name} must be an ISO 8601 time", error_code=1401) from error


def _query(body: dict[str, Any], as_of: float) -> Query:
    for name in ("model", "status"):
        if not isinstance(body.get(name), str | None):
            raise RefusalError(400, f"{name} must be a string", error_code=1401)
    return Query(
        page=page_number(body, "page", 1),
        page_size=page_number(body, "page_size", MAX_PAGE, MAX_PAGE),
        as_of=as_of,
        model=body.get("model") or None,
        status=body.get("status") or None,
        created_after=time_field(body, "created_after"),
        created_before=time_field(body, "created_before"),
    )
