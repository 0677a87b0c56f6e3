"""Every `@pytest.mark.anyio` test runs on virtual time, and fails for what it leaves behind or blocks.

Markers: `real_clock` gives a test an ordinary event loop; `leaves_tasks` and `logs_asyncio_errors` take it out of one
check each. Unclosed sessions and sockets and coroutines never awaited are Python's own warnings, which `filterwarnings`
makes errors: the collection after each test brings them home to the test that caused them.
`tests/testing/test_automatic_checks.py` shows that each check can fail.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import BlockBuster

from wavespeed_qwen_async import Limits, QwenImageSession
from wavespeed_qwen_async.emulator import Emulator
from wavespeed_qwen_async.testing import plugin
from wavespeed_qwen_async.testing.clock import VirtualClockLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# Children of the tests, and workers of a parallel run, start from compiled code as a user's do, also on machines that
# are set to keep none: compiling anew is most of what a short child takes.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""
sys.dont_write_bytecode = False

# A collection after each test is enough: those in between only cost time.
gc.set_threshold(50_000)

MARKERS = (
    "real_clock: run on an ordinary event loop instead of virtual time",
    "leaves_tasks: asyncio tasks may outlive the test",
    "logs_asyncio_errors: the asyncio logger may report errors during the test",
)


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if not config.pluginmanager.is_registered(plugin):  # as users' pytest does by itself
        config.pluginmanager.register(plugin)


def pytest_collection_finish() -> None:
    # What the imports made is no garbage; with it out of the way a full collection after each test is cheap.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[object]:
    """What outlives a test is modules and caches: the collections after the next ones need not look at it again.

    Not before the test's fixtures are let go: they and its tasks would stay for ever, and be counted by each later one.
    """
    done = yield
    gc.collect()
    gc.freeze()
    return done


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """A loop for each test, so that virtual time starts at the same instant whatever ran before."""
    if request.node.get_closest_marker("real_clock"):
        return "asyncio", {}
    return "asyncio", {"loop_factory": VirtualClockLoop}


@pytest.fixture(scope="session", autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    """Our package may not block a loop that runs. Tests may: they set their scenes with plain files."""
    blockbuster = BlockBuster("wavespeed_qwen_async")
    for function in blockbuster.functions.values():
        # An import blocks once a process: which test it would fail depends on which came before.
        function.can_block_in("<frozen importlib._bootstrap>", {"_find_and_load"})
    blockbuster.activate()
    yield
    blockbuster.deactivate()


@pytest.fixture(autouse=True)
def _no_asyncio_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Exceptions never retrieved and tasks destroyed while pending go to asyncio's logger, and nowhere else."""
    seen = _Records(logging.ERROR)
    logger = logging.getLogger("asyncio")
    logger.addHandler(seen)
    yield
    gc.collect()  # brings home what was left unclosed or never awaited, too
    logger.removeHandler(seen)
    if seen.messages and not request.node.get_closest_marker("logs_asyncio_errors"):
        pytest.fail("asyncio reported: " + "; ".join(seen.messages))


@pytest.fixture(autouse=True)
def _checks_of_the_loop(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("anyio") and "anyio_backend" in request.fixturenames:
        request.getfixturevalue("_no_leaked_tasks")


@pytest.fixture
async def _no_leaked_tasks(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Set up before a test's own fixtures, so checked after they have cleaned up."""
    yield
    for _ in range(10):  # a task that was cancelled needs a few passes to end
        await asyncio.sleep(0)
    # aiohttp cancels the task that sends a body, and does not await it: it may wait for a thread that reads the file.
    ending = {task for task in asyncio.all_tasks() if task.cancelling()}
    if ending:
        await asyncio.wait(ending, timeout=5)
    leaked = sorted(repr(task) for task in asyncio.all_tasks() if not _is_the_runners(task))
    if leaked and not request.node.get_closest_marker("leaves_tasks"):
        pytest.fail("leaked tasks: " + ", ".join(leaked))


def _is_the_runners(task: asyncio.Task[Any]) -> bool:
    """Anyio's test runner drives tests and fixtures by two tasks of its own."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")


class _Records(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
async def emulator(request):
    """An emulator on virtual time that renders and limits nothing, but for what a mark asks for."""
    marker = request.node.get_closest_marker("wavespeed_emulator")
    async with Emulator(**{"tier": None, "blank": True} | (marker.kwargs if marker else {})) as running:
        yield running


@pytest.fixture
def most_in_flight() -> int:
    """How many jobs the sessions of a folder's tests have in flight, where a test doesn't say."""
    return 300


@pytest.fixture
def opened(emulator, most_in_flight):
    """Make a session on the emulator, as generous as a test needs; tests enter it themselves."""

    def make(seed=7, **options) -> QwenImageSession:
        if not {"limits", "tier"} & set(options):
            options["limits"] = Limits(
                max_per_minute=60_000, max_in_flight=options.pop("max_in_flight", most_in_flight)
            )
        return QwenImageSession(**{"api_key": "k", "base_url": emulator.url, "rng": random.Random(seed)} | options)

    return make


@pytest.fixture
async def session(opened):
    async with opened() as running:
        yield running
