"""Predictions and outcomes out: all that the API is known to send, tolerant of what it may send tomorrow."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, WrapValidator
from pydantic_core import core_schema

from .errors import DownloadError, WaveSpeedError

if TYPE_CHECKING:
    import builtins
    import os
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from PIL.Image import Image as PILImage
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from .models import Job

__all__ = ["FINAL_STATUSES", "Fetcher", "Outcome", "Output", "Prediction"]

# `created` and `processing` go on; a status that nobody knows is taken to go on too (wavespeed-api.md, statuses).
FINAL_STATUSES = frozenset({"completed", "failed", "cancelled", "timeout", "deleted"})
_FIRST_YEAR, _LAST_YEAR = 1971, 9998  # those a datetime can be moved by hours and a week from, either way

_set_slot = object.__setattr__  # predictions are frozen for everybody else

# The first bytes of the formats that the models make; nothing else is handed to a notebook as a picture.
_SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png", b"RIFF": "image/webp"}

KNOWN_STATUSES = FINAL_STATUSES | {"created", "processing"}


class Fetcher(Protocol):
    """What an output needs to be saved or read: a session."""

    async def save_output(self, output: Output, path: str | os.PathLike[str]) -> Path:
        """Write the output to ``path``, whole or not at all."""

    async def read_output(self, output: Output) -> bytes:
        """The output's bytes."""

    async def open_output(self, output: Output) -> PILImage:
        """The output as a PIL image."""


@dataclass(frozen=True, slots=True)
class Output:
    """One image of a prediction.

    Attributes:
        url: Where the image is, for 7 days; None where it came as base64.
        base64: The image as base64 text, where ``enable_base64_output`` asked for it.
        nsfw: Whether it was flagged; None where the API does not say.
        index: Its place among the prediction's outputs, from 0.
        prediction_id: The prediction that it belongs to.
    """

    url: str | None
    base64: str | None = field(default=None, repr=False)
    nsfw: bool | None = None
    index: int = 0
    prediction_id: str = ""
    _prediction: Prediction | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Output, (self.url, self.base64, self.nsfw, self.index, self.prediction_id)

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the image: fetched, verified, and put under ``path`` whole or not at all.

        Raises:
            DownloadError: It could not be fetched or written; it is still paid and kept for 7 days.
        """
        return await self._session().save_output(self, path)

    async def bytes(self) -> builtins.bytes:
        """The image's bytes, as the server made them."""
        return await self._session().read_output(self)

    async def pil(self) -> PILImage:
        """The image as a PIL image; needs the extra ``[images]``."""
        return await self._session().open_output(self)

    def decoded(self) -> builtins.bytes | None:
        """The bytes of an output that came as base64, None for one that came as a URL.

        Raises:
            DownloadError: The text is not base64.
        """
        if self.base64 is None:
            return None
        try:
            return base64.b64decode(self.base64, validate=True)
        except (binascii.Error, ValueError):
            raise DownloadError("the output is no valid base64", prediction_id=self.prediction_id) from None

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """What a notebook shows: the image, if it is at hand, else a link to it that the reader's browser follows."""
        return {"text/plain": repr(self)} | self._picture()

    def _picture(self) -> dict[str, str]:
        """Nothing is fetched here, and no text of the server's becomes markup."""
        try:
            data = self.decoded() or b""
        except DownloadError:
            data = b""
        for signature, kind in _SIGNATURES.items():
            if data.startswith(signature):
                return {kind: base64.b64encode(data).decode()}
        if self.url is None or not _is_web(self.url):
            return {}
        job = self._prediction.job if self._prediction is not None else None
        import html  # noqa: PLC0415 - it brings a table of all entities, and few show pictures in a notebook

        source, alt = html.escape(self.url), html.escape(job.prompt if job is not None else self.prediction_id)
        style = "max-width: min(100%, 512px); height: auto"
        return {"text/html": f'<img src="{source}" alt="{alt}" referrerpolicy="no-referrer" style="{style}">'}

    @property
    def prediction(self) -> Prediction | None:
        """The prediction that it is an output of; None for one made by hand, or after pickle."""
        return self._prediction

    def _session(self) -> Fetcher:
        fetcher = self._prediction.fetcher if self._prediction is not None else None
        if fetcher is None:
            raise DownloadError(
                "this output belongs to no open session: ask for it again by session.result(prediction_id)",
                prediction_id=self.prediction_id,
            )
        return fetcher


