from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from media_server import KEY, client, padded_png, picture
from PIL import Image

from wavespeed_qwen_async import errors
from wavespeed_qwen_async._media import files as _files
from wavespeed_qwen_async._media.files import CHUNK, PART_PATTERN, PartFile, sweep
from wavespeed_qwen_async._retry import Retry
from wavespeed_qwen_async.models import TextToImage
from wavespeed_qwen_async.predictions import Output, Prediction
from wavespeed_qwen_async.provenance import Provenance, extract

pytestmark = pytest.mark.anyio

BIG = padded_png(1, 3_000_000)
SMALL = padded_png(1, 1000)
FAULTS = ["404", "500", "503", "429", "cut", "stall", "wrong-length", "html", "wrong-range"]


def test_part_files_of_forked_processes_have_other_names(tmp_path, monkeypatch):
    """Which count on from the same number."""
    monkeypatch.setattr(_files, "_numbers", count(2**64 - 1))
    first = PartFile(tmp_path)
    monkeypatch.setattr(_files, "_numbers", count(2**64 - 1))
    second = PartFile(tmp_path)
    assert left_in(tmp_path) == [f".wavespeed-{'0' * 16}.part", f".wavespeed-{'f' * 16}.part"]
    assert all(PART_PATTERN.fullmatch(name) for name in left_in(tmp_path))
    first.discard()
    second.discard()
    assert not left_in(tmp_path)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [0, 3_000_000])
async def test_an_output_comes_byte_for_byte_and_leaves_nothing_else(media, world, tmp_path, size) -> None:
    data = padded_png(1, size)
    output = world.add("a.png", data)
    path = await media.save(output, tmp_path / "new" / "folder" / "fox.png")
    assert path.read_bytes() == data
    assert left_in(tmp_path) == ["fox.png"]
    assert await media.read(output) == data
    assert (await media.open(output)).size == (64, 48)
    assert all(KEY not in repr(seen.headers) for seen in world.seen)


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_is_overcome(media, world, tmp_path, fault) -> None:
    output = world.add("a.png", BIG, "p1")
    world.scripts["/out/a.png"] = [fault] * 2
    path = await media.save(output, tmp_path / "fox.png")
    assert path.read_bytes() == BIG
    assert left_in(tmp_path) == ["fox.png"]
    world.scripts["/out/a.png"] = [fault] * 2
    assert await media.read(output) == BIG


async def test_no_more_than_a_few_chunks_are_in_memory(media, world, tmp_path, monkeypatch) -> None:
    data, sizes, write = padded_png(1, 19_000_000), [], PartFile.write

    def noted(self: PartFile, pieces: list[bytes]) -> None:
        sizes.append(sum(map(len, pieces)))
        write(self, pieces)

    monkeypatch.setattr(PartFile, "write", noted)
    told = Provenance(prediction_id="p1")
    await media.save(world.add("a.png", data), tmp_path / "a.png", provenance=told)
    assert sum(sizes) > 2 * len(data)  # what came, and the copy with the provenance
    assert max(sizes) < 2 * CHUNK


async def test_stalls_do_not_use_up_the_tries(world, tmp_path) -> None:
    output = world.add("a.png", BIG)
    world.etags = False  # so that no progress counts
    world.scripts["/out/a.png"] = ["stall"] * 5
    async with client(world, retry=Retry(read_budget=30.0)) as made:
        assert (await made.media.save(output, tmp_path / "a.png")).read_bytes() == BIG


