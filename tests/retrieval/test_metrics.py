"""Metrics against permutations of tied items, sums rank by rank, exact fractions, scikit-learn, and cases worked by hand."""

import fractions
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

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
    """Average precision of one query."""
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


def test_queries_are_independent():
    """Several queries at once give float64[n_query], each value the same as for the query alone."""
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
        ([[1, 2]], [[1, 2, 0]], None, "expected two histograms"),
        ([1, 2], [1, 2], None, "expected two histograms"),
        ([[1, 2]], [[2, 2]], None, "0 <= relevant <= all"),
        ([[1, 2]], [[-1, 2]], None, "0 <= relevant <= all"),
        ([[1, 2]], [[1, 2]], 0, "expected a cutoff of at least 1"),
        ([[1, 2]], [[1, 2]], -5, "expected a cutoff of at least 1"),
    ],
)
def test_bad_histograms_and_cutoffs_are_refused(counts, relevant, cutoff, message):
    """Shapes that differ or have no query axis, more relevant items than items, negative counts, cutoffs below 1."""
    with pytest.raises(ValueError, match=message):
        metrics.average_precision(np.array(counts), np.array(relevant), cutoff=cutoff)


def ordered(counts, relevant, *, ties):
    """The ranked list of 0 and 1 where relevant items come first or last among tied items."""
    blocks = [np.repeat([1, 0], [p, n - p]) for n, p in zip(counts, relevant, strict=True)]
    return np.concatenate([block if ties == "best" else block[::-1] for block in blocks])


def average_precision_in_order(counts, relevant, cutoff, ties):
    """Average precision of one query."""
    return metrics.average_precision(np.array([counts]), np.array([relevant]), cutoff=cutoff, ties=ties)[0]


@given(histograms(distances=4, most=3))
def test_best_and_worst_are_those_of_all_orders_within_ties(histogram):
    """The maximum and minimum over every permutation of tied items, at every cutoff from 1 to beyond the database."""
    counts, relevant = histogram
    blocks = [[1] * p + [0] * (n - p) for n, p in zip(counts, relevant, strict=True)]
    orders = [list(itertools.chain(*order)) for order in itertools.product(*(set(itertools.permutations(b)) for b in blocks))]
    for cutoff in range(1, sum(counts) + 2):
        values = [plain_average_precision(order, cutoff) for order in orders]
        assert abs(average_precision_in_order(counts, relevant, cutoff, "best") - max(values)) <= 1e-12
        assert abs(average_precision_in_order(counts, relevant, cutoff, "worst") - min(values)) <= 1e-12


def large(*, seed):
    """200,000 items at 13 distances."""
    random = np.random.default_rng(seed)
    counts = random.multinomial(200_000, np.full(13, 1 / 13))
    return counts, random.binomial(counts, np.linspace(0.9, 0.01, 13))


@pytest.mark.parametrize("cutoff", [1, 1000, 54321, 200_000, None])
def test_best_and_worst_stay_exact_for_a_large_database(cutoff):
    """200,000 items: within 1e-9 of the ranked list's own value; the expectation lies between."""
    counts, relevant = large(seed=1)
    found = {ties: average_precision_in_order(counts, relevant, cutoff, ties) for ties in metrics.TIES}
    for ties in ("best", "worst"):
        expected = plain_average_precision(ordered(counts, relevant, ties=ties).tolist(), cutoff or 200_000)
        assert abs(found[ties] - expected) <= 1e-9
    assert found["worst"] <= found["expected"] <= found["best"]


@given(histograms(distances=20, most=5000), st.integers(1, 100_000))
def test_worst_expected_and_best_are_in_order(histogram, cutoff):
    """At any cutoff, up to rounding; all the same where nothing or everything is relevant."""
    counts, relevant = histogram
    for limit in (cutoff, None):
        worst, expected, best = (
            average_precision_in_order(counts, relevant, limit, ties) for ties in ("worst", "expected", "best")
        )
        assert -1e-12 <= worst <= expected + 1e-12 <= best + 2e-12 <= 1 + 3e-12
        values = [average_precision_in_order(counts, counts, limit, ties) for ties in metrics.TIES]
        np.testing.assert_allclose(values, float(sum(counts) > 0), rtol=0, atol=1e-12)


def test_an_unknown_order_of_ties_is_refused():
    """The message names those there are."""
    with pytest.raises(ValueError, match="ties='random': expected one of expected, best, worst"):
        average_precision_in_order([1], [1], None, "random")


