"""The emulator in a process of its own, with 3% of everything that can go wrong: prints its URL and waits."""

from __future__ import annotations

import asyncio
import sys

from wavespeed_qwen_async.emulator import Emulator

FAULTS = (
    ("submit", "drop", {}),  # the connection is lost before it is accepted
    ("submit", "drop_after", {}),  # ... and after
    ("submit", "status_after", {"status": 502}),
    ("submit", "status", {"status": 503}),
    ("submit", "status", {"status": 429, "retry_after": 1}),
    ("result", "hide", {"seconds": 2.0}),  # 404 just after the submit
    *((kind, "drop", {}) for kind in ("result", "list", "download", "balance")),
    *((kind, "status", {"status": 500}) for kind in ("result", "list", "download", "balance", "price")),
    *((kind, "truncate", {}) for kind in ("result", "list", "balance", "price")),
    *((kind, "html", {}) for kind in ("result", "list", "balance", "price")),
    *(("download", action, {}) for action in ("cut", "truncate", "html")),
)


async def main() -> None:
    async with Emulator(speed=20.0, blank=True, seed=int(sys.argv[1])) as emulator:
        for where, what, options in FAULTS:
            emulator.faults.add(where, what, probability=0.03, **options)
        sys.stdout.write(emulator.url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
