"""What the classifying baselines share: a linear classifier, its loss, and the hash centres that stand in for one."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def classifier(key: jax.Array, bits: int, classes: int) -> dict[str, jax.Array]:
    """A linear classifier over codes.

    Args:
      key: of JAX.
      bits: the code length.
      classes: c.

    Returns:
      kernel float32[bits, c], LeCun's initial values, and bias float32[c] of 0.
    """
    return {
        "kernel": jax.nn.initializers.lecun_normal()(key, (bits, classes), jnp.float32),
        "bias": jnp.zeros(classes, jnp.float32),
    }


def logits(parameters: Any, codes: jax.Array) -> jax.Array:
    """The classifier's logits, float32[batch, c], of codes float32[batch, bits]."""
    return codes @ parameters["kernel"] + parameters["bias"][None, :]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy, with a label's share of its image's labels as the target; an image without any counts 0.

    Args:
      logits: float32[batch, c].
      labels: multi-hot float32[batch, c].

    Returns:
      float32[], the mean over the batch.

    Source: for several labels Mahajan et al., ECCV 2018; with one label the usual one.
    """
    target = labels / jnp.maximum(labels.sum(axis=1, keepdims=True), 1.0)
    return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits, axis=1), axis=1))


@cache
def _drawn(rows: int, bits: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, rows, bits]).choice(np.array([-1, 1], np.float32), (rows, bits))


@cache
def _hadamard(classes: int, bits: int) -> np.ndarray:
    rows = np.ones((1, 1), np.float32)
    while len(rows) < bits:
        rows = np.block([[rows, rows], [rows, -rows]])
    return np.concatenate([rows, -rows])[:classes]


def coins(rows: int, bits: int, *, seed: int) -> jax.Array:
    """Fair coins, float32[rows, bits] in {-1, +1}, the same ones for the same seed and shape."""
    return jnp.asarray(_drawn(rows, bits, seed))


def centres(classes: int, bits: int, *, seed: int) -> jax.Array:
    """Hash centres, one a class: rows of a Hadamard matrix and their opposites; else fair coins, as near as they fall.

    Args:
      classes: c.
      bits: the code length; Hadamard's if it is a power of 2, and the classes are at most twice as many.
      seed: of the coins.

    Returns:
      float32[c, bits] in {-1, +1}.

    Source: CSQ, Yuan et al., CVPR 2020, algorithm 1; taken over by OrthoHash, Hoe et al., NeurIPS 2021.
    """
    if bits & (bits - 1) == 0 and classes <= 2 * bits:
        return jnp.asarray(_hadamard(classes, bits))
    return coins(classes, bits, seed=seed)