@pytest.mark.parametrize("ties", metrics.TIES)
@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("tied", [2, 7])
@pytest.mark.parametrize("size", [1000, 1023, 1024, 10**5, 10**7, 10**9])
def test_is_exact_at_huge_ranks(size, tied, first, ties):
    """Some relevant items, `size` others, then tied relevant items: equal to exact fractions, absolutely and relatively."""
    found = average_precision_in_order([first, size, tied], [first, 0, tied], None, ties)
    hits = [fractions.Fraction(first + t, first + size + t) for t in range(1, tied + 1)]
    expected = float((first + sum(hits)) / (first + tied))
    assert abs(found - expected) <= 1e-12
    assert abs(found - expected) <= 1e-5 * expected


@given(histograms(distances=4, most=3))
def test_hits_equal_the_mean_over_all_orders_within_ties(histogram):
    """At every cutoff from 1 to beyond the database; divided by the cutoff they are precision."""
    counts, relevant = histogram
    blocks = [[1] * p + [0] * (n - p) for n, p in zip(counts, relevant, strict=True)]
    orders = [list(itertools.chain(*order)) for order in itertools.product(*(itertools.permutations(b) for b in blocks))]
    for cutoff in range(1, sum(counts) + 2):
        found = metrics.expected_hits(np.array([counts]), np.array([relevant]), cutoffs=[cutoff, 1])[0, 0]
        assert abs(found - np.mean([sum(order[:cutoff]) for order in orders])) <= 1e-9
        precision = np.mean([np.mean(order[:cutoff]) if order else 0.0 for order in orders])
        assert abs(found / max(min(cutoff, sum(counts)), 1) - precision) <= 1e-9


def ideal_gain(grades, cutoff):
    return sum((2**grade - 1) / math.log2(1 + rank) for rank, grade in enumerate(sorted(grades, reverse=True)[:cutoff], 1))


def plain_discounted_gain(grades, cutoff):
    """NDCG@R of one ranked list of grades, by its definition; 0 where no grade is above 0."""
    found = sum((2**grade - 1) / math.log2(1 + rank) for rank, grade in enumerate(grades[:cutoff], 1))
    return found / (ideal_gain(grades, cutoff) or 1)


def graded(*, distances, most, grades):
    """Histograms int[distances, grades] of one query."""
    row = st.lists(st.integers(0, most), min_size=grades, max_size=grades)
    return st.lists(row, min_size=1, max_size=distances)


@given(st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=3))
def test_gains_equal_the_mean_over_all_orders_within_ties(tied):
    """NDCG and ACG over every permutation of tied items of grades 0 to 3, at every cutoff to beyond the database."""
    histogram = np.array([[[group.count(grade) for grade in range(4)] for group in tied]])
    orders = [list(itertools.chain(*order)) for order in itertools.product(*(itertools.permutations(group) for group in tied))]
    for cutoff in range(1, len(orders[0]) + 2):
        ndcg = np.mean([plain_discounted_gain(order, cutoff) for order in orders])
        acg = np.mean([sum(order[:cutoff]) / max(min(cutoff, len(order)), 1) for order in orders])
        assert abs(metrics.discounted_gain(histogram, cutoff=cutoff)[0] - ndcg) <= 1e-9
        assert abs(metrics.cumulative_gain(histogram, cutoff=cutoff)[0] - acg) <= 1e-9


@pytest.mark.parametrize("cutoff", [1, 1000, 1024, 1025, 54321, None])
def test_gains_stay_exact_for_a_large_database(cutoff):
    """200,000 items at 13 distances: within 1e-9 of a sum rank by rank of mean gains."""
    random = np.random.default_rng(0)
    histogram = random.multinomial(200_000, random.dirichlet(np.ones(13 * 5))).reshape(13, 5)
    counts = histogram.sum(axis=1)
    gains, grades = 2.0 ** np.arange(5) - 1, np.arange(5)
    at = np.repeat(histogram @ gains / counts, counts)[:cutoff]
    best = np.repeat(gains[::-1], histogram.sum(axis=0)[::-1])[:cutoff]
    discounts = 1 / np.log2(np.arange(len(at)) + 2)
    expected = math.fsum(at * discounts) / math.fsum(best * discounts)
    assert abs(metrics.discounted_gain(histogram[None], cutoff=cutoff)[0] - expected) <= 1e-9
    mean = math.fsum(np.repeat(histogram @ grades / counts, counts)[:cutoff]) / len(at)
    assert abs(metrics.cumulative_gain(histogram[None], cutoff=cutoff)[0] - mean) <= 1e-9


