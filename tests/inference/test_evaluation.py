"""Results of runs: codes on disk, the measures of them, and the tables that people read."""

import hashlib
import json

import numpy as np
import pytest
from support import mock_data

from adsq_jax import codes, retrieval
from adsq_jax.data.datasets import part_labels
from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.inference import evaluation
from adsq_jax.retrieval import query_nets
from adsq_jax.run import codes_folder

BITS = 12


class StandInEncoder:
    """Gives each image codes that its row and the network's name fix."""

    def __call__(self, state, rows):
        table = np.random.default_rng(state).normal(size=(140, BITS)).astype(np.float32)  # of mock_data's 140 images
        return table[rows]


@pytest.mark.parametrize("multi_label", [False, True])
def test_codes_are_written_by_row_and_the_manifest_is_true(multi_label, tmp_path):
    """The files hold the signs of f, g and f + g in the split's order, with labels; the manifest's hashes are theirs."""
    data = mock_data.dataset(multi_label=multi_label)
    evaluation.evaluate(
        StandInEncoder(), {"f": 1, "g": 2}, data, bits=BITS, query_net="sum", directory=tmp_path, devices=ShardedDatabase()
    )
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
        expected = part_labels(data, part)
        assert np.array_equal(labels, expected if multi_label else np.nonzero(expected)[1])
    for name, entry in manifest["files"].items():
        array = np.load(tmp_path / "codes" / name)
        assert entry["sha256"] == hashlib.sha256(array.tobytes()).hexdigest()


def test_each_query_net_sets_its_own_codes_against_the_database(tmp_path):
    """ff, gg, fg and sum are each the mAP of the codes that they name, as measured from the files."""
    data = mock_data.dataset()
    result = evaluation.evaluate(
        StandInEncoder(), {"f": 1, "g": 2}, data, bits=BITS, query_net="fg", directory=tmp_path, devices=ShardedDatabase()
    )
    labels = {part: part_labels(data, part) for part in ("query", "database")}
    for name, (query, database) in {"ff": "ff", "gg": "gg", "fg": "fg", "sum": ("sum", "sum")}.items():
        found = retrieval.measure(
            np.load(tmp_path / "codes" / f"query_{query}.npy"),
            np.load(tmp_path / "codes" / f"database_{database}.npy"),
            query_labels=labels["query"],
            database_labels=labels["database"],
            bits=BITS,
        )
        assert result["map_by_query_net"][name] == found.map
    assert result["map"] == result["map_by_query_net"]["fg"] == result["metrics"]["all"]["map"]
    assert result["map_by_class"] == result["metrics"]["all"]["map_by_class"]
    assert result["map_mean_of_classes"] == np.mean(list(result["map_by_class"].values()))
    assert result["class_names"] == list(data.source.classes)
    assert [int(name) for name in result["map_by_class"]] == sorted(np.unique(labels["query"].argmax(axis=1)))
    assert result["database_holds_train"]
    assert result["n_query_in_database"] == 0


@pytest.mark.parametrize(("announce", "lines"), [(None, [0, 2]), (True, [2, 2]), (False, [0, 0])])
def test_a_score_while_training_is_silent(announce, lines, tmp_path, capsys):
    """Where no codes are written, nothing is said that would cut through a progress bar, unless the caller wants it."""
    for directory, expected in zip((None, tmp_path), lines, strict=True):
        evaluation.evaluate(
            StandInEncoder(),
            {"f": 1, "g": 2},
            mock_data.dataset(),
            bits=BITS,
            query_net="sum",
            directory=directory,
            devices=ShardedDatabase(),
            announce=announce,
        )
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("encoding ")) == ("", expected)


def written(tmp_path, **options):
    """A folder of codes, and what was measured of them."""
    data = mock_data.dataset(**options)
    return evaluation.evaluate(
        StandInEncoder(), {"f": 1, "g": 2}, data, bits=BITS, query_net="sum", directory=tmp_path, devices=ShardedDatabase()
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_codes_read_back_measure_the_same(multi_label, tmp_path):
    """The codes read back measure as `evaluate` measured them; other cutoffs and the legacy figures come if asked for."""
    result = written(tmp_path, multi_label=multi_label)
    packed, labels, bits = codes_folder.read(tmp_path / "codes")
    again = query_nets.measure_query_nets(
        packed, labels, bits=bits, query_net="sum", map_at="all", cutoffs=["7"], with_legacy=True, devices=ShardedDatabase()
    )
    assert again["map_by_query_net"] == result["map_by_query_net"]
    assert list(again["metrics"]) == ["all", "7"]
    assert result["metrics"]["all"].items() <= again["metrics"]["all"].items()
    assert "map_legacy_hashnet" in again["metrics"]["7"]
    assert ("ndcg" in again["metrics"]["7"]) == multi_label
