"""Whatever is sent, the emulator never answers 500, and never accepts what it refuses."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from emulator_client import EDIT, T2I, Client, using

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    1e308,
    0.5,
    "",
    "x",
    "\ud800",
    "雪",
    "256*256",
    "0*0",
    "\uff11\uff12\uff13\uff14*1024",  # digits, but not those of a size
    [],
    {},
    [[]],
    [None],
    "https://a.co/b.safetensors",
    "http://[",
    "http://a.co:99999999/",
    "1969-01-01T00:00:00Z",
    "0000-00-00",
    "x" * 10_000,
]
FIELDS = ["prompt", "image", "images", "size", "loras", "seed", "output_format", "enable_base64_output", "page", "ids"]
FIELDS += ["page_size", "status", "model", "created_after", "created_before", "model_id", "filename", "content_type"]
FIELDS += ["prediction_uuids", "start_time", "end_time", "billing_type", "sort", "model_uuid", "include_inputs"]
PATHS = [T2I, EDIT, "predictions", "predictions/delete", "model/price", "model/pricing", "billings/search"]
PATHS += [
    "user/usage_stats",
    "media/uploads",
    "media/upload/binary",
    "wavespeed-ai/qwen-image/edit-plus-lora",
    "%",
    "//",
]


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if depth < 3 and kind < 0.15:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    if depth < 3 and kind < 0.3:
        return {rng.choice(["path", "scale", *FIELDS]): value(rng, depth + 1) for _ in range(rng.randint(0, 3))}
    return rng.choice(VALUES)


def body(rng: random.Random, path: str) -> bytes:
    fields = {rng.choice(FIELDS): value(rng) for _ in range(rng.randint(0, 5))}
    good = {"prompt": "x", "image": "https://a.co/x", "page": 1, "page_size": 5, "filename": "a"}
    good |= {"size": 3} if path == "media/uploads" else {}
    data = json.dumps({**good, **fields} if rng.random() < 0.5 else fields).encode()
    if rng.random() < 0.1:
        place = rng.randrange(len(data))
        data = data[:place] + rng.randbytes(rng.randint(0, 3)) + data[place + 1 :]
    return data


async def fuzz(client: Client, count: int, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(count):
        path = rng.choice(PATHS)
        data = body(rng, path)
        headers = {"Content-Type": rng.choice(["application/json", "multipart/form-data; boundary=x", "text/plain"])}
        async with client.request("POST", path, data=data, headers=headers) as answer:
            text = await answer.text()
            assert answer.status in {200, 400, 404, 405, 413}, (number, path, data, text)
            assert json.loads(text)["code"] == answer.status
    ids = [record.id for record in client.emulator.ledger.accepted]
    assert ids
    for page in range(1, 1 + len(ids) // 100 + 1):
        await client.list(page=page)


@using(inference=(0.0, 0.0), balance=1e9, unknown_fields="drop")
async def test_random_bodies(client: Client) -> None:
    await fuzz(client, 1500, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@using(inference=(0.0, 0.0), balance=1e9, unknown_fields="drop")
async def test_a_hundred_thousand_random_bodies(client: Client) -> None:
    await fuzz(client, 100_000, seed=2)
