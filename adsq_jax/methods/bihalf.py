"""Supervised Bi-half: Li and van Gemert, Deep Unsupervised Image Hashing by Maximizing Bit Entropy, AAAI 2021, equation 7.

In each bit, the half of the batch with the greater u gets b = +1 and the other half -1, the optimal transport of u to a bit
that is +1 as often as -1. A linear classifier of b is trained. Its gradient passes to u unchanged, plus gamma (u - b) / (N K),
for N images and K bits; here that is the gradient of a loss term, gamma / 2 times the mean of (u - b)^2.

The paper's loss needs no labels; classification of b, and with it the name, is that of CISiP's FIRe (bihalf-supervised.yaml).
FIRe compares u with the median, which gives other bits only where several images have the same u; its gamma is the authors' 6.
Outside training the bits are the signs of u, in FIRe too. Deviation: several labels are equal parts of the softmax's target.
"""

from functools import partial

import jax
import jax.numpy as jnp

from adsq_jax.methods.classification import classifier, cross_entropy, logits
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, quantization_loss, straight_through

SETTINGS = {"gamma": 6.0}  # weight of (u - b) / (N K) in the gradient
TUNING_GRID = ({"gamma": 2.0}, {"gamma": 6.0})


def half_signs(u: jax.Array) -> jax.Array:
    """Return +1 for the floor(batch / 2) greatest numbers of each column and -1 for the others, float32[batch, bits].

    Equal numbers count as greater the earlier they stand in the batch.
    """
    ranks = jnp.argsort(jnp.argsort(-u, axis=0), axis=0)  # 0: the greatest
    return jnp.where(ranks < len(u) // 2, jnp.float32(1), jnp.float32(-1))


def loss(inputs: LossInputs, *, gamma: float = 6.0) -> Terms:
    """Return the cross-entropy of the halves' signs, and the term whose gradient is gamma (u - b) / (N K)."""
    u = inputs.relaxed_codes
    b = half_signs(jax.lax.stop_gradient(u))
    return {
        "classification": cross_entropy(logits(inputs.parameters, straight_through(u, b)), inputs.labels),
        "quantization": gamma / 2 * quantization_loss(u - b),
    }


def method(*, gamma: float) -> Method:
    """Return supervised Bi-half."""
    return Method(loss=partial(loss, gamma=gamma), head="linear", parameters=classifier)
