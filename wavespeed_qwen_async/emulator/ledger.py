"""What the emulator saw: kept for tests to ask, never used to answer a client."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tasks import Prediction


@dataclass(frozen=True, slots=True)
class Accepted:
    """One accepted submit, as it was sent. Times are the loop's."""

    id: str
    model: str
    inputs: dict[str, Any]
    time: float
    webhook: str | None
    status: str


@dataclass(frozen=True, slots=True)
class KeyLeak:
    """An API key that came to a media host, where it has no business."""

    time: float
    method: str
    path: str


@dataclass(eq=False)
class Ledger:
    """The record of one emulator. Times are loop times, so that virtual ones compare exactly."""

    requests: Counter[str] = field(default_factory=Counter)
    """How many requests came, by kind (submit, result, list, upload, download ...)."""
    refused: Counter[int] = field(default_factory=Counter)
    """How many requests were answered with each HTTP error status, faults included."""
    refused_times: list[tuple[float, str, int]] = field(default_factory=list)
    """Each refusal: when, of what kind, with which status."""
    submit_times: list[float] = field(default_factory=list)
    """When each submit arrived, accepted or not."""
    accepted_times: list[float] = field(default_factory=list)
    """When each accepted submit arrived."""
    checks: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When the result of each prediction was asked for by its id."""
    key_leaks: list[KeyLeak] = field(default_factory=list)
    """API keys that came to a media host."""
    keys: set[str] = field(default_factory=set)
    """The API keys that clients showed."""
    faults: list[tuple[float, str, str]] = field(default_factory=list)
    """Each fault done: when, to which kind of request, which one."""
    webhooks: list[tuple[float, str, str, int]] = field(default_factory=list)
    """Each webhook delivery: when, prediction id, kind (sent, duplicate, forged ...), HTTP status (0: none)."""
    downloads: Counter[str] = field(default_factory=Counter)
    """Output file name to how often it was fetched."""
    _predictions: list[Prediction] = field(default_factory=list)
    _now: Callable[[], float] = lambda: 0.0

    def arrive(self, now: float, kind: str, argument: str) -> None:
        """Write down a request, before anything is done about it."""
        self.requests[kind] += 1
        if kind == "result":
            self.checks[argument].append(now)
        elif kind == "submit":
            self.submit_times.append(now)

    def accept(self, prediction: Prediction) -> None:
        """Write down an accepted submit."""
        self._predictions.append(prediction)
        self.accepted_times.append(prediction.created)

    def refuse(self, now: float, kind: str, status: int) -> None:
        """Write down a request answered with an error."""
        self.refused[status] += 1
        self.refused_times.append((now, kind, status))

    @property
    def accepted(self) -> list[Accepted]:
        """Every accepted submit in order, deleted ones too; these were billed.

        Made anew at each call: for a mere count of many, take `len(ledger.accepted_times)`.
        """
        now = self._now()
        return [
            Accepted(row.id, row.model, row.inputs, row.created, row.webhook, row.status(now))
            for row in self._predictions
        ]

    @property
    def completed(self) -> list[Accepted]:
        """The accepted ones that are completed by now."""
        return [record for record in self.accepted if record.status == "completed"]

    def doubles(self) -> list[list[Accepted]]:
        """Return groups of accepted submits with the same model and inputs: paid more than once."""
        groups: defaultdict[str, list[Accepted]] = defaultdict(list)
        for record in self.accepted:
            groups[record.model + json.dumps(record.inputs, sort_keys=True)].append(record)
        return [group for group in groups.values() if len(group) > 1]

    def spacing(self, prediction_id: str | None = None) -> float | None:
        """Return the shortest time between two checks of one id (of `prediction_id`, or of any)."""
        times = self.checks.values() if prediction_id is None else [self.checks.get(prediction_id, [])]
        return min((later - sooner for each in times for sooner, later in pairwise(each)), default=None)

    def peak_submits(self, window: float = 60.0) -> int:
        """Return the most accepted submits in any moving window of `window` seconds."""
        return _peak([(time, time + window) for time in self.accepted_times])

    def peak_in_flight(self) -> int:
        """Return the most accepted tasks, queued or running, that were unfinished at one time."""
        return _peak([(row.created, row.end) for row in self._predictions])

    def peak_running(self) -> int:
        """Return the most tasks that ran at one time."""
        return _peak([(row.start, row.end) for row in self._predictions])

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-ready data, for the control endpoint."""
        records = self.accepted
        return {
            "accepted": [{name: getattr(each, name) for name in Accepted.__slots__} for each in records],
            "completed": sum(record.status == "completed" for record in records),
            "doubles": [[record.id for record in group] for group in self.doubles()],
            "requests": dict(self.requests),
            "refused": {str(status): count for status, count in self.refused.items()},
            "refused_times": self.refused_times,
            "submit_times": self.submit_times,
            "checks": {key: times for key, times in self.checks.items() if times},
            "spacing": self.spacing(),
            "peak_submits": self.peak_submits(),
            "peak_in_flight": self.peak_in_flight(),
            "peak_running": self.peak_running(),
            "key_leaks": [{name: getattr(each, name) for name in KeyLeak.__slots__} for each in self.key_leaks],
            "faults": self.faults,
            "webhooks": self.webhooks,
            "downloads": dict(self.downloads),
        }


def _peak(spans: list[tuple[float, float]]) -> int:
    # An end sorts before a start at the same time: what ends then no longer counts.
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    most = level = 0
    for _, step in edges:
        level += step
        most = max(most, level)
    return most
