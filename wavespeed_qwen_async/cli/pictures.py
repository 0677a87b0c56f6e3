"""Files to and from the API by themselves: ``download``, ``upload``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from . import options
from .exits import Exit
from .strangers import Strangers, strangers_of
from .threads import aside

if TYPE_CHECKING:
    from wavespeed_qwen_async import Output

    from .running import Run

__all__ = ["register"]

What = Annotated[
    list[str] | None, typer.Argument(help="Ids of predictions, or URLs of outputs.", metavar="[ID|URL]...")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="File or folder to save to; an image keeps its format, whatever the file's ending.",
        metavar="PATH",
    ),
]
Files = Annotated[list[Path], typer.Argument(help="Images of at most 20 MB.", metavar="FILE...")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    options.command(app, example="wavespeed-qwen download 0a5d2f346baa9455e3e70682c2094cac -o fox.jpg")(download)
    options.command(app, example="wavespeed-qwen upload fox.jpg --emulator")(upload)


async def download(
    run: Run,
    *,
    what: What = None,
    out: Out = None,
    timeout: options.Timeout = None,
    overwrite: options.Overwrite = False,
    strangers: Strangers = None,
) -> int:
    """Save images that are paid already, by the ids of their predictions; waits for those not finished."""
    from wavespeed_qwen_async import InvalidJobError, WaveSpeedError  # noqa: PLC0415 - --help needs none of it

    from .targets import Target  # noqa: PLC0415

    items = [*(what or ())]
    if strangers is not None:
        items += [item.id async for item in strangers_of(run, strangers) if item.ok or not item.finished]
    elif not items:
        raise InvalidJobError("give ids of predictions, URLs of outputs, or --strangers FOLDER")
    target = await aside(Target, out, count=len(items), overwrite=overwrite)
    await aside(target.check)
    code = Exit.OK
    for place, item in enumerate(items):
        try:
            for output in await _outputs(run, item, timeout):
                await _save(run, output, await aside(target.path, place, _name(output)))
        except WaveSpeedError as error:
            code = run.output.failed(error, about=item)
    return code


async def _outputs(run: Run, item: str, timeout: float | None) -> tuple[Output, ...]:
    from wavespeed_qwen_async import Output  # noqa: PLC0415 - see above

    if item.startswith(("https://", "http://")):
        return (Output(url=item),)
    return (await run.session.result(item, timeout=timeout)).outputs


async def upload(run: Run, *, files: Files) -> int:
    """Upload images; prints the URL of each, good as a source for 7 days."""
    from wavespeed_qwen_async import WaveSpeedError  # noqa: PLC0415 - heavy, and --help needs none of it

    code = Exit.OK
    for file in files:
        try:
            url = await run.session.upload(file)
        except WaveSpeedError as error:
            code = run.output.failed(error, about=str(file))
        else:
            run.output.line(url)
            run.output.event("upload", path=str(file), url=url)
    return code


async def _save(run: Run, output: Output, path: Path) -> None:
    saved = await run.session.download(output, path)
    run.output.line(str(saved))
    run.output.event("image", path=str(saved), prediction_id=output.prediction_id, url=output.url, nsfw=output.nsfw)


def _name(output: Output) -> str:
    """A file name of what the URL ends in: an image's, with nothing of a path or of a shell in it, and not too long."""
    from wavespeed_qwen_async.names import file_name  # noqa: PLC0415 - heavy, and --help needs none of it

    from .targets import ENDINGS  # noqa: PLC0415 - see above

    last = urlsplit(output.url or "").path.rpartition("/")[2]
    stem, dot, ending = "".join(c for c in last if c.isalnum() or c in "._-").lstrip(".-").rpartition(".")
    if f".{ending.lower()}" in ENDINGS and stem:
        return file_name(stem, dot + ending)
    return file_name(f"{output.prediction_id or stem or ending or 'image'}-{output.index}", ".jpg")
