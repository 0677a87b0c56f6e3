"""Webhooks: when, what, how signed, and everything that can happen to them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from emulator_client import Client, using

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


class Receiver:
    def __init__(self) -> None:
        self.got: list[tuple[float, dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((asyncio.get_running_loop().time(), dict(request.headers), await request.read()))
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:1/"})

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.answer)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/hook"))
        yield receiver


def is_signed(headers: dict[str, str], body: bytes, key: str) -> bool:
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = hmac.new(key.encode(), message, hashlib.sha256).hexdigest()
    return headers["webhook-signature"] == f"v3,{wanted}"


@using(webhook_secret="whsec_c2VjcmV0")
async def test_an_end_is_told_at_once_and_signed_with_the_secrets_text(client: Client, receiver: Receiver) -> None:
    await client.submit()
    created = await client.submit(webhook=receiver.url, seed=3)
    await asyncio.sleep(13)
    ((when, headers, body),) = receiver.got
    record = client.emulator.ledger.accepted[1]
    assert record.webhook == receiver.url
    data = json.loads(body)
    assert when - record.time == pytest.approx(data["timings"]["inference"] / 1000, abs=0.1)
    assert (data["id"], data["status"], len(data["outputs"])) == (created["id"], "completed", 1)
    assert data["input"] == {"prompt": "a fox", "seed": 3}
    clock = client.emulator.service.clock
    assert int(headers["webhook-timestamp"]) == pytest.approx(clock.wall(when), abs=1.5)
    assert is_signed(headers, body, "c2VjcmV0")
    assert not is_signed(headers, body, "secret")
    assert not is_signed(headers, body, "whsec_c2VjcmV0")
    assert [entry[1:] for entry in client.emulator.ledger.webhooks] == [(created["id"], "sent", 200)]


async def test_failures_are_told_and_other_ends_are_not(client: Client, receiver: Receiver) -> None:
    client.emulator.faults.add("submit", "end", nth=2, status="cancelled")
    await client.submit(webhook=receiver.url, prompt="[moderated]")
    await client.submit(webhook=receiver.url)
    await asyncio.sleep(20)
    (body,) = receiver.bodies
    assert (body["status"], body["code"]) == ("failed", 1200)


@using(inference=(5.0, 50.0))
async def test_many_are_delivered_each_at_its_own_time(client: Client, receiver: Receiver) -> None:
    for seed in range(30):
        await client.submit(webhook=receiver.url, seed=seed)
    await asyncio.sleep(60)
    ends = {row.id: row.end for row in client.emulator.service.store}
    assert len(receiver.got) == 30
    for (when, _, _), body in zip(receiver.got, receiver.bodies, strict=True):
        assert when == pytest.approx(ends[body["id"]], abs=0.2)


async def test_a_delivery_is_tried_again_with_the_same_id(client: Client, receiver: Receiver) -> None:
    receiver.statuses = [500, 302]
    await client.submit(webhook=receiver.url)
    await asyncio.sleep(30)
    assert len(receiver.got) == 3
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    assert [entry[3] for entry in client.emulator.ledger.webhooks] == [500, 302, 200]


@using(webhook_attempts=2)
async def test_a_receiver_that_is_gone_is_given_up(client: Client) -> None:
    await client.submit(webhook="http://127.0.0.1:9/hook")
    await asyncio.sleep(60)
    assert [entry[2:] for entry in client.emulator.ledger.webhooks] == [("sent", 0)] * 2


async def test_deliveries_may_be_lost_or_repeated(client: Client, receiver: Receiver) -> None:
    client.emulator.faults.script("webhook", "lose", ("duplicate", {"copies": 2, "seconds": 10.0}))
    lost, repeated = [await client.submit(webhook=receiver.url, seed=n) for n in range(2)]
    await asyncio.sleep(60)
    assert [body["id"] for body in receiver.bodies] == [repeated["id"]] * 3
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    assert receiver.got[2][0] - receiver.got[0][0] == pytest.approx(20, abs=0.5)
    assert (lost["id"], "lost", 0) in [entry[1:] for entry in client.emulator.ledger.webhooks]
    assert ("webhook", "lose") in [entry[1:] for entry in client.emulator.ledger.faults]


@using(inference=(10.0, 10.0))
async def test_deliveries_may_come_early_or_late(client: Client, receiver: Receiver) -> None:
    client.emulator.faults.script("webhook", ("early", {"seconds": 5.0}), ("late", {"seconds": 90.0}))
    early, late = [await client.submit(webhook=receiver.url, seed=n) for n in range(2)]
    await asyncio.sleep(6)
    (body,) = receiver.bodies
    assert (body["id"], body["status"]) == (early["id"], "completed")
    assert (await client.result(early))["status"] == "processing"
    await asyncio.sleep(90)
    assert len(receiver.got) == 1
    await asyncio.sleep(6)
    assert receiver.bodies[1]["id"] == late["id"]


async def test_a_forged_delivery_comes_first_and_is_signed_wrongly(client: Client, receiver: Receiver) -> None:
    client.emulator.faults.add("webhook", "forge", match="/hook")
    created = await client.submit(webhook=receiver.url, prompt="[moderated]")
    await asyncio.sleep(20)
    (_, headers, body), (_, true_headers, true_body) = receiver.got
    key = client.emulator.webhook_secret.removeprefix("whsec_")
    assert not is_signed(headers, body, key)
    assert is_signed(true_headers, true_body, key)
    forged = json.loads(body)
    assert (forged["id"], forged["status"]) == (created["id"], "completed")
    assert "forged" in forged["outputs"][0]
    assert json.loads(true_body)["status"] == "failed"


async def test_stop_leaves_no_delivery_behind(client: Client, receiver: Receiver) -> None:
    client.emulator.faults.add("webhook", "duplicate", seconds=1000.0)
    await client.submit(webhook=receiver.url)
    await client.submit(webhook=receiver.url, seed=5)
    await asyncio.sleep(13)
    await client.emulator.stop()
    await asyncio.sleep(5000)
    assert len(receiver.got) == 2
