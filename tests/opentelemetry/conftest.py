"""An emulator on virtual time, and sessions on it that are observed."""

from __future__ import annotations

import random

import pytest

from wavespeed_qwen_async import Limits, QwenImageSession
from wavespeed_qwen_async.emulator import Emulator


@pytest.fixture
async def emulator(request):
    marker = request.node.get_closest_marker("wavespeed_emulator")
    async with Emulator(**{"tier": None, "blank": True} | (marker.kwargs if marker else {})) as running:
        yield running


@pytest.fixture
def opened(emulator):
    """Make a session; tests enter it themselves."""

    def make(**options) -> QwenImageSession:
        options.setdefault("limits", Limits(max_per_minute=60_000, max_in_flight=300))
        return QwenImageSession(**{"api_key": "k", "base_url": emulator.url, "rng": random.Random(7)} | options)

    return make
