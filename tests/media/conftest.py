from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from media_server import World, client, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wavespeed_qwen_async.media import Media


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving() as world:
        yield world


@pytest.fixture
async def media(world: World) -> AsyncIterator[Media]:
    async with client(world) as made:
        yield made.media
