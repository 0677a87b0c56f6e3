"""``emulator``: an API of one's own on this machine, for trying out and for tests in any language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .exits import Exit

if TYPE_CHECKING:
    from .running import Run

__all__ = ["register"]

Host = Annotated[str, typer.Option(help="Address to listen on.", metavar="ADDRESS")]
Port = Annotated[int, typer.Option(help="Port of the API; 0: a free one.", min=0, max=65535, metavar="PORT")]
MediaPort = Annotated[int, typer.Option(help="Port of uploads and outputs.", min=0, max=65535, metavar="PORT")]
Remote = Annotated[bool, typer.Option("--allow-remote", help="Let other machines in.")]
Key = Annotated[str | None, typer.Option(help="The only key that works; default: any.", metavar="KEY")]
Speed = Annotated[float, typer.Option(help="How many times faster images are made.", metavar="X")]
Inference = Annotated[tuple[float, float], typer.Option(help="Shortest and longest seconds.", metavar="MIN MAX")]
Blank = Annotated[bool, typer.Option("--blank", help="Plain pictures; needs no Pillow.")]
Balance = Annotated[float, typer.Option(help="Dollars on the account.", metavar="USD")]
Seed = Annotated[int, typer.Option(help="Seed of all that it draws.", metavar="N")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    left_out = frozenset({"max_per_minute", "max_in_flight", "base_url", "emulator", "emulator_speed"})
    example = "wavespeed-qwen emulator --port 8787 --tier silver --speed 10"
    options.command(app, example=example, needs_session=False, leave_out=left_out)(emulator)


async def emulator(
    run: Run,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8787,
    media_port: MediaPort = 0,
    api_key: Key = None,
    speed: Speed = 1.0,
    inference: Inference = (6.0, 12.0),
    balance: Balance = 1000.0,
    seed: Seed = 0,
    blank: Blank = False,
    allow_remote: Remote = False,
) -> int:
    """Serve an emulated API until Ctrl+C."""
    import asyncio  # noqa: PLC0415 - --help needs none of it

    from wavespeed_qwen_async import ConfigurationError  # noqa: PLC0415 - --help needs none of it
    from wavespeed_qwen_async.emulator import Emulator  # noqa: PLC0415
    from wavespeed_qwen_async.emulator.server import rare_garbage  # noqa: PLC0415

    from .running import tier_of_emulator  # noqa: PLC0415

    stop = asyncio.Event()
    run.on_interrupt = stop.set
    try:
        served = Emulator(
            host=host,
            port=port,
            cdn_port=media_port,
            api_key=api_key,
            tier=tier_of_emulator(run.settings),
            speed=speed,
            inference=inference,
            balance=balance,
            seed=seed,
            blank=blank or not _can_render(run),
            allow_remote=allow_remote,
        )
    except ValueError as error:
        raise ConfigurationError(str(error).replace("allow_remote=True", "--allow-remote")) from None
    with rare_garbage():
        async with served:
            run.output.line(f"listening on {served.url}; Ctrl+C ends it. In another shell:")
            run.output.line(f"  export WAVESPEED_BASE_URL={served.url} WAVESPEED_API_KEY={api_key or 'any-key'}")
            run.output.event("listening", url=served.url, media_url=served.media_url)
            await stop.wait()
            accepted = len(served.ledger.accepted)
            run.output.line(f"{accepted} images were accepted")
            run.output.event("stopped", accepted=accepted)
    return Exit.OK


def _can_render(run: Run) -> bool:
    try:
        import PIL  # noqa: F401, PLC0415 - an extra of the package, so it may be missing
    except ImportError:
        run.output.note("no Pillow, so plain pictures: pip install 'wavespeed-qwen-async[emulator]'")
        return False
    return True
