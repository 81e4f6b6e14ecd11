"""Plain classification, and the signs of what the classifier looks at: what a hashing method has to be better than.

Source: this project; Sablayrolles et al., ICASSP 2017, say why it belongs beside supervised hashing.
"""

from functools import partial

from adsq_jax.methods.classification import classifier, cross_entropy, logits
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms

SETTINGS = {"smoothing": 0.0}  # share of the target that all classes have alike
TUNING_GRID = ({"smoothing": 0.0}, {"smoothing": 0.1})


def loss(inputs: LossInputs, *, smoothing: float = SETTINGS["smoothing"]) -> Terms:
    """Softmax cross-entropy of a linear classifier on codes through tanh."""
    scores, labels = logits(inputs.parameters, inputs.relaxed_codes), inputs.labels
    target = (1 - smoothing) * labels / labels.sum(axis=1, keepdims=True).clip(1) + smoothing / labels.shape[1]
    return {"classification": cross_entropy(scores, target)}


def method(*, smoothing: float) -> Method:
    """Classification."""
    return Method(loss=partial(loss, smoothing=smoothing), parameters=classifier)
