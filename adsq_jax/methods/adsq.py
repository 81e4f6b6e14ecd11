"""ADSQ as a method: the terms that its ImgNets minimise, and its B-step.

The abstract of ADSQ (arXiv 1903.12493) fixes the networks; the objective is this project's reconstruction (README).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from adsq_jax.methods import b_step, objective
from adsq_jax.methods.method import LossInputs, Method

SETTINGS: dict[str, Any] = {  # config.py says what each is
    "label_net": True,
    "twin": True,
    "difference": True,
    "update_codes": True,
    "likelihood_scale": 5.0,
    "neighbour_scale": 10.0,
    "cosine_scale": 10.0,
    "weights": {
        "likelihood": 1.0,
        "neighbours": 0.0,
        "guidance": 0.3,
        "difference": 1.0,
        "quantization": 0.1,
        "bit_likelihood": 0.0,
        "balance": 0.1,
        "label_codes": 0.1,
    },
}
TUNING_GRID = (  # a softmax over the neighbours; or each pair alone, and each bit's likelihood under LabelNet's codes
    {"weights": {"likelihood": 0.0, "neighbours": 0.5, "guidance": 0.1, "quantization": 0.03, "label_codes": 0.0}},
    {"weights": {"likelihood": 0.1, "guidance": 0.1, "quantization": 0.0, "bit_likelihood": 1.0, "label_codes": 1.0}},
)


def loss(
    inputs: LossInputs,
    *,
    likelihood_scale: float = SETTINGS["likelihood_scale"],
    neighbour_scale: float = SETTINGS["neighbour_scale"],
    cosine_scale: float = SETTINGS["cosine_scale"],
    weights: Mapping[str, float] = SETTINGS["weights"],
) -> objective.Terms:
    """Return the terms of an ImgNet.

    Args:
      inputs: with a twin, the bank is the other network's.
      likelihood_scale: t; the pairs' likelihood has the logits (t / bits) u . v.
      neighbour_scale: the same for the neighbours' likelihood, at most 30.
      cosine_scale: s; the guidance's logits are s cos(a, a').
      weights: the weight of each term.

    Returns:
      likelihood and neighbours (against the bank), difference, quantization and bit_likelihood (against the hash codes),
      balance and, with LabelNet, guidance; each times its weight, float32[], without those of weight 0.

    Source: this project's reconstruction; `objective` names the source of each term.
    """
    bits = inputs.relaxed_codes.shape[1]
    products = inputs.relaxed_codes @ inputs.bank.T / bits  # [batch, n]
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
            inputs.relaxed_codes @ inputs.bank_codes.T / bits,
            objective.signed_similarity(inputs.similar, ratio=inputs.statistics.ratio),
            weights=inputs.row_weights,
        ),
        "quantization": inputs.n_devices * objective.quantization_loss(inputs.errors),
        "bit_likelihood": inputs.n_devices * objective.bit_likelihood_loss(inputs.errors),
        "balance": objective.balance_loss(inputs.relaxed_codes.mean(axis=0)),
    }
    if inputs.guidance is not None:
        terms["guidance"] = objective.guidance_loss(
            inputs.semantic,
            inputs.guidance,
            similar=inputs.similar_sets,
            statistics=inputs.statistics,
            cosine_scale=cosine_scale,
        )
    return objective.weighted(terms, weights)


def method(
    *,
    label_net: bool,
    twin: bool,
    difference: bool,
    update_codes: bool,
    likelihood_scale: float,
    neighbour_scale: float,
    cosine_scale: float,
    weights: Mapping[str, float],
) -> Method:
    """Return ADSQ, or an ablation of it.

    Args:
      label_net: train LabelNet first, and use its guidance.
      twin: train two ImgNets, not one.
      difference: use the difference loss, in the ImgNets and in the B-step.
      update_codes: run the B-step after each round.
      likelihood_scale: as in `loss`.
      neighbour_scale: as in `loss`.
      cosine_scale: as in `loss`.
      weights: likelihood, neighbours, guidance, difference, quantization, bit_likelihood, balance; label_codes in the B-step.
    """
    used = dict(weights) if difference else {**weights, "difference": 0.0}
    terms = partial(
        loss,
        likelihood_scale=likelihood_scale,
        neighbour_scale=neighbour_scale,
        cosine_scale=cosine_scale,
        weights=used,
    )
    step: Any = partial(
        b_step.update_codes,
        difference_weight=used["difference"],
        quantization_weight=used["quantization"],
        bit_likelihood_weight=used["bit_likelihood"],
        label_code_weight=used["label_codes"],
    )
    return Method(loss=terms, update_codes=step, every_round=update_codes, twin=twin, label_net=label_net)
