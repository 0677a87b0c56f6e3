# ruff: noqa: T201 - a script that tells how it goes
"""A durable run on a real Ray cluster of three nodes on this machine, against an emulator in a process of its own.

    python tests/ray/ray_cluster_run.py --jobs 3000 --limit 500 --window 12 --kill worker node coordinator

Prints a report as JSON on its last line: what came out, what the emulator's ledger says of money and of the account's
limit, and what the coordinator cost. Run by ``test_ray_cluster.py``; a process of its own, as Ray leaves threads and
children behind that have no place in a test run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from pathlib import Path

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_METRICS": "1", "RAY_raylet_start_wait_time_s": "180"}
STORE = 80 * 2**20  # bytes of each node's object store; Ray takes no less than 75 MB
SERVE = """
import json, sys
from wavespeed_qwen_async.emulator.server import run
options = json.loads(sys.argv[1])
run(port=0, on_start=lambda emulator: print(emulator.url, flush=True), **options)
"""


@contextlib.contextmanager
def emulator(**options):
    """An emulator in a process of its own; gives its URL."""
    command = [sys.executable, "-c", SERVE, json.dumps({"blank": True, **options})]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextlib.contextmanager
def cluster(nodes=3, cpus=2):
    """A head and other nodes, each with a raylet of its own."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": cpus, "object_store_memory": STORE}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            made.add_node(**node)
        ray.init(address=made.address, namespace="test", log_to_driver=True)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


class Killer:
    """Kills with SIGKILL, one thing at each of some points of a run."""

    def __init__(self, made, batch, what, jobs):
        self.made = made
        self.batch = batch
        self.at = {round(jobs * (number + 1) / (len(what) + 1)): name for number, name in enumerate(what)}
        self.killed = []

    async def see(self, rows):
        name = self.at.pop(rows, None)
        if name is not None:
            pid = await getattr(self, name)()
            os.kill(pid, signal.SIGKILL)
            self.killed.append([name, pid, rows])
            print("killed", name, "process", pid, "after", rows, "rows", flush=True)

    async def worker(self):
        return (await next(iter(self.batch._team.workers.values())).usage.remote())[0]

    async def coordinator(self):
        return (await self.batch._team.coordinator.usage.remote())[0]

    async def node(self):
        """The raylet of a node that is not the head; its workers end when they miss it."""
        other = next(iter(self.made.worker_nodes))
        return other.all_processes["raylet"][0].process.pid


async def run(made, url, options, folder):
    from wavespeed_qwen_async import Limits
    from wavespeed_qwen_async.integrations.ray import RayBatch

    limits = Limits(max_per_minute=options.limit, max_in_flight=options.slots, window=options.window)
    batch = RayBatch(
        [{"prompt": f"picture number {number}"} for number in range(options.jobs)],
        folder / "out",
        workers=options.workers,
        session={"limits": limits},
        lease=options.lease,
    )
    killer = Killer(made, batch, options.kill, options.jobs)
    rows, cost = [], []
    async with contextlib.aclosing(batch.run()) as results:
        async for row in results:
            rows.append(row)
            await killer.see(len(rows))
            if len(rows) % (options.jobs // 10) == 0 and len(rows) < options.jobs:
                pid, seconds = await coordinator_usage(batch)
                cost.append((pid, seconds, time.monotonic(), len(rows)))
                print(len(rows), "rows", batch.progress(), flush=True)
    return batch, rows, killer, cost


async def coordinator_usage(batch):
    from ray.exceptions import RayActorError

    while True:
        try:
            return await batch._team.coordinator.usage.remote()
        except RayActorError:
            await asyncio.sleep(1)


def report(url, done, options, folder):
    batch, rows, killer, cost = done
    with urllib.request.urlopen(f"{url}/__emulator__/ledger") as answer:
        ledger = json.load(answer)["data"]
    times = sorted(accepted["time"] for accepted in ledger["accepted"])
    span = times[-1] - times[0]
    told = Counter(row["index"] for row in rows)
    on_disk = {row["file"] for row in rows if (folder / "out" / row["file"]).is_file()}
    ids = {accepted["id"] for accepted in ledger["accepted"]}
    import pyarrow.parquet

    manifest = pyarrow.parquet.read_table(folder / "out" / "manifest.parquet")
    return {
        "jobs": options.jobs,
        "rows": len(rows),
        "told_once": len(told) == len(rows) == options.jobs,
        "files": len(on_disk),
        "manifest_rows": manifest.num_rows,
        "ids_of_rows_billed": len({row["prediction_id"] for row in rows} & ids),
        "billed": len(times),
        "billed_twice": len(ledger["doubles"]),
        "refused": ledger["refused"],
        "most_in_a_window": max(bisect_left(times, at + options.window) - i for i, at in enumerate(times)),
        "limit": options.limit,
        "used": round((len(times) - 1) / span * options.window / options.limit, 4),
        "seconds": round(span, 1),
        "killed": killer.killed,
        "coordinator": _cost(cost),
        "summary": [batch.summary().saved, batch.summary().open, batch.summary().cost_total],
    }


def _cost(cost):
    """Shares of a core that the coordinator took between two looks at it, and its CPU seconds a job."""
    spans = [(b[1] - a[1], b[2] - a[2], b[3] - a[3]) for a, b in pairwise(cost) if a[0] == b[0]]
    return {
        "share_of_a_core": [round(cpu / wall, 3) for cpu, wall, _ in spans],
        "jobs_a_second": [round(jobs / wall, 1) for _, wall, jobs in spans],
        "ms_a_job": round(1000 * sum(s[0] for s in spans) / max(1, sum(s[2] for s in spans)), 3),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--slots", type=int, default=300)
    parser.add_argument("--window", type=float, default=12.0)
    parser.add_argument("--inference", type=float, nargs=2, default=(1.2, 2.4))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--lease", type=float, default=10.0)
    parser.add_argument("--kill", nargs="*", default=[], choices=["worker", "node", "coordinator"])
    options = parser.parse_args()
    account = {"max_per_minute": options.limit, "max_in_flight": options.slots, "window": options.window}
    with tempfile.TemporaryDirectory() as folder, emulator(**account, inference=options.inference) as url:
        os.environ |= {"WAVESPEED_API_KEY": "key-of-the-test", "WAVESPEED_BASE_URL": url}
        with cluster() as made:
            done = asyncio.run(run(made, url, options, Path(folder)))
            print(json.dumps(report(url, done, options, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
