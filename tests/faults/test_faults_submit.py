"""A submit that goes wrong: sent again only where it certainly was not accepted, found again where it was."""

from __future__ import annotations

import asyncio

import pytest

import wavespeed_qwen_async as ws
from wavespeed_qwen_async import (
    ContentModerated,
    InvalidParameter,
    LimitsBrokenError,
    MediaUnreachable,
    MissingParameter,
    PredictionCancelled,
    ResultTimeout,
    SubmissionUnknown,
    TaskFailed,
    TaskInternalError,
    TaskTimeout,
    TaskUnavailable,
    TextToImage,
    Timeout,
    WaveSpeedError,
)

pytestmark = pytest.mark.anyio
fault = pytest.mark.fault
RESULT = "the result"

# --- lost on the way there: it never arrived --------------------------------------------------------------------------

BEFORE = [
    ("drop", {}),
    ("status", {"status": 500}),
    ("status", {"status": 503, "retry_after": 5}),
    ("status", {"status": 502, "html": True}),
    ("delay", {"seconds": 500}),
]


def seen_as(sees, faults):
    """The parameters of a test whose faults are seen as that."""
    return [pytest.param(*each, marks=fault("submit", each[0], sees)) for each in faults]


@pytest.mark.parametrize(("what", "options"), seen_as(RESULT, BEFORE))
async def test_lost_before_it_was_accepted_it_is_sent_again_when_the_list_shows_that(session, emulator, what, options):
    emulator.faults.add("submit", what, nth=1, **options)
    assert (await session.generate("a fox")).ok
    assert len(emulator.ledger.submit_times) == 2
    assert len(emulator.ledger.accepted) == 1
    first, second = emulator.ledger.submit_times
    assert second - first > 60  # not before the list is surely up to date


@pytest.mark.parametrize(("what", "options"), seen_as("SubmissionUnknown", BEFORE))
async def test_lost_before_it_was_accepted_and_not_looked_for(opened, emulator, what, options):
    emulator.faults.add("submit", what, **options)
    async with opened(on_unknown="raise") as session:
        with pytest.raises(SubmissionUnknown) as caught:
            await session.generate("a fox")
    assert (caught.value.billed, caught.value.prediction_id) == ("unknown", None)
    assert caught.value.job.prompt == "a fox"
    assert len(emulator.ledger.submit_times) == 1


# --- lost on the way back: it was accepted ----------------------------------------------------------------------------

AFTER = [
    ("drop_after", {}),
    ("status_after", {"status": 500}),
    ("status_after", {"status": 504, "html": True}),
    ("slow_headers", {"seconds": 500}),
    ("slow_body", {"seconds": 500, "pieces": 4}),
    ("stall_body", {}),
    ("cut", {}),
    ("truncate", {}),
    ("html", {}),
]


@pytest.mark.parametrize(("what", "options"), seen_as(RESULT, AFTER))
async def test_lost_after_it_was_accepted_it_is_found_in_the_list(session, emulator, what, options):
    emulator.faults.add("submit", what, **options)
    image = await session.generate("a fox")
    (submit,) = emulator.ledger.accepted
    assert (image.ok, image.id) == (True, submit.id)
    assert image.job.seed == submit.inputs["seed"]
    assert len(emulator.ledger.submit_times) == 1


@pytest.mark.parametrize(("what", "options"), seen_as("SubmissionUnknown", AFTER))
async def test_lost_after_it_was_accepted_and_not_looked_for(opened, emulator, what, options):
    emulator.faults.add("submit", what, **options)
    async with opened(on_unknown="raise") as session:
        with pytest.raises(SubmissionUnknown) as caught:
            await session.generate("a fox")
    assert caught.value.billed == "unknown"
    assert len(emulator.ledger.submit_times) == len(emulator.ledger.accepted) == 1


@pytest.mark.parametrize(
    ("what", "options"),
    [
        pytest.param("slow_headers", {"seconds": 20}, marks=fault("submit", "slow_headers", RESULT)),
        pytest.param("slow_body", {"seconds": 20}, marks=fault("submit", "slow_body", RESULT)),
        pytest.param("delay", {"seconds": 20}, marks=fault("submit", "delay", RESULT)),
        pytest.param("content_type", {"value": "text/html"}, marks=fault("submit", "content_type", RESULT)),
    ],
)
async def test_what_is_only_slow_or_oddly_labelled_is_an_answer(opened, emulator, what, options):
    emulator.faults.add("submit", what, **options)
    async with opened(on_unknown="raise", wait="poll") as session:
        assert (await session.generate("a fox")).ok
    assert len(emulator.ledger.submit_times) == 1
    assert emulator.ledger.requests["list"] == 0


