"""Uploads and downloads that go wrong: an upload costs no image, an output is fetched again, and never comes torn."""

from __future__ import annotations

import asyncio

import pytest

from wavespeed_qwen_async import (
    AuthenticationError,
    ContentFlaggedError,
    DownloadError,
    Retry,
    SubmissionUnknown,
    UploadError,
)
from wavespeed_qwen_async.emulator.blank import blank_image

pytestmark = pytest.mark.anyio
fault = pytest.mark.fault
RESULT = "the result"

SPOILT = [
    ("drop", {}),
    ("drop_after", {}),
    ("status", {"status": 500}),
    ("status", {"status": 429, "retry_after": 3}),
    ("status_after", {"status": 502, "html": True}),
    ("delay", {"seconds": 500}),
    ("slow_headers", {"seconds": 500}),
    ("slow_body", {"seconds": 20}),
    ("stall_body", {"keep": 0.6}),
    ("cut", {"keep": 0.6}),
    ("truncate", {"keep": 0.9}),
    ("html", {}),
    ("content_type", {"value": "text/html"}),
]

# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def session(opened):
    async with opened(media={"embed": False}) as running:  # the very bytes of the server
        yield running


@pytest.fixture
async def image(session):
    return await session.generate("a fox", size=(512, 512), output_format="png")


WHOLE = blank_image(512, 512, "png")


@pytest.mark.parametrize(
    ("what", "options"), [pytest.param(*each, marks=fault("download", each[0], RESULT)) for each in SPOILT]
)
async def test_a_download_that_goes_wrong_is_fetched_again(image, emulator, tmp_path, what, options):
    emulator.faults.add("download", what, times=2, **options)
    path = await image.save(tmp_path / "fox.png")
    assert path.read_bytes() == WHOLE == await image.outputs[0].bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["fox.png"]
    assert len(emulator.ledger.accepted) == 1


@pytest.mark.parametrize(
    ("what", "options"),
    [
        pytest.param(*each, marks=fault("download", each[0], "DownloadError"))
        for each in SPOILT
        if each[0] not in {"slow_body", "content_type", "stall_body", "cut"}  # these get on at every attempt
    ],
)
async def test_a_download_that_never_comes_right_leaves_no_file(image, emulator, tmp_path, what, options):
    emulator.faults.add("download", what, **options)
    with pytest.raises(DownloadError) as caught:
        await image.save(tmp_path / "fox.png")
    assert (caught.value.billed, caught.value.prediction_id) == ("yes", image.id)
    assert list(tmp_path.iterdir()) == []
    emulator.faults.clear()
    assert (await image.save(tmp_path / "fox.png")).read_bytes() == WHOLE


@fault("download", "hide", RESULT)
async def test_an_output_that_comes_late_to_the_cdn_is_waited_for(image, emulator):
    emulator.faults.add("download", "hide", seconds=40)
    assert await image.outputs[0].bytes() == WHOLE
    assert emulator.ledger.refused[404] >= 2


@pytest.mark.wavespeed_emulator(retention=600.0)
async def test_an_output_that_is_gone_is_told_with_its_id(image, emulator, tmp_path):
    await asyncio.sleep(700)
    with pytest.raises(DownloadError) as caught:
        await image.save(tmp_path / "fox.png")
    assert (caught.value.billed, caught.value.prediction_id) == ("yes", image.id)
    assert list(tmp_path.iterdir()) == []
    assert len(emulator.ledger.accepted) == 1


@fault("submit", "nsfw", RESULT)
@fault("submit", "nsfw", "ContentFlaggedError")
async def test_a_flagged_output_is_kept_unless_the_session_says_otherwise(session, opened, emulator):
    emulator.faults.add("submit", "nsfw")
    image = await session.generate("a fox", size=(256, 256))
    assert image.outputs[0].nsfw is True
    assert await image.outputs[0].bytes()
    async with opened(nsfw="fail") as strict:
        with pytest.raises(ContentFlaggedError) as caught:
            await strict.generate("another fox", size=(256, 256))
    assert (caught.value.billed, caught.value.prediction_id) == ("yes", emulator.ledger.accepted[1].id)
    assert sum(emulator.ledger.downloads.values()) == 1


# --- sources ----------------------------------------------------------------------------------------------------------

FOX = blank_image(64, 64, "png")


@pytest.mark.parametrize(
    ("where", "what", "options"),
    [pytest.param(where, *each, marks=fault(where, each[0], RESULT)) for where in ("ticket", "put") for each in SPOILT],
)
async def test_an_upload_that_goes_wrong_is_sent_again(session, emulator, where, what, options):
    await session.balance()  # a server that has never answered is given less time
    stalls = what == "stall_body" or options.get("seconds") == 500  # two of a minute each are all there is time for
    emulator.faults.add(where, what, times=1 if stalls else 2, **options)
    assert (await session.edit(FOX, "make it snow")).ok
    (submit,) = emulator.ledger.accepted
    assert submit.inputs["image"].startswith(emulator.media_url)
    assert len(emulator.ledger.submit_times) == 1


@pytest.mark.parametrize(
    ("where", "status", "sees"),
    [
        pytest.param(*each, marks=fault(each[0], "status", each[2].__name__))
        for each in [
            ("ticket", 400, UploadError),
            ("ticket", 413, UploadError),
            ("ticket", 503, UploadError),
            ("ticket", 401, AuthenticationError),
            ("put", 403, UploadError),
            ("put", 500, UploadError),
        ]
    ],
)
async def test_an_upload_that_never_comes_right_costs_no_image(opened, emulator, where, status, sees):
    emulator.faults.add(where, "status", status=status)
    async with opened(retry=Retry(read_budget=30)) as session:
        with pytest.raises(sees) as caught:
            await session.edit(FOX, "make it snow")
    assert (caught.value.billed, caught.value.status) == ("no", status)
    assert caught.value.job.prompt == "make it snow"
    assert emulator.ledger.submit_times == []


@fault("ticket", "status", RESULT)
async def test_without_todays_upload_the_older_one_is_used(session, emulator):
    emulator.faults.add("ticket", "status", status=404)
    assert (await session.edit(FOX, "make it snow")).ok
    assert emulator.ledger.requests["upload"] == 1


@fault("upload", "drop_after", RESULT)
@fault("ticket", "status", RESULT)
async def test_the_older_upload_goes_wrong_and_is_sent_again(session, emulator):
    emulator.faults.add("ticket", "status", status=404)
    emulator.faults.add("upload", "drop_after", times=1)
    assert (await session.edit(FOX, "make it snow")).ok
    assert len(emulator.ledger.submit_times) == 1


@fault("submit", "drop_after", "SubmissionUnknown")
async def test_an_edit_of_an_upload_that_is_lost_is_uploaded_once_and_submitted_once(opened, emulator):
    emulator.faults.add("submit", "drop_after")
    async with opened(on_unknown="raise") as session:
        with pytest.raises(SubmissionUnknown):
            await session.edit(FOX, "make it snow")
    assert emulator.ledger.requests["put"] == 1
    assert len(emulator.ledger.submit_times) == 1
