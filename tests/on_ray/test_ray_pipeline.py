"""The one command of docs/ray.md: a pipeline that streams, against an emulator in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from ray_cluster_run import emulator as served_emulator

ROOT = Path(__file__).parents[2]
COMMAND = "python examples/ray_pipeline.py examples/prompts.jsonl thumbnails/"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'wavespeed-qwen-async[ray]'"
    ),
]


def test_the_pipeline_of_the_docs_writes_its_first_rows_before_its_last_submit(tmp_path):
    page = (ROOT / "docs" / "ray.md").read_text()
    assert COMMAND in re.findall(r"```sh\n(.*?)```", page, re.DOTALL)[0]
    from pyarrow import parquet

    rows = 480
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"a fox {n}", "owner": n}) + "\n" for n in range(rows)))
    command = [shlex.split(COMMAND)[1], str(prompts), str(tmp_path / "out"), "--block", "16"]
    with served_emulator(tier="silver", inference=[1.0, 2.0]) as url:
        environment = os.environ | {
            "WAVESPEED_BASE_URL": url,
            "WAVESPEED_API_KEY": "k",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "180",  # a busy machine
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        }
        with subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            sent_at_first_file = submits_at_first_file(process, tmp_path / "out", url)
            text = process.communicate()[0].decode(errors="replace")
        assert process.returncode == 0, text[-3000:]
        ledger = ledger_of(url)
    assert 0 < sent_at_first_file < rows
    assert len(ledger["accepted"]) == rows
    assert ledger["doubles"] == []
    assert ledger["peak_submits"] <= 500
    table = parquet.read_table(tmp_path / "out").to_pylist()
    assert sorted(row["owner"] for row in table) == list(range(rows))
    assert {row["outcome"] for row in table} == {"made"}
    assert all(row["thumbnail"].startswith(b"\xff\xd8") for row in table)
    assert "Unclosed" not in text


def submits_at_first_file(process, folder, url):
    """How many had been sent when the first file of rows was there."""
    while process.poll() is None:
        if any(folder.glob("*.parquet")):
            return len(ledger_of(url)["submit_times"])
        time.sleep(0.1)
    return None


def ledger_of(url):
    with urllib.request.urlopen(f"{url}/__emulator__/ledger") as answer:
        return json.load(answer)["data"]
