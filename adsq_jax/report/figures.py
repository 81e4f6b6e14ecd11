"""A report's plots, as bytes of PNG. Needs matplotlib, of the extra `report`."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.report.measures import Measured

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#6b7280"  # told apart by every eye
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8c564b", "#7f7f7f", "#bcbd22")
_DASHES = ("-", "--", "-.", ":")
_NOT_TERMS = {"phase", "step", "net", "images_per_second", "input_share", "grad_norm"}


def _drawn(draw: Callable[..., None], *, size: tuple[float, float] = (7.0, 3.6), columns: int = 1) -> bytes:
    """The PNG of what a function draws on axes, or on several beside one another."""
    try:
        from matplotlib.figure import Figure  # an extra
    except ImportError as error:
        raise InputError("a report needs matplotlib: pip install -e '.[report]'") from error
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    draw(*figure.subplots(1, columns, squeeze=False)[0])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _plain(axes: Any, *, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#e5e7eb")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def losses(lines: Sequence[dict[str, Any]]) -> bytes | None:
    """Loss terms by step, LabelNet's and each ImgNet's beside one another.

    Args:
      lines: of metrics.jsonl.

    Returns:
      A PNG file's bytes; None without such lines.
    """
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in lines:
        if line.get("phase") in ("label_net", "img_net"):
            title = "LabelNet" if line["phase"] == "label_net" else f"ImgNet {line['net']}"
            for term in line.keys() - _NOT_TERMS:
                curves.setdefault(title, {}).setdefault(term, []).append((line["step"], line[term]))
    if not curves:
        return None
    terms = sorted({term for of in curves.values() for term in of} - {"loss"})
    looks = {term: (_COLOURS[i % len(_COLOURS)], _DASHES[(i // len(_COLOURS)) % 4], 1.3) for i, term in enumerate(terms)}
    looks["loss"] = ("#000000", "-", 2.4)

    def draw(*all_axes: Any) -> None:
        for axes, (title, of) in zip(all_axes, sorted(curves.items(), reverse=True), strict=True):
            for term in sorted(of):
                colour, dashes, width = looks[term]
                axes.plot(*zip(*of[term], strict=True), dashes, color=colour, linewidth=width, label=term)
            if all(value > 0 for points in of.values() for _, value in points):
                axes.set_yscale("log")
            axes.set_title(title)
            _plain(axes, x="update", y="")
            axes.legend(fontsize=7, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))

    return _drawn(draw, size=(4.6 * len(curves), 4.2), columns=len(curves))


def validation(lines: Sequence[dict[str, Any]]) -> bytes | None:
    """mAP on held-out training images by step; None without such lines."""
    points = [(line["step"], line["map"]) for line in lines if line.get("phase") == "validation"]
    if not points:
        return None

    def draw(axes: Any) -> None:
        axes.plot(*zip(*points, strict=True), "o-", color=_BLUE)
        _plain(axes, x="update of the ImgNets", y="mAP")

    return _drawn(draw)


def precision_recall(points: dict[str, Any]) -> bytes:
    """Precision over recall, a point a Hamming radius.

    Args:
      points: `precision_recall` of `retrieval.measure`.
    """

    def draw(axes: Any) -> None:
        axes.plot(points["recall"], points["precision"], "o-", markersize=3, color=_BLUE)
        for radius in (0, 2):
            if radius < len(points["recall"]):
                place = (points["recall"][radius], points["precision"][radius])
                axes.annotate(f"radius {radius}", place, xytext=(4, -14), textcoords="offset points", fontsize=8)
        axes.set_ylim(0, 1.02)
        _plain(axes, x="recall", y="precision")

    return _drawn(draw)


def precision_at(points: dict[str, float]) -> bytes:
    """Precision of the first N.

    Args:
      points: `precision_at` of `retrieval.measure`.
    """

    def draw(axes: Any) -> None:
        axes.plot([int(rank) for rank in points], list(points.values()), "o-", markersize=3, color=_BLUE)
        axes.set_xscale("log")
        axes.set_ylim(0, 1.02)
        _plain(axes, x="first N", y="precision")

    return _drawn(draw)


def distances(found: Measured) -> bytes:
    """How far similar and dissimilar pairs lie from one another, each as shares of its own kind."""

    def draw(axes: Any) -> None:
        x = np.arange(len(found.similar))
        for pairs, shift, colour, name, hatch in (
            (found.similar, -0.2, _BLUE, "similar", ""),
            (found.dissimilar, 0.2, _ORANGE, "dissimilar", "//"),
        ):
            axes.bar(x + shift, pairs / max(1, pairs.sum()), 0.4, color=colour, hatch=hatch, edgecolor="white", label=name)
        axes.legend(frameon=False)
        _plain(axes, x="Hamming distance of query and database, bits", y="share of the pairs")

    return _drawn(draw)


def bit_balance(found: Measured) -> bytes:
    """Share of +1 of each bit; half is best."""

    def draw(axes: Any) -> None:
        axes.bar(np.arange(len(found.ones)), found.ones, color=_BLUE)
        axes.axhline(0.5, color=_GREY, linestyle="--")
        axes.set_ylim(0, 1)
        _plain(axes, x="bit", y="share of +1")

    return _drawn(draw)


def correlation(found: Measured) -> bytes:
    """Correlation between the bits; away from the diagonal, 0 is best."""

    def draw(axes: Any) -> None:
        image = axes.imshow(found.correlation, cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
        axes.figure.colorbar(image, ax=axes)
        axes.set_xlabel("bit")
        axes.set_ylabel("bit")

    return _drawn(draw, size=(5.2, 4.4))


def usage(found: Measured) -> bytes:
    """How many images share each code, most first."""

    def draw(axes: Any) -> None:
        axes.plot(np.arange(1, len(found.usage) + 1), found.usage, drawstyle="steps-mid", color=_BLUE)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain(axes, x="code, most used first", y="images")

    return _drawn(draw)
