"""The batch over workers, without Ray: who dies when, and what is paid."""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left

import pytest
from ray_local import jobs_of

from wavespeed_qwen_async import AuthenticationError, DownloadError

pytestmark = pytest.mark.anyio


def assert_each_once(cluster, count):
    assert sorted(row["index"] for row in cluster.rows) == list(range(count))
    assert {row["status"] for row in cluster.rows} == {"saved"}
    assert all((cluster.out / row["file"]).stat().st_size for row in cluster.rows)
    ledger = cluster.emulator.ledger
    assert not ledger.doubles()
    assert {row["prediction_id"] for row in cluster.rows} == {accepted.id for accepted in ledger.accepted}


async def test_workers_share_a_batch(clustered):
    async with clustered() as cluster:
        cluster.start(jobs_of(100))
        cluster.work(4)
        await cluster.read()
        assert_each_once(cluster, 100)
        assert cluster.summary.saved == 100
        assert all(link.calls > 3 for link in cluster.links.values())


@pytest.mark.slow
async def test_a_worker_asks_twice_a_second_however_many_jobs_it_does(clustered, virtual_clock):
    async with clustered(limits={"max_per_minute": 3000, "max_in_flight": 3000}) as cluster:
        cluster.start(jobs_of(400))
        began = virtual_clock.elapsed
        cluster.work(3)
        await cluster.read()
        seconds = virtual_clock.elapsed - began
        assert_each_once(cluster, 400)
        calls = [link.calls for link in cluster.links.values()]
    assert max(calls) < 2.5 * seconds < 70


@pytest.mark.slow
@pytest.mark.wavespeed_emulator(tier=None, max_per_minute=120, max_in_flight=60)
async def test_fifty_workers_hold_the_limit_and_use_it(clustered, emulator):
    async with clustered(limits={"max_per_minute": 120, "max_in_flight": 60}) as cluster:
        cluster.start(jobs_of(200))
        cluster.work(50)
        await cluster.read()
        assert_each_once(cluster, 200)
    assert emulator.ledger.refused == {}
    times = emulator.ledger.accepted_times
    assert max(bisect_left(times, at + 60.0) - place for place, at in enumerate(times)) <= 120
    assert emulator.ledger.peak_in_flight() <= 60
    assert (len(times) - 1) / (times[-1] - times[0]) * 60 >= 0.95 * 120


async def test_a_worker_that_dies_with_submits_on_the_way_loses_and_doubles_none(clustered, emulator):
    """Accepted, and the answer never came to anybody: each is found in the account's list."""
    async with clustered(limits={"max_per_minute": 300, "max_in_flight": 100}) as cluster:
        cluster.start(jobs_of(120))
        cluster.work(2)
        await cluster.read(most=5)
        emulator.faults.add("submit", "slow_headers", seconds=2.0)
        await asyncio.sleep(1.0)
        await cluster.stop("w0")
        assert emulator.ledger.faults
        emulator.faults.clear()
        await cluster.read()
        assert_each_once(cluster, 120)


async def test_a_submit_that_never_left_with_its_worker_is_sent_again_once(clustered, emulator):
    """Dropped before it was looked at, its worker gone: the list shows that it never arrived."""
    async with clustered(limits={"max_per_minute": 300, "max_in_flight": 100}) as cluster:
        cluster.start(jobs_of(120))
        cluster.work(2)
        await cluster.read(most=5)
        emulator.faults.add("submit", "delay", seconds=30.0)  # the process ends meanwhile, and its connections
        await asyncio.sleep(1.0)
        await cluster.stop("w0")
        assert emulator.ledger.faults
        emulator.faults.clear()
        await cluster.read()
        assert_each_once(cluster, 120)


async def test_a_worker_cut_off_sends_nothing_late_and_its_jobs_are_done_by_others(clustered, virtual_clock):
    async with clustered() as cluster:
        cluster.start(jobs_of(120))
        cluster.work(3)
        await cluster.read(most=20)
        cluster.links["w0"].cut = True
        await asyncio.sleep(40)
        cluster.links["w0"].cut = False  # it was only thought dead, and comes back
        await cluster.read()
        assert_each_once(cluster, 120)


async def test_a_coordinator_that_dies_goes_on_from_its_journal(clustered, emulator):
    async with clustered() as cluster:
        jobs = jobs_of(150)
        cluster.start(jobs)
        cluster.work(3)
        await cluster.read(most=30)
        await cluster.kill()
        told = len(cluster.rows)
        await asyncio.sleep(5)
        cluster.start(jobs)
        await cluster.read()
        assert told < 150
        assert_each_once(cluster, 150)


