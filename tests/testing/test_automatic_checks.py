"""Each automatic check of `tests/conftest.py` is shown to fail a test that deserves it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"

SETTINGS = """
[pytest]
addopts = --strict-markers --disable-plugin-autoload -p anyio -p no:cacheprovider
filterwarnings = error
"""

GUILTY = """
import asyncio, os, time
import aiohttp, pytest
from wavespeed_qwen_async.testing.clock import VirtualClockLoop

pytestmark = pytest.mark.anyio
VirtualClockLoop.__init__.__kwdefaults__["patience"] = 0.2  # the deadlock need not take its time

async def test_task():
    asyncio.get_running_loop().leaked = asyncio.create_task(asyncio.Event().wait(), name="straggler")

@pytest.fixture
async def worker():
    task = asyncio.create_task(asyncio.Event().wait())
    yield
    task.cancel()

async def test_task_that_its_fixture_ends(worker): pass

@pytest.mark.leaves_tasks
async def test_task_allowed():
    asyncio.get_running_loop().leaked = asyncio.create_task(asyncio.Event().wait())

async def test_session():
    aiohttp.ClientSession()

async def test_connection():
    async def close(reader, writer): writer.close()
    server = await asyncio.start_server(close, "127.0.0.1", 0)
    await asyncio.open_connection(*server.sockets[0].getsockname())
    server.close()

async def test_coroutine():
    asyncio.sleep(1)

async def test_exception_nobody_looks_at():
    asyncio.get_running_loop().create_future().set_exception(ValueError("lost"))

def test_task_destroyed():
    loop = asyncio.new_event_loop()
    loop.create_task(asyncio.Event().wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

async def test_blocking():
    blocking.sleep()

async def test_blocking_in_the_test_itself():
    time.sleep(0)

async def test_deadlock():
    await asyncio.Event().wait()

async def test_virtual():
    assert isinstance(asyncio.get_running_loop(), VirtualClockLoop)

@pytest.mark.real_clock
async def test_real():
    assert not isinstance(asyncio.get_running_loop(), VirtualClockLoop)

def test_sync(): pass

# A function that counts as one of ours: blockbuster goes by the name of the file in the frame.
import types, wavespeed_qwen_async
blocking = types.ModuleType("blocking")
exec(compile("import time\\ndef sleep(): time.sleep(0)", wavespeed_qwen_async.__file__, "exec"), blocking.__dict__)
"""

FAILURES = {
    "test_task": "leaked tasks: *straggler*",
    "test_session": "ResourceWarning: Unclosed client session*",
    "test_connection": "ResourceWarning: unclosed *",
    "test_coroutine": "RuntimeWarning: coroutine 'sleep' was never awaited*",
    "test_exception_nobody_looks_at": "ValueError: lost*",
    "test_task_destroyed": "Failed: asyncio reported: Task was destroyed but it is pending!*",
    "test_blocking": "*BlockingError: Blocking call to time.sleep*",
    "test_deadlock": "*DeadlockError: no timer, no executor work*",
}


def test_each_check_fails_the_guilty_and_no_other(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini(SETTINGS)
    pytester.makepyfile(GUILTY)
    result = pytester.runpytest_subprocess("-rfE", "--tb=short")
    blamed = re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", result.stdout.str(), re.MULTILINE)
    assert sorted(blamed) == sorted(FAILURES)
    for name, reason in FAILURES.items():
        result.stdout.fnmatch_lines([f"*_ *{name} _*", f"E *{reason}"])
