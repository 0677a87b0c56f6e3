"""One run of a batch: the feed, the steps of each job, and the flow between source and consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wavespeed_qwen_async._stream import Flow

from ._budget import Budget, Prices
from ._feed import Feed
from ._steps import Steps
from ._work import Work

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from wavespeed_qwen_async.media import Media, UploadStore
    from wavespeed_qwen_async.names import NameTemplate
    from wavespeed_qwen_async.session import QwenImageSession

    from ._reports import BatchOutcome
    from ._work import Options
    from .journal import Journal
    from .sources import JobSource

__all__ = ["Run"]

_LAST_GRACE = 2.0  # seconds for submits under way to tell the ids of what they paid, when a run is left at once
_RATE_WINDOW = 65.0  # seconds: the server counts over 60


class Run:
    """One run over an open journal."""

    def __init__(
        self,
        session: QwenImageSession,
        journal: Journal,
        source: JobSource,
        *,
        folder: Path,
        options: Options,
        budget: float | None,
        template: NameTemplate,
        spent: int,
    ) -> None:
        money = Budget(budget, spent)
        self.work = Work(session, journal, folder, options, money, Prices(session), template)
        self._source = source
        self._steps = Steps(self.work)

    async def outcomes(self) -> AsyncGenerator[BatchOutcome, None]:
        """Outcomes as they come; at the end, what the source or the disk raised."""
        work, engine = self.work, self.work.engine
        await self._count_earlier_sends()
        flow = Flow(
            Feed(work, self._source).entries(),
            self._steps.launch,
            window=work.options.window,
            ordered=False,
            exchanges=engine.api.exchanges,
        )
        outcomes = flow.outcomes()
        uploads = _Uploads(work.journal, engine.media)
        engine.reconciler.books.append(self._held)
        try:
            async for outcome in outcomes:
                if not outcome.source.withdrawn:
                    yield outcome.source.outcome(outcome.seconds)
        finally:
            work.stopping.set()
            try:
                await outcomes.aclose()
                await self._steps.close()
                await engine.api.exchanges.settle(_LAST_GRACE)
            finally:
                engine.reconciler.books.remove(self._held)
                uploads.remove()
        if work.failure is not None:
            raise work.failure

    async def _held(self, ids: list[str]) -> set[str]:
        return await self.work.journal.read(lambda store: store.held(ids))

    async def _count_earlier_sends(self) -> None:
        """The account's window goes on over a restart."""
        now = self.work.server_now()
        sent = await self.work.journal.read(lambda store: store.sent_since(now - _RATE_WINDOW))
        if sent:
            self.work.session.limits.seed(max(0.0, now - moment) for moment in sent)


class _Uploads:
    """A journal as its session's store of uploads. Runs at the same time lie upon each other, and end in any order."""

    def __init__(self, journal: Journal, media: Media) -> None:
        self.get = journal.get
        self.put = journal.put
        self._media = media
        self.below: UploadStore = media.store
        media.store = self

    def remove(self) -> None:
        """Give back the store that was there before."""
        above = self._media.store
        if above is self:
            self._media.store = self.below
            return
        while isinstance(above, _Uploads):
            if above.below is self:
                above.below = self.below
                return
            above = above.below
