"""DPSH: Li, Wang and Kang, Feature Learning based Deep Supervised Hashing with Pairwise Labels, IJCAI 2016, equation 4.

Pair likelihood with the logits u_i . u_j / 2, and |sgn(u) - u|^2, on codes that are not bounded. Deviations: means over pairs
and bits, where the paper has sums, so that eta is another number (the authors' 10 for 5,000 images and 24 bits is .05); pairs
within a batch: against the stored codes of the whole training set, as the authors' code has it, all codes became one with this
optimiser, since most pairs are dissimilar and each batch flees what the last ones have left. Similar and dissimilar pairs weigh
the same in sum, as in HashNet and ADSQ; the paper counts all pairs alike (`weighted`=0), and with ten classes codes of several
then become one.
"""

from functools import partial

import jax
import jax.numpy as jnp

from adsq_jax import codes
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, likelihood_loss, pair_weights, quantization_loss, similarity

SETTINGS = {"eta": 0.1, "weighted": 1.0}  # weight of the quantization; whether pairs are weighted
TUNING_GRID = ({"eta": 0.05}, {"eta": 0.2})


def batch_likelihood(inputs: LossInputs, *, scale: float, weighted: float) -> jax.Array:
    """The likelihood of all pairs of a batch, with the logits scale u_i . u_j: float32[], the mean over the pairs."""
    similar = similarity(inputs.labels, inputs.labels)
    weights = pair_weights(similar, statistics=inputs.statistics) if weighted else jnp.float32(1)
    return likelihood_loss(scale * inputs.relaxed_codes @ inputs.relaxed_codes.T, similar, weights=weights / similar.size)


def loss(inputs: LossInputs, *, eta: float = SETTINGS["eta"], weighted: float = SETTINGS["weighted"]) -> Terms:
    """Equation 4."""
    u = inputs.relaxed_codes
    return {
        "likelihood": batch_likelihood(inputs, scale=0.5, weighted=weighted),
        "quantization": eta * quantization_loss(u - codes.signs(u)),
    }


def method(*, eta: float, weighted: float) -> Method:
    """DPSH; its codes are not bounded."""
    return Method(loss=partial(loss, eta=eta, weighted=weighted), bounded=False)
