"""The way of one job: slot, upload, submit, wait, outcome. The session is the face of this; durable runs use it too."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from . import _answers, _wire
from ._completion import Keeper
from ._reconcile import Reconciler
from ._stream import Landing
from .errors import ContentFlaggedError, NotSentError, SessionClosedError, SubmissionUnknown, WaveSpeedError
from .models import as_job
from .observer import Observed
from .predictions import Prediction

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine, Mapping
    from typing import Any

    from ._api import Api, Witness
    from ._options import WaitMode
    from ._reconcile import Sending
    from ._stream import Flight
    from ._tasks import Tasks
    from .limits import Slot
    from .media import Media
    from .models import Job
    from .observer import Observer
    from .predictions import Fetcher
    from .webhooks import WebhookReceiver

__all__ = ["Engine"]

_logger = logging.getLogger(__name__)

_SECRET_AGAIN = 60.0  # seconds until the webhooks' secret is asked for again where it could not be read
_REMEMBERED = 1000  # ends of predictions submitted by themselves, kept for a `result` that is asked for later


class Engine:
    """What happens to jobs, from the slot they need to the prediction they become."""

    def __init__(
        self,
        api: Api,
        media: Media,
        tasks: Tasks,
        *,
        fetcher: Fetcher,
        wait: WaitMode,
        webhooks: WebhookReceiver | None,
        rng: random.Random,
        reconcile: bool = True,
        observer: Observer | None = None,
    ) -> None:
        self.api = api
        self.media = media
        self.reconciler = Reconciler(api, tasks)
        self._reconcile = reconcile
        self._observer = observer
        self.keeper = Keeper(
            api,
            tasks,
            timeout=api.transport.timeout.job,
            rng=rng,
            lists=wait != "poll",
            pushed=webhooks is not None,
        )
        self._fetcher = fetcher
        self._wait = wait
        self._webhooks = webhooks
        self._rng = rng
        self._slots: dict[str, Slot] = {}
        self._ends: OrderedDict[str, Prediction] = OrderedDict()
        self._secret = asyncio.Lock()
        self._no_secret_before = -math.inf
        self._loop: asyncio.AbstractEventLoop | None = None  # while open

    async def open(self) -> None:
        """Begin."""
        await self.api.transport.open()
        self._loop = asyncio.get_running_loop()
        if self._webhooks is not None:
            self._webhooks.attach(self.keeper.push)

    async def close(self, grace: float) -> None:
        """End: submits under way get ``grace`` seconds to tell the ids of what they paid; then nothing is left."""
        self._loop = None
        if self._webhooks is not None:
            self._webhooks.detach(self.keeper.push)
        try:
            await self.api.exchanges.close(grace)
            await self.keeper.close()
            await self.media.close()
        finally:
            for slot in self._slots.values():
                slot.release()
            self._slots.clear()
            await self.api.transport.close()

    def check_open(self) -> None:
        """Raise SessionClosedError where it is not, or on another event loop, where its sockets and timers are."""
        if self._loop is None:
            raise SessionClosedError("the session is not open: use it inside 'async with QwenImageSession(...)'")
        if self._loop is not asyncio.get_running_loop():
            raise SessionClosedError(
                "the session was opened on another event loop: open one on this loop, or keep one asyncio.run() for all"
            )

    def drawn(self, job: Job | Mapping[str, Any]) -> Job:
        """The job as it will be sent: its seed concrete, and held by the server where the session waits that way."""
        job = as_job(job).seeded(self._rng)
        if self._wait == "sync" and job.enable_sync_mode is None:
            return job.changed(enable_sync_mode=True)
        return job

    def observe(self, job: Job | None, prediction_id: str | None = None) -> Observed | None:
        """Tell the session's observer of a job; None where there is none."""
        return None if self._observer is None else Observed.begin(self._observer, job, prediction_id)

    def slot(self) -> Coroutine[Any, Any, Slot]:
        """A place among the account's predictions at once, to be awaited."""
        self.check_open()
        return self.api.limits.acquire()

    async def run(self, job: Job | Mapping[str, Any], timeout: float | None) -> Prediction:
        """Submit and await."""
        job = self.drawn(job)
        observed = self.observe(job)
        try:
            slot = await self.slot()
            try:
                prediction = await self.submit(job, observed)
                end = await self.result(prediction, timeout, job)
            finally:
                slot.release()
        except BaseException as error:
            if observed is not None:
                observed.end(error)
            raise
        if observed is not None:
            observed.end(end)
        return end

    async def submit(self, job: Job, witness: Witness | None = None, *, flight: Flight | None = None) -> Prediction:
        """Upload what must be uploaded, then submit until there is an id. The caller holds a slot; the job is drawn.

        After a lost answer it is sent again only if it is shown that the submit never arrived.
        ``flight``: it is that of a flow, whose task is spared while it sends, and which is told when it leaves.
        """
        try:
            sources = [await self.media.url_for(source) for source in job.sources] if job.sources else ()
        except WaveSpeedError as error:
            error.job = job
            raise
        webhook = None if self._webhooks is None else await self._webhook_of(self._webhooks)
        request = _wire.submit_request(job, sources, webhook=webhook)
        timeout = self.api.transport.timeout.sync if job.enable_sync_mode else None
        leaving = None if flight is None else flight.leave
        began: float | None = None
        while True:
            sending = self.reconciler.watch(request, job.model_id)
            try:
                prediction: Prediction | None = await self.api.submit(
                    request,
                    job,
                    trace=sending,
                    witness=witness,
                    read_timeout=timeout,
                    spared=flight is not None,
                    leaving=leaving,
                )
            except SubmissionUnknown as error:
                if not self._reconcile:
                    raise
                prediction = await self._found(sending, error)
                if prediction is not None and witness is not None:
                    await self.api.write_down(prediction, job, witness, sending)
            if prediction is not None:
                return prediction.bound(job, self._fetcher)
            began = sending.started if began is None else began
            if began is not None and _now() - began > self.api.retry.submit_budget:
                raise NotSentError("given up: each submit was lost, and is shown never to have arrived", job=job)

    async def _webhook_of(self, receiver: WebhookReceiver) -> str | None:
        """Where the server shall push to; the account's secret is asked for where the receiver was given none."""
        async with self._secret:  # all others wait for the first: each submit would ask for itself
            if receiver.needs_secret:
                if _now() < self._no_secret_before:
                    return None
                try:
                    receiver.add_secret(
                        await self.api.ask(_wire.webhook_secret_request(), _answers.read_webhook_secret, again=False)
                    )
                except WaveSpeedError as error:
                    self._no_secret_before = _now() + _SECRET_AGAIN
                    _logger.warning("no webhooks for now, the account's secret can't be read (%s)", error)
                    return None
        return receiver.url

    async def _found(self, sending: Sending, error: SubmissionUnknown) -> Prediction | None:
        """The prediction of a submit whose answer was lost, None where it certainly made none."""
        try:
            return await self.reconciler.find(sending)
        except SubmissionUnknown as unknown:
            error.args = (f"{error.message}; {unknown.message}",)
            raise error from unknown
        except asyncio.CancelledError:
            _logger.warning("a lost submit was being looked for and its caller was cancelled: %s", error)
            raise

    async def submit_and_hold(self, job: Job | Mapping[str, Any]) -> Prediction:
        """Submit; the slot is held until the prediction has ended, whether or not anybody awaits it."""
        job = self.drawn(job)
        observed = self.observe(job)
        slot: Slot | None = None
        try:
            slot = await self.slot()
            prediction = await self.submit(job, observed)
        except BaseException as error:
            if slot is not None:
                slot.release()
            if observed is not None:
                observed.end(error)
            raise
        if not prediction.settled:
            self._hold(prediction, job, slot, observed)
            return prediction
        slot.release()
        if observed is not None:
            observed.end(self.ended(prediction, job))
        return prediction

    async def result(self, prediction: Prediction | str, timeout: float | None, job: Job | None) -> Prediction:
        """Await a prediction. Cancelled, the id is logged: it is paid."""
        prediction_id = prediction if isinstance(prediction, str) else prediction.id
        end: Prediction | WaveSpeedError | None = self._ends.get(prediction_id)
        if end is None and isinstance(prediction, Prediction) and prediction.settled:
            end = prediction
        if end is None:
            try:
                end = await self.keeper.wait(prediction, timeout=timeout, single=_only_single(job))
            except WaveSpeedError as error:
                end = error
            except asyncio.CancelledError:
                _logger.warning(
                    "prediction %s is paid and its caller was cancelled: session.result(id) gets its image",
                    prediction_id,
                    extra={"prediction_id": prediction_id},
                )
                raise
        end = self.ended(end, job)
        if isinstance(end, WaveSpeedError):
            raise end
        return end

    async def launch(self, flight: Flight, *, timeout: float | None) -> None:
        """Take a job of a stream as far as its wait; from there on the keeper holds it, without a task."""
        job = flight.job = self.drawn(flight.source)
        flight.observed = self.observe(job)
        flight.slot = await self.slot()
        prediction = await self.submit(job, flight.observed, flight=flight)
        flight.prediction_id = prediction.id
        if prediction.settled:
            self.landed(flight, prediction)
        else:
            landing = Landing(self, flight)
            flight.watch = self.keeper.watch(prediction, landing, timeout=timeout, single=_only_single(job))

    def landed(self, flight: Flight, end: Prediction | WaveSpeedError) -> None:
        """As in ``Lander``."""
        flight.land(self.ended(end, flight.job))

    def ended(self, end: Prediction | WaveSpeedError, job: Job | None) -> Prediction | WaveSpeedError:
        """What the end of a prediction means to whoever wanted an image."""
        if isinstance(end, WaveSpeedError):
            end.job = end.job or job
            return end
        prediction = end.bound(job, self._fetcher)
        try:
            for output in prediction.outputs if any(prediction.has_nsfw_contents) else ():
                self.media.check(output)
        except ContentFlaggedError as flagged:
            flagged.job = job
            return flagged
        return _answers.failure_of(prediction) or prediction

    def _hold(self, prediction: Prediction, job: Job, slot: Slot, observed: Observed | None) -> None:
        self._slots[prediction.id] = slot

        def ended(end: Prediction | WaveSpeedError) -> None:
            self._slots.pop(prediction.id).release()
            if isinstance(end, Prediction):  # an error is no end: the prediction may go on, and is asked for again
                self._ends[prediction.id] = end
                if len(self._ends) > _REMEMBERED:
                    self._ends.popitem(last=False)
            if observed is not None:
                observed.end(self.ended(end, job))

        self.keeper.watch(prediction, ended, single=_only_single(job))


def _only_single(job: Job | None) -> bool:
    """The list of predictions is not known to carry images as base64."""
    return bool(job is not None and job.enable_base64_output)


def _now() -> float:
    return asyncio.get_running_loop().time()
