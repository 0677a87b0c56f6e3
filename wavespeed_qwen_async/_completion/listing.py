"""Pages of the account's predictions, read cheaply, and how far the list is to be trusted; purely."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json

from wavespeed_qwen_async._answers import read_page
from wavespeed_qwen_async._wire import list_request
from wavespeed_qwen_async.predictions import FINAL_STATUSES, Prediction

if TYPE_CHECKING:
    from wavespeed_qwen_async._answers import Answer
    from wavespeed_qwen_async._wire import Request

    from .plan import Window

__all__ = ["HEAVY", "PAGE_SIZE", "Page", "Proof", "Trust", "ended", "page_request", "read_listing", "whole", "widened"]

PAGE_SIZE = 100  # the most that the API gives (wavespeed-api.md, await the result)
HEAVY = 8 * 1024 * 1024  # bytes of a page beyond which single checks are the lighter way
_BEFORE = 0.05  # seconds of margin: a server that rounds the bounds of the window must not lose its first and last
_AFTER = 1.0

_GRACE = 2.0  # seconds that the list may be behind a single check without being called stale
_PROOF_KEPT = 30.0
_STRIKES = 2
_PROVEN = 5  # proofs shown in a row, after which fewer are asked for
_FAILURES = 2
_OFF_FIRST = 60.0
_OFF_MOST = 900.0
_REHABILITATED = 120.0


class Page(NamedTuple):
    """One page: its items as they came, how many there are in all where the server tells, its size in bytes."""

    items: list[dict[str, Any]]
    total: int | None
    size: int

    def in_all(self, number: int) -> int:
        """How many pages there are at least, this being the ``number``-th."""
        return max(number, -(-(self.total or 0) // PAGE_SIZE))

    def is_last(self, number: int) -> bool:
        """Whether it is the last page, being the ``number``-th."""
        if self.total is not None:
            return number * PAGE_SIZE >= self.total or not self.items
        return len(self.items) < PAGE_SIZE


def page_request(window: Window, page: int) -> Request:
    """The request for one page of a window; both its ends are pinned, so that pages do not move while they are read."""
    return list_request(
        page=page,
        page_size=PAGE_SIZE,
        model=window.model,
        status=window.status,
        created_after=datetime.fromtimestamp(window.after - _BEFORE, UTC),
        created_before=datetime.fromtimestamp(window.before + _AFTER, UTC),
    )


def read_listing(answer: Answer) -> Page:
    """One page of the list, its items unread: most of them are of no interest.

    Raises:
        WaveSpeedError: as `read_page` does, for whatever is no page.
    """
    try:
        envelope = from_json(answer.body, cache_strings="keys") if answer.status == 200 else None  # noqa: PLR2004 - HTTP's own
    except ValueError:
        envelope = None
    data = envelope.get("data") if isinstance(envelope, dict) and _is_good(envelope.get("code")) else None
    items = data.get("items") if isinstance(data, dict) else None
    if not isinstance(items, list):
        return _unusual(answer)
    total = data.get("total") if isinstance(data, dict) else None
    return Page(items, total if isinstance(total, int) else None, len(answer.body))


def _is_good(code: object) -> bool:
    return code is None or (isinstance(code, int) and code in {200, 0})


def _unusual(answer: Answer) -> Page:
    """The error that the answer is, or the page that it is under another of the known shapes."""
    found = read_page(answer)
    return Page([{"id": item.id, "status": item.status, "_read": item} for item in found], None, len(answer.body))


def ended(item: dict[str, Any]) -> bool:
    """Whether the prediction in a list item will not change any more."""
    status = item.get("status")
    return isinstance(status, str) and status in FINAL_STATUSES


def whole(item: dict[str, Any]) -> Prediction | None:
    """The finished prediction in a list item, None where the item does not tell it whole.

    Items may lack outputs or cut them, and base64 is left out (wavespeed-api.md): then only a single check tells.
    """
    if not ended(item):
        return None
    prediction = item.get("_read")
    if prediction is None:
        try:
            prediction = Prediction.model_validate(item)
        except ValidationError:
            return None
    return prediction if _is_whole(prediction) else None


def _is_whole(prediction: Prediction) -> bool:
    if not prediction.ok:
        return bool(prediction.code or prediction.error) or prediction.status != "failed"
    outputs = prediction.raw_outputs
    return (
        bool(outputs)
        and len(outputs) >= len(prediction.has_nsfw_contents)
        and all(text.startswith(("http://", "https://")) for text in outputs)
    )


class Proof(NamedTuple):
    """A prediction known to be completed from elsewhere: the list must show it from ``since`` (loop time) on."""

    created: float
    since: float
    model: str


def widened(window: Window, proofs: dict[str, Proof]) -> Window:
    """The window, reaching over what it has to prove as well."""
    if not proofs:
        return window
    times = [proof.created for proof in proofs.values()]
    return window._replace(
        after=min(window.after, *times),
        before=max(window.before, *times),
        model=window.model if all(proof.model == window.model for proof in proofs.values()) else None,
    )


class Trust:
    """How far the list can be believed. Times are the loop's.

    It is left alone when it fails twice in a row, and when twice it did not show what single checks had shown seconds
    before: it lags or leaves out. It is tried again after a minute, then after ever longer times, up to 15 minutes.
    """

    def __init__(self) -> None:
        self.proofs: dict[str, Proof] = {}
        self._off_until = -math.inf
        self._off_for = _OFF_FIRST
        self._strikes = 0
        self._shown = 0
        self._failures = 0
        self._probation = False

    def usable(self, now: float) -> bool:
        """Whether to ask the list at all."""
        return now >= self._off_until

    @property
    def suspicious(self) -> bool:
        """Whether it did not show something that single checks had shown."""
        return self._strikes > 0

    @property
    def proven(self) -> bool:
        """Whether it has lately shown all that single checks had shown, and that several times."""
        return self._shown >= _PROVEN

    @property
    def off_until(self) -> float:
        """When it is tried again."""
        return self._off_until

    def expect(self, prediction_id: str, created: float, now: float, *, model: str = "") -> None:
        """A single check found it completed: a sweep that starts a little later must show it."""
        self.proofs[prediction_id] = Proof(created, now + _GRACE, model)

    def answered(self, now: float) -> None:
        """A sweep was answered."""
        self._failures = 0
        if self._probation and now > self._off_until + _REHABILITATED:
            self._probation, self._strikes, self._off_for = False, 0, _OFF_FIRST

    def failed(self, now: float, *, final: bool) -> bool:
        """A sweep failed; ``final``: it will do so again. Return whether the list is left alone from now on."""
        self._failures += 1
        if not (final or self._probation or self._failures >= _FAILURES):
            return False
        self._leave(now)
        return True

    def judge(self, asked: dict[str, Proof], missing: set[str], now: float) -> bool:
        """Take in which of ``asked`` a sweep did not show. Return whether the list is left alone from now on."""
        for prediction_id in asked:
            self.proofs.pop(prediction_id, None)
            if prediction_id in missing:
                self._strikes, self._shown = self._strikes + 1, 0
            else:
                self._strikes, self._shown = max(0, self._strikes - 1), self._shown + 1
        if self._strikes < (1 if self._probation else _STRIKES):
            return False
        self._leave(now)
        return True

    def due_proofs(self, now: float) -> dict[str, Proof]:
        """What a sweep that starts now has to show."""
        for prediction_id in [key for key, proof in self.proofs.items() if proof.since + _PROOF_KEPT < now]:
            del self.proofs[prediction_id]
        return {key: proof for key, proof in self.proofs.items() if proof.since <= now}

    def _leave(self, now: float) -> None:
        self._off_until = now + self._off_for
        self._off_for = min(_OFF_MOST, 2 * self._off_for)
        self._strikes = self._shown = self._failures = 0
        self._probation = True
        self.proofs.clear()
