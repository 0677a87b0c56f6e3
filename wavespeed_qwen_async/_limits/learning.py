"""How many submits a window the server really allows, learned from its refusals: arithmetic without a clock.

The rate of the configured limit may be wrong: another tier, other programs on the account. A refusal says more than
"slower": the sends of the last window that were *not* refused are what the server allows. So the allowance falls to
that number at once, where additive increase and multiplicative decrease would need many refusals to find it. It then
stays for a window, tries a tenth more, and, if that is not refused either, grows by half every few seconds. A limit
that still holds so costs a refusal or two now and then, and one that was lifted is found within two windows.

Simulated with 20 to 1,000 a minute allowed of three times as many, moving windows and minutes of the clock, with and
without `Retry-After`: 0.2 to 2 % refused, 95 to 100 % used. Below 30 a minute no rule can do both: to try once in
50 sends takes longer than the two windows in which a lifted limit is to be found. Few refusals come first there.
"""

from __future__ import annotations

__all__ = ["Allowance"]

_CAUTION = 0.97  # a refusal lowers the allowance by this much at least, whatever was counted
_DEEPEST_FALL = 1 / 8  # at most to this at once: the account may have been full of others' sends for a moment
_PROBE = 1.1  # the first step above what was refused; a smaller one takes longer to show anything, and saves no refusal
_GROWTH = 1.5
_STEP = 10.0  # seconds between two steps of growth
_SENDS_A_STEP = 3  # ... or the time that so many sends take, so that a slow rate is tried before it grows again
_SENDS_A_PROBE = 55  # a refusal in so many sends is below the 2 % that may be refused
_WORTH_OF_A_WASTE = 15  # windows at full rate that a window without a send is to be followed by
_LONGEST_HOLD = 15  # windows without a probe, at most


class Allowance:
    """The number of sends a window that may leave now: the configured one until the server refuses.

    Args:
        most: The configured number, from 1.
        window: Seconds.
        learn: False keeps it at `most`.
    """

    def __init__(self, most: int, *, window: float, learn: bool = True) -> None:
        self._most = most
        self._window = window
        self._learn = learn
        self._ceiling: float | None = None
        self._next_step = 0.0
        self.value = float(most)

    @property
    def most(self) -> int:
        """The configured number."""
        return self._most

    @most.setter
    def most(self, most: int) -> None:
        self._most = most
        if self._ceiling is None or self.value >= most:
            self._ceiling = None
            self.value = float(most)

    @property
    def whole(self) -> int:
        """How many whole sends a window may hold, from 1: the floor, below which only a pause goes."""
        return int(self.value)

    @property
    def learned(self) -> float | None:
        """The allowance, where refusals have lowered it; None while it is the configured one."""
        return None if self._ceiling is None else self.value

    def refused(self, accepted: int, resume: float, wasted: float = 0.0) -> None:
        """A first refusal begins a pause.

        Args:
            accepted: How many sends of the last window were not refused.
            resume: When sending goes on.
            wasted: The share of a window that the pause loses. A server that asks for longer pauses than it needs makes
                probes dear, so they are made more rarely.
        """
        if not self._learn:
            return
        self.value = max(1.0, self.value * _DEEPEST_FALL, min(accepted, self.value * _CAUTION))
        self._ceiling = self.value
        patience = max(1.0, _SENDS_A_PROBE / self.value, _WORTH_OF_A_WASTE * wasted)
        self._next_step = resume + self._window * min(patience, _LONGEST_HOLD)

    def refused_too(self) -> None:
        """Another one, of those that had left before the first was known: it was counted among the accepted."""
        if self._ceiling is not None:
            self.value = self._ceiling = max(1.0, self.value - 1)

    def step(self, now: float) -> None:
        """Climb, if it is time to; called only while there is more to send than may leave."""
        if self._ceiling is None or now < self._next_step:
            return
        factor = _PROBE if self.value <= self._ceiling else _GROWTH
        self.value = min(self._most, max(self.value * factor, self.value + 1))
        self._next_step = now + max(_STEP, _SENDS_A_STEP * self._window / self.value)
        if self.value >= self._most:
            self._ceiling = None
