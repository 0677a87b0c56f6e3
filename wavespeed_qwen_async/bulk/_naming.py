"""A file's name for each output of a job: written down before the file is made, its own for good once it is there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Self

from wavespeed_qwen_async.names import file_name

from ._rows import Joint, Move
from ._states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wavespeed_qwen_async.predictions import Prediction

    from ._entry import Entry
    from ._store import Store
    from ._work import Work

__all__ = ["Naming"]

_SUFFIXES = {"jpeg": "jpg", "png": "png", "webp": "webp"}


@dataclass(slots=True, eq=False)
class Naming(Joint):
    """Moves a job to ``done`` and answers with its files' names: those of an earlier try, or new ones nobody has.

    The name of a try that left no file is chosen anew: it may be one that the disk does not take.
    """

    row: int
    work: Work
    entry: Entry
    prediction: Prediction

    @classmethod
    def make(cls, store: Store, changes: Sequence[Self]) -> list[list[str]]:
        """As ``Joint`` has it."""
        known = store.paths_of([naming.row for naming in changes])
        found = [naming.made(known.get(naming.row)) for naming in changes]
        wanted = [
            (naming, names, naming.template(len(names)))
            for naming, names in zip(changes, found, strict=True)
            if len(names) < naming.count
        ]
        claimed = store.claim_names([(name, naming.row) for naming, _, name in wanted])
        for naming, names, name in wanted:
            names.append(naming.free(store, name, claimed=claimed))
            while len(names) < naming.count:
                names.append(naming.free(store, naming.template(len(names))))
        moves = zip(changes, found, strict=True)
        store.apply(*(Move(naming.row, State.DONE, {"path": "\n".join(names)}) for naming, names in moves))
        return [names[: naming.count] for naming, names in zip(changes, found, strict=True)]

    @property
    def count(self) -> int:
        """How many files there are to be."""
        return max(1, len(self.prediction.raw_outputs))

    def made(self, known: str | None) -> list[str]:
        """The names of an earlier try, up to the first without a file."""
        names = known.split("\n") if known else []
        return list(takewhile(lambda name: os.path.lexists(f"{self.work.folder}/{name}"), names))

    def template(self, output: int) -> str:
        """The name that the template gives."""
        entry, job = self.entry, self.entry.job
        if job is None:  # a job of which the journal kept no readable inputs
            return file_name(f"{entry.index:06d}-{output}-{self.prediction.id}", ".img")
        ext = _SUFFIXES[job.output_format or "jpeg"]
        return self.work.template.name(job, entry.index, ext, output=output, prediction_id=self.prediction.id)

    def free(self, store: Store, first: str, *, claimed: bool = False) -> str:
        """``first``; with a number where that is another job's, or a file that no job made."""
        name, number = first, 1
        while not (claimed or store.claim_name(name, self.row)) or os.path.lexists(f"{self.work.folder}/{name}"):
            number, claimed = number + 1, False
            path = PurePosixPath(first)
            name = path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()
        return name
