"""HashNet: Cao, Long, Wang and Yu, HashNet: Deep Learning to Hash by Continuation, ICCV 2017, equations 1 to 6.

Weighted pair likelihood within a batch, on tanh(beta z) with a beta that grows from stage to stage; a stage is a round here.
Deviations: beta goes by the share of the rounds that are done, as the root of a line from 1 to its last value, which is how the
released code has it by iterations (its last is about 7); similar and dissimilar pairs are counted over the training set, as in
the paper (the released code counts the batch's); alpha is a number over K, as in the released code; of dissimilar pairs, whose
labels' intersection over union is 0, c_ij is 1, since they would count nothing.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, likelihood_loss, pair_weights, similarity

SETTINGS = {"scale": 10.0, "last_beta": 7.0}  # alpha K of the sigmoid; beta after the last round
TUNING_GRID = ({"scale": 5.0}, {"scale": 10.0})


def loss(inputs: LossInputs, *, scale: float = SETTINGS["scale"], last_beta: float = SETTINGS["last_beta"]) -> Terms:
    """Equation 4; c_ij of equation 2 is the labels' intersection over their union."""
    z, labels = inputs.relaxed_codes, inputs.labels
    h = jnp.tanh(jnp.sqrt(1 + (last_beta**2 - 1) * inputs.progress) * z)
    similar = similarity(labels, labels)
    shared = labels @ labels.T
    either = labels.sum(axis=1)[:, None] + labels.sum(axis=1)[None, :] - shared
    overlap = jnp.where(similar, shared / jnp.maximum(either, 1.0), 1.0)
    weights = overlap * pair_weights(similar, statistics=inputs.statistics) / similar.size
    return {"likelihood": likelihood_loss(scale / z.shape[1] * h @ h.T, similar, weights=weights)}


def method(*, scale: float, last_beta: float) -> Method:
    """HashNet; the loss itself bounds the codes."""
    return Method(loss=partial(loss, scale=scale, last_beta=last_beta), bounded=False)
