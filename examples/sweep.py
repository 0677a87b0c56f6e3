"""Which LoRA at which scale? Makes one image for each combination and shows them as a table.

    python examples/sweep.py "a red fox in the snow" owner/ink owner/oil

Needs WAVESPEED_API_KEY; `wavespeed-qwen emulator` tells how to try it without.
"""

from __future__ import annotations

import asyncio
import sys

from wavespeed_qwen_async import Batch, QwenImageSession
from wavespeed_qwen_async.bulk.gallery import make_contact_sheets, make_gallery
from wavespeed_qwen_async.bulk.sweep import Sweep


async def main(prompt: str, *loras: str, out: str = "sweep") -> None:
    sweep = Sweep(prompt=prompt, lora=[*loras, "none"], size="1024x1024")
    async with QwenImageSession() as session:
        batch = Batch(sweep, out, session, budget=5.00)
        plan = await batch.plan()
        print(f"{plan.new} images, ${plan.cost:.2f}")
        async for outcome in batch.run():
            print(outcome.path or outcome.error)
    for page in await asyncio.to_thread(make_contact_sheets, sweep, out):
        print(page)
    print((await asyncio.to_thread(make_gallery, out)).path)


if __name__ == "__main__":
    asyncio.run(main(*(sys.argv[1:] or ["a red fox in the snow", "owner/ink", "owner/oil"])))