@pytest.mark.slow
async def test_a_thousand_files_with_every_fault_are_right_to_the_byte(world, tmp_path) -> None:
    rng = random.Random(11)
    faults = ["404", "500", "cut", "wrong-length", "html", "stall"]
    met: Counter[str] = Counter()
    gone: dict[str, int] = {}

    def chance() -> str:
        draw = rng.random()
        fault = faults[int(draw / 0.05)] if draw < 0.05 * len(faults) else "ok"
        met[fault] += 1
        return fault

    world.chance = chance
    outputs = [world.add(f"{n}.png", padded_png(n, rng.randrange(200_000)), f"p{n}") for n in range(1000)]
    for number in range(0, 1000, 20):  # 5%: 404 for a while, not once
        world.scripts[f"/out/{number}.png"] = ["404"] * rng.randrange(2, 8)
        gone[f"{number}.png"] = 1
    async with client(world) as made:
        await asyncio.gather(*(made.media.save(output, tmp_path / f"{n}.png") for n, output in enumerate(outputs)))
    assert left_in(tmp_path) == sorted(f"{n}.png" for n in range(1000))
    for number in range(1000):
        served = hashlib.sha256(world.outputs[f"/out/{number}.png"]).digest()
        assert hashlib.sha256((tmp_path / f"{number}.png").read_bytes()).digest() == served
    assert all(met[fault] > 30 for fault in faults)
    assert all(KEY not in repr(seen.headers) for seen in world.seen if seen.host == "media")


class TestResume:
    async def test_a_cut_body_is_resumed_where_the_host_tells_its_version(self, media, world, tmp_path) -> None:
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = ["cut", "500", "stall"]
        assert (await media.save(output, tmp_path / "a.png")).read_bytes() == BIG
        asked = [seen.headers.get("Range") for seen in world.to("/out/")]
        half = f"bytes={len(BIG) // 2}-"
        assert asked == [None, half, half, half]
        assert world.seen[1].headers["If-Range"].startswith('"')

    async def test_without_a_version_it_begins_anew(self, media, world, tmp_path) -> None:
        world.etags = False
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = ["cut"]
        assert (await media.save(output, tmp_path / "a.png")).read_bytes() == BIG
        assert [seen.headers.get("Range") for seen in world.seen] == [None, None]

    @pytest.mark.parametrize("rest", [*FAULTS, "html-range", "cut-html-range", "long-range"])
    async def test_what_is_no_rest_is_not_put_behind_the_part(self, media, world, tmp_path, rest) -> None:
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = ["cut", rest] if rest == "long-range" else ["cut", rest, rest]
        assert (await media.save(output, tmp_path / "a.png")).read_bytes() == BIG

    @pytest.mark.parametrize("first", ["weak", "gzip"])
    async def test_a_part_of_uncertain_bytes_is_not_gone_on_with(self, media, world, tmp_path, first) -> None:
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = [first]
        assert (await media.save(output, tmp_path / "a.png")).read_bytes() == BIG
        assert not any("Range" in seen.headers for seen in world.seen)

    async def test_a_part_that_the_host_has_no_rest_for_is_dropped(self, media, world, tmp_path) -> None:
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = ["cut", "416"]
        assert (await media.save(output, tmp_path / "a.png")).read_bytes() == BIG
        assert ["Range" in seen.headers for seen in world.seen] == [False, True, False]

    async def test_another_version_is_taken_whole(self, media, world, tmp_path) -> None:
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = ["cut"]
        saving = asyncio.create_task(media.save(output, tmp_path / "a.png"))
        while not world.seen:  # noqa: ASYNC110 - the other side is no task of ours
            await asyncio.sleep(0.001)
        world.outputs["/out/a.png"] = padded_png(2, 2_900_000)
        assert (await saving).read_bytes() == padded_png(2, 2_900_000)
        assert world.seen[-1].headers["Range"]

    async def test_progress_renews_the_budget(self, world, tmp_path) -> None:
        output = world.add("a.png", BIG)

        async def dribble(request: web.Request) -> web.StreamResponse:
            start = request.http_range.start or 0
            response = web.StreamResponse(status=206 if start else 200, headers={"ETag": '"x"'})
            response.content_length = len(BIG) - start
            response.headers["Content-Range"] = f"bytes {start}-{len(BIG) - 1}/{len(BIG)}"
            await response.prepare(request)
            await asyncio.sleep(15)
            await response.write(BIG[start : start + 400_000])
            await asyncio.sleep(0.01)
            if request.transport is not None and start + 400_000 < len(BIG):
                request.transport.abort()
            return response

        app = web.Application()
        app.router.add_get("/{tail:.*}", dribble)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        slow = Output(f"http://127.0.0.1:{runner.addresses[0][1]}/a.png", index=output.index)
        async with client(world, retry=Retry(read_budget=30.0)) as made:
            assert (await made.media.save(slow, tmp_path / "a.png")).read_bytes() == BIG
        await runner.cleanup()


