"""On a Ray cluster: a durable run over many machines under one account's limits, and images in Ray Data's pipelines.

Needs the extra ``[ray]``. :class:`RayBatch` is a `Batch` whose submits and saves are done by workers anywhere in the
cluster. :class:`Generate` is a step of a Ray Data pipeline. docs/ray.md tells when to take which, and when neither.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._tasks import Tasks
from wavespeed_qwen_async.errors import ConfigurationError
from wavespeed_qwen_async.limits import Limits
from wavespeed_qwen_async.session import QwenImageSession

from ._ray.coordinator import Plan
from ._ray.generating import Home, Maker
from ._ray.landing import Landing, is_remote
from ._ray.rows import unpacked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from wavespeed_qwen_async.bulk import BatchProgress, BatchSummary
    from wavespeed_qwen_async.limits import Limiter
    from wavespeed_qwen_async.models import Job

    from ._ray.actors import Team

__all__ = ["Generate", "RayBatch"]

_OF_THE_COORDINATOR = frozenset(
    {"tier", "limits", "max_per_minute", "max_in_flight", "retry", "wait", "on_unknown", "rng"}
)
MANIFEST_NAME = "manifest.parquet"


class Generate:
    """A step of a Ray Data pipeline: rows with a job's columns in, the same rows with their images out.

        rows = ray.data.read_json("prompts.jsonl").map_batches(
            Generate,
            fn_constructor_kwargs={"session": {"tier": "silver"}, "workers": 2},
            compute=ray.data.ActorPoolStrategy(size=2, max_concurrent_calls_per_actor=16),
            batch_size=16,
        )

    The columns of `TextToImage` and `Edit` (``prompt``, ``size``, ``loras``, ``seed``, ``image``, ...) are the job, all
    others are passed on. Added are ``bytes`` or, with ``out``, ``file``; ``outcome`` (``"made"`` or ``"failed"``),
    ``billed`` (``"no"``, ``"yes"``, ``"unknown"``), ``error``, ``prediction_id``, ``seed`` as it was drawn, ``price``
    in USD, ``seconds`` in all and ``inference_ms``. Each actor has one session, in an event loop of its own. An error
    after which no job can succeed, such as a wrong key, is raised.

    Ray Data runs the batches of an actor or node that it lost again, and these images are then paid again. Where that
    matters run a :class:`RayBatch` and go on from its manifest.

    Args:
        out: Folder or URL of fsspec's to put images into; None: into the column ``bytes``.
        storage: Options of fsspec's for ``out``.
        session: Options of `QwenImageSession`. Leave the key to the environment (``WAVESPEED_API_KEY``).
        workers: Among how many actors the account's limits are shared, in equal parts: the pool's size.
        limits: Makes limits instead, such as a `RedisLimits` that all actors share; then ``workers`` is not needed.

    Raises:
        ConfigurationError: an option is out of range.
    """

    def __init__(
        self,
        *,
        out: str | os.PathLike[str] | None = None,
        storage: Mapping[str, Any] | None = None,
        session: Mapping[str, Any] | None = None,
        workers: int = 1,
        limits: Callable[[], Limiter] | None = None,
    ) -> None:
        options = dict(session or {})
        options["limits"] = limits() if limits is not None else _share_of(options, workers)
        self._session = QwenImageSession(**options)
        self._maker = Maker(self._session, None if out is None else Landing(os.fspath(out), storage or {}))
        self._home = Home()
        self._opening: asyncio.Task[Any] | None = None
        atexit.register(self.close)  # Ray tells a step of nothing when its actor ends

    async def __call__(self, batch: Any) -> Any:
        """A batch with its images: of the kind that was given."""
        rows, packed = unpacked(batch)
        return packed(await self._home.run(self._all(rows)))

    def close(self) -> None:
        """End the session, where the process does not end with the pipeline as an actor's does. Blocks."""
        atexit.unregister(self.close)
        if not self._home.closed:
            asyncio.run(self._home.run(self._session.close()))
            self._home.close()

    async def _all(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._session.__aenter__())
        await asyncio.shield(self._opening)
        return await self._maker.all(rows)


