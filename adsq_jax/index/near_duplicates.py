"""Groups of near-identical pictures in an index, by their codes and features."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.index.engine import CodeIndex
from adsq_jax.index.opening import opened as opened_index
from adsq_jax.retrieval import features as compressed

RADIUS = 2  # bits
COSINE = 0.95
_PAIRS, _COSINES = 2**22, 2**16  # pairs compared at a time, by codes and by features


def duplicates(index: str | Path | CodeIndex, *, radius: int | None = None, cosine: float = COSINE) -> list[list[str]]:
    """Group pictures whose codes and features are nearly the same.

    Two pictures belong to a group if a chain of pictures joins them, each at most `radius` bits from the next, and, where the
    index has features, at least `cosine` near it. Codes of a trained model put whole classes together: without features, their
    groups say little. All pairs within the radius are found: of radius + 1 parts of a code, two such codes share one.

    Args:
      index: the location of an index, or an open one.
      radius: the largest distance of two pictures, in bits, 0 to a quarter of the code's length; None: RADIUS, or that quarter.
      cosine: the least cosine of their features, -1 to 1; without features it isn't used.

    Returns:
      The ids of each group of at least two, sorted; the largest groups first.

    Raises:
      InputError: there is no index, or a number is out of range.

    Source: parts of codes as in multi-index hashing, Norouzi, Punjani and Fleet, CVPR 2012; groups: this project.
    """
    with opened_index(index) as opened:
        return _duplicates(opened, radius=radius, cosine=cosine)


def _duplicates(opened: CodeIndex, *, radius: int | None, cosine: float) -> list[list[str]]:
    bits = opened.manifest.bits
    radius = min(RADIUS, bits // 4) if radius is None else radius
    if not 0 <= radius <= bits // 4:
        raise InputError(f"radius={radius}: expected 0 to {bits // 4}, a quarter of the code's bits")
    if not -1 <= cosine <= 1:
        raise InputError(f"cosine={cosine}: expected a number from -1 to 1")
    ids, codes, features = list[str](), list[np.ndarray](), list[np.ndarray]()
    for batch in opened.scan():
        ids += [item.id for item in batch.items]
        codes.append(batch.codes)
        features.append(batch.features)
    if not ids:
        return []
    joined, vectors = [(np.zeros(0, np.int64),) * 2], np.concatenate(features)
    for first, second in near_pairs(np.concatenate(codes), bits=bits, radius=radius):
        if vectors.shape[1]:
            parts = range(0, len(first), _COSINES)
            alike = [
                compressed.paired_cosines(vectors[first[k : k + _COSINES]], vectors[second[k : k + _COSINES]]) >= cosine
                for k in parts
            ]
            chosen = np.concatenate([np.zeros(0, bool), *alike])
            first, second = first[chosen], second[chosen]
        joined.append(_spanning(first, second))
    components = _components(*map(np.concatenate, zip(*joined, strict=True)), count=len(ids))
    groups: dict[int, list[str]] = {}
    for name, number in zip(ids, components.tolist(), strict=True):
        groups.setdefault(number, []).append(name)
    several = [sorted(group) for group in groups.values() if len(group) > 1]
    return sorted(several, key=lambda group: (-len(group), group))


def near_pairs(codes: np.ndarray, *, bits: int, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pairs of rows whose codes are within a radius, some of them several times.

    Args:
      codes: packed, uint8[n, ceil(bits / 8)].
      bits: the code length.
      radius: the largest distance, in bits, below the code length.

    Yields:
      Two int[m], rows of the first and of the second code of each pair.
    """
    planes = np.unpackbits(codes, axis=1, bitorder="little")[:, :bits]  # [n, bits]
    for part in np.array_split(np.arange(bits), radius + 1):
        keys = np.packbits(planes[:, part], axis=1)
        _, which, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        order, ends = np.argsort(which.reshape(-1), kind="stable"), np.cumsum(counts)
        for end, count in zip(ends[counts > 1], counts[counts > 1], strict=True):
            rows = order[end - count : end]
            yield from _pairs_among(rows, codes, radius=radius)


def _pairs_among(rows: np.ndarray, codes: np.ndarray, *, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    step = max(1, _PAIRS // len(rows))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        distances = np.bitwise_count(codes[some][:, None] ^ codes[rows][None]).sum(axis=2, dtype=np.int32)
        a, b = np.nonzero(distances <= radius)
        later = some[a] < rows[b]
        yield some[a][later], rows[b][later]


def _components(first: np.ndarray, second: np.ndarray, *, count: int) -> np.ndarray:
    """Return a number for each of `count` rows, the same for rows that pairs join, directly or by others, int[count]."""
    import scipy.sparse.csgraph  # takes a third of a second, and this alone needs it

    pairs = scipy.sparse.coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return np.asarray(scipy.sparse.csgraph.connected_components(pairs, directed=False)[1])


def _spanning(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return fewer pairs that join the same rows: many equal codes have very many pairs."""
    rows, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    found = _components(places[: len(first)], places[len(first) :], count=len(rows))
    _, heads = np.unique(found, return_index=True)
    return rows, rows[heads[found]]
