"""What goes into the journal and what comes out of it: moves, rows and counts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ._states import State
    from ._store import Store

__all__ = ["Counts", "Joint", "Known", "Move", "Row"]


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
        files: Files of its, whose folders are brought to the disk first.
    """

    row: int
    to: State | None
    details: Mapping[str, Any] = field(default_factory=dict)
    price: int | None = None
    refund: int | None = None
    holds: str | None = None
    result: dict[str, Any] | None = None
    files: Sequence[Path] = ()


class Joint(ABC):
    """Another change of one job, which is made together with those of its kind that are committed with it.

    Attributes:
        row: The job's id in the journal.
    """

    row: int

    @classmethod
    @abstractmethod
    def make(cls, store: Store, changes: Sequence[Self]) -> Sequence[Any]:
        """Make ``changes``, of different jobs; gives the answer to each."""


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
