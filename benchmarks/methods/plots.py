"""Plots of the comparison of methods. Needs matplotlib, of the extra `test`."""

import io
from collections.abc import Callable
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.methods.scores import ALONE, BOTH, Set, map_of

IMAGES = {
    "map_by_bits.png": "mAP by code length; bars: spread over the seeds",
    "precision_recall.png": "Precision over recall by Hamming radius, mean over the seeds",
    "precision_at.png": "Precision of the first N, mean over the seeds",
}
ADSQ_COLOUR = "#d4000f"
COLOURS = (
    *("#332288", "#66aadd", "#117733", "#c9a227", "#aa4499", "#44aa99"),
    *("#888888", "#885522", "#999933", "#000000", "#dd99bb", "#446677"),
)
DASHES = ("-", "--", "-.", ":")
MARKERS = "os^DvPX<>*"


def looks(sets: list[Set]) -> dict[str, dict[str, Any]]:
    """Choose colour, line and marker of every method, the same in all plots."""
    names = sorted({name for one in sets for name in one.table} - {BOTH, ALONE})
    styles = {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[(i + i // len(COLOURS)) % len(DASHES)],
            "marker": MARKERS[i % len(MARKERS)],
            "linewidth": 1.3,
            "markersize": 4,
            "zorder": 2,
        }
        for i, name in enumerate(names)
    }
    ours = {"color": ADSQ_COLOUR, "marker": "o", "markersize": 5, "zorder": 3}
    styles[BOTH] = {**ours, "linestyle": "-", "linewidth": 2.8}
    styles[ALONE] = {**ours, "linestyle": "--", "linewidth": 2.0, "markerfacecolor": "white"}
    return styles


def plot(one: Set, look: dict[str, dict[str, Any]]) -> None:
    """Draw the plots of a data set that has runs into its folder.

    Args:
      one: the data set.
      look: from `looks`.
    """
    if not one.runs:
        return

    def by_radius(run):
        points = run["precision_recall"]
        return {
            radius: (recall, precision)
            for radius, recall, precision in zip(*(points[key] for key in ("radius", "recall", "precision")), strict=True)
        }

    def by_number(run):
        return {int(n): (int(n), precision) for n, precision in run["precision_at"].items()}

    curves(one, look, points=by_radius, file="precision_recall.png", xlabel="recall")
    curves(one, look, points=by_number, file="precision_at.png", xlabel="first N", xscale="log")
    by_bits(one, look)


def mean_curve(runs: list[dict[str, Any]], points: Callable[[dict[str, Any]], dict]) -> np.ndarray:
    """Average the points that all runs have over the runs: float64[2, n]."""
    curves = [points(run) for run in runs]
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    return np.array([[curve[key] for key in common] for curve in curves], np.float64).mean(axis=0).reshape(-1, 2).T


def curves(
    one: Set, look: dict[str, dict[str, Any]], *, points: Callable[[dict[str, Any]], dict], file: str, xlabel: str, **axis: str
) -> None:
    """Draw a panel a code length with a line a method."""
    from matplotlib.figure import Figure

    width = max(6.0, 3.6 * len(one.bits))
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    panels = figure.subplots(1, len(one.bits), squeeze=False, sharey=True)[0]
    names = [name for name in sorted(one.table, key=lambda name: (name != BOTH, name)) if name != ALONE]
    for panel, bits in zip(panels, one.bits, strict=True):
        for name in names:
            cell = one.table[name].get(bits, {})
            x, y = mean_curve([score.run for score in cell.values()], points) if cell else ([], [])
            panel.plot(x, y, label=name, **{**look[name], "marker": ""})
        panel.set(title=f"{bits} bits", xlabel=xlabel, **axis)
        panel.grid(color="0.9")
    panels[0].set_ylabel("precision")
    finish(figure, one.folder / file, title=f"{one.name}. {IMAGES[file]}")


def by_bits(one: Set, look: dict[str, dict[str, Any]]) -> None:
    """Draw mAP by code length with bars of the spread, the methods side by side at a code length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 2.2 * len(one.bits) + 1.5), 4.6), layout="constrained")
    panel = figure.subplots()
    names = sorted(one.table, key=lambda name: (name not in (BOTH, ALONE), name))
    for i, name in enumerate(names):
        bits = [b for b in one.bits if b in one.table[name]]
        x = [one.bits.index(b) + 0.5 * ((i + 0.5) / len(names) - 0.5) for b in bits]
        cells = [one.table[name][b] for b in bits]
        spread = [stdev(score.map for score in cell.values()) if len(cell) > 1 else 0.0 for cell in cells]
        panel.errorbar(x, [map_of(cell) for cell in cells], yerr=spread, label=name, capsize=2.5, **look[name])
    panel.set_xticks(range(len(one.bits)), [str(b) for b in one.bits])
    panel.set(xlabel="bits", ylabel=f"mAP@{one.runs[0]['map_at']}", xlim=(-0.4, len(one.bits) - 0.6))
    panel.grid(axis="y", color="0.9")
    finish(figure, one.folder / "map_by_bits.png", title=f"{one.name}. {IMAGES['map_by_bits.png']}")


def finish(figure, path: Path, *, title: str) -> None:
    """Add title and legend to a matplotlib figure and write it as a PNG of 256 colours, the same bytes each time."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = max(2, int(figure.get_figwidth() / 1.5))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.2, fontsize=9)
    figure.suptitle(title, fontsize=11)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    with Image.open(drawn) as image:  # a palette: a third of the bytes
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
