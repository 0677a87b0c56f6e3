"""One job on its way through a batch: what it is, where it stands, what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._wire import inputs_of
from wavespeed_qwen_async.errors import NotSentError

from ._budget import dollars
from ._reports import BatchOutcome

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from wavespeed_qwen_async.errors import WaveSpeedError
    from wavespeed_qwen_async.models import Job
    from wavespeed_qwen_async.predictions import Prediction

    from ._states import State
    from ._store import Row

__all__ = ["Entry", "Withdrawn"]


class Withdrawn(NotSentError):  # noqa: N818 - says what happened, as the others do
    """Not sent: the run is being ended, the next one sends it."""

    transient = False


class Entry:
    """A job between source and outcome.

    Attributes:
        row: Its id in the journal.
        index: Its place in the source; for jobs that the source no longer has, the id again.
        state: Where it stood when it was taken up.
        price: Micro-dollars.
        sent: Its intent is in the journal.
        reserved: Its price is reserved in the budget.
        withdrawn: It has no outcome in this run.
        file: Its image's name in the folder, with ``/`` where the name template makes folders.
        path: The same as a path.
    """

    __slots__ = (
        "error",
        "file",
        "index",
        "job",
        "known",
        "line",
        "path",
        "prediction",
        "price",
        "reserved",
        "resumed",
        "row",
        "sent",
        "state",
        "task",
        "withdrawn",
    )

    def __init__(self, row: int, index: int | None, line: int | None, state: State, job: Job | None) -> None:
        self.row = row
        self.index = row if index is None else index
        self.line = line
        self.state = state
        self.job = job
        self.known: Row | None = None
        self.price = 0
        self.sent = False
        self.reserved = False
        self.resumed = False
        self.withdrawn = False
        self.task: asyncio.Task[Any] | None = None
        self.prediction: Prediction | None = None
        self.error: WaveSpeedError | None = None
        self.file: str | None = None
        self.path: Path | None = None

    def withdraw(self) -> None:
        """Give it up, where nothing of it was sent: it stays for the next run."""
        if self.task is not None and not self.withdrawn and not self.sent and self.known is None and self.error is None:
            self.withdrawn = True
            self.task.cancel()

    def outcome(self, seconds: float) -> BatchOutcome:
        """What is told of it."""
        return BatchOutcome(
            index=self.index,
            line=self.line,
            job=self.job,
            prediction=self.prediction,
            error=self.error,
            path=self.path,
            price=dollars(self.price),
            seconds=round(seconds, 3),
            resumed=self.resumed,
        )

    def result(self, status: str, seconds: float) -> dict[str, Any]:
        """Its line in ``results.jsonl``; the journal adds its id there as ``job``."""
        told: dict[str, Any] = {"index": self.index, "line": self.line, "ok": self.error is None, "status": status}
        if self.file is not None and self.error is None:
            told["file"] = self.file
        if self.job is not None:
            inputs = inputs_of(self.job, [source for source in self.job.sources if isinstance(source, str)])
            local = [_shown(source) for source in self.job.sources if not isinstance(source, str)]
            told |= {"model": self.job.model_id, "inputs": inputs | ({"local_images": local} if local else {})}
        told |= {"price": dollars(self.price), "seconds": round(seconds, 3)}
        prediction_id = self.prediction.id if self.prediction else self.error.prediction_id if self.error else None
        if prediction_id is not None:
            told["prediction_id"] = prediction_id
        if self.prediction is not None and self.prediction.created_at is not None:
            told["created_at"] = self.prediction.created_at.isoformat()
        if self.error is not None:
            error = self.error
            told["error"] = {"kind": type(error).__name__, "message": error.message, "billed": error.billed}
            if error.code is not None:
                told["error"]["code"] = error.code
        return told


def _shown(source: Any) -> str:
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else f"<{type(source).__name__}>"
