"""The emulator itself: two listening origins, started and stopped without leaving anything behind."""

from __future__ import annotations

import asyncio
import gc
import signal
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import web

from .api import Api
from .media import Media
from .outputs import Outputs
from .service import Service
from .settings import Settings
from .webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from .account import Account
    from .ledger import Ledger
    from .origin import Origin

STOP_TIMEOUT: Final = 5.0
GC_THRESHOLD: Final = 100_000
MAX_BODY: Final = 64 * 1024 * 1024
"""Larger request bodies are refused with 413."""


class _Listener:
    """One origin on its socket."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._manager: web.Server | None = None
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port."""
        loop = asyncio.get_running_loop()

        request = partial(web.BaseRequest, loop=loop, client_max_size=MAX_BODY)
        self._manager = web.Server(
            self._origin.handle, request_factory=request, handler_cancellation=True, access_log=None
        )
        self._server = await loop.create_server(self._manager, host, port, backlog=2048)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening, end what is being answered, close every connection."""
        if self._server is None or self._manager is None:
            return
        self._server.close()
        for task in list(self._origin.waiting):
            task.cancel()
        await self._manager.shutdown(STOP_TIMEOUT)
        with suppress(asyncio.CancelledError):
            await self._server.wait_closed()
        await asyncio.sleep(0)  # closed transports say goodbye on the next pass of the loop
        self._server = self._manager = None


@dataclass(kw_only=True, eq=False, repr=False)
class Emulator(Settings):
    """An in-process WaveSpeed API for tests, demos and measurements. For its options see `Settings`.

        async with Emulator(tier="silver") as emulator:
            ...  # talk to emulator.url with any key

    It must be started on the event loop that it is used on.
    """

    def __post_init__(self) -> None:
        """Check the options and build the service; nothing listens yet."""
        self.check()
        self.service: Service = Service(self)
        self.outputs: Outputs = Outputs(self.service, blank=self.blank)
        self.api: Api = Api(self.service, self.outputs)
        self._media = Media(self.service, self.outputs)
        self._webhooks = Webhooks(self.api)
        self.service.on_accept = self._webhooks.schedule
        self._listeners: list[_Listener] = []

    def __repr__(self) -> str:
        state = self.service.api_url or "not started"
        return f"Emulator({state}, tier={self.tier!r}, accepted={len(self.ledger.accepted_times)})"

    @property
    def url(self) -> str:
        """The base URL for clients, without a slash at its end."""
        return self.service.api_url

    @property
    def media_url(self) -> str:
        """The origin that takes uploads and serves files."""
        return self.service.media_url

    @property
    def ledger(self) -> Ledger:
        """What the emulator saw."""
        return self.service.ledger

    @property
    def account(self) -> Account:
        """The account's money."""
        return self.service.account

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self, *, media_only: bool = False) -> None:
        """Start listening; `media_only` leaves the API to an application that mounts it (see `create_app`)."""
        if self._listeners:
            raise RuntimeError("this emulator is running already")
        self.service.clock.start()
        try:
            port = await self._listen(self._media, self.cdn_port)
            self.service.media_url = f"http://{self._shown_host}:{port}"
            if not media_only:
                port = await self._listen(self.api, self.port)
                self.service.api_url = f"http://{self._shown_host}:{port}{self.prefix}"
        except BaseException:
            await self.stop()
            raise

    async def _listen(self, origin: Origin, port: int) -> int:
        listener = _Listener(origin)
        self._listeners.append(listener)
        return await listener.start(self.host, port)

    @property
    def _shown_host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    async def stop(self) -> None:
        """Stop listening and end everything that is under way. The ledger stays readable."""
        await self._webhooks.stop()
        while self._listeners:
            await self._listeners.pop().stop()


def create_app(emulator: Emulator | None = None, **options: Any) -> web.Application:
    """Make an aiohttp application that serves an emulator's API, to be run or mounted; files have their own port.

    Args:
        emulator: the one to serve, not started; a new one by default.
        options: for a new one, see `Settings`.
    """
    served = emulator if emulator is not None else Emulator(**options)
    app = web.Application(client_max_size=MAX_BODY)

    async def handle(request: web.Request) -> web.StreamResponse:
        if not served.service.api_url:
            served.service.api_url = f"{request.scheme}://{request.host}{served.prefix}"
        return await served.api.handle(request)

    async def running(_app: web.Application) -> Any:
        await served.start(media_only=True)
        yield
        await served.stop()

    app.router.add_route("*", "/{path:.*}", handle)
    app.cleanup_ctx.append(running)
    return app


def run(
    host: str = "127.0.0.1",
    port: int = 8787,
    *,
    on_start: Callable[[Emulator], None] | None = None,
    **options: Any,
) -> None:
    """Serve until SIGINT or SIGTERM; blocks. For a process of its own, as `wavespeed-qwen emulator` is.

    Args:
        host: address to listen on.
        port: port of the API.
        on_start: called once the emulator listens, to say where.
        options: see `Settings`.
    """

    async def serve() -> None:
        stopped = asyncio.Event()
        async with Emulator(host=host, port=port, **options) as emulator:
            with suppress(NotImplementedError):  # on Windows, where Ctrl-C raises KeyboardInterrupt instead
                for name in (signal.SIGINT, signal.SIGTERM):
                    asyncio.get_running_loop().add_signal_handler(name, stopped.set)
            if on_start is not None:
                on_start(emulator)
            await stopped.wait()

    with rare_garbage(), suppress(KeyboardInterrupt):
        asyncio.run(serve())


@contextmanager
def rare_garbage() -> Iterator[None]:
    """Look for garbage rarely, in a process that is the emulator's own.

    Its records are in no cycles, so nothing is found among them; looking took a seventh of its time.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(GC_THRESHOLD, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
