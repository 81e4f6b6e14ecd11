"""DSEH: Li, Li, Deng, Liu and Gao, Deep Joint Semantic-Embedding Hashing, IJCAI 2018, equations 8 to 14.

LabelNet is trained first, without ADSQ's difference and balance terms. Then one ImgNet is trained by the pair likelihood of its
semantic features against LabelNet's, and by the cross-entropy of each bit with LabelNet's hash codes as targets.

Deviations: semantic features are compared by scaled cosines, as in ADSQ, since inner products grow with the features' length;
similar pairs have half of the total weight (the paper counts them five times, with one label); the two networks are trained
once each, not in turns; u in [-1, 1] stands for 2 sigmoid - 1.
"""

from functools import partial

import jax.numpy as jnp

from adsq_jax import codes as hash_codes
from adsq_jax.errors import InputError
from adsq_jax.methods.method import LossInputs, Method
from adsq_jax.methods.objective import Terms, guidance_loss

SETTINGS = {"semantic": 1.0, "codes": 1.0, "cosine_scale": 10.0}  # weights of the two terms; scale of the logits
TUNING_GRID = ({"semantic": 0.1}, {"semantic": 1.0})


def loss(inputs: LossInputs, *, semantic: float = 1.0, codes: float = 1.0, cosine_scale: float = 10.0) -> Terms:
    """Return the terms of equation 12, means over pairs, images and bits."""
    label_net, u = inputs.guidance, inputs.relaxed_codes
    if label_net is None:
        raise InputError("expected LabelNet's outputs, got guidance=None; fix: pass guidance, or train with label_net=True")
    signs = hash_codes.signs(jnp.asarray(label_net.codes))[inputs.label_set]  # [batch, bits]
    return {
        "semantic": semantic
        * guidance_loss(
            inputs.semantic, label_net, similar=inputs.similar_sets, statistics=inputs.statistics, cosine_scale=cosine_scale
        ),
        "codes": -codes * jnp.mean(jnp.log(jnp.maximum((1 + u * signs) / 2, 1e-6))),
    }


def method(*, semantic: float, codes: float, cosine_scale: float) -> Method:
    """Return DSEH."""
    return Method(
        loss=partial(loss, semantic=semantic, codes=codes, cosine_scale=cosine_scale),
        label_net=True,
        # quantization: the paper sums the term that beta weighs, which is a mean here
        label_net_weights={"difference": 0.0, "balance": 0.0, "quantization": 0.25},
    )
