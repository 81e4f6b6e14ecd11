"""Compressed features: their cosines against those of the features themselves, number by number."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsq_jax.errors import InputError
from adsq_jax.retrieval import features

# Of the signs of 1,280 features; with another one, stored features could no longer be compared.
FIRST_PROJECTION = "9b08fefbfbd9e67777040658e6bb0e1722e6d88a3e92ba9f1190a930e7c35530"


def drawn(n, width, *, seed=0):
    """Features like a trunk's after relu: not negative, many of them 0."""
    return np.maximum(np.random.default_rng(seed).normal(size=(n, width)), 0).astype(np.float32)


def exact(a, b):
    """Cosines by Python's own numbers, pair by pair."""
    return [
        sum(float(x) * float(y) for x, y in zip(a, row, strict=True))
        / (sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in row)) ** 0.5
        for row in b
    ]


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_cosines(seed, dims):
    """Those of int8 numbers are exact; with nothing but zeros they are 0."""
    numbers = np.random.default_rng(seed).integers(-127, 128, (5, dims)).astype(np.int8)
    numbers[:, 0] |= 1
    np.testing.assert_allclose(features.cosines(numbers[0], numbers[1:]), exact(numbers[0], numbers[1:]), atol=1e-5)
    assert features.cosines(numbers[0], 0 * numbers).tolist() == [0] * 5
    assert features.cosines(0 * numbers[0], numbers).tolist() == [0] * 5


@pytest.mark.parametrize("width", [64, 1280, 2048])
def test_cosines_stay_nearly_the_same(width):
    """Their errors are about 1 / sqrt(dims), as a random projection promises, and no more for 8 bits a number."""
    x = drawn(40, width)
    found = [features.cosines(row, features.compress(x)) for row in features.compress(x)]
    errors = np.abs(np.array(found) - [exact(row, x) for row in x])
    assert errors.mean() < 1 / features.DIMS**0.5
    assert errors.max() < 5 / features.DIMS**0.5
    assert np.diag(errors).max() < 1e-5


def test_what_is_stored():
    """int8 up to 127, whatever the scale; nothing but zeros stays so; the projection is the same for ever."""
    x = drawn(6, 100)
    found = features.compress(x)
    assert found.dtype == np.int8
    assert found.shape == (6, features.DIMS)
    assert np.abs(found.astype(int)).max(axis=1).tolist() == [127] * 6
    assert np.array_equal(features.compress(4 * x), found)
    assert not features.compress(0 * x).any()
    assert features.compress(x[:0]).shape == (0, features.DIMS)
    signs = features._signs(1280, 160)
    assert set(np.unique(signs)) == {-1, 1}
    assert abs(signs.mean()) < 0.01
    assert hashlib.sha256(signs.astype(np.int8).tobytes()).hexdigest() == FIRST_PROJECTION


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none(bad):
    """They are refused, as codes of them are."""
    x = drawn(3, 50)
    x[1, 2] = bad
    with pytest.raises(InputError, match="the model computes no numbers for an image"):
        features.compress(x)
