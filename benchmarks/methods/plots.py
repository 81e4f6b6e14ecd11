"""Plots of the comparison of methods. Needs matplotlib, of the extra `test`."""

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.methods.report_text import TITLES
from benchmarks.methods.scores import ALONE, BOTH, Set, map_of

OVERVIEW = "mAP by code length; bars: spread over the seeds; grey: the other methods"
CURVES = "Precision over recall by Hamming radius, and precision of the first N, means over the seeds; grey: the other methods"
ADSQ_COLOUR, GREY = "#d4000f", "0.8"
COLOURS = ("#0072b2", "#009e73", "#e69f00", "#8844aa", "#444444")  # of the best baselines, as many
BUDGET_SEPARATOR = ", "  # in the names of rows that are a baseline with more training
HEADROOM = 2.2  # an axis reaches down to this many times the distance from the best to the lowest coloured line


def plot(sets: list[Set], shown: list[Set], folder: Path) -> None:
    """Draw overview.png of the data sets that are shown, and SET.png of each one with runs."""
    look = looks(shown or sets)
    if shown:
        overview(shown, look, folder / "overview.png")
    for one in sets:
        if one.runs:
            curves(one, look, folder / f"{one.name}.png")


def best_baselines(sets: list[Set], *, most: int = len(COLOURS)) -> list[str]:
    """Return the baselines that are most often the best, then those nearest to it; each has at least half of all cases."""
    below: dict[str, list[float]] = {}
    cases = [(one, bits) for one in sets for bits in one.bits]
    for one, bits in cases:
        plain = {name: row for name, row in one.table.items() if name not in (BOTH, ALONE) and BUDGET_SEPARATOR not in name}
        maps = {name: map_of(row[bits]) for name, row in plain.items() if bits in row}
        for name, value in maps.items():
            below.setdefault(name, []).append(max(maps.values()) - value)
    names = [name for name, values in below.items() if 2 * len(values) >= len(cases)]
    return sorted(names, key=lambda name: (-below[name].count(0), mean(below[name]), name))[:most]


def looks(sets: list[Set]) -> dict[str, dict[str, Any]]:
    """Choose colour and line of ADSQ and of the best baselines, the same in all plots; others are grey."""
    styles: dict[str, dict[str, Any]] = {
        BOTH: {"color": ADSQ_COLOUR, "linewidth": 2.6, "zorder": 4},
        ALONE: {"color": ADSQ_COLOUR, "linewidth": 1.6, "linestyle": "--", "zorder": 4},
    }
    for name, colour in zip(best_baselines(sets), COLOURS, strict=False):
        styles[name] = {"color": colour, "linewidth": 1.6, "zorder": 3}
    return styles