class TestAnotherUrl:
    async def test_a_url_that_is_gone_is_asked_for_again_by_the_predictions_id(self, media, world, tmp_path) -> None:
        output = world.add("old.png", picture(), "p1")
        del world.outputs["/out/old.png"]
        world.add("new.png", BIG, "p1")
        assert (await media.save(output, tmp_path / "a.png")).read_bytes() == BIG
        assert any(seen.headers.get("Authorization") == f"Bearer {KEY}" for seen in world.to("/predictions/p1/"))

    async def test_at_once_where_the_host_says_gone(self, media, world, tmp_path) -> None:
        output = world.add("old.png", picture(), "p1")
        world.scripts["/out/old.png"] = ["410"] * 9
        world.add("new.png", BIG, "p1")
        await media.save(output, tmp_path / "a.png")
        assert len(world.to("/out/old.png")) == 1

    async def test_an_api_that_does_not_answer_is_no_harm(self, media, world, tmp_path) -> None:
        output = world.add("a.png", BIG, "p1")
        world.scripts["/out/a.png"] = ["404"] * 4
        world.scripts["result"] = ["500"] * 9
        assert (await media.save(output, tmp_path / "a.png")).read_bytes() == BIG

    async def test_one_that_comes_as_base64_is_taken(self, media, world, tmp_path) -> None:
        output = world.add("a.png", picture(), "p1")
        world.scripts["/out/a.png"] = ["410"] * 9
        world.fresh["p1"] = [base64.b64encode(BIG).decode()]
        assert (await media.save(output, tmp_path / "a.png")).read_bytes() == BIG

    async def test_a_prediction_that_nobody_knows_any_more_ends_it(self, media, world, tmp_path) -> None:
        output = world.add("a.png", BIG, "p1")
        world.scripts["/out/a.png"] = ["410"] * 9
        world.scripts["result"] = ["404"]
        with pytest.raises(errors.DownloadError) as caught:
            await media.save(output, tmp_path / "a.png")
        assert (caught.value.billed, caught.value.prediction_id, caught.value.transient) == ("yes", "p1", False)

    @pytest.mark.parametrize(("status", "most"), [("403", 3), ("404", 200)])
    async def test_in_the_end_it_is_given_up(self, world, tmp_path, status, most) -> None:
        output = world.add("a.png", BIG, "p1")
        world.scripts["/out/a.png"] = [status] * 999
        began = asyncio.get_running_loop().time()
        async with client(world) as made:
            with pytest.raises(errors.DownloadError, match=f"HTTP {status}.*paid") as caught:
                await made.media.save(output, tmp_path / "a.png")
        assert (caught.value.billed, caught.value.prediction_id, caught.value.status) == ("yes", "p1", int(status))
        assert "\n" not in caught.value.message
        assert asyncio.get_running_loop().time() - began <= 120
        assert len(world.to("/out/")) <= most
        assert left_in(tmp_path) == []


