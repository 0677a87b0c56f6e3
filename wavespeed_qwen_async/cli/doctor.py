"""``doctor``: what is set, where that comes from, and whether it works. Sends nothing that costs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import options
from .exits import Exit, exit_of
from .output import describe, money
from .threads import aside

if TYPE_CHECKING:
    from wavespeed_qwen_async import QwenImageSession

    from .config import Value
    from .running import Run

__all__ = ["register"]

_PATIENCE = 20.0  # seconds for the server's answer
_CLOCK_OFF = 30  # seconds that clocks may differ: the answer's own way, and its whole seconds
_LITTLE_ROOM = 2**30  # bytes
_KEY = "WAVESPEED_API_KEY"
_PARTS = (
    *("aiohttp", "aiolimiter", "anyio", "pydantic", "typer", "rich"),
    *("pillow", "jinja2", "pyyaml"),  # of extras
)

Folder = Annotated[Path, typer.Option("--out", "-o", help="The folder that images are to be saved in.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    example = """wavespeed-qwen doctor
    wavespeed-qwen doctor --emulator --json"""
    options.command(app, example=example, needs_session=False, configured=False)(doctor)


async def doctor(run: Run, *, out: Folder = Path()) -> int:
    """Check key, server, clock, tier, disk, versions; tell where each setting comes from. Costs nothing."""
    checks = _Checks(run)
    checks.tell("versions", "ok", await aside(_versions))
    try:
        values = await aside(_configure, run)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a file: the rest is worth knowing
        checks.fail("settings", error)
    else:
        _tell_settings(run, values)
        await _ask_server(run, checks)
    await aside(_look_at_disk, checks, out)
    return checks.end()


class _Checks:
    """The checks so far, told as they are made."""

    def __init__(self, run: Run) -> None:
        self._output = run.output
        self._states: list[str] = []
        self._code = Exit.OK

    def tell(self, name: str, state: Literal["ok", "warning", "failed"], text: str) -> None:
        """Tell one."""
        self._states.append(state)
        self._output.line(f"{state:<8} {name:<9} {text}")
        self._output.event("check", name=name, state=state, text=text)

    def fail(self, name: str, error: BaseException | str, code: Exit | None = None) -> None:
        """Tell one that failed; the first gives the exit code."""
        text = error if isinstance(error, str) else describe(error)
        if self._code is Exit.OK:
            self._code = code if code is not None else exit_of(error) if not isinstance(error, str) else Exit.FAILED
        self.tell(name, "failed", text)

    def end(self) -> Exit:
        """Tell how many; returns the exit code."""
        failed, warned = self._states.count("failed"), self._states.count("warning")
        self._output.line("all is well" if not failed + warned else f"{failed} failed, {warned} to be looked at")
        self._output.event("doctor", checks=len(self._states), failed=failed, warnings=warned)
        return self._code


def _configure(run: Run) -> list[tuple[str, Value]]:
    from .config import Configuration  # noqa: PLC0415 - --help needs none of it

    given = dataclasses.asdict(run.settings)
    configuration = Configuration.load()
    run.settings = configuration.settle(run.settings)
    return [pair for pair in configuration.told(given) if not (run.settings.emulator and pair[0] == "base_url")]


def _tell_settings(run: Run, values: list[tuple[str, Value]]) -> None:
    key = "set (never shown)" if os.environ.get(_KEY, "").strip() else "not set"
    shown = [("api_key", key, _KEY), *((name, value.value, value.source) for name, value in values)]
    if run.settings.emulator:
        shown[0] = ("api_key", "the emulator's own", "--emulator")
    for name, value, source in shown:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        run.output.line(f"setting  {name:<15}{text}  ({source})")
        run.output.event("setting", name=name, value=text, source=source)


async def _ask_server(run: Run, checks: _Checks) -> None:
    """With no key the server is asked all the same: that it refuses shows that it is there."""
    from wavespeed_qwen_async.errors import ConfigurationError  # noqa: PLC0415 - --help needs none of it

    keyless = not run.settings.emulator and not os.environ.get(_KEY, "").strip()
    if keyless:
        text = f"set {_KEY} to one of https://wavespeed.ai/accesskey; --emulator needs none"
        checks.fail("key", text, Exit.SETUP)
    try:
        async with contextlib.AsyncExitStack() as stack:
            await run.open(stack, api_key="none" if keyless else None)
            if await _ask_balance(run.session, checks, keyless=keyless):
                _compare_clocks(run.session, checks)
            _tell_tier(run, checks)
    except ConfigurationError as error:
        checks.fail("session", error)


async def _ask_balance(session: QwenImageSession, checks: _Checks, *, keyless: bool) -> bool:
    """Whether the server answers."""
    import asyncio  # noqa: PLC0415 - --help needs none of it

    from wavespeed_qwen_async.errors import AuthenticationError, WaveSpeedError  # noqa: PLC0415

    where = session._engine.api.transport.base_url  # noqa: SLF001 - of this house: see Engine's first line
    clock = asyncio.get_running_loop().time
    began, amount, refused = clock(), None, None
    try:
        async with asyncio.timeout(_PATIENCE):
            amount = await session.balance()
    except TimeoutError:
        checks.fail("server", f"{where}: no answer within {_PATIENCE:.0f} s", Exit.SERVER)
        return False
    except AuthenticationError as error:
        refused = error
    except WaveSpeedError as error:
        checks.fail("server", error)
        return False
    checks.tell("server", "ok", f"{where} answers, after {clock() - began:.2f} s")
    if amount is not None:
        checks.tell("key", "ok", "accepted")
        checks.tell("balance", "ok" if amount > 0 else "warning", money(amount))
    elif refused is not None and not keyless:
        checks.fail("key", refused)
    return True


def _compare_clocks(session: QwenImageSession, checks: _Checks) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415 - --help needs none of it

    there = session._engine.api.transport.server_time()  # noqa: SLF001 - see above
    if there is None:
        checks.tell("clock", "warning", "the server told no time to compare with")
        return
    ahead = (datetime.now(UTC) - there).total_seconds()
    if abs(ahead) < _CLOCK_OFF:
        checks.tell("clock", "ok", f"within {_CLOCK_OFF} s of the server's")
        return
    way = "ahead of" if ahead > 0 else "behind"
    text = f"{abs(ahead):.0f} s {way} the server's: set this machine's clock, or webhooks may be refused as too old"
    checks.tell("clock", "warning", text)


def _tell_tier(run: Run, checks: _Checks) -> None:
    limits = run.session.limits.snapshot()
    figures = f"{limits.max_per_minute:,} submits a minute, {limits.max_in_flight:,} at once"
    tier = run.settings.tier
    if limits.assumed:
        text = f"not given, so silver's is assumed ({figures}): set WAVESPEED_TIER to the account's"
        checks.tell("tier", "warning", text)
    else:
        checks.tell("tier", "ok", f"{tier}: {figures}" if tier else figures)


def _look_at_disk(checks: _Checks, out: Path) -> None:
    import shutil  # noqa: PLC0415 - --help needs none of it

    from .targets import check_room  # noqa: PLC0415

    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.is_dir())
    try:
        check_room(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        checks.fail("disk", error)
        return
    state: Literal["ok", "warning"] = "ok" if free >= _LITTLE_ROOM else "warning"
    checks.tell("disk", state, f"{free / 2**30:,.1f} GiB free in {folder}")


def _versions() -> str:
    import platform  # noqa: PLC0415 - --help needs none of it
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    from wavespeed_qwen_async import __version__  # noqa: PLC0415

    found: dict[str, Any] = {}
    for part in _PARTS:
        try:
            found[part] = version(part)
        except PackageNotFoundError:
            found[part] = "missing"
    system = f"wavespeed-qwen {__version__}, Python {platform.python_version()}, {platform.system()}"
    return f"{system}, {', '.join(f'{part} {number}' for part, number in found.items())}"
