"""What follows from the answer to a single check, purely: the end of waiting, or the time of the next check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wavespeed_qwen_async.errors import (
    AuthenticationError,
    NotFoundError,
    ResultTimeout,
    ResultUnavailable,
    SessionClosedError,
    WaveSpeedError,
)
from wavespeed_qwen_async.predictions import Prediction

from .pace import SPACING, rest

if TYPE_CHECKING:
    import random

    from .plan import Entry

__all__ = ["about", "timed_out", "verdict"]

YOUNG = 30.0  # seconds after the submit in which "no such prediction" means "not yet known everywhere"
_UNKNOWN_YOUNG = 4  # 404s in a row until one that was submitted here is given up
_UNKNOWN = 3  # the same for one known by its id only: it may well be a typing error
_REFUSED = 3  # other refusals in a row, and completed answers without outputs


def verdict(
    entry: Entry, answer: Prediction | WaveSpeedError, now: float, rng: random.Random
) -> Prediction | WaveSpeedError | None:
    """The end that the answer means for its prediction; None where it is to be asked again, at ``entry.due``."""
    entry.due = now + rest(now - entry.born, rng)
    if isinstance(answer, Prediction):
        return _of_prediction(entry, answer, now)
    if isinstance(answer, NotFoundError):
        return _of_unknown(entry, answer, now)
    if answer.transient:
        entry.due = max(entry.due, now + (answer.retry_after or 0.0))
        return None
    if isinstance(answer, AuthenticationError):
        return None  # about the key: decided for all at once
    entry.refused += 1
    if entry.refused < _REFUSED and not isinstance(answer, SessionClosedError):
        return None
    return about(answer, entry.id)


def _of_prediction(entry: Entry, prediction: Prediction, now: float) -> Prediction | WaveSpeedError | None:
    entry.unknown = 0
    if not prediction.finished:
        entry.refused = 0
        entry.missed = now
        return None
    if prediction.raw_outputs or not prediction.ok:
        return prediction
    entry.refused += 1
    if entry.refused < _REFUSED:
        return None
    return ResultUnavailable(
        f"prediction {entry.id} is completed, but the API no longer tells its outputs (they are kept for 7 days)",
        prediction_id=entry.id,
    )


def _of_unknown(entry: Entry, error: WaveSpeedError, now: float) -> WaveSpeedError | None:
    entry.unknown += 1
    if entry.created is None:
        entry.due = now + SPACING
        believed = entry.unknown >= _UNKNOWN
    else:
        believed = entry.unknown >= _UNKNOWN_YOUNG and now - entry.born >= YOUNG
    if not believed:
        return None
    return ResultUnavailable(
        f"the API knows no prediction {entry.id}: a wrong id, another account's, deleted, or older than 7 days",
        prediction_id=entry.id,
        status=error.status,
        request_id=error.request_id,
    )


def about(error: WaveSpeedError, prediction_id: str) -> WaveSpeedError:
    """The same error about one prediction: which is billed, whatever keeps us from its result."""
    return type(error)(
        f"prediction {prediction_id}: {error.message}",
        billed="yes",
        prediction_id=prediction_id,
        status=error.status,
        code=error.code,
        retry_after=error.retry_after,
        request_id=error.request_id,
    )


def timed_out(prediction_id: str, waited: float) -> ResultTimeout:
    """The error of a watch that has waited long enough."""
    return ResultTimeout(
        f"prediction {prediction_id} was not finished after {waited:.6g} s; it goes on and is billed: "
        "ask for it again by its id",
        prediction_id=prediction_id,
    )
