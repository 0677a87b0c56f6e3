"""One contract, two services: the emulator by default, with `-m live` and WAVESPEED_API_KEY the real API.

A live run makes two images and costs about $0.05; the account must hold that much.
These tests speak plain HTTP and know none of our code. What fails live is a fault of the emulator (or of our reading).
"""

from __future__ import annotations

import asyncio
import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from wavespeed_qwen_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.timeout(300)]
T2I = "wavespeed-ai/qwen-image/text-to-image-lora"
EDIT = "wavespeed-ai/qwen-image/edit-lora"
PREDICTION = {"id", "model", "outputs", "urls", "status", "created_at", "error", "timings"}


@dataclass
class Service:
    """Where to talk to, with which key, and how long to wait between two checks."""

    http: aiohttp.ClientSession
    url: str
    key: str
    pace: float

    async def call(self, method: str, path: str, *, key: str | None = None, **kwargs: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        async with self.http.request(method, f"{self.url}/api/v3/{path}", headers=headers, **kwargs) as answer:
            return answer.status, await answer.json(content_type=None)

    async def data(self, method: str, path: str, **kwargs: Any) -> Any:
        status, body = await self.call(method, path, **kwargs)
        assert (status, body["code"]) == (200, 200), body
        return body["data"]

    async def finished(self, prediction: Any) -> Any:
        while prediction["status"] in {"created", "processing"}:
            await asyncio.sleep(self.pace)
            prediction = await self.data("GET", f"predictions/{prediction['id']}/result")
        return prediction


@pytest.fixture(params=["emulator", pytest.param("live", marks=pytest.mark.live)])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    if request.param == "emulator":
        async with Emulator(blank=True, speed=60.0, api_key="right") as emulator, aiohttp.ClientSession() as http:
            yield Service(http, emulator.url, "right", 0.05)
        return
    key = os.environ.get("WAVESPEED_API_KEY")
    if not key:
        pytest.skip("WAVESPEED_API_KEY is not set")
    async with aiohttp.ClientSession() as http:
        yield Service(http, os.environ.get("WAVESPEED_BASE_URL", "https://api.wavespeed.ai"), key, 2.5)


def png(side: int = 256) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes([row % 256, 120, 200]) * side for row in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def test_a_wrong_key_is_refused_with_401(service: Service) -> None:
    assert (await service.call("GET", "balance", key="wrong"))[0] == 401
    assert (await service.call("POST", T2I, key="wrong", json={"prompt": "x"}))[0] == 401


async def test_an_unknown_prediction_and_an_unknown_model_are_refused(service: Service) -> None:
    assert (await service.call("GET", f"predictions/{'0' * 32}/result"))[0] in {400, 404}
    assert (await service.call("POST", "wavespeed-ai/qwen-image/no-such-model", json={"prompt": "x"}))[0] in {400, 404}


@pytest.mark.parametrize(
    "inputs",
    [{}, {"prompt": "x", "size": "100*100"}, {"prompt": "x", "output_format": "gif"}, {"prompt": "x", "seed": "7"}],
)
async def test_bad_inputs_are_refused_with_400_unbilled(service: Service, inputs: dict[str, Any]) -> None:
    before = (await service.data("GET", "balance"))["balance"]
    status, body = await service.call("POST", T2I, json=inputs)
    assert status == 400, body
    assert body["message"]
    assert (await service.data("GET", "balance"))["balance"] == before


async def test_prices_and_balance_are_dollars(service: Service) -> None:
    price = await service.data("POST", "model/price", json={"model_id": T2I, "inputs": {"prompt": "x"}})
    assert 0 < price["price"] < 1
    older = await service.data("POST", "model/pricing", json={"model_id": T2I, "inputs": {"prompt": "x"}})
    assert 0 < older["unit_price"] < 1
    assert isinstance((await service.data("GET", "balance"))["balance"], int | float)
    assert (await service.data("GET", "webhook/secret"))["secret"].startswith("whsec_")
    models = {model["model_id"] for model in await service.data("GET", "models")}
    assert {T2I, EDIT} <= models


async def test_a_text_to_image_task_from_submit_to_deletion(service: Service) -> None:  # one image
    inputs = {"prompt": "a red fox, ink wash", "size": "256*256", "seed": 5, "output_format": "png"}
    created = await service.data("POST", T2I, json=inputs)
    assert created.keys() >= PREDICTION
    assert created["status"] in {"created", "processing"}
    assert created["outputs"] in ([], None)
    assert created["urls"]["get"].endswith(f"/api/v3/predictions/{created['id']}/result")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", created["created_at"])
    done = await service.finished(created)
    assert (done["status"], done["error"]) == ("completed", "")
    assert done["timings"]["inference"] > 0
    (url,) = done["outputs"]
    async with service.http.get(url) as answer:  # without a key: another host
        data = await answer.read()
    assert struct.unpack(">II", data[16:24]) == (256, 256)
    query = {"page": 1, "page_size": 20, "model": T2I, "status": "completed", "include_inputs": True}
    listed = await service.data("POST", "predictions", json=query)
    (item,) = [item for item in listed["items"] if item["id"] == created["id"]]
    sent = item.get("inputs") or item.get("input")
    assert {key: sent[key] for key in inputs} == inputs
    assert item["outputs"] == done["outputs"]
    await service.data("POST", "predictions/delete", json={"ids": [created["id"]]})


async def test_an_edit_of_an_upload_in_sync_mode_as_base64(service: Service) -> None:  # one image
    image = png()
    body = {"filename": "fox.png", "size": len(image), "content_type": "image/png"}
    ticket = await service.data("POST", "media/uploads", json=body)
    put = ticket["upload"]
    async with service.http.request(put["method"], put["url"], data=image, headers=put["headers"]) as answer:
        assert 200 <= answer.status < 300
    inputs = {"prompt": "make it snow", "image": ticket["download_url"], "size": "256*256", "seed": 5}
    flags = {"enable_sync_mode": True, "enable_base64_output": True, "output_format": "jpeg"}
    done = await service.finished(await service.data("POST", EDIT, json={**inputs, **flags}))
    assert done["status"] == "completed"
    assert "/9j/" in done["outputs"][0][:40]  # how a JPEG begins in base64


async def test_the_older_upload(service: Service) -> None:
    form = aiohttp.FormData()
    form.add_field("file", png(64), filename="fox.png", content_type="image/png")
    data = await service.data("POST", "media/upload/binary", data=form)
    assert data["download_url"].startswith("http")


async def test_a_source_out_of_reach_fails_the_task_or_the_submit(service: Service) -> None:  # refunded
    inputs = {"prompt": "make it snow", "image": "https://nothing.invalid/fox.png", "size": "256*256"}
    status, body = await service.call("POST", EDIT, json=inputs)
    if status == 200:
        done = await service.finished(body["data"])
        assert done["status"] == "failed"
        assert done["error"]
    else:
        assert status == 400
