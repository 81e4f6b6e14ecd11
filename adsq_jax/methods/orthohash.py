"""OrthoHash: Hoe et al., One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective, NeurIPS 2021.

Softmax over scaled cosines between codes and the classes' hash centres, with a margin on the right ones (equations 5 to 7);
several labels share the target. Deviations: no batch normalisation before the sign, since the nets are the same for all.
"""

from functools import partial

from adsq_jax.methods.classification import centres, cross_entropy
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, scaled_cosines

SETTINGS = {"scale": 8.0, "margin": 0.2}  # s, m
TUNING_GRID = ({"scale": 8.0}, {"scale": 16.0})


def loss(inputs: LossInputs, *, scale: float = SETTINGS["scale"], margin: float = SETTINGS["margin"]) -> Terms:
    """Equation 7."""
    u, labels = inputs.relaxed_codes, inputs.labels
    cosines = scaled_cosines(u, centres(labels.shape[1], u.shape[1], seed=inputs.seed), scale=scale)
    return {"classification": cross_entropy(cosines - scale * margin * labels, labels)}


def method(*, scale: float, margin: float) -> Method:
    """OrthoHash; its codes are not bounded."""
    return Method(loss=partial(loss, scale=scale, margin=margin), bounded=False)
