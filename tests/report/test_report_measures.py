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
    """Pairs by distance, each query's average precision, and the nearest with their ties equal those of a loop."""
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
        np.testing.assert_array_equal(measured.tied[row], [(distance[row] == distance[row, item]).sum() - 1 for item in order])
        orders = []  # average precision, over orders of ties drawn at random
        for _ in range(2000 if relevant[row].any() else 0):
            hits = relevant[row][np.lexsort((random.random(40), distance[row]))]
            orders.append((np.cumsum(hits) / np.arange(1, 41))[hits].mean())
        np.testing.assert_allclose(measured.average_precision[row], np.mean(orders or [0]), atol=0.015)


def test_classes_from_the_lowest():
    """Each class that a query has, with the number of its queries; of ids and of several labels."""
    precision = np.array([0.5, 1.0, 0.25, 0.0])
    assert measures.by_class(np.array([7, 7, 2, 9]), precision) == [(9, 1, 0.0), (2, 1, 0.25), (7, 2, 0.75)]
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]])
    assert measures.by_class(labels, precision) == [(0, 2, 0.375), (2, 2, 0.75)]


@pytest.mark.parametrize("cutoff", ["all", "7"])
def test_chance(cutoff):
    """It is the mAP of the database in random order, whatever the codes are."""
    query, database = random_signs(queries=8, database=40, bits=12)
    random = np.random.default_rng(1)
    labels = {"query": np.arange(8) % 4, "database": random.integers(0, 3, 40)}  # nothing is relevant to class 3
    measured = measures.measure(
        codes.pack(query), codes.pack(database), labels=labels, bits=12, cutoff=cutoff, top=10, devices=ShardedDatabase()
    )
    limit, values = 40 if cutoff == "all" else int(cutoff), []
    for _ in range(4000):
        hits = (labels["query"][:, None] == labels["database"][random.permutation(40)])[:, :limit]
        best = np.minimum(limit, (labels["query"][:, None] == labels["database"]).sum(axis=1))
        precision = np.cumsum(hits, axis=1) / np.arange(1, limit + 1)
        values.append(((precision * hits).sum(axis=1) / np.maximum(best, 1)).mean())
    assert measured.chance == pytest.approx(np.mean(values), abs=0.005)


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
    """One query of each class before a second of any, by class and the best first; all if there are fewer than asked for."""
    random = np.random.default_rng(0)
    labels, scores = random.permutation(np.repeat(np.arange(4), [50, 1, 5, 44])), random.random(100)
    given = np.eye(4, dtype=np.uint8)[labels] if multi_label else labels
    assert labels[measures.examples(given, scores, count=4)].tolist() == [0, 1, 2, 3]
    rows = measures.examples(given, scores, count=1000).tolist()
    assert rows == sorted(range(100), key=lambda row: (labels[row], -scores[row]))
