"""What users need to test code that is built on this library; `docs/testing.md` is its guide.

The fixtures `wavespeed_emulator`, `wavespeed_session` and `virtual_clock` come by themselves, as a pytest plugin.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clock import DeadlockError, VirtualClockLoop
    from .outcomes import assert_sent, next_outcomes, sent

__all__ = ["DeadlockError", "VirtualClockLoop", "assert_sent", "next_outcomes", "sent"]

_MODULES = {
    "DeadlockError": "clock",
    "VirtualClockLoop": "clock",
    "assert_sent": "outcomes",
    "next_outcomes": "outcomes",
    "sent": "outcomes",
}


def __getattr__(name: str) -> object:
    # Pytest loads the plugin in every run of every project that has this library: that has to cost nothing.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
