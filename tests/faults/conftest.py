"""Each fault done by the emulator to a real session. What holds after every one of them is checked here, once."""

from __future__ import annotations

import random

import pytest

from wavespeed_qwen_async import Limits, QwenImageSession
from wavespeed_qwen_async.emulator import Emulator


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "fault(where, what, sees): the emulator does this, and the user sees the result or this error"
    )


@pytest.fixture
async def emulator(request):
    """An emulator that, at the end, must have done what the test's markers say, and billed and leaked nothing twice."""
    options = request.node.get_closest_marker("wavespeed_emulator")
    async with Emulator(**{"tier": None, "blank": True} | (options.kwargs if options else {})) as running:
        yield running
        # While it still listens: the ledger is of the running loop.
        done = {(where, what) for _, where, what in running.ledger.faults}
        asked = {marker.args[:2] for marker in request.node.iter_markers("fault")}
        assert asked <= done, f"never done: {asked - done}"
        assert running.ledger.doubles() == [], "paid twice"
        assert running.ledger.key_leaks == [], "the key went to a media host"


@pytest.fixture
def opened(emulator):
    """Make a session; tests enter it themselves."""

    def make(**options) -> QwenImageSession:
        if "limits" not in options:
            options["limits"] = Limits(max_per_minute=60_000, max_in_flight=options.pop("max_in_flight", 1000))
        return QwenImageSession(**{"api_key": "secret", "base_url": emulator.url, "rng": random.Random(7)} | options)

    return make


@pytest.fixture
async def session(opened):
    async with opened() as running:
        yield running
