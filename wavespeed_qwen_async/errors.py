"""Every error that this library raises, sorted by one question: may money have moved?

::

    WaveSpeedError
    |-- ConfigurationError           no key, a base URL that is none, a bad option              billed no
    |-- InvalidJobError              a job that cannot be sent (also a ValueError)              billed no
    |-- BudgetError                  the next image would cost more than the budget leaves      billed no
    |-- SessionClosedError           the session was closed first                               billed no
    |-- RequestError                 an HTTP exchange that gave no usable answer
    |   |-- NotSentError             it never left this machine: refused, DNS, no connection    billed no
    |   |-- LostAnswerError          a read was sent and its answer lost or too late
    |   |-- InvalidResponseError     a read's answer that cannot be understood
    |   |-- ServerError              5xx to a read
    |   |-- BadRequestError          400 and every other 4xx                                    billed no
    |   |   |-- AuthenticationError  401, a wrong key                                           billed no
    |   |   |-- InsufficientCreditsError  402, or a message that says so                        billed no
    |   |   |-- PermissionDeniedError     403, a problem of the account                         billed no
    |   |   |-- NotFoundError        404
    |   |   |-- PayloadTooLargeError 413                                                        billed no
    |   |   `-- RateLimitError       429                                                        billed no
    |   |-- LimitsBrokenError        refused again and again: the breaker ended the run         billed no
    |   `-- SubmissionUnknown        sent, and no answer tells whether it was accepted          billed unknown
    |-- PredictionError              there is a prediction id                                   billed yes
    |   |-- ResultTimeout            not finished in time; it goes on, ask for it by id
    |   |-- ResultUnavailable        the API no longer knows the id, or its outputs are gone
    |   |-- ContentFlaggedError      an output is flagged NSFW and ``nsfw="fail"`` was asked for
    |   `-- PredictionFailed         ended without an image; refunded within 3 hours
    |       |-- ContentModerated     code 1200
    |       |-- MissingParameter     code 1400
    |       |-- InvalidParameter     code 1401
    |       |-- MediaUnreachable     code 1402
    |       |-- TaskFailed           codes 1403 and 1405
    |       |-- TaskInternalError    code 5000
    |       |-- TaskUnavailable      code 5003
    |       |-- TaskTimeout          code 5004
    |       `-- PredictionCancelled  status cancelled, deleted
    `-- MediaError                   moving pictures
        |-- UploadError              a source image did not reach the API                       billed no
        `-- DownloadError            an output could not be fetched or saved; it is still paid  billed yes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .models import Job

__all__ = [
    "AuthenticationError",
    "BadRequestError",
    "Billed",
    "BudgetError",
    "ConfigurationError",
    "ContentFlaggedError",
    "ContentModerated",
    "DownloadError",
    "InsufficientCreditsError",
    "InvalidJobError",
    "InvalidParameter",
    "InvalidResponseError",
    "LimitsBrokenError",
    "LostAnswerError",
    "MediaError",
    "MediaUnreachable",
    "MissingParameter",
    "NotFoundError",
    "NotSentError",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PredictionCancelled",
    "PredictionError",
    "PredictionFailed",
    "RateLimitError",
    "RequestError",
    "ResultTimeout",
    "ResultUnavailable",
    "ServerError",
    "SessionClosedError",
    "SubmissionUnknown",
    "TaskFailed",
    "TaskInternalError",
    "TaskTimeout",
    "TaskUnavailable",
    "UploadError",
    "WaveSpeedError",
]

Billed = Literal["no", "yes", "unknown"]


def _restore(cls: type[WaveSpeedError], args: tuple[Any, ...], state: dict[str, Any]) -> WaveSpeedError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class WaveSpeedError(Exception):
    """Base of every error of this library.

    Attributes:
        billed: ``"no"``: never accepted, may be sent again. ``"yes"``: there is a prediction, only ever ask
            for it again. ``"unknown"``: sent, no answer; never sent again blindly.
        transient: The same call may succeed later, unchanged.
        prediction_id: The prediction that this is about, where there is one.
        job: The job that this is about, where there is one.
        status: HTTP status of the answer, where there was one.
        code: Code of the API: of the answer's envelope, or of the task (1200, 1402, 5004, ...).
        retry_after: Seconds that the server asked to wait, where it did.
        request_id: What the server calls the request, for its support.
    """

    billed: Billed = "no"
    transient: bool = False

    def __init__(
        self,
        message: str,
        *,
        billed: Billed | None = None,
        prediction_id: str | None = None,
        job: Job | None = None,
        status: int | None = None,
        code: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        if billed is not None:
            self.billed = billed
        self.prediction_id = prediction_id
        self.job = job
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.request_id = request_id

    @property
    def message(self) -> str:
        """What happened and what to do about it, in one line."""
        return str(self.args[0]) if self.args else type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


class ConfigurationError(WaveSpeedError):
    """The session can't work as it is set up: no key, a base URL that is none, an option out of range."""


