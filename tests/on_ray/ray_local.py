"""A coordinator and workers in one process, without Ray: they call each other directly, on virtual time."""

from __future__ import annotations

import asyncio
import json

from wavespeed_qwen_async import Limits
from wavespeed_qwen_async.integrations._ray.coordinator import Coordinator, Plan
from wavespeed_qwen_async.integrations._ray.worker import LinkError, Worker


class Link:
    """What Ray is between a worker and its coordinator. ``cut``: nothing comes through."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.cut = False
        self.calls = 0

    async def _call(self, name, *arguments):
        if self.cut or self.cluster.coordinator is None:
            raise LinkError(name)
        self.calls += 1
        coordinator = self.cluster.coordinator
        answer = await getattr(coordinator, name)(*arguments)
        if self.cut or self.cluster.coordinator is not coordinator:
            raise LinkError(name)
        return answer

    async def hello(self, *arguments):
        return await self._call("hello", *arguments)

    async def take(self, *arguments):
        return await self._call("take", *arguments)


class Cluster:
    """A coordinator, workers, and who reads the results."""

    def __init__(self, emulator, tmp_path, **options):
        self.emulator = emulator
        self.out = tmp_path / "out"
        self.session = {"api_key": "k", "base_url": emulator.url}
        limits = options.pop("limits", None) or {"max_per_minute": 6000, "max_in_flight": 300}
        self._limits = limits
        self._options = options
        self.coordinator = None
        self.links = {}
        self.tasks = {}
        self.rows = []
        self.summary = None
        self._offset = None
        self._places = 0

    def start(self, jobs):
        """Begin, or begin again after ``kill``."""
        plan = Plan(
            source=jobs,
            folder=str(self.out),
            manifest=self._options.get("manifest"),
            session={**self.session, "limits": Limits(**self._limits)},
            batch=self._options.get("batch", {}),
            desk=self._options.get("desk", {}),
            unread=self._options.get("unread", 2000),
        )
        self.coordinator = Coordinator(plan)
        return self.coordinator

    async def kill(self):
        """End the coordinator, without an answer of any worker's reaching it any more."""
        coordinator, self.coordinator = self.coordinator, None
        for link in self.links.values():
            link.cut = True
        await coordinator.close()
        for link in self.links.values():
            link.cut = False

    def work(self, count=1, **options):
        """Start workers."""
        out = options.pop("out", str(self.out))
        for _ in range(count):
            place = f"w{self._places}"
            self._places += 1
            link = self.links[place] = Link(self)
            clock = asyncio.get_running_loop().time
            worker = Worker(place, link, out=out, session=self.session, **{"clock": clock} | options)
            self.tasks[place] = asyncio.create_task(worker.run(), name=place)

    async def stop(self, place):
        """End a worker's process: what it was doing ends in the middle."""
        task = self.tasks.pop(place)
        task.cancel()
        await asyncio.wait([task])

    async def read(self, most=None):
        """The results until the run's end, or until there are so many."""
        while most is None or len(self.rows) < most:
            coordinator = self.coordinator
            if coordinator is None:
                await asyncio.sleep(0.1)
                continue
            if self._offset is None:
                self._offset = await coordinator.begin()
            lines, self._offset, _, summary, error = await coordinator.results(self._offset)
            self.rows += [json.loads(line) for line in lines.splitlines()]
            if error is not None:
                raise error
            if summary is not None:
                self.summary = summary
                break
        return self.rows

    async def close(self):
        if self.coordinator is not None:
            await self.coordinator.close()
        for place in tuple(self.tasks):
            await self.stop(place)


def jobs_of(count):
    return [{"prompt": f"number {number}"} for number in range(count)]
