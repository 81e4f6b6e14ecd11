"""What a report measures equals what plain NumPy computes."""

import numpy as np
import pytest

from adsq_jax import codes
from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.report import measures


def random_signs(*, queries, database, bits, few=False):
    """Return random signs; with `few`, three different codes."""
    random = np.random.default_rng(bits)
    signs = random.choice([-1, 1], (queries + database, bits)).astype(np.int8)
    if few:
        signs = signs[random.integers(0, 3, queries + database)]
    return signs[:queries], signs[queries:]


@pytest.mark.parametrize("bits", [1, 12, 16])
@pytest.mark.parametrize("multi_label", [False, True])
def test_measure(bits, multi_label):
    """Pairs by distance, each query's average precision, and the nearest equal those of a loop over the pairs."""
    query, database = random_signs(queries=6, database=40, bits=bits)
    random = np.random.default_rng(0)
    labels = {"query": random.integers(0, 3, 6), "database": random.integers(0, 3, 40)}
    relevant = labels["query"][:, None] == labels["database"]
    if multi_label:
        labels = {part: (random.random((len(ids), 3)) < 0.4).astype(np.uint8) for part, ids in labels.items()}
        relevant = labels["query"] @ labels["database"].T > 0
    distance = (query[:, None] != database[None]).sum(axis=2)
    measured = measures.measure(
        codes.pack(query), codes.pack(database), labels=labels, bits=bits, cutoff="all", top=10, devices=ShardedDatabase()
    )
    np.testing.assert_array_equal(measured.similar, np.bincount(distance[relevant], minlength=bits + 1))
    np.testing.assert_array_equal(measured.dissimilar, np.bincount(distance[~relevant], minlength=bits + 1))
    for row in range(6):
        order = np.lexsort((np.arange(40), distance[row]))[:10]
        np.testing.assert_array_equal(measured.nearest[row], order)
        np.testing.assert_array_equal(measured.distances[row], distance[row][order])
        orders = []  # average precision, over orders of ties drawn at random
        for _ in range(2000 if relevant[row].any() else 0):
            hits = relevant[row][np.lexsort((random.random(40), distance[row]))]
            orders.append((np.cumsum(hits) / np.arange(1, 41))[hits].mean())
        np.testing.assert_allclose(measured.average_precision[row], np.mean(orders or [0]), atol=0.015)


@pytest.mark.parametrize("few", [False, True])
def test_bits(few):
    """Balance and correlation of the bits, of a block of codes at a time; a bit that never changes has correlation 0."""
    _, signs = random_signs(queries=0, database=50, bits=12, few=few)
    signs[:, 4] = 1
    ones, correlation = measures.bit_statistics(codes.pack(signs), bits=12, rows=7)
    np.testing.assert_allclose(ones, (signs == 1).mean(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.corrcoef(signs.T)
    np.testing.assert_allclose(correlation, np.nan_to_num(wanted), atol=1e-12)
    assert not correlation[4].any()


def test_code_usage():
    """The number of images of each code, largest first."""
    _, signs = random_signs(queries=0, database=50, bits=17, few=True)
    counted = sorted(np.unique(signs, axis=0, return_counts=True)[1].tolist(), reverse=True)
    assert measures.code_usage(codes.pack(signs)).tolist() == counted
    assert len(counted) == 3


@pytest.mark.parametrize("multi_label", [False, True])
def test_examples(multi_label):
    """One query of each class before a second of any; all queries if there are fewer than asked for."""
    labels = np.repeat(np.arange(4), [50, 1, 5, 44])
    given = np.eye(4, dtype=np.uint8)[labels] if multi_label else labels
    assert sorted(labels[measures.examples(given, count=4)]) == [0, 1, 2, 3]
    assert sorted(measures.examples(given, count=1000).tolist()) == list(range(100))
