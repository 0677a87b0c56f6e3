"""Checks and lists that go wrong: the result comes anyway, and nothing is ever submitted again for it."""

from __future__ import annotations

import asyncio

import pytest

from wavespeed_qwen_async import AuthenticationError, ResultUnavailable, SubmissionUnknown, TextToImage

pytestmark = pytest.mark.anyio
fault = pytest.mark.fault
RESULT = "the result"

SPOILT = [
    ("drop", {}),
    ("drop_after", {}),
    ("status", {"status": 500}),
    ("status", {"status": 503, "retry_after": 4}),
    ("status", {"status": 429}),
    ("status", {"status": 429, "retry_after": 7}),
    ("status_after", {"status": 502, "html": True}),
    ("delay", {"seconds": 500}),
    ("slow_headers", {"seconds": 500}),
    ("slow_headers", {"seconds": 9}),
    ("slow_body", {"seconds": 9}),
    ("stall_body", {}),
    ("cut", {}),
    ("truncate", {}),
    ("html", {}),
    ("content_type", {"value": "text/html"}),
]


def now() -> float:
    return asyncio.get_running_loop().time()


# --- one image, checked by its id -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "options"), [pytest.param(*each, marks=fault("result", each[0], RESULT)) for each in SPOILT]
)
async def test_checks_that_go_wrong_are_asked_again_two_seconds_apart(opened, emulator, what, options):
    emulator.faults.add("result", what, times=2, **options)
    async with opened(wait="poll") as session:
        assert (await session.generate("a fox")).ok
    assert len(emulator.ledger.submit_times) == 1
    assert emulator.ledger.requests["list"] == 0
    (times,) = emulator.ledger.checks.values()
    if what.startswith("drop"):
        del times[1]  # aiohttp itself asks again, at once, when a kept connection turns out dead
    assert len(times) >= (1 if what in {"content_type", "slow_body"} or options.get("seconds") == 9 else 3)
    assert emulator.ledger.spacing() is None or emulator.ledger.spacing() >= 2
    if options.get("retry_after") == 7:
        assert times[1] - times[0] >= 7


@fault("result", "hide", RESULT)
async def test_not_known_just_after_the_submit_is_asked_again(opened, emulator):
    emulator.faults.add("result", "hide", seconds=25)
    async with opened(wait="poll") as session:
        assert (await session.generate("a fox")).ok
    assert emulator.ledger.refused[404] >= 2
    assert len(emulator.ledger.submit_times) == 1


@fault("result", "hide", "ResultUnavailable")
async def test_never_known_it_is_given_up_after_a_while_and_paid(opened, emulator):
    emulator.faults.add("result", "hide", seconds=1e9)
    async with opened(wait="poll") as session:
        began = now()
        with pytest.raises(ResultUnavailable) as caught:
            await session.generate("a fox")
    assert now() - began > 30
    assert (caught.value.billed, caught.value.prediction_id) == ("yes", emulator.ledger.accepted[0].id)
    assert len(emulator.ledger.submit_times) == 1


@pytest.mark.wavespeed_emulator(retention=600.0)
async def test_after_its_seven_days_it_is_not_known_any_more(session, emulator):
    image = await session.generate("a fox")
    await asyncio.sleep(700)
    with pytest.raises(ResultUnavailable) as caught:
        await session.result(image.id)
    assert (caught.value.billed, caught.value.prediction_id) == ("yes", image.id)


# --- many, told by the list -------------------------------------------------------------------------------------------

JOBS = 40


async def run_all(session) -> list:
    """All of them at once, so that the list is what is asked."""
    outcomes = [outcome async for outcome in session.stream(TextToImage(prompt=f"p{n}") for n in range(JOBS))]
    assert [outcome.error for outcome in outcomes] == [None] * JOBS
    return outcomes


@pytest.mark.parametrize(
    ("what", "options"), [pytest.param(*each, marks=fault("list", each[0], RESULT)) for each in SPOILT]
)
@pytest.mark.parametrize("times", [1, None])
async def test_a_list_that_goes_wrong_costs_no_result(session, emulator, what, options, times):
    emulator.faults.add("list", what, times=times, **options)
    began = now()
    await run_all(session)
    assert now() - began < 40
    assert len(emulator.ledger.submit_times) == JOBS
    assert emulator.ledger.spacing() is None or emulator.ledger.spacing() >= 2
    assert emulator.ledger.requests["result"] + emulator.ledger.requests["list"] < 8 * JOBS


