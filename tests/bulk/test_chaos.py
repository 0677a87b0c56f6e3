"""2,000 jobs, 3% of everything that can go wrong, and SIGKILL at 20 random moments: each job exactly once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from durable import images, results

HERE = Path(__file__).parent
JOBS = 2000
KILLS = 20


@pytest.fixture
def server():
    command = [sys.executable, str(HERE / "chaos_server.py"), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        yield child.stdout.readline().strip()
        child.kill()


def accepted_by(url):
    with urllib.request.urlopen(f"{url}/__emulator__/ledger") as answer:
        return json.load(answer)["data"]["accepted"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_chaos(server, tmp_path):
    rng = random.Random(int(os.environ.get("CHAOS_SEED", "7")))
    source, folder = tmp_path / "jobs.jsonl", tmp_path / "out"
    source.write_text("".join(json.dumps({"prompt": f"picture {n}"}) + "\n" for n in range(JOBS)))
    command = [sys.executable, str(HERE / "killed_child.py"), server, str(source), str(folder)]
    kills, began = [], time.monotonic()
    while len(kills) < KILLS:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            child.stdout.readline()  # Python's own start takes as long as the machine has other work
            time.sleep(rng.uniform(0.0, 4.0))
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills.append((child.returncode, len(images(folder)) if folder.exists() else 0))
    assert all(code == -signal.SIGKILL for code, _ in kills), kills
    assert kills[-1][1] > 0, "the runs got nowhere between the kills"
    last = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert last.returncode == 0, last.stderr
    accepted = accepted_by(server)
    billed = Counter(record["inputs"]["prompt"] for record in accepted)
    print(f"\nimages at each kill: {[count for _, count in kills]}; {time.monotonic() - began:.0f} s; {last.stdout}")  # noqa: T201
    assert len(billed) == JOBS, "0 lost"
    assert set(billed.values()) == {1}, "0 billed twice"
    assert len(images(folder)) == JOBS
    lines = results(folder)
    assert sorted(line["index"] for line in lines) == list(range(JOBS))
    assert all(line["ok"] for line in lines)
    ids = {record["inputs"]["prompt"]: record["id"] for record in accepted}
    assert {line["inputs"]["prompt"]: line["prediction_id"] for line in lines} == ids, "each got its own"
    leftovers = [path.name for path in folder.iterdir() if path.suffix == ".part"]
    assert not leftovers
