"""``Batch``: many jobs into a folder, durably. A kill at any line loses nothing and pays nothing twice."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._options import seconds
from wavespeed_qwen_async.errors import ConfigurationError, InvalidJobError, WaveSpeedError
from wavespeed_qwen_async.names import DEFAULT_TEMPLATE, NameTemplate

from ._budget import Budget, dollars
from ._home import address_of, move_in
from ._planning import make_plan
from ._reports import BatchOutcome, BatchPlan, BatchProgress, BatchSummary
from ._run import Run
from ._states import OPEN, State
from ._work import Options, Tally
from .journal import Journal
from .sources import FileSource, SourceChunk, read_source

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
    from datetime import timedelta

    from wavespeed_qwen_async.models import Job
    from wavespeed_qwen_async.predictions import Prediction
    from wavespeed_qwen_async.session import QwenImageSession

    from ._store import Counts
    from .sources import JobSource

__all__ = ["Batch"]

_logger = logging.getLogger(__name__)

_SHOWN = 20
_ROOM_FOR_SAVING = 64  # jobs that may be at their download while all places for predictions are taken


class Batch:
    """Runs the jobs of a source, and puts each image, once and whole, into a folder.

    The folder holds a journal. Started again on it, a batch goes on: what is paid is only collected, what is saved is
    skipped, and only what certainly was not accepted is sent. Jobs are known by their content, wherever they stand in
    the source; equal jobs are made as often as they stand there.

        batch = Batch("prompts.jsonl", "out", session, budget=5.00)
        async with contextlib.aclosing(batch.run()) as outcomes:
            async for outcome in outcomes:
                print(outcome.index, outcome.path or outcome.error)

    Args:
        source: A ``.jsonl``, ``.csv``, ``.yaml`` or ``.txt`` file (a prompt a line), a folder of images together with
            ``prompt``; any iterable or async iterable of jobs or mappings; or what ``read_source`` gave.
        out_dir: The folder; made where there is none. One run at a time works in it.
        session: An open session. Its limits are kept to; what it does besides does not count to the budget.
        budget: Dollars that the folder may cost, all its runs together; reserved before each submit, and given back
            where a task fails. Used up, the run ends when what is in flight is collected.
        retry_failed: Send failed jobs again, those that cost nothing or failed for a reason that may pass.
        resubmit_unknown: Send jobs again of which nothing tells whether they were accepted: these may be billed twice.
        strict: Send nothing unless every line is a job. A source that can be read only once is then held in memory.
        names: Template of file names, see ``NameTemplate``.
        provenance: Write into each image how it was made.
        max_in_flight: Jobs between source and outcome at most; default: the session's limit and some that are saved.
        timeout: Seconds from a submit to its result; one that takes longer is awaited again by the next run.
        limit: Take only the first so many lines.
        emulator: The session is at an emulator that was made for this run and forgets all with it: its address is not
            what the folder belongs to, and what an earlier one had under way is sent again.
        prompt: The prompt of jobs that have none.
        defaults: Parameters of jobs that don't say otherwise.

    Raises:
        ConfigurationError: an option is out of range.
    """

    def __init__(
        self,
        source: str
        | os.PathLike[str]
        | Iterable[Job | Mapping[str, Any]]
        | AsyncIterable[Job | Mapping[str, Any]]
        | JobSource,
        out_dir: str | os.PathLike[str],
        session: QwenImageSession,
        *,
        budget: float | None = None,
        retry_failed: bool = False,
        resubmit_unknown: bool = False,
        strict: bool = False,
        names: str = DEFAULT_TEMPLATE,
        provenance: bool = True,
        max_in_flight: int | None = None,
        timeout: float | timedelta | None = None,
        limit: int | None = None,
        emulator: bool = False,
        prompt: str | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        given = (prompt, defaults) != (None, None)
        self._source: JobSource = (
            source if hasattr(source, "chunks") else read_source(source, prompt=prompt, defaults=defaults)  # type: ignore[assignment]
        )
        if given and self._source is source:
            raise ConfigurationError("prompt and defaults: give them to read_source(), which made this source")
        self._folder = Path(out_dir)
        self._session = session
        self._address = address_of(session, emulator=emulator)
        self._budget = budget
        Budget(budget)
        self._strict = strict
        self._template = NameTemplate(names)
        self._options = Options(
            retry_failed=retry_failed,
            resubmit_unknown=resubmit_unknown,
            provenance=provenance,
            window=_window(session, max_in_flight),
            timeout=seconds(timeout),
            limit=_at_least_one("limit", limit),
        )
        self._run: Run | None = None
        self._state: Any = "new"
        self._drained = False
        self._total: int | None = None
        self._began = 0.0
        self._seconds = 0.0
        self._after: Counts | None = None
        self._errors: list[tuple[str, int, str]] = []

    def __repr__(self) -> str:
        return f"<Batch {self._source.name} -> {self._folder} {self._state}>"

    async def plan(self) -> BatchPlan:
        """What ``run`` would do and cost. Sends nothing that costs, and writes nothing.

        Raises:
            WaveSpeedError: the source, the journal or the account can't be read.
        """
        return await make_plan(
            self._session, self._source, self._folder, self._options, self._budget, address=self._address
        )

    async def run(self) -> AsyncGenerator[BatchOutcome, None]:
        """Run to the end; yields each job's outcome when its file is saved, or it is certain that there will be none.

        A consumer that takes its time slows the submits. Use ``contextlib.aclosing``; leaving early leaves what is
        paid to the next run.

        Raises:
            JournalError: the folder is in use, the journal damaged or of a newer release, the disk full or read-only.
            ConfigurationError: the source can't be read, or changed while it was read, or is the folder itself; or the
                folder holds a run at another API.
            InvalidJobError: with ``strict``, a line is no job.
            WaveSpeedError: every further job would fail as well: a wrong key, no connection, endless refusals. As with
                all of these, what was paid is collected first where that is possible, and the next run goes on.
        """
        if self._state == "running":
            raise ConfigurationError("this batch is running already")
        loop = asyncio.get_running_loop()
        self._state, self._began, self._after, self._errors = "running", loop.time(), None, []
        try:
            if isinstance(self._source, FileSource):
                await self._source.check_apart(self._folder)
            if self._strict:
                await self._check_all()
            journal = await Journal.open(self._folder)
            try:
                async with aclosing(self._outcomes(journal)) as outcomes:
                    async for outcome in outcomes:
                        yield outcome
            finally:
                await journal.close()
        finally:
            self._state, self._seconds, self._drained = "ended", loop.time() - self._began, False
            await self._source.close()

    async def _outcomes(self, journal: Journal) -> AsyncGenerator[BatchOutcome, None]:
        await self._move_in(journal)
        spent = 0 if self._budget is None else (await journal.read(lambda store: store.counts())).cost
        self._total = await self._count()
        self._run = run = Run(
            self._session,
            journal,
            self._source,
            folder=self._folder,
            options=self._options,
            budget=self._budget,
            template=self._template,
            spent=spent,
        )
        if self._drained:
            run.work.stop("drained")
        try:
            async with aclosing(run.outcomes()) as outcomes:
                async for outcome in outcomes:
                    yield outcome
            await self._compact(journal)
        finally:
            await self._take_stock(journal, run)

    async def _move_in(self, journal: Journal) -> None:
        await journal.write(lambda store: move_in(store, self._folder, self._address))

    async def _compact(self, journal: Journal) -> None:
        """At the end of a run that came to its end; a run on a cluster first lets its readers read the results."""
        await journal.write(lambda store: store.compact_results())

    async def _take_stock(self, journal: Journal, run: Run) -> None:
        try:
            self._after = await journal.read(lambda store: store.counts(run.work.tally.seen))
            self._errors = await journal.read(lambda store: store.errors())
        except WaveSpeedError:  # the journal is what failed, and was told
            _logger.debug("the journal can't be asked at the end", exc_info=True)

    def drain(self) -> None:
        """Send nothing more. What is paid is collected, then ``run`` ends by itself; the next run goes on."""
        self._drained = True
        if self._run is not None:
            self._run.work.stop("drained")

    def progress(self) -> BatchProgress:
        """How it stands, cheaply."""
        work = None if self._run is None else self._run.work
        tally = Tally() if work is None else work.tally
        left = None if self._budget is None else self._budget
        if work is not None and work.budget.left is not None:
            left = dollars(work.budget.left)
        draining = self._state == "running" and work is not None and work.stopping.is_set()
        reconciling = 0 if work is None else work.engine.reconciler.looking_for
        return BatchProgress(
            total=self._total,
            seen=tally.seen,
            done=tally.saved,
            skipped=tally.skipped,
            failed=tally.failed,
            unknown=tally.unknown,
            in_flight=tally.in_flight,
            reconciling=reconciling,
            cost=max(0.0, dollars(tally.spent)),
            budget_left=left,
            state="draining" if draining else self._state,
        )

    def summary(self) -> BatchSummary:
        """How it ended; before its end, how it stands."""
        work = None if self._run is None else self._run.work
        tally = Tally() if work is None else work.tally
        states = {} if self._after is None else self._after.states
        end = self._seconds if self._state == "ended" else 0.0
        return BatchSummary(
            total=tally.seen,
            saved=tally.saved,
            skipped=tally.skipped,
            failed=states.get(State.FAILED, tally.failed if self._after is None else 0),
            unknown=states.get(State.UNKNOWN, tally.unknown if self._after is None else 0),
            open=sum(states.get(state, 0) for state in (State.NEW, *OPEN)),
            cost=max(0.0, dollars(tally.spent)),
            refunded=dollars(tally.refunded),
            cost_total=0.0 if self._after is None else dollars(self._after.cost),
            seconds=end,
            errors=list(self._errors),
            strangers=0 if work is None else work.engine.reconciler.strangers,
            stopped=None if work is None else work.stopped,
        )

    async def strangers(self) -> AsyncGenerator[Prediction, None]:
        """Predictions of the account, since the folder's first submit, that belong to none of its jobs.

        Those of a lost submit that could not be told apart are among them. ``session.download`` saves their images.
        """
        journal = await Journal.open(self._folder)
        try:
            await self._move_in(journal)
            first = await journal.read(lambda store: store.first_sent())
            if first is None:
                return
            since = datetime.fromtimestamp(first, UTC)
            async with aclosing(self._session.predictions(created_after=since)) as predictions:
                async for prediction in predictions:
                    held = await journal.read(lambda store, one=prediction.id: store.held([one]))  # type: ignore[misc]  # a default in a lambda
                    if not held:
                        yield prediction
        finally:
            await journal.close()

    async def _count(self) -> int | None:
        count = await self._source.count()
        limit = self._options.limit
        return count if limit is None or count is None else min(count, limit)

    async def _check_all(self) -> None:
        """Read every line; raise if one is no job."""
        await self._source.keep()
        wrong: list[InvalidJobError] = []
        count = seen = 0
        async with aclosing(self._source.chunks()) as chunks:
            async for chunk in chunks:
                some = chunk if self._options.limit is None else chunk.first(self._options.limit - seen)
                seen += len(some)
                found = await asyncio.get_running_loop().run_in_executor(None, _wrong_ones, some)
                count += len(found)
                wrong += found[: _SHOWN - len(wrong)]
        if wrong:
            more = f"; and {count - len(wrong)} more" if count > len(wrong) else ""
            raise InvalidJobError(
                f"{count} lines of {self._source.name} are no jobs, nothing was sent: "
                + "; ".join(error.message for error in wrong)
                + more,
                field=wrong[0].field,
            )


def _wrong_ones(lines: SourceChunk) -> list[InvalidJobError]:
    wrong = []
    for line in lines:
        try:
            line.job()
        except InvalidJobError as error:
            wrong.append(error)
    return wrong


def _window(session: QwenImageSession, max_in_flight: int | None) -> int:
    given = _at_least_one("max_in_flight", max_in_flight)
    return session.limits.max_in_flight + _ROOM_FOR_SAVING if given is None else given


def _at_least_one(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise ConfigurationError(f"{name} = {value!r}: give 1 or more")
    return value
