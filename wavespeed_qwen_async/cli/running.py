"""How a command runs: its emulator, session, signals and errors."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import signal
import sys
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async.errors import ConfigurationError

from .config import Configuration
from .exits import Exit
from .output import Output

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from wavespeed_qwen_async import QwenImageSession
    from wavespeed_qwen_async.emulator import Emulator

    from .options import Settings

__all__ = ["Run", "execute", "tier_of_emulator"]

_CONTACT_BUDGET = 5.0  # seconds to try a server that has never answered: somebody sits and waits
_LEAVING_GRACE = 3.0  # seconds that an impatient user gives to what must be tidied up
_EMULATOR_KEY = "emulator"
_CURSOR = b"\x1b[?25h"  # shown again, as it was before there was a picture
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Run:
    """One run of a command, handed to its function.

    Attributes:
        settings: The shared options.
        output: What to speak by.
        on_interrupt: What the first Ctrl+C or SIGTERM does; by default it cancels the command.
        left: What is said when it was cancelled.
    """

    def __init__(self, settings: Settings, output: Output) -> None:
        self.settings = settings
        self.output = output
        self.on_interrupt: Callable[[], None] | None = None
        self.left = "interrupted"
        self.interrupted: int = 0
        self._session: QwenImageSession | None = None
        self._task: asyncio.Task[Any] | None = None

    @property
    def session(self) -> QwenImageSession:
        """The open session."""
        assert self._session is not None  # noqa: S101 - commands that say they need none don't ask
        return self._session

    async def open(self, stack: contextlib.AsyncExitStack, *, api_key: str | None = None) -> None:
        """Open the session, and the emulator behind it where one is wanted; the key is the environment's by default."""
        from wavespeed_qwen_async import QwenImageSession, Retry  # noqa: PLC0415 - heavy, and --help needs none of it

        settings = self.settings
        key, base_url = api_key, settings.base_url
        if settings.emulator:
            if base_url:
                raise ConfigurationError("--emulator and --base-url exclude each other: give one of them")
            emulator = await stack.enter_async_context(_emulator(settings))
            key, base_url = _EMULATOR_KEY, emulator.url
        self._session = QwenImageSession(
            api_key=key,
            base_url=base_url,
            tier=settings.tier,
            max_per_minute=settings.max_per_minute,
            max_in_flight=settings.max_in_flight,
            retry=Retry(contact_budget=_CONTACT_BUDGET),
        )
        await stack.enter_async_context(self._session)

    def interrupt(self) -> None:
        """Take a Ctrl+C or SIGTERM: the first as the command wants it, the second ends it, a third kills it."""
        self.interrupted += 1
        if self.interrupted == 1 and self.on_interrupt is not None:
            self.on_interrupt()
        elif self.interrupted <= 2 and self._task is not None:  # noqa: PLR2004 - the second
            self._task.cancel()
            if self.interrupted == 2:  # noqa: PLR2004 - the second
                asyncio.get_running_loop().call_later(_LEAVING_GRACE, _leave)
        else:
            _leave()

    async def supervise(self, work: Callable[[Run], Awaitable[int]], *, needs_session: bool) -> int:
        """Do the command's work from opening to closing."""
        self._task = asyncio.current_task()
        try:
            with _signals(self.interrupt):
                async with contextlib.AsyncExitStack() as stack:
                    if needs_session:
                        await self.open(stack)
                    return await work(self)
        except asyncio.CancelledError:
            if not self.interrupted:
                raise
            self.output.note(self.left)
            return Exit.INTERRUPTED


def execute(
    settings: Settings,
    function: Callable[..., Awaitable[int]],
    given: Mapping[str, Any],
    *,
    needs_session: bool = True,
    configured: bool = True,
) -> int:
    """Run a command's async function with its options to its exit code; errors become one line."""
    output = Output(as_json=settings.as_json, verbose=settings.verbose)
    with output.hearing(), _signals_as_before():
        try:
            if configured:
                configuration = Configuration.load()
                settings, given = configuration.settle(settings), configuration.fill(given)
            work = functools.partial(function, **given)
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                return int(runner.run(Run(settings, output).supervise(work, needs_session=needs_session)))
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
        except Exception as error:  # noqa: BLE001 - the one place where errors end: a line, a code, no traceback
            return output.failed(error)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed: the extra ``[uvloop]``."""
    try:
        import uvloop  # noqa: PLC0415 - an extra of the package, so it may be missing
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _emulator(settings: Settings) -> Emulator:
    from wavespeed_qwen_async.emulator import Emulator  # noqa: PLC0415 - wanted by few

    if settings.emulator_speed <= 0:
        raise ConfigurationError(f"--emulator-speed {settings.emulator_speed}: must be more than 0")
    try:
        import PIL  # noqa: F401, PLC0415 - an extra of the package, so it may be missing
    except ImportError:
        raise ConfigurationError("--emulator needs Pillow: pip install 'wavespeed-qwen-async[emulator]'") from None
    # Its own ids in each run: a batch that goes on must not take another run's prediction for its own.
    return Emulator(tier=tier_of_emulator(settings), speed=settings.emulator_speed, seed=secrets.randbits(32))


def tier_of_emulator(settings: Settings) -> Any:
    """The tier of the emulated account: the one given, else the largest, so that only the client limits."""
    return settings.tier.value if settings.tier is not None else "ultra"


@contextlib.contextmanager
def _signals(handler: Callable[[], None]) -> Iterator[None]:
    """Signals go to ``handler`` while inside. After it there is nothing left to lose, and a signal ends the process."""
    loop = asyncio.get_running_loop()
    taken = []
    for number in _SIGNALS:
        # Windows' loop has no handlers (then Ctrl+C is a KeyboardInterrupt), other threads may not set them.
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.add_signal_handler(number, handler)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
            signal.signal(number, _leave)


def _leave(*_: object) -> None:
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), _CURSOR)
    os._exit(Exit.INTERRUPTED)


@contextlib.contextmanager
def _signals_as_before() -> Iterator[None]:
    """For whoever calls the command from inside a process."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is _leave:
                signal.signal(number, handler)
