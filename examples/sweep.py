"""Which LoRA at which scale? Makes one image for each combination and shows them as a table.

python examples/sweep.py --emulator                                    # without a key
python examples/sweep.py "a red fox in the snow" owner/ink owner/oil   # WAVESPEED_API_KEY
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from wavespeed_qwen_async import Batch, QwenImageSession
from wavespeed_qwen_async.bulk.gallery import make_contact_sheets, make_gallery
from wavespeed_qwen_async.bulk.sweep import Sweep
from wavespeed_qwen_async.emulator import Emulator


async def main(prompt: str, *loras: str, out: str = "sweep", emulated: bool = False) -> None:
    sweep = Sweep(prompt=prompt, lora=[*loras, "none"], size="1024x1024")
    async with Emulator(speed=4) if emulated else contextlib.nullcontext() as emulator:
        base_url, api_key = (emulator.url, "none") if emulator else (None, None)
        async with QwenImageSession(base_url=base_url, api_key=api_key) as session:
            batch = Batch(sweep, out, session, budget=5.00)
            plan = await batch.plan()
            print(f"{plan.new} images, ${plan.cost:.2f}")
            async for outcome in batch.run():
                print(outcome.path or outcome.error)
    for page in await asyncio.to_thread(make_contact_sheets, sweep, out):
        print(page)
    print((await asyncio.to_thread(make_gallery, out)).path)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--emulator"]
    words = words or ["a red fox in the snow", "owner/ink", "owner/oil"]
    asyncio.run(main(*words, emulated="--emulator" in sys.argv))
