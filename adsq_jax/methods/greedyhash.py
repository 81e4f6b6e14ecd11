"""GreedyHash: Su, Zhang, Han and Tian, Greedy Hash: Towards Fast Optimization for Accurate Hash Coding in CNN, NeurIPS 2018.

Classification of sgn(z), whose gradient is passed to z unchanged, and a penalty on ||z| - 1|^3: equations 9 to 11 and section
3.3. Deviations: several labels are equal parts of the softmax's target; the classifier has a bias.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax import codes
from adsq_jax.methods.classification import classifier, cross_entropy, logits
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, straight_through

SETTINGS = {"alpha": 0.1}  # weight of the penalty
TUNING_GRID = ({"alpha": 0.01}, {"alpha": 0.1})


def loss(inputs: LossInputs, *, alpha: float = 0.1) -> Terms:
    """Return the cross-entropy of the signs, and the penalty, a mean over images and bits."""
    z = inputs.relaxed_codes
    signs = straight_through(z, codes.signs(z))
    return {
        "classification": cross_entropy(logits(inputs.parameters, signs), inputs.labels),
        "penalty": alpha * jnp.mean(jnp.abs(jnp.abs(z) - 1) ** 3),
    }


def method(*, alpha: float) -> Method:
    """Return GreedyHash."""
    return Method(loss=partial(loss, alpha=alpha), head="linear", parameters=classifier)
