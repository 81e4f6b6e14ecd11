"""All measures of one retrieval: codes and labels in, a dictionary that JSON can hold out."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.retrieval import hamming, legacy, metrics
from adsq_jax.retrieval.arrays import Codes, Labels, pair_of_codes, pair_of_labels
from adsq_jax.retrieval.blocks import SINGLE_DEVICE, SingleDevice

POINTS = (1, 5, 10, 20, 50, *range(100, 1001, 100), 2000, 5000, 10_000)  # of precision_at and recall_at
_RADIUS = 2  # the field's ball


def measure(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    *,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    bits: int | None = None,
    cutoffs: Sequence[int | str] = ("all",),
    with_legacy: bool = False,
    distances_by: str | None = None,
    devices: SingleDevice = SINGLE_DEVICE,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> dict[str, Any]:
    """Measures how well codes retrieve.

    Args:
      query_codes: float (the sign counts), {-1, +1} or {0, 1}, [n_query, K]; or packed uint8[n_query, ceil(K / 8)].
      database_codes: the same way, [n_database, ...].
      query_labels: class ids [n_query], or multi-hot [n_query, c].
      database_labels: the same way; relevant is what shares a label.
      bits: K of packed codes; None where they are not packed.
      cutoffs: "all", or ranks.
      with_legacy: whether to add the figures of published code, by a slower pass.
      distances_by: "popcount" or "matmul"; None for what suits the platform.
      devices: the devices; `adsq_jax.devices.ShardedDatabase()` for all of them.
      on_progress: is called on the way with the number of pairs done since; there are n_query x n_database, twice that
        `with_legacy`.

    Returns:
      `metrics` by cutoff: `map` (tie-aware, over all queries; one without a relevant item counts 0), `map_best` and `map_worst`
      (relevant items first or last among equals), `map_answerable` (over queries with a relevant item; None where there are
      none), for multi-hot labels `ndcg` and `acg`, and with_legacy `map_legacy_deephash` and `map_legacy_hashnet` (None where
      no query has a hit). Of all: `precision_radius2`, `empty_balls` (share of queries with nothing within radius 2),
      `precision_at` and `recall_at` by rank, `precision_recall` by radius, `n_queries_without_relevant`, `n_query`,
      `n_database`, `bits`.

    Raises:
      InputError: codes, labels or cutoffs are not as they should be.

    Source: `retrieval/metrics.py` and `retrieval/legacy.py` name each.
    """
    ranks = check_cutoffs(cutoffs)
    query, database = pair_of_codes(query_codes, database_codes, bits=bits)
    labels = pair_of_labels(query_labels, database_labels, n_query=len(query), n_database=len(database))
    parts = [
        _of_queries(histograms, ranks=ranks, n_database=len(database), graded=not labels[0].ids)
        for _, histograms in hamming.histograms_by_block(
            query, database, labels, distances_by=distances_by, devices=devices, on_progress=on_progress
        )
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {
        "metrics": _by_cutoff(
            found, ranks, legacy_of=(query, database, labels) if with_legacy else None, on_progress=on_progress
        ),
        "precision_radius2": float(found["precision"][:, min(_RADIUS, query.bits)].mean()),
        "empty_balls": float(found["empty"].mean()),
        "precision_at": _at_points(found, "precision_at"),
        "recall_at": _at_points(found, "recall_at"),
        "precision_recall": {
            "radius": list(range(query.bits + 1)),
            "precision": found["precision"].mean(axis=0).tolist(),
            "recall": found["recall"].mean(axis=0).tolist(),
        },
        "n_queries_without_relevant": int((~found["answerable"]).sum()),
        "n_query": len(query),
        "n_database": len(database),
        "bits": query.bits,
    }


def check_cutoffs(cutoffs: Sequence[int | str]) -> dict[str, int | None]:
    """Checks cutoffs.

    Args:
      cutoffs: "all", or ranks.

    Returns:
      The rank by name, None for "all".

    Raises:
      InputError: one is neither.
    """
    if isinstance(cutoffs, str) or not isinstance(cutoffs, Sequence):
        raise InputError(f"cutoffs={cutoffs!r}: expected a list, for instance ['all', 5000]")
    return {str(cutoff): _rank(cutoff) for cutoff in cutoffs}


def _rank(cutoff: int | str) -> int | None:
    if cutoff == "all":
        return None
    if not re.fullmatch("[1-9][0-9]{0,17}", str(cutoff)):
        raise InputError(f"cutoff {cutoff!r}: expected 'all' or a rank of at least 1")
    return int(cutoff)


def _of_queries(
    histograms: np.ndarray, *, ranks: dict[str, int | None], n_database: int, graded: bool
) -> dict[str, np.ndarray]:
    """Every figure of some queries, [n_query] or [n_query, bits + 1], by name and cutoff."""
    counts, relevant = histograms.sum(axis=2), histograms[:, :, 1:].sum(axis=2)
    total = relevant.sum(axis=1)
    precision, recall = metrics.by_radius(counts, relevant)
    found = {
        "answerable": total > 0,
        "precision": precision,
        "recall": recall,
        "empty": counts[:, : _RADIUS + 1].sum(axis=1) == 0,
    }
    occupied = counts.any(axis=0)  # the other distances add nothing to what follows
    histograms, counts, relevant = histograms[:, occupied], counts[:, occupied], relevant[:, occupied]
    for name, cutoff in ranks.items():
        for ties, key in (("expected", "map"), ("best", "map_best"), ("worst", "map_worst")):
            found[f"{key} {name}"] = metrics.average_precision(counts, relevant, cutoff=cutoff, ties=ties)
        if graded:
            found[f"ndcg {name}"] = metrics.discounted_gain(histograms, cutoff=cutoff)
            found[f"acg {name}"] = metrics.cumulative_gain(histograms, cutoff=cutoff)
    points = [point for point in POINTS if point <= n_database]
    for point, hits in zip(points, metrics.hits(counts, relevant, cutoffs=points).T, strict=True):
        found[f"precision_at {point}"] = hits / point
        found[f"recall_at {point}"] = hits / np.maximum(total, 1)
    return found


def _at_points(found: dict[str, np.ndarray], name: str) -> dict[str, float]:
    return {key.split()[1]: float(values.mean()) for key, values in found.items() if key.split()[0] == name}


def _by_cutoff(
    found: dict[str, np.ndarray],
    ranks: dict[str, int | None],
    *,
    legacy_of: tuple[Codes, Codes, tuple[Labels, Labels]] | None,
    on_progress: Callable[[int], None],
) -> dict[str, dict[str, float | None]]:
    names = ("map", "map_best", "map_worst", "ndcg", "acg")
    by_cutoff: dict[str, dict[str, float | None]] = {
        rank: {name: float(found[f"{name} {rank}"].mean()) for name in names if f"{name} {rank}" in found} for rank in ranks
    }
    for rank, measured in by_cutoff.items():
        measured["map_answerable"] = _mean(found[f"map {rank}"][found["answerable"]])
    if legacy_of is not None:
        precision, hit = legacy.average_precision(*legacy_of, cutoffs=list(ranks.values()), on_progress=on_progress)
        for i, measured in enumerate(by_cutoff.values()):
            measured["map_legacy_deephash"] = float(precision[i].mean())
            measured["map_legacy_hashnet"] = _mean(precision[i][hit[i]])
    return by_cutoff


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
