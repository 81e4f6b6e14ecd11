"""The linear classifier that several methods train with the network, and its loss."""

from typing import Any

import jax
import jax.numpy as jnp

from adsq_jax.errors import InputError


def classifier(key: jax.Array, bits: int, classes: int) -> dict[str, jax.Array]:
    """Return the initial parameters of a linear classifier of codes.

    Args:
      key: a JAX random key.
      bits: the code length.
      classes: c.

    Returns:
      kernel float32[bits, c], drawn by LeCun's rule, and bias float32[c] of 0.
    """
    return {
        "kernel": jax.nn.initializers.lecun_normal()(key, (bits, classes), jnp.float32),
        "bias": jnp.zeros(classes, jnp.float32),
    }


def logits(parameters: Any, codes: jax.Array) -> jax.Array:
    """Return the classifier's logits, float32[batch, c], of codes float32[batch, bits]."""
    if parameters is None:
        raise InputError("expected parameters of a classifier, got None; fix: pass method.parameters(key, bits, classes)")
    return codes @ parameters["kernel"] + parameters["bias"][None, :]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the softmax cross-entropy with an image's labels as equal parts of the target; without labels it is 0.

    Args:
      logits: float32[batch, c].
      labels: multi-hot float32[batch, c].

    Returns:
      float32[], the mean over the batch.

    Source: for several labels Mahajan et al., ECCV 2018; with one label the usual one.
    """
    target = labels / jnp.maximum(labels.sum(axis=1, keepdims=True), 1.0)
    return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits, axis=1), axis=1))
