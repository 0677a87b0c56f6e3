"""The contact sheets of a sweep: which image of its folder belongs into which cell."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._inputs import is_url
from wavespeed_qwen_async._media.images import measure
from wavespeed_qwen_async.errors import ConfigurationError

from ._entries import read_entries

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from wavespeed_qwen_async.bulk.sweep import Cell, Sweep
    from wavespeed_qwen_async.models import Job

    from ._entries import Entry
    from ._sheet import SheetCell

__all__ = ["make_contact_sheets"]


def make_contact_sheets(
    sweep: Sweep, out: str | os.PathLike[str], *, title: str | None = None, side: int = 340
) -> list[Path]:
    """Draw a sweep's images as tables with its axes on the edges: ``contact-sheet.png`` in its folder.

    Two axes make one page; of three and more there is a page for each combination of the others. What is not made
    yet, or failed, says so in its cell. Blocking; in an event loop use ``asyncio.to_thread``.

    Args:
        sweep: The sweep.
        out: The folder that it was made into.
        title: The heading; default: the prompt, where there is but one.
        side: Pixels of the longer side of a cell.

    Returns:
        The pages.

    Raises:
        ConfigurationError: Pillow is missing.
        OSError: the folder can't be read or written.
    """
    try:
        from ._sheet import Sheet, SheetAxis, draw_sheets  # noqa: PLC0415 - needs Pillow
    except ImportError:
        raise ConfigurationError("contact sheets need Pillow: pip install 'wavespeed-qwen-async[images]'") from None
    folder = Path(out)
    found = _Found(folder, read_entries(folder).entries)
    cells = {cell.place: found.shown(cell) for cell in sweep.cells()}
    axes = {axis.key: SheetAxis(axis.name, axis.labels) for axis in sweep.axes}
    rows = axes.pop(sweep.rows or "", None)
    columns = axes.pop(sweep.columns or "", None)
    pages = tuple(axes.values())

    def cell(at: tuple[int, ...]) -> SheetCell:
        *_, row, column = at
        return cells[(*at[: len(pages)], *([row] if rows else []), *([column] if columns else []))]

    fixed = {"prompt": "Contact sheet"} | sweep.fixed
    heading = title or fixed["prompt"]
    notes = "  \u00b7  ".join(_notes(fixed))
    sheet = Sheet(
        title=heading, notes=notes, rows=rows, columns=columns, pages=pages, cell=cell, shape=found.shape, side=side
    )
    return draw_sheets(folder, sheet)


def _notes(fixed: dict[str, str]) -> Iterable[str]:
    for key, label in fixed.items():
        if key != "prompt" and label:
            yield f"{key} {label}" if key in {"seed", "scale"} else label


class _Found:
    """The entries of a folder by what was asked for: places change when a sweep is extended, the jobs don't."""

    def __init__(self, folder: Path, entries: list[Entry]) -> None:
        self._folder = folder
        self._entries: defaultdict[Any, list[Entry]] = defaultdict(list)
        for entry in entries:
            self._entries[_key_of_entry(entry)].append(entry)
        self.shape = self._shape(entries)

    def shown(self, cell: Cell) -> SheetCell:
        """The image of a cell, or why there is none."""
        from ._sheet import SheetCell  # noqa: PLC0415 - see above

        entries = self._entries.get(_key_of_job(cell.job), [])
        exact = [entry for entry in entries if entry.index == cell.number]
        for entry in (exact or entries)[-1:]:
            if entry.status == "saved" and entry.file is not None:
                return SheetCell(self._folder / entry.file)
            return SheetCell(None, entry.error or "its file is gone")
        return SheetCell(None, "not made yet")

    def _shape(self, entries: list[Entry]) -> float:
        """Width by height of the first image that can be measured."""
        for entry in entries:
            if entry.status != "saved" or entry.file is None:
                continue
            with (self._folder / entry.file).open("rb") as file:
                head = file.read(1 << 18)
            info = measure(lambda offset, length, head=head: head[offset : offset + length])  # type: ignore[misc]
            if info is not None:
                return info.width / info.height
        return 1.0


def _key_of_entry(entry: Entry) -> Any:
    names = tuple(sorted(source if is_url(source) else Path(source).name for source in entry.sources))
    return entry.prompt, entry.model, entry.loras, entry.seed, entry.size, entry.output_format, names


def _key_of_job(job: Job) -> Any:
    loras = tuple((lora.path, lora.scale) for lora in job.loras or ())
    size = "" if job.size is None else str(job.size)
    names = tuple(sorted(map(_source_name, job.sources)))
    return job.prompt, job.model, loras, job.seed, size, job.output_format or "", names


def _source_name(source: Any) -> str:
    """As ``results.jsonl`` tells it."""
    if isinstance(source, str):
        return source
    name = getattr(source, "name", None)
    return Path(name).name if isinstance(name, (str, Path)) and name else f"<{type(source).__name__}>"
