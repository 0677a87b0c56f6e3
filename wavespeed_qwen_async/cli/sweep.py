"""``sweep``: one image for each combination of prompts, LoRAs, scales, seeds, sizes, models and source images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import batch, options
from .exits import Exit
from .gallery import gallery_after
from .output import describe, money
from .report import Report, tell_plan
from .threads import aside

if TYPE_CHECKING:
    from wavespeed_qwen_async.bulk import BatchPlan
    from wavespeed_qwen_async.bulk.sweep import Sweep

    from .running import Run

__all__ = ["register"]

_AXES = "Axes (give several: each combination is made)"

Prompts = Annotated[list[str] | None, typer.Argument(help="What the images should show.", metavar="PROMPT...")]
File = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="YAML or JSON with the axes; options replace its own.", metavar="FILE"),
]
LoraAxis = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        help="'owner/name' or a URL, tried at each scale; 'owner/name:0.8' at its own; 'a/x + b/y' both at once; "
        "'none' for comparison.",
        metavar="LORA",
        rich_help_panel=_AXES,
    ),
]
Scales = Annotated[
    list[str] | None,
    typer.Option("--scale", help="As 0.5, or 0.2,0.5,0.8,1.0 (default).", metavar="X", rich_help_panel=_AXES),
]
Seeds = Annotated[
    list[str] | None,
    typer.Option(
        "--seed", help="As 7, or 1,2,3; default: one for all images, by the prompt.", metavar="N", rich_help_panel=_AXES
    ),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option("--size", help="As 1024x1024, or 512x512,1024x1024.", metavar="WxH", rich_help_panel=_AXES),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="Any model of generate, or of edit.", metavar="NAME", rich_help_panel=_AXES),
]
Images = Annotated[
    list[str] | None,
    typer.Option("--image", "-i", help="Source image of edits: file or URL.", metavar="IMAGE", rich_help_panel=_AXES),
]
OutputFormat = Annotated[options.Format | None, typer.Option("--format", help="Default: jpeg.")]
Rows = Annotated[str | None, typer.Option(help="Axis on the contact sheet's left edge.", metavar="AXIS")]
Columns = Annotated[str | None, typer.Option(help="Axis on its upper edge.", metavar="AXIS")]
MaxImages = Annotated[
    int | None, typer.Option(help="Refuse to make more than this, as axes multiply; default 200.", min=1, metavar="N")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before paying.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell count, price and time; send no job.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    example = """wavespeed-qwen sweep "a red fox" --lora owner/ink --seed 1,2 --emulator
    wavespeed-qwen sweep --file sweep.yaml --dry-run"""
    options.command(app, example=example)(sweep)


async def sweep(
    run: Run,
    *,
    prompts: Prompts = None,
    file: File = None,
    lora: LoraAxis = None,
    scale: Scales = None,
    seed: Seeds = None,
    size: Sizes = None,
    model: Models = None,
    image: Images = None,
    output_format: OutputFormat = None,
    rows: Rows = None,
    columns: Columns = None,
    out: batch.OutFolder = Path("sweep"),
    budget: batch.Budget = None,
    max_images: MaxImages = None,
    retry_failed: batch.RetryFailed = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    gallery: batch.MakeGallery = None,
    timeout: options.Timeout = None,
) -> int:
    """Compare LoRAs, scales, seeds, ...: an image for each combination, contact sheets and a gallery."""
    from wavespeed_qwen_async.bulk import Batch  # noqa: PLC0415 - heavy, and --help needs none of it

    given: dict[str, Any] = {
        "prompt": prompts,
        "lora": lora,
        "scale": _numbers("scale", scale, float),
        "seed": _numbers("seed", seed, int),
        "size": _parts(size),
        "model": _parts(model),
        "image": image,
        "rows": rows,
        "columns": columns,
        "output_format": output_format.value if output_format else None,
        "max_images": max_images,
    }
    table = await aside(_read, file, {name: value for name, value in given.items() if value})
    emulator = run.settings.emulator
    made = Batch(table, out, run.session, budget=budget, retry_failed=retry_failed, timeout=timeout, emulator=emulator)
    plan = await made.plan()
    _tell_axes(run, table)
    code = tell_plan(run, plan)
    if dry_run or code != Exit.OK:
        return code
    if plan.new and not (yes or run.settings.emulator or _agreed(plan)):
        run.output.note("nothing sent: pass --yes, or answer y on a terminal")
        return Exit.USAGE
    await aside(_check_room, out)
    report = Report(run, made, out)
    code = await report.follow()
    if report.to_be_shown:
        await _show(run, table, out, gallery=gallery is not False)
    return code


def _read(file: Path | None, given: dict[str, Any]) -> Sweep:
    from wavespeed_qwen_async.bulk.sweep import Sweep  # noqa: PLC0415 - heavy, and --help needs none of it

    return Sweep.from_mapping(given) if file is None else Sweep.from_file(file, **given)


def _numbers(name: str, texts: list[str] | None, kind: type[float | int]) -> list[Any]:
    from wavespeed_qwen_async import InvalidJobError  # noqa: PLC0415 - heavy, and --help needs none of it

    try:
        return [kind(part) for text in texts or () for part in text.split(",") if part.strip()]
    except ValueError:
        raise InvalidJobError(f"--{name} {' '.join(texts or ())}: give numbers, as 1 or 1,2,3", field=name) from None


def _parts(texts: list[str] | None) -> list[str]:
    return [part.strip() for text in texts or () for part in text.split(",")]


def _tell_axes(run: Run, table: Sweep) -> None:
    for axis in table.axes:
        run.output.line(f"{axis.name:<7} {'  '.join(axis.labels)}")
    run.output.event("sweep", images=len(table), axes={axis.key: list(axis.labels) for axis in table.axes})


def _agreed(plan: BatchPlan) -> bool:
    return sys.stdin.isatty() and typer.confirm(f"Make {plan.new} images for {money(plan.cost)}?")


def _check_room(out: Path) -> None:
    from .targets import check_room  # noqa: PLC0415 - --help needs none of it

    check_room(out)


async def _show(run: Run, table: Sweep, out: Path, *, gallery: bool) -> None:
    """Contact sheets and gallery of what there is; without the parts that they need, the images are there still."""
    from wavespeed_qwen_async import ConfigurationError  # noqa: PLC0415 - heavy, and --help needs none of it
    from wavespeed_qwen_async.bulk.gallery import make_contact_sheets  # noqa: PLC0415

    try:
        for path in await aside(make_contact_sheets, table, out):
            run.output.line(str(path))
            run.output.event("sheet", path=str(path))
    except (ConfigurationError, OSError) as error:
        run.output.note(f"warning: no contact sheets: {describe(error)}")
    if gallery:
        await gallery_after(run, out, jobs=len(table), sources=lambda: aside(_images_of, table))


def _images_of(table: Sweep) -> list[Path]:
    return [image for job in table for image in job.sources if isinstance(image, Path)]
