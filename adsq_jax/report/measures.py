"""Figures of a run's codes that a report shows and `result.json` lacks: by query, by bit and by code."""

from collections import Counter
from typing import NamedTuple

import numpy as np

from adsq_jax import codes, retrieval
from adsq_jax.retrieval.arrays import Labels
from adsq_jax.retrieval.blocks import SingleDevice
from adsq_jax.retrieval.hamming import distance_histograms
from adsq_jax.retrieval.metrics import average_precision


class Measured(NamedTuple):
    """The measures of one retrieval."""

    average_precision: np.ndarray  # of each query at the run's cutoff, ties averaged, float64[n_query]
    chance: float  # their mean if the database were in random order
    similar: np.ndarray  # pairs of query and database that share a label, by distance, int64[bits + 1]
    dissimilar: np.ndarray  # the other pairs, int64[bits + 1]
    ones: np.ndarray  # fraction of +1 of each bit over the database, float64[bits]
    correlation: np.ndarray  # between the bits over the database, float64[bits, bits]; 0 where a bit never changes
    usage: np.ndarray  # images of each code of the database, most first, int64[codes]
    nearest: np.ndarray  # rows of the nearest items of each query, int64[n_query, top or less]
    distances: np.ndarray  # of these items, in bits, int32[n_query, top or less]
    tied: np.ndarray  # other items of the database at the same distance as each of these, int64[n_query, top or less]


def measure(
    query: np.ndarray,
    database: np.ndarray,
    *,
    labels: dict[str, np.ndarray],
    bits: int,
    cutoff: str,
    top: int,
    devices: SingleDevice,
) -> Measured:
    """Measure packed codes, uint8[n, ceil(bits / 8)], with labels of "query" and "database", ids [n] or multi-hot [n, c].

    `cutoff` is the cutoff of average precision, "all" or a rank; `top` is the number of nearest items of each query.
    """
    counts, relevant = distance_histograms(
        query, database, query_labels=labels["query"], database_labels=labels["database"], bits=bits, devices=devices
    )
    distances, nearest = retrieval.search(query, database, min(top, len(database)), bits=bits, devices=devices)
    ones, correlation = bit_statistics(database, bits=bits)
    rank = None if cutoff == "all" else int(cutoff)
    whole = (counts.sum(axis=1, keepdims=True), relevant.sum(axis=1, keepdims=True))  # as if all were at one distance
    return Measured(
        average_precision=average_precision(counts, relevant, cutoff=rank),
        chance=float(average_precision(*whole, cutoff=rank).mean()),
        similar=relevant.sum(axis=0),
        dissimilar=(counts - relevant).sum(axis=0),
        ones=ones,
        correlation=correlation,
        usage=code_usage(database),
        nearest=nearest,
        distances=distances,
        tied=np.take_along_axis(counts, distances, axis=1) - 1,
    )


def by_class(labels: np.ndarray, average_precision: np.ndarray) -> list[tuple[int, int, float]]:
    """Return each class that a query has, the number of its queries and their mAP, the lowest first.

    Args:
      labels: of the queries, class ids [n] or multi-hot [n, c].
      average_precision: of each query, float64[n].
    """
    queries = Labels(labels)
    means, counts = queries.means_by_class(average_precision), queries.count_by_class()
    return sorted(((int(name), counts[name], mean) for name, mean in means.items()), key=lambda row: (row[2], row[0]))


def bit_statistics(packed: np.ndarray, *, bits: int, rows: int = 1 << 16) -> tuple[np.ndarray, np.ndarray]:
    """Return the fraction of +1 of each bit, float64[bits], and Pearson's correlation between the bits, float64[bits, bits].

    The correlation with a bit that never changes is 0. For tests and small memory: `rows` are unpacked at a time.
    """
    total, products = np.zeros(bits), np.zeros((bits, bits))
    for start in range(0, len(packed), rows):
        signs = codes.unpack(packed[start : start + rows], bits=bits).astype(np.float64)  # [rows, bits]
        total += signs.sum(axis=0)
        products += signs.T @ signs
    mean = total / len(packed)
    deviation = np.sqrt(np.maximum(1 - mean**2, 0))
    scale = deviation[:, None] * deviation[None]
    covariance = products / len(packed) - mean[:, None] * mean[None]
    return (1 + mean) / 2, np.divide(covariance, scale, out=np.zeros((bits, bits)), where=scale > 0)


def code_usage(packed: np.ndarray) -> np.ndarray:
    """Return how many images have each code, most first, int64[codes]."""
    whole = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))[:, 0]  # a code as one value
    return np.sort(np.unique(whole, return_counts=True)[1])[::-1]


def examples(labels: np.ndarray, average_precision: np.ndarray, *, count: int) -> np.ndarray:
    """Return rows of up to `count` queries to show, by class, and in each by descending average precision, int64[count].

    They are drawn from a fixed seed: one of each class before a second of any. Labels are class ids [n] or multi-hot [n, c], of
    which the first class counts; average precision is float64[n].
    """
    order = np.random.default_rng(0).permutation(len(labels)).tolist()
    classes = labels if labels.ndim == 1 else labels.argmax(axis=1)
    drawn: Counter[int] = Counter()  # of each class, so far
    turn = {}  # of each query among those of its class
    for row in order:
        turn[row] = drawn[classes[row]]
        drawn[classes[row]] += 1
    rows = np.array(sorted(order, key=turn.__getitem__)[:count], np.int64)
    return rows[np.lexsort((rows, -average_precision[rows], classes[rows]))]