def _share_of(options: dict[str, Any], workers: int) -> Limits | Limiter:
    """One worker's part of the account's limits, taken out of a session's options."""
    if workers < 1:
        raise ConfigurationError(f"workers = {workers!r}: give 1 or more")
    given: Limits | Limiter | None = options.pop("limits", None)
    names = ("tier", "max_per_minute", "max_in_flight")
    tier, per_minute, in_flight = (options.pop(name, None) for name in names)
    whole = given or Limits.for_tier(tier, max_per_minute=per_minute, max_in_flight=in_flight)
    if workers == 1:
        return whole
    if given is not None:
        raise ConfigurationError("limits: with workers= give the session tier= or max_per_minute= and max_in_flight=")
    if min(whole.max_per_minute, whole.max_in_flight) < workers:
        raise ConfigurationError(f"workers = {workers!r}: the account allows too little for so many")
    return Limits(max_per_minute=whole.max_per_minute // workers, max_in_flight=whole.max_in_flight // workers)


class RayBatch:
    """A durable run over a Ray cluster: each image once, in a shared folder or any place that fsspec reaches.

    One actor, the coordinator, reads the source, keeps the journal and the account's limits, and asks for results;
    workers send the submits and save the images. Whatever is killed, the run goes on, and nothing is paid twice:
    killed workers' submits are looked for in the account's list, a killed coordinator goes on from its journal, and a
    run whose driver was killed is resumed by starting it again. Ray must run: call ``ray.init()`` first.

        batch = RayBatch("prompts.jsonl", "s3://bucket/images", journal="/var/lib/batch", workers=8,
                         session={"tier": "gold"})
        async with contextlib.aclosing(batch.run()) as rows:
            async for row in rows:
                print(row["index"], row["status"], row.get("file"))

    Args:
        source: A file of jobs as `Batch` takes it, readable where the coordinator runs; or a list of jobs or mappings.
        out: A folder that all workers share, or a URL of fsspec's (``s3://``, ``gs://``, ...).
        journal: Folder of the journal, on the coordinator's own disk; default: ``out``, where that is a folder.
        workers: How many worker actors. Ray's autoscaler brings the machines for them.
        session: Options of `QwenImageSession`: ``tier``, ``limits``, ``nsfw``, ... Leave the key to the environment of
            the nodes (``WAVESPEED_API_KEY``): what is given here passes through Ray's own store.
        storage: Options of fsspec's for ``out``.
        manifest: Write ``manifest.parquet`` beside the images at the end.
        name: The coordinator's name in the cluster; runs of one account at the same time would share its limits
            without knowing of each other, so leave it as it is.
        lease: Seconds after which a worker that gives no sign of life is gone.
        at_once: Submits and downloads that one worker has open at most.
        coordinator_options: Options of Ray's for the coordinator's actor. By default it is on the driver's node, where
            its journal is.
        worker_options: Options of Ray's for the workers' actors.
        batch: Options of `Batch`: ``budget``, ``retry_failed``, ``names``, ``limit``, ...

    Raises:
        ConfigurationError: an option is out of range.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Sequence[Job | Mapping[str, Any]],
        out: str | os.PathLike[str],
        *,
        journal: str | os.PathLike[str] | None = None,
        workers: int = 2,
        session: Mapping[str, Any] | None = None,
        storage: Mapping[str, Any] | None = None,
        manifest: bool = True,
        name: str = "wavespeed-coordinator",
        lease: float = 20.0,
        at_once: int = 64,
        coordinator_options: Mapping[str, Any] | None = None,
        worker_options: Mapping[str, Any] | None = None,
        **batch: Any,
    ) -> None:
        self._out = os.fspath(out) if is_remote(os.fspath(out)) else str(Path(out).absolute())
        if journal is None and is_remote(self._out):
            raise ConfigurationError(f"out = {self._out!r}: give journal= too, a folder on the coordinator's own disk")
        if not isinstance(source, str | os.PathLike | list | tuple):
            raise ConfigurationError("source: give a file or a list: a coordinator that died must read it again")
        for option, value in (("workers", workers), ("at_once", at_once)):
            if value < 1:
                raise ConfigurationError(f"{option} = {value!r}: give 1 or more")
        session = dict(session or {})
        self._plan = Plan(
            source=str(Path(source).absolute()) if isinstance(source, str | os.PathLike) else source,
            folder=str(Path(self._out if journal is None else journal).absolute()),
            manifest=f"{self._out.rstrip('/')}/{MANIFEST_NAME}" if manifest else None,
            session=session,
            storage=storage or {},
            batch=batch,
            desk={"lease": lease},
        )
        self._workers = workers
        self._worker = {
            "out": self._out,
            "session": {key: value for key, value in session.items() if key not in _OF_THE_COORDINATOR},
            "storage": storage or {},
            "at_once": at_once,
        }
        self._name = name
        self._coordinator_options = dict(coordinator_options or {})
        self._worker_options = dict(worker_options or {})
        self._team: Team | None = None
        self._progress: BatchProgress | None = None
        self._summary: BatchSummary | None = None
        self._drained = False

    def __repr__(self) -> str:
        return f"<RayBatch {self._name} -> {self._out}>"

    async def run(self) -> AsyncGenerator[dict[str, Any], None]:
        """Run to the end; yields a row for each job as it ends: its line of ``results.jsonl``, see docs/durable.md.

        Rows come once each, whatever was killed meanwhile. A consumer that takes its time slows the submits. Jobs that
        did not come to an end (their image could not be fetched now, say) have no row: ``summary().open`` counts them,
        and running again goes on with them. Use ``contextlib.aclosing``.

        Raises:
            ConfigurationError: Ray is not running, another run has this name, or an option is out of range.
            WaveSpeedError: as `Batch.run`.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._team = team = await loop.run_in_executor(None, self._start)
        tasks, saved = Tasks(), 0
        try:
            offset = await team.call("begin")
            watches = [tasks.start(team.watch(place), "wavespeed ray watch") for place in team.workers]
            if self._drained:
                await team.call("drain")
            while True:
                results = await team.call("results", offset)
                offset, self._progress = results.offset, results.progress
                for line in results.lines.splitlines():
                    row = json.loads(line)
                    saved += row["status"] == "saved"
                    yield row
                if results.error is not None:
                    raise results.error
                for watch in watches:
                    if watch.done():
                        watch.result()
                if results.summary is not None:
                    break
            self._summary = _of_all_lives(results.summary, saved, loop.time() - began)
            await team.call("manifest")
        finally:
            self._team = None
            await tasks.close()
            await team.close()

    async def drain(self) -> None:
        """Send nothing more; what is paid is collected, then ``run`` ends by itself. The next run goes on."""
        self._drained = True
        if self._team is not None:
            await self._team.call("drain")

    def progress(self) -> BatchProgress | None:
        """How it stands, by the coordinator's last word; None before there was one."""
        return self._progress

    def summary(self) -> BatchSummary | None:
        """How it ended; None before its end."""
        return self._summary

    def _start(self) -> Team:
        try:
            import ray  # noqa: PLC0415 - an optional extra
        except ImportError:
            raise ConfigurationError("RayBatch needs Ray: pip install 'wavespeed-qwen-async[ray]'") from None
        if not ray.is_initialized():
            raise ConfigurationError("Ray is not running here: call ray.init() before")
        from ._ray.actors import Team  # noqa: PLC0415 - needs Ray

        return Team(
            self._plan,
            name=self._name,
            workers=self._workers,
            worker=self._worker,
            coordinator_options=self._coordinator_options,
            worker_options=self._worker_options,
        )


def _of_all_lives(summary: BatchSummary, saved: int, seconds: float) -> BatchSummary:
    """A coordinator that was started again takes what its earlier lives saved for files that were there before."""
    return dataclasses.replace(
        summary, saved=saved, skipped=summary.saved + summary.skipped - saved, seconds=round(seconds, 3)
    )
