"""DPSH: Li, Wang and Kang, Feature Learning based Deep Supervised Hashing with Pairwise Labels, IJCAI 2016, equation 4.

Pair likelihood with logits u_i . u_j / 2, and |sgn(u) - u|^2; u isn't bounded.

Deviations:
- Means over pairs and bits, where the paper has sums: the authors' eta of 10 for 5,000 images and 24 bits is 0.05 here.
- Pairs within a batch. The authors' code compares with the stored codes of the whole training set. With this project's
  optimiser all codes then became the same: most pairs are dissimilar, and each batch moves away from the previous ones.
- Similar and dissimilar pairs have the same total weight, as in HashNet and ADSQ. The paper weights all pairs alike
  (`weighted`=0); with ten classes, several classes then got the same code.
"""

from functools import partial

import jax
import jax.numpy as jnp

from adsq_jax import codes
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, likelihood_loss, pair_weights, quantization_loss, similarity

SETTINGS = {"eta": 0.1, "weighted": 1.0}  # weight of the quantization; 1: weight pairs, 0: don't
TUNING_GRID = ({"eta": 0.05}, {"eta": 0.2})


def batch_likelihood(inputs: LossInputs, *, scale: float, weighted: float) -> jax.Array:
    """Return the negative log-likelihood of a batch's pairs with logits scale u_i . u_j: float32[], the mean over pairs."""
    similar = similarity(inputs.labels, inputs.labels)
    weights = pair_weights(similar, statistics=inputs.statistics) if weighted else jnp.float32(1)
    return likelihood_loss(scale * inputs.relaxed_codes @ inputs.relaxed_codes.T, similar, weights=weights / similar.size)


def loss(inputs: LossInputs, *, eta: float = 0.1, weighted: float = 1.0) -> Terms:
    """Return the terms of equation 4."""
    u = inputs.relaxed_codes
    return {
        "likelihood": batch_likelihood(inputs, scale=0.5, weighted=weighted),
        "quantization": eta * quantization_loss(u - codes.signs(u)),
    }


def method(*, eta: float, weighted: float) -> Method:
    """Return DPSH."""
    return Method(loss=partial(loss, eta=eta, weighted=weighted), head="linear")