class TestRedirects:
    async def test_they_are_followed_and_without_the_key(self, media, world, tmp_path) -> None:
        output = world.add("a.png", picture())
        world.add("b.png", BIG)
        there = f"{world.media_url.replace('127.0.0.1', 'localhost')}/out/b.png"
        world.scripts["/out/a.png"] = [there]
        assert (await media.save(output, tmp_path / "a.png")).read_bytes() == BIG
        assert all(KEY not in repr(seen.headers) for seen in world.seen)

    async def test_not_even_back_to_the_api(self, media, world, tmp_path) -> None:
        output = world.add("a.png", BIG)
        world.fresh["p9"] = ["x"]
        world.scripts["/out/a.png"] = [f"{world.api_url}/api/v3/predictions/p9/result"]
        assert (await media.save(output, tmp_path / "a.png")).read_bytes() == BIG
        [seen] = world.to("/predictions/")
        assert "Authorization" not in seen.headers

    @pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/a.png"])
    async def test_to_http_only(self, media, world, tmp_path, where) -> None:
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = [where] * 99
        with pytest.raises(errors.DownloadError):
            await media.save(output, tmp_path / "a.png")
        assert len(world.seen) == 3

    async def test_a_circle_ends(self, media, world, tmp_path) -> None:
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = [f"{world.media_url}/out/a.png"] * 99
        with pytest.raises(errors.DownloadError):
            await media.save(output, tmp_path / "a.png")
        assert len(world.seen) < 25


@pytest.mark.parametrize("told", [True, False])
async def test_what_is_too_large_is_not_taken(world, tmp_path, told) -> None:
    output = world.add("a.png", BIG)
    async with client(world, max_bytes=1_000_000) as made:
        with pytest.raises(errors.DownloadError, match="larger than 1000000 bytes"):
            await made.media.save(output, tmp_path / "a.png")
    assert len(world.seen) == 1
    assert left_in(tmp_path) == []


async def test_an_output_of_nothing(media, tmp_path) -> None:
    with pytest.raises(errors.DownloadError, match="neither URL nor data"):
        await media.save(Output(None), tmp_path / "a.png")


async def test_a_url_that_can_not_be_read(media, tmp_path) -> None:
    with pytest.raises(errors.DownloadError, match="can't be read"):
        await media.save(Output("http://[broken/a.png", prediction_id="p"), tmp_path / "a.png")


class TestBase64:
    @pytest.mark.parametrize("start", ["", "data:image/png;base64,"])
    async def test_it_goes_the_same_way(self, media, tmp_path, start) -> None:
        prediction = Prediction(
            id="p1",
            status="completed",
            outputs=[start + base64.b64encode(BIG).decode(), base64.b64encode(picture()).decode()],
        )
        first, second = prediction.outputs
        assert (await media.save(first, tmp_path / "a.png")).read_bytes() == BIG
        assert await media.read(second) == picture()
        assert (await media.open(second)).size == (64, 48)
        assert left_in(tmp_path) == ["a.png"]

    @pytest.mark.parametrize("data", [b"<html>", b"", BIG[:-500]])
    async def test_what_is_no_whole_image_is_refused(self, media, tmp_path, data) -> None:
        output = Output(None, base64.b64encode(data).decode(), prediction_id="p1")
        with pytest.raises(errors.DownloadError) as caught:
            await media.save(output, tmp_path / "a.png")
        assert (caught.value.billed, caught.value.prediction_id) == ("yes", "p1")
        assert left_in(tmp_path) == []

    async def test_what_is_no_base64_is_refused(self, media, tmp_path) -> None:
        with pytest.raises(errors.DownloadError, match="no valid base64"):
            await media.save(Output(None, "!!!"), tmp_path / "a.png")


