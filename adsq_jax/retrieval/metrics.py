"""Retrieval metrics in NumPy, float64, from histograms of distances; ties are averaged over, in closed form.

Symbols, by query and distance d: n_d items, p_d of them relevant; N and P are the counts before d; m = clip(R - N, 0, n_d) is
how many items at d come within the cutoff R. A query without a relevant item counts 0.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from adsq_jax.errors import InputError

TIES = ("expected", "best", "worst")
_EXACT = 1024  # harmonic numbers up to this are summed one by one, those beyond are in closed form
_HARMONIC = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, _EXACT + 1))])  # H(0..1024)
_TABLE = 1 << 20  # ranks whose discounts are summed one by one, at most
_NODES = np.polynomial.legendre.leggauss(24)
_GRADES = 1000  # 2^grade is still a float64


def average_precision(counts: np.ndarray, relevant: np.ndarray, *, cutoff: int | None, ties: str = "expected") -> np.ndarray:
    """Average precision: its expectation over random orders within equal distances, or that of the best or worst order.

    With H the harmonic numbers, alpha = P + 1 and beta = (p_d - 1) / (n_d - 1) (0 where n_d = 1), the expectation is

        AP@R = 1/Z sum_d (p_d / n_d) [(alpha - beta (N + 1)) (H(N + m) - H(N)) + beta m],  Z = min(R, relevant items).

    Args:
      counts: n_d, all items by distance, int[n_query, bits + 1].
      relevant: p_d, relevant items by distance, int[n_query, bits + 1].
      cutoff: R, or None for the whole database.
      ties: "expected"; "best", where relevant items come first among equals; or "worst", where they come last.

    Returns:
      float64[n_query] in [0, 1].

    Raises:
      ValueError: shapes differ, more are relevant than there are, the cutoff is below 1, or no such order.

    Source: McSherry and Najork, ECIR 2008; He, Cakir, Bargal and Sclaroff, CVPR 2018. Z, best and worst: this project.
    """
    n, p = _checked(counts, relevant)
    limit = _limit(n, cutoff)
    before, relevant_before = _before(n), _before(p)
    taken = np.clip(limit - before, 0, n)
    if ties == "expected":
        beta = (p - 1) / np.maximum(n - 1, 1) * (n > 1)
        harmonic = _harmonic(before, before + taken)
        # the sum of (alpha + beta (t - 1)) / (N + t) over t = 1..m; max: rounding may leave a sum of positive terms below 0
        later = np.maximum(taken - (before + 1) * harmonic, 0.0)
        found = p / np.maximum(n, 1) * ((relevant_before + 1) * harmonic + beta * later)
    elif ties in TIES:
        ahead = 0 if ties == "best" else n - p  # irrelevant items that come first among equals
        hits = np.clip(taken - ahead, 0, p)
        start = before + ahead
        found = hits + (relevant_before - start) * _harmonic(start, start + hits)
    else:
        raise ValueError(f"no order of ties named {ties!r}: choose one of {', '.join(TIES)}")
    average = found.sum(axis=1) / np.maximum(np.minimum(limit, p.sum(axis=1)), 1)
    return np.minimum(average, 1.0)  # rounding may leave a little more


def hits(counts: np.ndarray, relevant: np.ndarray, *, cutoffs: Sequence[int]) -> np.ndarray:
    """How many relevant items the first R hold, expected over random orders within equal distances.

    Args:
      counts: int[n_query, bits + 1].
      relevant: int[n_query, bits + 1].
      cutoffs: several R.

    Returns:
      float64[n_query, cutoffs] in [0, R]. Over min(R, items) it is precision@R, over the relevant items recall@R.

    Raises:
      ValueError: as `average_precision`.

    Source: McSherry and Najork, ECIR 2008.
    """
    n, p = _checked(counts, relevant)
    before, chance = _before(n), p / np.maximum(n, 1)
    taken = (np.clip(_limit(n, cutoff) - before, 0, n) for cutoff in cutoffs)
    return np.stack([np.einsum("qd,qd->q", chance, m) for m in taken], axis=1)


def discounted_gain(histograms: np.ndarray, *, cutoff: int | None) -> np.ndarray:
    """NDCG with gain 2^grade - 1 and discount 1 / log2(1 + rank), expected over random orders within equal distances.

    Args:
      histograms: items by distance and grade (labels shared with the query), int[n_query, bits + 1, grades].
      cutoff: R, or None for the whole database.

    Returns:
      float64[n_query] in [0, 1]: the gain over that of the best possible ranking of the database.

    Raises:
      ValueError: the cutoff is below 1.
      InputError: there are too many grades.

    Source: Jarvelin and Kekalainen, TOIS 2002; the gain: Burges et al., ICML 2005; ties: McSherry and Najork, ECIR 2008.
    """
    histograms = np.asarray(histograms, np.int64)
    if histograms.shape[2] > _GRADES:
        raise InputError(f"{histograms.shape[2] - 1} labels of a query: NDCG's 2^grade can be told apart up to {_GRADES - 1}")
    gains = np.exp2(np.arange(histograms.shape[2])) - 1  # [grades]
    n = histograms.sum(axis=2)
    limit = _limit(n, cutoff)
    found = (histograms @ gains / np.maximum(n, 1) * _discounts(n, limit)).sum(axis=1)
    by_grade = histograms.sum(axis=1)[:, ::-1]  # the best ranking: highest grades first
    ideal = (gains[::-1] * _discounts(by_grade, limit)).sum(axis=1)
    return found / np.where(ideal > 0, ideal, 1)


def cumulative_gain(histograms: np.ndarray, *, cutoff: int | None) -> np.ndarray:
    """ACG: the mean number of labels that the first R share with the query, expected over random orders within equal distances.

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
    n = histograms.sum(axis=2)
    limit = _limit(n, cutoff)
    taken = np.clip(limit - _before(n), 0, n)
    gained = (histograms @ np.arange(histograms.shape[2]) * (taken / np.maximum(n, 1))).sum(axis=1)
    return gained / max(limit, 1)


