"""A file's name for each output of a job: its own for good, written down before the file is made."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from ._states import State
from ._store import Move

if TYPE_CHECKING:
    from wavespeed_qwen_async.predictions import Prediction

    from ._entry import Entry
    from ._store import Store
    from ._work import Work

__all__ = ["choose_name"]

_SUFFIXES = {"jpeg": "jpg", "png": "png", "webp": "webp"}


def choose_name(store: Store, *, work: Work, entry: Entry, prediction: Prediction) -> list[str]:
    """Move the job to ``done`` and give its files' names: those of an earlier try, or new ones that nobody has."""
    known = store.path_of(entry.row)
    wanted = max(1, len(prediction.outputs))
    names = known.split("\n") if known else []
    while len(names) < wanted:
        names.append(_free_name(store, work, entry, prediction, len(names)))
    store.apply(Move(entry.row, State.DONE, {"path": "\n".join(names)}))
    return names[:wanted]


def _free_name(store: Store, work: Work, entry: Entry, prediction: Prediction, output: int) -> str:
    """What the template gives; with a number where that is another job's, or a file that no job made."""
    job = entry.job
    if job is None:  # a job of which the journal kept no readable inputs
        first = PurePath(f"{entry.index:06d}-{output}-{prediction.id}.img")
    else:
        ext = _SUFFIXES[job.output_format or "jpeg"]
        path = work.template.path("", job, entry.index, ext, output=output, prediction_id=prediction.id)
        first = PurePath(path)
    name, number = first, 1
    while not store.claim_name(name.as_posix(), entry.row) or (work.folder / name).exists():
        number += 1
        name = first.with_name(f"{first.stem}-{number}{first.suffix}")
    return name.as_posix()
