"""OrthoHash: Hoe et al., One Loss for All: Deep Hashing with a Single Cosine Similarity based Learning Objective, NeurIPS 2021.

Softmax over scaled cosines between codes and the classes' hash centers, with a margin for an image's own classes: equations 5
to 7. Deviations: several labels are equal parts of the target; no batch normalisation before the sign, since all methods have
the same networks.
"""

from functools import partial

from adsq_jax.methods.classification import cross_entropy
from adsq_jax.methods.hash_centers import hash_centers
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, scaled_cosines

SETTINGS = {"scale": 8.0, "margin": 0.2}  # s, m
TUNING_GRID = ({"scale": 8.0}, {"scale": 16.0})


def loss(inputs: LossInputs, *, scale: float = 8.0, margin: float = 0.2) -> Terms:
    """Return the term of equation 7."""
    u, labels = inputs.relaxed_codes, inputs.labels
    cosines = scaled_cosines(u, hash_centers(labels.shape[1], u.shape[1], seed=inputs.seed), scale=scale)
    return {"classification": cross_entropy(cosines - scale * margin * labels, labels)}


def method(*, scale: float, margin: float) -> Method:
    """Return OrthoHash."""
    return Method(loss=partial(loss, scale=scale, margin=margin), head="linear")
