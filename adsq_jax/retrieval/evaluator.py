"""The evaluator: codes and labels in, all figures of their retrieval out."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from adsq_jax.errors import InputError
from adsq_jax.retrieval import hamming, legacy, metrics
from adsq_jax.retrieval.arrays import Codes, Labels, check_orientation, check_same, prepare_codes, prepare_labels
from adsq_jax.retrieval.blocks import LIMITS, SINGLE_DEVICE, Limits, SingleDevice
from adsq_jax.retrieval.measures import CutoffMeasures, Measures, PrecisionRecall

POINTS = (1, 5, 10, 20, 50, *range(100, 1001, 100), 2000, 5000, 10_000)  # ranks of precision_at and recall_at
_RADIUS = 2  # of the ball that the field reports
_Figures = dict[tuple[str, str | int], np.ndarray]  # float64[n_query] by name, and cutoff or rank


def measure(
    query_codes: ArrayLike,
    database_codes: ArrayLike,
    *,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    bits: int | None = None,
    cutoffs: Sequence[int | str] = ("all",),
    with_legacy: bool = False,
    leave_self_out: bool = False,
    devices: SingleDevice = SINGLE_DEVICE,
    limits: Limits = LIMITS,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> Measures:
    """Measure how well codes retrieve.

    Args:
      query_codes: NumPy, JAX or lists: float (the sign counts, 0 is +1), {-1, +1} or {0, 1} of any dtype, [n_query, K]; or
        packed, uint8[n_query, ceil(K / 8)], little bit order, 1 = +1, padding zero.
      database_codes: the same form, [n_database, ...].
      query_labels: class ids [n_query] from 0 to 2**31 - 1, one string per query [n_query], or multi-hot [n_query, c].
      database_labels: the same form. Items that share a label with the query are relevant.
      bits: K of packed codes, 1 to 1,024; None if the codes are not packed.
      cutoffs: ranks R, or "all" for the whole database.
      with_legacy: whether to add the figures of published code, which takes a slower pass.
      leave_self_out: whether the queries are the database, and each is left out of its own ranking; others of its code stay.
      devices: one device, or `adsq_jax.devices.ShardedDatabase()` for all.
      limits: for tests and small memory: the most that is held at a time; it changes no result.
      on_progress: called with the number of pairs of query and item done since the last call; in all n_query x
        n_database, or twice that `with_legacy`.

    Returns:
      The figures: `measures.map` at the first cutoff, `measures.at(5000)` at another, `measures.to_dict()` for JSON. With
      `leave_self_out`, `n_database` is one less than the codes.

    Raises:
      InputError: the codes, labels or cutoffs have the wrong form or don't fit each other; or, with `leave_self_out`, queries
        and database differ.

    Source: `retrieval/metrics.py` and `retrieval/legacy.py` name the source of each figure.
    """
    ranks = check_cutoffs(cutoffs)
    check_orientation(query_codes, database_codes, query_labels=query_labels, database_labels=database_labels)
    query, database = prepare_codes(query_codes, database_codes, bits=bits)
    labels = prepare_labels(query_labels, database_labels, n_query=len(query), n_database=len(database))
    n_database = len(database)
    if leave_self_out:
        check_same(query, database, labels)
        n_database -= 1
    blocks = [
        _figures_by_query(
            _without_self(histograms, part, labels[0]) if leave_self_out else histograms,
            ranks=ranks,
            n_database=n_database,
            graded=not labels[0].ids,
        )
        for part, histograms in hamming.histograms_by_block(
            query, database, labels, devices=devices, limits=limits, on_progress=on_progress
        )
    ]
    figures = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
    published: dict[str, dict[str, float | None]] = {}
    if with_legacy:
        published = _published(
            query, database, labels, ranks=ranks, leave_self_out=leave_self_out, limits=limits, on_progress=on_progress
        )
    classes = {cutoff: labels[0].means_by_class(figures["map", cutoff]) for cutoff in ranks}
    balls = {name: figures["balls", name] for name in ("precision", "recall")}
    return Measures(
        by_cutoff={
            cutoff: _at_cutoff(figures, cutoff, by_class=classes[cutoff], published=published.get(cutoff, {}))
            for cutoff in ranks
        },
        precision_radius2=float(balls["precision"][:, min(_RADIUS, query.bits)].mean()),
        empty_balls=float(figures["balls", "empty"].mean()),
        precision_at=_by_rank(figures, "precision_at"),
        recall_at=_by_rank(figures, "recall_at"),
        precision_recall=PrecisionRecall(
            list(range(query.bits + 1)), balls["precision"].mean(axis=0).tolist(), balls["recall"].mean(axis=0).tolist()
        ),
        n_queries_without_relevant=int((~figures["answerable", "all"]).sum()),
        n_query=len(query),
        n_database=n_database,
        bits=query.bits,
    )


def check_cutoffs(cutoffs: Sequence[int | str]) -> dict[str, int | None]:
    """Check cutoffs.

    Args:
      cutoffs: "all", or ranks as numbers or text.

    Returns:
      The rank of each cutoff by its name; None for "all".

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


