"""The trunk's features of an image, compressed to a few bytes for an index, and compared by cosine."""

from functools import cache

import numpy as np

from adsq_jax.errors import InputError

DIMS = 160  # bytes an image; measured by benchmarks/methods/unlabelled.py
_SEED = 5_261  # of the projection; another one would make features that can't be compared with those of earlier indexes


def compress(features: np.ndarray, *, dims: int = DIMS) -> np.ndarray:
    """Compress features so that their cosines stay nearly the same: random projection, then 8 bits a number.

    The projection is the same for all images, models and machines, so that nothing has to be fitted or kept. Each image is
    scaled so that its largest number becomes 127, since a cosine doesn't depend on lengths.

    Args:
      features: float32[n, width].
      dims: numbers of an image, at least 1; a cosine's error is about 1 / sqrt(dims).

    Returns:
      int8[n, dims], from -127 to 127; all 0 where the features are.

    Raises:
      InputError: a feature isn't finite.

    Source: random signs as projection, Achlioptas, Journal of Computer and System Sciences 66, 2003; scaling: this project.
    """
    projected = features.astype(np.float32) @ _signs(features.shape[1], dims)  # [n, dims]
    if not np.isfinite(projected).all():
        raise InputError("the model computes no numbers for an image; fix: restore the model, or train again")
    largest = np.abs(projected).max(axis=1, keepdims=True, initial=0)
    return np.rint(127 * projected / np.where(largest > 0, largest, 1)).astype(np.int8)


def cosines(query: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the cosines of a query's features with those of items.

    Args:
      query: int8[dims], from `compress`.
      items: int8[m, dims].

    Returns:
      float32[m], -1 to 1; 0 where the features of one are all 0.

    Source: this project.
    """
    a, b = query.astype(np.float32), items.astype(np.float32)
    lengths = np.linalg.norm(a) * np.linalg.norm(b, axis=1)  # [m]
    return (b @ a) / np.where(lengths > 0, lengths, 1)


def paired_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of the first with the same row of the second, int8[n, dims] each, as float32[n]."""
    a, b = first.astype(np.float32), second.astype(np.float32)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)  # [n]
    return (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)


@cache
def _signs(width: int, dims: int) -> np.ndarray:
    """Return random signs, float32[width, dims]; NumPy promises that the raw numbers of PCG64 stay the same for ever."""
    count = width * dims
    raw = np.random.PCG64(_SEED).random_raw(-(-count // 64)).astype("<u8")
    bits = np.unpackbits(raw.view(np.uint8), bitorder="little")[:count].reshape(width, dims)
    return 2 * bits.astype(np.float32) - 1
