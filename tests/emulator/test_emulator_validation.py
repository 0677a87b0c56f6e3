"""What a submit may hold: each edge of the documentation's tables, on both sides."""

from __future__ import annotations

import json
from typing import Any

import pytest
from emulator_client import EDIT, T2I, Client, using

pytestmark = pytest.mark.anyio

PLUS = "wavespeed-ai/qwen-image/edit-plus-lora"
PLAIN = "wavespeed-ai/qwen-image/text-to-image"
TRAINER = "wavespeed-ai/qwen-image-lora-trainer"
URL = "https://example.com/a.png"
LORA = {"path": "owner/name", "scale": 1.0}

GOOD: list[tuple[str, dict[str, Any]]] = [
    (T2I, {"prompt": "x"}),
    (T2I, {"prompt": "x", "size": "256*256"}),
    (T2I, {"prompt": "x", "size": "1536*1536"}),
    (T2I, {"prompt": "x", "seed": -1}),
    (T2I, {"prompt": "x", "seed": 2147483647}),
    (T2I, {"prompt": "x", "loras": []}),
    (T2I, {"prompt": "x", "loras": [LORA] * 3}),
    (T2I, {"prompt": "x", "loras": [{"path": "https://a.co/b.safetensors?x=1", "scale": 0}]}),
    (T2I, {"prompt": "x", "loras": [{"path": "o/m", "scale": 4.0}]}),
    (T2I, {"prompt": "x", "output_format": "webp", "enable_base64_output": False, "enable_sync_mode": False}),
    (EDIT, {"prompt": "x", "image": URL, "loras": [], "seed": -1, "output_format": "jpeg"}),
    (PLUS, {"prompt": "x", "images": [URL]}),
    (PLUS, {"prompt": "x", "images": [URL] * 3}),
    (TRAINER, {"data": "https://example.com/a.zip", "trigger_word": "p3rs0n", "steps": 1000, "learning_rate": 5e-4}),
]

BAD: list[tuple[str, Any, int, str]] = [
    (T2I, {}, 1400, "prompt"),
    (T2I, {"prompt": ""}, 1401, "prompt"),
    (T2I, {"prompt": " \n"}, 1401, "prompt"),
    (T2I, {"prompt": 5}, 1401, "prompt"),
    (T2I, {"prompt": None}, 1401, "prompt"),
    (T2I, {"prompt": "x", "size": "255*256"}, 1401, "size"),
    (T2I, {"prompt": "x", "size": "256*255"}, 1401, "size"),
    (T2I, {"prompt": "x", "size": "1537*256"}, 1401, "size"),
    (T2I, {"prompt": "x", "size": "1024x1024"}, 1401, "size"),
    (T2I, {"prompt": "x", "size": [1024, 1024]}, 1401, "size"),
    (T2I, {"prompt": "x", "size": None}, 1401, "size"),
    (T2I, {"prompt": "x", "seed": -2}, 1401, "seed"),
    (T2I, {"prompt": "x", "seed": 2147483648}, 1401, "seed"),
    (T2I, {"prompt": "x", "seed": 1.5}, 1401, "seed"),
    (T2I, {"prompt": "x", "seed": True}, 1401, "seed"),
    (T2I, {"prompt": "x", "seed": "7"}, 1401, "seed"),
    (T2I, {"prompt": "x", "output_format": "gif"}, 1401, "output_format"),
    (T2I, {"prompt": "x", "output_format": []}, 1401, "output_format"),
    (T2I, {"prompt": "x", "enable_sync_mode": 1}, 1401, "enable_sync_mode"),
    (T2I, {"prompt": "x", "enable_base64_output": "true"}, 1401, "enable_base64_output"),
    (T2I, {"prompt": "x", "loras": [LORA] * 4}, 1401, "loras"),
    (T2I, {"prompt": "x", "loras": LORA}, 1401, "loras"),
    (T2I, {"prompt": "x", "loras": ["owner/name"]}, 1401, "loras"),
    (T2I, {"prompt": "x", "loras": [{"path": "owner/name"}]}, 1401, "loras"),
    (T2I, {"prompt": "x", "loras": [{"scale": 1.0}]}, 1401, "loras"),
    (T2I, {"prompt": "x", "loras": [{**LORA, "name": "x"}]}, 1401, "loras"),
    (T2I, {"prompt": "x", "loras": [{"path": "name", "scale": 1}]}, 1401, "loras"),
    (T2I, {"prompt": "x", "loras": [{"path": "https://a.co/b.bin", "scale": 1}]}, 1401, "loras"),
    (T2I, {"prompt": "x", "loras": [{"path": "o/m", "scale": 4.01}]}, 1401, "loras"),
    (T2I, {"prompt": "x", "loras": [{"path": "o/m", "scale": -0.01}]}, 1401, "loras"),
    (T2I, {"prompt": "x", "loras": [{"path": "o/m", "scale": True}]}, 1401, "loras"),
    (T2I, {"prompt": "x", "image": URL}, 1401, "image"),
    (T2I, {"prompt": "x", "steps": 30}, 1401, "steps"),
    (PLAIN, {"prompt": "x", "loras": []}, 1401, "loras"),
    (EDIT, {"prompt": "x"}, 1400, "image"),
    (EDIT, {"image": URL}, 1400, "prompt"),
    (EDIT, {"prompt": "x", "image": "fox.png"}, 1401, "image"),
    (EDIT, {"prompt": "x", "image": "https://"}, 1401, "image"),
    (EDIT, {"prompt": "x", "image": "https://[::1"}, 1401, "image"),
    (EDIT, {"prompt": "x", "image": [URL]}, 1401, "image"),
    (EDIT, {"prompt": "x", "images": [URL]}, 1400, "image"),
    (PLUS, {"prompt": "x", "images": []}, 1401, "images"),
    (PLUS, {"prompt": "x", "images": [URL] * 4}, 1401, "images"),
    (PLUS, {"prompt": "x", "images": URL}, 1401, "images"),
    (PLUS, {"prompt": "x", "images": [URL, 5]}, 1401, "images"),
    (TRAINER, {}, 1400, "data"),
    (TRAINER, {"data": "https://a.co/x.zip", "steps": 0}, 1401, "steps"),
    (TRAINER, {"data": "https://a.co/x.zip", "trigger_word": 5}, 1401, "trigger_word"),
]