class _OrElse:
    """What is as documented is read without a call of Python; what is not is mended and tried again."""

    def __init__(self, mend: Callable[[Any], Any]) -> None:
        self._mend = mend

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        mended = core_schema.no_info_before_validator_function(self._mend, schema)
        return core_schema.union_schema([schema, mended], mode="left_to_right")


class _OrNone:
    """A detail that can't be read is left out; it must not cost the image."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


def _moment(value: Any, handler: Callable[[Any], Any]) -> Any:
    """Times are compared and reckoned with: one without a zone is taken to be UTC, one that can't be meant is none."""
    try:
        moment = handler(value)
    except ValueError:
        return None
    if not isinstance(moment, datetime) or not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _is_web(url: str) -> bool:
    try:
        return urlsplit(url).scheme in {"http", "https"}
    except ValueError:
        return False


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        value = (value,)
    return tuple(item for item in value if _is_text(item)) if isinstance(value, list | tuple) else ()


def _is_text(value: Any) -> bool:
    """Half a surrogate pair, which JSON can write, is no character and can't be sent or stored."""
    return isinstance(value, str) and (
        value.isascii() or value.encode("utf-8", "replace") == value.encode("utf-8", "surrogatepass")
    )


def _flags(value: Any) -> Any:
    if isinstance(value, bool):
        return (value,)
    return tuple(bool(item) for item in value) if isinstance(value, list | tuple) else ()


def _text(value: Any) -> Any:
    if value is None:
        return ""
    if not isinstance(value, str):
        try:
            value = str(value)
        except (RecursionError, ValueError):  # nested without end; a number of thousands of digits
            return ""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _nothing(_: Any) -> dict[str, Any]:
    return {}


