"""Average precision as published code counts it: on one ranked list a query, equals in database order.

What is not tie-aware depends on the order of equals, which no histogram holds: this pass sorts, a query at a time, and is slow.
"""

from collections.abc import Callable, Sequence

import numpy as np

from adsq_jax.retrieval.arrays import Codes, Labels

_PAIRS = 1 << 26  # distances held at a time, at most, but for one query against the database
_ROWS = 1 << 18  # items read at a time


def average_precision(
    query: Codes,
    database: Codes,
    labels: tuple[Labels, Labels],
    *,
    cutoffs: Sequence[int | None],
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Average precision over the relevant items within the cutoff, items at one distance in database order.

    Args:
      query: codes of the queries.
      database: codes of the database.
      labels: of queries and database.
      cutoffs: ranks R, None for the whole database.
      on_progress: is called on the way with the number of pairs done since.

    Returns:
      float64[cutoffs, n_query], the mean over hits in the top R of (hits so far / rank), 0 without a hit; and whether there is
      a hit, bool[cutoffs, n_query].

    Source: this project, after what `CalcTopMap` of DeepHash-pytorch and `mean_average_precision` of HashNet compute: the first
    takes the mean over all queries, the second over those with a hit.
    """
    found = np.zeros((len(cutoffs), len(query)))
    hit = np.zeros((len(cutoffs), len(query)), bool)
    together = max(1, _PAIRS // len(database))
    for start in range(0, len(query), together):
        stop = min(start + together, len(query))
        own = query.words(start, stop), labels[0].words(start, stop)
        distances, relevant = _pairs(own, database, labels[1])
        for i in range(stop - start):
            ranked = relevant[i, np.argsort(distances[i], kind="stable")]
            for j, cutoff in enumerate(cutoffs):
                ranks = np.flatnonzero(ranked[:cutoff]) + 1
                hit[j, start + i] = len(ranks) > 0
                found[j, start + i] = np.mean(np.arange(1, len(ranks) + 1) / ranks) if len(ranks) else 0.0
            on_progress(len(database))
    return found, hit


def _pairs(query: tuple[np.ndarray, np.ndarray], database: Codes, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Distances uint16[n_query, n_database], and whether each item is relevant."""
    n_query = query[0].shape[1]
    distances = np.empty((n_query, len(database)), np.uint16)
    relevant = np.empty((n_query, len(database)), bool)
    for first in range(0, len(database), _ROWS):
        part = slice(first, min(first + _ROWS, len(database)))
        items, own = database.words(part.start, part.stop), labels.words(part.start, part.stop)
        for i in range(n_query):
            distances[i, part] = np.bitwise_count(query[0][:, i, None] ^ items).sum(axis=0, dtype=np.uint16)
            if labels.ids:
                relevant[i, part] = own[0] == query[1][0, i]
            else:
                relevant[i, part] = (own & query[1][:, i, None]).any(axis=0)
    return distances, relevant
