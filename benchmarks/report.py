"""Results: kept as small JSON files as they come, told as one table, drawn as plots."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rounds import Figures, Workload

LEAST_KEPT = 80
SUBMIT_ONLY = "script, submit only"
DELAYS = ("p50 s", "p99 s")
LIST_ITEM = 0.47  # KiB of one finished prediction in the emulator's list, as in the API's
ISSUE_9 = 0.26  # ms of CPU a job of the script in the raw workload, on the machine that the goals were set on
PACKAGES = ("wavespeed-qwen-async", "aiohttp", "pydantic", "wavespeed", "replicate", "fal-client", "httpx", "uvloop")
SHOWN = ("CPU ms/job", "requests/job", "KiB/job", *DELAYS, "% of a core", "jobs/s", "peak MB", "loop ms")


def machine() -> dict[str, Any]:
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "system": platform.platform(),
        "python": platform.python_version(),
        "load when written": round(os.getloadavg()[0], 1),
        **versions,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def keep(folder: Path, workload: Workload, runs: dict[str, list[Figures]]) -> None:
    _write(folder, workload.name, {"workload": asdict(workload), "runs": runs, "machine": machine()})


def keep_alone(folder: Path, name: str, figures: dict[str, Any]) -> None:
    if figures:
        _write(folder, name, {"figures": figures, "machine": machine()})


def keep_text(folder: Path, name: str, text: str) -> None:
    _write(folder, name, {"text": text, "machine": machine()})


def _write(folder: Path, name: str, content: dict[str, Any]) -> None:
    rounded = json.loads(json.dumps(content), parse_float=lambda text: round(float(text), 4))
    (folder / f"{name}.json").write_text(json.dumps(rounded, indent=1) + "\n")


def write(folder: Path) -> str:
    """Make `table.md` and the plots of all that is kept there; return the table."""
    kept = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    shared = {name: value for name, value in machine().items() if name != "load when written"}
    parts = ["# Results", "", *(f"- {name}: {value}" for name, value in shared.items()), "", *_targets(kept)]
    for content in kept.values():
        if "runs" in content:
            parts += _table(content, _least_bytes(kept, content))
    for name, content in kept.items():
        if "figures" in content:
            parts += [f"## {name}", "", *(f"- {key}: {value:.4g}" for key, value in content["figures"].items()), ""]
        elif "text" in content:
            parts += [f"## {name}", "", "```", content["text"].strip(), "```", ""]
    text = "\n".join(parts)
    (folder / "table.md").write_text(text)
    if importlib.util.find_spec("matplotlib") is not None:
        import plots  # noqa: PLC0415 - matplotlib is optional

        plots.draw(folder, kept)
    return text


def _least_bytes(kept: dict[str, Any], content: dict[str, Any]) -> float | None:
    """KiB that a job cannot do without: its submit, and its item of a list where the submit does not tell the end."""
    runs = [run["KiB/job"] for run in _runs(kept, "raw", SUBMIT_ONLY) if "KiB/job" in run]
    if not runs:
        return None
    return statistics.median(runs) + (LIST_ITEM if content["workload"]["least"] > 1 else 0.0)


def _runs(kept: dict[str, Any], name: str, client: str) -> list[Figures]:
    found: list[Figures] = kept.get(name, {}).get("runs", {}).get(client, [])
    return found


def _table(content: dict[str, Any], least_bytes: float | None) -> list[str]:
    workload, runs = content["workload"], content["runs"]
    lines = [f"## {workload['title']}", "", "Medians, in brackets the least and the most.", ""]
    lines += ["| client | rounds | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 2) + "|"]
    for client, figures in runs.items():
        if not figures:
            lines.append(f"| {client} | failed |" + " |" * len(SHOWN))
            continue
        unknown = DELAYS if workload["least"] > 1 and client == SUBMIT_ONLY else ()  # it awaits no image
        cells = [_spread([run[name] for run in figures if name in run and name not in unknown]) for name in SHOWN]
        lines.append(f"| {client} | {len(figures)} | " + " | ".join(cells) + " |")
    limit = f"{workload['least']} requests a job (the submit, and a list page of 100 results)"
    if least_bytes is not None:
        limit += f", {least_bytes:.2g} KiB (a bare submit and its answer, with TCP's own, and the item of a list)"
    if workload["per_second"] and (bare := runs.get(SUBMIT_ONLY)):
        least = statistics.median(run["CPU ms/job"] for run in bare)
        limit += f", {least:.3g} ms of CPU (bare POSTs at the same pace, their images not awaited)"
    return [*lines, "", f"Physical limit: {limit}.", ""]


def _spread(values: list[float]) -> str:
    if not values:
        return "not measured"
    middle = f"{statistics.median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g}-{max(values):.3g})"


def _targets(kept: dict[str, Any]) -> list[str]:
    lines = ["| must show | at most | measured | |", "|---|---|---|---|"]
    for content in kept.values():
        for who, figure, title, bound in content.get("workload", {}).get("targets", ()):
            names = who.split("/")
            if all(content["runs"].get(name) for name in names):
                values = [statistics.median(run[figure] for run in content["runs"][name]) for name in names]
                value = values[0] / values[1] if len(values) > 1 else values[0]
                lines.append(_target(title, bound, value))
                alike = figure == "% of a core" and not content["workload"].get("awake")
                if alike and (raw := _runs(kept, "raw", "script")):
                    factor = ISSUE_9 / statistics.median(run["CPU ms/job"] for run in raw)
                    lines.append(_target(f"{title}, reckoned for the goals' machine", bound, factor * value))
    sizes = {name: _cost(kept[f"growth-{name}"]) for name in (1000, 5000, 10_000, 100_000) if f"growth-{name}" in kept}
    if len(sizes) > 1:
        lines.append(
            _target(f"growth, {max(sizes):,} of {min(sizes):,} jobs", 1.15, sizes[max(sizes)] / sizes[min(sizes)])
        )
    alone = (
        ("startup", "import, ratio", 1.25),
        ("startup", "--help, wall s", 0.6),
        ("memory", "KiB/job", 4.0),
        ("million", "peak MB", 120.0),
    )
    lines += [
        _target(f"{name}, {key}", bound, kept[name]["figures"][key]) for name, key, bound in alone if name in kept
    ]
    return [*lines, *_durability(kept.get("durable", {}).get("text", "")), ""]


def _durability(text: str) -> list[str]:
    """The goals of `durable.py`, from what it printed."""
    lines = []
    if share := re.search(r"jobs/s = (\d+)%", text):
        kept_up = int(share[1])
        verdict = "holds" if kept_up >= LEAST_KEPT else "**misses**"
        lines.append(f"| journal on, % of the jobs/s without | at least {LEAST_KEPT} | {kept_up} | {verdict} |")
    if times := re.search(r"raw overhead with a journal: .* ([\d.]+) of the script's", text):
        lines.append(_target("journal on, raw overhead, of the script's CPU", 1.8, float(times[1])))
    if times := re.search(r"script that saves: .* a batch takes ([\d.]+) of it", text):
        lines.append(_target("journal on, images saved, of the CPU of a script that saves", 1.8, float(times[1])))
    return lines


def _cost(content: dict[str, Any]) -> float:
    return statistics.median(run["CPU ms/job"] for run in content["runs"]["ours"])


def _target(title: str, bound: float, value: float) -> str:
    return f"| {title} | {bound:g} | {value:.3g} | {'holds' if value <= bound else '**misses**'} |"
