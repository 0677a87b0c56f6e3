"""One client in a fresh process: does the work it is told as JSON, prints what it cost as JSON.

CPU is this process's own (user and system), from the first submit to the last delivery; imports are not in it.
"""

# ruff: noqa: PLC0415 - what one client needs must not be imported for another

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import time
from pathlib import Path

from clients import CLIENTS, Work


def warm(name: str) -> None:
    """Import what the client needs, so that it does not count as work."""
    if name == "ours":
        from wavespeed_qwen_async import Limits, QwenImageSession, TextToImage  # noqa: F401 - imported when asked for
    else:
        module = {"sdk": "wavespeed", "fal": "fal_client"}.get(name, name if name == "replicate" else "aiohttp")
        __import__(module)


def run(name: str, work: Work, *, uvloop: bool) -> dict[str, object]:
    warm(name)
    factory = None
    if uvloop:
        import uvloop as package

        factory = package.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        began, cpu = time.monotonic(), time.process_time()
        ends = runner.run(CLIENTS[name](work))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ends": ends, "cpu": cpu, "seconds": seconds, "peak": peak}


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    told = json.loads(sys.argv[1])
    answer = run(told["client"], Work(**told["work"]), uvloop=told.get("uvloop", False))
    Path(told["answer"]).write_text(json.dumps(answer))
