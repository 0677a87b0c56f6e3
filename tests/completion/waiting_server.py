"""A server without sockets: what a test says happens to predictions, told as the API tells it, in bytes.

It stands where `Api` stands for the keeper: `ask(request, read)` gets an answer of raw bytes and reads it. The same is
done over real HTTP, with the emulator on the other side, in `test_completion_emulated.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async._answers import Answer
from wavespeed_qwen_async._completion.keeper import Keeper
from wavespeed_qwen_async._tasks import Tasks
from wavespeed_qwen_async.predictions import Prediction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from wavespeed_qwen_async._wire import Request

MODEL = "wavespeed-ai/qwen-image/edit-lora"
EPOCH = datetime(2031, 5, 17, 12, tzinfo=UTC)  # far from this machine's own clock


def now() -> float:
    return asyncio.get_running_loop().time()


def iso(at: float) -> str:
    return (EPOCH + timedelta(seconds=at)).isoformat(timespec="microseconds").replace("+00:00", "123Z")


def loop_time(text: str) -> float:
    return (datetime.fromisoformat(text) - EPOCH).total_seconds()


def answer(data: Any, status: int = 200, **headers: str) -> Answer:
    body = {"code": status, "message": "success" if status == 200 else "no", "data": data}
    return Answer(status, headers, json.dumps(body).encode())


class Task:
    """One prediction: what it is at any time."""

    def __init__(self, name: str, created: float, takes: float, **item: Any) -> None:
        self.name, self.created, self.ends = name, created, created + takes
        self.ending = {
            "status": "completed",
            "outputs": [f"https://cdn/{name}.jpeg"],
            "timings": {"inference": 1000 * takes},
            **item,
        }

    def item(self, at: float) -> dict[str, Any]:
        item = {
            "id": self.name,
            "model": MODEL,
            "status": "processing",
            "outputs": [],
            "created_at": iso(self.created),
            "error": "",
            "timings": {"inference": 0},
        }
        return item | self.ending if at >= self.ends else item


class WaitingServer:
    """Predictions and how they are told. `tell_list` and `tell_result` may be replaced to misbehave."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.requests: Counter[str] = Counter()
        self.lists: list[tuple[float, dict[str, Any]]] = []
        self.checks: defaultdict[str, list[float]] = defaultdict(list)
        self.tell_list: Callable[[dict[str, Any]], Answer | Exception] = self.list_of
        self.tell_result: Callable[[str], Answer | Exception] = self.result_of
        self.latency = 0.05
        self.list_latency = 0.05
        self.lag = 0.0
        self.told_time = True
        self.transport = self

    def server_time(self) -> datetime | None:
        return EPOCH + timedelta(seconds=int(now())) if self.told_time else None

    def submitted(self, name: str, takes: float = 9.0, *, age: float = 0.0, **item: Any) -> Prediction:
        """A prediction, as its submit was answered."""
        self.tasks[name] = Task(name, now() - age, takes, **item)
        return Prediction.model_validate(self.tasks[name].item(-1.0))

    def many(self, count: int, takes: Callable[[int], float] = lambda index: 6.0 + index % 7) -> list[Prediction]:
        return [self.submitted(f"p{index}", takes(index)) for index in range(count)]

    def list_of(self, query: dict[str, Any], *, total: bool = True) -> Answer:
        at = now() - self.lag
        low = loop_time(query["created_after"]) if "created_after" in query else 0.0
        high = min(at, loop_time(query["created_before"]) if "created_before" in query else at)
        status, model = query.get("status"), query.get("model")
        tasks = [
            task
            for task in self.tasks.values()
            if low <= task.created <= high
            and (status is None or status == (task.ending["status"] if at >= task.ends else "processing"))
            and (model is None or model == task.ending.get("model", MODEL))
        ]
        tasks.sort(key=lambda task: -task.created)
        start = (query["page"] - 1) * query["page_size"]
        items = [task.item(at) for task in tasks[start : start + query["page_size"]]]
        return answer({"page": query["page"], "items": items} | ({"total": len(tasks)} if total else {}))

    def result_of(self, name: str) -> Answer:
        task = self.tasks.get(name)
        return answer(None, 404) if task is None else answer(task.item(now()))

    async def ask(self, request: Request, read: Callable[[Answer], Any], *, again: bool = True) -> Any:
        assert not again, "the keeper repeats by itself"
        if request.method == "POST":
            query = json.loads(request.body or b"")
            self.requests["list"] += 1
            self.lists.append((now(), query))
            told = self.tell_list(query)
            await asyncio.sleep(self.list_latency)
        else:
            name = request.path.split("/")[-2]
            self.requests["result"] += 1
            self.checks[name].append(now())
            told = self.tell_result(name)
            await asyncio.sleep(self.latency)
        if isinstance(told, Exception):
            raise told
        return read(told)

    def spacing(self) -> float:
        """The shortest time between two checks of one id."""
        gaps = [later - sooner for times in self.checks.values() for sooner, later in pairwise(times)]
        return min(gaps, default=float("inf"))


class Ends:
    """Takes what watches end with."""

    def __init__(self) -> None:
        self.all: dict[str, list[tuple[float, Any]]] = defaultdict(list)

    def take(self, name: str) -> Callable[[Any], None]:
        return lambda end: self.all[name].append((now(), end))

    def of(self, name: str) -> Any:
        ((_, end),) = self.all[name]
        return end

    def at(self, name: str) -> float:
        ((at, _),) = self.all[name]
        return at


@contextlib.asynccontextmanager
async def keeping(server: WaitingServer, *, timeout: float = 600.0, seed: int = 3, **options) -> AsyncIterator[Keeper]:
    tasks = Tasks()
    keeper = Keeper(server, tasks, timeout=timeout, rng=random.Random(seed), **options)
    try:
        yield keeper
    finally:
        await keeper.close()
        assert len(tasks) == 0
        await tasks.close()


async def watch_all(keeper: Keeper, predictions: list[Prediction], **options: Any) -> Ends:
    ends = Ends()
    for prediction in predictions:
        keeper.watch(prediction, ends.take(prediction.id), **options)
    while len(keeper):  # noqa: ASYNC110 - there is nothing to be told by; virtual time makes it cheap
        await asyncio.sleep(0.05)
    return ends
