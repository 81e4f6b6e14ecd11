"""The plots of a report, as bytes of PNG. Needs matplotlib, from the extra `report`."""

import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.report.measures import Measured

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#6b7280"  # distinct with every kind of colour vision
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#7b3294", "#56b4e9", "#8c6d31")
_DASHES = ("-", "--", "-.", ":")
_NOT_TERMS = {"phase", "step", "net", "images_per_second", "input_share", "grad_norm"}
_LOG_FROM = 20  # counts up to a smaller number are clearer on a linear axis


def _figure(*, height: float = 3.1) -> tuple[Any, Any]:
    """Return a figure and its axes: each plot is a picture of its own, narrow enough to be read on a phone."""
    try:
        from matplotlib.figure import Figure  # an extra
    except ModuleNotFoundError as error:
        raise InputError("a report needs matplotlib; fix: pip install 'adsq_jax[report]'") from error
    figure = Figure(figsize=(4.8, height), dpi=230, layout="constrained")
    return figure, figure.subplots()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _style(axes: Any, *, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, axisbelow=True)
    axes.grid(color="#e5e7eb")
    axes.spines[["top", "right"]].set_visible(False)


def _count_axis(axes: Any, name: Literal["x", "y"], *, highest: int) -> None:
    """Show counts from 1 on: whole numbers, on a logarithmic axis if they are large."""
    if highest < _LOG_FROM:
        axes.locator_params(name, integer=True)
        return
    axes.set(**{f"{name}scale": "log"})
    getattr(axes, f"{name}axis").set_major_formatter("{x:,.0f}")


