"""DHD: Jang, Gu, Ko, Kang and Cho, Deep Hash Distillation for Image Retrieval, ECCV 2022.

u = tanh(LayerNorm(W x)) of two views of each image, T and S. Cross-entropy of a softmax over cos(u_T, P_c) / tau, where the
proxy P_c of each class c is learned; self-distillation 1 - cos(u_S, u_T), where u_T is constant; and binary cross-entropies of
the likelihoods e^(-(u_T - 1)^2 / 2 s^2) and e^(-(u_T + 1)^2 / 2 s^2) to sgn(u_T). Weights of the last two: lambda 1 and 2.

Formulas and settings are those of the authors' code (github.com/youngkyunJang/Deep-Hash-Distillation).
Deviations:
- Both views are drawn from the same augmentation, the data set's (`data.crop_padding`, `data.flip`, `data.erase`). In the paper
  S has strong changes of colour, blur and crops, and T has them less often. So u_S is nearer to u_T here: distillation teaches
  less, and nothing about colour. Without augmentation both views are the same and it teaches nothing; a frozen trunk needs
  `data.feature_views` of at least 2.
- Both views go through the network as one batch, and BatchNorm averages over both; in the authors' code one follows the other.
- The layer before LayerNorm has a bias, and its inputs are this project's semantic features.
"""

from functools import partial

import jax
import jax.numpy as jnp

from adsq_jax.errors import InputError
from adsq_jax.methods.classification import cross_entropy
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, consistency_loss, scaled_cosines

SETTINGS = {"temperature": 0.2, "distillation": 0.1, "quantization": 0.1, "deviation": 0.5}  # tau; lambda 1 and 2; s
TUNING_GRID = ({"distillation": 0.1}, {"distillation": 1.0})


def proxies(key: jax.Array, bits: int, classes: int) -> dict[str, jax.Array]:
    """Return the initial proxies, float32[c, bits], drawn by Glorot's rule and multiplied by 5/3, as in the authors' code."""
    return {"proxies": 5 / 3 * jax.nn.initializers.glorot_uniform()(key, (classes, bits), jnp.float32)}


def bit_cross_entropy(u: jax.Array, *, deviation: float) -> jax.Array:
    """Return -log of the likelihood at the nearer of +1 and -1, and -log(1 - the other), float32[], the mean over u."""
    nearer, other = (0.5 * ((jnp.abs(u) - center) / deviation) ** 2 for center in (1, -1))  # -log of the likelihoods
    return jnp.mean(nearer - jnp.log1p(-jnp.exp(-other)))


def loss(
    inputs: LossInputs,
    *,
    temperature: float = 0.2,
    distillation: float = 0.1,
    quantization: float = 0.1,
    deviation: float = 0.5,
) -> Terms:
    """Return the three terms times their weights; without the second view's codes, raise InputError."""
    u, second = inputs.relaxed_codes, inputs.second_view
    if second is None or inputs.parameters is None:
        lacking = "second_view" if second is None else "parameters"
        raise InputError(f"expected a second view's codes and the proxies, got {lacking}=None; fix: pass {lacking}")
    return {
        "classification": cross_entropy(scaled_cosines(u, inputs.parameters["proxies"], scale=1 / temperature), inputs.labels),
        "distillation": distillation * consistency_loss(second, u),
        "quantization": quantization * bit_cross_entropy(u, deviation=deviation),
    }


def method(*, temperature: float, distillation: float, quantization: float, deviation: float) -> Method:
    """Return DHD."""
    terms = partial(loss, temperature=temperature, distillation=distillation, quantization=quantization, deviation=deviation)
    return Method(loss=terms, head="layer_norm", second_view=True, parameters=proxies)
