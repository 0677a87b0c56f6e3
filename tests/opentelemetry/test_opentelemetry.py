"""Spans and metrics as OpenTelemetry's own SDK exports them."""

from __future__ import annotations

import asyncio
import logging

import pytest
from opentelemetry import context, propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from wavespeed_qwen_async import BadRequestError, Batch, ContentModerated, SubmissionUnknown, TextToImage
from wavespeed_qwen_async.integrations.opentelemetry import OpenTelemetryObserver
from wavespeed_qwen_async.testing import next_outcomes

pytestmark = pytest.mark.anyio

MODEL = "wavespeed-ai/qwen-image/text-to-image-lora"
SECRET = "a secret fox"
FOX = TextToImage(prompt=SECRET, seed=1, size="512x512", loras=["owner/secret-lora:0.5"])


class Telemetry:
    """A tracer provider and a meter provider, and what came of them."""

    def __init__(self, **options):
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(sampler=options.pop("sampler", None))
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._meters = MeterProvider([self._reader])
        self.observer = OpenTelemetryObserver(tracer_provider=self.tracers, meter_provider=self._meters, **options)

    @property
    def spans(self):
        return self._exporter.get_finished_spans()

    @property
    def span(self):
        (span,) = self.spans
        return span

    def points(self, name):
        """The data points of a metric, by what tells them apart."""
        found = {}
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == name:
                    for point in metric.data.data_points:
                        assert point.attributes["gen_ai.request.model"] == MODEL
                        told = [value for key, value in sorted(point.attributes.items()) if key.startswith("wavespeed")]
                        found[tuple(told)] = point.value if hasattr(point, "value") else point
        return found

    def close(self):
        self.tracers.shutdown()
        self._meters.shutdown()


@pytest.fixture
def telemetry():
    made = Telemetry()
    yield made
    made.close()


def events(span):
    return [event.name.removeprefix("wavespeed.") for event in span.events]


async def test_one_span_tells_a_job_from_its_turn_to_its_image(opened, telemetry, emulator):
    async with opened(observer=telemetry.observer) as session:
        image = await session.run(FOX)
    span = telemetry.span
    assert span.name == f"generate_content {MODEL}"
    assert span.kind is trace.SpanKind.CLIENT
    assert span.status.status_code is trace.StatusCode.UNSET
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "wavespeed",
        "gen_ai.output.type": "image",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.seed": 1,
        "gen_ai.response.id": image.id,
        "wavespeed.size": "512*512",
        "wavespeed.loras": 1,
        "wavespeed.sends": 1,
        "wavespeed.outcome": "completed",
        "wavespeed.billed": "yes",
    }
    assert events(span) == ["send", "accepted", "completed"]
    assert span.events[1].attributes["gen_ai.response.id"] == emulator.ledger.accepted[0].id
    assert 6000 <= span.events[2].attributes["wavespeed.inference_ms"] <= 12000


async def test_every_attempt_is_an_event(opened, telemetry, emulator):
    next_outcomes(emulator, ("status", {"status": 429, "retry_after": 7}), 503, "drop_after")
    async with opened(observer=telemetry.observer) as session:
        await session.run(FOX)
    assert events(telemetry.span) == ["send", "rate_limited", "send", "lost", "send", "lost", "reconciled", "completed"]
    told = [dict(event.attributes) for event in telemetry.span.events]
    assert [each.get("wavespeed.attempt") for each in told if "wavespeed.attempt" in each] == [1, 2, 3]
    assert told[1] == {
        "error.type": "RateLimitError",
        "wavespeed.billed": "no",
        "http.response.status_code": 429,
        "wavespeed.code": 429,
        "wavespeed.retry_after": 7.0,
    }
    assert told[5] == {"error.type": "SubmissionUnknown", "wavespeed.billed": "unknown"}
    assert telemetry.span.attributes["wavespeed.sends"] == 3
    assert telemetry.span.attributes["wavespeed.billed"] == "yes"
    assert telemetry.points("wavespeed.submits") == {("rate_limited",): 1, ("lost",): 2}
    assert telemetry.points("wavespeed.cost") == {(): 0.025}


async def test_a_failed_prediction_is_an_error_that_is_refunded(opened, telemetry, emulator):
    next_outcomes(emulator, 1200)
    async with opened(observer=telemetry.observer) as session:
        with pytest.raises(ContentModerated):
            await session.run(FOX)
    span = telemetry.span
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, "ContentModerated")
    assert events(span) == ["send", "accepted"]
    assert span.attributes["error.type"] == span.attributes["wavespeed.outcome"] == "ContentModerated"
    assert (span.attributes["wavespeed.code"], span.attributes["wavespeed.billed"]) == (1200, "yes")
    assert telemetry.points("wavespeed.jobs") == {("yes", "ContentModerated"): 1}
    assert telemetry.points("wavespeed.cost") == telemetry.points("wavespeed.refunds") == {(): 0.025}


