"""DSH: Liu, Wang, Shan and Chen, Deep Supervised Hashing for Fast Image Retrieval, CVPR 2016, equations 2 to 5.

Contrastive loss of real-valued codes within a batch: similar pairs are drawn together, dissimilar ones pushed apart up to a
margin, and |u| is drawn to 1. Deviations: distances are divided by the bits, so that the paper's margin of 2 K is 2 here.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, similarity

SETTINGS = {"margin": 2.0, "alpha": 0.01}  # the paper's m, divided by K; weight of the quantization
TUNING_GRID = ({"alpha": 0.01}, {"alpha": 0.1})


def loss(inputs: LossInputs, *, margin: float = 2.0, alpha: float = 0.01) -> Terms:
    """Return the terms of equation 5, means over all pairs of the batch and over bits."""
    u = inputs.relaxed_codes
    similar = similarity(inputs.labels, inputs.labels)
    square = jnp.sum(u**2, axis=1)
    distances = (square[:, None] + square[None, :] - 2 * u @ u.T) / u.shape[1]  # |u_i - u_j|^2 / K
    return {
        "similar": 0.5 * jnp.mean(jnp.where(similar, distances, 0.0)),
        "dissimilar": 0.5 * jnp.mean(jnp.where(similar, 0.0, jnp.maximum(margin - distances, 0.0))),
        "quantization": 2 * alpha * jnp.mean(jnp.abs(jnp.abs(u) - 1)),  # both images of a pair
    }


def method(*, margin: float, alpha: float) -> Method:
    """Return DSH."""
    return Method(loss=partial(loss, margin=margin, alpha=alpha), head="linear")
