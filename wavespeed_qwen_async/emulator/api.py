"""The API's origin: submit, result, list, delete. Account and media questions are in `account_api`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from .account_api import AccountApi
from .clock import iso, parse_iso
from .origin import Endpoint, Origin, Route, read_json
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
        self._fixed: dict[str, tuple[str, str, Endpoint]] = {
            "predictions": ("POST", "list", self.list_predictions),
            "predictions/delete": ("POST", "delete", self.delete),
            **account.routes,
        }
        from .control import Control  # noqa: PLC0415 - it needs this module's base

        self._controls = Control(self)

    def route(self, method: str, path: str) -> Route:
        """Find who answers a request."""
        if not path.startswith(self._root):
            if path.startswith(self._control):
                return "control", self._controls.answer, path[len(self._control) :]
            return "unknown", self.missing, ""
        rest = path[len(self._root) :]
        if rest in MODELS:
            return ("submit", self.submit, rest) if method == "POST" else ("unknown", self.missing, "method")
        if (found := self._fixed.get(rest)) is not None:
            wanted, kind, endpoint = found
            return (kind, endpoint, rest) if method == wanted else ("unknown", self.missing, "method")
        if rest.startswith("predictions/") and method == "GET":
            name, _, tail = rest[len("predictions/") :].partition("/")
            if tail in {"", "result"}:
                return "result", self.result, name
        return "unknown", self.missing, ""

    def admit(self, request: web.BaseRequest, kind: str) -> None:
        """Let requests with a good key in; the control paths need none."""
        if kind != "control":
            self.service.authorize(request.headers.get("Authorization"))

    async def submit(self, request: web.BaseRequest, model: str, plan: Plan) -> web.StreamResponse:
        """Accept a task; in sync mode wait for its end."""
        body = await request.read()
        webhook = None
        if "?" in request.raw_path:
            webhook = parse_qs(request.raw_path.partition("?")[2]).get("webhook", [None])[0]
        prediction = self.service.accept(MODELS[model], body, webhook, plan)
        if b"enable_sync_mode" in body and prediction.inputs.get("enable_sync_mode"):
            return await self._sync(prediction)
        outputs = await self.outputs_json(prediction, prediction.created)
        return self.reply(f"{ENVELOPE}{self.describe(prediction, prediction.created, outputs)}}}".encode())

    async def _sync(self, prediction: Prediction) -> web.StreamResponse:
        settings = self.service.settings
        patience = settings.sync_timeout / settings.speed
        now = self.service.clock.now()
        await self.pause(min(prediction.end - now, patience))
        if prediction.end - now <= patience:
            return self.reply(await self.envelope(prediction, max(self.service.clock.now(), prediction.end)))
        if settings.sync_ending == "504":
            raise RefusalError(504, "Gateway timeout")
        data = json.loads(self.describe(prediction, now, "[]"))
        data |= {"status": "processing", "code": 5004, "error": "Sync mode timed out"}
        return self.success(data)

    async def result(self, _request: web.BaseRequest, name: str, plan: Plan) -> web.StreamResponse:
        """Tell how a task stands."""
        now = self.service.clock.now()
        prediction = self.service.store.get(name, now)
        if prediction is None or ((hide := plan.find("hide")) and now - prediction.created < hide["seconds"]):
            raise RefusalError(404, "prediction not found")
        return self.reply(await self.envelope(prediction, now))

    async def envelope(self, prediction: Prediction, now: float) -> bytes:
        """Return a single result as JSON."""
        outputs = await self.outputs_json(prediction, now)
        extra = self.service.settings.result_inputs
        return f"{ENVELOPE}{self.describe(prediction, now, outputs, with_inputs=extra)}}}".encode()

    async def outputs_json(self, prediction: Prediction, now: float) -> str:
        """Return the outputs as JSON: a URL, or base64 text where that was asked for."""
        if prediction.status(now) != "completed":
            return "[]"
        if not prediction.base64:
            return f'["{self.service.media_url}/outputs/{prediction.output_name}"]'
        prefix = self.service.settings.base64_prefix
        return f'["{await self.outputs.text(prediction, prefix=prefix)}"]'

    def describe(
        self,
        row: Prediction,
        now: float,
        outputs: str,
        *,
        with_inputs: bool = False,
        execution_time: bool = False,
    ) -> str:
        """Return a prediction as JSON, put together by hand: this is the emulator's hottest line."""
        status = row.status(now)
        took = row.inference_ms(now)
        done = now >= row.end
        nsfw = ("[true]" if row.nsfw else "[false]") if status == "completed" else "[]"
        extra = f',"executionTime":{took}' if execution_time else ""
        if with_inputs:
            extra += f',"{self.service.settings.inputs_key}":{row.body.decode()}'
        return (
            f'{{"id":"{row.id}","model":"{row.model}","outputs":{outputs},"urls":{{"get":"{self.service.api_url}'
            f'/api/v3/predictions/{row.id}/result"}},"has_nsfw_contents":{nsfw},"status":"{status}","created_at":'
            f'"{iso(row.created_ns)}","error":{json.dumps(row.error) if done else _EMPTY},"code":'
            f'{row.code if done else 0},"timings":{{"inference":{took}}}{extra}}}'
        )

    async def list_predictions(self, request: web.BaseRequest, _: str, plan: Plan) -> web.StreamResponse:
        """Tell a page of predictions, newest first."""
        body = await read_json(request)
        now = self.service.clock.now()
        lag = plan.find("lag")
        query = _query(body, now - (lag["seconds"] if lag is not None else 0.0))
        rows, total = self.service.store.page(query, now)
        if (gaps := plan.find("gaps")) is not None:
            rows = [row for row in rows if (row.number + 1) % gaps["one_in"]]
        wanted = body.get("include_inputs", self.service.settings.list_inputs == "always")
        with_inputs = wanted is not False and plan.find("without_inputs") is None
        items = ",".join([await self._item(row, query.as_of, with_inputs=with_inputs) for row in rows])
        return self.reply(f'{ENVELOPE}{{"page":{query.page},"total":{total},"items":[{items}]}}}}'.encode())

    async def _item(self, row: Prediction, as_of: float, *, with_inputs: bool) -> str:
        # A page of base64 images would be megabytes; the list leaves those outputs out, results have them.
        outputs = "[]" if row.base64 else await self.outputs_json(row, as_of)
        return self.describe(row, as_of, outputs, with_inputs=with_inputs, execution_time=True)

    async def delete(self, request: web.BaseRequest, _: str, _plan: Plan) -> web.StreamResponse:
        """Take predictions out of the account's records."""
        ids = (await read_json(request)).get("ids")
        if not isinstance(ids, list) or not ids or not all(isinstance(item, str) for item in ids):
            raise RefusalError(400, "ids must be a list of prediction ids", error_code=1401)
        return self.success({"deleted_count": self.service.store.delete(ids, self.service.clock.now())})


_EMPTY: Final = '""'


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
