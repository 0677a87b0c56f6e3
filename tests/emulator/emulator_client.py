from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import aiohttp

    from wavespeed_qwen_async.emulator import Emulator

KEY = "key-of-the-tests"
T2I = "wavespeed-ai/qwen-image/text-to-image-lora"
EDIT = "wavespeed-ai/qwen-image/edit-lora"


class Client:
    """A plain HTTP client that knows paths, and nothing of ours."""

    def __init__(self, emulator: Emulator, http: aiohttp.ClientSession) -> None:
        self.emulator, self.http = emulator, http

    def request(self, method: str, path: str, **kwargs: Any) -> aiohttp.client._RequestContextManager:
        headers = {"Authorization": f"Bearer {KEY}", **kwargs.pop("headers", {})}
        return self.http.request(method, f"{self.emulator.url}/api/v3/{path}", headers=headers, **kwargs)

    async def call(self, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
        async with self.request(method, path, **kwargs) as answer:
            return answer.status, await answer.json()

    async def data(self, method: str, path: str, **kwargs: Any) -> Any:
        status, body = await self.call(method, path, **kwargs)
        assert status == 200, body
        assert body["code"] == 200
        assert body["message"] == "success"
        return body["data"]

    async def submit(self, model: str = T2I, webhook: str | None = None, **inputs: Any) -> Any:
        params = {"webhook": webhook} if webhook else {}
        return await self.data("POST", model, json={"prompt": "a fox", **inputs}, params=params)

    async def result(self, prediction: Any) -> Any:
        return await self.data("GET", f"predictions/{prediction['id']}/result")

    async def finished(self, prediction: Any) -> Any:
        await asyncio.sleep(13)
        return await self.result(prediction)

    async def list(self, **query: Any) -> Any:
        return await self.data("POST", "predictions", json={"page": 1, "page_size": 100, **query})

    async def fetch(self, url: str, **kwargs: Any) -> tuple[int, bytes]:
        async with self.http.get(url, **kwargs) as answer:
            return answer.status, await answer.read()

    async def upload(self, data: bytes, name: str = "a.png", kind: str = "image/png") -> str:
        body = {"filename": name, "size": len(data), "content_type": kind}
        ticket = await self.data("POST", "media/uploads", json=body)
        put = ticket["upload"]
        async with self.http.request(put["method"], put["url"], data=data, headers=put["headers"]) as answer:
            assert answer.status == 200, await answer.text()
        return str(ticket["download_url"])


def using(**options: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("options", [options], ids=[""])
