"""An emulator on virtual time, sessions on it, and batches into a temporary folder."""

from __future__ import annotations

import json
import random
from contextlib import aclosing

import pytest

from wavespeed_qwen_async import Limits, QwenImageSession
from wavespeed_qwen_async.bulk import Batch
from wavespeed_qwen_async.emulator import Emulator


@pytest.fixture
async def emulator(request):
    marker = request.node.get_closest_marker("wavespeed_emulator")
    async with Emulator(**{"tier": None, "blank": True} | (marker.kwargs if marker else {})) as running:
        yield running


@pytest.fixture
def opened(emulator):
    """Make a session; tests enter it themselves."""

    def make(**options) -> QwenImageSession:
        if not {"limits", "tier"} & set(options):
            options["limits"] = Limits(max_per_minute=60_000, max_in_flight=options.pop("max_in_flight", 300))
        return QwenImageSession(**{"api_key": "k", "base_url": emulator.url, "rng": random.Random(7)} | options)

    return make


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def write(tmp_path):
    """Write a JSONL file of jobs, or of lines as they are."""

    def make(*jobs, name="jobs.jsonl"):
        path = tmp_path / name
        lines = [job if isinstance(job, str) else json.dumps(job) for job in jobs]
        path.write_text("".join(line + "\n" for line in lines))
        return path

    return make


@pytest.fixture
def run(opened, folder):
    """Run a batch in a session of its own; gives it and its outcomes."""

    async def once(source, *, session=None, **options):
        async with opened(**(session or {})) as live:
            batch = Batch(source, folder, live, **options)
            async with aclosing(batch.run()) as outcomes:
                return batch, [outcome async for outcome in outcomes]

    return once
