"""The coordinator and the workers as Ray's actors, and whoever starts them again."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import pickle
import time
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wavespeed_qwen_async.errors import ConfigurationError, WaveSpeedError

from .coordinator import Coordinator
from .worker import LinkError, Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .coordinator import Plan
    from .orders import Done, Handful

__all__ = ["Team"]

_logger = logging.getLogger(__name__)

_NAMESPACE = "wavespeed"
_AT_ONCE = 2000  # calls that the coordinator has open: one of each worker, most of them held back
_AGAIN = 0.5  # seconds before an actor that is starting again is called again
_PATIENCE = 300.0  # seconds without a coordinator, after which the run is given up
_CLOSING = 15.0  # seconds
_GC_THRESHOLD = 20_000  # objects: thousands live at a time, and few are in cycles


class CoordinatorActor:
    """Ray makes it on its first start and after each death; all it knows is in its plan and in its journal."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._made: Coordinator | None = None

    async def call(self, method: str, arguments: bytes) -> bytes:
        """Call a method of the coordinator, which is made at the first call: then what is wrong can be told.

        Arguments and answer are pickled here, as Ray's own pickler takes several times as long for what is no plain
        value, and with some thousand calls a minute that is most of their cost.
        """
        if self._made is None:
            gc.freeze()  # modules: looked through at each collection else
            gc.set_threshold(_GC_THRESHOLD)
            self._made = Coordinator(self._plan)
        return pickle.dumps(await getattr(self._made, method)(*pickle.loads(arguments)))  # noqa: S301 - of our own actors

    async def usage(self) -> tuple[int, float]:
        """The process that it is in, and the seconds of CPU that this has taken."""
        return os.getpid(), time.process_time()


class WorkerActor:
    """A worker's process."""

    def __init__(self, place: str, coordinator: str, options: Mapping[str, Any]) -> None:
        self._make = functools.partial(Worker, place, _RayLink(coordinator), **options)
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Work until the run is over; whoever calls again, after a break in the network, joins in waiting."""
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._make().run())
        await asyncio.shield(self._running)

    async def usage(self) -> tuple[int, float]:
        """The process that it is in, and the seconds of CPU that this has taken."""
        return os.getpid(), time.process_time()


class _RayLink:
    """To a coordinator's actor, which Ray starts again where it died."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._actor: Any = None

    @property
    def _coordinator(self) -> Any:
        if self._actor is None:
            self._actor = ray.get_actor(self._name, _NAMESPACE)
        return self._actor

    async def hello(self, place: str, name: str) -> str:
        return str(await self._call("hello", place, name))

    async def take(self, name: str, received: int, room: int, done: list[Done]) -> Handful | None:
        handful: Handful | None = await self._call("take", name, received, room, done)
        return handful

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await _called(self._coordinator, method, *arguments)
        except RayActorError as error:
            raise LinkError(str(error)) from error


async def _called(coordinator: Any, method: str, *arguments: Any) -> Any:
    return pickle.loads(await coordinator.call.remote(method, pickle.dumps(arguments)))  # noqa: S301 - of our own actors


class Team:
    """A coordinator and its workers, as long as the driver needs them.

    Args:
        plan: What is to be run.
        name: The coordinator's name in the cluster: one run at a time has it.
        workers: How many.
        worker: Options of ``Worker``.
        coordinator_options: Options of Ray's for the coordinator's actor.
        worker_options: The same for workers.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        name: str,
        workers: int,
        worker: Mapping[str, Any],
        coordinator_options: Mapping[str, Any],
        worker_options: Mapping[str, Any],
    ) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        defaults = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": _AT_ONCE, "scheduling_strategy": here}
        actor = ray.remote(CoordinatorActor)
        try:
            self.coordinator: Any = actor.options(
                **{**defaults, **coordinator_options}, name=name, namespace=_NAMESPACE
            ).remote(plan)
        except ValueError as error:
            raise ConfigurationError(
                f"a run called {name!r} is at work in this cluster: let it end, or give this one another name="
            ) from error
        each = {"num_cpus": 1, "max_restarts": -1, "scheduling_strategy": "SPREAD", **worker_options}
        self.workers: dict[str, Any] = {
            place: ray.remote(WorkerActor).options(**each).remote(place, name, dict(worker))
            for place in (f"worker-{number}" for number in range(workers))
        }

    async def call(self, method: str, *arguments: Any) -> Any:
        """Ask the coordinator; where it died, as soon as Ray has started it again.

        Raises:
            WaveSpeedError: it can't be started, or did not come back.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        while True:
            try:
                return await _called(self.coordinator, method, *arguments)
            except RayTaskError as error:
                raise error.cause if isinstance(error.cause, WaveSpeedError) else error from None
            except RayActorError as error:
                if loop.time() > until:
                    raise WaveSpeedError(f"the coordinator did not come back: {error}") from error
                _logger.warning("the coordinator is gone; waiting for Ray to start it again")
            await asyncio.sleep(_AGAIN)

    async def watch(self, place: str) -> None:
        """Keep a worker at work until the run is over.

        Raises:
            WaveSpeedError: it can't work, nor could another in its place.
        """
        while True:
            try:
                await self.workers[place].run.remote()
            except RayTaskError as error:
                raise error.cause if isinstance(error.cause, WaveSpeedError) else error from None
            except ActorUnavailableError:  # a break in the network: it goes on working
                await asyncio.sleep(_AGAIN)
            except RayActorError:
                _logger.warning("%s is gone; Ray starts it again where there is room", place)
                await self.call("bury", place)
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def close(self) -> None:
        """End the coordinator in order, and everybody's process."""
        try:
            async with asyncio.timeout(_CLOSING):
                await _called(self.coordinator, "close")
        except (RayError, TimeoutError):
            _logger.debug("the coordinator was not there to be closed", exc_info=True)
        for actor in (*self.workers.values(), self.coordinator):
            ray.kill(actor, no_restart=True)
