"""Definitions of mAP, NDCG, ACG, precision and recall for each query; evaluator.py averages them over the queries.

They take histograms of distances, in NumPy and float64; averages over the orders of tied items are in closed form.
Symbols, for one query at distance d: n_d items, p_d of them relevant; N and P are the sums of n and p over smaller distances;
m = clip(R - N, 0, n_d) is the number of items at d within the cutoff R. A query without a relevant item counts 0.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from adsq_jax.errors import InputError

TIES = ("expected", "best", "worst")
_EXACT = 1024  # harmonic numbers up to this one are sums, those beyond a series
_HARMONIC = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, _EXACT + 1))])  # H(0..1024)
_TABLE = 1 << 20  # most ranks whose discounts are summed one by one
_NODES = np.polynomial.legendre.leggauss(24)
_GRADES = 1000  # 2^grade is still a float64


def average_precision(counts: np.ndarray, relevant: np.ndarray, *, cutoff: int | None, ties: str = "expected") -> np.ndarray:
    """Compute average precision: expected over random orders of ties, or for the best or worst order.

    With H the harmonic numbers, alpha = P + 1 and beta = (p_d - 1) / (n_d - 1) (0 where n_d = 1), the expectation is

        AP@R = 1/Z sum_d (p_d / n_d) [(alpha - beta (N + 1)) (H(N + m) - H(N)) + beta m],  Z = min(R, relevant items).

    Args:
      counts: n_d, all items by distance, int[n_query, bits + 1].
      relevant: p_d, relevant items by distance, int[n_query, bits + 1].
      cutoff: R, or None for the whole database.
      ties: "expected"; "best", relevant items first among tied items; or "worst", relevant items last.

    Returns:
      float64[n_query] in [0, 1].

    Raises:
      ValueError: shapes differ, more items are relevant than there are, the cutoff is below 1, or `ties` is unknown.

    Source: McSherry and Najork, ECIR 2008; He, Cakir, Bargal and Sclaroff, CVPR 2018. Z, best and worst: this project.
    """
    n, p = _check(counts, relevant)
    limit = _limit(n, cutoff)
    before, relevant_before = _before(n), _before(p)  # N, P
    within = np.clip(limit - before, 0, n)  # m
    if ties == "expected":
        beta = (p - 1) / np.maximum(n - 1, 1) * (n > 1)
        harmonic = _harmonic(before, before + within)
        # sum over t = 1..m of (alpha + beta (t - 1)) / (N + t); rounding may leave this sum of positive terms below 0
        later = np.maximum(within - (before + 1) * harmonic, 0.0)
        terms = p / np.maximum(n, 1) * ((relevant_before + 1) * harmonic + beta * later)
    elif ties in TIES:
        ahead = 0 if ties == "best" else n - p  # irrelevant items ahead of the relevant ones at this distance
        hits = np.clip(within - ahead, 0, p)
        start = before + ahead
        terms = hits + (relevant_before - start) * _harmonic(start, start + hits)
    else:
        raise ValueError(f"ties={ties!r}: expected one of {', '.join(TIES)}")
    average = terms.sum(axis=1) / np.maximum(np.minimum(limit, p.sum(axis=1)), 1)
    return np.minimum(average, 1.0)  # rounding may leave it slightly above 1


def expected_hits(counts: np.ndarray, relevant: np.ndarray, *, cutoffs: Sequence[int]) -> np.ndarray:
    """Compute the expected number of relevant items within each cutoff, over random orders of tied items.

    Args:
      counts: int[n_query, bits + 1].
      relevant: int[n_query, bits + 1].
      cutoffs: ranks R.

    Returns:
      float64[n_query, cutoffs] in [0, R]. Divided by min(R, items) it is precision@R, by the relevant items recall@R.

    Raises:
      ValueError: as `average_precision`.

    Source: McSherry and Najork, ECIR 2008.
    """
    n, p = _check(counts, relevant)
    before, relevant_fraction = _before(n), p / np.maximum(n, 1)
    within = (np.clip(_limit(n, cutoff) - before, 0, n) for cutoff in cutoffs)
    return np.stack([np.einsum("qd,qd->q", relevant_fraction, m) for m in within], axis=1)


def discounted_gain(histograms: np.ndarray, *, cutoff: int | None) -> np.ndarray:
    """Compute NDCG, gain 2^grade - 1 and discount 1 / log2(1 + rank), expected over random orders of tied items.

    Args:
      histograms: items by distance and grade (labels shared with the query), int[n_query, bits + 1, grades].
      cutoff: R, or None for the whole database.

    Returns:
      float64[n_query] in [0, 1]: the discounted gain, divided by that of the best ranking of the database.

    Raises:
      ValueError: the cutoff is below 1.
      InputError: there are more grades than float64 can tell apart.

    Source: Jarvelin and Kekalainen, TOIS 2002; the gain: Burges et al., ICML 2005; ties: McSherry and Najork, ECIR 2008.
    """
    histograms = np.asarray(histograms, np.int64)
    if histograms.shape[2] > _GRADES:
        raise InputError(
            f"expected at most {_GRADES - 1} labels of a query, as float64 holds NDCG's 2^grade, got {histograms.shape[2] - 1}"
        )
    gains = np.exp2(np.arange(histograms.shape[2])) - 1  # [grades]
    n = items_by_distance(histograms)
    limit = _limit(n, cutoff)
    discounted = (histograms @ gains / np.maximum(n, 1) * _discounts(n, limit)).sum(axis=1)
    by_grade = np.einsum("qdg->qg", histograms)[:, ::-1]  # the best ranking: highest grades first
    ideal = (gains[::-1] * _discounts(by_grade, limit)).sum(axis=1)
    return discounted / np.where(ideal > 0, ideal, 1)


def cumulative_gain(histograms: np.ndarray, *, cutoff: int | None) -> np.ndarray:
    """Compute ACG, the mean number of labels that the first R items share with the query, expected over orders of tied items.

    Args:
      histograms: items by distance and grade, int[n_query, bits + 1, grades].
      cutoff: R, or None for the whole database.

    Returns:
      float64[n_query] from 0 to grades - 1; the mean is over min(R, items).

    Raises:
      ValueError: the cutoff is below 1.

    Source: Jarvelin and Kekalainen, SIGIR 2000; McSherry and Najork, ECIR 2008, for ties.
    """
    histograms = np.asarray(histograms, np.int64)
    n = items_by_distance(histograms)
    limit = _limit(n, cutoff)
    within = np.clip(limit - _before(n), 0, n)
    gained = (histograms @ np.arange(histograms.shape[2]) * (within / np.maximum(n, 1))).sum(axis=1)
    return gained / max(limit, 1)


def precision_recall_by_radius(counts: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute precision and recall of the Hamming ball of each radius.

    Args:
      counts: int[n_query, bits + 1].
      relevant: int[n_query, bits + 1].

    Returns:
      Precision and recall, float64[n_query, bits + 1] each, by radius 0 to bits; an empty ball has precision 0.

    Raises:
      ValueError: as `average_precision`.

    Source: the field's precision within Hamming radius 2, and its precision-recall curve, as in Liu et al., CVPR 2012.
    """
    n, p = _check(counts, relevant)
    inside, relevant_inside = np.cumsum(n, axis=1), np.cumsum(p, axis=1)
    return relevant_inside / np.maximum(inside, 1), relevant_inside / np.maximum(relevant_inside[:, -1:], 1)