@pytest.mark.parametrize(("model", "inputs"), GOOD)
async def test_bodies_within_the_ranges_are_accepted(client: Client, model: str, inputs: dict[str, Any]) -> None:
    data = await client.data("POST", model, json=inputs)
    assert data["model"] == model
    assert client.emulator.ledger.accepted[0].inputs == inputs


@pytest.mark.parametrize(("model", "inputs", "code", "field"), BAD)
async def test_bodies_out_of_range_are_refused_with_code_and_field(
    client: Client, model: str, inputs: Any, code: int, field: str
) -> None:
    status, body = await client.call("POST", model, json=inputs)
    assert (status, body["code"], body["error_code"], body["data"]) == (400, 400, code, None)
    assert f"'{field}'" in body["message"]
    assert not client.emulator.ledger.accepted
    assert (await client.data("GET", "balance"))["balance"] == 1000.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'"x"',
        b"\xff\xfe{",
        b'{"prompt": "\xe9"}',
        b'{"prompt": "x", "seed": NaN}',
        b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt":' + b"[" * 100_000,
        b'{"prompt": "x"} and more',
        b'{"prompt": "x"}{}',
    ],
)
async def test_bodies_that_are_no_json_object_are_refused(client: Client, body: bytes) -> None:
    assert (await client.call("POST", T2I, data=body))[0] == 400


async def test_white_space_around_a_body_is_json(client: Client) -> None:
    for body in (b' {"prompt": "x"}', b'{"prompt": "x"}\r\n', b'\n\t{"prompt": "x"} \n'):
        assert (await client.call("POST", T2I, data=body))[0] == 200
    assert [record.inputs for record in client.emulator.ledger.accepted] == [{"prompt": "x"}] * 3


@using(unknown_fields="drop")
async def test_unknown_fields_may_be_dropped_silently(client: Client) -> None:
    await client.submit(steps=30, seed=3, prompt="雪 \ud800")
    (record,) = client.emulator.ledger.accepted
    assert record.inputs == {"prompt": "雪 ?", "seed": 3}


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "nonsense", "https://example.com/hook", "http://[::1", "http://10.0.0.1/"]
)
async def test_webhooks_that_leave_the_machine_are_refused(client: Client, url: str) -> None:
    status, body = await client.call("POST", T2I, json={"prompt": "x"}, params={"webhook": url})
    assert status == 400
    assert "webhook" in body["message"]
    assert not client.emulator.ledger.accepted


async def test_the_examples_of_the_documentation_are_read_as_they_are(client: Client) -> None:
    example = json.loads(
        '{"size": "1024*1024", "loras": [], "seed": -1, "output_format": "jpeg", "enable_sync_mode": false,'
        '"enable_base64_output": false}'
    )
    assert (await client.call("POST", T2I, json=example))[1]["error_code"] == 1400
    assert (await client.call("POST", T2I, json={**example, "prompt": "x"}))[0] == 200