@fault("submit", "drop_after", RESULT)
@fault("submit", "drop", RESULT)
async def test_a_hundred_of_them_lost_either_way_are_each_paid_once(session, emulator):
    emulator.faults.add("submit", "drop_after", probability=0.1)
    emulator.faults.add("submit", "drop", probability=0.1)
    outcomes = [outcome async for outcome in session.stream({"prompt": "a fox"} for _ in range(100))]
    assert all(outcome.ok for outcome in outcomes)
    assert len({outcome.prediction.id for outcome in outcomes}) == len(emulator.ledger.accepted) == 100


@fault("submit", "drop_after", "SubmissionUnknown")
@fault("list", "status", "SubmissionUnknown")
async def test_lost_with_the_list_down_too_it_stays_unknown(session, emulator):
    emulator.faults.add("submit", "drop_after")
    emulator.faults.add("list", "status", status=503)
    with pytest.raises(SubmissionUnknown) as caught:
        await session.generate("a fox")
    assert caught.value.billed == "unknown"
    assert "could not be read" in caught.value.message
    assert len(emulator.ledger.submit_times) == 1


@fault("submit", "drop_after", RESULT)
@fault("list", "without_inputs", RESULT)
async def test_lost_and_the_list_tells_no_inputs_it_is_found_by_its_time(session, emulator):
    emulator.faults.add("submit", "drop_after")
    emulator.faults.add("list", "without_inputs")
    assert (await session.generate("a fox")).id == emulator.ledger.accepted[0].id
    assert len(emulator.ledger.submit_times) == 1


@pytest.mark.wavespeed_emulator(list_inputs="asked")
@fault("submit", "drop_after", RESULT)
@fault("submit", "drop", RESULT)
async def test_lost_and_the_list_tells_inputs_only_when_asked(session, emulator):
    emulator.faults.script("submit", "drop_after", "drop")
    first = await session.generate("a fox")
    assert first.id == emulator.ledger.accepted[0].id
    assert (await session.generate("a cat")).ok
    assert len(emulator.ledger.accepted) == 2


@fault("submit", "drop_after", RESULT)
@fault("list", "lag", RESULT)
async def test_lost_and_the_list_is_late_it_is_not_sent_again(session, emulator):
    emulator.faults.add("submit", "drop_after")
    emulator.faults.add("list", "lag", seconds=30)
    assert (await session.generate("a fox")).id == emulator.ledger.accepted[0].id
    assert len(emulator.ledger.submit_times) == 1


@fault("submit", "drop_after", "SubmissionUnknown")
@fault("list", "gaps", "SubmissionUnknown")
async def test_lost_in_a_gap_of_the_list_it_is_not_sent_again(session, emulator):
    """The gap that hides it hides one that is known as well, so the list proves nothing."""
    emulator.faults.script("submit", "ok", "ok", "ok", "drop_after", "ok")
    emulator.faults.add("list", "gaps", one_in=2)

    async def one(number):
        await asyncio.sleep(number * 8)
        return await session.generate("a fox", seed=number)

    ends = await asyncio.gather(*(one(number) for number in range(5)), return_exceptions=True)
    assert [getattr(end, "ok", False) for end in ends] == [True, True, True, False, True]
    assert isinstance(ends[3], SubmissionUnknown)
    assert len(emulator.ledger.submit_times) == 5


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(status, kind, marks=fault("submit", "status", kind))
        for status, kind in [
            (400, "BadRequestError"),
            (401, "AuthenticationError"),
            (402, "InsufficientCreditsError"),
            (403, "PermissionDeniedError"),
            (404, "NotFoundError"),
            (413, "PayloadTooLargeError"),
        ]
    ],
)
async def test_refused_it_is_told_at_once(session, emulator, status, kind):
    emulator.faults.add("submit", "status", status=status, message="no such luck")
    with pytest.raises(getattr(ws, kind), match="no such luck") as caught:
        await session.generate("a fox")
    assert type(caught.value).__name__ == kind
    assert (caught.value.billed, caught.value.status) == ("no", status)
    assert len(emulator.ledger.submit_times) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(code, kind, marks=fault("submit", "status", kind))
        for code, kind in [(400, "BadRequestError"), (401, "AuthenticationError"), (402, "InsufficientCreditsError")]
    ],
)
async def test_refused_within_an_http_200_it_is_refused(session, emulator, code, kind):
    emulator.faults.add("submit", "status", status=200, code=code, message="no such luck")
    with pytest.raises(getattr(ws, kind), match="no such luck") as caught:
        await session.generate("a fox")
    assert type(caught.value).__name__ == kind
    assert caught.value.billed == "no"
    assert len(emulator.ledger.submit_times) == 1


