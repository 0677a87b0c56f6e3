from __future__ import annotations

import pytest
from redis_server import BINARY, RedisServer


@pytest.fixture
def server(tmp_path):
    if BINARY is None:
        pytest.skip("no redis-server here: apt-get install redis-server")
    running = RedisServer(tmp_path)
    running.start()
    yield running
    running.kill()


@pytest.fixture
def anyio_backend():
    """An ordinary event loop: Redis' clock is a real one."""
    return "asyncio", {}