class TestTheDisk:
    async def test_it_is_on_the_disk_before_it_gets_its_name(self, media, world, tmp_path, monkeypatch) -> None:
        done: list[str] = []
        fsync, replace = os.fsync, Path.replace

        def noted_fsync(file: int) -> None:
            done.append("folder" if Path(f"/proc/self/fd/{file}").is_dir() else "file")
            fsync(file)

        def noted_replace(self: Path, target: Path) -> Any:
            done.append("rename")
            return replace(self, target)

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(Path, "replace", noted_replace)
        await media.save(world.add("a.png", BIG), tmp_path / "a.png")
        assert done == ["file", "rename", "folder"]

    @pytest.mark.parametrize("size", [0, 3_000_000])
    async def test_a_full_disk_is_one_clear_line_and_leaves_nothing(
        self, media, world, tmp_path, monkeypatch, size
    ) -> None:
        def full(file: int, pieces: list[bytes]) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "writev", full)
        with pytest.raises(
            errors.DownloadError, match="^can't write .*: No space left on device; the image is paid"
        ) as caught:
            await media.save(world.add("a.png", padded_png(1, size), "p1"), tmp_path / "a.png")
        assert (caught.value.billed, caught.value.prediction_id, caught.value.transient) == ("yes", "p1", False)
        assert "\n" not in caught.value.message
        assert left_in(tmp_path) == []
        assert len(world.seen) == 1  # not taken for trouble of the network
        monkeypatch.undo()
        assert (
            await media.save(Output(world.seen[0].path and f"{world.media_url}/out/a.png"), tmp_path / "a.png")
        ).exists()

    @pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs /sys, where not even root may write")
    async def test_a_folder_that_can_not_be_written_is_one_clear_line(self, media, world) -> None:
        with pytest.raises(errors.DownloadError, match="can't write /sys/kernel/a.png: Permission denied"):
            await media.save(world.add("a.png", BIG), "/sys/kernel/a.png")

    async def test_a_folder_in_the_way_is_said_before_fetching(self, media, world, tmp_path) -> None:
        for path in (tmp_path, tmp_path / "file" / "a.png"):
            (tmp_path / "file").write_bytes(b"")
            with pytest.raises(errors.DownloadError, match="can't write"):
                await media.save(world.add("a.png", BIG), path)
        assert world.seen == []

    async def test_what_is_there_is_replaced_or_kept_as_told(self, media, world, tmp_path) -> None:
        output = world.add("a.png", BIG)
        target = tmp_path / "a.png"
        target.write_bytes(b"old")
        with pytest.raises(errors.DownloadError, match="exists"):
            await media.save(output, target, overwrite=False)
        assert target.read_bytes() == b"old"
        assert world.seen == []
        await media.save(output, target)
        assert target.read_bytes() == BIG

    async def test_two_that_want_one_new_name_do_not_overwrite_each_other(self, media, world, tmp_path) -> None:
        outputs = [world.add(f"{n}.png", padded_png(n, 100_000)) for n in range(5)]
        found = await asyncio.gather(
            *(media.save(output, tmp_path / "a.png", overwrite=False) for output in outputs), return_exceptions=True
        )
        assert Counter(type(one) for one in found)[errors.DownloadError] == 4
        assert left_in(tmp_path) == ["a.png"]

    async def test_a_file_system_without_hard_links_will_do(self, media, world, tmp_path, monkeypatch) -> None:
        def refuse(self: Path, target: Path) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
        await media.save(world.add("a.png", BIG), tmp_path / "a.png", overwrite=False)

        def another() -> None:
            part = PartFile(tmp_path)
            with pytest.raises(FileExistsError):
                part.finish(tmp_path / "a.png", overwrite=False)
            part.discard()

        await asyncio.to_thread(another)
        assert left_in(tmp_path) == ["a.png"]

    async def test_the_users_umask_decides_who_may_read_it(self, media, world, tmp_path) -> None:
        old = os.umask(0o027)
        try:
            path = await media.save(world.add("a.png", BIG), tmp_path / "a.png")
        finally:
            os.umask(old)
        assert path.stat().st_mode & 0o777 == 0o640

    @pytest.mark.parametrize("moment", [0.0, 0.001, 0.02, 1.0])
    async def test_cancelled_it_leaves_nothing(self, media, world, tmp_path, moment) -> None:
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = ["stall"]
        saving = asyncio.create_task(media.save(output, tmp_path / "a.png"))
        await asyncio.sleep(moment)
        saving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saving
        assert left_in(tmp_path) == []

    async def test_cancelled_in_the_middle_of_a_write_it_waits_for_the_thread(
        self, media, world, tmp_path, monkeypatch
    ) -> None:
        import threading
        import time

        began, ended = threading.Event(), threading.Event()
        write = PartFile.write

        def slow(self: PartFile, pieces: list[bytes]) -> None:
            began.set()
            time.sleep(0.2)
            write(self, pieces)
            ended.set()

        monkeypatch.setattr(PartFile, "write", slow)
        saving = asyncio.create_task(media.save(world.add("a.png", BIG), tmp_path / "a.png"))
        await asyncio.to_thread(began.wait)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert ended.is_set()
        assert left_in(tmp_path) == []


