"""The vendor's own published clients against the emulator, unmodified. A script, for nox and CI.

    python tests/contract/vendor_clients.py                     # PyPI `wavespeed`, if it is installed here
    python tests/contract/vendor_clients.py --node <folder>     # npm `wavespeed` and `@wavespeed/cli`, installed there

To install them: `pip install wavespeed==2.0.5`, `npm install --prefix <folder> wavespeed@0.3.2 @wavespeed/cli@0.2.2`.
What is not installed is skipped, and said so; with `--require` that is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavespeed_qwen_async.emulator import Emulator
from wavespeed_qwen_async.emulator.blank import blank_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
T2I = "wavespeed-ai/qwen-image/text-to-image-lora"
EDIT = "wavespeed-ai/qwen-image/edit-lora"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextmanager
def emulator(**options: Any) -> Iterator[Emulator]:
    """Run an emulator on a thread of its own: the vendor's clients block."""
    server = Emulator(**{"blank": True, "speed": 100.0, **options})
    ready = threading.Event()
    stops: list[Callable[[], object]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        async with server:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield server
    finally:
        stops[0]()
        thread.join()


def python_client() -> None:
    """Run, sync mode and its timeout, upload, get_result, run_no_throw, failures: of PyPI's `wavespeed`."""
    from wavespeed.api import Client

    with emulator(api_key="right") as server, tempfile.TemporaryDirectory() as folder:
        client = Client(api_key="right", base_url=server.url)
        loras = [{"path": "owner/ink", "scale": 0.8}]
        run = client.run(T2I, {"prompt": "a fox", "loras": loras, "size": "512*512"}, poll_interval=0.05)
        assert run["outputs"][0].startswith(server.media_url), run
        assert client.run(T2I, {"prompt": "a fox", "seed": 3}, enable_sync_mode=True)["outputs"]
        source = Path(folder, "my fox.png")
        source.write_bytes(blank_image(64, 64, "png"))
        url = client.upload(str(source))
        assert url.startswith(server.media_url)
        assert client.run(EDIT, {"prompt": "make it snow", "image": url}, poll_interval=0.05)["outputs"]
        told = client.get_result(server.ledger.accepted[0].id)
        assert told["status" if "status" in told else "data"], told
        failed = client.run_no_throw(T2I, {"prompt": "[moderated]"}, poll_interval=0.05)
        assert failed["outputs"] is None, failed
        assert server.ledger.accepted[-1].id in str(failed)
        for bad, text in (({}, "HTTP 400"), ({"prompt": "[moderated]"}, "moderation")):
            _raises(text, lambda bad=bad: client.run(T2I, bad, poll_interval=0.05))
        stranger = Client(api_key="wrong", base_url=server.url)
        _raises("HTTP 401", lambda: stranger.run(T2I, {"prompt": "x"}))
        assert not server.ledger.key_leaks
    for ending, text in (("5004", "Sync mode timed out"), ("504", "504")):
        with emulator(sync_timeout=5.0, sync_ending=ending) as server:
            client = Client(api_key="k", base_url=server.url)
            _raises(text, lambda: client.run(T2I, {"prompt": "x"}, enable_sync_mode=True))  # noqa: B023 - called at once
            assert len(server.ledger.accepted) == 1


def _raises(text: str, call: Callable[[], object]) -> None:
    problem = ""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever it raises, its text must say what happened
        problem = str(error)
    assert text in problem, f"{text!r} expected, got {problem!r}"


def node_clients(folder: Path) -> None:
    """Run the Node half in `vendor_clients.mjs` against an emulator in this process."""
    node = shutil.which("node")
    assert node is not None
    with emulator(api_key="right") as server, tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "fox.png").write_bytes(blank_image(64, 64, "png"))
        environment = {
            **os.environ,
            "HOME": scratch,
            "XDG_CONFIG_HOME": f"{scratch}/config",
            "WAVESPEED_API_KEY": "right",
            "EMULATOR_URL": server.url,
            "EMULATOR_MEDIA_URL": server.media_url,
            "VENDOR_MODULES": str(folder / "node_modules"),
        }
        command = [node, str(HERE / "vendor_clients.mjs")]
        subprocess.run(command, check=True, cwd=scratch, env=environment, timeout=300)
        assert not server.ledger.key_leaks
        assert server.ledger.refused == {404: 1}, server.ledger.refused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node", type=Path, help="folder with node_modules")
    parser.add_argument("--require", action="store_true", help="fail for what is not installed")
    options = parser.parse_args()
    skipped = 0
    try:
        import wavespeed
    except ImportError:
        skipped += 1
        say("SKIPPED  PyPI wavespeed: not installed in this environment")
    else:
        python_client()
        say(f"OK       PyPI wavespeed {wavespeed.__version__}: run, sync mode, upload, get_result, run_no_throw")
    if options.node is None or not (options.node / "node_modules" / "@wavespeed").is_dir() or not shutil.which("node"):
        skipped += 1
        say("SKIPPED  npm wavespeed and @wavespeed/cli: no node, or not installed (see --node)")
    else:
        node_clients(options.node)
        say("OK       npm wavespeed and @wavespeed/cli")
    return 1 if options.require and skipped else 0


if __name__ == "__main__":
    sys.exit(main())
