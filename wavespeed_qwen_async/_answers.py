"""An HTTP answer of the API into a prediction, another value or an error, purely. Nothing here does I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeGuard

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from yarl import URL

from . import errors
from ._headers import retry_after
from .errors import InvalidResponseError, PredictionFailed, ServerError, SubmissionUnknown, WaveSpeedError
from .predictions import Prediction

if TYPE_CHECKING:
    from .models import Job

__all__ = [
    "Answer",
    "Price",
    "UploadTicket",
    "failure_of",
    "parsed",
    "read_balance",
    "read_deleted_count",
    "read_items",
    "read_page",
    "read_prediction",
    "read_price",
    "read_submit",
    "read_upload_ticket",
    "read_uploaded",
    "read_webhook_secret",
    "refusal_of",
]

_BY_STATUS: dict[int, type[WaveSpeedError]] = {
    401: errors.AuthenticationError,
    402: errors.InsufficientCreditsError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    413: errors.PayloadTooLargeError,
    429: errors.RateLimitError,
}
_BY_TASK_CODE: dict[int, type[PredictionFailed]] = {
    1200: errors.ContentModerated,
    1400: errors.MissingParameter,
    1401: errors.InvalidParameter,
    1402: errors.MediaUnreachable,
    1403: errors.TaskFailed,
    1405: errors.TaskFailed,
    5000: errors.TaskInternalError,
    5003: errors.TaskUnavailable,
    5004: errors.TaskTimeout,
}
_ADVICE: dict[int, str] = {
    401: "check WAVESPEED_API_KEY or api_key=",
    402: "top up the account",
    403: "see the account's page at wavespeed.ai",
    413: "send a smaller file or request",
    429: "set tier= or max_per_minute= to what the account really has",
}
_REFUSALS = range(400, 500)
_ESSENTIAL = ("id", "status", "outputs", "has_nsfw_contents", "error", "code", "created_at")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: names of methods and headers
_NO_NUMBER = (
    1e15  # no status, price or count of the API; NaN, infinity and numbers of 400 digits are valid JSON to Python
)


class Answer(NamedTuple):
    """One HTTP answer: its status, headers and whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Submitted(BaseModel):
    """The good answer to a submit, as far as it matters."""

    data: Prediction


@dataclass(frozen=True, slots=True)
class Price:
    """What one image costs.

    Attributes:
        amount: In ``currency``, after discounts.
        currency: ``"USD"`` unless the API says otherwise.
        full_amount: Before discounts.
        source: ``"api"``, or ``"pages"`` where the API gives none and the figure of its pages stands in.
    """

    amount: float
    currency: str = "USD"
    full_amount: float | None = None
    source: Literal["api", "pages"] = "api"


class UploadTicket(NamedTuple):
    """Where to put a file, and the URL that it will have then. The upload host must never see the key."""

    download_url: str
    method: str
    url: str
    headers: Mapping[str, str]


def read_submit(answer: Answer, job: Job | None = None) -> Prediction:
    """The prediction that a submit made.

    Raises:
        BadRequestError: (and its kin) refused, unbilled.
        SubmissionUnknown: nothing in the answer tells whether it was accepted: any 5xx, HTML, cut JSON, a redirect.
    """
    if answer.status not in _REFUSALS:
        try:  # from JSON in one go, which is a third of the work
            return _Submitted.model_validate_json(answer.body).data
        except ValidationError:
            pass
    envelope = _envelope(answer.body)
    prediction = _prediction_in(envelope)
    if prediction is not None and answer.status not in _REFUSALS:
        return prediction  # an id is the proof of acceptance, whatever stands around it (sync mode's 5004, a late 5xx)
    status = _effective_status(answer.status, envelope)
    if status in _REFUSALS and not (200 <= answer.status < 300 and _names_a_prediction(envelope)):
        raise refusal_of(answer, envelope=envelope, job=job)
    raise SubmissionUnknown(
        f"the submit was answered by {_shown(answer)}: it may have been accepted and billed",
        job=job,
        **_known(answer, envelope),
    )


def read_prediction(answer: Answer, prediction_id: str | None = None) -> Prediction:
    """The prediction in the answer to a result request. A failed one is a prediction too; see ``failure_of``."""
    prediction = _prediction_in(_checked(answer, prediction_id))
    if prediction is None or (prediction_id is not None and prediction.id != prediction_id):
        raise _unreadable(answer, prediction_id)
    return prediction


