"""DSDH: Li, Sun, He and Tan, Deep Supervised Discrete Hashing, NIPS 2017, equations 5 to 13.

Pair likelihood with logits u_i . u_j / 2; hash codes b from which a linear classifier W predicts the labels; and |u - b|^2
between the two. After each round W is fitted by ridge regression, then the codes bit by bit. DeepHash-pytorch leaves out
|u - b|^2, the only link between network and codes; it is here, as in the paper.

Deviations: means over pairs and bits in the loss, where the paper has sums (its eta of 55 for 5,000 images and 24 bits is
0.26); pairs within a batch and weighted, as in `dpsh.py` and for the same reasons; codes are updated after a round, as in ADSH,
where the authors' code does it in each step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from adsq_jax.methods import b_step
from adsq_jax.methods.dpsh import batch_likelihood
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, quantization_loss

SETTINGS = {"mu": 1.0, "nu": 0.1, "eta": 0.1, "weighted": 1.0}  # weights of regression, ridge, |u - b|^2; as in DPSH
TUNING_GRID = ({"eta": 0.1}, {"eta": 0.3})


def loss(inputs: LossInputs, *, eta: float = 0.1, weighted: float = 1.0) -> Terms:
    """Return the network's terms of equation 7."""
    return {
        "likelihood": batch_likelihood(inputs, scale=0.5, weighted=weighted),
        "quantization": eta * inputs.n_devices * quantization_loss(inputs.errors),
    }


def update_codes(
    codes: np.ndarray,
    relaxed_codes: list[np.ndarray],
    *,
    label_sets: np.ndarray,
    set_index: np.ndarray,
    size: int,
    sum_over_processes: Callable[[Any], np.ndarray],
    mu: float,
    nu: float,
    eta: float,
    **unused: Any,
) -> b_step.CodesUpdate:
    """Minimise mu |Y - B W|^2 + nu |W|^2 + eta n / K |B - U|^2 over W, then over B."""
    bits = codes.shape[1]
    labels, b = label_sets.astype(np.float64)[set_index], codes.astype(np.float64)
    w, *_ = np.linalg.lstsq(
        mu * sum_over_processes(b.T @ b) + nu * np.eye(bits), mu * sum_over_processes(b.T @ labels)
    )  # [bits, c]
    pull = eta * size / bits * np.asarray(relaxed_codes[0], np.float64)
    return b_step.descend(
        codes,
        mu * labels @ w.T + pull,
        quadratic=mu * w @ w.T,
        pull=pull,
        scale=size,
        size=size,
        sum_over_processes=sum_over_processes,
    )


def method(*, mu: float, nu: float, eta: float, weighted: float) -> Method:
    """Return DSDH."""
    return Method(
        loss=partial(loss, eta=eta, weighted=weighted),
        head="linear",
        update_codes=partial(update_codes, mu=mu, nu=nu, eta=eta),
    )
