"""One question to Redis and its answer; what happens in between is `exchange.lua`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo

from wavespeed_qwen_async._limits.rate import CATCH_UP, LATEST_ARRIVAL, MARGIN
from wavespeed_qwen_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PATIENCE", "SETTLING", "SPACING", "USE_BY", "Answer", "End", "Exchange", "Kind", "Rules", "connected"]

PATIENCE = 2.0
"""Seconds for a connection, and for an answer."""

SPACING = 0.125
"""Seconds between two questions of a process that has more to send; permits are given for twice as long ahead."""

QUESTIONS = 400
"""Questions a second of all processes together, at most: with more than 50 of them each asks more rarely."""

USE_BY = 1.0
"""Seconds after which a permit that was due is given back instead: this process was held up (a blocked event loop, a
machine that slept), and Redis will take the permit's send to have arrived soon."""

SETTLING = USE_BY + LATEST_ARRIVAL + 2.0
"""Seconds in which all that left without Redis' knowledge has arrived and everybody has noticed that Redis is back."""

Kind = Literal["worked", "refused", "failed", "other", "cut off", "unsent"]

_KEYS = ("state", "away", "counted", "refused", "leases", "held", "wanted", "starving", "asking")
_SCRIPT = Path(__file__).with_name("exchange.lua").read_text(encoding="utf-8")


class End(NamedTuple):
    """What became of a permit, and when on this loop's clock."""

    id: str
    time: float
    kind: Kind
    episode: int
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Rules:
    """What all processes of an account agree on; each sends it along, and each is decided by its own."""

    limit: int
    places: int
    window: float
    burst: float
    lease: float
    learn: bool
    breaker_seconds: float
    breaker_answers: int
    trust_empty: bool

    def as_question(self) -> dict[str, Any]:
        """For the script."""
        return {
            "limit": self.limit,
            "places": self.places,
            "window": self.window,
            "burst": self.burst,
            "lease": self.lease,
            "learn": self.learn,
            "breaker_seconds": self.breaker_seconds,
            "breaker_answers": self.breaker_answers,
            "trust_empty": self.trust_empty,
            "margin": MARGIN,
            "latest": USE_BY + LATEST_ARRIVAL,
            "settling": SETTLING,
            "catch_up": CATCH_UP,
            "spacing": SPACING,
            "questions": QUESTIONS,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What the account is doing, and what this process may do.

    Attributes:
        permits: Id and seconds until it may be used.
        again: Seconds before which no further permit can be had.
        places: Predictions that this process may have in flight.
        places_again: Seconds before which asking for more places is no use.
        used: Sends of all processes that the server may be counting.
        allowance: Submits a window that are sent at most now.
        learned: Whether refusals have lowered it.
        paused: Seconds that submits pause; 0.0 while they don't.
        pauses: Pauses in all.
        reason: Why the last one began.
        broken: Submits fail until the pause is over.
        on_trial: The answer to one send decides whether the others follow.
        full: Seconds that the window counts as full because Redis does not know what was sent.
    """

    permits: Sequence[tuple[str, float]]
    again: float
    places: int
    places_again: float
    used: int
    allowance: int
    learned: bool
    paused: float
    pauses: int
    reason: str
    broken: bool
    on_trial: bool
    full: float


class Exchange:
    """Asks the questions of one process, by a script that Redis runs at one go."""

    def __init__(self, client: Redis, rules: Rules, *, account: str, process: str) -> None:
        self._script = client.register_script(_SCRIPT)
        self._keys = [f"wavespeed:1:{{{account}}}:{key}" for key in _KEYS]  # in braces: one node of a cluster has all
        self._known = rules.as_question() | {"process": process}

    async def __call__(
        self, ends: Sequence[End], *, now: float, ask: int, in_use: int, waiting: int, shared: bool, known: bool
    ) -> Answer:
        """Tell and ask.

        Args:
            ends: What became of permits; telling twice does no harm.
            now: This loop's time.
            ask: How many wait for permission.
            in_use: Places that are held.
            waiting: How many wait for a place.
            shared: This process has sent without Redis' knowledge.
            known: It had an answer before: if Redis holds nothing now, it lost it.

        Raises:
            RedisError: and OSError: there was no answer.
        """
        question = self._known | {
            "settled": [(end.id, now - end.time, end.kind, end.episode, end.retry_after) for end in ends],
            "ask": ask,
            "in_use": in_use,
            "waiting": waiting,
            "shared": shared,
            "known": known,
        }
        told = json.loads(await self._script(keys=self._keys, args=[json.dumps(question)]))
        told["permits"] = [(id_, wait) for id_, wait in told["permits"]]  # an empty table of Lua's comes as {}
        return Answer(**told)


def connected(url: str) -> Redis:
    """Return a client that neither blocks nor hides trouble.

    It tries once (the link asks again, and knows what was asked), and is told redis-py's version, which each new
    connection would read from a file otherwise.
    """
    try:
        return Redis.from_url(
            url,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
            driver_info=DriverInfo(lib_version=redis.__version__),
        )
    except ValueError as error:
        raise ConfigurationError(f"redis: not the URL of a Redis ({error}): give redis://host:6379/0") from None
