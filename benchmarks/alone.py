"""What no rival has: start-up, the memory of a job in flight, a stream from a million-line file."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rounds import HERE, environment

IMPORT = "import time; began = time.process_time(); {}; print(time.process_time() - began)"
HELP = "import sys; sys.argv = ['wavespeed-qwen', '--help']; from wavespeed_qwen_async.cli import main; main()"
OURS = "from wavespeed_qwen_async import QwenImageSession"
THEIRS = "import aiohttp, anyio, pydantic; pydantic.BaseModel, pydantic.Field"


def _output(*command: str, **variables: str) -> str:
    return subprocess.run(
        [sys.executable, *command], check=True, capture_output=True, text=True, env=environment() | variables, cwd=HERE
    ).stdout


def startup(*, full: bool) -> dict[str, Any]:
    """CPU seconds of an import, the median ratio of the turns, wall and CPU seconds of `--help`. Bytecode is cached."""
    with tempfile.TemporaryDirectory() as cache:
        return _startup(full=full, PYTHONPYCACHEPREFIX=cache, PYTHONDONTWRITEBYTECODE="")


def _startup(*, full: bool, **cached: str) -> dict[str, Any]:
    for what in (OURS, THEIRS):
        _output("-c", IMPORT.format(what), **cached)
    _output("-c", HELP, **cached)
    turns = 41 if full else 5  # of 15, the ratio came out as 1.09 and as 1.27 within two minutes
    imports: dict[str, list[float]] = {"ours": [], "aiohttp + anyio + pydantic": []}
    wall, cpu = [], []
    for _ in range(turns):
        for name, what in zip(imports, (OURS, THEIRS), strict=True):
            imports[name].append(float(_output("-c", IMPORT.format(what), **cached)))
        before, began = os.times(), time.perf_counter()
        _output("-c", HELP, **cached)
        after = os.times()
        wall.append(time.perf_counter() - began)
        cpu.append(sum(after[2:4]) - sum(before[2:4]))
    ours, theirs = (statistics.median(each) for each in imports.values())
    # The machine's mood lasts for some turns: what stands side by side is compared.
    ratios = [one / other for one, other in zip(*imports.values(), strict=True)]
    return {
        "import ours, CPU s": ours,
        "import aiohttp + anyio + pydantic, CPU s": theirs,
        "import, ratio": statistics.median(ratios),
        "import, ratio of the quickest": min(imports["ours"]) / min(imports["aiohttp + anyio + pydantic"]),
        "--help, wall s": statistics.median(wall),
        "--help, CPU s": statistics.median(cpu),
    }


def memory(*, full: bool) -> dict[str, Any]:
    """KiB a job in flight, of 10,000, above an idle session that has been used; in the full set only."""
    if not full:
        return {}
    told = json.loads(_output("waiting.py", "memory", "--json"))
    return {"in flight": 10_000, "KiB/job": told["memory"]["KiB/job"]}


def million(*, full: bool) -> dict[str, Any]:
    """Peak memory of a lazy stream of a million lines of JSON, of which all are read and so many are run."""
    lines = 1_000_000 if full else 10_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "jobs.jsonl")
        with path.open("w") as file:
            file.writelines(f'{{"prompt": "picture number {number}", "size": "512*512"}}\n' for number in range(lines))
        return dict(json.loads(_output("lazy.py", str(path), str(lines))))


ALL = {"startup": startup, "memory": memory, "million": million}
