"""DHN: Zhu, Long, Wang and Cao, Deep Hashing Network for Efficient Similarity Retrieval, AAAI 2016, equations 4 to 6.

Pair likelihood with the logits u_i . u_j within a batch, and log cosh(|u| - 1) of both images of a pair, on codes through tanh.
Deviations: means over pairs and bits, where the paper has sums; pairs are weighted as in `dpsh.py`, which the paper doesn't do
(`weighted`=0), and the authors' later code does. DeepHash-pytorch halves the logits and has no tanh.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax.methods.dpsh import batch_likelihood
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms

SETTINGS = {"quantization": 0.1, "weighted": 1.0}  # lambda; as of DPSH
TUNING_GRID = ({"quantization": 0.1}, {"quantization": 0.3})


def log_cosh(x: jnp.ndarray) -> jnp.ndarray:
    """log cosh(x), without an overflow."""
    return jnp.logaddexp(x, -x) - jnp.log(2.0)


def loss(
    inputs: LossInputs, *, quantization: float = SETTINGS["quantization"], weighted: float = SETTINGS["weighted"]
) -> Terms:
    """Equation 6."""
    return {
        "likelihood": batch_likelihood(inputs, scale=1.0, weighted=weighted),
        "quantization": 2 * quantization * jnp.mean(log_cosh(jnp.abs(inputs.relaxed_codes) - 1)),
    }


def method(*, quantization: float, weighted: float) -> Method:
    """DHN."""
    return Method(loss=partial(loss, quantization=quantization, weighted=weighted))
