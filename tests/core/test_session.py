"""One job at a time: submitted once, awaited, told truly; cancelled or closed at any point, with the books right."""

from __future__ import annotations

import asyncio
import logging
import pickle
from datetime import timedelta

import pytest
from scripted import Script, accepted, error, ok, serving

from wavespeed_qwen_async import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContentFlaggedError,
    ContentModerated,
    DownloadError,
    Edit,
    InvalidJobError,
    Limits,
    LimitsBrokenError,
    MediaUnreachable,
    NotSentError,
    QwenImageSession,
    ResultTimeout,
    Retry,
    SessionClosedError,
    SubmissionUnknown,
    TextToImage,
    Timeout,
)
from wavespeed_qwen_async.provenance import extract

pytestmark = pytest.mark.anyio


def now() -> float:
    return asyncio.get_running_loop().time()


# --- the two halves and the whole -------------------------------------------------------------------------------------


async def test_generate_sends_what_was_asked_and_gives_the_finished_prediction(session, emulator):
    image = await session.generate(
        "a red fox", size="512*512", loras=["o/n:0.5"], seed=3, output_format="png", model="text-to-image-2512-lora"
    )
    (submit,) = emulator.ledger.accepted
    assert submit.model == "wavespeed-ai/qwen-image/text-to-image-2512-lora"
    assert submit.inputs == {
        "prompt": "a red fox",
        "size": "512*512",
        "loras": [{"path": "o/n", "scale": 0.5}],
        "seed": 3,
        "output_format": "png",
    }
    assert image.ok
    assert image.job == TextToImage(
        prompt="a red fox",
        size="512*512",
        loras=["o/n:0.5"],
        seed=3,
        output_format="png",
        model="text-to-image-2512-lora",
    )
    assert [output.nsfw for output in image.outputs] == [False]


async def test_a_seed_is_drawn_and_told(session, emulator):
    image = await session.generate("a red fox")
    assert image.job.seed == emulator.ledger.accepted[0].inputs["seed"]


async def test_edit_uploads_a_local_file_and_saves_what_comes(session, emulator, tmp_path):
    fox = await (await session.generate("a fox", output_format="png", size=(256, 256))).save(tmp_path / "fox.png")
    snowy = await session.edit(fox, "make it snow", size=(256, 256))
    assert emulator.ledger.accepted[1].inputs["image"].startswith("http")
    assert (await snowy.save(tmp_path / "snow.jpg")).stat().st_size > 0
    assert (await snowy.outputs[0].bytes())[:3] == b"\xff\xd8\xff"
    assert (await snowy.outputs[0].pil()).size == (256, 256)


async def test_a_prediction_and_its_output_are_sources_too(session, emulator):
    first = await session.generate("a fox")
    await session.edit(first, "make it snow")
    await session.edit(first.outputs[0], "make it rain")
    await session.edit([first, first.outputs[0]], "put them together", model="edit-plus-lora")
    url = first.outputs[0].url
    assert [row.inputs.get("image", row.inputs.get("images")) for row in emulator.ledger.accepted[1:]] == [
        url,
        url,
        [url, url],
    ]


async def test_two_images_for_a_model_of_one_are_refused(session, emulator):
    with pytest.raises(InvalidJobError, match="edit-plus-lora"):
        await session.edit(["https://h/a.png", "https://h/b.png"], "x")
    assert emulator.ledger.accepted == []


async def test_submit_and_result_also_by_id_and_after_pickle(session):
    prediction = await session.submit(TextToImage(prompt="a fox"))
    assert not prediction.finished
    done = await session.result(prediction, timeout=120)
    assert done.ok
    assert done.job == prediction.job
    assert (await session.result(prediction.id)) == done
    again = pickle.loads(pickle.dumps(done))
    assert (again, again.job) == (done, done.job)
    with pytest.raises(DownloadError, match=r"session\.result"):
        await again.save("x.png")
    assert (await session.result(again)).ok


