"""What durability costs: jobs/s and CPU with and without a journal, and how fast a journal of a million rows resumes.

python benchmarks/durable.py costs [JOBS]     zero-latency server in a process of its own, fsync on; scripts beside it
python benchmarks/durable.py resume [ROWS]    a folder with ROWS saved jobs and one new line behind them
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import aiohttp
import clients

from wavespeed_qwen_async import Limits, QwenImageSession
from wavespeed_qwen_async.bulk import Batch
from wavespeed_qwen_async.bulk._digests import mark_of
from wavespeed_qwen_async.bulk._formats import READERS
from wavespeed_qwen_async.bulk._states import State
from wavespeed_qwen_async.bulk._store import Store
from wavespeed_qwen_async.bulk.journal import JOURNAL_NAME, RESULTS_NAME
from wavespeed_qwen_async.bulk.sources import _CHUNK

IN_FLIGHT = 200
SERVER = """
import asyncio
from wavespeed_qwen_async.emulator import Emulator
async def main():
    async with Emulator(inference=(0.0, 0.0), blank=True) as emulator:
        print(emulator.url, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


class Server:
    def __enter__(self) -> str:
        self.child = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
        return self.child.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()


def opened(url: str) -> QwenImageSession:
    limits = Limits(max_per_minute=10_000_000, max_in_flight=IN_FLIGHT, burst=True, downloads=64)
    return QwenImageSession(api_key="k", base_url=url, limits=limits)


def prompts(count: int):
    return ({"prompt": f"picture {number}", "size": "256*256"} for number in range(count))


async def stream(url: str, _: Path, count: int) -> float:
    """The same jobs by `stream`, and nothing kept."""
    async with opened(url) as session:
        began = time.perf_counter()
        async with aclosing(session.stream(prompts(count))) as outcomes:
            async for outcome in outcomes:
                assert outcome.ok, outcome.error
        return count / (time.perf_counter() - began)


async def without_journal(url: str, folder: Path, count: int) -> float:
    """A batch's work by `stream`: submitted, awaited, saved with its making written into it, as many at a time."""
    async with opened(url) as session:
        room, saving = asyncio.Semaphore(64), set()

        def saved(task: asyncio.Task) -> None:
            saving.discard(task)
            room.release()

        began = time.perf_counter()
        async with aclosing(session.stream(prompts(count))) as outcomes:
            async for outcome in outcomes:
                await room.acquire()
                saving.add(task := asyncio.create_task(outcome.prediction.save(folder / f"{outcome.index:06d}.jpg")))
                task.add_done_callback(saved)
        if saving:
            await asyncio.wait(saving)
        return count / (time.perf_counter() - began)


async def journal_alone(url: str, folder: Path, count: int) -> float:
    """Raw overhead with a journal: a batch that writes down all it does, but fetches no image."""

    async def unfetched(_: object, path: Path, **__: object) -> Path:
        return path

    return await with_journal(url, folder, count, save=unfetched)


async def with_journal(url: str, folder: Path, count: int, save=None) -> float:
    async with opened(url) as session:
        if save is not None:
            session._media.save = save  # noqa: SLF001 - there is no batch without images
        batch = Batch(prompts(count), folder, session)
        began = time.perf_counter()
        async with aclosing(batch.run()) as outcomes:
            async for outcome in outcomes:
                assert outcome.ok, outcome.error
        return count / (time.perf_counter() - began)


async def script(url: str, _: Path, count: int) -> float:
    """What one writes by hand, as in the other benchmarks: submit and result, nothing kept."""
    began = time.perf_counter()
    await clients.script(clients.Work(url, "", count, IN_FLIGHT, poll=0.0))
    return count / (time.perf_counter() - began)


async def script_that_saves(url: str, folder: Path, count: int) -> float:
    """The same, and each image is fetched and written to a file; nothing makes it whole or durable."""
    slots, began = asyncio.Semaphore(IN_FLIGHT), time.perf_counter()
    async with aiohttp.ClientSession(
        headers={"Authorization": "Bearer k"}, connector=aiohttp.TCPConnector(limit=0)
    ) as web:

        async def job(index: int) -> None:
            body = {"prompt": f"picture {index}", "seed": index, "size": "256*256"}
            async with slots:
                async with web.post(f"{url}/api/v3/{clients.MODEL}", json=body) as answer:
                    data = (await answer.json())["data"]
                while data["status"] not in {"completed", "failed"} or not data["outputs"]:
                    async with web.get(f"{url}/api/v3/predictions/{data['id']}/result") as answer:
                        data = (await answer.json())["data"]
                async with web.get(data["outputs"][0]) as answer:
                    image = await answer.read()
                (folder / f"{index:06d}.jpg").write_bytes(image)

        await asyncio.gather(*(job(index) for index in range(count)))
    return count / (time.perf_counter() - began)


KINDS = {
    "script": script,
    "stream": stream,
    "journal alone": journal_alone,
    "script that saves": script_that_saves,
    "without a journal": without_journal,
    "batch": with_journal,
}


def measured(count: int, rounds: int, *kinds: str) -> dict[str, tuple[float, float]]:
    """Median jobs/s and ms CPU a job of each, in turns, since the machine is shared; the first turn warms up."""
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    # Removed at the end only: ext4 takes no inode anew that was freed in the last minutes, and looks through all of
    # them for each new file, which cost the runs behind others as much as a millisecond a file.
    with tempfile.TemporaryDirectory(dir=".") as folders:
        for turn in range(rounds + 1):
            for kind in kinds:
                folder = tempfile.mkdtemp(dir=folders)
                with Server() as url:
                    order = [sys.executable, __file__, "_once", kind, url, folder, str(count if turn else count // 10)]
                    told = json.loads(subprocess.run(order, check=True, capture_output=True, text=True).stdout)
                if turn:
                    found[kind].append((told["rate"], told["cpu"]))
                    print(f"{kind:>18}: {told['rate']:7.1f} jobs/s, {told['cpu']:.2f} ms CPU a job", flush=True)
    return {
        kind: (statistics.median(rate for rate, _ in each), statistics.median(cpu for _, cpu in each))
        for kind, each in found.items()
    }


def once(kind: str, url: str, folder: Path, count: int) -> None:
    used = time.process_time()
    rate = asyncio.run(KINDS[kind](url, folder, count))
    print(json.dumps({"rate": rate, "cpu": 1000 * (time.process_time() - used) / count}))


def costs(count: int) -> None:
    medians = measured(count, 5, *KINDS)
    rates, cpus = ({kind: both[place] for kind, both in medians.items()} for place in (0, 1))
    for kind, cpu in cpus.items():
        share = cpus["batch"] / cpu
        print(f"{kind:>18}: {rates[kind]:7.1f} jobs/s, {cpu:.2f} ms CPU a job; a batch takes {share:.2f} of it")
    without, journaled = rates["without a journal"], rates["batch"]
    print(f"medians: {journaled:.1f} of {without:.1f} jobs/s = {journaled / without:.0%}")
    kept = cpus["journal alone"]
    print(f"raw overhead with a journal: {kept:.2f} ms CPU a job, {kept / cpus['script']:.2f} of the script's")


def prepare(folder: Path, rows: int) -> Path:
    """A source of ROWS lines, all saved, and one more; the journal as a run leaves it."""
    source, out = folder / "jobs.jsonl", folder / "out"
    out.mkdir()
    store = Store(out / JOURNAL_NAME, out / RESULTS_NAME)
    database = store._database  # noqa: SLF001 - filled faster than any run could
    with source.open("w") as file:
        database.execute("BEGIN")
        for number in range(rows):
            inputs = {"prompt": f"picture {number} of a rather long prompt, as people write them, " * 3, "seed": number}
            line = json.dumps(inputs)
            file.write(line + "\n")
            mark = mark_of(line.encode(), b"")
            database.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, 25000, 0)",
                (number + 1, number, number + 1, mark, mark, int(State.SAVED)),
            )
            name = f"{number:06d}-picture-{number}-of-a-rather-long-prompt-{number}.jpg"
            database.execute(
                "INSERT INTO details (row, model, inputs, sent_at, prediction_id, path, seconds, lines) "
                "VALUES (?, ?, ?, ?, ?, ?, 8.0, 1)",
                (number + 1, "wavespeed-ai/qwen-image/text-to-image-lora", line, 1e9, f"{number:032x}", name),
            )
            database.execute("INSERT INTO held VALUES (?, ?)", (f"{number:032x}", number + 1))
            database.execute("INSERT INTO files VALUES (?, ?)", (name, number + 1))
        database.execute("COMMIT")
    start = 0
    for block in READERS[".jsonl"].blocks(source, _CHUNK):  # what the runs that made it have kept of its lines
        digest = mark_of(b"\n".join(block.texts), b"")
        database.execute("INSERT INTO blocks VALUES (?, ?, ?)", (start, len(block.lines), digest))
        start += len(block.lines)
    with source.open("a") as file:
        file.write('{"prompt": "the new one"}\n')
    store.close()
    return source


async def first_submit(url: str, source: Path, out: Path) -> None:
    began, used = time.perf_counter(), time.process_time()
    async with opened(url) as session:
        transport = session._api.transport  # noqa: SLF001 - to see the first send
        send = transport.send

        async def noticed(request, **options):
            if request.kind == "submit":
                cpu = time.process_time() - used
                print(f"first submit after {time.perf_counter() - began:.2f} s, of which {cpu:.2f} s CPU of its own")
            return await send(request, **options)

        transport.send = noticed
        batch = Batch(source, out, session)
        async with aclosing(batch.run()) as outcomes:
            async for outcome in outcomes:
                assert outcome.ok, outcome.error
    took, summary = time.perf_counter() - began, batch.summary()
    print(f"whole run {took:.2f} s; {summary.skipped} skipped, {summary.saved} saved")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def resume(rows: int) -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder, Server() as url:
        command = [sys.executable, __file__, "_resume", folder, url]
        subprocess.run([sys.executable, __file__, "_prepare", folder, str(rows)], check=True)
        size = (Path(folder) / "out" / JOURNAL_NAME).stat().st_size
        print(f"{rows} rows, journal {size / 1e6:.0f} MB")
        subprocess.run(command, check=True)  # in a process of its own: its memory is what is measured


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["costs", *count]:
            costs(int(count[0]) if count else 1500)
        case ["_once", kind, url, folder, count]:
            once(kind, url, Path(folder), int(count))
        case ["resume", *rows]:
            resume(int(rows[0]) if rows else 1_000_000)
        case ["_prepare", folder, rows]:
            prepare(Path(folder), int(rows))
        case ["_resume", folder, url]:
            asyncio.run(first_submit(url, Path(folder) / "jobs.jsonl", Path(folder) / "out"))
        case _:
            sys.exit(__doc__)