def losses(metrics: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """Plot the loss terms by update, a plot each for "LabelNet", "ImgNet f" and "ImgNet g", if `metrics` has their lines."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}  # by network and term
    for line in metrics:
        if line.get("phase") in ("label_net", "img_net"):
            network = "LabelNet" if line["phase"] == "label_net" else f"ImgNet {line['net']}"
            for term in line.keys() - _NOT_TERMS:
                curves.setdefault(network, {}).setdefault(term, []).append((line["step"], line[term]))
    terms = sorted({term for by_term in curves.values() for term in by_term} - {"loss"})  # with the same looks in every plot
    looks = {term: (_COLOURS[i % len(_COLOURS)], _DASHES[(i + i // len(_COLOURS)) % 4], 1.5) for i, term in enumerate(terms)}
    looks["loss"] = ("#000000", "-", 2.4)
    networks = sorted(curves, key=lambda network: (network != "LabelNet", network))
    return {network: _loss_terms(curves[network], looks) for network in networks}


def _loss_terms(curves: dict[str, list[tuple[int, float]]], looks: dict[str, tuple[str, str, float]]) -> bytes:
    figure, axes = _figure(height=4.2)
    for term in sorted(
        curves, key=lambda term: (term != "loss", -curves[term][-1][1], term)
    ):  # the legend is in the lines' order
        colour, dashes, width = looks[term]
        marker = "o" if len(curves[term]) == 1 else ""  # a line needs two points
        axes.plot(
            *zip(*curves[term], strict=True), dashes, marker=marker, color=colour, linewidth=width, label=term.replace("_", " ")
        )
    if all(value > 0 for points in curves.values() for _, value in points):
        axes.set_yscale("log")
    axes.locator_params("x", integer=True)
    _style(axes, x="update", y="term times its weight")
    figure.legend(frameon=False, ncols=2, loc="outside lower center", fontsize=9, handlelength=2.8)
    return _png(figure)


def validation(metrics: Sequence[dict[str, Any]]) -> bytes | None:
    """Plot mAP on held-out training images by update; None if `metrics` has no such lines."""
    points = [(line["step"], line["map"]) for line in metrics if line.get("phase") == "validation"]
    if not points:
        return None
    figure, axes = _figure()
    axes.plot(*zip(*points, strict=True), "o-", color=_BLUE)
    _style(axes, x="update of the ImgNets", y="mAP")
    return _png(figure)


def precision_recall(curve: dict[str, Any]) -> bytes:
    """Plot precision over recall, a point for each Hamming radius, from `precision_recall` of a result."""
    figure, axes = _figure()
    recall, precision = curve["recall"], curve["precision"]
    axes.plot(recall, precision, "o-", markersize=3, color=_BLUE)
    for radius, marker in ((0, "s"), (2, "D")):
        if radius < len(recall):
            axes.plot(recall[radius], precision[radius], marker, color=_ORANGE, fillstyle="none", label=f"radius {radius}")
    axes.legend(frameon=False, loc="lower left")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.04)
    _style(axes, x="recall", y="precision")
    return _png(figure)


def precision_at(by_rank: dict[str, float]) -> bytes:
    """Plot the precision of the first N, from `precision_at` of a result, whose ranks are text in any order."""
    points = sorted((int(rank), precision) for rank, precision in by_rank.items())
    figure, axes = _figure()
    axes.plot(*zip(*points, strict=True), "o-", markersize=3, color=_BLUE)
    _count_axis(axes, "x", highest=points[-1][0])
    axes.set_ylim(0, 1.04)
    _style(axes, x="first N", y="precision")
    return _png(figure)


def distances(measured: Measured) -> bytes:
    """Plot how far similar and dissimilar pairs are apart, each as a fraction of its kind."""
    figure, axes = _figure()
    x = np.arange(len(measured.similar))
    for pairs, shift, colour, name, hatch in (
        (measured.similar, -0.2, _BLUE, "similar", ""),
        (measured.dissimilar, 0.2, _ORANGE, "dissimilar", "//"),
    ):
        axes.bar(x + shift, pairs / max(1, pairs.sum()), 0.4, color=colour, hatch=hatch, edgecolor="white", label=name)
    axes.legend(frameon=False)
    axes.locator_params("x", integer=True)
    _style(axes, x="Hamming distance of query and database, bits", y="fraction of the pairs")
    return _png(figure)


def bit_balance(measured: Measured) -> bytes:
    """Plot the fraction of +1 of each bit; a half is best."""
    figure, axes = _figure()
    axes.bar(np.arange(len(measured.ones)), measured.ones, color=_BLUE)
    axes.axhline(0.5, color=_GREY, linestyle="--")
    axes.set_ylim(0, 1)
    axes.locator_params("x", integer=True)
    _style(axes, x="bit", y="fraction of +1")
    return _png(figure)


def correlation(measured: Measured) -> bytes:
    """Plot the correlation between the bits; off the diagonal, 0 is best."""
    figure, axes = _figure()
    image = axes.imshow(measured.correlation, cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label="correlation")
    axes.locator_params(integer=True)
    axes.set(xlabel="bit", ylabel="bit")
    return _png(figure)


def usage(measured: Measured) -> bytes:
    """Plot how many pictures share each code, the most used code first."""
    figure, axes = _figure()
    axes.plot(np.arange(1, len(measured.usage) + 1), measured.usage, ".-", drawstyle="steps-mid", color=_BLUE)
    _count_axis(axes, "x", highest=len(measured.usage))
    _count_axis(axes, "y", highest=int(measured.usage[0]))
    if measured.usage[0] < _LOG_FROM:
        axes.set_ylim(0)
    _style(axes, x="code, most used first", y="pictures with this code")
    return _png(figure)


def sweep(means: Sequence[dict[str, Any]]) -> bytes:
    """Plot mAP over the first key with numbers, a line for each combination of the others, bars for the deviation over seeds.

    Args:
      means: from `training.sweep.means`, at least one.
    """
    keys = list(means[0]["values"])
    x = next((key for key in keys if all(_is_number(one["values"][key]) for one in means)), None)
    ranks = {str(one["map_at"]) for one in means}
    lines: dict[str, list[dict[str, Any]]] = {}
    for one in means:
        label = ", ".join(f"{key}={value}" for key, value in one["values"].items() if key != x)
        lines.setdefault(label if x is not None else "", []).append(one)
    figure, axes = _figure(height=3.1 + 0.22 * ((len(lines) + 1) // 2))
    for number, (label, points) in enumerate(lines.items()):
        if x is not None:
            points = sorted(points, key=lambda one: float(one["values"][x]))
        places = [float(one["values"][x]) for one in points] if x is not None else list(range(len(points)))
        style = {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _DASHES[number % 4] if x is not None else ""}
        errors = [one["deviation"] for one in points] if any(one["deviation"] for one in points) else None
        axes.errorbar(
            places,
            [one["map"] for one in points],
            yerr=errors,
            marker="o",
            markersize=4,
            capsize=3,
            label=label,
            **style,
        )
    if x is None:
        axes.set_xticks(range(len(means)), ["\n".join(map(str, one["values"].values())) for one in means])
    else:
        axes.set_xticks(sorted({float(one["values"][x]) for one in means}))
        axes.xaxis.set_major_formatter("{x:g}")
    if any(lines):
        figure.legend(frameon=False, ncols=2, loc="outside lower center", fontsize=9)
    _style(axes, x=x or ", ".join(keys), y=f"mAP@{ranks.pop()}" if len(ranks) == 1 else "mAP")
    return _png(figure)


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False
