"""HashNet: Cao, Long, Wang and Yu, HashNet: Deep Learning to Hash by Continuation, ICCV 2017, equations 1 to 6.

Weighted pair likelihood within a batch of tanh(beta z), with a beta that grows from stage to stage; here a stage is a round.

Deviations: beta^2 grows linearly with the share of finished rounds, from 1 to `last_beta`^2; the released code does so by
iterations, and ends at about 7. Similar and dissimilar pairs are counted over the training set, as in the paper (the released
code counts the batch's). alpha is a number divided by K, as in the released code. Dissimilar pairs get c_ij = 1. The
paper's formula (intersection over union) gives 0, which would remove them.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, likelihood_loss, pair_weights, similarity

SETTINGS = {"scale": 10.0, "last_beta": 7.0}  # alpha K; beta after the last round
TUNING_GRID = ({"scale": 5.0}, {"scale": 10.0})


def loss(inputs: LossInputs, *, scale: float = 10.0, last_beta: float = 7.0) -> Terms:
    """Return the term of equation 4; c_ij of equation 2 is the labels' intersection over union."""
    z, labels = inputs.relaxed_codes, inputs.labels
    h = jnp.tanh(jnp.sqrt(1 + (last_beta**2 - 1) * inputs.progress) * z)
    similar = similarity(labels, labels)
    intersection = labels @ labels.T
    union = labels.sum(axis=1)[:, None] + labels.sum(axis=1)[None, :] - intersection
    overlap = jnp.where(similar, intersection / jnp.maximum(union, 1.0), 1.0)
    weights = overlap * pair_weights(similar, statistics=inputs.statistics) / similar.size
    return {"likelihood": likelihood_loss(scale / z.shape[1] * h @ h.T, similar, weights=weights)}


def method(*, scale: float, last_beta: float) -> Method:
    """Return HashNet; its loss applies tanh itself."""
    return Method(loss=partial(loss, scale=scale, last_beta=last_beta), head="linear")