class InvalidJobError(WaveSpeedError, ValueError):
    """A job that can't be sent as it is. Nothing was sent, nothing is billed.

    Attributes:
        field: The parameter at fault, ``"loras[1].scale"`` for one inside another; empty for the job itself.
    """

    def __init__(self, message: str, *, field: str = "", **known: Any) -> None:
        super().__init__(message, **known)
        self.field = field


class BudgetError(WaveSpeedError):
    """The next image would cost more than the budget leaves; it was not sent."""


class SessionClosedError(WaveSpeedError):
    """The session is closed, was never entered, or was opened on another event loop."""


class RequestError(WaveSpeedError):
    """An HTTP exchange that gave no usable answer."""


class NotSentError(RequestError):
    """The request never left this machine: connection refused, DNS failure, no connection in time."""

    transient = True


class LostAnswerError(RequestError):
    """A read was sent; its answer was lost or came too late. Reads cost nothing and are asked again."""

    transient = True


class InvalidResponseError(RequestError):
    """A read's answer that can't be understood: HTML, truncated JSON, a shape nobody knows."""

    transient = True


class ServerError(RequestError):
    """The server answered a read with 5xx."""

    transient = True


class BadRequestError(RequestError):
    """The server refused the request as it is (400 and every 4xx without a class of its own)."""


class AuthenticationError(BadRequestError):
    """401: the API key is wrong or revoked."""


class InsufficientCreditsError(BadRequestError):
    """402, or a refusal that says so: the account's balance does not cover the image."""


class PermissionDeniedError(BadRequestError):
    """403: the account may not do this."""


class NotFoundError(BadRequestError):
    """404: no such prediction, model or path."""


class PayloadTooLargeError(BadRequestError):
    """413: the request or file is larger than the API takes."""


class RateLimitError(BadRequestError):
    """429: more images a minute than the account's tier allows."""

    transient = True


class LimitsBrokenError(RequestError):
    """The server went on refusing for so long that the run was ended; everything can be resumed."""


class SubmissionUnknown(RequestError):
    """A submit was sent and nothing tells whether it was accepted. Never send it again blindly."""

    billed: Billed = "unknown"


class PredictionError(WaveSpeedError):
    """Something about a prediction that exists: it is billed, only ever ask for it again."""

    billed: Billed = "yes"


class ResultTimeout(PredictionError):
    """The prediction was not finished in time. It goes on and is billed: ask for it again by its id."""

    transient = True


class ResultUnavailable(PredictionError):
    """The API no longer knows the prediction, or its outputs are gone (both are kept for 7 days)."""


class ContentFlaggedError(PredictionError):
    """An output is flagged as NSFW, and ``nsfw="fail"`` was asked for. The image is billed."""


class PredictionFailed(PredictionError):
    """The task ended without an image. It was billed and is refunded within 3 hours, per the vendor's pages."""


class ContentModerated(PredictionFailed):
    """Code 1200: prompt or image was refused by content moderation; it must change."""


class MissingParameter(PredictionFailed):
    """Code 1400: a required parameter was missing."""


class InvalidParameter(PredictionFailed):
    """Code 1401: a parameter was refused."""


class MediaUnreachable(PredictionFailed):
    """Code 1402: the source image's or LoRA's URL could not be fetched by the server, at that time."""

    transient = True


class TaskFailed(PredictionFailed):
    """Codes 1403 and 1405: the task failed."""


class TaskInternalError(PredictionFailed):
    """Code 5000: an internal error of the server; the same job may work later."""

    transient = True


class TaskUnavailable(PredictionFailed):
    """Code 5003: the model was not available; the same job may work later."""

    transient = True


class TaskTimeout(PredictionFailed):
    """Code 5004: the task took longer than the server allows; the same job may work later."""

    transient = True


class PredictionCancelled(PredictionFailed):
    """The prediction was cancelled or deleted on the server."""


class MediaError(WaveSpeedError):
    """Moving pictures to or from the API failed."""


class UploadError(MediaError):
    """A source image did not reach the API. No image was submitted, so none is billed."""


class DownloadError(MediaError):
    """An output could not be fetched or saved. The image is paid and kept by the API for 7 days: fetch it again."""

    billed: Billed = "yes"
