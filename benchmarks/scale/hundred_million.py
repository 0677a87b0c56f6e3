"""100 million images a day on paper: how many accounts, and what breaks first.

python benchmarks/scale/hundred_million.py            everything, about a minute of CPU
python benchmarks/scale/hundred_million.py --account  only one account's windows, with the library's own `Limits`

1. One ultra account with the library's own `Limits` on virtual time, against a server that counts strictly: how much of
   5,000 a minute is really used, for quick and for slow answers.
2. A day of N accounts in steps of 20 s, with what goes wrong on a usual day (`Day` lists it all): images delivered.
3. What breaks first: each assumption is made worse until the day falls short of 100 million.

The figures that are assumed and not measured are the fields of `Day`; change them and run it again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections import defaultdict, deque
from dataclasses import dataclass, replace

from wavespeed_qwen_async.limits import Limits
from wavespeed_qwen_async.testing.clock import VirtualClockLoop

GOAL = 100_000_000
RATE, PLACES = 5_000, 10_000  # of an ultra account: a minute, at once
STEP = 20  # seconds
DAY = 86_400


# --- one account ------------------------------------------------------------------------------------------------------


async def account(slowest: float, minutes: int) -> tuple[float, int, int]:
    """Share of the allowance used, the fullest minute the server saw, and refusals; answers take up to `slowest`."""
    loop = asyncio.get_running_loop()
    limits, rng = Limits.for_tier("ultra"), random.Random(1)
    recent: deque[float] = deque()
    seen = {"sent": 0, "fullest": 0, "refused": 0}

    def arrive(send):
        now = loop.time()
        recent.append(now)
        while recent[0] < now - 60:
            recent.popleft()
        seen["fullest"] = max(seen["fullest"], len(recent))
        seen["refused"] += len(recent) > RATE
        loop.call_later(rng.uniform(0, slowest / 2), limits.report, send)

    ends = loop.time() + 60 * minutes
    while loop.time() < ends:
        send = await limits.start()
        seen["sent"] += 1
        loop.call_later(rng.uniform(0, slowest / 2), arrive, send)
    await asyncio.sleep(slowest)
    return seen["sent"] / (RATE * minutes), seen["fullest"], seen["refused"]


def accounts_share() -> float:
    """Print how much of an allowance is used; gives it for answers within 0.6 s."""
    print("One ultra account, 5 minutes, a client that always has more to send:\n")
    print("| answers within | used | fullest minute | refused |\n|---|---|---|---|")
    usual = 0.0
    for slowest in (0.1, 0.6, 2.0, 5.0):
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            used, fullest, refused = runner.run(account(slowest, 5))
        usual = used if slowest == 0.6 else usual
        print(f"| {slowest} s | {used:.1%} | {fullest:,} of {RATE:,} | {refused} |")
    return usual


# --- a day ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Day:
    """What a day is like.

    Attributes:
        used: Share of the allowance, from the first part.
        accounts: Ultra accounts, each with one process and one journal.
        machines: What the processes are spread over.
        inference: Seconds from accepted to completed (the pages: 6 to 12).
        slow: Times a day that all of the vendor is slow for 15 minutes,
        slowness: ... by this factor.
        outages: Times a day that an account is answered 5xx for 5 minutes.
        failing: Share of tasks that end without an image and are submitted again.
        lost: Share of submits whose answer is lost; each holds its place for the 2 minutes of reconciling.
        crashes: Times a day that a process dies and is back after 30 s, with its window remembered.
        down: Times a day that a machine is gone for 10 minutes.
        image: Bytes of one image; a JPEG of 1024 x 1024.
        network: Bytes a second that one machine takes in (10 Gbit/s, 70 % of it).
        disk: Bytes a second that one machine writes, fsynced.
        cpu: Seconds of one core for an image, with journal and saved file (benchmarks/durable.py, a slow machine).
    """

    used: float = 0.99
    accounts: int = 15
    machines: int = 4
    inference: float = 9.0
    slow: float = 4.0
    slowness: float = 3.0
    outages: float = 1.0
    failing: float = 0.005
    lost: float = 0.0001
    crashes: float = 2.0
    down: float = 0.1
    image: float = 350e3
    network: float = 875e6
    disk: float = 500e6
    cpu: float = 0.0027


class Machine:
    """Shares network and disk among its processes; what it can't take yet waits at the vendor's CDN."""

    def __init__(self, day: Day) -> None:
        self.per_step = min(day.network, day.disk) / day.image * STEP
        self.down_until = 0


class Account:
    """One process: in flight, finished and not yet saved, saved."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.ends: defaultdict[int, float] = defaultdict(float)
        self.in_flight = self.most_in_flight = self.waiting = self.saved = self.again = 0.0
        self.dead_until = self.refused_until = 0

    def step(self, day: Day, now: int, takes: float) -> None:
        ended = self.ends.pop(now // STEP, 0.0)
        self.in_flight -= ended
        self.waiting += ended * (1 - day.failing)
        if now < max(self.dead_until, self.machine.down_until):
            return
        core = STEP / day.cpu
        saved = min(self.waiting, self.machine.room, core)
        self.machine.room -= saved
        self.waiting -= saved
        self.saved += saved
        if now < self.refused_until:
            return
        room = PLACES - self.in_flight - self.waiting  # a batch takes no more than it can put down
        sent = max(0.0, min(RATE / 60 * STEP * day.used, room, core))
        for count, seconds in ((sent * (1 - day.lost), takes), (sent * day.lost, takes + 120)):
            self.ends[int(now + seconds) // STEP + 1] += count
        self.in_flight += sent
        self.most_in_flight = max(self.most_in_flight, self.in_flight)


def run(day: Day, seed: int = 1) -> tuple[float, float]:
    """Images saved in a day, and the most tasks that an account had in flight."""
    rng = random.Random(seed)
    machines = [Machine(day) for _ in range(day.machines)]
    accounts = [Account(machines[n % day.machines]) for n in range(day.accounts)]
    slow_until = 0

    def happens(times_a_day: float) -> bool:
        return rng.random() < times_a_day * STEP / DAY

    for now in range(0, DAY, STEP):
        if happens(day.slow):
            slow_until = now + 900
        takes = day.inference * (day.slowness if now < slow_until else 1)
        for machine in machines:
            machine.room = machine.per_step
            if happens(day.down):
                machine.down_until = now + 600
        for each in accounts:
            if happens(day.crashes):
                each.dead_until = now + 30
            if happens(day.outages):
                each.refused_until = now + 300
            each.step(day, now, takes)
    return sum(each.saved for each in accounts), max(each.most_in_flight for each in accounts)


def enough(day: Day) -> bool:
    return run(day)[0] >= GOAL


def breaking(day: Day, field: str, most: float) -> float | None:
    """The smallest factor on a field with which the day falls short; None if `most` does not do it."""
    worse, better = most, 1.0
    changed = {"network": 1 / most, "disk": 1 / most}.get(field, most)
    if enough(replace(day, **{field: getattr(day, field) * changed})):
        return None
    while worse - better > 0.05 * better:
        middle = (worse * better) ** 0.5
        factor = 1 / middle if field in {"network", "disk"} else middle
        if enough(replace(day, **{field: getattr(day, field) * factor})):
            better = middle
        else:
            worse = middle
    return worse


def days(used: float) -> None:
    print("\nA day, by accounts:\n\n| accounts | images | of the goal |\n|---|---|---|")
    chosen = None
    for count in range(13, 18):
        day = Day(used=used, accounts=count)
        saved, _ = run(day)
        print(f"| {count} | {saved / 1e6:.1f} million | {saved / GOAL:.0%} |")
        if chosen is None and saved >= GOAL:
            chosen = day
    assert chosen is not None
    chosen = replace(chosen, accounts=chosen.accounts + 1)  # one to spare: an account can be blocked
    saved, in_flight = run(chosen)
    per_second = GOAL / DAY
    print(
        f"\nWith {chosen.accounts} accounts: {saved / 1e6:.1f} million; at most {in_flight:,.0f} of {PLACES:,} "
        f"places an account in use. 100 million are {per_second:,.0f} a second, {per_second * chosen.inference:,.0f} "
        f"tasks at once, {per_second * chosen.cpu:.1f} cores, {per_second * chosen.image * 8 / 1e9:.1f} Gbit/s, "
        f"{GOAL * chosen.image / 1e12:.0f} TB and ${GOAL * 0.025:,.0f} a day."
    )
    print("\nWhat breaks first:\n\n| made worse | usual | the day fails from | that is |\n|---|---|---|---|")
    units = {
        "inference": ("the vendor is slower, all day", "{:.0f} s"),
        "outages": ("outages of 5 min an account a day", "{:.1f}"),
        "failing": ("tasks that fail", "{:.2%}"),
        "lost": ("answers that are lost", "{:.3%}"),
        "crashes": ("crashes of a process a day", "{:.0f}"),
        "down": ("machines gone for 10 min a day", "{:.1f}"),
        "image": ("bytes an image", "{:,.0f}"),
        "network": ("network of a machine", "{:,.0f} B/s"),
        "disk": ("disk of a machine", "{:,.0f} B/s"),
        "cpu": ("CPU an image", "{:.1%} of a core-second"),
    }
    rows = []
    for field, (name, form) in units.items():
        factor = breaking(chosen, field, 200)
        usual = getattr(chosen, field)
        if factor is None:
            rows.append((1e9, f"| {name} | {form.format(usual)} | not at 200 times | |"))
        else:
            edge = usual / factor if field in {"network", "disk"} else usual * factor
            rows.append((factor, f"| {name} | {form.format(usual)} | {factor:.1f} times | {form.format(edge)} |"))
    for _, row in sorted(rows):
        print(row)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--account", action="store_true")
    options = parser.parse_args()
    share = accounts_share()
    if not options.account:
        days(share)
