"""A job into an HTTP request, purely: what is sent to the API, byte for byte. Nothing here does I/O."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote

from pydantic_core import to_json

from .models import takes_several

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .models import Job

__all__ = [
    "MAX_PAGE_SIZE",
    "Request",
    "balance_request",
    "delete_request",
    "inputs_of",
    "list_request",
    "multipart_upload_path",
    "price_request",
    "result_request",
    "submit_request",
    "ticket_request",
    "unit_price_request",
    "webhook_secret_request",
]

API = "/api/v3/"
MAX_PAGE_SIZE = 100

_OPTIONAL = ("size", "loras", "seed", "output_format", "enable_sync_mode", "enable_base64_output")


class Request(NamedTuple):
    """One HTTP request to the API, whole but for base URL and key.

    ``kind`` says what a lost answer means: a ``submit`` may have been accepted and billed, a ``read`` costs nothing
    and may be asked again.
    """

    method: Literal["GET", "POST"]
    path: str
    body: bytes | None = None
    query: tuple[tuple[str, str], ...] = ()
    kind: Literal["submit", "read"] = "read"


def submit_request(job: Job, sources: Sequence[str] = (), *, webhook: str | None = None) -> Request:
    """The submit of a job. ``sources`` are the URLs of an edit's source images."""
    query = () if webhook is None else (("webhook", webhook),)
    return Request("POST", API + job.model_id, _encode(inputs_of(job, sources)), query, "submit")


def inputs_of(job: Job, sources: Sequence[str] = ()) -> dict[str, Any]:
    """The parameters as they are sent; what the user left out is left out."""
    body: dict[str, Any] = {"prompt": job.prompt}
    if sources and takes_several(job.model):
        body["images"] = list(sources)
    elif sources:
        body["image"] = sources[0]
    for name in _OPTIONAL:
        value = getattr(job, name)
        if value is not None:
            body[name] = value
    if job.size is not None:
        body["size"] = str(job.size)
    if job.loras is not None:
        body["loras"] = [{"path": lora.path, "scale": lora.scale} for lora in job.loras]
    return body


def result_request(prediction_id: str) -> Request:
    """The question how a prediction stands."""
    return Request("GET", f"{API}predictions/{quote(prediction_id, safe='')}/result")


def list_request(
    *,
    page: int = 1,
    page_size: int = MAX_PAGE_SIZE,
    model: str | None = None,
    status: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    include_inputs: bool = False,
) -> Request:
    """One page of the account's predictions of the last 7 days, newest first.

    ``include_inputs`` asks for what was sent, too: the vendor's command line sends it; its pages don't name it.
    """
    body: dict[str, Any] = {"page": page, "page_size": page_size}
    if include_inputs:
        body["include_inputs"] = True
    if model is not None:
        body["model"] = model
    if status is not None:
        body["status"] = status
    if created_after is not None:
        body["created_after"] = _iso(created_after)
    if created_before is not None:
        body["created_before"] = _iso(created_before)
    return Request("POST", API + "predictions", _encode(body))


def delete_request(prediction_ids: Sequence[str]) -> Request:
    """Remove records of predictions; not documented to stop a running task or to refund it."""
    return Request("POST", API + "predictions/delete", _encode({"ids": list(prediction_ids)}))


def balance_request() -> Request:
    """The account's balance."""
    return Request("GET", API + "balance")


def price_request(model_id: str, inputs: Mapping[str, Any]) -> Request:
    """The price of one image with these inputs."""
    return Request("POST", API + "model/price", _encode({"model_id": model_id, "inputs": dict(inputs)}))


def unit_price_request(model_id: str, inputs: Mapping[str, Any]) -> Request:
    """The same by the older endpoint."""
    return Request("POST", API + "model/pricing", _encode({"model_id": model_id, "inputs": dict(inputs)}))


def ticket_request(filename: str, size: int, content_type: str) -> Request:
    """Ask where to put a file of ``size`` bytes."""
    body = {"filename": filename, "size": size, "content_type": content_type}
    return Request("POST", API + "media/uploads", _encode(body))


def multipart_upload_path() -> str:
    """The older upload endpoint, which takes the file itself as multipart field ``file``."""
    return API + "media/upload/binary"


def webhook_secret_request() -> Request:
    """The secret by which webhooks are signed."""
    return Request("GET", API + "webhook/secret")


def _encode(body: Mapping[str, Any]) -> bytes:
    return to_json(body)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
