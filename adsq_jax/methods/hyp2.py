"""HyP2: Xu, Chai, Xu, Yuan, Fan and Wang, HyP^2 Loss: Beyond Hypersphere Metric Space for Multi-label Image Retrieval, MM 2022.

Each class c has a learned proxy P_c. Mean over images and their own labels of 1 - cos(u, P_c), mean over images and the other
labels of [cos(u, P_c) - z]+, and beta times the mean over dissimilar pairs of images of several labels of [cos(u_i, u_j) - z]+.
z = 1 - 2 d / K, d the best smallest distance of a linear code of length K with 2^ceil(log2 c) words. As in the authors' code.

Deviations: d is what `hash_centers.py` reaches, not a table's: the same for up to 128 classes at 8, 12, 16, 24, 32, 36, 48 and
64 bits. One optimiser for network and proxies, where `proxy_rate` stands for a learning rate of their own.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp

from adsq_jax.methods.hash_centers import hash_centers, linear_code, smallest_distance
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, scaled_cosines, similarity

SETTINGS = {"beta": 0.5, "proxy_rate": 1.0}  # weight of pairs; learning rate of proxies over the network's, with Adam
TUNING_GRID = ({"proxy_rate": 1.0}, {"proxy_rate": 10.0})


def loss(inputs: LossInputs, *, beta: float = 0.5) -> Terms:
    """Return the terms of the hybrid loss; a mean over nothing is 0."""
    u, is_own = inputs.relaxed_codes, inputs.labels > 0  # [batch, bits], [batch, c]
    threshold = _threshold(u.shape[1], inputs.labels.shape[1])
    to_proxies = scaled_cosines(u, inputs.parameters["proxies"], scale=1.0)  # [batch, c]
    to_images = scaled_cosines(u, u, scale=1.0)  # [batch, batch]
    has_several = jnp.sum(inputs.labels, axis=1) > 1
    unlike = has_several[:, None] & has_several[None, :] & ~similarity(inputs.labels, inputs.labels)
    return {
        "own": _mean(1 - to_proxies, is_own),
        "others": _mean(jax.nn.relu(to_proxies - threshold), ~is_own),
        "pairs": beta * _mean(jax.nn.relu(to_images - threshold), unlike),
    }


def proxies(key: jax.Array, bits: int, classes: int, *, proxy_rate: float) -> dict[str, jax.Array]:
    """Return the initial proxies, float32[c, bits], drawn by He's rule over c and divided by `proxy_rate`.

    Only their directions count, and a step of Adam is as long as the learning rate: shorter proxies turn that much faster.
    """
    drawn = jax.random.normal(key, (classes, bits), jnp.float32) * (2 / classes) ** 0.5
    return {"proxies": drawn / proxy_rate}


def method(*, beta: float, proxy_rate: float) -> Method:
    """Return HyP2."""
    return Method(loss=partial(loss, beta=beta), head="linear", parameters=partial(proxies, proxy_rate=proxy_rate))


@cache
def _threshold(bits: int, classes: int) -> float:
    """Return z; of two kinds of code with enough words, the better one's."""
    dimension = max(1, (classes - 1).bit_length())
    with jax.ensure_compile_time_eval():  # numbers, also where the loss is being traced
        codes = (linear_code(dimension, bits, seed=0), hash_centers(2**dimension, bits, seed=0))
        return 1 - 2 * max(smallest_distance(code) for code in codes) / bits


def _mean(values: jax.Array, where: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(where, values, 0.0)) / jnp.maximum(jnp.sum(where.astype(jnp.float32)), 1.0)
