"""The evaluator's benchmark, on a small sample: it runs, and what it sets beside the evaluator computes the same thing."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from adsq_jax import retrieval
from adsq_jax.parallel import Spread


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("evaluator", Path(__file__).parents[1] / "benchmarks" / "evaluator.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("labels", [0, 21])
def test_the_sort_beside_the_evaluator_lies_within_its_bounds(benchmark, labels):
    """The sort's mAP, of some order of ties, is between the worst and the best order."""
    data = benchmark.made_up(50, 500, 16, labels)
    ready = benchmark.unpacked(data, bits=16, label_dtype=np.int64)
    found = retrieval.measure(**benchmark.data_of(data), bits=16)["metrics"]["all"]
    assert found["map_worst"] <= benchmark.sort_based(ready, n_query=50) <= found["map_best"]


def test_the_bare_pass_adds_up_all_distances(benchmark):
    """XOR and population count of every pair: for each query the sum of its histogram's distances."""
    data = benchmark.made_up(20, 400, 64, 0)
    labels = {name: data[name] for name in ("query_labels", "database_labels")}
    counts, _ = retrieval.distance_histograms(data["query_codes"], data["database_codes"], bits=64, **labels)
    np.testing.assert_array_equal(benchmark.bare_pass(data, Spread())(), counts @ np.arange(65))


def test_a_case_and_the_scale_run(benchmark, monkeypatch, tmp_path):
    """Every figure measured is a positive number; the files of the large database are gone afterwards."""
    monkeypatch.setitem(benchmark.CASES, "small", (20, 400, 64, 21, 5))
    monkeypatch.setattr(benchmark, "TURNS", 2)
    figures = [benchmark.compare("small", Spread()), benchmark.scale(5_000, Spread(), tmp_path)]
    for found in figures:
        # what is extrapolated from so little is noise
        assert all(value > 0 for name, value in found.items() if name != "case" and "extrapolated" not in name), found
    assert list(tmp_path.iterdir()) == []