class Prediction(BaseModel):
    """One task on the server, as its last answer told it.

    Attributes:
        id: Its id; all that is needed to ask for it again, also from another process.
        model: The model's whole name, ``""`` where the answer does not say.
        status: ``created``, ``processing``, ``completed``, ``failed``, ``cancelled``, ``timeout``, ``deleted``, or what
            the server may say tomorrow.
        outputs: The images; empty until completed.
        urls: Related endpoints, as the server gave them. Never asked: ids are.
        created_at: When the server made it, by the server's clock; None where unreadable.
        error: Why it failed, empty if it did not.
        code: The task's code (1200, 1402, 5004, ...); None where absent.
        timings: ``inference`` in milliseconds, and what else the server tells.
        inputs: What was sent, where the answer carries it (lists and webhooks do).
        job: The job that it was submitted for; None for one asked by id.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    id: Annotated[str, Field(min_length=1)]
    model: Annotated[str, _OrElse(_text)] = ""
    status: Annotated[str, _OrElse(_text)] = ""
    raw_outputs: Annotated[tuple[str, ...], _OrElse(_texts)] = Field(default=(), validation_alias="outputs", repr=False)
    has_nsfw_contents: Annotated[tuple[bool, ...], _OrElse(_flags)] = ()
    urls: Annotated[dict[str, Any], _OrElse(_nothing)] = Field(default_factory=dict, repr=False)
    created_at: Annotated[datetime | None, WrapValidator(_moment)] = None
    error: Annotated[str, _OrElse(_text)] = ""
    code: Annotated[int | None, _OrNone()] = None
    timings: Annotated[dict[str, Any], _OrElse(_nothing)] = Field(default_factory=dict)
    execution_time: Annotated[float | None, _OrNone()] = Field(
        default=None, validation_alias="executionTime", repr=False
    )
    inputs: Annotated[dict[str, Any] | None, _OrNone()] = Field(
        default=None, validation_alias=AliasChoices("inputs", "input"), repr=False
    )

    # Slots, not private attributes of pydantic's: those cost a third of the time that it takes to read an answer.
    __slots__ = ("_fetcher", "_job")

    @property
    def job(self) -> Job | None:
        """The job that it was submitted for, its seed drawn; None for a prediction asked by id."""
        return getattr(self, "_job", None)

    @property
    def fetcher(self) -> Fetcher | None:
        """The session that it came from, which fetches its images; None after pickle."""
        return getattr(self, "_fetcher", None)

    @property
    def finished(self) -> bool:
        """Whether its status will not change any more."""
        return self.status in FINAL_STATUSES

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.status == "completed"

    @property
    def settled(self) -> bool:
        """Whether nothing more will come: it has ended, and if it ended well its images are there.

        A server may say ``completed`` a moment before it tells the images; such an answer is asked for again.
        """
        return self.finished and bool(self.raw_outputs or not self.ok)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The images; empty until completed."""
        return tuple(self._output(index, text) for index, text in enumerate(self.raw_outputs))

    def _output(self, index: int, text: str) -> Output:
        flags = self.has_nsfw_contents
        nsfw = flags[index] if index < len(flags) else None
        if text.startswith(("http://", "https://")):
            return Output(text, None, nsfw, index, self.id, self)
        data = text.partition(",")[2] if text.startswith("data:") else text
        return Output(None, data, nsfw, index, self.id, self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """What a notebook shows: its images, as :class:`Output` shows each."""
        pictures = [output._picture() for output in self.outputs]  # noqa: SLF001 - of the same house
        linked = "\n".join(picture["text/html"] for picture in pictures if "text/html" in picture)
        at_hand = next((picture for picture in pictures if "text/html" not in picture), {})
        return {"text/plain": repr(self)} | ({"text/html": linked} if linked else at_hand)

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Save its only image to ``path``, whole or not at all.

        Raises:
            DownloadError: There is not exactly one image, or it could not be fetched or written.
        """
        outputs = self.outputs
        if len(outputs) != 1:
            todo = "save each of `outputs` by itself" if self.settled else "await it first, by session.result()"
            raise DownloadError(
                f"prediction {self.id} is {self.status} with {len(outputs)} images: {todo}", prediction_id=self.id
            )
        return await outputs[0].save(path)

    def bound(self, job: Job | None, fetcher: Fetcher | None) -> Self:
        """The same prediction, knowing its job and who can fetch its outputs. Changes it in place: it is young."""
        if job is not None:
            _set_slot(self, "_job", job)
        _set_slot(self, "_fetcher", fetcher)
        return self

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "job": self.job}  # a session can't be pickled, and need not be

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.bound(state.get("job"), None)

    def __copy__(self) -> Self:
        return super().__copy__().bound(self.job, self.fetcher)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return super().__deepcopy__(memo).bound(self.job, self.fetcher)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Prediction):
            return NotImplemented
        return self.__dict__ == other.__dict__ and self.__pydantic_extra__ == other.__pydantic_extra__

    def __hash__(self) -> int:
        return hash((self.id, self.status))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job of a stream ended: with a prediction or with an error, never with both or neither.

    Attributes:
        index: The job's place in the source, from 0.
        source: What the source gave: the job or mapping itself.
        job: The job as it was sent, its seed drawn; None where the source gave something that is none.
        prediction: The finished prediction, where it went well.
        error: Why not, where it did not; its ``billed`` says whether it was paid. To type checkers
            ``ok`` tells nothing: ask ``is not None`` of this or of ``prediction``, or use ``unwrap``.
        seconds: From the moment that the job was taken up to its end.
    """

    index: int
    source: Any = field(repr=False)
    job: Job | None = field(repr=False)
    prediction: Prediction | None = None
    error: WaveSpeedError | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there is a finished prediction."""
        return self.error is None

    def unwrap(self) -> Prediction:
        """The prediction.

        Raises:
            WaveSpeedError: the outcome's error, where there is one.
        """
        if self.error is not None:
            raise self.error
        assert self.prediction is not None  # noqa: S101 - no error means a prediction
        return self.prediction
