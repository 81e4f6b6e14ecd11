"""Evaluation: codes on disk, and the measures of them."""

import hashlib
import json

import mock_data
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from adsq_jax import codes, evaluate
from adsq_jax.data.datasets import labels_of

BITS = 12


class StandInEncoder:
    """Gives each image codes that its row and the network's name fix."""

    def __call__(self, state, source, rows):
        table = np.random.default_rng(state).normal(size=(len(source), BITS)).astype(np.float32)
        return table[rows]


@pytest.mark.parametrize("multi_label", [False, True])
def test_codes_are_written_by_row_and_the_manifest_is_true(multi_label, tmp_path):
    """The files hold the signs of f, g and f + g in the split's order, with labels; the manifest's hashes are theirs."""
    data = mock_data.dataset(multi_label=multi_label)
    evaluate.evaluate(StandInEncoder(), {"f": 1, "g": 2}, data, bits=BITS, query_net="sum", directory=tmp_path)
    manifest = json.loads((tmp_path / "codes" / "manifest.json").read_text())
    assert len(manifest["files"]) == 10
    for part in ("query", "database"):
        rows = getattr(data.split, part)
        tables = {name: np.random.default_rng(seed).normal(size=(140, BITS))[rows] for name, seed in (("f", 1), ("g", 2))}
        tables["sum"] = tables["f"] + tables["g"]
        for name, table in tables.items():
            packed = np.load(tmp_path / "codes" / f"{part}_{name}.npy")
            assert np.array_equal(codes.unpack(packed, bits=BITS), np.where(table < 0, -1, 1))
        assert np.array_equal(np.load(tmp_path / "codes" / f"{part}_rows.npy"), rows)
        labels = np.load(tmp_path / "codes" / f"{part}_labels.npy")
        expected = labels_of(data, part)
        assert np.array_equal(labels, expected if multi_label else np.nonzero(expected)[1])
    for name, entry in manifest["files"].items():
        array = np.load(tmp_path / "codes" / name)
        assert entry["sha256"] == hashlib.sha256(array.tobytes()).hexdigest()


def test_each_query_net_sets_its_own_codes_against_the_database(tmp_path):
    """ff, gg, fg and sum are each the mAP of the codes that they name, as measured from the files."""
    data = mock_data.dataset()
    result = evaluate.evaluate(StandInEncoder(), {"f": 1, "g": 2}, data, bits=BITS, query_net="fg", directory=tmp_path)
    labels = {part: labels_of(data, part) for part in ("query", "database")}
    for name, (query, database) in {"ff": "ff", "gg": "gg", "fg": "fg", "sum": ("sum", "sum")}.items():
        found, _ = evaluate.measure(
            np.load(tmp_path / "codes" / f"query_{query}.npy"),
            np.load(tmp_path / "codes" / f"database_{database}.npy"),
            query_labels=labels["query"],
            database_labels=labels["database"],
            bits=BITS,
            cutoffs=("all",),
        )
        assert result["map_by_query_net"][name] == found["all"]["map"]
    assert result["map"] == result["map_by_query_net"]["fg"]
    assert result["database_holds_train"]


def test_map_equals_scikit_learn_where_no_distances_are_equal():
    """One-hot-like codes at distinct distances: mAP@all is the mean of scikit-learn's average precision."""
    database = np.where(np.tri(9, 8, -1), 1, -1).astype(np.int8)  # distance i to the code of all -1
    query = -np.ones((2, 8), np.int8)
    relevant = np.array([[0, 1, 0, 1, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 0, 0]])
    found, without = evaluate.measure(
        codes.pack(query),
        codes.pack(database),
        query_labels=np.eye(2, dtype=np.uint8),
        database_labels=relevant.T.astype(np.uint8),
        bits=8,
        cutoffs=("all", "1"),
    )
    expected = np.mean([average_precision_score(row, -np.arange(9)) for row in relevant])
    assert found["all"]["map"] == pytest.approx(expected, abs=1e-12)
    assert found["1"]["map"] == 0.5
    assert without == 0


def test_a_result_without_a_relevant_item_is_counted():
    """A query that nothing is relevant to counts 0, and is reported."""
    ones = np.ones((3, 8), np.int8)
    found, without = evaluate.measure(
        codes.pack(ones),
        codes.pack(ones),
        query_labels=np.eye(3, dtype=np.uint8),
        database_labels=np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], np.uint8),
        bits=8,
        cutoffs=("all",),
    )
    assert without == 1
    assert found["all"]["map"] < 2 / 3
