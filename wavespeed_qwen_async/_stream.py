"""Many jobs at once: pulled lazily, a bounded number between source and consumer, each with exactly one outcome."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ._api import CUT_OFF
from ._tasks import Tasks
from .errors import (
    AuthenticationError,
    InsufficientCreditsError,
    LimitsBrokenError,
    NotSentError,
    PermissionDeniedError,
    SessionClosedError,
    WaveSpeedError,
)
from .predictions import Outcome, Prediction

if TYPE_CHECKING:
    from .models import Job
    from .observer import Observed

__all__ = ["FATAL", "Flight", "Flow", "Landing"]

_logger = logging.getLogger(__name__)

# After one of these every further submit would end the same way: the stream takes no more from its source.
FATAL = (AuthenticationError, InsufficientCreditsError, PermissionDeniedError, LimitsBrokenError, SessionClosedError)

_YIELD_EVERY = 32  # inputs that a source may give in one go before the rest of the loop gets its turn

# Jobs that may stand by until theirs is the next submit to leave: more than ever leave at once. Each is a task, with a
# frame for each call that it is in; ten thousand of them at a steep start are 20 MB, which Python never gives back.
_STANDING_BY = 256


class Cancellable(Protocol):
    """Something under way that can be given up: a watch on a prediction."""

    def cancel(self) -> None:
        """Give it up; nothing is told afterwards."""


class Flight:
    """One job between source and consumer. It lands once, with a prediction or with an error."""

    __slots__ = (
        "_flow",
        "_stands_by",
        "began",
        "index",
        "job",
        "landed",
        "observed",
        "prediction_id",
        "slot",
        "source",
        "watch",
    )

    def __init__(self, flow: Flow, index: int, source: Any, began: float) -> None:
        self._flow = flow
        self.index = index
        self.source = source
        self.began = began
        self.job: Job | None = None
        self.prediction_id: str | None = None
        self.watch: Cancellable | None = None
        self.slot: Any = None
        self.observed: Observed | None = None
        self.landed = False
        self._stands_by = True

    def leave(self) -> None:
        """Tell that it no longer waits for its turn to be sent; more than once where that is simpler."""
        if self._stands_by:
            self._stands_by = False
            self._flow.left()

    def land(self, end: Prediction | WaveSpeedError) -> None:
        """Tell how it ended, give back its slot, hand the outcome to the consumer."""
        if self.landed:
            return
        self.landed = True
        self.release()
        if self.observed is not None:
            self.observed.end(end)
        self._flow.landed(self, end)

    def release(self) -> None:
        """Give back the account's slot, where one is held."""
        slot, self.slot = self.slot, None
        if slot is not None:
            slot.release()


class Lander(Protocol):
    """Who knows what the end of a flight's prediction means."""

    def landed(self, flight: Flight, end: Prediction | WaveSpeedError) -> None:
        """Called once, with the finished prediction or an error."""


class Landing:
    """What a flight's watch calls. Thousands wait at once, and a closure would be seven times as large."""

    __slots__ = ("_flight", "_lander")

    def __init__(self, lander: Lander, flight: Flight) -> None:
        self._lander = lander
        self._flight = flight

    def __call__(self, end: Prediction | WaveSpeedError) -> None:
        self._lander.landed(self._flight, end)


