"""Hash centers: a fixed hash code for each class, which an image's code should come near."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np


def random_signs(rows: int, bits: int, *, seed: int) -> jax.Array:
    """Return random signs, float32[rows, bits] in {-1, +1}; the same seed and shape give the same ones."""
    return jnp.asarray(_drawn(rows, bits, seed))


def hash_centers(classes: int, bits: int, *, seed: int) -> jax.Array:
    """Return a hash center for each class: rows of a Hadamard matrix and their negatives, or else random signs.

    Args:
      classes: c.
      bits: the code length; Hadamard's rows are used if it is a power of 2 and c is at most twice as many.
      seed: seed for the random signs.

    Returns:
      float32[c, bits] in {-1, +1}.

    Source: CSQ, Yuan et al., CVPR 2020, algorithm 1; OrthoHash, Hoe et al., NeurIPS 2021, uses it too.
    """
    if bits & (bits - 1) == 0 and classes <= 2 * bits:
        return jnp.asarray(_hadamard(classes, bits))
    return random_signs(classes, bits, seed=seed)


@cache
def _drawn(rows: int, bits: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, rows, bits]).choice(np.array([-1, 1], np.float32), (rows, bits))


@cache
def _hadamard(classes: int, bits: int) -> np.ndarray:
    rows = np.ones((1, 1), np.float32)
    while len(rows) < bits:
        rows = np.block([[rows, rows], [rows, -rows]])
    return np.concatenate([rows, -rows])[:classes]
