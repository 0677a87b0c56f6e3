"""Rounds: each client in its turn, on a server of its own, both in fresh processes; medians and spread."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clients import NEEDS

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What all clients do. ``least`` is how few requests a job the API makes possible; see ``kept_awake`` too."""

    name: str
    title: str
    jobs: int
    in_flight: int
    inference: tuple[float, float]
    clients: tuple[str, ...]
    per_second: float = 0.0
    poll: float = 2.0
    rounds: int = 3
    least: float = 1.01
    fewer: dict[str, int] = field(default_factory=dict)
    targets: tuple[tuple[str, str, str, float], ...] = ()
    timeout: float = 600.0
    awake: bool = False


def environment() -> dict[str, str]:
    """What a child process sees: this folder's modules, whatever PYTHONSAFEPATH says."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])}


@contextlib.contextmanager
def server(inference: tuple[float, float]) -> Iterator[dict[str, str]]:
    command = [sys.executable, str(HERE / "server.py"), *map(str, inference)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


IDLER = """
import os
os.sched_setaffinity(0, {%d})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True:
    pass
"""


@contextlib.contextmanager
def kept_awake(wanted: bool) -> Iterator[None]:  # noqa: FBT001 - `with kept_awake(workload.awake)`
    """Keep each core from idling, by a process that runs only where nothing else wants to (Linux's SCHED_IDLE).

    Much as the `performance` governor does it on hardware: a core that is idle 95 % of the time is slow when it
    wakes up (`pace.py` shows it).
    """
    with contextlib.ExitStack() as stack:
        for core in os.sched_getaffinity(0) if wanted else ():
            process = subprocess.Popen([sys.executable, "-c", IDLER % core])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


@contextlib.contextmanager
def paced() -> Iterator[Figures]:
    """How fast the cores are meanwhile, known at its end."""
    found: Figures = {}
    process = subprocess.Popen([sys.executable, str(HERE / "pace.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield found
    finally:
        process.terminate()
        told, _ = process.communicate()
    found["loop ms"] = float(told)


def available(client: str) -> bool:
    return client not in NEEDS or importlib.util.find_spec(NEEDS[client]) is not None


def crossed_loopback() -> int:
    """Bytes that crossed the loopback so far, both ways, TCP's own included; 0 where the system does not tell."""
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == ["lo:"]), 0)


def once(workload: Workload, client: str, *, uvloop: bool = False) -> Figures:
    """One client, once."""
    jobs = workload.fewer.get(client, workload.jobs)
    with server(workload.inference) as place, tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "answer.json")
        pace = {"per_second": workload.per_second, "poll": workload.poll}
        work = {**place, "jobs": jobs, "in_flight": workload.in_flight, **pace}
        order = {"client": client, "work": work, "answer": str(told), "uvloop": uvloop}
        command = [sys.executable, str(HERE / "worker.py"), json.dumps(order)]
        crossed = crossed_loopback()
        with kept_awake(workload.awake), paced() as pace_of_cores:
            subprocess.run(command, check=True, timeout=workload.timeout, env=environment())
        crossed = crossed_loopback() - crossed
        answer = json.loads(told.read_text())
        with urllib.request.urlopen(place["other"] + "/report") as response:
            report = json.load(response)
    assert len(answer["ends"]) == jobs, f"{client}: {len(answer['ends'])} of {jobs} delivered"
    delays = sorted(max(0.0, at - report["ends"][task]) for task, at in answer["ends"].items())
    rate = workload.per_second or jobs / answer["seconds"]  # not diluted by the last jobs' seconds without a submit
    return {
        "CPU ms/job": 1000 * answer["cpu"] / jobs,
        "requests/job": report["requests"] / jobs,
        "KiB/job": crossed / 1024 / jobs,
        "p50 s": delays[len(delays) // 2],
        "p99 s": delays[int(0.99 * len(delays))],
        "% of a core": 100 * answer["cpu"] / jobs * rate,
        "jobs/s": jobs / answer["seconds"],
        "peak MB": answer["peak"],
        **pace_of_cores,
    }


def in_turns(workload: Workload) -> Iterator[dict[str, list[Figures]]]:
    """All clients that are installed, round by round, so that what else the machine does meets them all alike.

    Yields what there is after each run: half an hour's figures must not be lost with the last of them.
    """
    runs: dict[str, list[Figures]] = {client: [] for client in workload.clients if available(client)}
    for number in range(workload.rounds):
        for client, figures in runs.items():
            print(f"  {workload.name}: round {number + 1} of {workload.rounds}, {client}", file=sys.stderr, flush=True)
            try:
                figures.append(once(workload, client))
            except (subprocess.SubprocessError, AssertionError) as error:
                if client == "ours":
                    raise
                print(f"  {client} failed: {error}", file=sys.stderr)  # a rival's failure is its own result
            yield runs