def read_page(answer: Answer) -> list[Prediction]:
    """The predictions of one page of the list, newest first; items that can't be read are left out."""
    return [prediction for prediction in read_items(answer) if prediction is not None]


def read_items(answer: Answer) -> list[Prediction | None]:
    """The items of one page of the list, newest first; None for each that can't be read."""
    data = _checked(answer).get("data")
    items = data.get("items", data.get("predictions", data.get("list"))) if isinstance(data, Mapping) else data
    if not isinstance(items, list):
        raise _unreadable(answer)
    return [_prediction_in({"data": item}) for item in items]


def read_balance(answer: Answer) -> float:
    """The balance in USD."""
    return _number(answer, "balance")


def read_price(answer: Answer) -> Price:
    """The price in the answer of either price endpoint."""
    data = _data(answer)
    full = data.get("price", data.get("unit_price"))
    amount = data.get("discounted_price")
    if not _is_number(amount):
        amount = full
    if not _is_number(amount):
        raise _unreadable(answer)
    return Price(float(amount), str(data.get("currency") or "USD"), float(full) if _is_number(full) else None)


def read_deleted_count(answer: Answer) -> int:
    """How many records were removed."""
    return int(_number(answer, "deleted_count"))


def read_upload_ticket(answer: Answer) -> UploadTicket:
    """The ticket of the current upload flow."""
    data = _data(answer)
    upload = data.get("upload")
    if (
        not isinstance(upload, Mapping)
        or not _is_web_url(upload.get("url"))
        or not _is_web_url(data.get("download_url"))
    ):
        raise _unreadable(answer)
    method, headers = upload.get("method") or "PUT", upload.get("headers") or {}
    if not _is_token(method) or not isinstance(headers, Mapping) or not all(map(_is_header, headers.items())):
        raise _unreadable(answer)
    return UploadTicket(data["download_url"], method, upload["url"], {name: str(headers[name]) for name in headers})


def read_uploaded(answer: Answer) -> str:
    """The URL of a file sent by the older upload flow."""
    url = _data(answer).get("download_url")
    if not _is_web_url(url):
        raise _unreadable(answer)
    return str(url)


def read_webhook_secret(answer: Answer) -> str:
    """The secret by which webhooks are signed."""
    data = _checked(answer).get("data")
    secret = data.get("secret", data.get("webhook_secret")) if isinstance(data, Mapping) else data
    if not isinstance(secret, str) or not secret:
        raise _unreadable(answer)
    return secret


def failure_of(prediction: Prediction) -> PredictionFailed | None:
    """The error that a finished prediction without an image stands for; None where it is completed or goes on."""
    if prediction.ok or not prediction.finished:
        return None
    kind = _BY_TASK_CODE.get(prediction.code or 0, PredictionFailed)
    if prediction.status in {"cancelled", "deleted"}:
        kind = errors.PredictionCancelled
    elif prediction.status == "timeout":
        kind = errors.TaskTimeout
    why = prediction.error or "the server gives no reason"
    code = f", code {prediction.code}" if prediction.code else ""
    return kind(
        _one_line(f"prediction {prediction.id} {prediction.status}{code}: {why}", 400),
        prediction_id=prediction.id,
        job=prediction.job,
        code=prediction.code,
    )


def refusal_of(
    answer: Answer,
    *,
    envelope: Mapping[str, Any] | None = None,
    job: Job | None = None,
    prediction_id: str | None = None,
) -> WaveSpeedError:
    """The error that an answer outside 2xx stands for, where it was no submit, or a submit refused with 4xx."""
    envelope = _envelope(answer.body) if envelope is None else envelope
    status = _effective_status(answer.status, envelope)
    kind = _BY_STATUS.get(status)
    if kind is None:
        kind = InvalidResponseError if status < 400 else errors.BadRequestError if status < 500 else ServerError
    text = _message(envelope)
    # The one place where a message is read: the vendor documents this refusal by its words only (wavespeed-api.md).
    if kind in {errors.BadRequestError, errors.PermissionDeniedError} and "insufficient credit" in text.lower():
        kind, status = errors.InsufficientCreditsError, 402
    advice = f" ({_ADVICE[status]})" if status in _ADVICE else ""
    return kind(
        f"HTTP {answer.status}: {text or 'no message'}{advice}",
        job=job,
        prediction_id=prediction_id,
        billed="yes" if prediction_id is not None else None,
        **_known(answer, envelope),
    )


