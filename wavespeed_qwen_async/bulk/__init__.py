"""Many jobs at once, durably: a journal beside the images, so that a kill loses nothing and pays nothing twice."""

from __future__ import annotations

from ._reports import BatchOutcome, BatchPlan, BatchProgress, BatchSummary, PlannedPrice
from .batch import Batch
from .journal import JournalError
from .sources import JobSource, read_source

__all__ = [
    "Batch",
    "BatchOutcome",
    "BatchPlan",
    "BatchProgress",
    "BatchSummary",
    "JobSource",
    "JournalError",
    "PlannedPrice",
    "read_source",
]
