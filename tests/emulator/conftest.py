from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from emulator_client import Client

from wavespeed_qwen_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The emulator's options: `@pytest.mark.parametrize("options", [...])` sets them."""
    return {"blank": True, "tier": None}


@pytest.fixture
async def emulator(options: dict[str, Any]) -> AsyncIterator[Emulator]:
    async with Emulator(**{"blank": True, "tier": None, **options}) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as http:
        yield Client(emulator, http)