async def test_result_of_another_session(opened):
    async with opened() as first:
        prediction = await first.submit({"prompt": "a fox"})
    async with opened() as second:
        assert (await second.result(prediction.id)).ok


async def test_many_callers_of_one_id_cost_one_set_of_requests(session, emulator):
    prediction = await session.submit({"prompt": "x"})
    before = emulator.ledger.requests.total()
    results = await asyncio.gather(*(session.result(prediction.id) for _ in range(50)))
    assert all(result.ok for result in results)
    assert emulator.ledger.requests.total() - before <= 10


async def test_a_mapping_and_the_sync_and_base64_switches(session, emulator):
    image = await session.run({"prompt": "x", "enable_sync_mode": True, "enable_base64_output": True})
    assert image.outputs[0].decoded()
    assert emulator.ledger.checks == {}
    plain = await session.run({"prompt": "x", "enable_base64_output": True, "size": "256*256"})
    assert await plain.outputs[0].bytes() == plain.outputs[0].decoded()


async def test_a_saved_image_tells_its_making(session, tmp_path):
    image = await session.generate("a red fox", seed=7, loras=["o/n:0.5"])
    parameters, record = extract((await image.save(tmp_path / "fox.jpg")).read_bytes())
    assert "a red fox" in parameters
    assert image.id in str(record)


async def test_a_flagged_image_fails_its_job_where_asked_for(opened, emulator):
    emulator.faults.add("submit", "nsfw")
    async with opened(nsfw="fail") as session:
        with pytest.raises(ContentFlaggedError) as caught:
            await session.generate("x")
        (outcome,) = [outcome async for outcome in session.stream([{"prompt": "y"}])]
    assert caught.value.billed == outcome.error.billed == "yes"
    assert caught.value.job.prompt == "x"
    assert caught.value.prediction_id == emulator.ledger.accepted[0].id
    async with opened(nsfw="keep") as session:
        assert (await session.generate("x")).outputs[0].nsfw is True


@pytest.mark.parametrize("wait", ["poll", "sync", "auto"])
async def test_each_way_of_waiting(opened, emulator, wait):
    async with opened(wait=wait) as session:
        assert (await session.generate("x")).ok
    assert emulator.ledger.accepted[0].inputs.get("enable_sync_mode") is (True if wait == "sync" else None)
    assert (emulator.ledger.checks == {}) is (wait == "sync")


async def test_download_by_prediction_output_and_url(session, tmp_path):
    image = await session.generate("x", size=(256, 256))
    for index, what in enumerate((image, image.outputs[0], image.outputs[0].url)):
        path = await session.download(what, tmp_path / f"{index}.jpg")
        told = image.id in str(extract(path.read_bytes()))  # a bare URL tells nothing of the image's making
        assert told is not isinstance(what, str)


async def test_what_is_no_prediction_is_refused_here_and_not_by_the_server(session, emulator):
    made = await session.submit(TextToImage(prompt="x"))
    assert (await session.prediction(made)).id == made.id
    assert await session.delete() == 0
    for wrong in ([made.id], None, ""):
        with pytest.raises(ConfigurationError, match="give a prediction or its id"):
            await session.delete(wrong)
        with pytest.raises(ConfigurationError, match="give a prediction or its id"):
            await session.prediction(wrong)


async def test_what_can_not_be_saved_yet_says_what_to_do_first(session, emulator, tmp_path):
    made = await session.submit(TextToImage(prompt="x"))
    with pytest.raises(DownloadError, match=r"is created with 0 images: await it first, by session.result\(\)"):
        await made.save(tmp_path / "fox.jpg")
    with pytest.raises(ConfigurationError, match=r"is no URL of an output.*session.result\(id\)"):
        await session.download(made.id, tmp_path / "fox.jpg")


async def test_a_session_of_another_event_loop_says_so(emulator):
    """As ``asyncio.run`` twice, or a thread with a loop of its own."""
    session = QwenImageSession(base_url=emulator.url, api_key="any")

    async with session:

        def run():
            async def generate():
                with pytest.raises(SessionClosedError, match="another event loop"):
                    await session.generate("x")

            asyncio.run(generate())

        await asyncio.to_thread(run)
    assert not emulator.ledger.accepted


