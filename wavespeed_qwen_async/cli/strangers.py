"""Predictions of the account that belong to no job of a batch's folder: paid perhaps, and in no file."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .threads import aside

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from wavespeed_qwen_async import Prediction

    from .running import Run

__all__ = ["Strangers", "strangers_of"]

Strangers = Annotated[
    Path | None,
    typer.Option(
        "--strangers",
        help="Those since the first submit of this batch's folder that belong to none of its jobs.",
        metavar="FOLDER",
    ),
]


async def strangers_of(run: Run, folder: Path) -> AsyncGenerator[Prediction, None]:
    """What the account has from the time of the batch in ``folder``, and the batch does not know.

    Raises:
        InvalidJobError: there is no batch in it.
    """
    from wavespeed_qwen_async import InvalidJobError  # noqa: PLC0415 - heavy, and --help needs none of it
    from wavespeed_qwen_async.bulk import Batch  # noqa: PLC0415
    from wavespeed_qwen_async.bulk.journal import JOURNAL_NAME  # noqa: PLC0415

    if not await aside((folder / JOURNAL_NAME).is_file):
        raise InvalidJobError(f"--strangers {folder}: no batch was run there, give the folder that was its --out")
    batch = Batch([], folder, run.session, emulator=run.settings.emulator)
    async with aclosing(batch.strangers()) as predictions:
        async for prediction in predictions:
            yield prediction