@pytest.mark.wavespeed_emulator(tier=None, max_per_minute=100)
async def test_the_window_goes_on_over_a_coordinators_death(clustered, emulator):
    async with clustered(limits={"max_per_minute": 100, "max_in_flight": 100, "burst": True}) as cluster:
        jobs = jobs_of(180)
        cluster.start(jobs)
        cluster.work(3)
        await cluster.read(most=50)
        await cluster.kill()
        cluster.start(jobs)
        await cluster.read()
        assert_each_once(cluster, 180)
    assert emulator.ledger.refused == {}
    assert emulator.ledger.peak_submits() <= 100


async def test_nobody_works_for_a_while_and_nothing_is_given_up(clustered, virtual_clock):
    async with clustered() as cluster:
        cluster.start(jobs_of(20))
        await cluster.coordinator.begin()
        await asyncio.sleep(3600)
        cluster.work(1)
        await cluster.read()
        assert_each_once(cluster, 20)


async def test_a_reader_that_takes_its_time_slows_the_submits(clustered, emulator):
    async with clustered(unread=20, batch={"max_in_flight": 10}) as cluster:
        cluster.start(jobs_of(100))
        cluster.work(1)
        await cluster.coordinator.begin()
        await asyncio.sleep(600)
        assert 20 <= len(emulator.ledger.accepted_times) <= 20 + 10 + 1
        await cluster.read()
        assert_each_once(cluster, 100)


async def test_a_wrong_key_ends_the_run_with_its_error(clustered, emulator):
    emulator.faults.add("submit", "status", status=401)
    async with clustered() as cluster:
        cluster.start(jobs_of(10))
        cluster.work(1)
        with pytest.raises(AuthenticationError):
            await cluster.read()


async def test_a_failed_job_is_told_with_its_money(clustered, emulator):
    emulator.faults.add("submit", "status", status=400, nth=3)
    async with clustered() as cluster:
        cluster.start(jobs_of(10))
        cluster.work(1)
        await cluster.read()
    (failed,) = [row for row in cluster.rows if not row["ok"]]
    assert (failed["status"], failed["error"]["billed"], failed["price"]) == ("failed", "no", 0.0)
    assert len(emulator.ledger.accepted) == 9


async def test_a_disk_that_is_full_on_a_worker_ends_the_run_before_more_is_paid(clustered, emulator, tmp_path):
    (tmp_path / "file").write_text("no folder")
    async with clustered() as cluster:
        cluster.start(jobs_of(600))
        cluster.work(1, out=str(tmp_path / "file" / "images"))
        with pytest.raises(DownloadError, match="Not a directory"):
            await cluster.read()
    assert len(emulator.ledger.accepted) < 600


async def test_images_go_to_any_file_system(clustered, emulator):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'wavespeed-qwen-async[ray]'")
    async with clustered() as cluster:
        cluster.start(jobs_of(12))
        cluster.work(2, out="memory://bucket/images")
        await cluster.read()
    files = fsspec.filesystem("memory").find("/bucket/images")
    assert sorted(files) == sorted(f"/bucket/images/{row['file']}" for row in cluster.rows)
    assert all(fsspec.filesystem("memory").cat(file).startswith(b"\xff\xd8") for file in files)


async def test_a_place_that_can_not_be_written_leaves_the_images_to_the_next_run(clustered, emulator):
    pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'wavespeed-qwen-async[ray]'")
    async with clustered() as cluster:
        cluster.start(jobs_of(3))
        cluster.work(1, out="nosuchthing://bucket/images")
        await cluster.read()
        assert cluster.rows == []
        assert cluster.summary.open == 3


async def test_the_manifest_has_a_row_for_each_job(clustered, emulator, tmp_path):
    parquet = pytest.importorskip(
        "pyarrow.parquet", reason="pyarrow is not installed: pip install 'wavespeed-qwen-async[ray]'"
    )
    emulator.faults.add("submit", "status", status=400, nth=2)
    async with clustered(manifest=str(tmp_path / "manifest.parquet")) as cluster:
        cluster.start(jobs_of(5))
        cluster.work(1)
        await cluster.read()
        assert await cluster.coordinator.manifest() == 5
    rows = parquet.read_table(tmp_path / "manifest.parquet").to_pylist()
    assert {row["prompt"] for row in rows} == {job["prompt"] for job in jobs_of(5)}
    assert sorted(row["status"] for row in rows) == ["failed", "saved", "saved", "saved", "saved"]
    assert all(json.loads(row["inputs"])["seed"] == row["seed"] for row in rows if row["status"] == "saved")
    assert {row["billed"] for row in rows} == {"no", "yes"}