def overview(sets: list[Set], look: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw a panel a data set with mAP by code length; each coloured line has its name at its end."""
    from matplotlib.figure import Figure

    columns = min(3, len(sets))
    rows = -(-len(sets) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.7 * rows), layout="constrained")
    for number, one in enumerate(sets):
        panel = figure.add_subplot(rows, columns, number + 1)
        lines = {
            name: [(b, row[b]) for b in one.bits if b in row]
            for name, row in one.table.items()
            if name in look or BUDGET_SEPARATOR not in name
        }
        for name, points in lines.items():
            x, cells = [one.bits.index(b) for b, _ in points], [cell for _, cell in points]
            spread = [stdev(score.map for score in cell.values()) if len(cell) > 1 else 0.0 for cell in cells]
            style = {
                "marker": "o",
                "markersize": 4,
                "capsize": 2,
                **look.get(name, {"color": GREY, "linewidth": 1, "zorder": 1}),
            }
            panel.errorbar(x, [map_of(cell) for cell in cells], yerr=spread if name in look else None, **style)
        ends = {name: map_of(points[-1][1]) for name, points in lines.items() if name in look and points[-1][0] == one.bits[-1]}
        coloured = [map_of(cell) for name, points in lines.items() if name in look for _, cell in points]
        if coloured:
            low, high = min(coloured), max(coloured)
            everything = min(map_of(cell) for points in lines.values() for _, cell in points)
            panel.set_ylim(
                max(high - HEADROOM * (high - low), everything) - 0.05 * (high - low) - 1e-3, high + 0.15 * (high - low) + 1e-3
            )
        name_ends(panel, ends, look, x=len(one.bits) - 1)
        panel.set_xticks(range(len(one.bits)), [str(b) for b in one.bits])
        panel.set(title=TITLES.get(one.name, one.name), xlabel="bits", ylabel=f"mAP@{one.runs[0]['map_at']}")
        panel.set_xlim(-0.2, len(one.bits) - 0.9 + 0.4 * max(1, len(one.bits) - 1))
        panel.grid(axis="y", color="0.93")
        panel.spines[["top", "right"]].set_visible(False)
    finish(figure, path, title=OVERVIEW)


def name_ends(panel: Any, ends: dict[str, float], look: dict[str, dict[str, Any]], *, x: int) -> None:
    """Write names beside the ends of lines, moved apart where they would lie on one another."""
    bottom, top = panel.get_ylim()
    step, names = (top - bottom) / 14, sorted(ends, key=ends.__getitem__)
    heights = dict(ends)
    for lower, name in pairwise(names):
        heights[name] = max(heights[name], heights[lower] + step)
    limit = top - step / 2
    for name in reversed(names):
        heights[name] = limit = min(heights[name], limit)
        limit -= step
    for name, height in heights.items():
        panel.annotate(
            name,
            (x, ends[name]),
            (x + 0.15, height),
            color=look[name]["color"],
            fontsize=8.5,
            va="center",
            arrowprops={"arrowstyle": "-", "color": look[name]["color"], "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
        )


def mean_curve(runs: list[dict[str, Any]], points: Callable[[dict[str, Any]], dict]) -> np.ndarray:
    """Average the points that all runs have over the runs: float64[2, n]."""
    by_run = [points(run) for run in runs]
    common = sorted(set.intersection(*(set(curve) for curve in by_run)))
    return np.array([[curve[key] for key in common] for curve in by_run], np.float64).mean(axis=0).reshape(-1, 2).T


def by_radius(run: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """Return recall and precision by Hamming radius."""
    lists = (run["precision_recall"][key] for key in ("radius", "recall", "precision"))
    return {radius: (recall, precision) for radius, recall, precision in zip(*lists, strict=True)}


def by_number(run: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """Return the number of first items and their precision, by that number."""
    return {int(n): (int(n), precision) for n, precision in run["precision_at"].items()}


def curves(one: Set, look: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw a column of two panels a code length with a line a method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 3.6 * len(one.bits)), 7.4), layout="constrained")
    panels = figure.subplots(2, len(one.bits), squeeze=False, sharey="row")
    names = [name for name in one.table if name != ALONE and BUDGET_SEPARATOR not in name]
    for column, bits in enumerate(one.bits):
        for panel, points in zip(panels[:, column], (by_radius, by_number), strict=True):
            for name in sorted(names, key=lambda name: list(look).index(name) if name in look else len(look)):
                cell = one.table[name].get(bits, {})
                x, y = mean_curve([score.run for score in cell.values()], points) if cell else ([], [])
                panel.plot(
                    x, y, label=name if name in look else None, **look.get(name, {"color": GREY, "linewidth": 1, "zorder": 1})
                )
            panel.grid(color="0.93")
            panel.spines[["top", "right"]].set_visible(False)
        panels[0, column].set(title=f"{bits} bits", xlabel="recall")
        panels[1, column].set(xlabel="first N", xscale="log")
    for panel in panels[:, 0]:
        panel.set_ylabel("precision")
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(look), frameon=False, fontsize=9
    )
    finish(figure, path, title=f"{TITLES.get(one.name, one.name)}. {CURVES}")


def finish(figure: Any, path: Path, *, title: str) -> None:
    """Add a title to a matplotlib figure and write it as a PNG of 256 colours, the same bytes each time."""
    figure.suptitle(title, fontsize=11, wrap=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    with Image.open(drawn) as image:  # a palette: a third of the bytes
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
