"""ITQ: against scikit-learn's principal components, SciPy's Procrustes rotation, and random rotations."""

import itertools

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes, subspace_angles
from sklearn.decomposition import PCA

from adsq_jax.errors import InputError
from adsq_jax.methods import itq


def features(count=200, width=20, *, seed=0):
    """Correlated numbers, around a mean that isn't 0."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(count, width)) @ np.diag(np.linspace(3, 0.3, width)) @ random.normal(size=(width, width))
    return (mixed + random.normal(size=width)).astype(np.float32)


def rotated(x, projection):
    """The relaxed codes, float64[m, bits]."""
    return x.astype(np.float64) @ projection.kernel + projection.bias


def gap(relaxed):
    """The mean squared distance of relaxed codes from their signs."""
    return np.mean((np.where(relaxed >= 0, 1, -1) - relaxed) ** 2)


@pytest.mark.parametrize("bits", [1, 6, 20])
def test_columns_span_the_principal_components(bits):
    """They are orthonormal, and span what scikit-learn finds; relaxed codes are centred."""
    x = features()
    projection = itq.fit(x, bits=bits, seed=0)
    assert projection.kernel.dtype == projection.bias.dtype == np.float32
    np.testing.assert_allclose(projection.kernel.T @ projection.kernel, np.eye(bits), atol=1e-5)
    assert np.rad2deg(subspace_angles(projection.kernel, PCA(bits).fit(x).components_.T)).max() < 0.1
    np.testing.assert_allclose(rotated(x, projection).mean(axis=0), 0, atol=1e-4)


def test_the_rotation_is_the_best_for_its_signs():
    """After enough sweeps, SciPy's Procrustes rotation onto the signs is the identity, and no random rotation is better."""
    x = features()
    relaxed = rotated(x, itq.fit(x, bits=6, seed=0, sweeps=500))
    again, _ = orthogonal_procrustes(relaxed, np.where(relaxed >= 0, 1, -1))
    np.testing.assert_allclose(again, np.eye(6), atol=1e-3)
    random = np.random.default_rng(1)
    others = [gap(relaxed @ np.linalg.qr(random.normal(size=(6, 6)))[0]) for _ in range(200)]
    assert gap(relaxed) < min(others)


def test_more_sweeps_bring_codes_nearer_to_their_signs():
    """Sweep by sweep the gap never grows, and shrinks in all."""
    x = features()
    gaps = [gap(rotated(x, itq.fit(x, bits=8, seed=3, sweeps=sweeps))) for sweeps in range(20)]
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(gaps))
    assert gaps[-1] < gaps[0]


def test_the_same_pictures_give_the_same_codes():
    """Twice the same; another seed gives another rotation of the same directions."""
    x = features()
    first, second, other = (itq.fit(x, bits=6, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.kernel, second.kernel)
    assert np.array_equal(first.bias, second.bias)
    assert not np.array_equal(first.kernel, other.kernel)
    assert np.rad2deg(subspace_angles(first.kernel, other.kernel)).max() < 0.1


@pytest.mark.parametrize("count", [2, 5])
def test_few_pictures_are_enough(count):
    """With fewer pictures than bits the columns are still orthonormal, and different pictures get different codes."""
    x = features(count)
    projection = itq.fit(x, bits=16, seed=0)
    np.testing.assert_allclose(projection.kernel.T @ projection.kernel, np.eye(16), atol=1e-5)
    assert len(np.unique(rotated(x, projection) >= 0, axis=0)) == count


@pytest.mark.parametrize(
    ("x", "bits", "message"),
    [
        (features(), 21, "expected 1 to 20 bits"),
        (features(), 0, "expected 1 to 20 bits"),
        (np.full((3, 5), np.nan), 4, "computes no numbers"),
        (np.full((3, 5), np.inf), 4, "computes no numbers"),
        (features(1), 4, "at least two pictures that differ, got 1"),
        (features(0), 4, "at least two pictures that differ, got 0"),
        (np.repeat(features(1), 9, axis=0), 4, "at least two pictures that differ, got 9"),
    ],
)
def test_what_cannot_be_fitted(x, bits, message):
    """One line says what is expected."""
    with pytest.raises(InputError, match=message):
        itq.fit(x, bits=bits, seed=0)
