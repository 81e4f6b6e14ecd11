"""DHN: Zhu, Long, Wang and Cao, Deep Hashing Network for Efficient Similarity Retrieval, AAAI 2016, equations 4 to 6.

Pair likelihood with the logits u_i . u_j within a batch, and log cosh(|u| - 1) of both images of a pair, on codes through tanh.
Deviations: means over pairs and bits, where the paper has sums. DeepHash-pytorch halves the logits and has no tanh.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax.method import Method, Seen
from adsq_jax.objective import Terms, likelihood_loss, similarity

SETTINGS = {"quantization": 0.1}  # lambda
TRIED = ({"quantization": 0.01}, {"quantization": 0.1})


def log_cosh(x: jnp.ndarray) -> jnp.ndarray:
    """log cosh(x), without an overflow."""
    return jnp.logaddexp(x, -x) - jnp.log(2.0)


def loss(seen: Seen, *, quantization: float) -> Terms:
    """Equation 6."""
    u = seen.relaxed_codes
    similar = similarity(seen.labels, seen.labels)
    return {
        "likelihood": likelihood_loss(u @ u.T, similar, weights=jnp.float32(1 / similar.size)),
        "quantization": 2 * quantization * jnp.mean(log_cosh(jnp.abs(u) - 1)),
    }


def method(*, quantization: float) -> Method:
    """DHN."""
    return Method(loss=partial(loss, quantization=quantization))
