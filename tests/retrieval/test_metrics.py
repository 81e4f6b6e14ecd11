"""Tie-aware average precision against permutations, sums rank by rank, scikit-learn, and cases worked by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from adsq_jax.retrieval import metrics


def plain_average_precision(ranking, cutoff):
    """AP@R of one ranked list of 0 and 1, by its definition; Z = min(R, relevant items)."""
    hits, total = 0, 0.0
    for rank, hit in enumerate(ranking[:cutoff], start=1):
        hits += hit
        total += hits / rank if hit else 0.0
    return total / max(min(cutoff, len(ranking), sum(ranking)), 1)


def mean_over_permutations(counts, relevant, cutoff):
    """The mean of plain AP over all orders of the items that keep distances in order."""
    blocks = [[1] * p + [0] * (n - p) for n, p in zip(counts, relevant, strict=True)]
    orders = itertools.product(*(itertools.permutations(block) for block in blocks))
    return np.mean([plain_average_precision(list(itertools.chain(*order)), cutoff) for order in orders])


def expected_rank_by_rank(counts, relevant, cutoff):
    """The expectation of AP as a sum over ranks: chance of a hit there times expected precision given the hit."""
    terms, before, hits_before = [], 0, 0
    for n, p in zip(map(int, counts), map(int, relevant), strict=True):
        for place in range(1, min(n, cutoff - before) + 1 if p else 1):
            others = (place - 1) * (p - 1) / (n - 1) if n > 1 else 0.0
            terms.append(p / n * (hits_before + 1 + others) / (before + place))
        before, hits_before = before + n, hits_before + p
    return math.fsum(terms) / max(min(cutoff, before, hits_before), 1)


def average_precision(counts, relevant, cutoff):
    """Of one query."""
    return metrics.average_precision(np.array([counts]), np.array([relevant]), cutoff=cutoff)[0]


def histograms(*, distances, most):
    """Pairs of counts and relevant counts for one query."""
    pairs = st.integers(0, most).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
    return st.lists(pairs, min_size=1, max_size=distances).map(lambda pairs: tuple(zip(*pairs, strict=True)))


@given(histograms(distances=4, most=3))
def test_equals_the_mean_over_all_orders_within_ties(histogram):
    """Over every permutation of tied items, at every cutoff from 1 to beyond the database."""
    counts, relevant = histogram
    for cutoff in range(1, sum(counts) + 2):
        expected = mean_over_permutations(counts, relevant, cutoff)
        assert abs(average_precision(counts, relevant, cutoff) - expected) <= 1e-9


@pytest.mark.parametrize("cutoff", [1, 1000, 54321, 200_000, None])
def test_stays_exact_for_a_large_database(cutoff):
    """200,000 items at 13 distances: within 1e-9 of a sum rank by rank."""
    random = np.random.default_rng(0)
    counts = random.multinomial(200_000, np.full(13, 1 / 13))
    relevant = random.binomial(counts, np.linspace(0.9, 0.01, 13))
    expected = expected_rank_by_rank(counts, relevant, cutoff or 200_000)
    assert abs(average_precision(counts, relevant, cutoff) - expected) <= 1e-9


def test_the_sum_rank_by_rank_is_itself_right():
    """The yardstick of the large database agrees with permutations on a small one."""
    counts, relevant = (3, 0, 2, 4), (1, 0, 2, 3)
    for cutoff in range(1, 10):
        difference = expected_rank_by_rank(counts, relevant, cutoff) - mean_over_permutations(counts, relevant, cutoff)
        assert abs(difference) <= 1e-12


@given(st.lists(st.booleans(), min_size=1, max_size=257).filter(any))
def test_equals_scikit_learn_without_ties(hits):
    """With one item at each distance, and no cutoff, it is scikit-learn's average precision."""
    relevant = np.array(hits, np.int64)
    expected = average_precision_score(relevant, -np.arange(len(hits)))
    assert abs(average_precision(np.ones_like(relevant), relevant, None) - expected) <= 1e-9


