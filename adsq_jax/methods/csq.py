"""CSQ: Yuan et al., Central Similarity Quantization for Efficient Image and Video Retrieval, CVPR 2020, equations 2 to 6.

Each class has a hash center. Each bit of an image is classified, by itself, towards its class's center; with several labels,
towards the majority of their centers, where a random sign decides ties. The quantization loss is log cosh(|u| - 1).

Elsewhere: the authors' code and DeepHash-pytorch have (|u| - 1)^2 for log cosh; the authors' code adds a pair loss that the
paper lacks.
Deviations: where no matrix of Sylvester's has enough rows, centers are as far apart as in `hash_centers.py`, where the paper
draws random signs; a bit's sign for ties is drawn once, not for each image; u in [-1, 1] stands for the paper's (1 + u) / 2.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax.methods.dhn import log_cosh
from adsq_jax.methods.hash_centers import majority_centers
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms

SETTINGS = {"central": 1.0, "quantization": 1e-4}  # weights of the two terms; the second is lambda
TUNING_GRID = ({"quantization": 1e-4}, {"quantization": 0.1})


def loss(inputs: LossInputs, *, central: float = 1.0, quantization: float = 1e-4) -> Terms:
    """Return the terms of equation 6."""
    u = inputs.relaxed_codes
    agreement = u * majority_centers(inputs.labels, u.shape[1], seed=inputs.seed)  # 1 where a bit equals its center's
    return {
        "central": -central * jnp.mean(jnp.log(jnp.maximum((1 + agreement) / 2, 1e-6))),
        "quantization": quantization * jnp.mean(log_cosh(jnp.abs(u) - 1)),
    }


def method(*, central: float, quantization: float) -> Method:
    """Return CSQ."""
    return Method(loss=partial(loss, central=central, quantization=quantization))
