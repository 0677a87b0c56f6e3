"""Options: the ones every command has, and the types of those that several have."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Format", "Settings", "Tier", "command"]

_SERVER = "Account and server"
_REPORT = "Report"
_IMAGE = "Image"
_NAMED = inspect.Parameter.KEYWORD_ONLY


class Tier(StrEnum):
    """The account's tier."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"
    ULTRA = "ultra"


class Format(StrEnum):
    """The output's format."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"


Prompt = Annotated[str, typer.Argument(help="What the image should show, or how it should change.", metavar="PROMPT")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="File or folder to save to; a file's ending sets the format.", metavar="PATH"),
]
Size = Annotated[
    str | None,
    typer.Option(help="Width and height in pixels, 256 to 1536 each.", metavar="WxH", rich_help_panel=_IMAGE),
]
Loras = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        help="'owner/name:0.8' or a .safetensors URL, the scale (0 to 4, default 1) behind it; at most 3 times.",
        metavar="LORA",
        rich_help_panel=_IMAGE,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="0 to 2147483647; default: drawn here and told. -1: drawn by the server and not told.",
        metavar="N",
        rich_help_panel=_IMAGE,
    ),
]
OutputFormat = Annotated[
    Format | None, typer.Option("--format", help="Default: by --out, else jpeg.", rich_help_panel=_IMAGE)
]
Count = Annotated[
    int,
    typer.Option(
        "--count", "-n", help="Images to make, each with its own seed (SEED, SEED+1, ...).", min=1, metavar="N"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
Sync = Annotated[
    bool,
    typer.Option("--sync", help="enable_sync_mode: hold each submit until its image is there.", rich_help_panel=_IMAGE),
]
Base64 = Annotated[
    bool,
    typer.Option(
        "--base64", help="enable_base64_output: get the image in the answer, not by URL.", rich_help_panel=_IMAGE
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(help="Longest to wait for a result, in seconds; default: an hour.", metavar="SECONDS", min=0.001),
]
Source = Annotated[str, typer.Argument(help="The source image: a file or a URL.", metavar="IMAGE")]
Also = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        "-i",
        help="One more source image, for the models that take up to 3: edit-plus-lora, edit-2511-lora, ...",
        metavar="IMAGE",
    ),
]
GenerateModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="text-to-image-lora (default), text-to-image or text-to-image-2512-lora.",
        metavar="NAME",
        rich_help_panel=_IMAGE,
    ),
]
EditModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="edit-lora (default), edit, edit-plus, edit-plus-lora, edit-2511 or edit-2511-lora.",
        metavar="NAME",
        rich_help_panel=_IMAGE,
    ),
]
Ids = Annotated[list[str], typer.Argument(help="Ids of predictions.", metavar="ID...")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every command is told: its fields are options of all of them."""

    tier: Annotated[
        Tier | None,
        typer.Option(
            help="bronze, silver, gold or ultra; default: silver's limits.", metavar="TIER", rich_help_panel=_SERVER
        ),
    ] = None
    max_per_minute: Annotated[
        int | None, typer.Option(help="Submits a minute, not the tier's.", min=1, metavar="N", rich_help_panel=_SERVER)
    ] = None
    max_in_flight: Annotated[
        int | None, typer.Option(help="Images at once, not the tier's.", min=1, metavar="N", rich_help_panel=_SERVER)
    ] = None
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Where the API is; default: https://api.wavespeed.ai.",
            metavar="URL",
            rich_help_panel=_SERVER,
        ),
    ] = None
    emulator: Annotated[
        bool,
        typer.Option(
            "--emulator", help="Use an emulated API inside this process: no key, no cost.", rich_help_panel=_SERVER
        ),
    ] = False
    emulator_speed: Annotated[
        float, typer.Option(help="How many times faster it makes images.", metavar="X", rich_help_panel=_SERVER)
    ] = 1.0
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON on stdout, one object a line.", rich_help_panel=_REPORT)
    ] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Tracebacks and log on stderr.", rich_help_panel=_REPORT)
    ] = False


def command(
    app: typer.Typer,
    *,
    example: str,
    needs_session: bool = True,
    configured: bool = True,
    leave_out: frozenset[str] = frozenset(),
) -> Callable[[Callable[..., Awaitable[int]]], Callable[..., Awaitable[int]]]:
    """Make an async function a command: its first parameter is the `Run`, the others and `Settings` are its options.

    Args:
        app: Where the command goes.
        example: Command lines for its help.
        needs_session: Whether a session is opened for it.
        configured: Whether options that are not given come from the configuration.
        leave_out: Settings that make no sense for it.
    """

    def register(function: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
        shared = [parameter for parameter in _shared() if parameter.name not in leave_out]

        @functools.wraps(function)
        def call(**given: Any) -> int:
            from .running import execute  # noqa: PLC0415 - heavy, and --help needs none of it

            settings = Settings(**{parameter.name: given.pop(parameter.name) for parameter in shared})
            return execute(settings, function, given, needs_session=needs_session, configured=configured)

        parameters = [parameter.replace(kind=_NAMED) for parameter in (*_own(function), *shared)]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(epilog=_example(example))(call)
        return function

    return register


def _own(function: Callable[..., Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(function, localns={"Run": object}, include_extras=True)  # Run's module is heavy
    run, *own = inspect.signature(function).parameters.values()
    del run
    return [parameter.replace(annotation=hints[parameter.name]) for parameter in own]


@functools.cache
def _shared() -> list[inspect.Parameter]:
    signature = inspect.signature(Settings, eval_str=True)
    defaults = {field.name: field.default for field in fields(Settings)}
    return [parameter.replace(default=defaults[parameter.name]) for parameter in signature.parameters.values()]


def _example(lines: str) -> str:
    return "\b\nExample:\n" + "\n".join(f"  {line.strip()}" for line in lines.strip().splitlines())
