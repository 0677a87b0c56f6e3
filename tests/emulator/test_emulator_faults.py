"""Every fault, seen from a plain HTTP client: what it does to the answer, and whether the request took effect."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest
from emulator_client import T2I, Client, using

from wavespeed_qwen_async.emulator import Emulator, Faults
from wavespeed_qwen_async.emulator.faults import ACTIONS, AFTER, BEFORE, KINDS, NOTHING

pytestmark = pytest.mark.anyio
BODY = {"prompt": "x"}


def accepted(client: Client) -> int:
    return len(client.emulator.ledger.accepted)


@pytest.mark.parametrize(("fault", "effect"), [("drop", 0), ("drop_after", 1)])
async def test_a_drop_comes_before_or_after_the_accept(client: Client, fault: str, effect: int) -> None:
    client.emulator.faults.add("submit", fault)
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await client.submit()
    assert accepted(client) == effect
    assert len(client.emulator.ledger.submit_times) == 1
    assert [entry[1:] for entry in client.emulator.ledger.faults] == [("submit", fault)]


@using(faults=None)
async def test_a_check_that_is_answered_with_an_error_is_a_check(client: Client) -> None:
    created = await client.submit()
    client.emulator.faults.add("result", "status", status=503)
    for _ in range(2):
        assert (await client.call("GET", f"predictions/{created['id']}/result"))[0] == 503
        await asyncio.sleep(2)
    assert client.emulator.ledger.spacing(created["id"]) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("fault", "effect"), [("status", 0), ("status_after", 1)])
async def test_an_http_200_may_carry_an_error(client: Client, fault: str, effect: int) -> None:
    client.emulator.faults.add("submit", fault, status=200, code=402, message="Insufficient credits")
    got, body = await client.call("POST", T2I, json={"prompt": "x"})
    assert (got, body) == (200, {"code": 402, "message": "Insufficient credits", "data": None})
    assert len(client.emulator.ledger.accepted) == effect
    assert client.emulator.ledger.refused == {402: 1}


@pytest.mark.parametrize(("fault", "effect"), [("status", 0), ("status_after", 1)])
@pytest.mark.parametrize("status", [429, 500, 503, 504])
async def test_an_error_comes_before_or_after_the_accept(client: Client, fault: str, effect: int, status: int) -> None:
    client.emulator.faults.add("submit", fault, status=status, message="later", error_code=5003)
    got, body = await client.call("POST", T2I, json=BODY)
    assert got == status
    assert body == {"code": status, "message": "later", "data": None, "error_code": 5003}
    assert accepted(client) == effect
    assert client.emulator.ledger.refused[status] == 1


@pytest.mark.parametrize("retry_after", [None, 7, "Wed, 21 Oct 2037 07:28:00 GMT"])
async def test_a_429_may_carry_retry_after(client: Client, retry_after: object) -> None:
    client.emulator.faults.add("submit", "status", status=429, retry_after=retry_after)
    async with client.request("POST", T2I, json=BODY) as answer:
        assert answer.status == 429
        assert answer.headers.get("Retry-After") == (None if retry_after is None else str(retry_after))
        assert (await answer.json())["message"] == "Too many requests"


@pytest.mark.parametrize(("fault", "effect"), [("status", 0), ("status_after", 1)])
async def test_a_gateway_may_answer_with_a_page(client: Client, fault: str, effect: int) -> None:
    client.emulator.faults.add("submit", fault, status=502, html=True)
    async with client.request("POST", T2I, json=BODY) as answer:
        assert (answer.status, answer.content_type) == (502, "text/html")
        assert "Bad Gateway" in await answer.text()
    assert accepted(client) == effect


async def test_a_delay_comes_before_the_accept(client: Client) -> None:
    client.emulator.faults.add("submit", "delay", seconds=9.0)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(8):
            await client.submit()
    assert accepted(client) == 0
    await asyncio.sleep(5)
    assert accepted(client) == 0  # who hangs up before is not served after
    await client.submit()
    assert asyncio.get_running_loop().time() - begun >= 22


async def test_slow_headers_come_after_the_accept(client: Client) -> None:
    client.emulator.faults.add("submit", "slow_headers", seconds=9.0)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(8):
            await client.submit()
    assert accepted(client) == 1
    await client.submit()
    assert asyncio.get_running_loop().time() - begun >= 17


async def test_a_slow_body_arrives_whole(client: Client) -> None:
    client.emulator.faults.add("submit", "slow_body", seconds=10.0, pieces=5)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with client.request("POST", T2I, json=BODY) as answer:
        assert answer.status == 200
        assert loop.time() - begun < 3
        assert (await answer.json())["data"]["status"] == "created"
    assert loop.time() - begun == pytest.approx(10, abs=0.5)


async def test_a_stalled_body_never_ends(client: Client) -> None:
    client.emulator.faults.add("submit", "stall_body")
    async with client.request("POST", T2I, json=BODY) as answer:
        assert answer.status == 200
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await answer.read()
    assert accepted(client) == 1
    await asyncio.sleep(1)
    assert not client.emulator.api.waiting  # who hangs up leaves no handler behind


async def test_a_cut_body_is_shorter_than_announced(client: Client) -> None:
    client.emulator.faults.add("submit", "cut", keep=0.25)
    async with client.request("POST", T2I, json=BODY) as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) > 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert accepted(client) == 1


async def test_truncated_json_is_good_http(client: Client) -> None:
    client.emulator.faults.add("submit", "truncate", keep=0.5)
    async with client.request("POST", T2I, json=BODY) as answer:
        text = await answer.text()
        assert answer.status == 200
    with pytest.raises(ValueError, match="delimiter|Unterminated|Expecting"):
        json.loads(text)
    assert accepted(client) == 1


async def test_html_with_200(client: Client) -> None:
    client.emulator.faults.add("submit", "html")
    async with client.request("POST", T2I, json=BODY) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        assert (await answer.text()).startswith("<html>")
    assert accepted(client) == 1


async def test_a_wrong_content_type_with_good_json(client: Client) -> None:
    client.emulator.faults.add("submit", "content_type", value="text/plain")
    async with client.request("POST", T2I, json=BODY) as answer:
        assert answer.content_type == "text/plain"
        assert json.loads(await answer.text())["data"]["id"]


async def test_a_result_is_hidden_for_a_while_after_the_submit(client: Client) -> None:
    client.emulator.faults.add("result", "hide", seconds=5.0)
    created = await client.submit()
    assert (await client.call("GET", f"predictions/{created['id']}"))[0] == 404
    await asyncio.sleep(5)
    assert (await client.result(created))["id"] == created["id"]


async def test_the_list_may_lag(client: Client) -> None:
    client.emulator.faults.add("list", "lag", seconds=30.0)
    created = await client.submit()
    await asyncio.sleep(20)
    assert (await client.list())["items"] == []
    await asyncio.sleep(11)
    assert (await client.list())["items"][0]["status"] == "processing"
    assert (await client.result(created))["status"] == "completed"
    await asyncio.sleep(20)
    assert (await client.list(status="completed"))["items"][0]["id"] == created["id"]
    client.emulator.faults.clear()
    fresh = await client.submit()
    await asyncio.sleep(20)
    assert len((await client.list(status="completed"))["items"]) == 2
    client.emulator.faults.add("list", "lag", seconds=25.0)
    assert [item["id"] for item in (await client.list(status="completed"))["items"]] == [created["id"]]
    assert fresh["id"]


async def test_the_list_may_have_gaps(client: Client) -> None:
    client.emulator.faults.add("list", "gaps", one_in=3)
    ids = [(await client.submit(seed=n))["id"] for n in range(6)]
    assert [item["id"] for item in (await client.list())["items"]] == [ids[4], ids[3], ids[1], ids[0]]


async def test_the_list_may_leave_inputs_out(client: Client) -> None:
    client.emulator.faults.add("list", "without_inputs")
    await client.submit()
    assert "inputs" not in (await client.list(include_inputs=True))["items"][0]


@pytest.mark.parametrize("status", [404, 500])
async def test_the_list_may_be_off(client: Client, status: int) -> None:
    client.emulator.faults.add("list", "status", status=status)
    assert (await client.call("POST", "predictions", json={}))[0] == status
    assert (await client.call("GET", "balance"))[0] == 200


@pytest.mark.parametrize("code", [1200, 1402, 1403, 5000, 5003, 5004])
async def test_tasks_fail_by_code(client: Client, code: int) -> None:
    client.emulator.faults.script("submit", ("fail", {"code": code}), "ok")
    failed, good = await client.submit(seed=1), await client.submit(seed=2)
    failed = await client.finished(failed)
    assert (failed["status"], failed["code"]) == ("failed", code)
    assert failed["error"]
    assert (await client.result(good))["status"] == "completed"
    assert (await client.data("GET", "balance"))["balance"] == 999.975


@pytest.mark.parametrize("status", ["cancelled", "timeout", "exploded"])
async def test_tasks_end_with_other_statuses(client: Client, status: str) -> None:
    client.emulator.faults.add("submit", "end", status=status)
    done = await client.finished(await client.submit())
    assert (done["status"], done["outputs"]) == (status, [])


async def test_a_task_may_take_for_ever(client: Client) -> None:
    client.emulator.faults.add("submit", "inference", seconds=1e9)
    created = await client.submit()
    await asyncio.sleep(86_400)
    assert (await client.result(created))["status"] == "processing"


async def test_an_output_may_be_flagged(client: Client) -> None:
    client.emulator.faults.add("submit", "nsfw")
    assert (await client.finished(await client.submit()))["has_nsfw_contents"] == [True]


async def output(client: Client, *actions: tuple[str, dict[str, Any]]) -> str:
    done = await client.finished(await client.submit(output_format="png"))
    for name, options in actions:
        client.emulator.faults.add("download", name, **options)
    return str(done["outputs"][0])


async def test_a_download_may_be_cut(client: Client) -> None:
    url = await output(client, ("cut", {}))
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.fetch(url)


async def test_a_download_may_be_short_though_http_is_content(client: Client) -> None:
    url = await output(client, ("truncate", {"keep": 0.9}))
    status, data = await client.fetch(url)
    assert status == 200
    assert not data.endswith(b"IEND\xaeB`\x82")


async def test_a_download_may_be_a_page(client: Client) -> None:
    url = await output(client, ("html", {}))
    assert (await client.fetch(url))[1].startswith(b"<html>")


async def test_a_download_may_stall(client: Client) -> None:
    url = await output(client, ("stall_body", {"keep": 0.1}))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await client.fetch(url)


async def test_an_output_may_come_late_to_the_cdn(client: Client) -> None:
    url = await output(client, ("hide", {"seconds": 60.0}))
    assert (await client.fetch(url))[0] == 404
    await asyncio.sleep(60)
    assert (await client.fetch(url))[0] == 200


@pytest.mark.parametrize("status", [404, 500])
async def test_a_download_may_fail(client: Client, status: int) -> None:
    url = await output(client, ("status", {"status": status}))
    assert (await client.fetch(url))[0] == status


async def test_the_key_may_go_bad_in_mid_run(client: Client) -> None:
    client.emulator.faults.add("submit", "revoke", nth=2)
    await client.submit()
    assert (await client.call("POST", T2I, json=BODY))[0] == 401
    assert (await client.call("GET", "balance"))[0] == 401
    assert accepted(client) == 1


@using(clock_skew=-7200.0)
async def test_the_servers_clock_may_be_off_and_jump(client: Client) -> None:
    async def told() -> tuple[float, float]:
        async with client.request("POST", T2I, json=BODY) as answer:
            created = datetime.fromisoformat((await answer.json())["data"]["created_at"])
            return parsedate_to_datetime(answer.headers["Date"]).timestamp(), created.timestamp()

    clock = client.emulator.service.clock
    right = clock.wall(clock.now()) + 7200
    assert await told() == (pytest.approx(right - 7200, abs=2), pytest.approx(right - 7200, abs=2))
    client.emulator.faults.add("submit", "skew", seconds=300.0)
    assert await told() == (pytest.approx(right + 300, abs=2), pytest.approx(right + 300, abs=2))


async def test_uploads_can_fail_in_both_halves(client: Client) -> None:
    client.emulator.faults.add("ticket", "status", status=503, nth=1)
    client.emulator.faults.add("put", "status", status=500, nth=1)
    with pytest.raises(AssertionError, match="503"):
        await client.upload(b"abc")
    with pytest.raises(AssertionError):
        await client.upload(b"abc")
    assert await client.upload(b"abc")


async def test_faults_can_hold_together(client: Client) -> None:
    client.emulator.faults.add("submit", "slow_headers", seconds=4.0)
    client.emulator.faults.add("submit", "truncate")
    begun = asyncio.get_running_loop().time()
    async with client.request("POST", T2I, json=BODY) as answer:
        assert len(await answer.read()) < 250
    assert asyncio.get_running_loop().time() - begun >= 4


async def test_a_spoilt_error_is_still_spoilt(client: Client) -> None:
    client.emulator.faults.add("result", "html")
    async with client.request("GET", "predictions/nothing") as answer:
        assert (answer.status, answer.content_type) == (404, "text/html")


async def test_faults_over_the_control_endpoint(client: Client) -> None:
    url = f"{client.emulator.url}/__emulator__/faults"
    rules = [
        {"where": "submit", "what": "drop_after", "nth": 2},
        {"where": ["list", "result"], "what": "status", "status": 503, "probability": 0.5},
    ]
    async with client.http.post(url, json={"rules": rules}) as answer:
        assert answer.status == 200
    async with client.http.post(url, json={"where": "balance", "what": "drop"}) as answer:
        assert len((await answer.json())["data"]["rules"]) == 3
    await client.submit()
    with pytest.raises(aiohttp.ClientError):
        await client.submit()
    async with client.http.get(url) as answer:
        told = (await answer.json())["data"]["rules"]
    assert told[0] == {"where": ["submit"], "what": "drop_after", "options": {}, "seen": 2, "fired": 1}
    assert told[1]["where"] == ["list", "result"]
    async with client.http.delete(url) as answer:
        assert (await answer.json())["data"]["rules"] == []
    await client.submit()
    async with client.http.get(f"{client.emulator.url}/__emulator__/ledger") as answer:
        ledger = (await answer.json())["data"]
    assert len(ledger["accepted"]) == 3
    assert ledger["requests"]["submit"] == 3
    assert ledger["faults"][0][1:] == ["submit", "drop_after"]
    assert len(ledger["doubles"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "faults", {"where": "nowhere", "what": "drop"}, 400),
        ("POST", "faults", {"where": "submit", "what": "explode"}, 400),
        ("POST", "faults", {"where": "submit"}, 400),
        ("POST", "faults", {"rules": 5}, 400),
        ("POST", "faults", {"rules": [5]}, 400),
        ("POST", "ledger", {}, 404),
        ("GET", "nothing", None, 404),
    ],
)
async def test_the_control_endpoint_refuses_nonsense(
    client: Client, method: str, path: str, body: object, status: int
) -> None:
    async with client.http.request(method, f"{client.emulator.url}/__emulator__/{path}", json=body) as answer:
        assert answer.status == status


async def test_the_control_endpoint_is_never_spoilt(client: Client) -> None:
    client.emulator.faults.add("*", "drop")
    async with client.http.get(f"{client.emulator.url}/__emulator__/ledger") as answer:
        assert answer.status == 200
    with pytest.raises(aiohttp.ClientError):
        await client.data("GET", "balance")


async def test_a_run_with_the_same_seed_repeats() -> None:
    async def run(seed: int) -> list[int]:
        faults = Faults(seed=seed)
        faults.add("*", "status", status=503, probability=0.4)
        async with Emulator(blank=True, faults=faults) as emulator, aiohttp.ClientSession() as http:
            return [(await Client(emulator, http).call("GET", "balance"))[0] for _ in range(40)]

    first = await run(5)
    assert first == await run(5)
    assert first != await run(6)
    assert 5 < first.count(503) < 30


def strikes(faults: Faults, count: int, kind: str = "submit", path: str = "/p", step: float = 1.0) -> list[int]:
    return [n for n in range(1, count + 1) if faults.draw(kind, path, n * step) is not NOTHING]


def test_when_a_rule_strikes() -> None:
    def of(**options: Any) -> list[int]:
        faults = Faults()
        faults.add("submit", "drop", **options)
        return strikes(faults, 12)

    assert of(nth=3) == [3]
    assert of(nth=[2, 5]) == [2, 5]
    assert of(every=4) == [4, 8, 12]
    assert of(times=2) == [1, 2]
    assert of(every=4, times=2) == [4, 8]
    assert of(since=3.0, until=6.0) == [3, 4, 5]
    assert of(probability=0.0) == []
    assert of(match="/q") == []
    assert of(match="p") == list(range(1, 13))


def test_where_a_rule_strikes() -> None:
    faults = Faults()
    one, both = faults.add("submit", "drop"), faults.add(["submit", "list"], "html")
    assert [a.name for a in faults.draw("submit", "", 0).actions] == ["drop", "html"]
    assert [a.name for a in faults.draw("list", "", 0).actions] == ["html"]
    assert faults.draw("result", "", 0) is NOTHING
    assert (one.seen, both.fired) == (1, 2)
    faults.remove(one)
    assert [a.name for a in faults.draw("submit", "", 0).actions] == ["html"]
    assert "rules=1" in repr(faults)
    faults.clear()
    assert not faults.rules


def test_a_script_tells_the_next_requests_of_a_kind_one_by_one() -> None:
    faults = Faults()
    faults.script("submit", None, "drop", "ok", ("status", {"status": 429}), match="edit")
    names = [[action.name for action in faults.draw("submit", "/edit", 0).actions] for _ in range(6)]
    assert names == [[], ["drop"], [], ["status"], [], []]
    faults.script("submit", "html")
    assert [action.name for action in faults.draw("submit", "/other", 0).actions] == ["html"]


def test_one_rule_does_not_disturb_anothers_draws() -> None:
    alone, together = Faults(1), Faults(1)
    rng = random.Random(0)
    for faults in (alone, together):
        faults.add("submit", "drop", probability=0.5)
    together.add("*", "html", probability=0.5)
    for _ in range(50):
        if rng.random() < 0.5:
            together.draw("list", "", 0)
        one, other = alone.draw("submit", "", 0), together.draw("submit", "", 0)
        assert (one.find("drop") is None) == (other.find("drop") is None)


@pytest.mark.parametrize(
    ("where", "what", "options", "text"),
    [
        ("submits", "drop", {}, "no such kind"),
        ("submit", "dropped", {}, "no such fault"),
        ("submit", "drop", {"seconds": 1}, "no option 'seconds'"),
        ("submit", "drop", {"probability": 1.1}, "probability"),
        ("submit", "drop", {"every": 0}, "every"),
    ],
)
def test_rules_that_make_no_sense_are_refused(where: str, what: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Faults().add(where, what, **options)


def test_actions_and_kinds_hang_together() -> None:
    assert ACTIONS.keys() > BEFORE | AFTER
    assert not BEFORE & AFTER
    assert "webhook" in KINDS


def test_no_option_of_an_action_is_taken_for_one_of_the_rule() -> None:
    of_rules = inspect.signature(Faults.add).parameters.keys()
    for action, options in ACTIONS.items():
        assert not options.keys() & of_rules, action
