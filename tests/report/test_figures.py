"""The plots show the numbers that they are given, and are PNG."""

import io
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from adsq_jax.report import figures
from adsq_jax.report.measures import Measured

MEASURED = Measured(
    average_precision=np.array([0.5]),
    chance=0.1,
    similar=np.array([3, 1, 0]),
    dissimilar=np.array([0, 2, 6]),
    ones=np.array([0.25, 0.75]),
    correlation=np.array([[1, -0.5], [-0.5, 1]]),
    usage=np.array([5, 2]),
    nearest=np.zeros((1, 1), int),
    distances=np.zeros((1, 1), int),
    tied=np.zeros((1, 1), int),
)
LINES = [
    {"phase": "label_net", "step": 10, "loss": 2.0, "likelihood": 1.5, "grad_norm": 9.0, "images_per_second": 100.0},
    {"phase": "label_net", "step": 20, "loss": 1.0, "likelihood": 0.5, "grad_norm": 9.0, "images_per_second": 100.0},
    {"phase": "img_net", "net": "f", "step": 10, "loss": 3.0, "guidance": 0.0, "input_share": 0.5},
    {"phase": "img_net", "net": "g", "step": 10, "loss": 4.0, "guidance": 0.5, "input_share": 0.5},
    {"phase": "validation", "step": 10, "map": 0.25},
    {"phase": "validation", "step": 20, "map": 0.75},
    {"phase": "codes", "step": 20, "changed": 3},
]


@pytest.fixture
def axes(monkeypatch):
    """The axes of each figure that is saved."""
    saved, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (saved.extend(figure.axes), save(figure, *a, **k))[1])
    return saved


def opened(png):
    return Image.open(io.BytesIO(png), formats=["PNG"])


def test_losses(axes):
    """A plot a network, f before g, with every term by update and nothing else; a logarithm only where all are positive."""
    plots = figures.losses([*LINES[3:], *LINES[:3]])
    assert list(plots) == ["LabelNet", "ImgNet f", "ImgNet g"]
    for png in plots.values():
        opened(png)
    drawn = {
        name: {line.get_label(): line.get_xydata().tolist() for line in ax.lines} for name, ax in zip(plots, axes, strict=True)
    }
    assert drawn == {
        "LabelNet": {"loss": [[10, 2], [20, 1]], "likelihood": [[10, 1.5], [20, 0.5]]},
        "ImgNet f": {"loss": [[10, 3]], "guidance": [[10, 0]]},
        "ImgNet g": {"loss": [[10, 4]], "guidance": [[10, 0.5]]},
    }
    assert [ax.get_yscale() for ax in axes] == ["log", "linear", "log"]


def test_one_network_alone():
    """A method without LabelNet and twin has one plot of its terms."""
    assert list(figures.losses([line for line in LINES if line.get("net") == "f"])) == ["ImgNet f"]


def test_plots_are_as_wide_as_a_phone_can_show(axes):
    """Each plot is one panel with names for both axes, less than twice as wide as high, but for the scale of colours."""
    pngs = [*figures.losses(LINES).values(), figures.validation(LINES)]
    pngs += [figures.precision_recall({"recall": [0.5], "precision": [1.0]}), figures.precision_at({"1": 0.5})]
    pngs += [draw(MEASURED) for draw in (figures.distances, figures.bit_balance, figures.usage, figures.correlation)]
    sizes = [opened(png).size for png in pngs]
    assert all(height < width < 2 * height for width, height in sizes)
    panels = [ax for ax in axes if ax.get_label() != "<colorbar>"]
    assert len(panels) == len(pngs)
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in panels)


def test_a_single_point_is_visible(axes):
    """A term that was logged once has a marker, since a line needs two points."""
    figures.losses(LINES[:3])
    assert [{line.get_marker() for line in ax.lines} for ax in axes] == [{""}, {"o"}]


def test_terms_differ_from_the_loss(axes):
    """No term has the loss's black, however many there are."""
    terms = {f"term {number:02d}": 1.0 for number in range(20)}
    figures.losses([{"phase": "label_net", "step": step, "loss": 1.0, **terms} for step in (1, 2)])
    looks = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in axes[0].lines}
    assert len(set(looks.values())) == 21
    assert [name for name, (colour, _) in looks.items() if colour == "#000000"] == ["loss"]


