"""Faults: rules that say where, when and what goes wrong. One mechanism, seeded, so that a run repeats.

A rule has three parts. *Where*: the kind of request (`KINDS`, or `"*"`), and perhaps a text that its path must
hold. *When*: with a probability, at the nth, at every nth, within a span of time, at most so many times. *What*: one
of `ACTIONS`, with its own options.

    emulator.faults.add("submit", "drop_after", nth=3)            # the third submit is accepted, then cut off
    emulator.faults.add("result", "status", status=503, probability=0.1)
    emulator.faults.script("submit", "ok", "drop", ("status", {"status": 429, "retry_after": 2}))
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

KINDS: Final = frozenset(
    {
        "submit",
        "result",
        "list",
        "delete",
        "balance",
        "price",
        "models",
        "billings",
        "usage",
        "secret",
        "ticket",
        "upload",
        "put",
        "download",
        "source",
        "webhook",
        "unknown",
    }
)
"""What a rule can be about. `ticket` and `put` are the two halves of today's upload, `upload` is the older one,
`source` is a fetch of an uploaded file, `webhook` is a delivery made by the server."""

# `code` is the body's, where it is not the HTTP status: an HTTP 200 can carry an error.
_ERROR: Final = {
    "status": 500,
    "message": None,
    "retry_after": None,
    "html": False,
    "error_code": None,
    "code": None,
}

ACTIONS: Final[dict[str, dict[str, Any]]] = {
    # Before the request is looked at: it has no effect.
    "drop": {},
    "status": _ERROR,
    "delay": {"seconds": 1.0},
    # After it was carried out: the effect stays, the answer suffers.
    "drop_after": {},
    "status_after": {
        "status": 500,
        "message": None,
        "retry_after": None,
        "html": False,
        "error_code": None,
        "code": None,
    },
    "slow_headers": {"seconds": 5.0},
    "slow_body": {"seconds": 5.0, "pieces": 5},
    "stall_body": {"keep": 0.5},
    "cut": {"keep": 0.5},
    "truncate": {"keep": 0.5},
    "html": {},
    "content_type": {"value": "text/plain"},
    # What the service itself knows or does.
    "hide": {"seconds": 5.0},
    "lag": {"seconds": 5.0},
    "gaps": {"one_in": 10},
    "without_inputs": {},
    "fail": {"code": 5000, "message": None},
    "end": {"status": "cancelled"},
    "inference": {"seconds": 3600.0},
    "nsfw": {},
    # Webhook deliveries.
    "lose": {},
    "duplicate": {"copies": 1, "seconds": 0.0},
    "early": {"seconds": 1.0},
    "late": {"seconds": 60.0},
    "forge": {},
    # From then on.
    "skew": {"seconds": 300.0},
    "revoke": {},
}
"""Each action with its options and their defaults."""

BEFORE: Final = frozenset({"drop", "status", "delay"})
AFTER: Final = frozenset(
    {"drop_after", "status_after", "slow_headers", "slow_body", "stall_body", "cut", "truncate", "html", "content_type"}
)

Step = str | tuple[str, Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Action:
    """Something that goes wrong, with its options filled in."""

    name: str
    options: Mapping[str, Any]

    def __getitem__(self, option: str) -> Any:
        return self.options[option]


@dataclass(slots=True, eq=False)
class Rule:
    """Where, when and what. `seen` counts the requests it was about, `fired` those that it spoilt."""

    where: frozenset[str]
    action: Action
    rng: random.Random = field(repr=False)
    probability: float = 1.0
    nth: frozenset[int] = frozenset()
    every: int | None = None
    times: int | None = None
    since: float = 0.0
    until: float = float("inf")
    match: str = ""
    seen: int = 0
    fired: int = 0

    def strikes(self, kind: str, path: str, elapsed: float) -> bool:
        """Decide about one request, `elapsed` seconds after the start."""
        if (kind not in self.where and "*" not in self.where) or self.match not in path:
            return False
        self.seen += 1
        if (
            not self.since <= elapsed < self.until
            or (self.times is not None and self.fired >= self.times)
            or (self.nth and self.seen not in self.nth)
            or (self.every is not None and self.seen % self.every)
            or (self.probability < 1.0 and self.rng.random() >= self.probability)
        ):
            return False
        self.fired += 1
        return True


class Plan:
    """The actions that strike one request; empty for nearly all."""

    __slots__ = ("actions",)

    def __init__(self, actions: tuple[Action, ...] = ()) -> None:
        self.actions: tuple[Action, ...] = actions

    def find(self, name: str) -> Action | None:
        """Return the first action of that name."""
        if not self.actions:
            return None
        return next((action for action in self.actions if action.name == name), None)

    def among(self, names: Iterable[str]) -> list[Action]:
        """Return the actions that are among `names`, in the order of their rules."""
        return [action for action in self.actions if action.name in names]


NOTHING: Final = Plan()


class Faults:
    """The rules in force. Each draws from its own seeded stream, so that rules do not disturb each other."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.rules: list[Rule] = []
        self._added = 0

    def __repr__(self) -> str:
        return f"Faults(seed={self.seed}, rules={len(self.rules)})"

    def add(
        self,
        where: str | Iterable[str],
        what: str,
        *,
        probability: float = 1.0,
        nth: int | Iterable[int] | None = None,
        every: int | None = None,
        times: int | None = None,
        since: float = 0.0,
        until: float = float("inf"),
        match: str = "",
        **options: Any,
    ) -> Rule:
        """Add a rule.

        Args:
            where: one kind of request, several, or `"*"`.
            what: a key of `ACTIONS`.
            probability: how likely each matching request is struck.
            nth: strike only these, counted from 1 over the matching requests from now on.
            every: strike every nth matching request.
            times: strike so many times at most.
            since: from so many seconds after the emulator's start.
            until: up to so many seconds after the emulator's start.
            match: a text that the request's path (for webhooks: their URL) must hold.
            options: the action's own options.

        Raises:
            ValueError: no such kind, action, option or probability.
        """
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability must be 0.0 to 1.0, not {probability}")
        if every is not None and every < 1:
            raise ValueError(f"every must be at least 1, not {every}")
        self._added += 1
        rule = Rule(
            where=_kinds(where),
            action=_action(what, options),
            rng=random.Random(f"{self.seed}/{self._added}"),  # noqa: S311 - repeatable, not secret
            probability=probability,
            nth=frozenset([nth] if isinstance(nth, int) else nth or ()),
            every=every,
            times=times,
            since=since,
            until=until,
            match=match,
        )
        self.rules.append(rule)
        return rule

    def script(self, where: str, *steps: Step, match: str = "") -> list[Rule]:
        """Tell what happens to the next requests of a kind, one step each; `"ok"` and None leave one alone."""
        rules = []
        for number, step in enumerate(steps, 1):
            if step is not None and step != "ok":
                name, options = (step, {}) if isinstance(step, str) else step
                rules.append(self.add(where, name, nth=number, match=match, **options))
        return rules

    def remove(self, rule: Rule) -> None:
        """Take one rule out again."""
        self.rules.remove(rule)

    def clear(self) -> None:
        """Take all rules out."""
        self.rules.clear()

    def draw(self, kind: str, path: str, elapsed: float) -> Plan:
        """Decide what goes wrong with one request."""
        actions = tuple(rule.action for rule in self.rules if rule.strikes(kind, path, elapsed))
        return Plan(actions) if actions else NOTHING


def _kinds(where: str | Iterable[str]) -> frozenset[str]:
    kinds = frozenset([where] if isinstance(where, str) else where)
    if unknown := sorted(kinds - KINDS - {"*"}):
        raise ValueError(f"no such kind of request: {unknown[0]!r}; there are {', '.join(sorted(KINDS))} and '*'")
    return kinds


def _action(what: str, options: Mapping[str, Any]) -> Action:
    defaults = ACTIONS.get(what)
    if defaults is None:
        raise ValueError(f"no such fault: {what!r}; there are {', '.join(sorted(ACTIONS))}")
    if unknown := sorted(options.keys() - defaults.keys()):
        raise ValueError(f"fault {what!r} has no option {unknown[0]!r}; it has {', '.join(defaults) or 'none'}")
    return Action(what, {**defaults, **options})
