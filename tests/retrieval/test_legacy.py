"""Average precision of published code against a plain version of it, and against the tie-aware one without ties."""

import numpy as np
import pytest

from adsq_jax.retrieval import Limits, hamming, legacy, metrics
from adsq_jax.retrieval.arrays import prepare_codes, prepare_labels


def plain(query, database, relevant, cutoff):
    """AP of each query by signed products and a stable sort, and whether it has a hit; by hand, item by item."""
    precisions, hits = [], []
    for code, own in zip(query, relevant, strict=True):
        distances = 0.5 * (query.shape[1] - code @ database.T)
        total, seen = 0.0, 0
        for rank, item in enumerate(np.argsort(distances, kind="stable")[:cutoff], start=1):
            if own[item]:
                seen += 1
                total += seen / rank
        precisions.append(total / seen if seen else 0.0)
        hits.append(seen > 0)
    return np.array(precisions), np.array(hits)


def both_means(precisions, hits):
    """Over all queries, as one published code; over those with a hit, as another."""
    return precisions.mean(), precisions[hits].mean() if hits.any() else None


# bits, queries, items, classes, chance of a label
SIZES = {
    "1 query": (7, 1, 40, 3, 0.4),
    "1 item": (16, 6, 1, 3, 0.4),
    "1 bit": (1, 5, 30, 3, 0.4),
    "7 bits": (7, 8, 50, 4, 0.3),
    "33 bits": (33, 8, 50, 40, 0.1),
    "100 bits": (100, 8, 50, 4, 0.1),
    "256 bits": (256, 8, 50, 4, 0.3),
    "512 bits": (512, 8, 50, 4, 0.3),
    "1,024 bits": (1024, 8, 50, 4, 0.3),
    "none relevant": (12, 5, 30, 4, 0.0),
    "all relevant": (12, 5, 30, 4, 1.0),
}
CUTOFFS = [1, 2, 10, 1000, None]


def problem(size, *, ids, seed=0):
    """Signs of queries and database, their labels, and which items are relevant."""
    bits, n_query, n_database, classes, chance = size
    random = np.random.default_rng(seed)
    query, database = random.choice([-1.0, 1.0], (n_query, bits)), random.choice([-1.0, 1.0], (n_database, bits))
    if ids:
        own, other = random.integers(0, classes, n_query), random.integers(0, classes, n_database)
        if chance in (0, 1):
            own, other = np.zeros(n_query, int), np.full(n_database, 1 - int(chance))
        return (query, database), (own, other), own[:, None] == other
    own, other = random.random((n_query, classes)) < chance, random.random((n_database, classes)) < chance
    return (query, database), (own, other), own.astype(int) @ other.T.astype(int) > 0


def run(codes, labels, **more):
    sides = prepare_codes(*codes, bits=None)
    own = prepare_labels(*labels, n_query=len(sides[0]), n_database=len(sides[1]))
    return legacy.average_precision(*sides, own, cutoffs=CUTOFFS, **more)


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_equals_a_plain_ranking(size, ids):
    """Every query's value, whether it has a hit, and both means, at cutoffs from 1 to beyond the database."""
    codes, labels, relevant = problem(size, ids=ids)
    precisions, hits = run(codes, labels)
    assert precisions.dtype == np.float64
    for i, cutoff in enumerate(CUTOFFS):
        expected, expected_hits = plain(*codes, relevant, cutoff)
        np.testing.assert_allclose(precisions[i], expected, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(hits[i], expected_hits)
        for mean, expected_mean in zip(both_means(precisions[i], hits[i]), both_means(expected, expected_hits), strict=True):
            assert mean == expected_mean or abs(mean - expected_mean) <= 1e-15


def test_the_means_differ_where_a_query_has_no_hit():
    """Two queries, one with its label first and one without a hit: means of 1/2 and of 1."""
    precisions, hits = run((np.array([[1, 1], [1, -1]]), np.array([[1, 1], [-1, -1]])), (np.array([0, 1]), np.array([0, 2])))
    assert both_means(precisions[-1], hits[-1]) == (0.5, 1.0)


def test_tied_items_come_in_database_order():
    """Of two items at one distance the first comes first: 1 if it is the relevant one, else 1/2."""
    codes = np.ones((1, 4)), np.array([[1, 1, 1, -1], [-1, 1, 1, 1]])
    for labels, expected in (([0, 1], 1.0), ([1, 0], 0.5)):
        precisions, _ = run(codes, (np.array([0]), np.array(labels)))
        assert precisions[-1, 0] == expected


def test_equals_the_tie_aware_one_without_ties():
    """Items at distances 0, 1, ... 40, each once, in any order: both values over the whole database agree."""
    random = np.random.default_rng(0)
    database = np.where(np.arange(40) < np.arange(41)[:, None], -1, 1)[random.permutation(41)]
    labels = np.zeros(1, int), random.integers(0, 2, 41)
    codes = np.ones((1, 40)), database
    counts, relevant = hamming.distance_histograms(*codes, query_labels=labels[0], database_labels=labels[1])
    assert (counts == 1).all()
    precisions, _ = run(codes, labels)
    np.testing.assert_allclose(precisions[-1], metrics.average_precision(counts, relevant, cutoff=None), rtol=0, atol=1e-14)


def test_blocks_do_not_change_a_value_and_progress_adds_up():
    """Two queries at a time, then one, and seven items at a time; progress adds up to all pairs."""
    codes, labels, _ = problem(SIZES["7 bits"], ids=False)
    expected = run(codes, labels)
    for pairs in (100, 150, 1):
        progress = []
        found = run(codes, labels, limits=Limits(pairs=pairs, rows=7), on_progress=progress.append)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert sum(progress) == 8 * 50
