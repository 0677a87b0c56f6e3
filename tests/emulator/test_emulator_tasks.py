"""Submit, status, result, queueing, limits, sync mode, base64: what a client sees over plain HTTP."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import sys
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from emulator_client import EDIT, KEY, T2I, Client, using

from wavespeed_qwen_async.emulator import Emulator, create_app

pytestmark = pytest.mark.anyio


async def test_a_task_is_created_then_processing_then_completed(client: Client) -> None:
    created = await client.submit(seed=4)
    assert created["status"] == "created"
    assert created["outputs"] == []
    assert created["model"] == T2I
    assert re.fullmatch(r"[0-9a-f]{32}", created["id"])
    assert created["urls"]["get"] == f"{client.emulator.url}/api/v3/predictions/{created['id']}/result"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", created["created_at"])
    await asyncio.sleep(5.9)
    assert (await client.result(created))["status"] == "processing"
    done = await client.finished(created)
    assert done["status"] == "completed"
    assert done["outputs"] == [f"{client.emulator.media_url}/outputs/{created['id']}.jpeg"]
    assert done["has_nsfw_contents"] == [False]
    assert 6000 <= done["timings"]["inference"] <= 12000
    assert (done["error"], done["code"]) == ("", 0)


async def test_both_result_paths_tell_the_same(client: Client) -> None:
    created = await client.submit()
    assert await client.data("GET", f"predictions/{created['id']}") == await client.result(created)


@using(inference=(3.0, 3.0))
async def test_the_inference_time_is_exact_in_loop_time(client: Client) -> None:
    created = await client.submit()
    accepted = client.emulator.ledger.accepted[0].time
    loop = asyncio.get_running_loop()
    await asyncio.sleep(accepted + 2.9 - loop.time())
    assert (await client.result(created))["status"] == "processing"
    await asyncio.sleep(accepted + 3.0 - loop.time())
    assert (await client.result(created))["status"] == "completed"


@using(inference=(10.0, 10.0), speed=100.0)
async def test_speed_divides_the_inference_time(client: Client) -> None:
    created = await client.submit()
    await asyncio.sleep(0.1)
    assert (await client.result(created))["timings"]["inference"] == 100


@using(inference=(0.0, 0.0))
async def test_a_task_may_be_done_in_the_very_answer_to_its_submit(client: Client) -> None:
    created = await client.submit()
    assert created["status"] == "completed"
    assert len(created["outputs"]) == 1


@using(tier=None, max_in_flight=2, inference=(10.0, 10.0))
async def test_over_the_concurrency_a_task_waits_as_created(client: Client) -> None:
    first, _, third = [await client.submit(seed=n) for n in range(3)]
    await asyncio.sleep(9)
    assert (await client.result(first))["status"] == "processing"
    assert (await client.result(third))["status"] == "created"
    await asyncio.sleep(2)
    assert (await client.result(first))["status"] == "completed"
    assert (await client.result(third))["status"] == "processing"
    await asyncio.sleep(8)
    assert (await client.result(third))["status"] == "processing"
    await asyncio.sleep(2)
    assert (await client.result(third))["status"] == "completed"
    assert client.emulator.ledger.peak_running() == 2
    assert client.emulator.ledger.peak_in_flight() == 3


@using(tier=None, max_in_flight=3)
async def test_however_many_wait_no_more_run_than_allowed(client: Client) -> None:
    for seed in range(20):
        await client.submit(seed=seed)
    rows = list(client.emulator.service.store)
    assert client.emulator.ledger.peak_running() == 3
    assert [row.start for row in rows] == sorted(row.start for row in rows)
    assert max(row.end for row in rows) > 20 * 6.0 / 3


@using(tier="bronze")
async def test_the_rate_is_a_strict_moving_window(client: Client) -> None:
    loop = asyncio.get_running_loop()
    await client.submit(seed=1)
    first = loop.time()
    await asyncio.sleep(30)
    await client.submit(seed=2)
    body = {"prompt": "x"}
    async with client.request("POST", T2I, json=body) as answer:
        assert answer.status == 429
        assert answer.headers["Retry-After"] == "30"
        assert (await answer.json())["code"] == 429
    await asyncio.sleep(first + 59.5 - loop.time())
    assert (await client.call("POST", T2I, json=body))[0] == 429
    await asyncio.sleep(first + 60.1 - loop.time())
    assert (await client.call("POST", T2I, json=body))[0] == 200
    assert (await client.call("POST", T2I, json=body))[0] == 429
    ledger = client.emulator.ledger
    assert ledger.refused[429] == 3
    assert [kind for _, kind, _ in ledger.refused_times] == ["submit"] * 3
    assert len(ledger.submit_times) == 6
    assert ledger.peak_submits() == 2


@using(max_per_minute=1, window=6.0, count_refused=True, retry_after=None)
async def test_refused_submits_may_count_and_retry_after_be_left_out(client: Client) -> None:
    await client.submit()
    await asyncio.sleep(4)
    async with client.request("POST", T2I, json={"prompt": "x"}) as answer:
        assert answer.status == 429
        assert "Retry-After" not in answer.headers
    await asyncio.sleep(4)
    assert (await client.call("POST", T2I, json={"prompt": "x"}))[0] == 429
    await asyncio.sleep(6.1)
    assert (await client.call("POST", T2I, json={"prompt": "x"}))[0] == 200


@using(max_per_minute=1, retry_after="date", speed=50.0)
async def test_retry_after_may_be_a_date_and_speed_leaves_the_window_alone(client: Client) -> None:
    await client.submit()
    async with client.request("POST", T2I, json={"prompt": "x"}) as answer:
        wait = parsedate_to_datetime(answer.headers["Retry-After"]) - parsedate_to_datetime(answer.headers["Date"])
        assert 60 <= wait.total_seconds() <= 61


@using(max_per_minute=0)
async def test_a_rate_of_nothing_lets_nothing_in(client: Client) -> None:
    assert (await client.call("POST", T2I, json={"prompt": "x"}))[0] == 429


async def test_the_date_header_and_created_at_follow_the_loop(client: Client) -> None:
    async with client.request("GET", "balance") as answer:
        before = parsedate_to_datetime(answer.headers["Date"])
    await asyncio.sleep(3600)
    created = await client.submit()
    async with client.request("GET", "balance") as answer:
        after = parsedate_to_datetime(answer.headers["Date"])
    assert 3600 <= (after - before).total_seconds() <= 3602
    assert abs((datetime.fromisoformat(created["created_at"]) - after).total_seconds()) < 2
    assert abs((before - datetime.now(UTC)).total_seconds()) < 60


async def test_any_key_works_but_none_does_not(client: Client) -> None:
    for header in ("", "Bearer ", "Bearer", "Basic abc"):
        status, body = await client.call("GET", "balance", headers={"Authorization": header})
        assert (status, body["code"]) == (401, 401), header
    assert (await client.call("GET", "balance"))[0] == 200
    assert (
        client.emulator.ledger.keys
        == {
            KEY,
        }
        | set()
    )


@using(api_key="right")
async def test_a_set_key_is_the_only_one(client: Client) -> None:
    assert (await client.call("POST", T2I, json={"prompt": "x"}))[0] == 401
    assert not client.emulator.ledger.accepted
    assert (await client.call("GET", "balance", headers={"Authorization": "Bearer right"}))[0] == 200


@using(prefix="/wavespeed")
async def test_a_base_url_may_carry_a_path(client: Client) -> None:
    assert client.emulator.url.endswith("/wavespeed")
    created = await client.submit()
    async with client.http.get(created["urls"]["get"], headers={"Authorization": f"Bearer {KEY}"}) as answer:
        assert (await answer.json())["data"]["id"] == created["id"]
    bare = client.emulator.url.removesuffix("/wavespeed")
    assert (await client.fetch(f"{bare}/api/v3/balance", headers={"Authorization": "Bearer k"}))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", T2I, 405),
        ("GET", "predictions", 405),
        ("POST", "balance", 405),
        ("POST", "wavespeed-ai/flux-dev", 404),
        ("GET", "predictions/nothing", 404),
        ("GET", "predictions/nothing/result", 404),
        ("GET", "predictions/nothing/else", 404),
        ("POST", "predictions/nothing/result", 404),
    ],
)
async def test_what_is_not_there_is_refused_in_the_envelope(
    client: Client, method: str, path: str, status: int
) -> None:
    got, body = await client.call(method, path, json={"prompt": "x"} if method == "POST" else None)
    assert got == status
    assert body["code"] == status
    assert body["data"] is None


async def test_sync_mode_holds_the_request_until_the_result_is_there(client: Client) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    done = await client.submit(enable_sync_mode=True)
    assert done["status"] == "completed"
    assert len(done["outputs"]) == 1
    assert loop.time() - begun == pytest.approx(done["timings"]["inference"] / 1000, abs=0.1)


@using(sync_timeout=5.0)
async def test_sync_mode_may_end_with_code_5004(client: Client) -> None:
    begun = asyncio.get_running_loop().time()
    held = await client.submit(enable_sync_mode=True)
    assert asyncio.get_running_loop().time() - begun == pytest.approx(5.0, abs=0.1)
    assert (held["status"], held["code"], held["error"]) == ("processing", 5004, "Sync mode timed out")
    done = await client.finished(held)
    assert (done["status"], done["code"]) == ("completed", 0)
    assert len(client.emulator.ledger.accepted) == 1


@using(sync_timeout=10.0, sync_ending="504", speed=2.0, inference=(20.0, 20.0))
async def test_sync_mode_may_end_with_504_and_the_task_goes_on(client: Client) -> None:
    begun = asyncio.get_running_loop().time()
    status, _ = await client.call("POST", T2I, json={"prompt": "x", "enable_sync_mode": True})
    assert status == 504
    assert asyncio.get_running_loop().time() - begun == pytest.approx(5.0, abs=0.1)
    await asyncio.sleep(6)
    assert client.emulator.ledger.completed


async def test_sync_mode_gives_a_failure_as_a_prediction(client: Client) -> None:
    failed = await client.submit(prompt="a [moderated] thing", enable_sync_mode=True)
    assert (failed["status"], failed["code"]) == ("failed", 1200)
    assert "moderation" in failed["error"]


@pytest.mark.parametrize(("options", "head"), [({}, "data:image/webp;base64,"), ({"base64_prefix": False}, "")])
async def test_base64_output_is_in_the_result_and_not_in_the_list(client: Client, head: str) -> None:
    done = await client.finished(await client.submit(enable_base64_output=True, output_format="webp", size="256*256"))
    (text,) = done["outputs"]
    assert text.startswith(head)
    assert base64.b64decode(text.removeprefix(head)).startswith(b"RIFF")
    assert (await client.list())["items"][0]["outputs"] == []


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"prompt": "x [moderated]"}, 1200),
        ({"image": "https://gone.invalid/a.png"}, 1402),
        ({"image": "{media}/uploads/nothing/a.png"}, 1402),
        ({"image": "{media}/outputs/nothing.png"}, 1402),
        ({"image": "{media}/else"}, 1402),
    ],
)
async def test_tasks_fail_as_documented_and_are_paid_back(client: Client, inputs: dict[str, str], code: int) -> None:
    image = inputs.get("image", "https://example.com/a.png").format(media=client.emulator.media_url)
    created = await client.submit(EDIT, **(inputs | {"image": image}))
    assert (created["error"], created["code"]) == ("", 0)
    assert (await client.data("GET", "balance"))["balance"] == 999.975
    failed = await client.finished(created)
    assert (failed["status"], failed["code"], failed["outputs"]) == ("failed", code, [])
    assert failed["error"]
    assert failed["has_nsfw_contents"] == []
    assert (await client.data("GET", "balance"))["balance"] == 1000.0


@using(refund_delay=3600.0, balance=0.03)
async def test_a_refund_may_take_hours_and_an_empty_account_pays_nothing(client: Client) -> None:
    await client.submit(prompt="[moderated]")
    status, body = await client.call("POST", T2I, json={"prompt": "x"})
    assert (status, body["code"]) == (402, 402)
    assert "nsufficient credits" in body["message"]
    await asyncio.sleep(3500)
    assert (await client.data("GET", "balance"))["balance"] == 0.005
    await asyncio.sleep(120)
    await client.submit()
    client.emulator.account.add(1.0)
    assert (await client.data("GET", "balance"))["balance"] == 1.005


async def test_the_ledger_keeps_what_was_accepted(client: Client) -> None:
    one = await client.submit(seed=1)
    two = await client.submit(seed=1)
    three = await client.submit(seed=2)
    ledger = client.emulator.ledger
    assert [record.id for record in ledger.accepted] == [one["id"], two["id"], three["id"]]
    assert ledger.accepted[0].inputs == {"prompt": "a fox", "seed": 1}
    assert [[record.id for record in group] for group in ledger.doubles()] == [[one["id"], two["id"]]]
    assert ledger.completed == []
    for wait in (2.0, 1.5, 4.0):
        await client.result(one)
        await asyncio.sleep(wait)
    await client.result(two)
    assert ledger.spacing() == pytest.approx(1.5, abs=0.1)
    assert ledger.spacing(two["id"]) is None
    assert ledger.requests == {"submit": 3, "result": 4}


async def test_ids_and_times_repeat_with_the_seed() -> None:
    async def ids(seed: int) -> list[str]:
        async with Emulator(blank=True, seed=seed) as emulator, aiohttp.ClientSession() as http:
            client = Client(emulator, http)
            return [(await client.submit())["id"] for _ in range(3)]

    assert await ids(1) == await ids(1)
    assert await ids(1) != await ids(2)


async def test_stop_ends_requests_that_are_being_held(options: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as http:
        async with Emulator(blank=True) as emulator:
            client = Client(emulator, http)
            held = asyncio.ensure_future(client.submit(enable_sync_mode=True))
            await asyncio.sleep(1)
            begun = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begun < 1
        with pytest.raises(aiohttp.ClientError):
            await held
        with pytest.raises(aiohttp.ClientError):
            await client.data("GET", "balance")
        assert emulator.ledger.requests["submit"] == 1


async def test_an_emulator_starts_once_at_a_time_and_can_start_again() -> None:
    emulator = Emulator(blank=True)
    assert "not started" in repr(emulator)
    async with emulator:
        assert emulator.url in repr(emulator)
        with pytest.raises(RuntimeError, match="running already"):
            await emulator.start()
    await emulator.stop()
    async with emulator, aiohttp.ClientSession() as http:
        await Client(emulator, http).submit()


async def test_a_port_that_is_taken_leaves_nothing_open() -> None:
    async with Emulator(blank=True) as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            await Emulator(blank=True, port=port).start()


async def test_an_application_can_be_mounted() -> None:
    from aiohttp.test_utils import TestServer

    emulator = Emulator(blank=True, inference=(0.0, 0.0))
    async with TestServer(create_app(emulator)) as server, aiohttp.ClientSession() as http:
        url = str(server.make_url("/")).rstrip("/")
        async with http.post(
            f"{url}/api/v3/{T2I}", json={"prompt": "x"}, headers={"Authorization": "Bearer k"}
        ) as answer:
            data = (await answer.json())["data"]
        assert data["urls"]["get"].startswith(url)
        async with http.get(data["outputs"][0]) as answer:
            assert answer.status == 200
    async with TestServer(create_app(blank=True)) as server, aiohttp.ClientSession() as http:
        async with http.get(server.make_url("/api/v3/balance")) as answer:
            assert answer.status == 401


async def test_a_mounting_applications_middlewares_and_signals_see_requests_and_responses() -> None:
    from aiohttp.test_utils import TestServer

    @web.middleware
    async def reading(request: web.Request, handler: Any) -> web.StreamResponse:
        await request.read()
        response: web.StreamResponse = await handler(request)
        response.headers["X-Middleware"] = "saw it"
        return response

    async def signal(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Signal"] = "saw it"

    app = web.Application(middlewares=[reading])
    app.on_response_prepare.append(signal)
    app.add_subapp("/mounted", create_app(blank=True, prefix="/mounted"))
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession() as http,
        http.post(
            server.make_url(f"/mounted/api/v3/{T2I}"), json={"prompt": "x"}, headers={"Authorization": "Bearer k"}
        ) as answer,
    ):
        assert answer.status == 200, await answer.text()
        assert (answer.headers["X-Middleware"], answer.headers["X-Signal"]) == ("saw it", "saw it")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"host": "0.0.0.0"}, "loopback"),
        ({"host": "example.com"}, "loopback"),
        ({"tier": "platinum"}, "tier"),
        ({"inference": (3.0, 2.0)}, "inference"),
        ({"speed": 0.0}, "speed"),
        ({"window": -1.0}, "window"),
        ({"prefix": "x"}, "prefix"),
        ({"prefix": "/x/"}, "prefix"),
    ],
)
async def test_options_that_cannot_work_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Emulator(**options)


async def test_remote_hosts_need_permission() -> None:
    assert Emulator(host="0.0.0.0", allow_remote=True).limits == (5000, 10000)
    assert Emulator(host="localhost", max_per_minute=7, max_in_flight=8).limits == (7, 8)


def test_the_ledger_can_be_read_without_a_loop() -> None:
    emulator = Emulator(blank=True)
    assert emulator.ledger.accepted == []

    async def run() -> None:
        async with emulator, aiohttp.ClientSession() as http:
            await Client(emulator, http).submit()

    asyncio.run(run())
    assert [record.status for record in emulator.ledger.accepted] == ["processing"]
    assert emulator.ledger.as_dict()["completed"] == 0


@pytest.mark.real_clock
async def test_run_serves_until_it_is_told_to_stop() -> None:
    code = (
        "from wavespeed_qwen_async.emulator import run\n"
        "run(port=0, blank=True, on_start=lambda emulator: print(emulator.url, flush=True))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    async with aiohttp.ClientSession() as http, http.get(f"{url}/api/v3/balance") as answer:
        assert answer.status == 401
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


async def test_a_body_that_is_far_too_large_is_refused(client: Client) -> None:
    from wavespeed_qwen_async.emulator.server import MAX_BODY

    status, body = await client.call("POST", T2I, data=BytesIO(b'{"prompt": "%b"}' % (b"x" * MAX_BODY)))
    assert (status, body["code"]) == (413, 413)
    assert not client.emulator.ledger.accepted


async def test_an_answer_to_http_1_0_and_one_that_closes_are_as_whole_as_the_rest(client: Client) -> None:
    host, port = client.emulator.url.removeprefix("http://").split(":")
    for version, asked, told in (
        ("1.1", "", ""),
        ("1.1", "close", "close"),
        ("1.0", "", ""),
        ("1.0", "keep-alive", "keep-alive"),
    ):
        kept = (version == "1.1") != bool(asked)
        reader, writer = await asyncio.open_connection(host, int(port))
        extra = f"Connection: {asked}\r\n" if asked else ""
        head = f"GET /api/v3/balance HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer k\r\n{extra}\r\n".encode()
        answers = []
        for _ in range(2 if kept else 1):
            writer.write(head)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(answer.partition("content-length: ")[2].partition("\r")[0])
            answers.append(await reader.readexactly(length))
            assert answer.startswith(f"http/{version} 200 ok\r\n")
            assert "content-type: application/json\r\n" in answer
            assert "date: " in answer
            assert answer.partition("connection: ")[2].partition("\r")[0] == told
        assert all(b'"balance"' in each for each in answers)
        if not kept:
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@using(optional_fields=False, inference=(1.0, 1.0))
async def test_fields_that_may_be_absent_are_absent_when_told(client: Client) -> None:
    created = await client.submit()
    done, (item,) = await client.finished(created), (await client.list())["items"]
    for answer in (created, done, item):
        assert not answer.keys() & {"has_nsfw_contents", "code"}
    assert done["status"] == item["status"] == "completed"
