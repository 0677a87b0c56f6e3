"""The pytest plugin: an emulator, a session that talks to it, and a virtual clock, for whichever way a test runs.

Under anyio's pytest plugin and under pytest-asyncio the emulator runs in the test's own event loop, which is what
virtual time needs. A plain test gets one on a thread of its own, in real time.

Async fixtures belong to one of these plugins or to the other. So each fixture here is a plain one that picks, among
the async fixtures registered for each plugin, the one for the plugin that runs the test.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from wavespeed_qwen_async import QwenImageSession
    from wavespeed_qwen_async.emulator import Emulator

    from .clock import VirtualClockLoop

API_KEY: Final = "test-key"
# On a real clock an image is there at once, in the very answer to its submit: the session knows how long images take
# and would not ask for seconds. On a virtual clock it takes its 6 to 12 s, which cost nothing.
REAL_TIME: Final[dict[str, Any]] = {"blank": True, "inference": (0.0, 0.0)}
VIRTUAL_TIME: Final[dict[str, Any]] = {"blank": True}


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker, and the fixtures for pytest-asyncio where that is at work."""
    config.addinivalue_line(
        "markers", "wavespeed_emulator(**options): options of the `Emulator` behind the fixture of that name"
    )
    if _has_pytest_asyncio(config):
        config.pluginmanager.import_plugin("wavespeed_qwen_async.testing._pytest_asyncio")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test under anyio that asks for `virtual_clock` the event loop that has one."""
    if not {"virtual_clock", "anyio_backend"} <= set(metafunc.fixturenames):
        return
    from .clock import VirtualClockLoop  # noqa: PLC0415 - the plugin is loaded in every run, used in few

    backend = ("asyncio", {"loop_factory": VirtualClockLoop})
    # A marker, as pytest lets no other way of parametrizing override a fixture that has parameters of its own.
    metafunc.definition.add_marker(pytest.mark.parametrize("anyio_backend", [backend], ids=["virtual"]))


@pytest.fixture
def wavespeed_emulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A running `Emulator` that renders nothing; `WAVESPEED_BASE_URL` and `WAVESPEED_API_KEY` lead to it.

    `@pytest.mark.wavespeed_emulator(tier="bronze", ...)` sets its options.
    """
    with _emulator(request) as emulator:
        monkeypatch.setenv("WAVESPEED_BASE_URL", emulator.url)
        monkeypatch.setenv("WAVESPEED_API_KEY", API_KEY)
        yield emulator


@pytest.fixture
def wavespeed_session(request: pytest.FixtureRequest) -> QwenImageSession:
    """An open `QwenImageSession` that talks to `wavespeed_emulator`. For async tests only."""
    import_module("wavespeed_qwen_async.session")  # here, as it would block the loop
    session: QwenImageSession = _in_the_tests_loop(request, "wavespeed_session")
    return session


@pytest.fixture
def virtual_clock(request: pytest.FixtureRequest) -> VirtualClockLoop:
    """The test's event loop, on virtual time: `elapsed`, `advance`, `hold`. For async tests only."""
    clock: VirtualClockLoop = _in_the_tests_loop(request, "virtual_clock")
    return clock


@asynccontextmanager
async def running_emulator(request: pytest.FixtureRequest) -> AsyncIterator[Emulator]:
    """Run an emulator in the running loop."""
    from .clock import VirtualClockLoop  # noqa: PLC0415 - see above

    virtual = isinstance(asyncio.get_running_loop(), VirtualClockLoop)
    async with _new_emulator(request, VIRTUAL_TIME if virtual else REAL_TIME) as emulator:
        yield emulator


def new_session(emulator: Emulator) -> QwenImageSession:
    """Make a session that talks to the emulator, not yet open."""
    from wavespeed_qwen_async import QwenImageSession  # noqa: PLC0415 - see above

    return QwenImageSession(api_key=API_KEY, base_url=emulator.url)


def running_clock() -> VirtualClockLoop:
    """Return the running loop, which has to be the virtual one."""
    from .clock import VirtualClockLoop  # noqa: PLC0415 - see above

    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualClockLoop):
        text = "this test's event loop is no VirtualClockLoop: docs/testing.md tells how pytest-asyncio gets one"
        pytest.fail(text, pytrace=False)
    return loop


@pytest.fixture
async def _anyio_wavespeed_emulator(request: pytest.FixtureRequest) -> AsyncIterator[Emulator]:
    async with running_emulator(request) as emulator:
        yield emulator


@pytest.fixture
async def _anyio_wavespeed_session(wavespeed_emulator: Emulator) -> AsyncIterator[QwenImageSession]:
    async with new_session(wavespeed_emulator) as session:
        yield session


@pytest.fixture
async def _anyio_virtual_clock() -> VirtualClockLoop:
    return running_clock()


@contextmanager
def _emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    _check_options(request)  # here, as importing the emulator would block the loop
    if _owner(request):
        yield _in_the_tests_loop(request, "wavespeed_emulator")
        return
    from anyio.from_thread import start_blocking_portal  # noqa: PLC0415 - see above

    emulator = _new_emulator(request, REAL_TIME)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(emulator) as running:
        # The ledger asks for the time to tell each status, and this thread has no running loop to ask.
        running.ledger._now = portal.call(asyncio.get_running_loop).time  # noqa: SLF001
        yield running


def _new_emulator(request: pytest.FixtureRequest, defaults: dict[str, Any]) -> Emulator:
    from wavespeed_qwen_async.emulator import Emulator  # noqa: PLC0415 - see above

    return Emulator(**defaults | _options(request))


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("wavespeed_emulator")
    return dict(marker.kwargs) if marker else {}


def _check_options(request: pytest.FixtureRequest) -> None:
    """Tell what is wrong with the marker's options by their names, and not by a traceback through this library."""
    from wavespeed_qwen_async.emulator import Emulator  # noqa: PLC0415 - see above

    known = sorted(field.name for field in fields(Emulator))
    if unknown := sorted(_options(request).keys() - set(known)):
        text = f"@pytest.mark.wavespeed_emulator has no option {unknown[0]!r}; there are {', '.join(known)}"
        pytest.fail(text, pytrace=False)


def _in_the_tests_loop(request: pytest.FixtureRequest, name: str) -> Any:
    owner = _owner(request)
    if owner is None:
        text = f"{name} needs an async test: mark it `@pytest.mark.anyio` or `@pytest.mark.asyncio`"
        pytest.fail(text, pytrace=False)
    return request.getfixturevalue(f"_{owner}_{name}")


def _owner(request: pytest.FixtureRequest) -> str | None:
    """Name the plugin that runs this test, pytest-asyncio with the scope of its loop; a plain test has none."""
    if "anyio_backend" in request.fixturenames:
        return "anyio"
    marker = request.node.get_closest_marker("asyncio")
    if marker is None or not _has_pytest_asyncio(request.config):
        return None
    scope = marker.kwargs.get("loop_scope") or request.config.getini("asyncio_default_test_loop_scope")
    return f"asyncio_{scope}"


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    # The second is its name where it was loaded by `-p`, as without pytest's automatic loading.
    return any(map(config.pluginmanager.has_plugin, ("asyncio", "pytest_asyncio.plugin")))
