"""Ctrl+C at random moments of the command, once or twice: never a traceback, and the next run goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from durable import images, results

JOBS = 200
ROUNDS = 24
# What comes before `main` is Python's own start; the mark tells that it is over.
ENTRY = "import sys; from wavespeed_qwen_async.cli import main; print('|', flush=True); sys.exit(main())"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.wavespeed_emulator(inference=(0.3, 1.2), tier=None)
def test_interrupted_at_random_moments(wavespeed_emulator, tmp_path):
    seed = int(os.environ.get("CHAOS_SEED", "11"))
    rng, emulator, folder = random.Random(seed), wavespeed_emulator, tmp_path / "out"
    emulator.faults.add("submit", "drop_after", probability=0.02)
    source = tmp_path / "jobs.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"picture {n}", "size": "256*256"}) + "\n" for n in range(JOBS)))
    command = [sys.executable, "-c", ENTRY, "batch", str(source), "--out", str(folder)]
    command += ["--max-in-flight", "8", "--max-per-minute", "6000"]
    codes, told = [], []
    for turn in range(ROUNDS):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            child.stdout.readline()
            time.sleep(rng.uniform(0.0, 4.0))
            child.send_signal(signal.SIGINT)
            if turn % 2:
                time.sleep(rng.uniform(0.0, 0.4))
                child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
        codes.append(child.returncode)
        told.append(len(images(folder)) if folder.exists() else 0)
        assert "Traceback" not in out + err, f"turn {turn}: {err}"
        assert child.returncode in {0, 130}, f"turn {turn}: {child.returncode} {err}"
    last = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    print(f"\nseed {seed}, exit codes {codes}, images at each end {told}; {last.stdout.splitlines()[-2:]}")  # noqa: T201
    assert last.returncode == 0, last.stdout + last.stderr
    assert len(images(folder)) == JOBS
    assert len(emulator.ledger.accepted) == JOBS
    assert not emulator.ledger.doubles()
    assert sorted(line["index"] for line in results(folder)) == list(range(JOBS))
