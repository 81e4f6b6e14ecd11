"""ADSH: Jiang and Li, Asymmetric Deep Supervised Hashing, AAAI 2018, equations 1 to 3, and 9 of section 3.2.

The hash codes of the training set are learned directly, bit by bit; the difference loss compares the network's relaxed codes
with them.

Deviations: ADSH learns the codes of the whole database; here it learns those of the training set, since labels of other images
must stay unknown, and a database image gets the network's code. For dissimilar pairs the paper has a similarity of -1, and the
authors' released code -r; `balanced` selects between the two; r = similar / dissimilar pairs. Means over pairs and bits.
"""

from functools import partial
from typing import Any

from adsq_jax.methods import b_step
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, difference_loss, quantization_loss, signed_similarity

SETTINGS = {"quantization": 0.01, "balanced": 1.0}  # gamma (the paper's 200 is 0.002 here); 1: -r for dissimilar pairs, 0: -1
TUNING_GRID = ({"quantization": 0.002}, {"quantization": 0.01})


def loss(inputs: LossInputs, *, quantization: float = 0.01, balanced: float = 1.0) -> Terms:
    """Return the terms of equation 2."""
    u = inputs.relaxed_codes
    target = signed_similarity(inputs.similar, ratio=inputs.statistics.ratio if balanced else 1.0)
    return {
        "difference": difference_loss(u @ inputs.bank_codes.T / u.shape[1], target, weights=inputs.row_weights),
        "quantization": quantization * inputs.n_devices * quantization_loss(inputs.errors),
    }


def update_codes(*arrays: Any, quantization: float, balanced: float, ratio: float, **others: Any) -> b_step.CodesUpdate:
    """Run the discrete step of equation 9, for one or more networks."""
    return b_step.update_codes(
        *arrays,
        ratio=ratio if balanced else 1.0,
        difference_weight=1.0,
        quantization_weight=quantization,
        bit_likelihood_weight=0.0,
        label_code_weight=0.0,
        **others,
    )


def method(*, quantization: float, balanced: float) -> Method:
    """Return ADSH."""
    return Method(
        loss=partial(loss, quantization=quantization, balanced=balanced),
        update_codes=partial(update_codes, quantization=quantization, balanced=balanced),
    )