async def test_the_account(session, emulator):
    balance = await session.balance()
    await session.generate("x")
    assert await session.balance() == pytest.approx(balance - 0.025)
    assert (await session.price({"prompt": "x"})).amount == 0.025
    assert (await session.price(Edit(prompt="x", image="local.png"))).source == "api"
    (prediction,) = [prediction async for prediction in session.predictions()]
    assert prediction.ok
    assert await session.delete(prediction, "unknown") == 1
    assert [p async for p in session.predictions()] == []


async def test_the_list_of_predictions_over_many_pages_misses_and_repeats_none(session, emulator):
    async for _ in session.stream({"prompt": f"p{index}"} for index in range(250)):
        pass
    ids, more = [], 0
    async for prediction in session.predictions():
        ids.append(prediction.id)
        if len(ids) in {50, 150}:  # new ones push the old ones down
            more += 1
            await session.submit({"prompt": f"new {more}"})
    assert len(ids) == len(set(ids)) == 250


async def test_the_price_falls_back_on_the_pages_figure():
    async with serving(Script(error(404))) as url, QwenImageSession(api_key="k", base_url=url) as session:
        price = await session.price({"prompt": "x"})
    assert (price.amount, price.source) == (0.025, "pages")


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "image", "kind"),
    [("[moderated] x", None, ContentModerated), ("x", "https://nowhere.invalid/a.png", MediaUnreachable)],
)
async def test_a_failed_task_raises_its_class(session, prompt, image, kind):
    with pytest.raises(kind) as caught:
        await (session.generate(prompt) if image is None else session.edit(image, prompt))
    assert caught.value.billed == "yes"
    assert caught.value.prediction_id
    assert caught.value.job.prompt == prompt


@pytest.mark.wavespeed_emulator(api_key="right")
async def test_a_wrong_key(opened, emulator):
    async with opened(api_key="wrong") as session:
        with pytest.raises(AuthenticationError, match="WAVESPEED_API_KEY") as caught:
            await session.generate("x")
    assert caught.value.billed == "no"
    assert emulator.ledger.accepted == []


@pytest.mark.parametrize(
    "bad", [{"size": (1, 1)}, {"loras": ["o/n"] * 4}, {"seed": -2}, {"output_format": "gif"}, {"model": "flux"}]
)
async def test_bad_input_is_refused_before_anything_is_sent(session, emulator, bad):
    with pytest.raises(InvalidJobError):
        await session.generate("x", **bad)
    assert emulator.ledger.requests.total() == 0


@pytest.mark.parametrize("source", ["missing.png", b"no image", "."])
async def test_a_bad_source_is_refused_before_anything_is_sent(session, emulator, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidJobError) as caught:
        await session.edit(source, "x")
    assert caught.value.field == "image"
    assert caught.value.job.prompt == "x"
    assert emulator.ledger.requests.total() == 0


async def test_429_is_waited_out_and_sent_again(session, emulator):
    emulator.faults.add("submit", "status", status=429, times=1)
    assert (await session.generate("x")).ok
    assert len(emulator.ledger.accepted) == 1


async def test_no_connection_is_tried_again_within_the_budget(opened, emulator):
    url = emulator.url
    await emulator.stop()
    async with opened(base_url=url, retry=Retry(contact_budget=5)) as session:
        began = now()
        with pytest.raises(NotSentError) as caught:
            await session.generate("x")
    assert caught.value.billed == "no"
    assert 1 < now() - began < 6


@pytest.mark.parametrize("action", ["drop_after", "status_after", "html", "truncate"])
async def test_a_lost_answer_is_never_sent_again(opened, emulator, action):
    emulator.faults.add("submit", action)
    async with opened(on_unknown="raise") as session:
        with pytest.raises(SubmissionUnknown) as caught:
            await session.generate("x")
    assert caught.value.billed == "unknown"
    assert caught.value.job.seed is not None
    assert len(emulator.ledger.submit_times) == 1


