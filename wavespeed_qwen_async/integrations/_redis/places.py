"""Places among the predictions in flight: slots of this process, as many of them as Redis says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wavespeed_qwen_async._limits.slots import Slot, Slots

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Places"]


class Places(Slots):
    """Slots whose number is decided elsewhere.

    Args:
        needed: Called when a place is wanted that is not there.
        freed: Called when a place was given back that nobody here waits for.
    """

    def __init__(self, *, needed: Callable[[], None], freed: Callable[[], None]) -> None:
        super().__init__(0, field="places", least=0)
        self._needed = needed
        self._freed = freed

    async def acquire(self) -> Slot:
        """Take a place, or wait for one."""
        if self.in_use >= self.size:
            self._needed()
        return await super().acquire()

    def give_back(self, generation: int) -> None:
        """Take back a place."""
        super().give_back(generation)
        if not self.waiting or self.in_use >= self.size:
            self._freed()

    def fail(self, make_error: Callable[[], BaseException]) -> None:
        """End all waits with an error."""
        self._line.dismiss(make_error)
