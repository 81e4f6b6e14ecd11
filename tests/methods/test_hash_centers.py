"""Hash centers: Hadamard's matrices checked by their definition, and the distances that each size must reach."""

import time

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import hadamard

from adsq_jax.methods import hash_centers
from adsq_jax.methods.hash_centers import linear_code, majority_centers, smallest_distance

SYLVESTER, PALEY, DOUBLED = (1, 2, 4, 8, 16, 32, 64, 128, 256), (12, 20, 24, 44, 48, 60), (40, 88, 96)
NONE = (3, 6, 10, 18, 28, 36, 52)  # no matrix, or none of these constructions
# Classes, bits, and the smallest distance to reach: half of the bits by matrices, else what the best linear codes have.
BY_MATRIX = [(10, 12, 6), (24, 12, 6), (10, 24, 12), (48, 24, 12), (10, 48, 24), (96, 48, 24)]
BY_MATRIX += [(10, 16, 8), (10, 32, 16), (10, 64, 32), (100, 64, 32), (127, 64, 32)]
BY_SEARCH = [
    (127, 12, 4),
    (127, 24, 10),
    (127, 48, 22),
    (100, 48, 22),
    (100, 32, 14),
    (81, 16, 6),
    (21, 36, 17),
    (1000, 64, 24),
]


def centers_of(classes, bits, seed=0):
    return np.asarray(hash_centers.hash_centers(classes, bits, seed=seed))


def distances(centers):
    """Count the bits that differ, pair by pair."""
    return [int(np.sum(a != b)) for i, a in enumerate(centers) for b in centers[:i]]


@pytest.mark.parametrize("order", SYLVESTER + PALEY + DOUBLED)
def test_a_matrix_of_hadamard(order):
    """Its entries are -1 and +1, and H H' = K I; SciPy's of a power of 2, from whose rows CSQ takes its centers."""
    matrix = hash_centers._hadamard(order)
    assert set(np.unique(matrix)) <= {-1, 1}
    assert np.array_equal(matrix @ matrix.T, order * np.eye(order))
    if order in SYLVESTER:
        assert np.array_equal(matrix, hadamard(order))


@pytest.mark.parametrize("q", [3, 7, 11, 19, 23, 43, 47])
def test_paleys_matrix(q):
    """Entry (i, j) is +1 where j - i is a square modulo q, by trial, else -1; the border makes it skew, the diagonal +1."""
    squares = {x * x % q for x in range(1, q)}
    matrix = hash_centers._paley(q)
    assert np.array_equal(matrix + matrix.T, 2 * np.eye(q + 1))
    assert (matrix[0] == 1).all()
    for i, j in np.ndindex(q, q):
        assert matrix[1 + i, 1 + j] == (1 if i == j or (j - i) % q in squares else -1)


@pytest.mark.parametrize("order", NONE)
def test_no_matrix(order):
    assert hash_centers._hadamard(order) is None


@pytest.mark.parametrize(("classes", "bits", "least"), BY_MATRIX + BY_SEARCH)
def test_centers_are_far_apart(classes, bits, least):
    """The distance is reached, is above that of random signs, and keeps Plotkin's bound; `smallest_distance` states it."""
    centers = centers_of(classes, bits)
    assert (centers.shape, centers.dtype) == ((classes, bits), np.float32)
    assert set(np.unique(centers)) == {-1, 1}
    found = smallest_distance(centers)
    assert found == min(distances(centers)) >= least
    assert found > smallest_distance(hash_centers.random_signs(classes, bits, seed=0))
    half = classes // 2  # pairs that a bit can part, over all pairs, times the bits
    assert found <= bits * half * (classes - half) / (classes * (classes - 1) / 2)
    assert np.abs(centers.sum(axis=0)).max() <= 0.6 * classes  # no bit is nearly the same in all


def test_rows_and_opposites():
    """With up to 2 K classes, two centers differ in half of the bits or in all, whatever the seed."""
    centers = centers_of(24, 12)
    assert set(distances(centers)) == {6, 12}
    assert np.array_equal(centers, -np.roll(centers, 12, axis=0))
    assert np.array_equal(centers, centers_of(24, 12, seed=1))


@pytest.mark.parametrize(("classes", "bits"), [(16, 4), (200, 8), (1000, 10), (7, 3), (9, 5), (1, 1), (2, 1)])
def test_distinct_as_long_as_there_are_enough(classes, bits):
    """Up to 2^K classes, which takes every code there is."""
    assert len(np.unique(centers_of(classes, bits), axis=0)) == classes


def test_distinct_before_the_search(monkeypatch):
    """Each start has a basis among its columns, so that words differ even if the search does nothing."""
    monkeypatch.setattr(hash_centers, "_SWEEPS", 0)
    for dimension, bits in ((10, 10), (6, 8)):
        words = hash_centers._linear_code.__wrapped__(dimension, bits, 0)
        assert len(np.unique(words, axis=0)) == 2**dimension


def test_more_classes_than_codes():
    """Then some share a center, and the smallest distance says so."""
    centers = centers_of(9, 3)
    assert centers.shape == (9, 3)
    assert smallest_distance(centers) == 0


def test_the_seed():
    """The same seed gives the same centers, computed anew; another one others, as far apart."""
    first = centers_of(100, 48)
    hash_centers._centers.cache_clear()
    hash_centers._linear_code.cache_clear()
    assert np.array_equal(first, centers_of(100, 48))
    other = centers_of(100, 48, seed=1)
    assert not np.array_equal(first, other)
    assert smallest_distance(other) >= 21
    assert not np.array_equal(linear_code(7, 48, seed=0), linear_code(7, 48, seed=1))


@pytest.mark.parametrize(("dimension", "bits"), [(1, 5), (3, 7), (5, 24), (7, 12)])
def test_words_of_a_linear_code(dimension, bits):
    """The product of any two words, which is the sum of their bits modulo 2, is a word again."""
    words = {tuple(word) for word in np.asarray(linear_code(dimension, bits, seed=0)).tolist()}
    assert len(words) == 2**dimension
    assert all(tuple(x * y for x, y in zip(a, b, strict=True)) in words for a in words for b in words)


def test_the_search_ends_soon():
    """2 s, ten times what it takes, for 127 classes and for 1,000."""
    hash_centers._linear_code.cache_clear()
    began = time.perf_counter()
    for classes, bits in ((127, 12), (127, 48), (1_000, 64)):
        hash_centers._centers.__wrapped__(classes, bits, 0)
    assert time.perf_counter() - began < 2


def test_the_majority_of_centers():
    """One label: its center. Three: the majority. Two: what both have, else a sign that is the same for all images."""
    centers, bits = centers_of(4, 12, seed=3), 12
    labels = jnp.array([[0, 1, 0, 0], [1, 1, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]], jnp.float32)
    found = np.asarray(majority_centers(labels, bits, seed=3))
    ties = np.asarray(hash_centers.random_signs(1, bits, seed=4))[0]
    assert np.array_equal(found[0], centers[1])
    assert np.array_equal(found[1], np.sign(centers[0] + centers[1] + centers[3]))
    assert np.array_equal(found[2], np.where(centers[0] == centers[2], centers[0], ties))
    assert np.array_equal(found[3], ties)
