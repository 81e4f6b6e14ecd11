"""DHN: Zhu, Long, Wang and Cao, Deep Hashing Network for Efficient Similarity Retrieval, AAAI 2016, equations 4 to 6.

Pair likelihood with logits u_i . u_j within a batch, and log cosh(|u| - 1) of both images of a pair; u in [-1, 1] by tanh.

Deviations: means over pairs and bits, where the paper has sums. Pairs are weighted as in `dpsh.py`; the paper doesn't
(`weighted`=0), the authors' later code does. DeepHash-pytorch halves the logits and has no tanh.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax.methods.dpsh import batch_likelihood
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms

SETTINGS = {"quantization": 0.1, "weighted": 1.0}  # lambda; as in DPSH
TUNING_GRID = ({"quantization": 0.1}, {"quantization": 0.3})


def log_cosh(x: jnp.ndarray) -> jnp.ndarray:
    """Return log cosh(x), without overflow."""
    return jnp.logaddexp(x, -x) - jnp.log(2.0)


def loss(inputs: LossInputs, *, quantization: float = 0.1, weighted: float = 1.0) -> Terms:
    """Return the terms of equation 6."""
    return {
        "likelihood": batch_likelihood(inputs, scale=1.0, weighted=weighted),
        "quantization": 2 * quantization * jnp.mean(log_cosh(jnp.abs(inputs.relaxed_codes) - 1)),
    }


def method(*, quantization: float, weighted: float) -> Method:
    """Return DHN."""
    return Method(loss=partial(loss, quantization=quantization, weighted=weighted))
