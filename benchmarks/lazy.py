"""A child process: runs every line of a file through one lazy stream, tells its peak memory."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rounds import server

from wavespeed_qwen_async import Limits, QwenImageSession

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_FLIGHT = 300


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for line in file:
            yield json.loads(line)


async def run(url: str, path: Path) -> int:
    limits = Limits(max_per_minute=100_000_000, max_in_flight=IN_FLIGHT, burst=True)
    done = 0
    async with (
        QwenImageSession(api_key="k", base_url=url, limits=limits) as session,
        aclosing(session.stream(lines(path))) as outcomes,
    ):
        async for outcome in outcomes:
            done += outcome.ok
    return done


if __name__ == "__main__":
    wanted = int(sys.argv[2])
    with server((0.0, 0.0)) as place:
        began, cpu = time.monotonic(), time.process_time()
        done = asyncio.run(run(place["url"], Path(sys.argv[1])))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    assert done == wanted, f"{done} of {wanted}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"lines": done, "peak MB": peak, "seconds": seconds, "CPU ms/job": 1000 * cpu / done}))