async def test_what_nobody_can_tell_is_unknown(opened, telemetry, emulator):
    next_outcomes(emulator, "drop_after")
    async with opened(observer=telemetry.observer, on_unknown="raise") as session:
        with pytest.raises(SubmissionUnknown):
            await session.run(FOX)
    assert telemetry.span.attributes["wavespeed.billed"] == "unknown"
    assert telemetry.points("wavespeed.jobs") == {("unknown", "SubmissionUnknown"): 1}
    assert telemetry.points("wavespeed.cost") == {}


async def test_shown_never_to_have_arrived_and_sent_again_it_is_an_ordinary_submit(opened, telemetry, emulator):
    next_outcomes(emulator, "drop", "ok", "drop", 400)
    async with opened(observer=telemetry.observer) as session:
        await session.run(FOX)
        with pytest.raises(BadRequestError):
            await session.run(FOX)
    well, badly = telemetry.spans
    assert events(well) == ["send", "lost", "send", "accepted", "completed"]
    assert events(badly) == ["send", "lost", "send", "refused"]
    assert badly.attributes["wavespeed.billed"] == "no"
    assert telemetry.points("wavespeed.submits") == {("lost",): 2, ("accepted",): 1, ("refused",): 1}


async def test_cancelled_while_a_lost_submit_is_looked_for_it_stays_unknown(opened, telemetry, emulator):
    emulator.faults.add("list", "status", status=503)
    next_outcomes(emulator, "drop_after")
    async with opened(observer=telemetry.observer) as session:
        looking = asyncio.create_task(session.run(FOX))
        await asyncio.sleep(3)
        looking.cancel()
        await asyncio.wait([looking])
    assert telemetry.points("wavespeed.jobs") == {("unknown", "CancelledError"): 1}


async def test_metrics_of_every_way_of_asking(opened, telemetry, tmp_path):
    telemetry.observer._price = lambda job: 0.02 if job.prompt == "owl" else 0.03
    async with opened(observer=telemetry.observer) as session:
        await session.run(FOX)
        submitted = await session.submit(FOX)
        await asyncio.sleep(1)
        assert telemetry.points("wavespeed.in_flight") == {(): 1}
        await session.result(submitted)
        assert [outcome.ok async for outcome in session.stream([FOX, FOX])] == [True, True]
        assert [outcome.ok async for outcome in Batch([{"prompt": "owl"}], tmp_path, session).run()] == [True]
    assert len(telemetry.spans) == 5
    assert telemetry.points("wavespeed.submits") == {("accepted",): 5}
    assert telemetry.points("wavespeed.jobs") == {("yes", "completed"): 5}
    assert telemetry.points("wavespeed.in_flight") == {(): 0}
    assert telemetry.points("wavespeed.cost") == {(): pytest.approx(4 * 0.03 + 0.02)}
    assert telemetry.points("wavespeed.refunds") == {}
    (duration,) = telemetry.points("wavespeed.job.duration").values()
    assert duration.count == 5
    assert 6 <= duration.min <= duration.max <= 16  # seconds of virtual time
    assert 12 in duration.explicit_bounds


async def test_no_word_of_prompt_lora_or_error_leaves_unless_it_is_asked_for(opened, telemetry, emulator):
    next_outcomes(emulator, ("fail", {"code": 1200, "message": f"{SECRET} is forbidden"}))
    async with opened(observer=telemetry.observer) as session:
        with pytest.raises(ContentModerated, match=SECRET):
            await session.run(FOX)
    assert "secret" not in telemetry.span.to_json()


async def test_content_is_told_where_it_is_asked_for(opened, emulator):
    telemetry = Telemetry(content=True)
    next_outcomes(emulator, ("fail", {"code": 1200, "message": "no foxes"}))
    async with opened(observer=telemetry.observer) as session:
        with pytest.raises(ContentModerated):
            await session.run(FOX)
    assert telemetry.span.attributes["wavespeed.prompt"] == SECRET
    assert "no foxes" in telemetry.span.attributes["wavespeed.error"]
    assert "no foxes" in telemetry.span.status.description
    telemetry.close()


CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_the_callers_w3c_context_is_the_parent_in_every_way_of_asking(opened, telemetry, tmp_path):
    """A traceparent header, as a web framework's instrumentation takes it in."""
    token = context.attach(propagate.extract({"traceparent": CALLER}))
    try:
        async with opened(observer=telemetry.observer) as session:
            await session.run(FOX)
            await session.result(await session.submit(FOX))
            assert [outcome.ok async for outcome in session.stream([FOX, FOX])] == [True, True]
            assert [outcome.ok async for outcome in Batch([{"prompt": "owl"}], tmp_path, session).run()] == [True]
    finally:
        context.detach(token)
    assert len(telemetry.spans) == 5
    assert {f"{span.context.trace_id:032x}" for span in telemetry.spans} == {CALLER.split("-")[1]}
    assert {f"{span.parent.span_id:016x}" for span in telemetry.spans} == {CALLER.split("-")[2]}


