"""ADSQ as a method: the terms that its ImgNets minimise, and its B-step.

The abstract of ADSQ (arXiv 1903.12493) fixes the networks; the objective is this project's reconstruction.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from adsq_jax.errors import InputError
from adsq_jax.methods import b_step, objective
from adsq_jax.methods.method import LossInputs, Method

HEADS = ("tanh", "layer_norm")  # of those in models/img_net.py: its terms need relaxed codes in [-1, 1]
SETTINGS: dict[str, Any] = {  # config.objective starts from these
    "label_net": True,  # False: no LabelNet and no guidance; hash codes start from the ImgNets
    "twin": True,  # False: one ImgNet, compared with its own bank
    "difference": True,  # False: no difference loss anywhere, as in DSEH
    "update_codes": True,  # False: hash codes stay as LabelNet left them
    "separate": False,  # True: LabelNet's hash codes are moved apart before the ImgNets start
    "head": "tanh",  # or "layer_norm": the hash layer's outputs are first normalised over an image's bits
    "likelihood_scale": 5.0,  # t: the logits of pairs are (t / bits) u . v
    "neighbour_scale": 10.0,  # t of the neighbours' likelihood, at most 30
    "cosine_scale": 10.0,  # s: the logits of the guidance are s cos(a, a')
    "code_scale": 10.0,  # the logit of two equal hash codes in the guidance by codes
    "weights": {
        "likelihood": 1.0,  # of pairs of images
        "neighbours": 0.0,  # a softmax over the other network's bank
        "code_guidance": 0.0,  # a softmax over LabelNet's hash codes
        "guidance": 0.3,  # eta, by LabelNet's semantic features
        "difference": 1.0,  # mu, in the loss and in the B-step
        "quantization": 0.1,  # lambda, in the loss and in the B-step
        "bit_likelihood": 0.0,  # kappa, in the loss and in the B-step
        "balance": 0.1,  # nu
        "consistency": 0.0,  # above 0: batches have two views of each image
        "label_codes": 0.1,  # rho, in the B-step only
    },
}
BY_NEIGHBOURS: dict[str, Any] = {  # heads on a frozen trunk, several labels an image or many classes
    "separate": False,
    "head": "layer_norm",
    "weights": {
        "likelihood": 0.0,
        "neighbours": 0.5,
        "code_guidance": 0.0,
        "guidance": 0.1,
        "difference": 1.0,
        "quantization": 0.03,
        "bit_likelihood": 0.0,
        "balance": 0.1,
        "consistency": 3.0,
        "label_codes": 0.0,
    },
}
BY_CODES: dict[str, Any] = {  # heads on a frozen trunk, few classes, one an image
    "separate": True,
    "head": "tanh",
    "weights": {
        "likelihood": 0.0,
        "neighbours": 0.0,
        "code_guidance": 0.5,
        "guidance": 0.1,
        "difference": 1.0,
        "quantization": 0.0,
        "bit_likelihood": 1.0,
        "balance": 0.1,
        "consistency": 0.0,
        "label_codes": 1.0,
    },
}
TUNING_GRID = (BY_NEIGHBOURS, BY_CODES)


def loss(
    inputs: LossInputs,
    *,
    likelihood_scale: float = SETTINGS["likelihood_scale"],
    neighbour_scale: float = SETTINGS["neighbour_scale"],
    cosine_scale: float = SETTINGS["cosine_scale"],
    code_scale: float = SETTINGS["code_scale"],
    weights: Mapping[str, float] = SETTINGS["weights"],
) -> objective.Terms:
    """Return the terms of an ImgNet.

    Args:
      inputs: with a twin, the bank is the other network's.
      likelihood_scale: t; the pairs' likelihood has the logits (t / bits) u . v.
      neighbour_scale: the same for the neighbours' likelihood, at most 30.
      cosine_scale: s; the logits of the guidance by features are s cos(a, a').
      code_scale: the logit of two equal hash codes in the guidance by codes.
      weights: the weight of each term.

    Returns:
      likelihood and neighbours (against the bank), difference, quantization and bit_likelihood (against the hash codes),
      balance; with a second view, consistency; with LabelNet, code_guidance and guidance. Each times its weight, float32[],
      without those of weight 0.

    Raises:
      InputError: consistency has a weight, and there is no second view; or a term has no weight.

    Source: this project's reconstruction; `objective` names the source of each term.
    """
    if weights.get("consistency") and inputs.second_view is None:
        raise InputError(
            "expected a second view's codes, got second_view=None; fix: pass second_view, or weights whose consistency is 0"
        )
    terms = _terms_of_codes(inputs, likelihood_scale=likelihood_scale, neighbour_scale=neighbour_scale)
    if inputs.guidance is not None:
        terms["code_guidance"] = objective.code_guidance_loss(
            inputs.relaxed_codes, inputs.guidance, similar=inputs.batch_similar_sets, scale=code_scale
        )
        terms["guidance"] = objective.guidance_loss(
            inputs.semantic,
            inputs.guidance,
            similar=inputs.similar_sets,
            statistics=inputs.statistics,
            cosine_scale=cosine_scale,
        )
    return objective.weighted(terms, weights)


def _terms_of_codes(inputs: LossInputs, *, likelihood_scale: float, neighbour_scale: float) -> objective.Terms:
    """Return the terms of the relaxed codes alone, without LabelNet's guidance."""
    u = inputs.relaxed_codes
    bits = u.shape[1]
    products = u @ inputs.bank.T / bits  # [batch, n]
    terms = {
        "likelihood": objective.likelihood_loss(
            likelihood_scale * products,
            inputs.similar,
            weights=inputs.row_weights * objective.pair_weights(inputs.similar, statistics=inputs.statistics),
        ),
        "neighbours": objective.neighbour_loss(
            neighbour_scale * products,
            inputs.similar,
            row_weights=inputs.row_weights,
            bound=neighbour_scale,
            sum_over_devices=inputs.sum_over_devices,
        ),
        "difference": objective.difference_loss(
            u @ inputs.bank_codes.T / bits,
            objective.signed_similarity(inputs.similar, ratio=inputs.statistics.ratio),
            weights=inputs.row_weights,
        ),
        "quantization": inputs.n_devices * objective.quantization_loss(inputs.errors),
        "bit_likelihood": inputs.n_devices * objective.bit_likelihood_loss(inputs.errors),
        "balance": objective.balance_loss(u.mean(axis=0)),
    }
    if inputs.second_view is not None:
        terms["consistency"] = objective.consistency_loss(inputs.second_view, u)
    return terms


def method(
    *,
    label_net: bool,
    twin: bool,
    difference: bool,
    update_codes: bool,
    separate: bool,
    head: str,
    likelihood_scale: float,
    neighbour_scale: float,
    cosine_scale: float,
    code_scale: float,
    weights: Mapping[str, float],
) -> Method:
    """Return ADSQ, or an ablation of it.

    Args:
      label_net: train LabelNet first, and use its guidance.
      twin: train two ImgNets, not one.
      difference: use the difference loss, in the ImgNets and in the B-step.
      update_codes: run the B-step after each round.
      separate: move LabelNet's hash codes apart; without LabelNet, nothing.
      head: one of HEADS, how the hash layer's outputs become relaxed codes.
      likelihood_scale: as in `loss`.
      neighbour_scale: as in `loss`.
      cosine_scale: as in `loss`.
      code_scale: as in `loss`.
      weights: of the terms of `loss`; and label_codes, in the B-step.

    Raises:
      InputError: head isn't one of HEADS.
    """
    if head not in HEADS:
        raise InputError(f"expected adsq's head as one of {', '.join(HEADS)}, got {head!r}; fix: give one of these")
    used = dict(weights) if difference else {**weights, "difference": 0.0}
    terms = partial(
        loss,
        likelihood_scale=likelihood_scale,
        neighbour_scale=neighbour_scale,
        cosine_scale=cosine_scale,
        code_scale=code_scale,
        weights=used,
    )
    step: Any = partial(
        b_step.update_codes,
        difference_weight=used["difference"],
        quantization_weight=used["quantization"],
        bit_likelihood_weight=used["bit_likelihood"],
        label_code_weight=used["label_codes"],
    )
    return Method(
        loss=terms,
        update_codes=step,
        every_round=update_codes,
        twin=twin,
        label_net=label_net,
        separate=separate and label_net,
        head=head,
        second_view=used["consistency"] > 0,
    )
