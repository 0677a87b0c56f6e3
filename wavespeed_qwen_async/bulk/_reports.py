"""What a batch tells: before it pays, on its way, of each job, and at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from wavespeed_qwen_async.errors import BudgetError, InsufficientCreditsError

if TYPE_CHECKING:
    from pathlib import Path

    from wavespeed_qwen_async.errors import WaveSpeedError
    from wavespeed_qwen_async.models import Job
    from wavespeed_qwen_async.predictions import Prediction

__all__ = ["BatchOutcome", "BatchPlan", "BatchProgress", "BatchSummary", "PlannedPrice"]


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """How one job ended in this run.

    Attributes:
        index: Its place in the source, from 0.
        line: Its line in the file, from 1; None where the source has no lines.
        job: What was asked for, its seed drawn; None where the line is no job.
        prediction: The finished prediction.
        error: Why there is no file; its ``billed`` says whether it was paid.
        path: The saved file.
        price: What it costs in USD; 0.0 where nothing was billed, or a refund is due.
        seconds: From the moment that it was taken up to its end.
        resumed: It was paid by an earlier run.
    """

    index: int
    line: int | None
    job: Job | None = field(repr=False)
    prediction: Prediction | None = field(default=None, repr=False)
    error: WaveSpeedError | None = None
    path: Path | None = None
    price: float = 0.0
    seconds: float = 0.0
    resumed: bool = False

    @property
    def ok(self) -> bool:
        """Whether its file is there."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class PlannedPrice:
    """So many images at one price.

    Attributes:
        model: The model's whole name.
        count: How many images.
        each: USD for one.
        source: ``"api"``, or ``"pages"`` where the API does not tell.
    """

    model: str
    count: int
    each: float
    source: Literal["api", "pages"]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What a run would do. Making it sends nothing that costs, and changes nothing.

    Attributes:
        total: Lines in the source.
        new: Jobs that would be sent and paid.
        resumable: Jobs that are paid, or perhaps paid, and would be collected.
        saved: Jobs whose file is there.
        failed: Jobs that failed before and are left; ``retry_failed`` counts among the new those that it sends again.
        unknown: Jobs of which nothing tells whether they were accepted; left, unless ``resubmit_unknown``.
        invalid: Lines that are no job: ``(line, why)``, the first of them.
        invalid_count: How many there are.
        changed: Places (index from 0) where another job stood before: new jobs, to be paid.
        changed_count: How many there are.
        removed: Jobs that were begun, and that the source no longer has.
        prices: What the new ones cost, by model and price.
        cost: The same in all, in USD.
        cost_before: What earlier runs of the folder paid, in USD.
        budget: The budget in USD, where there is one.
        affordable: How many of the new ones the budget covers.
        balance: The account's balance in USD, where the API tells it.
        seconds: How long it would take at the account's tier, about.
        notes: What can't be known, and what else to know, a sentence each.
    """

    total: int
    new: int
    resumable: int
    saved: int
    failed: int
    unknown: int
    invalid: list[tuple[int | None, str]]
    invalid_count: int
    changed: list[int]
    changed_count: int
    removed: int
    prices: list[PlannedPrice]
    cost: float
    cost_before: float
    budget: float | None
    affordable: int
    balance: float | None
    seconds: float
    notes: list[str]


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How a run stands, for a progress bar.

    Attributes:
        total: Lines in the source; None while unknown, and about, for some files.
        seen: Lines read so far.
        done: Files saved in this run.
        skipped: Jobs that earlier runs had finished.
        failed: Jobs that ended without a file in this run.
        unknown: Of these, those perhaps paid.
        in_flight: Jobs between source and outcome.
        reconciling: Of these, those whose submit's answer was lost, being looked for.
        cost: USD that this run has spent or reserved.
        budget_left: USD; None without a budget.
        state: What it is doing.
    """

    total: int | None
    seen: int
    done: int
    skipped: int
    failed: int
    unknown: int
    in_flight: int
    reconciling: int
    cost: float
    budget_left: float | None
    state: Literal["new", "running", "draining", "ended"]


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """How a run ended, and what the folder holds then.

    Attributes:
        total: Lines of the source that were read.
        saved: Files saved by this run.
        skipped: Files that were there before.
        failed: Jobs without a file, of this run and earlier ones.
        unknown: Jobs of which nothing tells whether they were accepted; ``resubmit_unknown=True`` sends them again.
        open: Jobs that are not at their end: paid ones to be collected, and unsent ones. The next run does both.
        cost: USD that this run spent, refunds taken off.
        refunded: USD that comes back for this run's failed tasks, within 3 hours per the vendor's pages.
        cost_total: USD that all runs of the folder spent.
        seconds: How long this run took.
        errors: Kinds of error among failed and unknown jobs: ``(kind, how many, an example)``, most frequent first.
        strangers: Predictions of the account, from this batch's time, that belong to none of its jobs; counted only
            where a lost submit was looked for, else 0. ``Batch.strangers()`` lists them.
        stopped: Why it ended before its source did: ``"budget"``, ``"credits"``, ``"drained"``; None if it did not.
    """

    total: int
    saved: int
    skipped: int
    failed: int
    unknown: int
    open: int
    cost: float
    refunded: float
    cost_total: float
    seconds: float
    errors: list[tuple[str, int, str]]
    strangers: int
    stopped: Literal["budget", "credits", "drained"] | None

    def raise_if_stopped(self) -> None:
        """Raise where money ended the run before its source did, for callers to whom that is an error.

        ``Batch.run`` itself ends in order then: what was in flight is collected, and the next run goes on.

        Raises:
            BudgetError: the budget is used up.
            InsufficientCreditsError: the account's credits are.
        """
        if self.stopped == "budget":
            raise BudgetError(
                f"the budget is used up, the folder cost ${self.cost_total:g} so far: a larger one goes on"
            )
        if self.stopped == "credits":
            raise InsufficientCreditsError("the account's credits are used up: top it up, then the next run goes on")
