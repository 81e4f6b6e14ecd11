"""Separation of hash codes, against a count of every pair and every flip."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsq_jax.methods import separation


def distance(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def crowding(hash_codes, similar):
    """The sum over dissimilar pairs of 4^-distance, pair by pair."""
    m = len(hash_codes)
    return sum(4.0 ** -distance(hash_codes[i], hash_codes[j]) for i in range(m) for j in range(i) if not similar[i, j])


def problem(seed, m, bits):
    """Relaxed codes of random label sets, and which of these share a label."""
    random = np.random.default_rng(seed)
    labels = random.random((m, 4)) < 0.4
    return random.uniform(-1, 1, (m, bits)).astype(np.float32), (labels[:, None] & labels[None]).any(axis=2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 8))
def test_no_single_flip_lowers_the_sum(seed, m, bits):
    """The sum is at most that of the signs, and every flip of one bit leaves it or makes it larger."""
    relaxed_codes, similar = problem(seed, m, bits)
    found = separation.separated(relaxed_codes, similar=similar)
    assert found.dtype == np.int8
    assert set(np.unique(found)) <= {-1, 1}
    least = crowding(found, similar)
    assert least <= crowding(np.where(relaxed_codes < 0, -1, 1), similar) + 1e-12
    for place in np.ndindex(found.shape):
        flipped = found.copy()
        flipped[place] *= -1
        assert crowding(flipped, similar) >= least * (1 - 1e-6) - 1e-12


@pytest.mark.parametrize(
    ("m", "bits", "least"), [(10, 12, 6), (10, 24, 12), (10, 48, 26), (100, 12, 3), (100, 24, 8), (100, 48, 20)]
)
def test_distances_of_classes(m, bits, least):
    """Those of README and docstring; four of five bits stay."""
    relaxed_codes = np.random.default_rng(1).uniform(-1, 1, (m, bits))
    similar = np.eye(m, dtype=bool)
    found = separation.separated(relaxed_codes, similar=similar)
    assert separation.smallest_distance(found, similar=similar) >= least
    assert np.mean(found == np.where(relaxed_codes < 0, -1, 1)) > 0.75


def test_similar_codes_stay():
    """Where no two label sets are dissimilar, the codes are the signs."""
    relaxed_codes, _ = problem(0, 5, 6)
    found = separation.separated(relaxed_codes, similar=np.ones((5, 5), bool))
    np.testing.assert_array_equal(found, np.where(relaxed_codes < 0, -1, 1))


@given(st.integers(0, 2**32 - 1))
def test_smallest_distance_of_dissimilar_pairs(seed):
    """It is that of a loop over pairs; without any, None."""
    relaxed_codes, similar = problem(seed, 6, 8)
    hash_codes = np.where(relaxed_codes < 0, -1, 1)
    distances = [distance(hash_codes[i], hash_codes[j]) for i in range(6) for j in range(i) if not similar[i, j]]
    expected = min(distances) if distances else None
    assert separation.smallest_distance(hash_codes, similar=similar) == expected