async def test_a_timeout_of_the_job_carries_the_id(session, emulator):
    emulator.faults.add("submit", "inference", seconds=10_000)
    began = now()
    with pytest.raises(ResultTimeout) as caught:
        await session.generate("x", timeout=timedelta(seconds=30))
    assert now() - began == pytest.approx(30, abs=3)
    assert caught.value.billed == "yes"
    assert caught.value.prediction_id == emulator.ledger.accepted[0].id
    assert session.limits.snapshot().in_flight == 0


async def test_other_4xx_are_final():
    script = Script(error(400, "bad prompt"))
    async with serving(script) as url, QwenImageSession(api_key="k", base_url=url) as session:
        with pytest.raises(BadRequestError, match="bad prompt"):
            await session.generate("x")
    assert len(script.asked) == 1


# --- cancelled and closed ---------------------------------------------------------------------------------------------


async def test_cancelled_before_it_is_sent_sends_nothing(opened, emulator):
    async with opened(limits=Limits(max_per_minute=60, max_in_flight=1)) as session:
        first = asyncio.create_task(session.generate("first"))
        await asyncio.sleep(0.5)
        second = asyncio.create_task(session.generate("second"))
        await asyncio.sleep(0.5)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (await first).ok
        assert session.limits.snapshot().in_flight == session.limits.snapshot().waiting_for_slot == 0
    assert len(emulator.ledger.accepted) == 1


async def test_cancelled_while_it_is_sent_the_id_is_told(opened, emulator, caplog):
    emulator.faults.add("submit", "slow_headers", seconds=5)
    async with opened() as session:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.generate("x"), 2)
        assert session.limits.snapshot().in_flight == 0
        await asyncio.sleep(10)
    (submit,) = emulator.ledger.accepted
    assert [record.prediction_id for record in caplog.records if hasattr(record, "prediction_id")] == [submit.id]


