"""The steps of one job of a batch: send it, or find out what became of it; await it; save it; or say why not.

Every await here is a place where the run may be cancelled or its process die. What that leaves on the disk is one of
the journal's states, and the next run goes on from there: see ``_states``.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._reconcile import Lost
from wavespeed_qwen_async._stream import FATAL, Landing
from wavespeed_qwen_async._tasks import Tasks
from wavespeed_qwen_async.errors import (
    ContentFlaggedError,
    DownloadError,
    NotSentError,
    PredictionFailed,
    ResultUnavailable,
    SessionClosedError,
    SubmissionUnknown,
    WaveSpeedError,
)
from wavespeed_qwen_async.predictions import Prediction
from wavespeed_qwen_async.provenance import Provenance

from ._budget import dollars, micro
from ._entry import Withdrawn
from ._naming import Naming
from ._schema import JournalError
from ._states import State

if TYPE_CHECKING:
    from wavespeed_qwen_async._api import Witness
    from wavespeed_qwen_async._stream import Flight
    from wavespeed_qwen_async._wire import Request

    from ._entry import Entry
    from ._store import Store
    from ._work import Work

__all__ = ["Steps"]

logger = logging.getLogger(__name__)

# Errors of this machine: every further image would end the same way, so nothing more is paid.
_OWN_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR})
_OWN_DISK |= {errno.ENAMETOOLONG}  # eCryptfs, as on many a NAS, takes 143 bytes
_AT_AN_END = (PredictionFailed, ResultUnavailable, ContentFlaggedError)


class Steps:
    """Takes each job of a run from where it stands to its outcome."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._journal = work.journal
        self._saving = Tasks()

    async def close(self) -> None:
        """End the downloads under way: their jobs stay paid and are fetched by the next run."""
        await self._saving.close()

    async def launch(self, flight: Flight) -> None:
        """Take a job as far as its wait; from there on the keeper holds it, without a task."""
        entry: Entry = flight.source
        entry.task = asyncio.current_task()
        self._work.active.add(entry)
        self._work.tally.in_flight += 1
        try:
            await self._begin(flight, entry)
        except asyncio.CancelledError:
            if not entry.withdrawn:
                self._forget(entry)
                entry.withdrawn = True  # where its session was closed: the next run finds out what became of it
                raise
            if entry.task is not None:
                entry.task.uncancel()
            await self._not_sent(flight, entry, None)
        except WaveSpeedError as error:
            await self._not_sent(flight, entry, error)
        except Exception as error:  # noqa: BLE001 - as in `_finish`; what was sent is looked for by the next run
            self._work.stop(error)
            entry.withdrawn = True
            self._land(flight, entry)
        finally:
            entry.task = None

    async def _begin(self, flight: Flight, entry: Entry) -> None:
        if entry.error is not None:
            await self._fail(entry, entry.error, 0.0)
            self._land(flight, entry)
        elif entry.state in {State.SUBMITTED, State.DONE}:
            assert entry.known is not None and entry.known.prediction_id is not None  # noqa: S101, PT018 - by its state
            flight.observed = self._work.engine.observe(entry.job, entry.known.prediction_id)
            flight.slot = await self._work.engine.slot()
            self._await(flight, entry, entry.known.prediction_id)
        elif entry.state in {State.SUBMITTING, State.UNKNOWN}:
            await self._find(flight, entry)
        else:
            await self._send(flight, entry)

    # --- sending ------------------------------------------------------------------------------------------------------

    async def _send(self, flight: Flight, entry: Entry) -> None:
        if self._work.stopping.is_set():
            raise Withdrawn("not sent: the run is being ended", job=entry.job)
        assert entry.job is not None  # noqa: S101 - lines without one have an error
        flight.observed = flight.observed or self._work.engine.observe(entry.job)
        flight.slot = await self._work.engine.slot()
        witness: Witness = _Witness(self._work, entry)
        if flight.observed is not None:
            flight.observed.books, witness = witness, flight.observed
        prediction = await self._work.engine.submit(entry.job, witness, flight=flight)
        self._await(flight, entry, prediction)

    async def _find(self, flight: Flight, entry: Entry) -> None:
        """A submit of an earlier run that was cut off: look whether it was accepted."""
        known = entry.known
        assert known is not None  # noqa: S101 - by its state
        work = self._work
        flight.observed = work.engine.observe(entry.job)
        flight.leave()  # it may take minutes, and needs no turn
        lost = Lost.of_inputs(known.model, known.inputs, sent_at=known.sent_at)
        try:
            prediction = await work.engine.reconciler.settle(lost, once=entry.state is State.UNKNOWN)
        except SubmissionUnknown as error:
            if entry.state is not State.UNKNOWN:
                raise
            await self._still_unknown(flight, entry, error)
            return
        if prediction is not None:
            try:
                await self._journal.move(
                    entry.row, State.SUBMITTED, holds=prediction.id, prediction_id=prediction.id, price=entry.price
                )
            except JournalError:
                work.engine.reconciler.release(prediction)
                raise
            if flight.observed is not None:
                await flight.observed.accepted(prediction)
            self._await(flight, entry, prediction)
        elif entry.state is State.UNKNOWN:
            await self._still_unknown(flight, entry, None)
        else:
            await self._send_found_absent(flight, entry)

    async def _still_unknown(self, flight: Flight, entry: Entry, error: SubmissionUnknown | None) -> None:
        work = self._work
        work.settle(entry)  # perhaps paid: no second submit takes that back
        if not work.options.resubmit_unknown or entry.job is None or not await self._reserved(entry):
            entry.withdrawn = True  # it was told when it became unknown; the summary goes on saying it
            self._land(flight, entry)
            return
        logger.warning("job %d is sent again as asked; its lost submit may be billed too", entry.index, exc_info=error)
        await self._journal.write(lambda store: store.again(entry.row))
        await self._send_again(flight, entry)

    async def _reserved(self, entry: Entry) -> bool:
        """Reserve the price of a second submit; False where the budget does not hold it."""
        work = self._work
        assert entry.job is not None  # noqa: S101 - looked at by the caller
        price = micro((await work.prices.of(entry.job)).amount)
        if not await work.budget.reserve(price):
            work.stop("budget")
            return False
        entry.price, entry.reserved = price, True
        return True

    async def _send_found_absent(self, flight: Flight, entry: Entry) -> None:
        """It never arrived: it is new again, and sent now if its line has passed by already."""

        def decide(store: Store) -> bool:
            _, position = store.state(entry.row)
            if position is not None and position < store.cursor:
                return True  # stays as it is: the feed has passed it by and will not come back
            store.renew(entry.row)
            return False

        if await self._journal.write(decide):
            await self._send_again(flight, entry)
        else:
            entry.withdrawn = True
            self._work.settle(entry, back=entry.price)
            self._land(flight, entry)

    async def _send_again(self, flight: Flight, entry: Entry) -> None:
        entry.state, entry.sent, entry.resumed = State.NEW, True, False
        self._work.tally.spent += entry.price
        await self._send(flight, entry)

    async def _not_sent(self, flight: Flight, entry: Entry, error: WaveSpeedError | None) -> None:
        """A submit that gave no id. Where that is certain it costs nothing, else it is unknown."""
        try:
            await self._put_back(entry, error)
        except JournalError as failure:
            self._work.stop(failure)
            entry.withdrawn = True
        self._land(flight, entry)

    async def _put_back(self, entry: Entry, error: WaveSpeedError | None) -> None:
        work = self._work
        if isinstance(error, JournalError):
            raise error
        if isinstance(error, SubmissionUnknown):
            await self._lose(entry, error)
        elif entry.state in {State.SUBMITTING, State.UNKNOWN}:  # what became of it could not even be asked
            entry.withdrawn = True
            work.settle(entry)
            if error is not None and not isinstance(error, SessionClosedError):
                work.stop(error)
        elif error is None or isinstance(error, (NotSentError, *FATAL)):
            entry.withdrawn = True
            if error is not None and not isinstance(error, (Withdrawn, SessionClosedError)):
                work.stop(error)
            await self._renew(entry)
        elif error.transient:
            entry.error = error
            await self._renew(entry)
            work.tally.failed += 1
        else:
            await self._fail(entry, error, 0.0)

    async def _renew(self, entry: Entry) -> None:
        if entry.sent:
            await self._journal.write(lambda store: store.renew(entry.row))
        self._work.settle(entry, back=entry.price)
        entry.price = 0

    async def _lose(self, entry: Entry, error: SubmissionUnknown) -> None:
        entry.error = error
        self._work.tally.unknown += 1
        self._work.tally.failed += 1
        await self._journal.move(entry.row, State.UNKNOWN, result=entry.result("unknown", 0.0), **_as_columns(error))
        self._work.settle(entry)

    # --- awaiting and saving ------------------------------------------------------------------------------------------

    def _await(self, flight: Flight, entry: Entry, prediction: Prediction | str) -> None:
        engine = self._work.engine
        flight.prediction_id = prediction if isinstance(prediction, str) else prediction.id
        if isinstance(prediction, Prediction) and prediction.finished:
            self.landed(flight, prediction)
        else:
            single = bool(entry.job is not None and entry.job.enable_base64_output)
            landing, timeout = Landing(self, flight), self._work.options.timeout
            flight.watch = engine.keeper.watch(prediction, landing, timeout=timeout, single=single)

    def landed(self, flight: Flight, end: Prediction | WaveSpeedError) -> None:
        """As in ``Lander``."""
        flight.release()  # the account's place is free; the place in the run is not, until the outcome is taken
        entry: Entry = flight.source
        end = self._work.engine.ended(end, entry.job)
        self._saving.start(self._finish(flight, entry, end), "wavespeed batch save")

    async def _finish(self, flight: Flight, entry: Entry, end: Prediction | WaveSpeedError) -> None:
        seconds = asyncio.get_running_loop().time() - flight.began
        try:
            if isinstance(end, WaveSpeedError):
                await self._missed(entry, end, seconds)
            else:
                await self._save(entry, end, seconds)
        except JournalError as error:
            self._work.stop(error)
            entry.withdrawn = True
        except WaveSpeedError as error:
            await self._not_saved(entry, error, seconds)
        except Exception as error:  # noqa: BLE001 - a defect ends the run loudly; the job stays paid and is fetched later
            self._work.stop(error)
            entry.withdrawn = True
        self._land(flight, entry)

    async def _save(self, entry: Entry, prediction: Prediction, seconds: float) -> None:
        work = self._work
        entry.prediction = prediction
        media = work.engine.media
        names: list[str] = await self._journal.make(Naming(entry.row, work, entry, prediction))
        files = [work.folder / name for name in names]
        for output, file in zip(prediction.outputs, files, strict=True):
            made = None
            if work.options.provenance:
                made = Provenance.of(prediction, output=output.index, price=dollars(entry.price))
            await media.save(output, file, provenance=made, sync_folder=False)
        entry.file, entry.path = names[0], files[0]
        told = entry.result("saved", seconds)
        await self._journal.move(entry.row, State.SAVED, seconds=seconds, result=told, files=files)
        work.tally.saved += 1
        work.settle(entry)

    async def _not_saved(self, entry: Entry, error: WaveSpeedError, seconds: float) -> None:
        try:
            await self._missed(entry, error, seconds)
        except JournalError as failure:
            self._work.stop(failure)
            entry.withdrawn = True

    async def _missed(self, entry: Entry, error: WaveSpeedError, seconds: float) -> None:
        """A paid job without a file: at its end, or to be collected by a later run."""
        work = self._work
        if isinstance(error, SessionClosedError):
            entry.withdrawn = True
        elif isinstance(error, _AT_AN_END):
            await self._fail(entry, error, seconds)
        else:
            entry.error = error
            work.tally.failed += 1
            work.settle(entry)
            if isinstance(error, FATAL) or (isinstance(error, DownloadError) and _of_own_disk(error)):
                work.stop(error)

    async def _fail(self, entry: Entry, error: WaveSpeedError, seconds: float) -> None:
        price, entry.error = entry.price, error
        refunded = isinstance(error, PredictionFailed)
        free = refunded or error.billed == "no"
        if free:
            entry.price = 0
        await self._journal.move(
            entry.row,
            State.FAILED,
            price=entry.price,
            refund=price if refunded else None,
            seconds=seconds,
            result=entry.result("failed", seconds),
            **_as_columns(error),
        )
        work = self._work
        work.tally.failed += 1
        work.tally.refunded += price if refunded else 0
        work.settle(entry, back=price if free else 0)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _land(self, flight: Flight, entry: Entry) -> None:
        self._forget(entry)
        if flight.observed is not None:
            flight.observed.end(entry.error or entry.prediction or asyncio.CancelledError("left for the next run"))
        # What the flow makes of it is not used: the entry knows more.
        flight.land(entry.prediction or WaveSpeedError("no file"))

    def _forget(self, entry: Entry) -> None:
        if entry in self._work.active:
            self._work.active.discard(entry)
            self._work.tally.in_flight -= 1


