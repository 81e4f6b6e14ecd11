"""Retrieval metrics in NumPy, float64, from histograms of distances; ties are averaged over, in closed form."""

import numpy as np


def average_precision(counts: np.ndarray, relevant: np.ndarray, *, cutoff: int | None) -> np.ndarray:
    """Tie-aware average precision: its expectation over random orders within equal distances.

    With N, P the counts before distance d, H the harmonic numbers, m = clip(R - N, 0, n_d), alpha = P + 1 and
    beta = (p_d - 1) / (n_d - 1) (0 where n_d = 1):

        AP@R = 1/Z sum_d (p_d / n_d) [(alpha - beta (N + 1)) (H(N + m) - H(N)) + beta m],  Z = min(R, relevant items).

    Args:
      counts: n_d, all items by distance, int[n_query, bits + 1].
      relevant: p_d, relevant items by distance, int[n_query, bits + 1].
      cutoff: R, or None for the whole database.

    Returns:
      float64[n_query] in [0, 1]; 0 for a query without a relevant item.

    Raises:
      ValueError: shapes differ, more are relevant than there are, or the cutoff is below 1.

    Source: McSherry and Najork, ECIR 2008; He, Cakir, Bargal and Sclaroff, CVPR 2018. Z: this project.
    """
    counts, relevant = np.asarray(counts, np.int64), np.asarray(relevant, np.int64)
    if counts.shape != relevant.shape or counts.ndim != 2 or (relevant > counts).any() or (relevant < 0).any():
        raise ValueError(
            f"histograms must be two [n_query, bits + 1] with 0 <= relevant <= all, got {counts.shape}, {relevant.shape}"
        )
    if cutoff is not None and cutoff < 1:
        raise ValueError(f"the cutoff must be at least 1, got {cutoff}: give a rank, or None for the whole database")
    size = int(counts.sum(axis=1).max(initial=0))
    limit = size if cutoff is None else min(cutoff, size)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, size + 1))])  # H(0..size)
    before = np.cumsum(counts, axis=1) - counts  # N
    relevant_before = np.cumsum(relevant, axis=1) - relevant  # P
    taken = np.clip(limit - before, 0, counts)  # m
    beta = (relevant - 1) / np.maximum(counts - 1, 1) * (counts > 1)
    steps = harmonic[np.minimum(before + taken, size)] - harmonic[np.minimum(before, size)]
    inner = (relevant_before + 1 - beta * (before + 1)) * steps + beta * taken
    total = np.sum(relevant / np.maximum(counts, 1) * inner, axis=1)
    return total / np.maximum(np.minimum(limit, relevant.sum(axis=1)), 1)
