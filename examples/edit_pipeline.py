"""Makes pictures, changes each, and changes it again: every step as soon as its input is there, many at once.

python examples/edit_pipeline.py --emulator "a red fox" "an owl" "a lighthouse"    # without a key
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wavespeed_qwen_async import Prediction, QwenImageSession, WaveSpeedError
from wavespeed_qwen_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGES = ("make it a winter night with falling snow", "add a small wooden cabin, warm light in its windows")


async def main(*prompts: str, out: str = "pipeline", emulated: bool = False) -> None:
    folder = Path(out)
    async with Emulator(speed=4) if emulated else contextlib.nullcontext() as emulator:
        base_url, api_key = (emulator.url, "none") if emulator else (None, None)
        async with QwenImageSession(base_url=base_url, api_key=api_key) as session, asyncio.TaskGroup() as group:
            chains = iter(enumerate(prompts))  # shared: each worker takes the next one
            for _ in range(min(len(prompts), session.limits.max_in_flight)):
                group.create_task(work(session, chains, folder, group))


async def work(
    session: QwenImageSession, chains: Iterator[tuple[int, str]], folder: Path, group: asyncio.TaskGroup
) -> None:
    for number, prompt in chains:
        step, picture = 0, None
        try:
            picture = await session.generate(prompt, seed=number)
            for step, change in enumerate(CHANGES, start=1):
                group.create_task(save(picture, folder / f"{number}-{step - 1}.jpg"))  # while the next one is made
                picture = await session.edit(picture, change, seed=number)  # by its URL: it stays where it is
            await save(picture, folder / f"{number}-{step}.jpg")
        except WaveSpeedError as error:  # the others go on
            last = f"; step before it: prediction {picture.id}" if picture else ""
            print(f"{prompt!r}, step {step}: {error} (billed: {error.billed}{last})", file=sys.stderr)


async def save(picture: Prediction, path: Path) -> None:
    try:
        print(await picture.save(path))
    except WaveSpeedError as error:
        print(f"{path}: {error}; prediction {picture.id} keeps it for 7 days", file=sys.stderr)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--emulator"]
    asyncio.run(main(*(words or ["a red fox", "an owl"]), emulated="--emulator" in sys.argv))
