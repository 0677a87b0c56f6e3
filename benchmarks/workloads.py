"""What is measured: the account tiers' shapes, raw overhead, ten thousand in flight, growth."""

from __future__ import annotations

import os
from dataclasses import replace

from rounds import Workload

ALL = ("ours", "script", "sdk", "replicate", "fal")
_FEWER = {"sdk": 1000, "replicate": 500, "fal": 500}

# (client or "ours/rival", figure, "at most", bound): a figure of ours, or its ratio to a rival's of the same run.
RAW = Workload(
    name="raw",
    title="Raw overhead: zero latency, the server answers `completed` to the submit",
    jobs=3000,
    in_flight=100,
    inference=(0.0, 0.0),
    poll=0.0,
    clients=("ours", "script", "script, submit only", "sdk", "replicate", "fal"),
    fewer=_FEWER,
    rounds=5,
    least=1.0,
    targets=(("ours/script", "CPU ms/job", "raw overhead", 1.15),),
)
RAW_TWO = replace(
    RAW,
    name="raw-short",
    title="The same, but images take 50 to 300 ms: nobody gets them from the submit; the script checks every 0.2 s",
    inference=(0.05, 0.3),
    poll=0.2,
    clients=("ours", "script"),
    rounds=3,
    least=1.01,
)
SILVER = Workload(
    name="silver",
    title="Silver shape: 300 in flight, 6 to 12 s",
    jobs=1200,
    in_flight=300,
    inference=(6.0, 12.0),
    clients=ALL,
    fewer={"fal": 600},
    targets=(
        ("ours/script", "CPU ms/job", "silver, of the script's CPU", 0.30),
        ("ours/sdk", "CPU ms/job", "silver, of the SDK's CPU", 0.04),
        ("ours", "requests/job", "silver, requests a job", 1.25),
        ("ours", "p50 s", "silver, delay p50", 0.45),
        ("ours", "p99 s", "silver, delay p99", 1.2),
    ),
)
GOLD = Workload(
    name="gold",
    title="Gold shape: 50 submits/s, 6 to 12 s",
    jobs=3000,
    in_flight=3000,
    inference=(6.0, 12.0),
    per_second=50.0,
    clients=("ours", "script", "script, submit only"),
    targets=(("ours", "% of a core", "gold, % of a core", 3.0), ("ours", "requests/job", "gold, requests a job", 1.2)),
)
ULTRA = replace(
    GOLD,
    name="ultra",
    title="Ultra shape: 83 submits/s, 6 to 12 s",
    jobs=5000,
    in_flight=10_000,
    per_second=83.0,
    targets=(
        ("ours", "% of a core", "ultra, % of a core", 5.0),
        ("ours", "requests/job", "ultra, requests a job", 1.2),
    ),
)


def _awake(workload: Workload) -> Workload:
    """The same with cores that do not idle meanwhile."""
    ((who, figure, title, bound), *_) = workload.targets
    return replace(
        workload,
        name=f"{workload.name}-awake",
        title=f"{workload.title}, the cores kept from idling",
        targets=((who, figure, f"{title}, the cores kept from idling", bound),),
        rounds=1,
        awake=True,
    )


MANY = Workload(
    name="10k",
    title="10,000 in flight, 60 to 120 s",
    jobs=20_000,
    in_flight=10_000,
    inference=(60.0, 120.0),
    per_second=110.0,
    clients=("ours",),
    rounds=1,
    targets=(
        ("ours", "% of a core", "10,000, % of a core", 10.0),
        ("ours", "requests/job", "10,000, requests a job", 1.3),
    ),
)


def growth(sizes: tuple[int, ...]) -> list[Workload]:
    """The cost of a job at ever more jobs."""
    return [
        replace(
            RAW,
            name=f"growth-{size}",
            title=f"Growth: {size:,} jobs",
            jobs=size,
            clients=("ours",),
            rounds=3,
            targets=(),
        )
        for size in sizes
    ]


def quick() -> list[Workload]:
    """Under three minutes altogether on a quiet machine: fewer jobs and rounds."""
    few = {"sdk": 150, "replicate": 80, "fal": 80}
    return [
        replace(RAW, jobs=1500, fewer=few, rounds=2),
        replace(RAW_TWO, jobs=1500, rounds=1),
        replace(SILVER, jobs=450, fewer={}, clients=("ours", "script", "sdk"), rounds=1),
        replace(GOLD, jobs=300, clients=("ours",), rounds=1),
        *(replace(each, rounds=1) for each in growth((100, 1000, 5000))),
    ]


def full() -> list[Workload]:
    """Everything; with the scripts an hour and a half."""
    awake = [_awake(GOLD), _awake(ULTRA)] if hasattr(os, "SCHED_IDLE") else []
    return [RAW, RAW_TWO, SILVER, GOLD, ULTRA, *awake, MANY, *growth((100, 1000, 10_000, 100_000))]
