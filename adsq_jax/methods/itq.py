"""Codes without labels: iterative quantization (ITQ), Gong and Lazebnik, CVPR 2011, section 2.

Features are centred and projected onto their principal directions; a rotation then brings the projections near to -1 and +1.
The rotation is found by turns: the signs that are nearest to the rotated projections, and the rotation that brings the
projections nearest to these signs (an orthogonal Procrustes problem).

Deviation: where the features span fewer directions than there are bits, random ones are added, all orthogonal, so that a few
pictures are enough to begin with. Not one of METHODS: nothing is trained by steps.
"""

from typing import NamedTuple

import numpy as np

from adsq_jax import codes
from adsq_jax.errors import InputError

SWEEPS = 50  # as in the paper
_LEAST_SHARE = 1e-9  # of the variance: a direction with less is rounding


class Projection(NamedTuple):
    """A linear map from features to relaxed codes, `features @ kernel + bias`."""

    kernel: np.ndarray  # float32[n, bits], orthonormal columns
    bias: np.ndarray  # float32[bits]


def fit(features: np.ndarray, *, bits: int, seed: int, sweeps: int = SWEEPS) -> Projection:
    """Fit ITQ to features; the same arguments give the same projection.

    Args:
      features: of a sample of pictures, float[m, n], m at least 2.
      bits: the code length, 1 to n.
      seed: seed of the first rotation, and of directions that the features don't span.
      sweeps: how many times signs and rotation are found in turn.

    Returns:
      The projection; hash codes are the signs of its values.

    Raises:
      InputError: the code length is above n, there are fewer than two pictures, all have the same features, or a feature isn't
        finite.

    Source: Gong and Lazebnik, CVPR 2011, section 2; random directions: this project.
    """
    count, width = features.shape
    if not 1 <= bits <= width:
        raise InputError(f"expected 1 to {width} bits, the number of features, got {bits}; fix: give fewer bits")
    if not np.isfinite(features).all():
        raise InputError("the network computes no numbers for a picture; fix: give other weights")
    if count < 2 or (features == features[0]).all():
        raise InputError(f"expected at least two pictures that differ, got {count}; fix: give more pictures")
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean  # [m, n], float64
    random = np.random.default_rng([seed, width, bits])
    directions = _directions(centred, bits, random)  # [n, bits]
    rotation = _rotation(centred @ directions, random, sweeps=sweeps)  # [bits, bits]
    kernel = directions @ rotation
    return Projection(kernel.astype(np.float32), (-mean @ kernel).astype(np.float32))


def _directions(centred: np.ndarray, bits: int, random: np.random.Generator) -> np.ndarray:
    """Return the principal directions, by descending variance, then random ones: orthonormal, float64[n, bits]."""
    variances, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    variances, vectors = variances[::-1][:bits], vectors[:, ::-1][:, :bits]
    spanned = vectors[:, variances > _LEAST_SHARE * variances.sum()]
    # An eigenvector's opposite is one, too: the same sign on every machine.
    spanned = spanned * np.sign(spanned[np.abs(spanned).argmax(axis=0), np.arange(spanned.shape[1])])
    drawn = random.normal(size=(len(vectors), bits - spanned.shape[1]))
    drawn -= spanned @ (spanned.T @ drawn)
    return np.concatenate([spanned, np.linalg.qr(drawn)[0]], axis=1)


def _rotation(projected: np.ndarray, random: np.random.Generator, *, sweeps: int) -> np.ndarray:
    """Return the orthogonal matrix R that lowers |B - V R|, B = sgn(V R), float64[bits, bits]."""
    rotation = np.linalg.qr(random.normal(size=(projected.shape[1],) * 2))[0]
    for _ in range(sweeps):
        left, _, right = np.linalg.svd(projected.T @ codes.signs(projected @ rotation))
        rotation = left @ right
    return rotation