def _checked(answer: Answer, prediction_id: str | None = None) -> dict[str, Any]:
    """The envelope of a good answer; anything else raises."""
    envelope = _envelope(answer.body)
    if not 200 <= answer.status < 300:
        raise refusal_of(answer, envelope=envelope, prediction_id=prediction_id)
    if not envelope:
        raise _unreadable(answer, prediction_id)
    if _effective_status(answer.status, envelope) >= 400:
        raise refusal_of(answer, envelope=envelope, prediction_id=prediction_id)
    return envelope


def _envelope(body: bytes) -> dict[str, Any]:
    value = parsed(body)
    return value if isinstance(value, dict) else {}


def parsed(body: bytes) -> Any:
    """What the JSON says, None where it is none. Half characters, which JSON can write, are replaced."""
    try:
        return from_json(body, cache_strings="keys")
    except ValueError:  # also a byte order mark, half characters and 200 levels, which the standard library reads
        try:
            return json.loads(json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None


def _effective_status(status: int, envelope: Mapping[str, Any]) -> int:
    """HTTP status, or the envelope's code where a 200 carries another one, which is an error too (wavespeed-api.md)."""
    code = envelope.get("code")
    if 200 <= status < 300 and _is_number(code) and code not in {200, 0}:
        return int(code) if 400 <= code < 600 else 500
    return status


def _prediction_in(envelope: Mapping[str, Any]) -> Prediction | None:
    data = envelope.get("data")
    if not isinstance(data, dict) or not data.get("id"):
        return None
    try:
        return Prediction.model_validate(data)
    except ValidationError:  # something else that it carries must not cost the id, which is paid
        pass
    try:
        return Prediction.model_validate({name: data[name] for name in _ESSENTIAL if name in data})
    except ValidationError:
        return None


def _names_a_prediction(envelope: Mapping[str, Any]) -> bool:
    """Whether it carries an id, readable or not."""
    data = envelope.get("data")
    return isinstance(data, dict) and bool(data.get("id"))


def _data(answer: Answer) -> Mapping[str, Any]:
    data = _checked(answer).get("data")
    if not isinstance(data, Mapping):
        raise _unreadable(answer)
    return data


def _number(answer: Answer, name: str) -> float:
    value = _data(answer).get(name)
    if not _is_number(value):
        raise _unreadable(answer)
    return float(value)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _NO_NUMBER


def _is_web_url(value: Any) -> bool:
    if not isinstance(value, str) or not value.startswith(("https://", "http://")) or not value.isprintable():
        return False
    try:
        return bool(URL(value).host)
    except ValueError:
        return False


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def _is_header(item: tuple[Any, Any]) -> bool:
    name, value = item
    return _is_token(name) and isinstance(value, str | int | float) and str(value).isprintable()


def _unreadable(answer: Answer, prediction_id: str | None = None) -> InvalidResponseError:
    return InvalidResponseError(
        f"the server's answer can't be understood: {_shown(answer)}",
        prediction_id=prediction_id,
        billed="yes" if prediction_id is not None else None,
        **_known(answer, {}),
    )


def _known(answer: Answer, envelope: Mapping[str, Any]) -> dict[str, Any]:
    code = envelope.get("error_code", envelope.get("code"))
    return {
        "status": answer.status,
        "code": code if _is_number(code) else None,
        "retry_after": retry_after(answer.headers),
        "request_id": answer.headers.get("X-Request-Id") or answer.headers.get("CF-Ray"),
    }


def _message(envelope: Mapping[str, Any]) -> str:
    text = envelope.get("message") or envelope.get("error") or envelope.get("detail") or ""
    try:
        return _one_line(text if isinstance(text, str) else json.dumps(text))
    except RecursionError:
        return ""


def _one_line(text: str, most: int = 300) -> str:
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= most else line[: most - 3] + "..."


def _shown(answer: Answer) -> str:
    kind = answer.headers.get("Content-Type", "no content type").partition(";")[0]
    return f"HTTP {answer.status}, {kind}, {len(answer.body)} bytes"
