"""A batch in a process of its own, which kills itself where it is told to: `killed_child.py URL SOURCE FOLDER [WHERE]`.

WHERE is ``STATE before N`` or ``STATE after N``: at the Nth move to that state, before its commit or right after; or
``post before N``, ``post after N``: at the Nth submit, before it is sent or when its answer is there; or
``rename after N``: when the Nth file has got its name. Tests only: production code knows nothing of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import aclosing
from pathlib import Path

from wavespeed_qwen_async import Limits, QwenImageSession, Retry
from wavespeed_qwen_async._reconcile import Patience
from wavespeed_qwen_async._transport import Transport
from wavespeed_qwen_async.bulk import Batch
from wavespeed_qwen_async.bulk._states import State
from wavespeed_qwen_async.bulk._store import Store
from wavespeed_qwen_async.media import _FileLanding

PATIENCE = Patience(margin=1.5, arrival=2.0, settle=4.0, unknown=30.0, first=0.1, longest=0.5)


class Killer:
    """Counts what happens, and kills the process at its moment."""

    def __init__(self, where: str) -> None:
        self.what, self.when, nth = where.split()
        self.left = int(nth)

    def at(self, what: str, when: str) -> None:
        if (what, when) == (self.what, self.when):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        apply, commit, send, finish = Store.apply, Store.commit, Transport.send, _FileLanding.finish
        moved: list[str] = []

        def applying(store, *moves):
            apply(store, *moves)
            for move in moves:
                if move.to is not None:
                    moved.append(State(move.to).name)
                    self.at(moved[-1], "before")

        def committing(store, moves):
            moved.clear()
            answers = commit(store, moves)
            for name in tuple(moved):
                self.at(name, "after")
            return answers

        async def sending(transport, request, **options):
            if request.kind == "submit":
                self.at("post", "before")
            answer = await send(transport, request, **options)
            if request.kind == "submit":
                self.at("post", "after")
            return answer

        def finishing(landing, *given):
            finish(landing, *given)
            self.at("rename", "after")

        Store.apply, Store.commit = applying, committing
        Transport.send, _FileLanding.finish = sending, finishing


async def main(url: str, source: str, folder: str) -> None:
    # A refusal at random, as chaos has it, must not teach that the account is slow.
    limits = Limits(max_per_minute=60_000, max_in_flight=300, burst=True, window=1.0, learn=False)
    retry = Retry(base=0.1, cap=1.0)
    async with QwenImageSession(api_key="k", base_url=url, limits=limits, retry=retry) as session:
        session._engine.reconciler.patience = PATIENCE
        batch = Batch(Path(source), Path(folder), session, max_in_flight=int(os.environ.get("IN_FLIGHT", "300")))
        sys.stdout.write("begins\n")
        sys.stdout.flush()
        async with aclosing(batch.run()) as outcomes:
            async for _ in outcomes:
                pass
        summary = batch.summary()
        sys.stdout.write(f"{summary}\n")


if __name__ == "__main__":
    if len(sys.argv) > 4:
        Killer(" ".join(sys.argv[4:])).install()
    asyncio.run(main(*sys.argv[1:4]))
