"""Batches into a temporary folder."""

from __future__ import annotations

import json
from contextlib import aclosing

import pytest

from wavespeed_qwen_async.bulk import Batch


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
