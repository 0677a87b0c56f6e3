"""The batch on a real Ray cluster of three nodes, in a process of its own. Minutes, and a few GB of memory."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'wavespeed-qwen-async[ray]'"
    ),
]

RUN = Path(__file__).with_name("ray_cluster_run.py")


def report_of(*arguments):
    command = [sys.executable, str(RUN), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    print(done.stdout[-3000:])  # noqa: T201 - shown where the test fails
    return json.loads(done.stdout.splitlines()[-1])


def assert_each_once(report, jobs):
    assert report["told_once"]
    assert (report["rows"], report["files"], report["manifest_rows"]) == (jobs, jobs, jobs)
    assert (report["billed"], report["ids_of_rows_billed"], report["billed_twice"]) == (jobs, jobs, 0)
    assert report["most_in_a_window"] <= report["limit"]
    assert report["refused"] == {}


def test_three_nodes_use_the_accounts_limit_and_never_more():
    report = report_of("--jobs", 3000, "--limit", 500, "--slots", 300, "--window", 30)
    assert_each_once(report, 3000)
    assert report["used"] >= 0.95


def test_a_killed_worker_a_killed_node_and_a_killed_coordinator_cost_nothing():
    report = report_of("--jobs", 3000, "--window", 12, "--kill", "worker", "node", "coordinator")
    assert [what for what, _, _ in report["killed"]] == ["worker", "node", "coordinator"]
    assert_each_once(report, 3000)