class TestPatience:
    """A client that waits 15 s for a connection and 20 s between two pieces."""

    async def test_a_host_that_says_nothing_is_asked_again(self, media, world, tmp_path) -> None:
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = ["mute"]
        began = now()
        path = await media.save(output, tmp_path / "a.png")
        assert path.read_bytes() == BIG
        assert 35 <= now() - began < 40

    async def test_one_that_sends_nothing_more_is_asked_again(self, media, world, tmp_path) -> None:
        output = world.add("a.png", BIG)
        world.scripts["/out/a.png"] = ["stall"]
        began = now()
        await media.save(output, tmp_path / "a.png")
        assert 20 <= now() - began < 25

    async def test_a_slow_one_has_ten_times_as_long_and_no_longer(self, media, world, tmp_path) -> None:
        output = world.add("a.png", SMALL)
        world.scripts["/out/a.png"] = ["trickle"]  # 1,000 s for the whole
        began = now()
        path = await media.save(output, tmp_path / "a.png")
        assert path.read_bytes() == SMALL
        assert 200 <= now() - began < 220
        assert len(world.to("/out/a.png")) == 2


def now() -> float:
    return asyncio.get_running_loop().time()


class TestWhatTheKilledLeave:
    def test_part_files_nobody_holds_are_swept_and_others_stay(self, tmp_path) -> None:
        held = PartFile(tmp_path)
        stale = PartFile(tmp_path)
        held.write([b"x"])
        os.close(stale._file)  # as a kill does
        stale._file = -1
        other = tmp_path / ".wavespeed-mine.part"
        other.write_bytes(b"not ours")
        assert sweep(tmp_path) == 1
        assert left_in(tmp_path) == sorted([held.path.name, other.name])
        held.finish(tmp_path / "a", overwrite=True)
        assert (tmp_path / "a").read_bytes() == b"x"

    def test_one_swept_before_it_was_locked_is_made_again(self, tmp_path, monkeypatch) -> None:
        flock = _files.fcntl.flock
        swept = []

        def late(file: int, how: int) -> None:
            if not swept:
                swept.append(1)
                next(tmp_path.iterdir()).unlink()
            flock(file, how)

        monkeypatch.setattr(_files.fcntl, "flock", late)
        part = PartFile(tmp_path)
        part.finish(tmp_path / "a", overwrite=True)
        assert left_in(tmp_path) == ["a"]

    @pytest.mark.real_clock
    async def test_a_killed_process_leaves_no_half_file_and_the_next_save_clears_up(
        self, media, world, tmp_path
    ) -> None:
        world.add("a.png", BIG)
        world.scripts["/out/a.png"] = ["stall"]
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _CHILD,
            world.api_url,
            f"{world.media_url}/out/a.png",
            str(tmp_path),
            stdout=subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            while not any(path.stat().st_size for path in tmp_path.iterdir()):  # noqa: ASYNC110 - a child's
                await asyncio.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        await child.communicate()
        [part] = left_in(tmp_path)
        assert PART_PATTERN.fullmatch(part)
        await media.save(Output(f"{world.media_url}/out/a.png"), tmp_path / "b.png")
        assert left_in(tmp_path) == ["b.png"]


_CHILD = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from media_server import World, client, Output
async def main():
    world = World(api_url=sys.argv[1])
    async with client(world) as made:
        await made.media.save(Output(sys.argv[2]), sys.argv[3] + "/a.png")
