"""Separation of hash codes, against a count of every pair and every flip."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsq_jax.methods import label_set_pairs, separation


def distance(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def crowding(hash_codes, similar):
    """The sum over dissimilar pairs of 4^-distance, pair by pair."""
    m = len(hash_codes)
    return sum(4.0 ** -distance(hash_codes[i], hash_codes[j]) for i in range(m) for j in range(i) if not similar[i, j])


def problem(seed, m, bits):
    """Relaxed codes of random label sets, these sets, and which of them share a label."""
    random = np.random.default_rng(seed)
    labels = random.random((m, 4)) < 0.4
    similar = (labels[:, None] & labels[None]).any(axis=2)
    return random.uniform(-1, 1, (m, bits)).astype(np.float32), labels.astype(np.uint8), similar


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 8))
def test_no_single_flip_lowers_the_sum(seed, m, bits):
    """The sum is at most that of the signs, and every flip of one bit leaves it or makes it larger."""
    relaxed_codes, sets, similar = problem(seed, m, bits)
    found = separation.separated(relaxed_codes, sets=sets)
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
    """Those of the docstring; four of five bits stay."""
    relaxed_codes = np.random.default_rng(1).uniform(-1, 1, (m, bits))
    sets = np.eye(m, dtype=np.uint8)
    found = separation.separated(relaxed_codes, sets=sets)
    assert separation.smallest_distance(found, sets=sets) >= least
    assert np.mean(found == np.where(relaxed_codes < 0, -1, 1)) > 0.75


def test_similar_codes_stay():
    """Where no two label sets are dissimilar, the codes are the signs."""
    relaxed_codes, _, _ = problem(0, 5, 6)
    found = separation.separated(relaxed_codes, sets=np.ones((5, 1), np.uint8))
    np.testing.assert_array_equal(found, np.where(relaxed_codes < 0, -1, 1))


@given(st.integers(0, 2**32 - 1))
def test_smallest_distance_of_dissimilar_pairs(seed):
    """It is that of a loop over pairs; without any, None."""
    relaxed_codes, sets, similar = problem(seed, 6, 8)
    hash_codes = np.where(relaxed_codes < 0, -1, 1)
    distances = [distance(hash_codes[i], hash_codes[j]) for i in range(6) for j in range(i) if not similar[i, j]]
    expected = min(distances) if distances else None
    assert separation.smallest_distance(hash_codes, sets=sets) == expected


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_blocks_of_label_sets_give_the_same_codes(rows, monkeypatch):
    """Codes and the smallest distance don't depend on how many rows of similarity are computed at a time."""
    relaxed_codes, sets, _ = problem(3, 20, 12)
    at_once = separation.separated(relaxed_codes, sets=sets)
    distance_at_once = separation.smallest_distance(at_once, sets=sets)
    monkeypatch.setattr(label_set_pairs, "MOST_NUMBERS", rows * len(sets))
    np.testing.assert_array_equal(separation.separated(relaxed_codes, sets=sets), at_once)
    assert separation.smallest_distance(at_once, sets=sets) == distance_at_once