def _without_self(histograms: np.ndarray, part: slice, labels: Labels) -> np.ndarray:
    """Return int64[queries, bits + 1, grades] without each query itself: it is at distance 0, and shares all of its labels."""
    others = histograms.copy()
    others[np.arange(len(others)), 0, labels.per_row(part.start, part.stop)] -= 1
    return others


def _published(
    query: Codes,
    database: Codes,
    labels: tuple[Labels, Labels],
    *,
    ranks: dict[str, int | None],
    leave_self_out: bool,
    limits: Limits,
    on_progress: Callable[[int], None],
) -> dict[str, dict[str, float | None]]:
    """Return the figures of published code within each cutoff."""
    precision, hit = legacy.average_precision(
        query,
        database,
        labels,
        cutoffs=list(ranks.values()),
        leave_self_out=leave_self_out,
        limits=limits,
        on_progress=on_progress,
    )
    return {
        cutoff: {"map_legacy_deephash": float(precision[i].mean()), "map_legacy_hashnet": _mean(precision[i][hit[i]])}
        for i, cutoff in enumerate(ranks)
    }


def _figures_by_query(histograms: np.ndarray, *, ranks: dict[str, int | None], n_database: int, graded: bool) -> _Figures:
    """Return every figure of some queries; precision and recall of balls are [n_query, bits + 1]."""
    counts = metrics.items_by_distance(histograms)
    relevant = counts - histograms[:, :, 0]
    total = relevant.sum(axis=1)
    precision, recall = metrics.precision_recall_by_radius(counts, relevant)
    figures: _Figures = {
        ("answerable", "all"): total > 0,
        ("balls", "precision"): precision,
        ("balls", "recall"): recall,
        ("balls", "empty"): counts[:, : _RADIUS + 1].sum(axis=1) == 0,
    }
    occupied = counts.any(axis=0)  # other distances add nothing below
    histograms, counts, relevant = histograms[:, occupied], counts[:, occupied], relevant[:, occupied]
    at_one_distance = counts.sum(axis=1, keepdims=True), relevant.sum(axis=1, keepdims=True)  # as items in random order
    for cutoff, rank in ranks.items():
        for name, ties in (("map", "expected"), ("map_best", "best"), ("map_worst", "worst")):
            figures[name, cutoff] = metrics.average_precision(counts, relevant, cutoff=rank, ties=ties)
        figures["map_by_chance", cutoff] = metrics.average_precision(*at_one_distance, cutoff=rank)
        if graded:
            figures["ndcg", cutoff] = metrics.discounted_gain(histograms, cutoff=rank)
            figures["acg", cutoff] = metrics.cumulative_gain(histograms, cutoff=rank)
    points = [point for point in POINTS if point <= n_database]
    for point, hits in zip(points, metrics.expected_hits(counts, relevant, cutoffs=points).T, strict=True):
        figures["precision_at", point] = hits / point
        figures["recall_at", point] = hits / np.maximum(total, 1)
    return figures


def _at_cutoff(
    figures: _Figures, cutoff: str, *, by_class: dict[str, float], published: dict[str, float | None]
) -> CutoffMeasures:
    names = ("map", "map_by_chance", "map_best", "map_worst", "ndcg", "acg")
    means: dict[str, Any] = {name: float(figures[name, cutoff].mean()) for name in names if (name, cutoff) in figures}
    answerable = _mean(figures["map", cutoff][figures["answerable", "all"]])
    return CutoffMeasures(
        **means | published,
        map_answerable=answerable,
        map_by_class=by_class,
        map_mean_of_classes=_mean(np.array(list(by_class.values()))),
    )


def _by_rank(figures: _Figures, name: str) -> dict[int, float]:
    return {int(rank): float(values.mean()) for (key, rank), values in figures.items() if key == name}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
