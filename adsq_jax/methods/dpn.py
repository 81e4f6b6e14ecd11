"""DPN: Fan et al., Deep Polarized Network for Supervised Learning of Accurate Binary Hashing Codes, IJCAI 2020.

Each class has a target t in {-1, +1}^K. The polarization loss is [m - u_k t_k]+, bit by bit, on codes without bounds: 0 once a
bit is on its target's side by the margin m. Settings and the penalty on u^2 are those of public code of the authors' group
(CISiP's FIRe: m = 1; 0.1 times a mean, beside a sum over bits).

Deviations: all is divided by K, so that the loss is a mean; targets are separated hash centers, where the paper draws them or
takes the classes' means in turn; with several labels the target is the majority of their centers, as in DeepHash-pytorch, where
FIRe adds up the losses of all labels; codes aren't made ternary.
"""

from functools import partial

import jax
import jax.numpy as jnp

from adsq_jax.methods.hash_centers import majority_centers
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms

SETTINGS = {"polarization_margin": 1.0, "decay": 0.1}  # m; weight of the mean of u^2, beside the sum over bits
TUNING_GRID = ({"polarization_margin": 1.0}, {"polarization_margin": 2.0})


def loss(inputs: LossInputs, *, polarization_margin: float = 1.0, decay: float = 0.1) -> Terms:
    """Return the polarization loss and the penalty, means over images and bits."""
    u = inputs.relaxed_codes
    targets = majority_centers(inputs.labels, u.shape[1], seed=inputs.seed)  # [batch, bits]
    return {
        "polarization": jnp.mean(jax.nn.relu(polarization_margin - u * targets)),
        "decay": decay / u.shape[1] * jnp.mean(u**2),
    }


def method(*, polarization_margin: float, decay: float) -> Method:
    """Return DPN."""
    return Method(loss=partial(loss, polarization_margin=polarization_margin, decay=decay), head="linear")
