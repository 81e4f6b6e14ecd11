"""DADH: Li, Li, Zhang, Xue and Zhang, Dual Asymmetric Deep Hashing Learning, arXiv 1801.08360, section 3.

Two networks and learned hash codes: the pair likelihood of one network against the other, the difference loss of each against
the codes, quantization and bit balance. The codes are updated from both networks, bit by bit. An image's code is the sign of
the sum of both networks' relaxed codes.

Deviations: means over pairs and bits, where the paper has sums; dissimilar pairs may have -r in place of -1, as in `adsh.py`.
Neither the paper nor any code of it was at hand: equations and weights are from descriptions of it elsewhere.
"""

from functools import partial

from adsq_jax.methods.adsh import update_codes
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import (
    Terms,
    balance_loss,
    difference_loss,
    likelihood_loss,
    quantization_loss,
    signed_similarity,
)

SETTINGS = {"likelihood": 0.01, "quantization": 0.01, "balance": 0.1, "balanced": 1.0}  # tau, gamma, eta; as in ADSH
TUNING_GRID = ({"quantization": 0.01}, {"quantization": 0.1})


def loss(
    inputs: LossInputs, *, likelihood: float = 0.01, quantization: float = 0.01, balance: float = 0.1, balanced: float = 1.0
) -> Terms:
    """Return the terms of one network while the other's relaxed codes are fixed."""
    u, bits = inputs.relaxed_codes, inputs.relaxed_codes.shape[1]
    target = signed_similarity(inputs.similar, ratio=inputs.statistics.ratio if balanced else 1.0)
    return {
        "difference": difference_loss(u @ inputs.bank_codes.T / bits, target, weights=inputs.row_weights),
        "likelihood": likelihood * likelihood_loss(u @ inputs.bank.T / 2, inputs.similar, weights=inputs.row_weights),
        "quantization": quantization * inputs.n_devices * quantization_loss(inputs.errors),
        "balance": balance * balance_loss(u.mean(axis=0)),
    }


def method(*, likelihood: float, quantization: float, balance: float, balanced: float) -> Method:
    """Return DADH."""
    return Method(
        loss=partial(loss, likelihood=likelihood, quantization=quantization, balance=balance, balanced=balanced),
        update_codes=partial(update_codes, quantization=quantization, balanced=balanced),
        twin=True,
    )
