"""The plugin's async fixtures once more, for pytest-asyncio; loaded only where that is at work.

Its fixtures are bound to a loop of one scope when they are made, so there is a set for each scope a test can choose.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .plugin import new_session, running_clock, running_emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from wavespeed_qwen_async import QwenImageSession
    from wavespeed_qwen_async.emulator import Emulator

    from .clock import VirtualClockLoop


def _fixtures(loop_scope: str) -> dict[str, Any]:
    async def wavespeed_emulator(request: pytest.FixtureRequest) -> AsyncIterator[Emulator]:
        async with running_emulator(request) as emulator:
            yield emulator

    async def wavespeed_session(wavespeed_emulator: Emulator) -> AsyncIterator[QwenImageSession]:
        async with new_session(wavespeed_emulator) as session:
            yield session

    async def virtual_clock() -> VirtualClockLoop:
        return running_clock()

    as_fixture = import_module("pytest_asyncio").fixture
    return {
        f"_asyncio_{loop_scope}_{function.__name__}": as_fixture(function, loop_scope=loop_scope)
        for function in (wavespeed_emulator, wavespeed_session, virtual_clock)
    }


for _scope in ("function", "class", "module", "package", "session"):
    globals().update(_fixtures(_scope))
