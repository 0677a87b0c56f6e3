"""The coordinator's session: all of it is here, but submits leave from the workers, and they save the images."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wavespeed_qwen_async._reconcile import Reconciler
from wavespeed_qwen_async._transport import Transport
from wavespeed_qwen_async.media import Media
from wavespeed_qwen_async.session import QwenImageSession

from .orders import SaveOrder, SendOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wavespeed_qwen_async._answers import Answer
    from wavespeed_qwen_async._api import Api
    from wavespeed_qwen_async._reconcile import Lost
    from wavespeed_qwen_async._tasks import Tasks
    from wavespeed_qwen_async._wire import Request
    from wavespeed_qwen_async.limits import Limiter, Send
    from wavespeed_qwen_async.predictions import Output, Prediction
    from wavespeed_qwen_async.provenance import Provenance

    from .desk import Desk

__all__ = ["coordinating_session"]


def coordinating_session(desk: Desk, folder: Path, options: Mapping[str, Any]) -> QwenImageSession:
    """A session whose submits and saves are orders of ``desk``; ``folder`` is what names of files are relative to.

    ``options`` are those of QwenImageSession, but for ``client_session`` and ``webhooks``.
    """
    session = QwenImageSession(**options)
    engine, api, tasks = session._engine, session._api, session._tasks  # noqa: SLF001 - of this house: see Engine
    api.transport = _DeskTransport(api.transport, desk)
    api.limits = cast("Limiter", _DeskLimits(api.limits, desk))
    media = {"nsfw": options.get("nsfw", "keep"), **options.get("media", {})}
    engine.media = session._media = _DeskMedia(api, tasks, desk, folder, media)  # noqa: SLF001
    engine.reconciler = _LateReconciler(api, tasks, desk)
    return session


class _DeskTransport(Transport):
    def __init__(self, like: Transport, desk: Desk) -> None:
        self.__dict__.update(like.__dict__)
        self._desk = desk

    async def send(
        self, request: Request, *, read_timeout: float | None = None, fence: Callable[[], object] | None = None
    ) -> Answer:
        if request.kind != "submit":
            return await super().send(request, read_timeout=read_timeout, fence=fence)
        return await self._desk.send(SendOrder(request, read_timeout))


class _DeskMedia(Media):
    def __init__(self, api: Api, tasks: Tasks, desk: Desk, folder: Path, options: Mapping[str, Any]) -> None:
        super().__init__(api, tasks, **options)
        self._desk = desk
        self._folder = os.path.join(folder, "")  # noqa: PTH118 - pathlib takes longer than all else of an order

    async def save(
        self,
        output: Output,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = True,  # noqa: ARG002 - the journal gave each file its name
        provenance: Provenance | None = None,
        sync_folder: bool = True,  # noqa: ARG002 - the worker that saves it does, on its own machine
    ) -> Path:
        self._admit(output)
        name = os.fspath(path).removeprefix(self._folder).replace(os.sep, "/")
        await self._desk.save(SaveOrder(output, name, provenance))
        return path if isinstance(path, Path) else Path(path)


class _DeskLimits:
    """The account's limits, of which no permit is taken while nobody is there to use it."""

    def __init__(self, limits: Limiter, desk: Desk) -> None:
        self._limits = limits
        self._desk = desk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._limits, name)

    async def start(self, *, again: bool = False) -> Send:
        if not self._desk.open:
            await self._desk.ready()
        return await self._limits.start(again=again)


class _LateReconciler(Reconciler):
    """Looks for what an earlier life of the coordinator sent only when none of its orders can still leave."""

    def __init__(self, api: Api, tasks: Tasks, desk: Desk) -> None:
        super().__init__(api, tasks)
        self._desk = desk

    async def settle(self, lost: Lost, *, once: bool = False) -> Prediction | None:
        if lost.before is None and lost.after is not None:
            await asyncio.sleep(lost.after + self._desk.start_within - self._server_now())
        return await super().settle(lost, once=once)