@pytest.mark.parametrize(
    ("what", "options", "told"),
    [
        pytest.param("lag", {"seconds": 1}, False, marks=fault("list", "lag", RESULT)),
        pytest.param("lag", {"seconds": 120}, True, marks=fault("list", "lag", RESULT)),
        pytest.param("gaps", {"one_in": 4}, None, marks=fault("list", "gaps", RESULT)),
        pytest.param("gaps", {"one_in": 1}, True, marks=fault("list", "gaps", RESULT)),
        pytest.param("without_inputs", {}, False, marks=fault("list", "without_inputs", RESULT)),
    ],
)
async def test_a_list_that_does_not_show_all_costs_no_result(  # noqa: PLR0917 - pytest gives them by name
    session, emulator, caplog, what, options, told
):
    emulator.faults.add("list", what, **options)
    began = now()
    await run_all(session)
    assert now() - began < 40
    assert len(emulator.ledger.submit_times) == JOBS
    assert emulator.ledger.spacing() is None or emulator.ledger.spacing() >= 2
    warned = sum(record.levelname == "WARNING" and "list" in record.getMessage() for record in caplog.records)
    assert warned <= 1
    assert told is None or bool(warned) is told


# --- the key ----------------------------------------------------------------------------------------------------------


@fault("result", "revoke", "AuthenticationError")
async def test_a_key_revoked_in_mid_run_is_told_to_all_who_wait(opened, emulator):
    emulator.faults.add("result", "revoke", nth=1)
    async with opened(wait="poll") as session:
        began = now()
        ends = await asyncio.gather(*(session.generate(f"p{n}") for n in range(5)), return_exceptions=True)
    assert {type(end) for end in ends} == {AuthenticationError}
    assert {end.billed for end in ends} == {"yes"}
    assert {end.prediction_id for end in ends} == {row.id for row in emulator.ledger.accepted}
    assert now() - began < 40


@fault("submit", "revoke", "AuthenticationError")
async def test_a_stream_ends_when_the_key_is_revoked_and_pays_nothing_more(opened, emulator):
    emulator.faults.add("submit", "revoke", nth=4)
    seen = []
    async with opened(max_in_flight=1) as session:
        with pytest.raises(AuthenticationError):
            async for outcome in session.stream({"prompt": f"p{n}"} for n in range(100)):
                seen.append(outcome)
    assert [outcome.ok for outcome in seen] == [True, True, True, False]
    assert isinstance(seen[3].error, AuthenticationError)
    assert seen[3].error.billed == "no"
    assert len(emulator.ledger.accepted) == 3
    assert len(emulator.ledger.submit_times) < 8


@fault("submit", "revoke", "AuthenticationError")
async def test_what_was_in_flight_when_the_key_was_revoked_is_told_as_paid(session, emulator):
    emulator.faults.add("submit", "revoke", nth=3)
    ends = await asyncio.gather(*(session.generate(f"p{n}") for n in range(3)), return_exceptions=True)
    assert {type(end) for end in ends} == {AuthenticationError}
    assert sorted(end.billed for end in ends) == ["no", "yes", "yes"]


# --- the server's clock -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [300.0, -300.0])
@fault("balance", "skew", RESULT)
@fault("submit", "drop", RESULT)
@fault("submit", "drop_after", RESULT)
async def test_a_clock_five_minutes_off_disturbs_nobody(session, emulator, skew):
    emulator.faults.add("balance", "skew", seconds=skew)
    await session.balance()
    emulator.faults.add("submit", "drop_after", nth=7)
    emulator.faults.add("submit", "drop", nth=9)
    began = now()
    outcomes = await run_all(session)
    assert now() - began < 90  # the dropped one is known to have never arrived after a minute
    assert {outcome.prediction.id for outcome in outcomes} == {row.id for row in emulator.ledger.accepted}
    assert len(emulator.ledger.submit_times) == JOBS + 1
    assert sorted(outcome.seconds for outcome in outcomes)[JOBS - 3] < 14
    assert emulator.ledger.requests["list"] > emulator.ledger.requests["result"]


@pytest.mark.parametrize("skew", [300.0, -300.0])
@fault("list", "skew", RESULT)
async def test_a_clock_that_jumps_in_mid_run_costs_no_result(session, emulator, skew):
    emulator.faults.add("list", "skew", seconds=skew, nth=3)
    began = now()
    await run_all(session)
    assert now() - began < 40
    assert len(emulator.ledger.submit_times) == JOBS


@pytest.mark.parametrize("skew", [300.0, -300.0])
@fault("list", "skew", "SubmissionUnknown")
@fault("submit", "drop", "SubmissionUnknown")
async def test_lost_while_the_clock_jumps_it_is_not_sent_again_blindly(session, emulator, skew):
    emulator.faults.add("submit", "drop_after", nth=1)
    emulator.faults.add("list", "skew", seconds=skew, nth=2)
    emulator.faults.add("submit", "drop", nth=2)
    ends = await asyncio.gather(*(session.generate(f"p{n}") for n in range(2)), return_exceptions=True)
    for end in ends:
        assert getattr(end, "ok", False) or isinstance(end, SubmissionUnknown)
    assert len(emulator.ledger.accepted) <= 2