@given(graded(distances=8, most=6, grades=4).filter(lambda rows: np.sum(rows) > 1), st.integers(1, 60))
def test_discounted_gain_equals_scikit_learn(rows, cutoff):
    """scikit-learn averages over ties too, given the gains themselves and minus the distances."""
    histogram = np.array(rows)
    distance, grade = (np.repeat(index.ravel(), histogram.ravel()) for index in np.indices(histogram.shape))
    for limit in (cutoff, None):
        expected = ndcg_score([2.0**grade - 1], [-distance.astype(float)], k=limit, ignore_ties=False)
        assert abs(metrics.discounted_gain(histogram[None], cutoff=limit)[0] - expected) <= 1e-9


def test_gains_of_queries_are_independent():
    """Several queries at once, one of them without a relevant item: each value is the same as for the query alone."""
    histograms = np.random.default_rng(0).integers(0, 9, (5, 7, 3))
    histograms[1, :, 0] += histograms[1, :, 1:].sum(axis=1)
    histograms[1, :, 1:] = 0
    histograms[:, 0, 0] += histograms.sum() - histograms.sum(axis=(1, 2))  # one size of database
    for function in (metrics.discounted_gain, metrics.cumulative_gain):
        found = function(histograms, cutoff=2000)
        assert (found.shape, found.dtype, found[1]) == ((5,), np.float64, 0)
        np.testing.assert_array_equal(found, [function(one[None], cutoff=2000)[0] for one in histograms])


def test_grades_beyond_a_float_are_refused():
    """A grade of 999 is still exact, one of 1000 is refused."""
    histogram = np.zeros((1, 2, 1000), np.int64)
    histogram[0, 0, 0], histogram[0, 1, 999] = 1, 1
    assert abs(metrics.discounted_gain(histogram, cutoff=None)[0] - 1 / math.log2(3)) <= 1e-12
    with pytest.raises(ValueError, match=r"at most 999 labels of a query.*got 1000"):
        metrics.discounted_gain(np.zeros((1, 2, 1001), np.int64), cutoff=None)


@given(histograms(distances=9, most=50))
def test_balls_of_each_radius_equal_plain_loops(histogram):
    """Precision and recall of the items within each radius; an empty ball has precision 0."""
    counts, relevant = histogram
    precision, recall = metrics.precision_recall_by_radius(np.array([counts]), np.array([relevant]))
    for radius in range(len(counts)):
        inside, found = sum(counts[: radius + 1]), sum(relevant[: radius + 1])
        assert precision[0, radius] == (found / inside if inside else 0.0)
        assert recall[0, radius] == (found / sum(relevant) if sum(relevant) else 0.0)


@pytest.mark.parametrize("function", [metrics.discounted_gain, metrics.cumulative_gain])
def test_a_cutoff_below_1_is_refused_for_gains(function):
    """A cutoff of 0 is no rank."""
    with pytest.raises(ValueError, match="expected a cutoff of at least 1"):
        function(np.ones((1, 2, 3), np.int64), cutoff=0)


@pytest.mark.parametrize("size", [1000, 2**20, 2**20 + 1, 2**20 + 5000])
@pytest.mark.parametrize("first", [700, 2**20 + 200])
def test_sums_of_discounts_equal_sums_rank_by_rank(size, first):
    """Two groups of ranks and one beyond the cutoff, each alone relevant; from some rank on, sums are in closed form."""
    first = min(first, size - 100)
    groups, discounts = [first, size - first, 50], 1 / np.log2(np.arange(size) + 2)
    for relevant, (start, stop) in enumerate([(0, first), (first, size), (size, size)]):
        histogram = np.stack([groups, np.zeros(3, int)], axis=1)
        histogram[relevant] = histogram[relevant][::-1]
        found = metrics.discounted_gain(histogram[None], cutoff=size)[0]
        expected = math.fsum(discounts[start:stop]) / math.fsum(discounts[: groups[relevant]])
        assert found == pytest.approx(expected, rel=1e-10, abs=0)


@pytest.mark.parametrize("size", [1000, 1023, 1024, 10**5, 10**7, 10**9])
def test_discounted_gain_is_exact_at_huge_ranks(size):
    """Three tied items of grade 2 after `size` of grade 0."""
    histogram = np.array([[[size, 0, 0], [0, 0, 3]]])
    expected = sum(1 / math.log2(1 + size + t) for t in (1, 2, 3)) / sum(1 / math.log2(1 + t) for t in (1, 2, 3))
    assert metrics.discounted_gain(histogram, cutoff=None)[0] == pytest.approx(expected, rel=1e-9, abs=0)
