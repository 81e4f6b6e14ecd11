"""DPSH: Li, Wang and Kang, Feature Learning based Deep Supervised Hashing with Pairwise Labels, IJCAI 2016, equation 4.

Pair likelihood with the logits u_i . u_j / 2, and |sgn(u) - u|^2, on codes that are not bounded. Deviations: means over pairs
and bits, where the paper has sums, so that eta is another number (the authors' 10 for 5,000 images and 24 bits is .05); pairs
within a batch: against the stored codes of the whole training set, as the authors' code has it, all codes became one with this
optimiser, since most pairs are dissimilar and each batch flees what the last ones have left.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax.method import Method, Seen
from adsq_jax.objective import Terms, likelihood_loss, quantization_loss, similarity

SETTINGS = {"eta": 0.1}  # weight of the quantization
TRIED = ({"eta": 0.01}, {"eta": 0.1})


def loss(seen: Seen, *, eta: float) -> Terms:
    """Equation 4."""
    u = seen.relaxed_codes
    similar = similarity(seen.labels, seen.labels)
    return {
        "likelihood": likelihood_loss(u @ u.T / 2, similar, weights=jnp.float32(1 / similar.size)),
        "quantization": eta * quantization_loss(u - jnp.where(u < 0, -1.0, 1.0)),
    }


def method(*, eta: float) -> Method:
    """DPSH; its codes are not bounded."""
    return Method(loss=partial(loss, eta=eta), bounded=False)
