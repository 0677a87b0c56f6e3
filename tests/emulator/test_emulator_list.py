"""The list of predictions: order, pages, filters, retention, deletion, and its cost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from emulator_client import EDIT, T2I, Client, using

from wavespeed_qwen_async.emulator.clock import iso, parse_iso
from wavespeed_qwen_async.emulator.tasks import Prediction, Query, Store

pytestmark = pytest.mark.anyio
DAY = 86_400


def prediction(
    number: int,
    created: float,
    took: float,
    model: str = "m",
    outcome: str = "completed",
    *,
    kind: type[Prediction] = Prediction,
) -> Prediction:
    return kind(
        id=f"{number:032x}",
        model=model,
        body="{}",
        created=created,
        created_ns=int(created * 1e9),
        created_at=iso(int(created * 1e9)),
        start=created,
        end=created + took,
        seed=0,
        price=0,
        number=number,
        outcome=outcome,
    )


async def test_pages_come_newest_first(client: Client) -> None:
    ids = [(await client.submit(seed=n))["id"] for n in range(5)]
    first = await client.list(page_size=2)
    assert (first["page"], first["total"]) == (1, 5)
    assert [item["id"] for item in first["items"]] == [ids[4], ids[3]]
    assert [item["id"] for item in (await client.list(page=3, page_size=2))["items"]] == [ids[0]]
    assert (await client.list(page=4, page_size=2))["items"] == []


async def test_items_are_whole_predictions_with_inputs(client: Client) -> None:
    created = await client.submit(seed=8)
    done = await client.finished(created)
    (item,) = (await client.list())["items"]
    assert item.pop("inputs") == {"prompt": "a fox", "seed": 8}
    assert item.pop("executionTime") == done["timings"]["inference"]
    assert item == done


@using(inputs_key="input", list_inputs="asked", result_inputs=True)
async def test_inputs_may_have_another_name_and_come_only_when_asked_for(client: Client) -> None:
    created = await client.submit(seed=8)
    assert not {"input", "inputs"} & (await client.list())["items"][0].keys()
    assert (await client.list(include_inputs=True))["items"][0]["input"]["seed"] == 8
    assert (await client.result(created))["input"]["seed"] == 8


async def test_inputs_are_left_out_when_not_wanted(client: Client) -> None:
    await client.submit()
    assert "inputs" not in (await client.list(include_inputs=False))["items"][0]


async def test_filters_by_model_status_and_time(client: Client) -> None:
    good = await client.submit(seed=1)
    await asyncio.sleep(1)
    bad = await client.submit(prompt="[moderated]")
    edit = await client.submit(EDIT, image="https://example.com/a.png")
    await asyncio.sleep(20)
    fresh = await client.submit(seed=2)
    assert [item["id"] for item in (await client.list(status="created"))["items"]] == [fresh["id"]]
    await asyncio.sleep(1)

    async def ids(**query: Any) -> list[str]:
        answer = await client.list(**query)
        assert answer["total"] == len(answer["items"])
        return [item["id"] for item in answer["items"]]

    assert await ids(status="completed") == [edit["id"], good["id"]]
    assert await ids(status="failed") == [bad["id"]]
    assert await ids(status="processing") == [fresh["id"]]
    assert await ids(status="created") == []
    assert await ids(model=EDIT) == [edit["id"]]
    assert await ids(model=T2I, status="completed") == [good["id"]]
    assert await ids(model="nobody/nothing") == []
    assert await ids(created_after=fresh["created_at"]) == [fresh["id"]]
    assert await ids(created_before=good["created_at"]) == [good["id"]]
    assert await ids(created_after=bad["created_at"], created_before=edit["created_at"]) == [edit["id"], bad["id"]]
    assert await ids(created_after="2020-01-01", created_before="") == [fresh["id"], edit["id"], bad["id"], good["id"]]
    assert await ids(created_after="2999-01-01T00:00:00+02:00") == []


@pytest.mark.parametrize(
    "query",
    [
        {"page": 0},
        {"page": "1"},
        {"page": True},
        {"page_size": 0},
        {"page_size": 101},
        {"model": 5},
        {"status": []},
        {"created_after": "yesterday"},
        {"created_before": 5},
        {"created_after": "2026-13-01"},
    ],
)
async def test_queries_out_of_range_are_refused(client: Client, query: dict[str, Any]) -> None:
    assert (await client.call("POST", "predictions", json=query))[0] == 400


@pytest.mark.parametrize(("body", "status"), [(b"", 200), (b"[]", 400), (b"{", 400), (b"\xff", 400)])
async def test_the_lists_body_is_a_json_object_or_nothing(client: Client, body: bytes, status: int) -> None:
    assert (await client.call("POST", "predictions", data=body))[0] == status


async def test_predictions_and_files_are_kept_for_seven_days(client: Client) -> None:
    created = await client.submit()
    url = (await client.finished(created))["outputs"][0]
    await asyncio.sleep(7 * DAY - 60)
    assert (await client.fetch(url))[0] == 200
    assert len((await client.list())["items"]) == 1
    await asyncio.sleep(60)
    assert (await client.call("GET", f"predictions/{created['id']}/result"))[0] == 404
    assert (await client.list())["items"] == []
    assert (await client.fetch(url))[0] == 404


async def test_deleting_removes_records_but_neither_stops_nor_refunds(client: Client) -> None:
    one, two = [await client.submit(seed=n) for n in range(2)]
    await asyncio.sleep(1)
    assert (await client.list(status="processing"))["total"] == 2
    ids = [one["id"], one["id"], "unknown"]
    assert await client.data("POST", "predictions/delete", json={"ids": ids}) == {"deleted_count": 1}
    assert await client.data("POST", "predictions/delete", json={"ids": ids}) == {"deleted_count": 0}
    assert (await client.call("GET", f"predictions/{one['id']}"))[0] == 404
    assert [item["id"] for item in (await client.list())["items"]] == [two["id"]]
    assert [item["id"] for item in (await client.list(status="processing"))["items"]] == [two["id"]]
    assert (await client.data("GET", "balance"))["balance"] == 999.95
    assert len(client.emulator.ledger.accepted) == 2


@pytest.mark.parametrize("ids", [None, [], "abc", [5]])
async def test_deleting_needs_ids(client: Client, ids: Any) -> None:
    assert (await client.call("POST", "predictions/delete", json={"ids": ids}))[0] == 400


def test_pages_are_those_of_a_plain_filter() -> None:
    rng = random.Random(3)
    store, rows = Store(), []
    for number in range(400):
        row = prediction(
            number, number * 0.5, rng.uniform(1, 30), rng.choice("ab"), rng.choice(["completed", "failed", "cancelled"])
        )
        store.add(row)
        rows.append(row)
    for now in (0.0, 50.0, 120.0, 199.0, 150.0, 400.0):
        for model in (None, "a", "c"):
            for status in (None, "created", "processing", "completed", "failed", "cancelled", "else"):
                for page, size in ((1, 7), (2, 7), (3, 40), (90, 3), (1, 100)):
                    query = Query(page, size, now, model, status)
                    wanted = [
                        row
                        for row in reversed(rows)
                        if row.created <= now
                        and (model is None or row.model == model)
                        and (status is None or row.status(now) == status)
                    ]
                    found, total = store.page(query, now)
                    assert found == wanted[(page - 1) * size : page * size], query
                    assert total == len(wanted), query


def test_a_page_of_many_looks_at_no_more_than_one_of_few() -> None:
    looks = Counter[str]()

    class Seen(Prediction):
        def __getattribute__(self, name: str) -> Any:
            looks[name] += 1
            return super().__getattribute__(name)

    store = Store()
    for number in range(20_000):
        row = prediction(number, number * 0.1, 8.0, outcome="failed" if number % 50 == 0 else "completed", kind=Seen)
        store.add(row)
    now = 2000.0
    queries = [
        Query(1, 100, now),
        Query(150, 100, now),
        Query(1, 100, now, None, "completed"),
        Query(150, 100, now, "m", "completed"),
        Query(2, 100, now, None, "failed"),
        Query(3, 100, now, created_after=int(500e9), created_before=int(900e9)),
    ]
    for query in queries:
        assert len(store.page(query, now)[0]) == 100  # the first of a kind makes its index
        looks.clear()
        store.page(query, now)
        assert 0 < looks.total() < 1000, query  # 80 rows are not at their end yet


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01 00:00:01.5z", 1_500_000_000),
        ("1970-01-01T00:01", 60_000_000_000),
        ("1970-01-01T00:00:00.123456789Z", 123_456_789),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00-0130", 5_400_000_000_000),
    ],
)
def test_iso_times_are_read_to_the_nanosecond(text: str, nanoseconds: int) -> None:
    assert parse_iso(text) == nanoseconds
