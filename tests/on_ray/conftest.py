"""Clusters without Ray on the emulator, on virtual time."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from ray_local import Cluster


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
