"""What goes into the journal and what comes out of it: moves, rows and counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._states import State

__all__ = ["Counts", "Known", "Move", "Row"]


@dataclass(slots=True)
class Move:
    """One state move of one job, with what is learned by it.

    Attributes:
        row: The job's id in the journal.
        to: The state it moves to; None to write ``details`` only.
        details: Columns of ``details``.
        price: Micro-dollars it costs from now on; None leaves it.
        refund: Micro-dollars that come back; None leaves it.
        holds: A prediction id that is this job's from now on.
        result: Its line in ``results.jsonl``.
    """

    row: int
    to: State | None
    details: Mapping[str, Any] = field(default_factory=dict)
    price: int | None = None
    refund: int | None = None
    holds: str | None = None
    result: dict[str, Any] | None = None


class Known(NamedTuple):
    """What the journal knows of one line of the source."""

    row: int
    position: int | None
    mark: bytes
    digest: bytes
    state: int


class Row(NamedTuple):
    """A job with all that is needed to go on with it."""

    row: int
    position: int | None
    line: int | None
    state: State
    price: int
    model: str
    inputs: str
    sent_at: float | None
    prediction_id: str | None
    path: str | None


class Counts(NamedTuple):
    """How many jobs are in each state, and the money, in micro-dollars."""

    states: dict[State, int]
    cost: int
    refund: int