class _Witness:
    """Keeps the journal of one submit."""

    __slots__ = ("_entry", "_work")

    def __init__(self, work: Work, entry: Entry) -> None:
        self._work = work
        self._entry = entry

    async def sending(self, request: Request) -> None:
        """The intent, before the first byte."""
        work, entry = self._work, self._entry
        if work.stopping.is_set():
            raise Withdrawn("not sent: the run is being ended", job=entry.job)
        entry.sent = True
        assert entry.job is not None and request.body is not None  # noqa: S101, PT018 - a submit has both
        await work.journal.move(
            entry.row,
            State.SUBMITTING,
            price=entry.price,
            model=entry.job.model_id,
            inputs=request.body.decode(),
            sent_at=work.server_now(),
        )

    async def accepted(self, prediction: Prediction) -> None:
        """The id, before anything else."""
        await self._work.journal.move(
            self._entry.row, State.SUBMITTED, holds=prediction.id, prediction_id=prediction.id
        )

    def failed(self, error: BaseException) -> None:
        """Nothing to write: the step that sent it is told by the error itself."""


def _as_columns(error: WaveSpeedError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        # It may name a file whose name is no UTF-8, which SQLite would not take.
        "error": error.message.encode("utf-8", "replace").decode(),
        "billed": error.billed,
        "transient": int(error.transient),
    }


def _of_own_disk(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _OWN_DISK
