"""Parsing: jobs in, answers out."""

from __future__ import annotations

import json
import random

from wavespeed_qwen_async import Prediction, TextToImage
from wavespeed_qwen_async._answers import Answer, read_submit
from wavespeed_qwen_async._wire import submit_request

MODEL = "wavespeed-ai/qwen-image/text-to-image-lora"


def answer(number: int) -> dict[str, object]:
    return {
        "id": f"{number:032x}",
        "model": MODEL,
        "outputs": [f"https://cdn.example.org/outputs/{number}/1.jpeg"],
        "urls": {"get": f"https://api.wavespeed.ai/api/v3/predictions/{number:032x}/result"},
        "has_nsfw_contents": [False],
        "status": "completed",
        "created_at": "2026-01-01T00:00:00.123456789Z",
        "error": "",
        "timings": {"inference": 7123},
        "code": 0,
    }


def enveloped(data: object) -> Answer:
    return Answer(200, {}, json.dumps({"code": 200, "message": "success", "data": data}).encode())


def test_make_a_job(benchmark):
    assert benchmark(TextToImage, prompt="a red fox", size="512*512", loras=["owner/ink:0.8"]).seed is None


def test_read_a_job_from_a_mapping(benchmark):
    assert benchmark(TextToImage.model_validate, {"prompt": "a red fox"}).prompt


def test_draw_a_seed(benchmark):
    assert benchmark(TextToImage(prompt="a red fox").seeded, random.Random(1)).seed is not None


def test_write_a_submit(benchmark):
    assert benchmark(submit_request, TextToImage(prompt="a red fox", seed=1)).body


def test_read_a_submits_answer(benchmark):
    assert benchmark(read_submit, enveloped(answer(1))).ok


def test_read_a_prediction(benchmark):
    assert benchmark(Prediction.model_validate, answer(1)).ok


def test_read_a_page_of_a_hundred(benchmark):
    from wavespeed_qwen_async._answers import read_page  # noqa: PLC0415

    assert len(benchmark(read_page, enveloped({"items": [answer(number) for number in range(100)]}))) == 100
