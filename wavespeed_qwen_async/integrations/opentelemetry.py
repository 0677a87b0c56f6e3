"""OpenTelemetry: one span a job, its submits as events, and metrics; needs the extra ``[opentelemetry]``.

    async with QwenImageSession(observer=OpenTelemetryObserver()) as session: ...

Spans follow the GenAI conventions (``generate_content {model}``, kind CLIENT, all retries inside one span); what these
have no words for is ``wavespeed.*``. The span that is current where a job is asked for is its parent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

try:
    from opentelemetry import metrics, trace
except ImportError:  # pragma: no cover - the tests have it
    raise ImportError("OpenTelemetry is not installed: pip install 'wavespeed-qwen-async[opentelemetry]'") from None

from wavespeed_qwen_async._account import PRICE_ON_THE_PAGES
from wavespeed_qwen_async._version import __version__
from wavespeed_qwen_async.errors import NotSentError, PredictionFailed, RateLimitError, WaveSpeedError
from wavespeed_qwen_async.predictions import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from wavespeed_qwen_async.models import Job

    Attributes = dict[str, str | int | float | bool]

__all__ = ["OpenTelemetryObserver"]

_REFUSALS: dict[type[BaseException], str] = {RateLimitError: "rate_limited", NotSentError: "not_sent"}
# An image takes 6 to 12 s; in a bulk run its job may wait for its turn for minutes before that, or longer.
_SECONDS = (1, 2, 4, 6, 8, 10, 12, 15, 20, 30, 60, 120, 300, 600, 1800, 3600)


class OpenTelemetryObserver:
    """Makes spans and metrics of a session's jobs; one may serve several sessions.

    Args:
        tracer_provider: Default: the global one.
        meter_provider: Default: the global one.
        price: USD an image, or what tells it for a job (None where the job is not known); ``session.price(job)`` asks
            for your account's.
        content: Put prompts and the texts of errors, which may quote them, into spans. Never into metrics.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        price: float | Callable[[Job | None], float] = PRICE_ON_THE_PAGES,
        content: bool = False,
    ) -> None:
        self.tracer: trace.Tracer = trace.get_tracer(__package__, __version__, tracer_provider)
        self.content = content
        self._price = price
        meter = metrics.get_meter(__package__, __version__, meter_provider)
        self.submits: metrics.Counter = meter.create_counter(
            "wavespeed.submits", "{submit}", "Submits that left, by what came of each"
        )
        self.jobs: metrics.Counter = meter.create_counter("wavespeed.jobs", "{job}", "Jobs that ended, by how")
        self.duration: metrics.Histogram = meter.create_histogram(
            "wavespeed.job.duration",
            "s",
            "From taking a job up to its end, waiting for its turn included",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.in_flight: metrics.UpDownCounter = meter.create_up_down_counter(
            "wavespeed.in_flight", "{prediction}", "Predictions accepted and not ended"
        )
        self.cost: metrics.Counter = meter.create_counter("wavespeed.cost", "USD", "Price of what was accepted")
        self.refunds: metrics.Counter = meter.create_counter(
            "wavespeed.refunds", "USD", "Price of what was accepted and failed, refunded within 3 hours"
        )

    def began(self, job: Job | None, *, prediction_id: str | None = None) -> _JobSpan:
        """As in :class:`~wavespeed_qwen_async.observer.Observer`."""
        return _JobSpan(self, job, prediction_id)

    def price_of(self, job: Job | None) -> float:
        """USD for one image of this job."""
        return self._price(job) if callable(self._price) else self._price


class _JobSpan:
    """One job: an ``Observation``."""

    def __init__(self, to: OpenTelemetryObserver, job: Job | None, prediction_id: str | None) -> None:
        self._to = to
        self._job = job
        self._began = asyncio.get_running_loop().time()
        self._model: Attributes = {"gen_ai.request.model": job.model_id if job is not None else "unknown"}
        self._sends = 0
        self._held = prediction_id is not None
        self._lost = False
        name = f"generate_content {self._model['gen_ai.request.model']}"
        self._span = to.tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes=self._described(prediction_id))
        if self._held:
            to.in_flight.add(1, self._model)

    def _described(self, prediction_id: str | None) -> Attributes:
        told: Attributes = {"gen_ai.operation.name": "generate_content", "gen_ai.provider.name": "wavespeed"}
        told |= {"gen_ai.output.type": "image"} | self._model
        job = self._job
        if job is not None:
            told["wavespeed.loras"] = len(job.loras or ())
            if job.seed is not None:
                told["gen_ai.request.seed"] = job.seed
            if job.size is not None:
                told["wavespeed.size"] = str(job.size)
            if self._to.content:
                told["wavespeed.prompt"] = job.prompt
        if prediction_id is not None:
            told |= {"gen_ai.response.id": prediction_id, "wavespeed.resumed": True}
        return told

    def sending(self) -> None:
        """A submit is about to leave."""
        self._sends += 1
        self._lost = False  # or it would not be sent again: it is shown never to have arrived
        self._span.add_event("wavespeed.send", {"wavespeed.attempt": self._sends})

    def failed(self, error: BaseException) -> None:
        """It gave no id."""
        billed = error.billed if isinstance(error, WaveSpeedError) else "unknown"
        self._lost = billed == "unknown"
        name = "lost" if self._lost else _REFUSALS.get(type(error), "refused")
        self._to.submits.add(1, self._model | {"wavespeed.result": name})
        self._span.add_event(f"wavespeed.{name}", self._told_of(error))

    def accepted(self, prediction: Prediction) -> None:
        """There is an id: from here on the image is billed."""
        found, self._lost, self._held = self._lost or not self._sends, False, True
        if not found:
            self._to.submits.add(1, self._model | {"wavespeed.result": "accepted"})
        self._to.cost.add(self._to.price_of(self._job), self._model)
        self._to.in_flight.add(1, self._model)
        self._span.set_attribute("gen_ai.response.id", prediction.id)
        name = "wavespeed.reconciled" if found else "wavespeed.accepted"
        self._span.add_event(name, {"gen_ai.response.id": prediction.id})

    def ended(self, end: Prediction | BaseException) -> None:
        """The job is over."""
        span, told = self._span, self._count(end)
        if isinstance(end, Prediction):
            inference = end.timings.get("inference")
            took: Attributes = {"wavespeed.inference_ms": inference} if isinstance(inference, int | float) else {}
            span.add_event("wavespeed.completed", took)
        else:
            told = self._told_of(end) | told
            if not isinstance(end, asyncio.CancelledError):
                span.set_status(trace.StatusCode.ERROR, str(end) if self._to.content else type(end).__name__)
        span.set_attributes(told | {"wavespeed.sends": self._sends})
        span.end()

    def _count(self, end: Prediction | BaseException) -> Attributes:
        """Into the metrics with it; gives what the span is told as well."""
        to, completed = self._to, isinstance(end, Prediction)
        told: Attributes = {"wavespeed.outcome": "completed" if completed else type(end).__name__}
        to.duration.record(asyncio.get_running_loop().time() - self._began, self._model | told)
        told["wavespeed.billed"] = self._billed(end)
        to.jobs.add(1, self._model | told)
        if self._held:
            to.in_flight.add(-1, self._model)
            if isinstance(end, PredictionFailed):
                to.refunds.add(to.price_of(self._job), self._model)
        return told

    def _billed(self, end: Prediction | BaseException) -> str:
        if self._held or isinstance(end, Prediction):
            return "yes"
        if self._lost:
            return "unknown"
        return end.billed if isinstance(end, WaveSpeedError) else "no"

    def _told_of(self, error: BaseException) -> Attributes:
        told: Attributes = {"error.type": type(error).__name__}
        if isinstance(error, WaveSpeedError):
            told["wavespeed.billed"] = error.billed
            if error.status is not None:
                told["http.response.status_code"] = error.status
            if error.code is not None:
                told["wavespeed.code"] = error.code
            if error.retry_after is not None:
                told["wavespeed.retry_after"] = error.retry_after
        if self._to.content:
            told["wavespeed.error"] = str(error)
        return told