asyncio.run(main())
"""


class TestNsfw:
    @pytest.mark.parametrize(
        ("policy", "flag", "saved"),
        [
            ("keep", True, True),
            ("skip", True, False),
            ("fail", True, False),
            ("skip", False, True),
            ("fail", None, True),
        ],
    )
    async def test_flagged_outputs_are_kept_skipped_or_refused(self, world, tmp_path, policy, flag, saved) -> None:
        plain = world.add("a.png", BIG, "p1")
        output = Output(plain.url, nsfw=flag, prediction_id="p1")
        async with client(world, nsfw=policy) as made:
            assert made.media.skips(output) is not saved
            if saved:
                await made.media.save(output, tmp_path / "a.png")
                made.media.check(output)
                return
            for call in (made.media.save(output, tmp_path / "a.png"), made.media.read(output), made.media.open(output)):
                with pytest.raises(errors.ContentFlaggedError) as caught:
                    await call
                assert (caught.value.billed, caught.value.prediction_id) == ("yes", "p1")
            with pytest.raises(errors.ContentFlaggedError) if policy == "fail" else contextlib.nullcontext():
                made.media.check(output)
        assert world.seen == []
        assert left_in(tmp_path) == []

    async def test_the_policy_is_one_of_three(self, world) -> None:
        with pytest.raises(errors.ConfigurationError, match="nsfw"):
            async with client(world, nsfw="drop"):
                pass


class TestSlots:
    async def test_no_more_downloads_at_once_than_told(self, world, tmp_path) -> None:
        outputs = [world.add(f"{n}.png", padded_png(n, 300_000)) for n in range(20)]
        most = 0
        async with client(world, downloads=3) as made:
            slots = made.api.limits.downloads

            def chance() -> str:
                nonlocal most
                most = max(most, slots.in_use)
                return "ok"

            world.chance = chance
            await asyncio.gather(*(made.media.save(output, tmp_path / f"{n}") for n, output in enumerate(outputs)))
            assert slots.in_use == 0
        assert most == 3

    async def test_one_that_waits_for_its_next_try_holds_none(self, world, tmp_path) -> None:
        slow, quick = world.add("a.png", BIG), world.add("b.png", BIG)
        world.scripts["/out/a.png"] = ["404"] * 5
        async with client(world, downloads=1) as made:
            waiting = asyncio.create_task(made.media.save(slow, tmp_path / "a.png"))
            await made.media.save(quick, tmp_path / "b.png")
            assert not waiting.done()
            await waiting


async def test_provenance_is_written_and_can_be_left_out(world, tmp_path) -> None:
    job = TextToImage(prompt="a fox", seed=3)
    prediction = Prediction(id="p1", status="completed", outputs=[]).bound(job, None)
    told = Provenance.of(prediction, price=0.025)
    for size in (0, 3_000_000):
        plain = padded_png(1, size)
        output = world.add("a.png", plain, "p1")
        async with client(world) as made:
            data = (await made.media.save(output, tmp_path / "a.png", provenance=told)).read_bytes()
            bare = (await made.media.save(output, tmp_path / "b.png")).read_bytes()
        async with client(world, embed=False) as made:
            off = (await made.media.save(output, tmp_path / "c.png", provenance=told)).read_bytes()
        assert bare == off == plain
        assert extract(data)[1]["prediction_id"] == "p1"
        assert Image.open(io.BytesIO(data)).tobytes() == Image.open(io.BytesIO(plain)).tobytes()
        assert left_in(tmp_path) == ["a.png", "b.png", "c.png"]


async def test_without_pillow_open_says_what_to_install(media, world, monkeypatch) -> None:
    output = world.add("a.png", BIG)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(errors.ConfigurationError, match=r"wavespeed-qwen-async\[images\]"):
        await media.open(output)


async def test_an_image_that_is_whole_but_broken_is_a_download_error(media, world) -> None:
    broken = bytearray(picture())
    broken[40:60] = bytes(20)
    with pytest.raises(errors.DownloadError, match="can't be decoded"):
        await media.open(world.add("a.png", bytes(broken)))


async def test_after_the_session_is_closed_an_output_is_still_said_to_be_paid(world, tmp_path) -> None:
    output = world.add("a.png", BIG, "p1")
    async with client(world) as made:
        pass
    with pytest.raises(errors.DownloadError) as caught:
        await made.media.save(output, tmp_path / "a.png")
    assert caught.value.billed == "yes"