class Flow:
    """Pulls from ``source`` when there is room, launches each job, and yields outcomes as they land.

    Room is counted in ``window``: from before a job is pulled until the consumer comes back for the next outcome, so
    that a slow consumer slows the submits. The account's own slots are the limits' business and are given back when a
    prediction has ended: a consumer that submits more from inside its loop must not wait for itself.

    Within the window, no more are pulled than can be sent soon, so that a job without a turn costs nothing.

    Left early, it cancels what is in flight, but for submits under way: these are left to ``exchanges``.
    """

    def __init__(
        self,
        source: Iterable[Any] | AsyncIterable[Any],
        launch: Callable[[Flight], Awaitable[None]],
        *,
        window: int,
        ordered: bool,
        exchanges: Tasks,
    ) -> None:
        self._pulled = _Pulled(source)
        self._launch = launch
        self._ordered = ordered
        self._exchanges = exchanges
        self._room = window
        self._standing_by = 0
        self._wanted = asyncio.Event()
        self._flights: dict[int, Flight] = {}
        self._ready: deque[Outcome] = deque()
        self._held: dict[int, Outcome] = {}
        self._next = 0
        self._drained = False
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()
        self._tasks = Tasks()
        self._spared: set[asyncio.Task[Any]] = set()

    async def outcomes(self) -> AsyncGenerator[Outcome, None]:
        """The outcomes; at its end, what the source or a fatal error raised."""
        self._tasks.start(self._feed(), "wavespeed stream source")
        try:
            while True:
                while self._ready:
                    yield self._ready.popleft()
                    self._room += 1
                    self._wanted.set()
                if self._drained and not self._flights and not self._ready:
                    break
                self._changed.clear()
                await self._changed.wait()
        finally:
            await self._close()
        if self._failure is not None:
            raise self._failure

    async def settle(self, grace: float) -> None:
        """Once left: give its own submits under way ``grace`` seconds to tell their ids; those of others go on."""
        if self._spared:
            await asyncio.wait(self._spared, timeout=grace)

    def landed(self, flight: Flight, end: Prediction | WaveSpeedError) -> None:
        """Take a flight that has ended; called by the flight itself, once."""
        del self._flights[flight.index]
        if isinstance(end, FATAL):
            self._stop_after(end)
        outcome = Outcome(
            index=flight.index,
            source=flight.source,
            job=flight.job,
            prediction=None if isinstance(end, WaveSpeedError) else end,
            error=end if isinstance(end, WaveSpeedError) else None,
            seconds=asyncio.get_running_loop().time() - flight.began,
        )
        self._deliver(outcome)

    def left(self) -> None:
        """Let another take the place of one that stood by."""
        self._standing_by -= 1
        self._wanted.set()

    def _deliver(self, outcome: Outcome) -> None:
        if not self._ordered:
            self._ready.append(outcome)
        else:
            self._held[outcome.index] = outcome
            while self._next in self._held:
                self._ready.append(self._held.pop(self._next))
                self._next += 1
        self._changed.set()

    async def _feed(self) -> None:
        try:
            await self._pull_all()
        except BaseException as error:
            # The source is the user's: what it raises, a CancelledError too, is raised to its consumer.
            self._failure = self._failure or error
            if not isinstance(error, Exception):
                raise
        finally:
            self._drained = True
            self._changed.set()
            await self._pulled.close()

    async def _pull_all(self) -> None:
        loop = asyncio.get_running_loop()
        index = 0
        while True:
            while (self._room < 1 or self._standing_by >= _STANDING_BY) and not self._drained:
                self._wanted.clear()
                await self._wanted.wait()
            if self._drained:
                return
            self._room -= 1
            try:
                item = self._pulled.at_once() if self._pulled.sync else await self._pulled.later()
            except (StopIteration, StopAsyncIteration):
                return
            flight = self._flights[index] = Flight(self, index, item, loop.time())
            if self._drained:  # a fatal error came while the source was thinking
                flight.land(NotSentError("not sent: the stream was ended by an earlier error"))
                return
            self._standing_by += 1
            self._tasks.start(self._run(flight), "wavespeed stream job")
            index += 1
            if index % _YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def _run(self, flight: Flight) -> None:
        try:
            await self._launch(flight)
        except WaveSpeedError as error:
            flight.land(error)
        except asyncio.CancelledError:  # where the stream was left this does nothing; else its session was closed
            flight.land(SessionClosedError(CUT_OFF, job=flight.job, billed="unknown"))
            raise
        except Exception as error:  # noqa: BLE001 - a defect must end the stream loudly, not hang it
            self._failure = self._failure or error
            flight.land(WaveSpeedError(f"unexpected {type(error).__name__}", job=flight.job, billed="unknown"))
            self._stop_after(error)
        finally:
            flight.leave()

    def _stop_after(self, error: BaseException) -> None:
        """Take nothing more from the source; what is in flight is delivered first, then ``error`` is raised."""
        self._failure = self._failure or error
        self._drained = True
        self._wanted.set()  # a feeder that waits for room sees that it is over

    async def _close(self) -> None:
        """Leave nothing behind: no task, no watch, no slot."""
        left = list(self._flights.values())
        self._flights.clear()
        for flight in left:
            flight.landed = True
            if flight.watch is not None:
                flight.watch.cancel()
            flight.release()
            if flight.observed is not None:
                flight.observed.end(asyncio.CancelledError("the stream was left"))
        untold = [*self._ready, *self._held.values()]  # ended, and nobody came to take the outcome
        ids = [flight.prediction_id for flight in left if flight.prediction_id is not None]
        ids += [outcome.prediction.id for outcome in untold if outcome.prediction is not None]
        if ids:
            _logger.warning(
                "the stream was left with %d paid predictions not taken: session.result(id) gets their images",
                len(ids),
                extra={"prediction_ids": ids},
            )
        self._spared = await self._tasks.close(sparing=self._exchanges)


class _Pulled:
    """One way to pull from an iterable and from an async iterable."""

    def __init__(self, source: Iterable[Any] | AsyncIterable[Any]) -> None:
        if isinstance(source, AsyncIterable):
            self._async: AsyncIterator[Any] | None = aiter(source)
        else:
            self._async = None
            self._sync: Iterator[Any] = iter(source)

    @property
    def sync(self) -> bool:
        return self._async is None

    def at_once(self) -> Any:
        return next(self._sync)

    async def later(self) -> Any:
        assert self._async is not None  # noqa: S101 - see `sync`
        return await anext(self._async)

    async def close(self) -> None:
        """Close a generator, so that its ``finally`` runs now and not at some later collection."""
        try:
            if self._async is None:
                if hasattr(self._sync, "close"):
                    self._sync.close()
            elif hasattr(self._async, "aclose"):
                await self._async.aclose()
        except Exception:
            _logger.exception("closing the source of a stream failed")