async def test_cancelled_while_it_waits_the_id_is_told(session, emulator, caplog):
    task = asyncio.create_task(session.generate("x"))
    await asyncio.sleep(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (submit,) = emulator.ledger.accepted
    assert submit.id in caplog.text
    assert session.limits.snapshot().in_flight == 0
    assert (await session.result(submit.id)).ok


async def test_closing_lets_a_submit_under_way_tell_its_id(opened, emulator, caplog):
    emulator.faults.add("submit", "slow_headers", seconds=3)
    async with opened() as session:
        task = asyncio.create_task(session.generate("x"))
        await asyncio.sleep(1)
        task.cancel()
    assert emulator.ledger.accepted[0].id in caplog.text
    await asyncio.gather(task, return_exceptions=True)


async def test_closing_does_not_wait_for_ever(opened, emulator, caplog):
    emulator.faults.add("submit", "slow_headers", seconds=1000)
    async with opened() as session:
        task = asyncio.create_task(session.generate("x"))
        await asyncio.sleep(1)
        task.cancel()
        began = now()
    assert now() - began < 15
    assert "whether it was accepted is unknown" in caplog.text
    await asyncio.gather(task, return_exceptions=True)


async def test_a_caller_whose_submit_is_cut_off_by_closing_is_told_and_not_cancelled(opened, emulator):
    emulator.faults.add("submit", "slow_headers", seconds=1000)
    async with opened() as session:
        tasks = [asyncio.create_task(call({"prompt": "x"})) for call in (session.run, session.submit)]
        await asyncio.sleep(1)
    for task in tasks:
        with pytest.raises(SessionClosedError) as caught:
            await task
        assert caught.value.billed == "unknown"
        assert caught.value.job.prompt == "x"


async def test_a_closed_session_says_so(opened):
    session = opened()
    with pytest.raises(SessionClosedError):
        await session.generate("x")
    async with session:
        pass
    for call in (
        session.generate("x"),
        session.balance(),
        session.result("p"),
        session.upload(b"x"),
        session.__aenter__(),
    ):
        with pytest.raises(SessionClosedError):
            await call
    await session.close()


async def test_waiters_of_a_closing_session_are_told(opened, emulator):
    emulator.faults.add("submit", "inference", seconds=10_000)
    async with opened() as session:
        task = asyncio.create_task(session.generate("x"))
        await asyncio.sleep(5)
    with pytest.raises((SessionClosedError, ResultTimeout, asyncio.CancelledError)):
        await asyncio.wait_for(task, 60)


async def test_what_waits_for_its_turn_is_not_sent_by_a_closed_session_and_takes_no_permit(opened, emulator):
    limits = Limits(max_per_minute=60, max_in_flight=10)
    async with opened(limits=limits) as session:
        first, second = (asyncio.create_task(session.generate("x")) for _ in range(2))
        await asyncio.sleep(0.1)
    with pytest.raises(SessionClosedError) as caught:
        await asyncio.wait_for(second, 60)
    assert caught.value.billed == "no"
    assert len(emulator.ledger.accepted) == limits.snapshot().sent == 1
    await asyncio.gather(first, return_exceptions=True)


async def test_a_result_that_timed_out_unawaited_can_be_asked_for_again(opened):
    async with opened(timeout=3) as session:
        prediction = await session.submit({"prompt": "x"})
        await asyncio.sleep(30)
        assert (await session.result(prediction, timeout=10)).ok


async def test_a_slot_follows_a_prediction_submitted_by_itself(opened):
    async with opened(max_in_flight=1) as session:
        prediction = await session.submit({"prompt": "x"})
        assert session.limits.snapshot().in_flight == 1
        assert (await session.generate("y")).ok  # waits for the first to end, by itself
        assert (await session.result(prediction)).ok
        assert session.limits.snapshot().in_flight == 0


async def test_a_failed_submit_gives_its_slot_back(opened, emulator):
    emulator.faults.add("submit", "status", status=400, times=2)
    async with opened(max_in_flight=1) as session:
        for call in (session.submit, session.run):
            with pytest.raises(BadRequestError):
                await call({"prompt": "x"})
        assert session.limits.snapshot().in_flight == 0
        assert (await session.generate("x")).ok


async def test_a_sync_submit_that_is_already_finished_holds_no_slot(opened):
    async with opened(max_in_flight=1) as session:
        prediction = await session.submit({"prompt": "x", "enable_sync_mode": True})
        assert prediction.finished
        assert session.limits.snapshot().in_flight == 0
        assert (await session.result(prediction)).ok


# --- how it is set up -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"api_key": ""}, "WAVESPEED_API_KEY"),
        ({"base_url": "nowhere"}, "base_url"),
        ({"tier": "platinum"}, "platinum"),
        ({"tier": "gold", "limits": Limits(max_per_minute=1, max_in_flight=1)}, "limits"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": timedelta(seconds=-1)}, "timeout"),
        ({"wait": "long"}, "wait"),
        ({"wait": "webhook"}, "webhooks="),
        ({"nsfw": "blur"}, "nsfw"),
        ({"max_per_minute": 0}, "max_per_minute"),
        ({"retry": 3}, "retry = 3: give a Retry"),
        ({"media": {"autorotat": True}}, "'autorotat', known are check_urls, fit, autorotate"),
        ({"media": {"nsfw": "fail"}}, "media: there is no option 'nsfw'"),
    ],
)
def test_bad_options_name_themselves(options, named):
    with pytest.raises(ConfigurationError, match=named):
        QwenImageSession(**{"api_key": "k"} | options)


