"""The bytes of outputs: made when somebody fetches them, once, and kept for a while."""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from .blank import blank_image, safetensors
from .schema import MODELS, size_of, sources_of
from .tasks import Prediction

if TYPE_CHECKING:
    from .render import Source
    from .service import Service

CACHE_BYTES: Final = 64 * 1024 * 1024
DEFAULT_SIZE: Final = (1024, 1024)


class Outputs:
    """Renders outputs in the loop's executor; requests for the same one share the work."""

    def __init__(self, service: Service, *, blank: bool, cache_bytes: int = CACHE_BYTES) -> None:
        self._service = service
        self._blank = blank
        self._room = cache_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._making: dict[str, asyncio.Future[None]] = {}
        self.rendered: int = 0

    async def get(self, prediction: Prediction) -> bytes:
        """Return the output's bytes."""
        if self._blank and prediction.output_format != "safetensors":
            width, height = size_of(prediction.inputs) or DEFAULT_SIZE
            return blank_image(width, height, prediction.output_format)
        while (data := self._cached(prediction.id)) is None:
            making = self._making.get(prediction.id)
            if making is None:
                return await self._make(prediction)
            await asyncio.wait([making])
        return data

    async def text(self, prediction: Prediction, *, prefix: bool) -> str:
        """Return the output as base64 text, with or without the head of a data URI."""
        text = base64.b64encode(await self.get(prediction)).decode("ascii")
        return f"data:image/{prediction.output_format};base64,{text}" if prefix else text

    def _cached(self, key: str) -> bytes | None:
        data = self._kept.get(key)
        if data is not None:
            self._kept.move_to_end(key)
        return data

    async def _make(self, prediction: Prediction) -> bytes:
        done = self._making[prediction.id] = asyncio.get_running_loop().create_future()
        try:
            data = await self._produce(prediction)
            self._keep(prediction.id, data)
            return data
        finally:
            del self._making[prediction.id]
            done.set_result(None)

    def _keep(self, key: str, data: bytes) -> None:
        self._kept[key] = data
        self._room -= len(data)
        while self._room < 0 and len(self._kept) > 1:
            self._room += len(self._kept.popitem(last=False)[1])

    async def _produce(self, prediction: Prediction) -> bytes:
        self.rendered += 1
        inputs = prediction.inputs
        if prediction.output_format == "safetensors":
            return safetensors({"trigger_word": str(inputs.get("trigger_word", "")), "base": "qwen-image"})
        sources = [await self._source(url) for url in sources_of(inputs)]
        loop = asyncio.get_running_loop()
        loras = [(lora["path"], float(lora["scale"])) for lora in inputs.get("loras", ())]
        edit = MODELS[prediction.model].kind == "image-to-image"
        # The loop's own executor, not anyio's threads: a virtual clock can then see that work is going on.
        return await loop.run_in_executor(
            None,
            _render,
            inputs["prompt"],
            prediction.seed,
            loras,
            size_of(inputs) or (None if edit else DEFAULT_SIZE),
            prediction.output_format,
            sources,
        )

    async def _source(self, url: str) -> Source:
        if not url.startswith(self._service.media_url + "/"):
            return url
        found = self._service.own_file(url)
        return await self.get(found) if isinstance(found, Prediction) else (found or url)


def _render(*arguments: Any) -> bytes:
    # Imported here, in the worker thread: Pillow is needed for real images only, and takes a while to load.
    from .render import render  # noqa: PLC0415

    return render(*arguments)
