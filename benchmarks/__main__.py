"""`python -m benchmarks`: the quick set; `--full`: everything. See README.md."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the modules here know each other by their plain names, however this is started

import alone  # noqa: E402
import report  # noqa: E402
import workloads  # noqa: E402
from rounds import environment, in_turns  # noqa: E402

SCRIPTS = {
    "limits_micro": ["limits_micro.py"],
    "media": ["media.py"],
    "uploads": ["uploads.py"],
    "durable": ["durable.py", "costs"],
    "waiting": ["waiting.py", "cpu"],
    "micro": ["-m", "pytest", "micro", "--benchmark-columns=median,iqr,ops", "-p", "no:cacheprovider", "-q"],
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--full", action="store_true", help="everything: an hour and a half")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these of the set, by name")
    parser.add_argument("--rounds", type=int, help="in place of each workload's own")
    parser.add_argument("--clients", nargs="+", metavar="NAME", help="these clients, by name")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where they are written")
    parser.add_argument("--report", action="store_true", help="measure nothing: write table and plots anew")
    options = parser.parse_args()
    if not options.report:
        measure(options)
    print(report.write(options.results))


def measure(options: argparse.Namespace) -> None:
    options.results.mkdir(exist_ok=True)
    wanted = set(options.only or ())
    for workload in workloads.full() if options.full else workloads.quick():
        if wanted and workload.name not in wanted:
            continue
        chosen = replace(workload, rounds=options.rounds or workload.rounds)
        if options.clients:
            chosen = replace(chosen, clients=tuple(name for name in chosen.clients if name in options.clients))
        for runs in in_turns(chosen):
            report.keep(options.results, chosen, runs)
    for name, function in alone.ALL.items():
        if not wanted or name in wanted:
            report.keep_alone(options.results, name, function(full=options.full))
    for name, command in SCRIPTS.items():
        if name in wanted or (options.full and not wanted):
            report.keep_text(options.results, name, output_of(command))


def output_of(command: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=HERE, env=environment(), check=False
    )
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr


if __name__ == "__main__":
    main()