async def test_key_and_base_url_from_the_environment(monkeypatch, emulator):
    monkeypatch.delenv("WAVESPEED_API_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="WAVESPEED_API_KEY"):
        QwenImageSession()
    monkeypatch.setenv("WAVESPEED_API_KEY", "from-the-environment")
    monkeypatch.setenv("WAVESPEED_BASE_URL", emulator.url)
    async with QwenImageSession() as session:
        assert (await session.generate("x")).ok
        assert "from-the-environment" not in repr(session)
    assert emulator.ledger.keys == {"from-the-environment"}


async def test_without_a_tier_it_says_what_it_assumes(opened, caplog):
    caplog.set_level(logging.INFO)
    async with opened(tier=None) as session:
        assert session.limits.assumed
    assert "set tier=" in caplog.text


@pytest.mark.parametrize("timeout", [30, 30.0, timedelta(seconds=30), Timeout(job=30)])
async def test_the_timeout_of_all_jobs(opened, emulator, timeout):
    emulator.faults.add("submit", "inference", seconds=10_000)
    async with opened(timeout=timeout) as session:
        with pytest.raises(ResultTimeout):
            await session.generate("x")


@pytest.mark.parametrize("prediction", ["", None, 7])
async def test_a_result_of_nothing(session, prediction):
    with pytest.raises(ConfigurationError, match="prediction"):
        await session.result(prediction)


async def test_a_base_url_with_a_path(opened):
    script = Script(accepted(status="completed", outputs=["https://cdn/a.png"]), ok({"balance": 3}))
    async with serving(script) as url, QwenImageSession(api_key="k", base_url=url + "/wavespeed") as session:
        assert (await session.generate("x")).ok
        assert await session.balance() == 3
    assert [request.path for request in script.asked] == [
        "/wavespeed/api/v3/wavespeed-ai/qwen-image/text-to-image-lora",
        "/wavespeed/api/v3/balance",
    ]


async def test_rate_limits_without_end_end_the_call(opened, emulator):
    emulator.faults.add("submit", "status", status=429)
    limits = Limits(max_per_minute=600, max_in_flight=10, breaker_seconds=100, breaker_answers=3)
    async with opened(limits=limits) as session:
        began = now()
        with pytest.raises(LimitsBrokenError) as caught:
            await session.generate("x")
    assert caught.value.billed == "no"
    assert now() - began < 1000
    assert emulator.ledger.accepted == []


async def test_completed_without_images_is_not_believed():
    script = Script(
        accepted(status="completed", outputs=[]), accepted(status="completed", outputs=["https://cdn/a.png"])
    )
    async with serving(script) as url, QwenImageSession(api_key="k", base_url=url, wait="poll") as session:
        assert [output.url for output in (await session.generate("x")).outputs] == ["https://cdn/a.png"]
    assert script.asked[1].path == "/api/v3/predictions/p1/result"


async def test_books_that_fail_after_acceptance_keep_the_id_and_send_nothing_again(session, emulator):
    class Books:
        async def sending(self, request):
            pass

        async def accepted(self, prediction):
            raise NotSentError("a transient error, unbilled by itself")

    job = TextToImage(prompt="x", seed=1)
    with pytest.raises(NotSentError) as caught:
        await session._engine.submit(job, Books())
    (submit,) = emulator.ledger.accepted
    assert (caught.value.billed, caught.value.prediction_id, caught.value.job) == ("yes", submit.id, job)


async def test_submits_that_are_written_down_first_keep_no_others_from_the_server(opened, emulator):
    """48 are on the way at a time; 30 that wait for a journal are not among them."""
    written = asyncio.Event()

    class Books:
        def __init__(self, *, slow):
            self.slow = slow

        async def sending(self, request):
            if self.slow:
                await written.wait()

        async def accepted(self, prediction):
            pass

        def failed(self, error):
            pass

    emulator.faults.add("submit", "slow_headers", seconds=0.3)
    jobs = [(TextToImage(prompt=f"{n}", seed=n), Books(slow=n < 30)) for n in range(70)]
    limits = Limits(max_per_minute=60_000, max_in_flight=200, burst=True)
    async with opened(limits=limits) as session, asyncio.TaskGroup() as group:
        for job, books in jobs:
            group.create_task(session._engine.submit(job, books))
        await asyncio.sleep(0.1)
        assert len(emulator.ledger.accepted) == 40
        written.set()
    assert len(emulator.ledger.accepted) == 70
