"""The public face as a user would write it; mypy strict and pyright read this, nothing runs it."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

from wavespeed_qwen_async import (
    AccountTier,
    Edit,
    Limits,
    Lora,
    Outcome,
    Output,
    Prediction,
    Price,
    QwenImageSession,
    Retry,
    Size,
    SubmissionUnknown,
    TextToImage,
    Timeout,
    WaveSpeedError,
)

if TYPE_CHECKING:
    from wavespeed_qwen_async.integrations.redis import RedisLimits
    from wavespeed_qwen_async.limits import Limiter


async def one() -> None:
    async with QwenImageSession(tier="silver") as session:
        image = await session.generate("a red fox", loras=["owner/ink:0.8"], size=(1024, 1024))
        assert_type(image, Prediction)
        assert_type(await image.save("fox.jpg"), Path)
        await session.edit("fox.jpg", "make it snow", loras=[("owner/ink", 0.5), Lora(path="o/n")], size="512*512")
        await session.edit(image, "make it night", seed=7, output_format="png")
        await session.edit([image, image.outputs[0], "fox.jpg"], "both on one sofa", model="edit-plus-lora")
        prediction = await session.submit(TextToImage(prompt="..."))
        assert_type(await session.result(prediction, timeout=120), Prediction)
        await session.result("abc123", timeout=timedelta(minutes=2))
        for output in image.outputs:
            assert_type(output, Output)
            assert_type(await output.bytes(), bytes)


async def many() -> None:
    session = QwenImageSession(
        api_key="k",
        limits=Limits(max_per_minute=60, max_in_flight=10),
        timeout=Timeout(connect=5),
        retry=Retry(read_budget=60),
        wait="poll",
    )
    jobs = [TextToImage(prompt="x"), Edit(prompt="y", image=Path("a.png"), size=Size(width=512, height=512))]
    async with session:
        async for outcome in session.stream(jobs, ordered=True, max_in_flight=5):
            assert_type(outcome, Outcome)
            assert_type(outcome.error, WaveSpeedError | None)
            if outcome.ok:
                assert_type(outcome.unwrap(), Prediction)
            elif isinstance(outcome.error, SubmissionUnknown):
                assert_type(outcome.error.prediction_id, str | None)
        async with aclosing(session.stream(jobs)) as outcomes:
            async for outcome in outcomes:
                assert_type(outcome, Outcome)
        async for prediction in session.predictions(status="completed"):
            assert_type(prediction, Prediction)
        assert_type(await session.balance(), float)
        assert_type(await session.price(jobs[0]), Price)
        assert_type(await session.upload(b"..."), str)
        assert_type(await session.delete("a", "b"), int)
    QwenImageSession(tier=AccountTier.GOLD)


def shared(redis: RedisLimits) -> None:
    """A session takes any limiter: ours, Redis', and one that somebody wrote."""
    QwenImageSession(limits=redis)
    limiter: Limiter = Limits.for_tier("gold")
    QwenImageSession(limits=limiter)


def as_people_write_them() -> None:
    """A job takes for a size, a LoRA and a model what its docstring says, also to a type checker."""
    TextToImage(prompt="x", size="1024*1024", loras=["owner/ink:0.8", ("owner/oil", 0.5), {"path": "o/n", "scale": 1}])
    TextToImage(prompt="x", size=(1024, 1024), loras=(Lora(path="owner/ink"),), seed=7, output_format="png")
    Edit(prompt="y", image="fox.jpg", size=Size(width=512, height=512), loras=["owner/ink"])
    Edit(prompt="y", images=["fox.jpg", b"...", Path("a.png")], model="edit-plus-lora", enable_base64_output=True)
