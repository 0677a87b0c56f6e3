"""Bars of what each client costs, and the cost of a job as jobs grow."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from pathlib import Path

BARS = ("CPU ms/job", "requests/job", "p50 s", "p99 s")


def draw(folder: Path, kept: dict[str, Any]) -> None:
    for name in ("raw", "silver"):
        if name in kept:
            _bars(folder / f"{name}.svg", kept[name], BARS if name == "silver" else BARS[:2])
    growth = {int(name.partition("-")[2]): kept[name] for name in kept if name.startswith("growth-")}
    if len(growth) > 1:
        _growth(folder / "growth.svg", dict(sorted(growth.items())))


def _bars(path: Path, content: dict[str, Any], figures: tuple[str, ...]) -> None:
    runs = {client: figures for client, figures in content["runs"].items() if figures}
    drawing, axes = plt.subplots(1, len(figures), figsize=(3.2 * len(figures), 3), layout="constrained")
    for axis, figure in zip(axes, figures, strict=True):
        values = [[run[figure] for run in each] for each in runs.values()]
        middles = [statistics.median(each) for each in values]
        spread = [
            [middle - min(each) for middle, each in zip(middles, values, strict=True)],
            [max(each) - middle for middle, each in zip(middles, values, strict=True)],
        ]
        colours = ["tab:blue" if client == "ours" else "silver" for client in runs]
        axis.barh(list(runs), middles, xerr=spread, color=colours)
        axis.invert_yaxis()
        axis.set_title(figure, fontsize=9)
        if figure == "CPU ms/job":
            axis.set_xscale("log")
    drawing.suptitle(content["workload"]["title"], fontsize=9)
    _save(path, drawing)


def _growth(path: Path, growth: dict[int, Any]) -> None:
    drawing, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    costs = [[run["CPU ms/job"] for run in content["runs"]["ours"]] for content in growth.values()]
    axis.plot(list(growth), [statistics.median(each) for each in costs], marker="o")
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("jobs")
    axis.set_ylabel("CPU ms a job")
    _save(path, drawing)


def _save(path: Path, drawing: Any) -> None:
    drawing.savefig(path, metadata={"Date": None})
    plt.close(drawing)
