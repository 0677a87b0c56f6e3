"""What the session's arguments may be, read and checked in one place."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from ._inputs import is_url
from ._retry import Retry
from ._transport import Timeout
from .errors import ConfigurationError, InvalidJobError
from .limits import AccountTier, Limiter, Limits
from .media import Media
from .models import Job, invalid_job, takes_several
from .predictions import Output, Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .webhooks import WebhookReceiver

__all__ = [
    "WaitMode",
    "as_timeout",
    "checked_media",
    "checked_on_unknown",
    "checked_retry",
    "checked_wait",
    "chosen_limits",
    "id_of",
    "made",
    "output_of",
    "seconds",
    "sources_of",
]

WaitMode = Literal["auto", "poll", "sync", "webhook"]


def made(kind: type[Job], **given: Any) -> Job:
    """A job of what was given; names that were left out (None) stay out."""
    try:
        return kind.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise invalid_job(error) from None


def sources_of(image: Any, model: str | None) -> dict[str, Any]:
    """``image`` or ``images``, as the model takes them, of what `edit` may be given."""
    several = takes_several((model or "edit-lora").rpartition("/")[2])
    images = list(image) if isinstance(image, list | tuple) else [image]
    images = [_as_source(item) for item in images]
    if several:
        return {"images": images}
    if len(images) != 1:
        raise InvalidJobError(
            f"image: {len(images)} given, model {model or 'edit-lora'!r} takes one; 'edit-plus-lora' takes up to 3",
            field="image",
        )
    return {"image": images[0]}


def _as_source(image: Any) -> Any:
    if isinstance(image, Prediction):
        outputs = image.outputs
        if len(outputs) != 1:
            raise InvalidJobError(f"image: the prediction is {image.status} with {len(outputs)} images", field="image")
        image = outputs[0]
    if isinstance(image, Output):
        return image.url or image.decoded()
    return image


def id_of(prediction: Prediction | str) -> str:
    """The id of a prediction, of itself or as it is."""
    if not isinstance(prediction, Prediction | str) or not prediction:
        raise ConfigurationError(f"prediction = {prediction!r}: give a prediction or its id")
    return prediction.id if isinstance(prediction, Prediction) else prediction


def output_of(what: Output | str) -> Output:
    """An output, or what is behind an output's URL."""
    if isinstance(what, Output):
        return what
    if not is_url(what):
        raise ConfigurationError(
            f"{what!r} is no URL of an output: of a prediction's id, session.result(id) gives what can be saved"
        )
    return Output(url=what)


def seconds(timeout: float | timedelta | None) -> float | None:
    """Seconds of what may be a timedelta; None stays None."""
    if timeout is None:
        return None
    value = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if not value > 0:
        raise ConfigurationError(f"timeout = {timeout!r}: give seconds, more than 0")
    return value


def as_timeout(timeout: float | timedelta | Timeout | None) -> Timeout:
    """Each timeout, of one for all the waiting or of all of them."""
    if isinstance(timeout, Timeout):
        return timeout
    job = seconds(timeout)
    return Timeout() if job is None else Timeout(job=job)


def checked_wait(wait: str, webhooks: WebhookReceiver | None) -> WaitMode:
    """The way of waiting, if there is such."""
    if wait not in {"auto", "poll", "sync", "webhook"}:
        raise ConfigurationError(f"wait = {wait!r}: choose 'auto', 'poll', 'sync' or 'webhook'")
    if wait == "webhook" and webhooks is None:
        raise ConfigurationError("wait = 'webhook': pass webhooks=WebhookReceiver(...), mounted in your application")
    return wait  # type: ignore[return-value]  # just checked


def checked_media(media: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of `Media`, if there are such; ``nsfw`` is the session's own."""
    known = [name for name in Media.__init__.__kwdefaults__ or () if name != "nsfw"]
    for name in media or ():
        if name not in known:
            raise ConfigurationError(f"media: there is no option {name!r}, known are {', '.join(known)}")
    return dict(media or {})


def checked_retry(retry: Retry | None) -> Retry:
    """How long to keep trying. A number, as others count attempts, would only fail in the first trouble."""
    if not isinstance(retry, Retry | None):
        raise ConfigurationError(f"retry = {retry!r}: give a Retry(...), which counts seconds and not attempts")
    return retry or Retry()


def checked_on_unknown(on_unknown: str) -> bool:
    """Whether lost submits are looked for."""
    if on_unknown not in {"reconcile", "raise"}:
        raise ConfigurationError(f"on_unknown = {on_unknown!r}: choose 'reconcile' or 'raise'")
    return on_unknown == "reconcile"


def chosen_limits(
    limits: Limiter | None, tier: AccountTier | str | None, max_per_minute: int | None, max_in_flight: int | None
) -> Limiter:
    """The limits given, or those of the tier."""
    if limits is None:
        return Limits.for_tier(tier, max_per_minute=max_per_minute, max_in_flight=max_in_flight)
    if tier is not None or max_per_minute is not None or max_in_flight is not None:
        raise ConfigurationError("limits: give either limits= or tier=, max_per_minute=, max_in_flight=, not both")
    return limits
