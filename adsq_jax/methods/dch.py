"""DCH: Cao, Long, Liu and Wang, Deep Cauchy Hashing for Hamming Space Retrieval, CVPR 2018, equations 6 to 9.

Weighted Cauchy cross-entropy of d_ij = K / 2 (1 - cos(u_i, u_j)) within a batch, and the Cauchy quantization loss between |u|
and a vector of ones.

Deviations: an image isn't paired with itself, though means are over all pairs. Distances are at least K / 200, since their
logarithm has no lower bound: nearer pairs have no gradient. DeepHash-pytorch clips the cosine at 0.99, which is the same.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, pair_weights, scaled_cosines, similarity

SETTINGS = {"gamma": 10.0, "quantization": 0.1}  # scale of the Cauchy distribution, in bits; lambda
TUNING_GRID = ({"gamma": 5.0}, {"gamma": 20.0})


def loss(inputs: LossInputs, *, gamma: float = 10.0, quantization: float = 0.1) -> Terms:
    """Return the terms of equation 9."""
    u, half = inputs.relaxed_codes, inputs.relaxed_codes.shape[1] / 2
    similar = similarity(inputs.labels, inputs.labels)
    distances = half * jnp.maximum(1 - scaled_cosines(u, u, scale=1.0), 0.01)
    pairs = jnp.where(similar, jnp.log(distances / gamma), 0.0) + jnp.log1p(gamma / distances)
    not_itself = 1 - jnp.eye(len(u), dtype=jnp.float32)
    weights = not_itself * pair_weights(similar, statistics=inputs.statistics) / similar.size
    to_corner = half * (1 - scaled_cosines(jnp.abs(u), jnp.ones_like(u[:1]), scale=1.0))  # [batch, 1]
    return {"pairs": jnp.sum(weights * pairs), "quantization": quantization * jnp.mean(jnp.log1p(to_corner / gamma))}


def method(*, gamma: float, quantization: float) -> Method:
    """Return DCH."""
    return Method(loss=partial(loss, gamma=gamma, quantization=quantization))
