"""CSQ: Yuan et al., Central Similarity Quantization for Efficient Image and Video Retrieval, CVPR 2020, equations 2 to 6.

Each class has a hash centre, and the bits of an image are classified, each for itself, towards its own; with several labels
towards the majority of their centres, where a tie goes to a coin. Quantization is log cosh(|u| - 1).
The authors' code and DeepHash-pytorch have (|u| - 1)^2 for log cosh; the first adds a pair loss, which the paper doesn't have.
Where Hadamard's matrix has no centres both draw coins until centres are far apart; the paper takes them as they fall.
Deviations: a bit's coin is thrown once, and not for each image; u in [-1, 1] stands for the paper's (1 + u) / 2.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax.methods.classification import centres, coins
from adsq_jax.methods.dhn import log_cosh
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms

SETTINGS = {"central": 1.0, "quantization": 1e-4}  # weights of the two terms; lambda is the second
TUNING_GRID = ({"quantization": 1e-4}, {"quantization": 0.1})


def loss(inputs: LossInputs, *, central: float = SETTINGS["central"], quantization: float = SETTINGS["quantization"]) -> Terms:
    """Equation 6."""
    u, labels = inputs.relaxed_codes, inputs.labels
    votes = labels @ centres(labels.shape[1], u.shape[1], seed=inputs.seed)  # [batch, bits]
    votes = jnp.where(votes == 0, coins(1, u.shape[1], seed=inputs.seed + 1), votes)
    agreement = jnp.where(votes > 0, u, -u)  # 1 where a bit is its centre's
    return {
        "central": -central * jnp.mean(jnp.log(jnp.maximum((1 + agreement) / 2, 1e-6))),
        "quantization": quantization * jnp.mean(log_cosh(jnp.abs(u) - 1)),
    }


def method(*, central: float, quantization: float) -> Method:
    """CSQ."""
    return Method(loss=partial(loss, central=central, quantization=quantization))
