"""Makes an image of each line of a file. Stop it at any time: the same command goes on, and pays nothing twice.

    python examples/bulk_script.py examples/prompts.jsonl pictures --emulator    # without a key
    python examples/bulk_script.py examples/prompts.jsonl pictures --budget 5    # WAVESPEED_API_KEY, $5 at most

A line is a prompt, or a JSON object of a job's parameters (docs/durable.md). Ctrl-C sends nothing more and collects
what is paid; a second one leaves at once, and the next run collects it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys

from wavespeed_qwen_async import Batch, QwenImageSession
from wavespeed_qwen_async.emulator import Emulator


async def main(source: str, out: str, *, budget: float | None = None, emulated: bool = False) -> int:
    async with Emulator(speed=4) if emulated else contextlib.nullcontext() as emulator:
        base_url, api_key = (emulator.url, "none") if emulator else (None, None)
        async with QwenImageSession(base_url=base_url, api_key=api_key) as session:
            batch = Batch(source, out, session, budget=budget)
            plan = await batch.plan()
            print(f"{plan.new} images to make for ${plan.cost:.2f}, {plan.resumable} to collect that are paid")
            stop_gently(batch)
            async with contextlib.aclosing(batch.run()) as outcomes:
                async for outcome in outcomes:
                    if outcome.error is None:
                        print(f"{batch.progress().done}: {outcome.path}")
                    else:
                        print(f"line {outcome.line}: {outcome.error} (billed: {outcome.error.billed})", file=sys.stderr)
            end = batch.summary()
            print(f"{end.saved} saved, {end.failed} failed, {end.open} left for the next run, ${end.cost:.2f} spent")
            return 0 if end.failed == end.unknown == end.open == 0 else 1


def stop_gently(batch: Batch) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        print("sending nothing more; collecting what is paid ...", file=sys.stderr)
        batch.drain()

    with contextlib.suppress(NotImplementedError):  # Windows: there Ctrl-C leaves at once
        loop.add_signal_handler(signal.SIGINT, stop)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source", help="a file of prompts, or of jobs as JSON lines, CSV or YAML")
    parser.add_argument("out", help="the folder for pictures and the journal")
    parser.add_argument("--budget", type=float, help="dollars at most, earlier runs included")
    parser.add_argument("--emulator", action="store_true", help="without a key, and without cost")
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.source, given.out, budget=given.budget, emulated=given.emulator)))
