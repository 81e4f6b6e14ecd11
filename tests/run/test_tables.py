"""Tables of results as text: aligned columns, and every figure of a run and of a retrieval."""

import numpy as np
import pytest

from adsq_jax import retrieval
from adsq_jax.run import tables


def test_cells_stand_in_columns():
    """Columns are two spaces apart, on the left or on the right; no line ends with spaces."""
    rows = [("rank", "bits", "path"), ("1", "12", "a.png"), ("100", "3", "")]
    assert tables.align(rows, right=(0, 1)) == "rank  bits  path\n   1    12  a.png\n 100     3"
    assert tables.align(rows[1:]) == "1    12  a.png\n100  3"


def test_the_cells_of_each_row_are_as_many():
    """A row that lacks a cell is a defect of the caller."""
    with pytest.raises(ValueError, match="shorter"):
        tables.align([("a", "b"), ("c",)])


RESULT = {
    "protocol": "digits",
    "split_sha256": "0123456789abcdef",
    "n_query": 1000,
    "n_train": 5000,
    "n_database": 59000,
    "bits": 24,
    "seed": 3,
    "map_at": "5000",
    "map_by_query_net": {"ff": 0.5, "sum": 0.75},
    "query_net": "sum",
    "seconds": 12.4,
    "machine": "1 x cpu",
    "validation": 0,
}


def test_the_table_of_a_result():
    """The result's query net is marked; images held out for tuning are mentioned where there are some."""
    lines = tables.result_table(RESULT).splitlines()
    assert lines[0].split(maxsplit=1) == ["protocol", "digits, split 0123456789ab"]
    assert lines[1].split("  ") == ["queries / training set / database", "1,000 / 5,000 / 59,000"]
    assert [line.split()[-1] for line in lines if line.startswith("mAP@5000")] == ["0.5000", "0.7500"]
    assert "mAP@5000 sum (the result)" in lines[4]
    assert len({line.rindex("  ") for line in lines}) == 1
    assert "held out for tuning" not in "\n".join(lines)
    assert "200 training images" in tables.result_table(RESULT | {"validation": 200}).splitlines()[1]


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0.0, "0"), (3.0, "3"), (2.5, "2.5"), (7 / 3, "2.33"), (100, "100"), (1234.0, "1,234"), (1000.5, "1,000.5")],
)
def test_the_round_of_the_best_state(number, shown):
    """A whole round has no fraction, and no round is written as a power of ten."""
    last = tables.result_table(RESULT | {"best": {"round": number, "map": 0.5}}).splitlines()[-2]
    assert last.endswith(f"  0.5000 after round {shown}")


def test_the_classes_in_the_table_of_a_result():
    """Their mean, and the lowest by its name; a result of before there were classes has no such row."""
    assert "classes" not in tables.result_table(RESULT)
    classes = {"map_by_class": {"0": 0.5, "3": 0.25}, "map_mean_of_classes": 0.375}
    text = tables.result_table(RESULT | classes)
    assert "mAP@5000 sum, mean of 2 classes" in text
    assert "0.3750, lowest 0.2500 (3)" in text
    assert "0.3750, lowest 0.2500 (d)" in tables.result_table(RESULT | classes | {"class_names": list("abcd")})
    assert "classes" not in tables.result_table(RESULT | {"map_by_class": {}, "map_mean_of_classes": None})


def test_the_table_of_measures_shows_each_figure():
    """Every figure by cutoff stands in the table, to four digits, and none of a mean over nothing."""
    random = np.random.default_rng(0)
    codes, labels = random.choice([-1, 1], (140, 12)), random.random((140, 3)) < 0.4
    found = retrieval.measure(
        codes[:20], codes[20:], query_labels=labels[:20], database_labels=labels[20:], cutoffs=["all", "7"], with_legacy=True
    ).to_dict()
    found["metrics"]["7"]["map_answerable"] = None
    text = tables.measures_table({**found, "class_names": ["an ant", "b", "c" * 99]})
    assert "none" in text
    lowest = [min(figures["map_by_class"], key=figures["map_by_class"].get) for figures in found["metrics"].values()]
    shown = [["an ant", "b", "c" * 27 + "..."][int(key)] for key in lowest]
    assert [line.split()[3:] for line in text.splitlines() if line.startswith("the lowest class")] == [" ".join(shown).split()]
    for figures in found["metrics"].values():
        assert f"{min(figures.pop('map_by_class').values()):.4f}" in text
        assert all(f"{value:.4f}" in text for value in figures.values() if value is not None)
    for name in ("precision_at", "recall_at"):
        assert all(f"{found[name][rank]:.4f}" in text for rank in ("1", "10", "100"))
    assert f"{found['precision_radius2']:.4f}" in text
