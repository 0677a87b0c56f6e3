"""Predictions: plain records whose state is worked out from the time when somebody asks."""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WEEK: Final = 7 * 86_400.0


@dataclass(slots=True, eq=False)
class Prediction:
    """One accepted task. Times are the loop's; `outcome` is the status that it ends with."""

    id: str
    model: str
    body: str
    created: float
    created_ns: int
    created_at: str
    start: float
    end: float
    seed: int
    price: int
    number: int
    outcome: str = "completed"
    code: int = 0
    error: str = ""
    nsfw: bool = False
    base64: bool = False
    output_format: str = "jpeg"
    webhook: str | None = None
    deleted: bool = False

    @property
    def inputs(self) -> dict[str, Any]:
        """What was sent, read anew each time: one record must stay small."""
        inputs: dict[str, Any] = json.loads(self.body)
        return inputs

    def status(self, now: float) -> str:
        """Return the status at loop time `now`."""
        if now >= self.end:
            return self.outcome
        return "processing" if now > self.start else "created"

    @property
    def inference_ms(self) -> int:
        """The inference time in milliseconds, which is known once the task has ended."""
        return round((self.end - self.start) * 1000)

    @property
    def output_name(self) -> str:
        """The file name of the output on the CDN."""
        return f"{self.id}.{self.output_format}"


@dataclass(frozen=True, slots=True)
class Query:
    """What a list request asks for; times are Unix nanoseconds, `as_of` is loop time."""

    page: int
    page_size: int
    as_of: float
    model: str | None = None
    status: str | None = None
    created_after: int | None = None
    created_before: int | None = None


class _Index:
    """The predictions of one model and/or one outcome, oldest first, made on first use."""

    def __init__(self, model: str | None, outcome: str | None) -> None:
        self._model, self._outcome = model, outcome
        self._seen = 0
        self._settled = 0
        self._settled_at = float("-inf")
        self.rows: list[Prediction] = []

    def catch_up(self, rows: list[Prediction]) -> None:
        for row in rows[self._seen :] if self._seen < len(rows) else ():
            if self._model in {None, row.model} and self._outcome in {None, row.outcome}:
                self.rows.append(row)
        self._seen = len(rows)

    def settled(self, as_of: float) -> int:
        """Return how many rows from the start are all final, so that pages can jump over them."""
        if as_of < self._settled_at:
            return 0  # asked about the past, as a list that begins to lag does: count nothing as known
        self._settled_at = as_of
        while self._settled < len(self.rows) and self.rows[self._settled].end <= as_of:
            self._settled += 1
        return self._settled


class Store:
    """All predictions of the account."""

    def __init__(self, retention: float = WEEK) -> None:
        self.retention = retention
        self.by_id: dict[str, Prediction] = {}
        self.rows: list[Prediction] = []
        self._indexes: dict[tuple[str | None, str | None], _Index] = {}

    def add(self, prediction: Prediction) -> None:
        """Take in an accepted prediction; they arrive in the order of their times."""
        self.by_id[prediction.id] = prediction
        self.rows.append(prediction)

    def get(self, prediction_id: str, now: float) -> Prediction | None:
        """Return a prediction that is neither deleted nor past its retention."""
        found = self.by_id.get(prediction_id)
        if found is None or found.deleted or now - found.created > self.retention:
            return None
        return found

    def delete(self, ids: Iterable[str], now: float) -> int:
        """Take records out of the account; they go on running, and stay billed."""
        found = {row.id: row for item in ids if (row := self.get(item, now)) is not None}
        for row in found.values():
            row.deleted = True
        if found:
            self.rows = [row for row in self.rows if not row.deleted]
            self._indexes.clear()
        return len(found)

    def page(self, query: Query, now: float) -> tuple[list[Prediction], int]:
        """Return one page, newest first, and how many there are in all."""
        rows, settled = self._rows(query)
        low, high = self._range(rows, query, now)
        skip, wanted = (query.page - 1) * query.page_size, query.page_size
        if query.status is None:
            return rows[max(low, high - skip - wanted) : max(low, high - skip)][::-1], high - low
        edge = min(max(settled, low), high)
        fresh = [row for row in rows[edge:high] if row.status(query.as_of) == query.status]
        known = edge - low if self._final(query.status) else 0
        page = fresh[::-1][skip : skip + wanted]
        skip -= len(fresh) - len(page)
        if known and len(page) < wanted:
            top = edge - max(0, skip)
            page += rows[max(low, top - (wanted - len(page))) : max(low, top)][::-1]
        return page, len(fresh) + known

    @staticmethod
    def _final(status: str) -> bool:
        return status not in {"created", "processing"}

    def _rows(self, query: Query) -> tuple[list[Prediction], int]:
        outcome = query.status if query.status and self._final(query.status) else None
        if query.model is None and query.status is None:
            return self.rows, 0
        index = self._indexes.setdefault((query.model, outcome), _Index(query.model, outcome))
        index.catch_up(self.rows)
        return index.rows, index.settled(query.as_of) if query.status else 0

    def _range(self, rows: list[Prediction], query: Query, now: float) -> tuple[int, int]:
        low = bisect_right(rows, now - self.retention, key=_created)
        high = bisect_right(rows, query.as_of, key=_created)
        if query.created_after is not None:
            low = max(low, bisect_right(rows, query.created_after - 1, key=_created_ns))
        if query.created_before is not None:
            high = min(high, bisect_right(rows, query.created_before, key=_created_ns))
        return low, max(low, high)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.by_id.values())


def _created(row: Prediction) -> float:
    return row.created


def _created_ns(row: Prediction) -> int:
    return row.created_ns
