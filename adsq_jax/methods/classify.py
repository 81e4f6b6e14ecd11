"""Plain classification; the hash code is the signs of the classifier's input. A hashing method should do better than this.

Source: this project; Sablayrolles et al., ICASSP 2017, explain why supervised hashing should be compared with it.
"""

from functools import partial

from adsq_jax.methods.classification import classifier, cross_entropy, logits
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms

SETTINGS = {"smoothing": 0.0}  # the part of the target that is spread evenly over all classes
TUNING_GRID = ({"smoothing": 0.0}, {"smoothing": 0.1})


def loss(inputs: LossInputs, *, smoothing: float = 0.0) -> Terms:
    """Return the softmax cross-entropy of a linear classifier of relaxed codes in [-1, 1]."""
    scores, labels = logits(inputs.parameters, inputs.relaxed_codes), inputs.labels
    target = (1 - smoothing) * labels / labels.sum(axis=1, keepdims=True).clip(1) + smoothing / labels.shape[1]
    return {"classification": cross_entropy(scores, target)}


def method(*, smoothing: float) -> Method:
    """Return plain classification."""
    return Method(loss=partial(loss, smoothing=smoothing), parameters=classifier)
