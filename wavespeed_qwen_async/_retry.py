"""Whether and when to try again, purely: (policy, error, attempt, elapsed, rng) to seconds, or None to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ConfigurationError, WaveSpeedError

if TYPE_CHECKING:
    import random

__all__ = ["Retry", "next_wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How long to keep trying. What may be tried again is not a choice: see ``next_wait``.

    Attributes:
        read_budget: Seconds that one read (result, list, balance, upload, download) is tried again.
        submit_budget: Seconds that one submit is tried again, of those that certainly were not accepted.
        contact_budget: Seconds that connecting is tried again as long as the server has never answered: a wrong
            address should be told soon, a break in a long run be waited out.
        base: Seconds that the first wait is drawn from; doubles with each attempt ("full jitter").
        cap: Seconds that no wait is drawn from beyond.

    Raises:
        ConfigurationError: a value is negative, or ``base`` or ``cap`` is not above 0.
    """

    read_budget: float = 120.0
    submit_budget: float = 600.0
    contact_budget: float = 15.0
    base: float = 0.5
    cap: float = 20.0

    def __post_init__(self) -> None:
        for name in ("read_budget", "submit_budget", "contact_budget"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"{name} = {getattr(self, name)!r}: give seconds, 0 or more")
        for name in ("base", "cap"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} = {getattr(self, name)!r}: give seconds, more than 0")


def next_wait(
    retry: Retry,
    error: WaveSpeedError,
    *,
    attempt: int,
    elapsed: float,
    submit: bool,
    reached: bool,
    rng: random.Random,
) -> float | None:
    """Seconds to wait before the next try, or None where there must not be one.

    A submit is tried again only where it certainly was not accepted: the error says so by ``billed == "no"``. A read
    costs nothing and is tried again wherever that may help. ``attempt`` counts from 1, ``elapsed`` is in seconds,
    ``reached`` tells whether the server has ever answered.
    """
    if not error.transient or (submit and error.billed != "no"):
        return None
    wait = rng.uniform(0.0, min(retry.cap, retry.base * 2.0 ** min(attempt - 1, 30)))
    if error.retry_after is not None:
        wait += error.retry_after
    budget = retry.submit_budget if submit else retry.read_budget
    if not reached:
        budget = min(budget, retry.contact_budget)
    return wait if elapsed + wait <= budget else None