@pytest.mark.wavespeed_emulator(optional_fields=False)
@pytest.mark.parametrize("wait", ["auto", "poll", "sync"])
async def test_fields_that_may_be_absent_are_not_missed(opened, emulator, wait):
    emulator.faults.script("submit", "ok", ("fail", {"code": 1200, "message": "too rude"}))
    async with opened(wait=wait) as session:
        image = await session.generate("a fox")
        assert (image.ok, image.outputs[0].nsfw) == (True, None)
        with pytest.raises(WaveSpeedError, match="too rude") as caught:
            await session.generate("a rude fox")
    assert caught.value.billed == "yes"


@fault("submit", "status", RESULT)
@pytest.mark.parametrize("how", ["seconds", "date", None])
async def test_429_holds_all_submits_for_as_long_as_the_server_says(session, emulator, how):
    clock = emulator.service.clock
    told = {"seconds": 30, "date": clock.http_date(clock.now() + 31), None: None}[how]
    emulator.faults.add("submit", "status", status=429, retry_after=told, times=1)
    await session.generate("a fox")
    images = await asyncio.gather(*(session.generate("a fox") for _ in range(3)))
    assert all(image.ok for image in images)
    assert len(emulator.ledger.accepted) == 4
    first, second = emulator.ledger.submit_times[:2]
    assert second - first == pytest.approx(30 if how else 60, abs=5)  # "limits reset every minute"
    assert emulator.ledger.refused[429] == 1


@fault("submit", "status", "LimitsBrokenError")
async def test_429_without_end_ends_the_run(session, emulator):
    emulator.faults.add("submit", "status", status=429, retry_after=20)
    with pytest.raises(LimitsBrokenError) as caught:
        await session.generate("a fox")
    assert caught.value.billed == "no"
    assert emulator.ledger.accepted == []


# --- accepted, and then ended without an image ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "transient"),
    [
        pytest.param(code, kind, transient, marks=fault("submit", "fail", kind.__name__))
        for code, kind, transient in [
            (1200, ContentModerated, False),
            (1400, MissingParameter, False),
            (1401, InvalidParameter, False),
            (1402, MediaUnreachable, True),
            (1403, TaskFailed, False),
            (1405, TaskFailed, False),
            (5000, TaskInternalError, True),
            (5003, TaskUnavailable, True),
            (5004, TaskTimeout, True),
        ]
    ],
)
async def test_a_task_that_fails_raises_the_class_of_its_code(session, emulator, code, kind, transient):
    emulator.faults.add("submit", "fail", code=code)
    with pytest.raises(kind) as caught:
        await session.generate("a fox")
    error = caught.value
    assert type(error) is kind
    assert (error.billed, error.code, error.transient) == ("yes", code, transient)
    assert error.prediction_id == emulator.ledger.accepted[0].id
    assert await session.balance() == pytest.approx(1000)  # refunded
    assert len(emulator.ledger.submit_times) == 1


async def test_moderation_and_a_source_out_of_reach_without_any_rule(session):
    with pytest.raises(ContentModerated):
        await session.generate("[moderated] fox")
    with pytest.raises(MediaUnreachable):
        await session.edit("https://nowhere.invalid/fox.png", "make it snow")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param("cancelled", PredictionCancelled, marks=fault("submit", "end", "PredictionCancelled")),
        pytest.param("deleted", PredictionCancelled, marks=fault("submit", "end", "PredictionCancelled")),
        pytest.param("timeout", TaskTimeout, marks=fault("submit", "end", "TaskTimeout")),
        pytest.param("exploded", ResultTimeout, marks=fault("submit", "end", "ResultTimeout")),
    ],
)
async def test_other_ends(session, emulator, status, kind, caplog):
    emulator.faults.add("submit", "end", status=status)
    with pytest.raises(kind) as caught:
        await session.generate("a fox", timeout=200)
    assert caught.value.billed == "yes"
    assert caught.value.prediction_id == emulator.ledger.accepted[0].id
    assert ("unknown status 'exploded'" in caplog.text) is (status == "exploded")


@fault("submit", "inference", "ResultTimeout")
async def test_a_task_that_never_ends_is_told_by_its_id_and_had_later(session, emulator):
    emulator.faults.add("submit", "inference", seconds=1000)
    with pytest.raises(ResultTimeout) as caught:
        await session.generate("a fox", timeout=60)
    assert caught.value.billed == "yes"
    assert (await session.result(caught.value.prediction_id)).ok
    assert len(emulator.ledger.submit_times) == 1


@fault("submit", "slow_headers", RESULT)
async def test_a_sync_submit_that_breaks_off_is_found_again(opened, emulator):
    emulator.faults.add("submit", "slow_headers", seconds=1000)
    async with opened(wait="sync", timeout=Timeout(sync=100)) as session:
        assert (await session.run(TextToImage(prompt="a fox"))).ok
    assert len(emulator.ledger.submit_times) == 1
