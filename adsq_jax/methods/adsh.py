"""ADSH: Jiang and Li, Asymmetric Deep Supervised Hashing, AAAI 2018, equations 1 to 3 and section 3.2.

Codes of the training set are learned as such, bit by bit, and the network's relaxed codes are held against them by the
difference loss. Deviations: the database whose codes are learned is the training set, since the others' labels are not to be
known; so a database image's code is the network's. The authors' released code has -r for the paper's -1 as the similarity of
dissimilar pairs, r the similar over the dissimilar pairs: both are here (`balanced`). Means over pairs and bits.
"""

from functools import partial
from typing import Any

from adsq_jax.methods import b_step
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, difference_loss, quantization_loss, signed_similarity

SETTINGS = {"quantization": 0.01, "balanced": 1.0}  # gamma (the paper's 200 is .002); whether -r is for -1
TUNING_GRID = ({"quantization": 0.002}, {"quantization": 0.01})


def loss(
    inputs: LossInputs, *, quantization: float = SETTINGS["quantization"], balanced: float = SETTINGS["balanced"]
) -> Terms:
    """Equation 2."""
    u = inputs.relaxed_codes
    target = signed_similarity(inputs.similar, ratio=inputs.statistics.ratio if balanced else 1.0)
    return {
        "difference": difference_loss(u @ inputs.bank_codes.T / u.shape[1], target, weights=inputs.row_weights),
        "quantization": quantization * inputs.n_devices * quantization_loss(inputs.errors),
    }


def update_codes(*arrays: Any, quantization: float, balanced: float, ratio: float, **known: Any) -> b_step.CodesUpdate:
    """The discrete step of equation 9, to its fixed point, over one network or more."""
    return b_step.update_codes(
        *arrays,
        ratio=ratio if balanced else 1.0,
        difference_weight=1.0,
        quantization_weight=quantization,
        bit_likelihood_weight=0.0,
        label_code_weight=0.0,
        **known,
    )


def method(*, quantization: float, balanced: float) -> Method:
    """ADSH."""
    return Method(
        loss=partial(loss, quantization=quantization, balanced=balanced),
        update_codes=partial(update_codes, quantization=quantization, balanced=balanced),
    )
