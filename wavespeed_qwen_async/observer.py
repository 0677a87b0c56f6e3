"""Who is told of each job of a session: the seam for tracing and metrics. Unused, it costs one ``is None`` a job.

``integrations.opentelemetry`` is one such observer; write another for StatsD, Prometheus or a log of your own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._api import Witness
    from ._wire import Request
    from .models import Job
    from .predictions import Prediction

__all__ = ["Observation", "Observed", "Observer"]

_logger = logging.getLogger(__name__)


class Observation(Protocol):
    """One job, watched. Each call comes from the event loop and must not block; what it raises is logged, no more."""

    def sending(self) -> None:
        """A submit is about to leave, the first one or another."""

    def failed(self, error: BaseException) -> None:
        """That submit gave no id: refused, lost (``error.billed == "unknown"``), never sent, or cut off."""

    def accepted(self, prediction: Prediction) -> None:
        """There is an id, and from here on the image is billed. After a lost submit: it was found again."""

    def ended(self, end: Prediction | BaseException) -> None:
        """The last call, exactly one: the finished prediction, or why there is none (also cancelled, closed)."""


class Observer(Protocol):
    """Told of every job of a session."""

    def began(self, job: Job | None, *, prediction_id: str | None = None) -> Observation:
        """A job was taken up, before it waits for anything; called in the context of whoever asked for it.

        Args:
            job: As it will be sent; None for one whose input is gone, of an earlier run of a batch.
            prediction_id: It was accepted by an earlier run.
        """


class Observed:
    """Passes on what happens to one job, in the order and number that an ``Observation`` is promised.

    It is a witness of the job's submits, and has other books kept behind it.
    """

    __slots__ = ("_airborne", "_end", "_observation", "books")

    def __init__(self, observation: Observation) -> None:
        self._observation: Observation | None = observation
        self._airborne = False
        self._end: BaseException | None = None
        self.books: Witness | None = None

    @classmethod
    def begin(cls, observer: Observer, job: Job | None, prediction_id: str | None = None) -> Observed | None:
        """Have a job observed; None where the observer itself fails."""
        try:
            return cls(observer.began(job, prediction_id=prediction_id))
        except Exception:
            _logger.exception("an observer failed: the job goes on unobserved")
            return None

    async def sending(self, request: Request) -> None:
        """As in ``Witness``."""
        if self.books is not None:
            await self.books.sending(request)
        self._airborne = True
        self._tell("sending")

    def failed(self, error: BaseException) -> None:
        """As in ``Witness``."""
        self._tell("failed", error)
        self._landed()

    async def accepted(self, prediction: Prediction) -> None:
        """As in ``Witness``."""
        self._tell("accepted", prediction)
        self._landed()
        if self.books is not None:
            await self.books.accepted(prediction)

    def end(self, end: Prediction | BaseException) -> None:
        """The job is over; only the first call counts.

        A submit in the air outlives its caller, and may bring the id of a paid image: then it is over when it lands.
        """
        if self._airborne and isinstance(end, BaseException):
            self._end = self._end or end
            return
        self._tell("ended", end)
        self._observation = None

    def _landed(self) -> None:
        self._airborne = False
        if self._end is not None:
            self.end(self._end)

    def _tell(self, what: str, *told: Any) -> None:
        """An observer's mistake must not cost an image."""
        if self._observation is None:
            return
        call: Callable[..., None] = getattr(self._observation, what)
        try:
            call(*told)
        except Exception:
            _logger.exception("an observer failed")
