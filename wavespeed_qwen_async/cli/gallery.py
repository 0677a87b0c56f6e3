"""``gallery``: a folder's images as one page to open from disk."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .exits import Exit
from .output import describe
from .threads import aside

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .running import Run

__all__ = ["gallery_after", "register"]

_NO_SERVER = frozenset({"tier", "max_per_minute", "max_in_flight", "base_url", "emulator", "emulator_speed"})
_AT_ONCE = 20_000  # jobs up to which a batch makes its gallery: as many as a page opens within seconds

Folder = Annotated[Path, typer.Argument(help="The folder of a batch, a sweep, or of saved images.", metavar="FOLDER")]
Title = Annotated[str | None, typer.Option(help="The page's title; default: the folder's name.", metavar="TEXT")]
Sources = Annotated[
    list[Path] | None,
    typer.Option(
        "--sources",
        help="Where the source images of edits are, for before and after: a folder or a file.",
        metavar="PATH",
    ),
]
NoThumbs = Annotated[
    bool, typer.Option("--no-thumbs", help="Make no small copies: the page shows the images themselves.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    example = "wavespeed-qwen gallery out --sources examples/images"
    options.command(app, example=example, needs_session=False, leave_out=_NO_SERVER)(gallery)


async def gallery(
    run: Run, *, folder: Folder, title: Title = None, sources: Sources = None, no_thumbs: NoThumbs = False
) -> int:
    """Make a page of all images in a folder: index.html, which opens from disk and asks no network for anything."""
    from wavespeed_qwen_async import InvalidJobError  # noqa: PLC0415 - heavy, and --help needs none of it

    if not await aside(folder.is_dir):
        raise InvalidJobError(f"{folder}: no such folder")
    await _tell_gallery(run, folder, title=title, sources=sources or (), thumbs=not no_thumbs)
    return Exit.OK


async def gallery_after(run: Run, folder: Path, *, jobs: int, sources: Callable[[], Awaitable[Sequence[Path]]]) -> None:
    """The gallery at the end of paid work, whose result it must not change: without it, there is a note."""
    again = f"'wavespeed-qwen gallery {folder}' makes it"
    if jobs > _AT_ONCE:
        run.output.note(f"no gallery of more than {_AT_ONCE:,} images by itself: {again}")
        return
    run.left = f"interrupted: all is saved, only the gallery is not made: {again}"
    try:
        await _tell_gallery(run, folder, sources=await sources())
    except Exception as error:  # noqa: BLE001 - whatever it is: the images are there
        run.output.note(f"warning: no gallery: {describe(error)}")


async def _tell_gallery(
    run: Run, folder: Path, *, title: str | None = None, sources: Sequence[Path] = (), thumbs: bool = True
) -> None:
    """Make a folder's gallery and say where it is.

    Raises:
        ConfigurationError: Jinja2 is missing, or the folder has an ``index.html`` of another hand.
    """
    from wavespeed_qwen_async.bulk.gallery import make_gallery  # noqa: PLC0415 - --help needs none of it

    from .progress import waiting  # noqa: PLC0415 - see above

    left = threading.Event()
    try:
        async with waiting(run.output, "making the gallery"):
            report = await aside(make_gallery, folder, title=title, sources=sources, thumbs=thumbs, stop=left)
    finally:
        left.set()
    without = f", {report.failed} jobs without" if report.failed else ""
    count = "1 image" if report.images == 1 else f"{report.images} images"
    run.output.line(f"{report.path}  {count}{without}")
    if report.unread:
        run.output.note(f"{report.unread} lines of {folder / 'results.jsonl'} can't be read and are left out")
    run.output.event("gallery", path=str(report.path), images=report.images, failed=report.failed, unread=report.unread)
