"""Small images: many a trip to a thread, and under their names without a part file."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from media_server import padded_png

from wavespeed_qwen_async import errors
from wavespeed_qwen_async._media.files import PartFile, Workers, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.anyio

SMALL = padded_png(1, 100)


def _knows_nameless_files() -> bool:
    try:
        os.close(os.open(tempfile.gettempdir(), os.O_WRONLY | os.O_TMPFILE))
    except (AttributeError, OSError):
        return False
    return True


nameless = pytest.mark.skipif(not _knows_nameless_files(), reason="takes Linux and a file system that has them")


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(4)
    yield workers
    workers.close()


def refuse(number: int) -> Callable[..., Any]:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refused


class TestWithoutAPartFile:
    @nameless
    async def test_it_is_on_the_disk_before_it_has_a_name_and_after(self, media, world, tmp_path, monkeypatch) -> None:
        seen: list[Any] = []
        link, fsync = os.link, os.fsync

        def noted(source: str, target: Path, **options: Any) -> None:
            file = options["src_dir_fd"]
            seen.append((sorted(tmp_path.iterdir()), os.fstat(file).st_size, _flags_of(file) & os.O_SYNC))
            link(source, target, **options)

        def noted_sync(file: int) -> None:
            links, folder = os.fstat(file).st_nlink, stat.S_ISDIR(os.fstat(file).st_mode)
            seen.append("folder" if folder else f"file with {links} name")
            fsync(file)

        monkeypatch.setattr(os, "link", noted)
        monkeypatch.setattr(os, "fsync", noted_sync)
        path = await media.save(world.add("a.png", SMALL), tmp_path / "a.png")
        assert seen == [([], len(SMALL), os.O_SYNC), "file with 1 name", "folder"]
        assert path.read_bytes() == SMALL

    @pytest.mark.parametrize("call", ["open", "link", "writev"])
    @pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EPERM, errno.ENOENT])
    async def test_where_the_system_refuses_a_part_file_does(  # noqa: PLR0917 - fixtures
        self, media, world, tmp_path, monkeypatch, call, number
    ) -> None:
        real, refused = getattr(os, call), []

        def once(*given: Any, **options: Any) -> Any:
            if not refused:
                refused.append(1)
                refuse(number)()
            return real(*given, **options)

        (tmp_path / "first").mkdir()
        await media.save(world.add("b.png", SMALL), tmp_path / "first" / "b.png")  # what prepares the folder is done
        monkeypatch.setattr(os, call, once)
        path = await media.save(world.add("a.png", SMALL), tmp_path / "first" / "a.png")
        assert refused
        assert path.read_bytes() == SMALL
        assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["a.png", "b.png"]

    def test_on_other_systems_too(self, tmp_path, monkeypatch) -> None:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
        assert not write_whole(tmp_path / "a.png", [SMALL], overwrite=True)
        assert not list(tmp_path.iterdir())

    def test_a_write_that_stops_half_way_gets_no_name(self, tmp_path, monkeypatch) -> None:
        writev = os.writev
        monkeypatch.setattr(os, "writev", lambda file, pieces: writev(file, [pieces[0][:10]]))
        assert not write_whole(tmp_path / "a.png", [SMALL], overwrite=True)
        assert not list(tmp_path.iterdir())

    def test_no_bytes_are_no_image(self, tmp_path) -> None:
        assert not write_whole(tmp_path / "a.png", [], overwrite=True)
        assert not list(tmp_path.iterdir())

    @nameless
    async def test_a_disk_that_fails_at_the_last_is_told(self, media, world, tmp_path, monkeypatch) -> None:
        await media.save(world.add("b.png", SMALL), tmp_path / "b.png")
        monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
        with pytest.raises(errors.DownloadError, match="can't write .*Input/output error"):
            await media.save(world.add("a.png", SMALL), tmp_path / "a.png")

    async def test_what_is_there_is_replaced_whole_or_kept(self, media, world, tmp_path) -> None:
        target = tmp_path / "a.png"
        target.write_bytes(b"older")
        with pytest.raises(errors.DownloadError, match="exists, and overwrite=False"):
            await media.save(world.add("a.png", SMALL), target, overwrite=False)
        assert target.read_bytes() == b"older"
        await media.save(world.add("a.png", SMALL), target)
        assert target.read_bytes() == SMALL
        assert [path.name for path in tmp_path.iterdir()] == ["a.png"]

    @nameless
    def test_the_users_umask_decides_who_may_read_it(self, tmp_path) -> None:
        old = os.umask(0o027)
        try:
            done = write_whole(tmp_path / "a.png", [SMALL], overwrite=True)
        finally:
            os.umask(old)
        assert done
        assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


class TestTogether:
    async def test_much_at_a_time_takes_few_trips(self, workers) -> None:
        threads = _Trips(asyncio.get_running_loop())
        answers = await asyncio.gather(*(workers.run_along(pow, number, 2) for number in range(100)))
        assert answers == [number**2 for number in range(100)]
        assert threads.trips <= 10

    async def test_one_alone_sets_out_at_once(self, workers) -> None:
        threads = _Trips(asyncio.get_running_loop())
        assert await workers.run_along(pow, 3, 2) == 9
        assert threads.trips == 1

    @pytest.mark.real_clock
    async def test_behind_slow_trips_others_set_out_beside_them(self, workers) -> None:
        go = threading.Event()
        slow = []
        for _ in range(2):
            slow.append(asyncio.create_task(workers.run_along(go.wait)))
            await asyncio.sleep(0.01)
        try:
            async with asyncio.timeout(5):
                assert await workers.run_along(pow, 2, 2) == 4
            assert not any(task.done() for task in slow)
        finally:
            go.set()
            await asyncio.gather(*slow)

    @pytest.mark.real_clock
    async def test_no_more_trips_than_threads_set_out(self, workers) -> None:
        threads, go = _Trips(asyncio.get_running_loop()), threading.Event()
        slow = []
        try:
            for _ in range(8):
                slow.append(asyncio.create_task(workers.run_along(go.wait)))
                await asyncio.sleep(0.15)
            assert threads.trips == 4
        finally:
            go.set()
            await asyncio.gather(*slow)

    async def test_where_no_thread_can_be_started_each_is_told(self, workers, monkeypatch) -> None:
        def full(*_: Any) -> Any:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(asyncio.get_running_loop(), "run_in_executor", full)
            found = await asyncio.gather(*(workers.run_along(pow, 2, 2) for _ in range(40)), return_exceptions=True)
        assert {str(error) for error in found} == {"can't start new thread"}
        assert await workers.run_along(pow, 2, 2) == 4

    async def test_a_trip_of_the_cancelled_is_not_made(self, workers) -> None:
        threads = _Trips(asyncio.get_running_loop())
        tasks = [asyncio.create_task(workers.run_along(pow, 2, 2)) for _ in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await workers.run_along(pow, 3, 2) == 9
        assert threads.trips == 1

    async def test_an_error_is_its_callers_alone(self, workers) -> None:
        found = await asyncio.gather(
            *(workers.run_along(divmod, 1, number) for number in (1, 0, 2)), return_exceptions=True
        )
        assert (found[0], found[2]) == ((1, 0), (0, 1))
        assert isinstance(found[1], ZeroDivisionError)
        assert await workers.run_along(divmod, 7, 2) == (3, 1)

    @pytest.mark.real_clock
    async def test_a_slow_one_holds_up_its_own_trip_only(self, workers) -> None:
        go = threading.Event()
        slow = asyncio.create_task(workers.run_along(go.wait))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await workers.run_along(pow, 2, 2) == 4
        go.set()
        assert await slow

    async def test_cancelled_before_it_set_out_it_never_does(self, workers) -> None:
        done: list[int] = []
        tasks = [asyncio.create_task(workers.run_along(done.append, number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        assert done == [0, 2]
        assert tasks[1].cancelled()

    @pytest.mark.real_clock
    async def test_cancelled_on_the_way_it_waits_for_the_thread(self, workers) -> None:
        began, go, ended = threading.Event(), threading.Event(), []

        def slow() -> None:
            began.set()
            go.wait()
            ended.append(1)

        task = asyncio.create_task(workers.run_along(slow))
        await asyncio.to_thread(began.wait)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended


@pytest.mark.real_clock
async def test_large_images_do_not_wait_for_each_other(media, world, tmp_path, monkeypatch) -> None:
    go, finish = threading.Event(), PartFile.finish

    def held_up(part: PartFile, target: Path, **options: Any) -> None:
        if target.name != "last.png":
            go.wait()
        finish(part, target, **options)

    monkeypatch.setattr(PartFile, "finish", held_up)
    large = [world.add(f"{number}.png", padded_png(number, 1_000_000)) for number in range(5)]
    slow = [
        asyncio.create_task(media.save(output, tmp_path / f"{number}.png")) for number, output in enumerate(large[:4])
    ]
    try:
        async with asyncio.timeout(20):
            await media.save(large[4], tmp_path / "last.png")
        assert not any(task.done() for task in slow)
    finally:
        go.set()
        await asyncio.gather(*slow)


class _Trips:
    """Counts how often a loop sends work to a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.trips = 0
        send = loop.run_in_executor

        def counted(*given: Any) -> Any:
            self.trips += 1
            return send(*given)

        loop.run_in_executor = counted  # type: ignore[method-assign]


def _flags_of(file: int) -> int:
    with Path(f"/proc/self/fdinfo/{file}").open() as lines:
        return next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