def test_a_term_looks_the_same_in_every_plot(axes):
    """Its colour and dashes don't depend on which other terms a network has; up to eight terms have colours of their own."""
    names = (
        "balance",
        "difference",
        "guidance",
        "likelihood",
        "quantization",
        "regression",
        "semantic_likelihood",
        "similarity",
    )
    lines = [{"phase": "label_net", "step": 1, "loss": 9.0, **dict.fromkeys(names, 1.0)}]
    lines.append({"phase": "img_net", "net": "f", "step": 1, "loss": 9.0, **dict.fromkeys(names[::3], 1.0)})
    figures.losses(lines)
    whole, some = ({line.get_label(): (line.get_color(), line.get_linestyle()) for line in ax.lines} for ax in axes)
    assert some.items() <= whole.items()
    assert len({colour for colour, _ in whole.values()}) == len(whole) == 9
    assert "semantic likelihood" in whole


def test_validation(axes):
    """mAP by update."""
    opened(figures.validation(LINES))
    assert axes[0].lines[0].get_xydata().tolist() == [[10, 0.25], [20, 0.75]]


def test_a_sweep(axes):
    """mAP by code length in order of the length, a line for each method; without numbers, a point for each combination."""
    means = [
        {"values": {"method": method, "bits": bits}, "map": value, "map_at": "all", "deviation": 0.01}
        for method, bits, value in [("adsq", "24", 0.6), ("adsq", "12", 0.5), ("dpsh", "12", 0.4), ("dpsh", "24", 0.3)]
    ]
    opened(figures.sweep(means))
    lines = {bars.get_label(): bars.lines[0].get_xydata().tolist() for bars in axes[0].containers}
    assert lines == {"method=adsq": [[12, 0.5], [24, 0.6]], "method=dpsh": [[12, 0.4], [24, 0.3]]}
    opened(figures.sweep([{"values": {"method": "adsq"}, "map": 0.5, "map_at": 5, "deviation": 0.0}]))
    assert axes[1].get_ylabel() == "mAP@5"


def test_nothing_to_draw():
    """Without lines there are no plots of them."""
    assert figures.losses(LINES[4:]) == {}
    assert figures.validation(LINES[:4]) is None


def test_precision_and_recall(axes):
    """Precision over recall by radius, over the whole range of recall; the legend names two of the points."""
    opened(figures.precision_recall({"recall": [0.1, 0.5, 1.0], "precision": [1.0, 0.75, 0.2]}))
    curve, *marks = axes[0].lines
    assert curve.get_xydata().tolist() == [[0.1, 1], [0.5, 0.75], [1, 0.2]]
    assert {line.get_label(): line.get_xydata().tolist() for line in marks} == {"radius 0": [[0.1, 1]], "radius 2": [[1, 0.2]]}
    assert axes[0].get_xlim() == (0, 1.02)
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["radius 0", "radius 2"]


RANKS = (1, 5, 10, 20, 50, *range(100, 1001, 100), 2000, 5000, 10_000)


@pytest.mark.parametrize("count", [1, 4, len(RANKS)])
def test_precision_by_rank(axes, count):
    """Ranks that have been through a file of JSON, where they are sorted as text, are drawn in the order of numbers."""
    by_rank = {str(rank): 1 / rank for rank in RANKS[:count]}
    opened(figures.precision_at(json.loads(json.dumps(by_rank, sort_keys=True))))
    assert axes[0].lines[0].get_xydata().tolist() == [[rank, 1 / rank] for rank in RANKS[:count]]
    assert axes[0].get_xscale() == ("linear" if count < 4 else "log")
    labels = {label.get_text() for label in axes[0].get_xticklabels()}
    assert count < len(RANKS) or {"1", "10", "100", "1,000", "10,000"} <= labels


def test_codes(axes):
    """Distances as fractions of their kind, the bits, their correlation, and how many images have a code."""
    for draw in (figures.distances, figures.bit_balance, figures.usage, figures.correlation):
        opened(draw(MEASURED))
    heights = [[bar.get_height() for bar in bars] for bars in axes[0].containers]
    assert heights == [[0.75, 0.25, 0], [0, 0.25, 0.75]]
    assert [bar.get_height() for bar in axes[1].patches] == [0.25, 0.75]
    assert axes[2].lines[0].get_xydata().tolist() == [[1, 5], [2, 2]]
    np.testing.assert_array_equal(axes[3].images[0].get_array(), MEASURED.correlation)
