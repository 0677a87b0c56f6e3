"""The promises of pictures in and pictures out, through the session, against the emulator."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from media_server import picture

from wavespeed_qwen_async.emulator import Emulator
from wavespeed_qwen_async.models import Edit, TextToImage
from wavespeed_qwen_async.provenance import extract
from wavespeed_qwen_async.session import QwenImageSession

if TYPE_CHECKING:
    from pathlib import Path

    from wavespeed_qwen_async.predictions import Output

pytestmark = pytest.mark.anyio

KEY = "wsk_media_0123456789"


def session(emulator: Emulator, **options: Any) -> QwenImageSession:
    return QwenImageSession(api_key=KEY, base_url=emulator.url, tier="ultra", **options)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(10)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(number))
    return paths


@pytest.mark.slow
async def test_a_thousand_edits_of_ten_files_are_ten_uploads_and_none_in_a_second_process(photos, tmp_path) -> None:
    async with Emulator(blank=True) as emulator:
        store = tmp_path / "uploads.json"
        assert await _run_child(emulator, store, photos) == 1000
        assert (emulator.ledger.requests["ticket"], emulator.ledger.requests["put"]) == (10, 10)
        assert await _run_child(emulator, store, photos) == 1000
        assert (emulator.ledger.requests["ticket"], emulator.ledger.requests["put"]) == (10, 10)
        assert len(emulator.ledger.accepted_times) == 2000
        assert len({accepted.inputs["image"] for accepted in emulator.ledger.accepted}) == 10
        assert emulator.ledger.key_leaks == []


async def _run_child(emulator: Emulator, store: Path, photos: list[Path]) -> int:
    command = [sys.executable, "-c", _CHILD, emulator.url, str(store), *map(str, photos)]
    loop: Any = asyncio.get_running_loop()
    with loop.hold():  # the clock can't see what another process does
        child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env={**os.environ, "K": KEY})
        output, _ = await child.communicate()
    assert child.returncode == 0
    return int(output)


_CHILD = """
import asyncio, json, os, sys
from pathlib import Path
from wavespeed_qwen_async.models import Edit
from wavespeed_qwen_async.session import QwenImageSession

class Store:
    def __init__(self, path):
        self.path = path
        self.known = json.loads(path.read_text()) if path.exists() else {}
    async def get(self, key):
        return tuple(self.known[key]) if key in self.known else None
    async def put(self, key, url, expires_at):
        self.known[key] = (url, expires_at)

async def main(url, store, *photos):
    store, numbers, done = Store(Path(store)), iter(range(1000)), 0
    media = {"store": store}
    async with QwenImageSession(api_key=os.environ["K"], base_url=url, tier="ultra", media=media) as session:
        async def starter():
            nonlocal done
            for number in numbers:
                await session.submit(Edit(prompt=f"snow {number}", image=photos[number % 10]))
                done += 1
        await asyncio.gather(*(starter() for _ in range(100)))
    store.path.write_text(json.dumps(store.known))
    print(done)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_an_edit_of_a_local_file_by_both_flows_and_the_key_goes_to_the_api_only(photos, tmp_path) -> None:
    async with Emulator() as emulator, session(emulator) as made:
        image = await made.edit(photos[0], "make it snow")
        await image.save(tmp_path / "a.jpg")
        emulator.faults.add("ticket", "status", status=404)
        image = await made.edit(photos[1], "make it snow")
        await image.save(tmp_path / "b.jpg")
        ledger = emulator.ledger
        assert (ledger.requests["put"], ledger.requests["upload"]) == (1, 1)
        assert ledger.keys == {KEY}
        assert ledger.key_leaks == []
        assert [path.read_bytes()[:3] for path in (tmp_path / "a.jpg", tmp_path / "b.jpg")] == [b"\xff\xd8\xff"] * 2


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
async def test_both_ways_of_an_output_and_its_provenance(tmp_path, output_format) -> None:
    async with Emulator() as emulator, session(emulator) as made:
        job = TextToImage(prompt="\u4e00\u53ea\u7ea2\u72d0\u72f8", seed=5, size=(256, 256), output_format=output_format)
        by_url = await made.run(job)
        by_text = await made.run(job.model_copy(update={"enable_base64_output": True}))
        plain = await by_url.outputs[0].bytes()
        assert await by_text.outputs[0].bytes() == plain
        assert (await by_text.outputs[0].pil()).size == (256, 256)
        from wavespeed_qwen_async.provenance import Provenance

        told = Provenance.of(by_url, price=0.025)
        path = await made._media.save(by_url.outputs[0], tmp_path / "a", provenance=told)
        assert extract(path.read_bytes())[1]["prompt"] == job.prompt


@pytest.mark.slow
async def test_a_thousand_rendered_outputs_through_every_fault(tmp_path) -> None:
    async with Emulator(blank=True, seed=3) as emulator, session(emulator, media={"embed": False}) as made:
        jobs = [TextToImage(prompt=f"fox {number}", seed=number) for number in range(1000)]
        outputs: list[Output] = []
        async for outcome in made.stream(jobs, max_in_flight=200):
            outputs.extend(outcome.unwrap().outputs)
        for fault, options in {
            "status": {"status": 500},
            "cut": {},
            "truncate": {},
            "html": {},
            "stall_body": {},
        }.items():
            emulator.faults.add("download", fault, probability=0.05, **options)
        emulator.faults.add("download", "status", status=404, probability=0.05)
        names = [f"{number}.jpg" for number in range(len(outputs))]
        await asyncio.gather(*(output.save(tmp_path / name) for output, name in zip(outputs, names, strict=True)))
        emulator.faults.clear()
        assert emulator.ledger.key_leaks == []
        async with aiohttp.ClientSession() as plain:
            for output, name in zip(outputs, names, strict=True):
                async with plain.get(str(output.url)) as answer:
                    served = await answer.read()
                assert hashlib.sha256((tmp_path / name).read_bytes()).digest() == hashlib.sha256(served).digest()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


async def test_edits_with_url_checks(photos) -> None:
    async with Emulator(blank=True) as emulator, session(emulator, media={"check_urls": True}) as made:
        url = await made.upload(photos[0])
        await made.run(Edit(prompt="snow", image=url))
        assert emulator.ledger.key_leaks == []
