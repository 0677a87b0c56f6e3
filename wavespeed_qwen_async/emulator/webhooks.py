"""Webhooks: one waiting task for all deliveries, signed as the documentation has it, to loopback only."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import hmac
import json
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from .faults import NOTHING, Plan

if TYPE_CHECKING:
    from .api import Api
    from .tasks import Prediction

TIMEOUT: Final = aiohttp.ClientTimeout(total=10.0)
BACKOFF: Final = 2.0
FORGED: Final = "http://127.0.0.1:9/forged.png"

_Entry = tuple[float, int, "Prediction", Plan]


def sign(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """Return a delivery's signature header.

    The key is the secret's text without its `whsec_`, not base64-decoded: what Standard Webhooks libraries do fails.
    """
    key = secret.removeprefix("whsec_").encode()
    message = f"{message_id}.{timestamp}.".encode() + body
    return "v3," + hmac.new(key, message, hashlib.sha256).hexdigest()


class Webhooks:
    """Delivers a prediction to its webhook when it ends as completed or failed."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._service = api.service
        self._due: list[_Entry] = []
        self._changed = asyncio.Event()
        self._waiter: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def schedule(self, prediction: Prediction) -> None:
        """Plan the delivery of an accepted prediction."""
        if prediction.outcome not in {"completed", "failed"}:
            return
        clock, faults = self._service.clock, self._service.faults
        plan, now = NOTHING, clock.now()
        if faults.rules:
            plan = faults.draw("webhook", prediction.webhook or "", now - clock.started)
            self._service.ledger.faults.extend((now, "webhook", action.name) for action in plan.actions)
        when = prediction.end
        if (action := plan.find("early")) is not None:
            when -= action["seconds"]
        if (action := plan.find("late")) is not None:
            when += action["seconds"]
        heapq.heappush(self._due, (when, prediction.number, prediction, plan))
        self._changed.set()
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        clock = self._service.clock
        while True:
            self._changed.clear()
            wait = self._due[0][0] - clock.now() if self._due else None
            if wait is None or wait > 0:
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                continue
            _, _, prediction, plan = heapq.heappop(self._due)
            task = asyncio.get_running_loop().create_task(self._deliver(prediction, plan))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _deliver(self, prediction: Prediction, plan: Plan) -> None:
        message = f"msg_{prediction.id}"
        if plan.find("lose") is not None:
            self._note(prediction, "lost", 0)
            return
        if plan.find("forge") is not None:
            fake = json.loads(await self._body(prediction))
            fake |= {"status": "completed", "outputs": [FORGED]}
            await self._send(prediction, "forged", f"{message}_x", json.dumps(fake).encode(), "whsec_not-it")
        body, secret = await self._body(prediction), self._service.settings.webhook_secret
        for attempt in range(self._service.settings.webhook_attempts):
            if attempt:
                await asyncio.sleep(BACKOFF * 2 ** (attempt - 1))
            if await self._send(prediction, "sent", message, body, secret):
                break
        if (action := plan.find("duplicate")) is not None:
            for _ in range(action["copies"]):
                await asyncio.sleep(action["seconds"])
                await self._send(prediction, "duplicate", message, body, secret)

    async def _body(self, prediction: Prediction) -> bytes:
        now = max(prediction.end, self._service.clock.now())
        outputs = await self._api.base64(prediction, now)
        data: dict[str, Any] = json.loads(self._api.describe(prediction, now, outputs, execution_time=True))
        return json.dumps(data | {"input": prediction.inputs}, ensure_ascii=False).encode("utf-8", "replace")

    async def _send(self, prediction: Prediction, kind: str, message: str, body: bytes, secret: str) -> bool:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        stamp = str(int(self._service.clock.wall(self._service.clock.now())))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message,
            "webhook-timestamp": stamp,
            "webhook-signature": sign(secret, message, stamp, body),
        }
        status = 0
        try:
            # Redirects could lead off this machine, which the check of the URL at the submit would not have seen.
            async with self._session.post(
                prediction.webhook or "", data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        self._note(prediction, kind, status)
        return 200 <= status < 300  # noqa: PLR2004 - HTTP's own range

    def _note(self, prediction: Prediction, kind: str, status: int) -> None:
        self._service.ledger.webhooks.append((self._service.clock.now(), prediction.id, kind, status))

    async def stop(self) -> None:
        """End all deliveries and close the connections."""
        tasks = [*self._sending, *([self._waiter] if self._waiter is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._waiter = None
        self._due.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None