BY_HAND = {
    "first and third of three": ([1, 1, 1], [1, 0, 1], None, (1 + 2 / 3) / 2),
    "two tied, one relevant": ([2], [1], None, (1 + 1 / 2) / 2),
    "two tied, one relevant, cut after the first": ([2], [1], 1, 1 / 2),
    "three tied, two relevant": ([3], [2], None, (1 + (1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 3),
    "a miss before two tied hits": ([1, 2], [0, 2], None, (1 / 2 + 2 / 3) / 2),
    "empty distances do nothing": ([0, 1, 0, 1, 0], [0, 0, 0, 1, 0], None, 1 / 2),
    "Z is the cutoff where more are relevant": ([1, 1, 3], [1, 0, 3], 2, 1 / 2),
    "Z is the relevant items where the cutoff is larger": ([1, 1, 3], [1, 0, 0], 4, 1.0),
    "hits beyond the cutoff do not count": ([1, 1], [0, 1], 1, 0.0),
    "all relevant": ([4, 0, 3], [4, 0, 3], None, 1.0),
    "none relevant": ([4, 0, 3], [0, 0, 0], None, 0.0),
    "none relevant, with a cutoff": ([4, 0, 3], [0, 0, 0], 2, 0.0),
    "empty database": ([0, 0], [0, 0], None, 0.0),
}


@pytest.mark.parametrize(("counts", "relevant", "cutoff", "expected"), BY_HAND.values(), ids=BY_HAND.keys())
def test_cases_worked_by_hand(counts, relevant, cutoff, expected):
    """Small rankings whose average precision is plain arithmetic."""
    assert abs(average_precision(counts, relevant, cutoff) - expected) <= 1e-12


@given(histograms(distances=20, most=5000), st.integers(1, 100_000))
def test_lies_between_0_and_1_and_a_cutoff_beyond_the_database_does_nothing(histogram, cutoff):
    """Bounds at any cutoff; the size of the database, anything beyond it, and None are the same cutoff."""
    counts, relevant = histogram
    everything, size = average_precision(counts, relevant, None), max(sum(counts), 1)
    assert -1e-12 <= average_precision(counts, relevant, cutoff) <= 1 + 1e-12
    assert -1e-12 <= everything <= 1 + 1e-12
    assert average_precision(counts, relevant, size) == average_precision(counts, relevant, size + 7) == everything


def test_queries_do_not_touch_one_another():
    """Many queries at once give float64, one value a query, each what it is alone."""
    random = np.random.default_rng(0)
    counts = np.array([random.multinomial(50, np.full(9, 1 / 9)) for _ in range(6)])
    relevant = random.binomial(counts, 0.3)
    relevant[2] = 0
    found = metrics.average_precision(counts.astype(np.int32), relevant.astype(np.int32), cutoff=20)
    assert found.shape == (6,)
    assert found.dtype == np.float64
    assert found[2] == 0
    alone = [average_precision(*pair, 20) for pair in zip(counts, relevant, strict=True)]
    np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize(
    ("counts", "relevant", "cutoff", "message"),
    [
        ([[1, 2]], [[1, 2, 0]], None, "histograms must be"),
        ([1, 2], [1, 2], None, "histograms must be"),
        ([[1, 2]], [[2, 2]], None, "0 <= relevant <= all"),
        ([[1, 2]], [[-1, 2]], None, "0 <= relevant <= all"),
        ([[1, 2]], [[1, 2]], 0, "cutoff must be at least 1"),
        ([[1, 2]], [[1, 2]], -5, "cutoff must be at least 1"),
    ],
)
def test_what_is_no_histogram_or_no_cutoff_is_refused(counts, relevant, cutoff, message):
    """Shapes that differ or have no query axis, more relevant items than items, negative counts, cutoffs below 1."""
    with pytest.raises(ValueError, match=message):
        metrics.average_precision(np.array(counts), np.array(relevant), cutoff=cutoff)