def by_radius(counts: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of Hamming balls of each radius.

    Args:
      counts: int[n_query, bits + 1].
      relevant: int[n_query, bits + 1].

    Returns:
      float64[n_query, bits + 1] each, by radius 0 to bits; an empty ball has precision 0.

    Raises:
      ValueError: as `average_precision`.

    Source: the field's precision within Hamming radius 2, and its precision-recall curve, as in Liu et al., CVPR 2012.
    """
    n, p = _checked(counts, relevant)
    inside, found = np.cumsum(n, axis=1), np.cumsum(p, axis=1)
    return found / np.maximum(inside, 1), found / np.maximum(found[:, -1:], 1)


def _checked(counts: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts, relevant = np.asarray(counts, np.int64), np.asarray(relevant, np.int64)
    if counts.shape != relevant.shape or counts.ndim != 2 or (relevant > counts).any() or (relevant < 0).any():
        raise ValueError(
            f"histograms must be two [n_query, bits + 1] with 0 <= relevant <= all, got {counts.shape}, {relevant.shape}"
        )
    return counts, relevant


def _limit(counts: np.ndarray, cutoff: int | None) -> int:
    """R, at most the items of the database."""
    if cutoff is not None and cutoff < 1:
        raise ValueError(f"the cutoff must be at least 1, got {cutoff}: give a rank, or None for the whole database")
    size = int(counts.sum(axis=1).max(initial=0))
    return size if cutoff is None else min(cutoff, size)


def _before(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts, axis=1) - counts


def _harmonic(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """H(stop) - H(start), to about 1e-15 of itself, in constant memory: a table of H would have a row an item.

    Source: H(n) = log(x) + gamma + 1/(24 x^2) - 7/(960 x^4) + ... with x = n + 1/2 (DLMF 5.11, at a half).
    """
    near = _HARMONIC[np.minimum(stop, _EXACT)] - _HARMONIC[np.minimum(start, _EXACT)]
    a, b = np.maximum(start, _EXACT) + 0.5, np.maximum(stop, _EXACT) + 0.5
    return near + np.log1p((b - a) / a) + _harmonic_rest(b) - _harmonic_rest(a)


def _harmonic_rest(x: np.ndarray) -> np.ndarray:
    y = 1 / (x * x)
    return y * (1 / 24 - 7 / 960 * y)


def _discounts(counts: np.ndarray, limit: int) -> np.ndarray:
    """The sum of 1 / log2(1 + rank) over the ranks of each group within the limit, of groups in order, [n_query, groups].

    Source: beyond a table, Euler and Maclaurin's sum from midpoint to midpoint, the integral by Gauss and Legendre.
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
    """Sums up to ranks 0 to size."""
    return np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, size + 2)))])


def _discount_between(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """The sum over the ranks after start up to stop, to about 1e-14 of itself: no difference of large sums."""
    a, b = start + 1.5, stop + 1.5
    low, width = np.log(a), np.log1p((b - a) / a)
    integral = np.zeros(a.shape)  # of 1 / log x from a to b, over u = log x
    for node, weight in zip(*_NODES, strict=True):
        step = width * (node + 1) / 2
        integral += weight * np.exp(step) / (low + step)
    slope_a, slope_b = (-1 / (x * np.log(x) ** 2) for x in (a, b))
    return np.log(2) * (a * width / 2 * integral - (slope_b - slope_a) / 24)
