"""What the parts of one run share: the session, the journal, the money, the counts, and the end of it all."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from wavespeed_qwen_async.errors import InsufficientCreditsError

if TYPE_CHECKING:
    from pathlib import Path

    from wavespeed_qwen_async._engine import Engine
    from wavespeed_qwen_async.names import NameTemplate
    from wavespeed_qwen_async.session import QwenImageSession

    from ._budget import Budget, Prices
    from ._entry import Entry
    from .journal import Journal

__all__ = ["Options", "Tally", "Work"]

logger = logging.getLogger(__name__)

Stopped = Literal["budget", "credits", "drained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run is asked for; see ``Batch``."""

    retry_failed: bool = False
    resubmit_unknown: bool = False
    names: str = "{index:06d}-{slug}-{seed}.{ext}"
    provenance: bool = True
    window: int = 300
    timeout: float | None = None
    limit: int | None = None


@dataclass(slots=True)
class Tally:
    """Counts of one run."""

    seen: int = 0
    saved: int = 0
    skipped: int = 0
    failed: int = 0
    unknown: int = 0
    in_flight: int = 0
    changed: int = 0
    spent: int = 0
    refunded: int = 0


@dataclass(eq=False)
class Work:
    """Shared by the feed and the steps of one run."""

    session: QwenImageSession
    journal: Journal
    folder: Path
    options: Options
    budget: Budget
    prices: Prices
    template: NameTemplate
    tally: Tally = field(default_factory=Tally)
    active: set[Entry] = field(default_factory=set)
    stopped: Stopped | None = None
    failure: BaseException | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def engine(self) -> Engine:
        """What is below the session: a run goes the same ways, with a witness."""
        return self.session._engine  # noqa: SLF001 - of this house: see Engine's first line

    def server_now(self) -> float:
        """The server's clock in Unix seconds; this machine's as long as the server has told none."""
        now = self.engine.api.transport.server_time()
        return time.time() if now is None else now.timestamp()

    def stop(self, why: BaseException | Stopped) -> None:
        """Send nothing more. What is paid is collected; then an error that is not about money is raised."""
        if isinstance(why, InsufficientCreditsError):
            logger.warning("the account's credits are used up: what is paid is collected, the rest stays for later")
            why = "credits"
        if isinstance(why, BaseException):
            self.failure = self.failure or why
        else:
            self.stopped = self.stopped or why
        if self.stopping.is_set():
            return
        self.stopping.set()
        self.budget.close()
        for entry in self.active:
            entry.withdraw()

    def settle(self, entry: Entry, *, back: int = 0) -> None:
        """A job costs nothing more; ``back`` micro-dollars of its price were not spent, or are refunded. Once only."""
        if entry.reserved:
            entry.reserved = False
            self.budget.settle(back)
            if not entry.resumed:
                self.tally.spent -= back
