"""Average precision as published code computes it: from one ranked list per query, tied items in database order.

Unlike the tie-aware figures, it depends on the order of tied items, which no histogram holds: this pass sorts the database for
each query, and is slow.
"""

from collections.abc import Callable, Sequence

import numpy as np

from adsq_jax.retrieval.arrays import Codes, Labels
from adsq_jax.retrieval.blocks import LIMITS, Limits


def average_precision(
    query: Codes,
    database: Codes,
    labels: tuple[Labels, Labels],
    *,
    cutoffs: Sequence[int | None],
    leave_self_out: bool = False,
    limits: Limits = LIMITS,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute average precision over the relevant items within each cutoff, tied items in database order.

    Args:
      query: the codes of the queries.
      database: the codes of the database.
      labels: the labels of queries and database.
      cutoffs: ranks R, None for the whole database.
      leave_self_out: whether query i is item i of the database, and left out of its own ranking.
      limits: the most that is held at a time; `pairs` and `rows` count here.
      on_progress: called with the number of pairs done since the last call.

    Returns:
      float64[cutoffs, n_query], the mean over hits in the top R of (hits so far / rank), 0 without a hit; and whether there is
      a hit, bool[cutoffs, n_query].

    Source: this project, after what `CalcTopMap` of DeepHash-pytorch and `mean_average_precision` of HashNet compute: the first
    takes the mean over all queries, the second over those with a hit.
    """
    precision = np.zeros((len(cutoffs), len(query)))
    has_hit = np.zeros((len(cutoffs), len(query)), bool)
    n_queries = max(1, limits.pairs // len(database))
    for start in range(0, len(query), n_queries):
        stop = min(start + n_queries, len(query))
        words = query.words(start, stop), labels[0].words(start, stop)
        distances, relevant = _compare(words, database, labels[1], rows_at_once=limits.rows)
        for i in range(stop - start):
            order = np.argsort(distances[i], kind="stable")
            ranked = relevant[i, order[order != start + i] if leave_self_out else order]
            for j, cutoff in enumerate(cutoffs):
                ranks = np.flatnonzero(ranked[:cutoff]) + 1
                has_hit[j, start + i] = len(ranks) > 0
                precision[j, start + i] = np.mean(np.arange(1, len(ranks) + 1) / ranks) if len(ranks) else 0.0
            on_progress(len(database))
    return precision, has_hit


def _compare(
    query: tuple[np.ndarray, np.ndarray], database: Codes, labels: Labels, *, rows_at_once: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances uint16[n_query, n_database], and which items are relevant, bool of the same shape."""
    n_query = query[0].shape[1]
    distances = np.empty((n_query, len(database)), np.uint16)
    relevant = np.empty((n_query, len(database)), bool)
    for start in range(0, len(database), rows_at_once):
        rows = slice(start, min(start + rows_at_once, len(database)))
        item_codes, item_labels = database.words(rows.start, rows.stop), labels.words(rows.start, rows.stop)
        for i in range(n_query):
            distances[i, rows] = np.bitwise_count(query[0][:, i, None] ^ item_codes).sum(axis=0, dtype=np.uint16)
            if labels.ids:
                relevant[i, rows] = item_labels[0] == query[1][0, i]
            else:
                relevant[i, rows] = (item_labels & query[1][:, i, None]).any(axis=0)
    return distances, relevant
