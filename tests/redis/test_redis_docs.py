from __future__ import annotations

import re
from pathlib import Path

import pytest

from wavespeed_qwen_async.emulator import Emulator
from wavespeed_qwen_async.integrations._redis.exchange import connected
from wavespeed_qwen_async.integrations.redis import RedisLimits

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "redis.md"


async def test_the_pages_code_runs(server, monkeypatch, capsys):
    first, second = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    first = first.replace("redis://cache.internal:6379/0", server.url)
    async with (  # so that the first start does not wait
        connected(server.url) as client,
        RedisLimits(client, tier="gold", trust_empty=True),
        Emulator(tier=None, blank=True, inference=(0.0, 0.0)) as api,
    ):
        monkeypatch.setenv("WAVESPEED_BASE_URL", api.url)
        monkeypatch.setenv("WAVESPEED_API_KEY", "k")
        scope: dict = {}
        exec(first, scope)
        await scope["main"]()
        assert capsys.readouterr().out.startswith("http://127.0.0.1")
        exec(second, scope)
        assert (scope["limits"]._own.max_per_minute, scope["limits"]._own.max_in_flight) == (375, 375)