def items_by_distance(histograms: np.ndarray) -> np.ndarray:
    """Sum over the grades, int[n_query, bits + 1, grades] -> int[n_query, bits + 1]; einsum takes a third of `sum`'s time."""
    return np.einsum("qdg->qd", histograms)


def _check(counts: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, relevant = np.asarray(counts, np.int64), np.asarray(relevant, np.int64)
    if counts.shape != relevant.shape or counts.ndim != 2 or (relevant > counts).any() or (relevant < 0).any():
        raise ValueError(
            f"expected two histograms [n_query, bits + 1] with 0 <= relevant <= all, got {counts.shape} and {relevant.shape}"
        )
    return counts, relevant


def _limit(counts: np.ndarray, cutoff: int | None) -> int:
    """Return R, at most the items of the database."""
    if cutoff is not None and cutoff < 1:
        raise ValueError(f"expected a cutoff of at least 1, or None for the whole database, got {cutoff}")
    size = int(counts.sum(axis=1).max(initial=0))
    return size if cutoff is None else min(cutoff, size)


def _before(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts, axis=1) - counts


def _harmonic(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return H(stop) - H(start) with a relative error of about 1e-15; beyond _EXACT by a series, as a table could be huge.

    Source: H(n) = log(x) + gamma + 1/(24 x^2) - 7/(960 x^4) + ... with x = n + 1/2 (DLMF 5.11, at a half).
    """
    near = _HARMONIC[np.minimum(stop, _EXACT)] - _HARMONIC[np.minimum(start, _EXACT)]
    a, b = np.maximum(start, _EXACT) + 0.5, np.maximum(stop, _EXACT) + 0.5
    return near + np.log1p((b - a) / a) + _harmonic_rest(b) - _harmonic_rest(a)


def _harmonic_rest(x: np.ndarray) -> np.ndarray:
    y = 1 / (x * x)
    return y * (1 / 24 - 7 / 960 * y)


def _discounts(counts: np.ndarray, limit: int) -> np.ndarray:
    """Sum 1 / log2(1 + rank) over the ranks of each group of items within the limit, groups in ranked order, [n_query, groups].

    Source: beyond the table, the Euler-Maclaurin sum between midpoints, its integral by Gauss-Legendre quadrature.
    """
    stop = np.minimum(np.cumsum(counts, axis=1), limit)
    start = np.minimum(_before(counts), limit)
    size = min(limit, _TABLE)
    table = _discount_table(size)
    near = table[np.minimum(stop, size)] - table[np.minimum(start, size)]
    if limit == size:
        return near
    return near + _discount_between(np.maximum(start, size), np.maximum(stop, size))


@lru_cache(maxsize=2)
def _discount_table(size: int) -> np.ndarray:
    """Return the sums of discounts up to ranks 0 to size."""
    return np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, size + 2)))])


def _discount_between(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Sum the discounts of ranks start + 1 to stop, relative error about 1e-14: no difference of large sums."""
    a, b = start + 1.5, stop + 1.5
    low, width = np.log(a), np.log1p((b - a) / a)
    integral = np.zeros(a.shape)  # of 1 / log x from a to b, over u = log x
    for node, weight in zip(*_NODES, strict=True):
        step = width * (node + 1) / 2
        integral += weight * np.exp(step) / (low + step)
    slope_a, slope_b = (-1 / (x * np.log(x) ** 2) for x in (a, b))
    return np.log(2) * (a * width / 2 * integral - (slope_b - slope_a) / 24)
