"""Balance, prices, models, billings, usage, the webhook secret."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from emulator_client import EDIT, T2I, Client, using

pytestmark = pytest.mark.anyio
TRAINER = "wavespeed-ai/qwen-image-lora-trainer"


@using(prices={EDIT: 0.03})
async def test_prices_come_in_both_forms(client: Client) -> None:
    assert await client.data("POST", "model/price", json={"model_id": T2I, "inputs": {}}) == {
        "model_id": T2I,
        "price": 0.025,
        "discounted_price": 0.025,
        "discount_rate": 100,
        "currency": "USD",
    }
    older = await client.data("POST", "model/pricing", json={"model_id": EDIT})
    assert older == {"model_id": EDIT, "unit_price": 0.03, "currency": "USD"}
    assert (await client.call("POST", "model/price", json={"model_id": "x/y"}))[0] == 404
    assert (await client.call("POST", "model/price", json={"model_id": []}))[0] == 404


async def test_ten_thousand_small_prices_add_up_exactly(client: Client) -> None:
    for number in range(40):
        await client.submit(seed=number)
    assert (await client.data("GET", "balance"))["balance"] == 999.0


async def test_models_are_told_with_their_fields(client: Client) -> None:
    models = {model["model_id"]: model for model in await client.data("GET", "models")}
    assert len(models) == 10
    schema = models[EDIT]["api_schema"]["api_schemas"][0]["request_schema"]
    assert schema["required"] == ["prompt", "image"]
    assert {"prompt", "image", "loras", "seed", "size"} <= schema["properties"].keys()
    assert models[TRAINER]["base_price"] == 1.0


async def test_training_gives_a_safetensors_file(client: Client) -> None:
    created = await client.data("POST", TRAINER, json={"data": "https://example.com/a.zip", "trigger_word": "p3rs0n"})
    (url,) = (await client.finished(created))["outputs"]
    assert url.endswith(f"{created['id']}.safetensors")
    status, data = await client.fetch(url)
    assert status == 200
    size = int.from_bytes(data[:8], "little")
    assert b"p3rs0n" in data[8 : 8 + size]
    assert len(data) == 8 + size + 4


@using(refund_delay=60.0)
async def test_billings_tell_deductions_and_refunds(client: Client) -> None:
    good = await client.submit(seed=1)
    bad = await client.submit(prompt="[moderated]")

    async def lines(**query: Any) -> list[tuple[str, str, float]]:
        data = await client.data("POST", "billings/search", json={"page": 1, "page_size": 10, **query})
        return [(line["billing_type"], line["prediction"]["uuid"], line["price"]) for line in data["items"]]

    deductions = [("deduct", bad["id"], 0.025), ("deduct", good["id"], 0.025)]
    assert await lines() == deductions
    await asyncio.sleep(100)
    refund = ("refund", bad["id"], 0.025)
    assert await lines() == [refund, *deductions]
    assert await lines(sort="created_at ASC") == [*deductions[::-1], refund]
    assert await lines(prediction_uuids=[good["id"], "unknown"]) == [deductions[1]]
    assert await lines(billing_type="refund") == [refund]
    assert await lines(page=2, page_size=2) == [deductions[1]]
    now = client.emulator.service.clock.nanoseconds(client.emulator.service.clock.now()) // 1_000_000
    assert await lines(start_time=str(now - 95_000)) == [refund]
    assert await lines(end_time=now - 95_000, start_time="") == deductions


@pytest.mark.parametrize(
    "query", [{"start_time": "x"}, {"end_time": []}, {"end_time": True}, {"prediction_uuids": "x"}, {"page_size": 101}]
)
async def test_billings_refuse_what_they_cannot_read(client: Client, query: dict[str, Any]) -> None:
    assert (await client.call("POST", "billings/search", json=query))[0] == 400


async def test_usage_is_told_by_model_and_day(client: Client) -> None:
    await client.submit()
    await client.submit(prompt="[moderated]")
    await client.submit(EDIT, image="https://example.com/a.png")
    await asyncio.sleep(86_400)
    await client.submit()
    await asyncio.sleep(20)
    now = client.emulator.service.clock.wall(client.emulator.service.clock.now())
    span = {"start_time": stamp(now - 2 * 86_400), "end_time": stamp(now)}
    usage = await client.data("POST", "user/usage_stats", json=span)
    assert usage["summary"] == {"total_cost": 0.1, "total_requests": 4, "success_requests": 3}
    assert [day["count"] for day in usage["daily_usage"]] == [3, 1]
    assert {row["model_uuid"]: row["total_count"] for row in usage["per_model_usage"]} == {T2I: 3, EDIT: 1}
    one = await client.data("POST", "user/usage_stats", json={**span, "model_uuid": EDIT})
    assert one["summary"]["total_requests"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"start_time": "2026-01-01", "end_time": "2026-02-02"},
        {"start_time": "2026-01-02", "end_time": "2026-01-01"},
    ],
)
async def test_usage_wants_a_span_of_at_most_31_days(client: Client, body: dict[str, Any]) -> None:
    assert (await client.call("POST", "user/usage_stats", json=body))[0] == 400


@using(webhook_secret="whsec_mine")
async def test_the_webhook_secret_is_told(client: Client) -> None:
    assert await client.data("GET", "webhook/secret") == {"secret": "whsec_mine"}


def stamp(seconds: float) -> str:
    from wavespeed_qwen_async.emulator.clock import iso

    return iso(int(seconds * 1e9))