async def test_each_job_belongs_to_the_request_that_asked_for_it(opened, telemetry):
    """Two requests of a web application at a time, by one session opened in neither."""
    tracer = telemetry.tracers.get_tracer("app")

    async def request(name):
        with tracer.start_as_current_span(name):
            await session.run(FOX)

    async with opened(observer=telemetry.observer) as session:
        await asyncio.gather(request("one"), request("two"))
    outer = {span.context.span_id: span for span in telemetry.spans if span.name in {"one", "two"}}
    inner = [span for span in telemetry.spans if span.name not in {"one", "two"}]
    assert {outer[span.parent.span_id].name for span in inner} == {"one", "two"}
    assert all(outer[span.parent.span_id].context.trace_id == span.context.trace_id for span in inner)


async def test_cancelled_a_paid_job_keeps_its_id_and_is_no_error(opened, telemetry, emulator):
    async with opened(observer=telemetry.observer) as session:
        waiting = asyncio.create_task(session.run(FOX))
        await asyncio.sleep(3)
        waiting.cancel()
        await asyncio.wait([waiting])
    span = telemetry.span
    assert span.status.status_code is trace.StatusCode.UNSET
    assert span.attributes["wavespeed.outcome"] == "CancelledError"
    assert span.attributes["wavespeed.billed"] == "yes"
    assert span.attributes["gen_ai.response.id"] == emulator.ledger.accepted[0].id
    assert telemetry.points("wavespeed.in_flight") == {(): 0}


async def test_closing_the_session_ends_every_span_once(opened, telemetry, caplog):
    """The SDK warns of a span that is ended twice, and of events after its end."""
    caplog.set_level(logging.WARNING, "opentelemetry")
    async with opened(observer=telemetry.observer) as session:
        await session.submit(FOX)
        running = asyncio.create_task(session.run(FOX))
        stream = session.stream([FOX] * 3)
        first = asyncio.create_task(anext(stream))
        await asyncio.sleep(1)
        assert telemetry.spans == ()
    await asyncio.wait([running, first])
    await stream.aclose()
    assert len(telemetry.spans) == 5
    assert {span.attributes["wavespeed.billed"] for span in telemetry.spans} == {"yes"}
    assert {span.attributes["wavespeed.outcome"] for span in telemetry.spans} == {"SessionClosedError"}
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert telemetry.points("wavespeed.in_flight") == {(): 0}
    assert isinstance(running.exception(), Exception)


async def test_a_resumed_job_says_so_and_costs_nothing_again(opened, telemetry, tmp_path, emulator):
    jobs = [{"prompt": "owl"}]
    async with opened() as session:
        run = Batch(jobs, tmp_path, session).run()
        first = asyncio.create_task(anext(run))
        await asyncio.sleep(3)
        first.cancel()
        await asyncio.wait([first])
        await run.aclose()
    async with opened(observer=telemetry.observer) as session:
        assert [outcome.ok async for outcome in Batch(jobs, tmp_path, session).run()] == [True]
    span = telemetry.span
    assert span.attributes["wavespeed.resumed"] is True
    assert span.attributes["gen_ai.response.id"] == emulator.ledger.accepted[0].id
    assert events(span) == ["completed"]
    assert telemetry.points("wavespeed.cost") == telemetry.points("wavespeed.submits") == {}
    assert telemetry.points("wavespeed.in_flight") == {(): 0}


async def test_a_submit_that_an_earlier_run_lost_costs_when_it_is_found(opened, telemetry, tmp_path, emulator):
    next_outcomes(emulator, "drop_after")
    async with opened(on_unknown="raise") as session:
        assert [outcome.ok async for outcome in Batch([{"prompt": "owl"}], tmp_path, session).run()] == [False]
    async with opened(observer=telemetry.observer) as session:
        assert [outcome.ok async for outcome in Batch([{"prompt": "owl"}], tmp_path, session).run()] == [True]
    assert events(telemetry.span) == ["reconciled", "completed"]
    assert telemetry.points("wavespeed.cost") == {(): 0.025}
    assert telemetry.points("wavespeed.submits") == {}


async def test_sampled_out_and_without_an_sdk_the_jobs_go_on(opened, emulator):
    unsampled = Telemetry(sampler=ALWAYS_OFF)
    for observer in (unsampled.observer, OpenTelemetryObserver()):
        async with opened(observer=observer) as session:
            assert (await session.run(FOX)).ok
    assert unsampled.spans == ()
    assert unsampled.points("wavespeed.jobs") == {("yes", "completed"): 1}
    unsampled.close()
