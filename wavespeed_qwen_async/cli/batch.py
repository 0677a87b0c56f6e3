"""``batch``: a file of jobs, durable: stopped anywhere, the same command goes on where it stopped."""

from __future__ import annotations

from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .gallery import gallery_after
from .report import Report, tell_plan
from .threads import aside

if TYPE_CHECKING:
    from wavespeed_qwen_async.bulk.sources import JobSource, SourceChunk

    from .running import Run

__all__ = ["register"]

Source = Annotated[
    Path,
    typer.Argument(help="JSONL, CSV, YAML or text (a prompt a line); or a folder of images.", metavar="SOURCE"),
]
OutFolder = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for images, results.jsonl and the journal.", metavar="FOLDER")
]
SharedPrompt = Annotated[
    str | None, typer.Option("--prompt", help="For jobs that have none, as a folder's images.", metavar="PROMPT")
]
Budget = Annotated[float | None, typer.Option(help="Dollars that this folder may cost.", metavar="USD")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Send failed jobs again: unbilled ones, and what may pass.")
]
ResubmitUnknown = Annotated[
    bool, typer.Option("--resubmit-unknown", help="Send jobs again that were perhaps accepted: may pay twice.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Send nothing unless every line is a valid job.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell count, price and time; send no job.")]
Limit = Annotated[int | None, typer.Option(help="Only the first N jobs.", min=1, metavar="N")]
Names = Annotated[str | None, typer.Option(help="Pattern of file names, see docs/cli.md.", metavar="PATTERN")]
NoProvenance = Annotated[
    bool, typer.Option("--no-provenance", help="Don't write prompt and parameters into the images.")
]

MakeGallery = Annotated[
    bool | None,
    typer.Option("--gallery/--no-gallery", help="Whether to make a gallery (index.html) at the end; default: yes."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    options.command(app, example="wavespeed-qwen batch examples/prompts.jsonl --emulator --out out")(batch)


async def batch(
    run: Run,
    *,
    source: Source,
    out: OutFolder = Path("out"),
    budget: Budget = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    retry_failed: RetryFailed = False,
    resubmit_unknown: ResubmitUnknown = False,
    strict: Strict = False,
    prompt: SharedPrompt = None,
    names: Names = None,
    no_provenance: NoProvenance = False,
    gallery: MakeGallery = None,
    timeout: options.Timeout = None,
) -> int:
    """Make every image of a file; run it again to go on where it stopped. A gallery shows them at the end."""
    from wavespeed_qwen_async import ConfigurationError, InvalidJobError  # noqa: PLC0415 - --help needs none of it
    from wavespeed_qwen_async.bulk import Batch, read_source  # noqa: PLC0415
    from wavespeed_qwen_async.names import DEFAULT_TEMPLATE  # noqa: PLC0415

    await aside(_check, source, out, prompt=prompt, dry_run=dry_run)
    try:
        batch = Batch(
            read_source(source, prompt=prompt),
            out,
            run.session,
            budget=budget,
            retry_failed=retry_failed,
            resubmit_unknown=resubmit_unknown,
            strict=strict,
            limit=limit,
            provenance=not no_provenance,
            timeout=timeout,
            names=DEFAULT_TEMPLATE if names is None else names,
            emulator=run.settings.emulator,
        )
    except ConfigurationError as error:  # an option of this command, so bad usage
        raise InvalidJobError(error.message) from None
    if dry_run:
        return tell_plan(run, await batch.plan())
    report = Report(run, batch, out)
    code = await report.follow()
    lines = report.to_be_shown
    if lines and gallery is not False:
        again = read_source(source, prompt=prompt)
        await gallery_after(run, out, jobs=lines, sources=lambda: _images_of(again, lines))
    return code


async def _images_of(source: JobSource, lines: int) -> list[Path]:
    """The source images of edits: results.jsonl tells their names, not where they lie."""
    found: list[Path] = []
    try:
        async with aclosing(source.chunks()) as chunks:
            async for chunk in chunks:
                found += await aside(_images_in, chunk.first(lines))
                lines -= len(chunk)
                if lines <= 0:
                    break
    finally:
        await source.close()
    return found


def _images_in(lines: SourceChunk) -> list[Path]:
    from wavespeed_qwen_async import InvalidJobError  # noqa: PLC0415 - heavy, and --help needs none of it

    found: list[Path] = []
    for line in lines:
        with suppress(InvalidJobError):
            found += [image for image in line.job().sources if isinstance(image, Path)]
    return found


def _check(source: Path, out: Path, *, prompt: str | None, dry_run: bool) -> None:
    """See before anything is sent what is certain to go wrong."""
    from wavespeed_qwen_async import InvalidJobError  # noqa: PLC0415 - heavy, and --help needs none of it
    from wavespeed_qwen_async.bulk._formats import READERS  # noqa: PLC0415

    from .targets import check_room  # noqa: PLC0415

    if source.name == "-" or source.is_fifo():
        raise InvalidJobError(
            f"{source}: a batch reads its source again when it goes on: save it to a file, as jobs.jsonl"
        )
    if not source.exists():
        raise InvalidJobError(f"{source}: no such file or folder")
    if source.is_dir() and prompt is None:
        raise InvalidJobError(f"{source} is a folder of images: say what to do with each by --prompt")
    if not source.is_dir() and source.suffix.lower() not in READERS:
        known = ", ".join(kind for kind in READERS if kind.startswith("."))
        raise InvalidJobError(f"{source}: give a file that ends in {known}, or a folder of images")
    if not dry_run:
        check_room(out)
