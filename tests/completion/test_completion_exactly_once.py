"""Whatever the server does, and in whatever order answers come: each watch ends exactly once, or never if cancelled."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting_server import WaitingServer, answer, keeping, now

from wavespeed_qwen_async._answers import Answer
from wavespeed_qwen_async.errors import (
    LostAnswerError,
    NotSentError,
    PredictionError,
    RateLimitError,
    SessionClosedError,
    WaveSpeedError,
)
from wavespeed_qwen_async.predictions import Prediction
from wavespeed_qwen_async.testing.clock import VirtualClockLoop

ENDINGS = st.sampled_from(
    [
        {},
        {},
        {},
        {"status": "failed", "outputs": [], "code": 1200},
        {"status": "failed", "outputs": []},
        {"status": "cancelled", "outputs": []},
        {"status": "archived"},
        {"outputs": []},
        {"outputs": ["aGVsbG8="]},
        {"timings": {}},
    ]
)


@dataclass(frozen=True)
class Job:
    ending: dict
    takes: float
    after: float  # seconds until it is submitted
    age: float
    timeout: float
    watches: int
    by_id: bool
    cancel_after: float | None
    push_after: float | None
    single: bool


JOBS = st.builds(
    Job,
    ending=ENDINGS,
    takes=st.sampled_from([0.0, 0.5, 3.0, 6.5, 8.0, 11.0, 40.0, 1000.0]),
    after=st.sampled_from([0.0, 0.0, 0.1, 2.0, 9.0, 30.0]),
    age=st.sampled_from([0.0, 0.0, 5.0, 3600.0]),
    timeout=st.sampled_from([0.0, 0.5, 5.0, 60.0, 300.0]),
    watches=st.integers(1, 3),
    by_id=st.booleans(),
    cancel_after=st.none() | st.sampled_from([0.0, 1.0, 7.0, 9.0]),
    push_after=st.none() | st.none() | st.sampled_from([-1.0, 0.0, 8.0, 100.0]),
    single=st.booleans(),
)
MISHAPS = st.sampled_from(
    ["ok"] * 12
    + ["404", "401", "403", "429", "500", "html", "cut", "lost", "unsent", "bug", "foreign", "empty", "stale", "slow"]
)


class Moody(WaitingServer):
    """Misbehaves as drawn, once a request."""

    def __init__(self, list_moods, result_moods) -> None:
        super().__init__()
        self.moods = {"list": list(list_moods), "result": list(result_moods)}
        self.tell_list = lambda query: self.told("list", query)
        self.tell_result = lambda name: self.told("result", name)

    def told(self, kind, what):
        moods = self.moods[kind]
        mood = moods[self.requests[kind] % len(moods)] if moods else "ok"
        usual = self.list_of if kind == "list" else self.result_of
        self.latency = self.list_latency = 20.0 if mood == "slow" else 0.05
        if mood.isdecimal():
            return RateLimitError("429", retry_after=3.0) if mood == "429" else answer(None, int(mood))
        errors = {"lost": LostAnswerError("lost"), "unsent": NotSentError("no"), "bug": ZeroDivisionError("bug")}
        if mood in errors:
            return errors[mood]
        if mood == "stale":
            self.lag = 30.0
        told = usual(what)
        self.lag = 0.0
        return self.spoiled(kind, mood, told)

    @staticmethod
    def spoiled(kind, mood, told):
        if mood == "html":
            return Answer(200, {}, b"<html>")
        if mood == "cut":
            return Answer(200, {}, told.body[: len(told.body) // 2])
        if mood == "foreign" and kind == "result":
            return answer({"id": "somebody-elses", "status": "completed", "outputs": ["https://x"]})
        if mood == "empty":
            data = json.loads(told.body)["data"] or {}
            return answer({"items": []} if kind == "list" else {**data, "outputs": []})
        return told


async def live(server: Moody, jobs: list[Job], *, lists: bool, pushed: bool):
    """What each watch was told, and how many things the cancelled ones had been told by then."""
    ends: dict[tuple[int, int], list] = {}
    given_up: dict[tuple[int, int], int] = {}
    async with keeping(server, lists=lists, pushed=pushed) as keeper:
        await asyncio.gather(
            *(one(server, keeper, index, job, ends=ends, given_up=given_up) for index, job in enumerate(jobs))
        )
        deadline = now() + 400
        while len(keeper) and now() < deadline:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(1.0)
        assert len(keeper) == 0, "everything ends by its timeout at the latest"
    return ends, given_up


async def one(server, keeper, index, job, *, ends, given_up) -> None:
    await asyncio.sleep(job.after)
    name = f"p{index}"
    prediction = server.submitted(name, job.takes, age=job.age, **job.ending)

    async def push(after: float) -> None:
        await asyncio.sleep(max(0.0, after))
        keeper.push(Prediction.model_validate(server.tasks[name].item(float("inf"))))

    if job.push_after == -1.0:
        await push(0.0)
    watches = []
    for number in range(job.watches):
        taken = ends.setdefault((index, number), [])
        watches.append(
            keeper.watch(
                name if job.by_id else prediction, taken.append, timeout=job.timeout + number, single=job.single
            )
        )
    if job.push_after is not None and job.push_after >= 0:
        await push(job.push_after)
    if job.cancel_after is not None:
        await asyncio.sleep(job.cancel_after)
        watches[0].cancel()
        given_up[index, 0] = len(ends[index, 0])


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    jobs=st.lists(JOBS, min_size=1, max_size=25),
    list_moods=st.lists(MISHAPS, max_size=12),
    result_moods=st.lists(MISHAPS, max_size=12),
    lists=st.booleans(),
    pushed=st.booleans(),
)
def test_each_watch_ends_exactly_once(jobs, list_moods, result_moods, lists, pushed):
    server = Moody(list_moods, result_moods)
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        ends, given_up = runner.run(live(server, jobs, lists=lists, pushed=pushed))
    for watch, outcomes in ends.items():
        assert len(outcomes) == given_up.get(watch, 1) <= 1
        for outcome in outcomes:
            check_outcome(outcome, f"p{watch[0]}")
    for times in server.checks.values():
        assert all(later - sooner >= 2 for sooner, later in pairwise(times))


def check_outcome(outcome, name) -> None:
    assert not isinstance(outcome, SessionClosedError)
    if isinstance(outcome, WaveSpeedError):
        assert outcome.prediction_id == name
        assert outcome.billed == "yes"
        assert isinstance(outcome, PredictionError) or outcome.status in {401, 403}
    else:
        assert (outcome.id, outcome.finished) == (name, True)
        assert outcome.raw_outputs or not outcome.ok


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    jobs=st.lists(JOBS, min_size=1, max_size=25),
    moods=st.lists(MISHAPS, max_size=12),
    after=st.sampled_from([0.0, 0.1, 5.0, 8.0, 9.0, 12.0]),
)
def test_closing_in_the_middle_ends_every_watch_too(jobs, moods, after):
    server = Moody(moods, moods)

    async def main():
        ends: dict[tuple[int, int], list] = {}
        async with keeping(server) as keeper:
            for index, job in enumerate(jobs):
                prediction = server.submitted(f"p{index}", job.takes, age=job.age, **job.ending)
                keeper.watch(prediction, ends.setdefault((index, 0), []).append, timeout=job.timeout)
            await asyncio.sleep(after)
        await asyncio.sleep(0)
        return ends

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        ends = runner.run(main())
    assert [len(taken) for taken in ends.values()] == [1] * len(jobs)
    for (index, _), (outcome,) in ends.items():
        if isinstance(outcome, WaveSpeedError):
            assert (outcome.prediction_id, outcome.billed) == (f"p{index}", "yes")
