"""Rows with jobs in, rows with images out: what ``Generate`` does, in an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._stream import FATAL
from wavespeed_qwen_async.bulk._budget import Prices
from wavespeed_qwen_async.errors import PredictionFailed, WaveSpeedError
from wavespeed_qwen_async.models import as_job
from wavespeed_qwen_async.names import file_name
from wavespeed_qwen_async.provenance import Provenance

from .orders import SaveOrder
from .rows import job_in

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from wavespeed_qwen_async.models import Job
    from wavespeed_qwen_async.predictions import Prediction
    from wavespeed_qwen_async.session import QwenImageSession

    from .landing import Landing

__all__ = ["Home", "Maker"]

_SUFFIXES = {"jpeg": "jpg", "png": "png", "webp": "webp"}


class Home:
    """An event loop in a thread of its own.

    Ray Data's loop stands still while what comes after a step is slow; a session there would miss the answers to
    submits that are paid.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wavespeed-generate", daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Have it run there, from any other loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._loop.is_closed()

    def close(self) -> None:
        """End the thread; nothing may run there any more."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Maker:
    """Makes the images of rows with an open session.

    Args:
        session: The session.
        landing: Where images go; None: into the rows.
    """

    def __init__(self, session: QwenImageSession, landing: Landing | None) -> None:
        self._session = session
        self._landing = landing
        self._prices = Prices(session)
        self._asking = asyncio.Lock()

    async def all(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each row with what became of its job.

        Raises:
            WaveSpeedError: one after which no job can succeed: a wrong key, no credits, endless refusals.
        """
        tasks = [asyncio.ensure_future(self._one(row)) for row in rows]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _one(self, row: Mapping[str, Any]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        began, price = loop.time(), 0.0
        column = "bytes" if self._landing is None else "file"
        taken: bytes | str | None = None
        job: Job | None = None
        prediction: Prediction | None = None
        error: WaveSpeedError | None = None
        try:
            job = self._session._engine.drawn(as_job(job_in(row)))  # noqa: SLF001 - of this house
            async with self._asking:  # once for each kind of job, not once for each that waits for it
                price = (await self._prices.of(job)).amount
            prediction = await self._session.run(job)
            taken = await self._taken(prediction, job, price)
        except FATAL:
            raise
        except WaveSpeedError as failure:
            error = failure
            if error.billed == "no" or isinstance(error, PredictionFailed):
                price = 0.0
        seconds = round(loop.time() - began, 3)
        return {**row, column: taken, **_told(job, prediction, error), "price": price, "seconds": seconds}

    async def _taken(self, prediction: Prediction, job: Job, price: float) -> bytes | str:
        output = prediction.outputs[0]
        if self._landing is None:
            return await self._session.read_output(output)
        name = file_name(prediction.id, f".{_SUFFIXES[job.output_format or 'jpeg']}")
        provenance = Provenance.of(prediction, output=output.index, price=price)
        await self._landing.save(self._session._media, SaveOrder(output, name, provenance))  # noqa: SLF001
        return name


def _told(job: Job | None, prediction: Prediction | None, error: WaveSpeedError | None) -> dict[str, Any]:
    prediction_id = None if error is None else error.prediction_id
    return {
        "outcome": "made" if error is None else "failed",
        "billed": "yes" if error is None else error.billed,
        "error": None if error is None else f"{type(error).__name__}: {error.message}",
        "prediction_id": prediction_id if prediction is None else prediction.id,
        "seed": None if job is None else job.seed,
        "inference_ms": None if prediction is None else prediction.timings.get("inference"),
    }
