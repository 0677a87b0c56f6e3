"""A chat bot that draws: many users at once, each one's pictures in the order in which they were asked for.

    python examples/bot.py --emulator      # without a key; then type:
    ann: !draw a red fox
    bob: !draw an owl
    ann: !stop

For Discord or Slack, call `bot.hear(user, text)` from its message event, and give the bot a `say` that posts there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

from wavespeed_qwen_async import Prediction, QwenImageSession, WaveSpeedError
from wavespeed_qwen_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WAITING = 3  # pictures that one user may have in line


class Bot:
    """What users may say: `!draw PROMPT`, `!stop`, `!show ID`."""

    def __init__(
        self, session: QwenImageSession, say: Callable[[str, str], Awaitable[None]], group: asyncio.TaskGroup
    ) -> None:
        self._session, self._say, self._group = session, say, group
        self._lines: dict[str, deque[str]] = {}  # of those who have something in line, and so a task
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def hear(self, user: str, text: str) -> None:
        """Take a message; nothing here waits for a picture."""
        command, _, rest = text.strip().partition(" ")
        if command == "!draw" and rest:
            await self._draw(user, rest)
        elif command == "!stop":
            await self._stop(user)
        elif command == "!show" and rest:
            self._group.create_task(self._show(user, rest))

    async def _draw(self, user: str, prompt: str) -> None:
        line = self._lines.setdefault(user, deque())
        if len(line) >= WAITING:
            await self._say(user, f"you have {WAITING} pictures in line: wait for one, or !stop")
            return
        line.append(prompt)
        if user not in self._tasks:
            self._tasks[user] = self._group.create_task(self._work(user, line))

    async def _stop(self, user: str) -> None:
        task = self._tasks.pop(user, None)
        if task is None:
            await self._say(user, "nothing to stop")
            return
        del self._lines[user]  # what comes after this begins a new line
        task.cancel()

    async def _work(self, user: str, line: deque[str]) -> None:
        """One user's pictures, one after the other; the session shares the account's limits among all users."""
        while line:
            await self._picture(user, line[0])
            line.popleft()
        if self._lines.get(user) is line:
            del self._lines[user], self._tasks[user]

    async def _picture(self, user: str, prompt: str) -> None:
        try:
            prediction = await self._session.submit({"prompt": prompt})
        except WaveSpeedError as error:
            await self._say(user, f"{prompt}: {error}")
            return
        except asyncio.CancelledError:
            await self._say(user, f"{prompt}: stopped")
            raise
        try:
            await self._show(user, prediction)
        except asyncio.CancelledError:  # it is paid, so it is not lost either
            await self._say(user, f"{prompt}: stopped; say !show {prediction.id} to see it all the same")
            raise

    async def _show(self, user: str, wanted: Prediction | str) -> None:
        about = wanted.job.prompt if isinstance(wanted, Prediction) and wanted.job else str(wanted)
        try:
            prediction = await self._session.result(wanted)
        except WaveSpeedError as error:
            await self._say(user, f"{about}: {error}")
        else:
            await self._say(user, f"{about}: {prediction.outputs[0].url}")


async def main(*, emulated: bool) -> None:
    messages: asyncio.Queue[str] = asyncio.Queue(100)
    loop = asyncio.get_running_loop()

    def listen() -> None:
        for line in itertools.chain(sys.stdin, [""]):  # an empty one is the end
            asyncio.run_coroutine_threadsafe(messages.put(line), loop).result()

    async def say(user: str, text: str) -> None:
        print(f"@{user} {text}", flush=True)

    threading.Thread(target=listen, daemon=True).start()
    async with Emulator(speed=4) if emulated else contextlib.nullcontext() as emulator:
        base_url, api_key = (emulator.url, "none") if emulator else (None, None)
        async with QwenImageSession(base_url=base_url, api_key=api_key) as session, asyncio.TaskGroup() as group:
            bot = Bot(session, say, group)
            while message := await messages.get():
                user, _, text = message.partition(":")
                await bot.hear(user.strip(), text)


if __name__ == "__main__":
    asyncio.run(main(emulated="--emulator" in sys.argv))
