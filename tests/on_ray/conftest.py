"""An emulator, and clusters without Ray on it, on virtual time."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from ray_local import Cluster

from wavespeed_qwen_async.emulator import Emulator


@pytest.fixture
async def emulator(request):
    marker = request.node.get_closest_marker("wavespeed_emulator")
    async with Emulator(**{"tier": None, "blank": True} | (marker.kwargs if marker else {})) as running:
        yield running


@pytest.fixture
def clustered(emulator, tmp_path):
    """Make a cluster, closed at its end."""

    @asynccontextmanager
    async def make(**options):
        cluster = Cluster(emulator, tmp_path, **options)
        try:
            yield cluster
        finally:
            await cluster.close()

    return make
