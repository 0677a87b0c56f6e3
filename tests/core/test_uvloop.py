"""On uvloop, which uvicorn takes where it finds it: its handles, transports and signals are not asyncio's own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wavespeed_qwen_async import Batch, Edit, Limits, QwenImageSession, TextToImage
from wavespeed_qwen_async.emulator import Emulator

FOX = Path(__file__).parents[2] / "examples" / "images" / "fox.jpg"

uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")


def on_uvloop(work):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def limits() -> Limits:
    return Limits(max_per_minute=60_000, max_in_flight=50)


def test_a_stream_and_single_jobs_come_out(tmp_path) -> None:
    (tmp_path / "fox.jpg").write_bytes(FOX.read_bytes())

    async def work() -> list[str]:
        async with (
            Emulator(tier=None, inference=(0.1, 0.3)) as emulator,
            QwenImageSession(api_key="k", base_url=emulator.url, limits=limits()) as session,
        ):
            jobs = [TextToImage(prompt=f"p{index}", size=(256, 256)) for index in range(60)]
            jobs.append(Edit(prompt="make it snow", image=tmp_path / "fox.jpg"))
            single = asyncio.create_task(session.generate("a fox", size=(256, 256)))
            ended = [outcome.unwrap().status async for outcome in session.stream(jobs)]
            await (await single).save(tmp_path / "saved.jpg")
            return ended

    assert on_uvloop(work()) == ["completed"] * 61
    assert (tmp_path / "saved.jpg").stat().st_size > 0


def test_a_batch_is_saved(tmp_path) -> None:
    async def work() -> int:
        async with (
            Emulator(tier=None, inference=(0.1, 0.3)) as emulator,
            QwenImageSession(api_key="k", base_url=emulator.url, limits=limits()) as session,
        ):
            batch = Batch([{"prompt": f"p{index}", "size": "256*256"} for index in range(20)], tmp_path, session)
            return sum([outcome.path is not None async for outcome in batch.run()])

    assert on_uvloop(work()) == 20


def test_the_command_line_runs_on_it_and_obeys_ctrl_c(tmp_path) -> None:
    source = tmp_path / "jobs.txt"
    source.write_text("\n".join(f"a fox {index}" for index in range(200)))
    program = [sys.executable, "-c", "import sys; from wavespeed_qwen_async.cli import main; sys.exit(main())"]
    with subprocess.Popen(
        [
            *program,
            "batch",
            str(source),
            "--out",
            str(tmp_path / "out"),
            "--emulator",
            "--tier",
            "silver",
            "--emulator-speed",
            "50",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "120"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "1/200" in line:
                break
        assert "uvloop" in Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130, said
    assert "Traceback" not in said
