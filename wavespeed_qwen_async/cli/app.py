"""The application: its commands, and its errors of usage in one line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from . import account, batch, doctor, emulate, gallery, images, pictures, sweep
from .exits import Exit, table

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "run"]

app: typer.Typer = typer.Typer(
    name="wavespeed-qwen",
    help="Generate and edit images with WaveSpeedAI's Qwen-Image LoRA models, one or a million.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"\b\nThe key comes from WAVESPEED_API_KEY; 'wavespeed-qwen doctor' checks it. Exit codes:\n{table()}",
)
for _module in (images, batch, sweep, gallery, pictures, account, emulate, doctor):
    _module.register(app)


def _version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        from wavespeed_qwen_async import __version__  # noqa: PLC0415 - wanted by few

        typer.echo(f"wavespeed-qwen {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Tell the version.")
    ] = False,
) -> None:
    del version


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the application; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(args=given, prog_name="wavespeed-qwen", standalone_mode=False)
    except typer.Abort:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - what is no error of usage is raised again
        return _usage(error)
    return int(code or 0)


def _usage(error: Exception) -> int:
    """One line for what typer finds wrong with the arguments; anything else is no such thing."""
    format_message = getattr(error, "format_message", None)  # its class has another name in each version of typer
    if format_message is None:
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":
        return Exit.USAGE
    context = getattr(error, "ctx", None)
    where = f" (see '{context.command_path} --help')" if context is not None else ""
    text = " ".join(format_message().split())
    typer.echo(f"error: {text}{where}", err=True)
    return Exit.USAGE
