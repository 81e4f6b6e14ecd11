"""ADSQ as a method: which terms of the objective its ImgNets minimise, and its B-step.

The abstract of ADSQ (arXiv 1903.12493) fixes the networks; what is added up here is this project's reconstruction (README).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from adsq_jax.methods import b_step, objective
from adsq_jax.methods.method import LossInputs, Method


def loss(
    seen: LossInputs, *, likelihood_scale: float, neighbour_scale: float, cosine_scale: float, weights: Mapping[str, float]
) -> objective.Terms:
    """The objective of an ImgNet.

    Args:
      seen: what a step sees; the bank is the other network's.
      likelihood_scale: t of the pairs' likelihood.
      neighbour_scale: t of the neighbours' likelihood.
      cosine_scale: s.
      weights: of the terms.

    Returns:
      likelihood and neighbours (one network against the other), difference, quantization and bit_likelihood (against the hash
      codes), balance and, with LabelNet, guidance; each times its weight, float32[], without those of weight 0.

    Source: this project's reconstruction; each term names its own.
    """
    bits = seen.relaxed_codes.shape[1]
    products = seen.relaxed_codes @ seen.bank.T / bits  # [batch, n]
    terms = {
        "likelihood": objective.likelihood_loss(
            likelihood_scale * products,
            seen.similar,
            weights=seen.shares * objective.pair_weights(seen.similar, statistics=seen.statistics),
        ),
        "neighbours": objective.neighbour_loss(
            neighbour_scale * products, seen.similar, shares=seen.shares, bound=neighbour_scale, total=seen.total
        ),
        "difference": objective.difference_loss(
            seen.relaxed_codes @ seen.bank_codes.T / bits,
            objective.signed_similarity(seen.similar, ratio=seen.statistics.ratio),
            weights=seen.shares,
        ),
        "quantization": seen.devices * objective.quantization_loss(seen.errors),
        "bit_likelihood": seen.devices * objective.bit_likelihood_loss(seen.errors),
        "balance": objective.balance_loss(seen.relaxed_codes.mean(axis=0)),
    }
    if seen.guidance is not None:
        terms["guidance"] = objective.guidance_loss(
            seen.semantic,
            seen.guidance,
            similar=seen.similar_sets,
            statistics=seen.statistics,
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
    """ADSQ, or an ablation of it.

    Args:
      label_net: whether there is a LabelNet.
      twin: whether there are two ImgNets.
      difference: whether there is a difference loss, in the ImgNets and in the B-step.
      update_codes: whether the B-step renews the codes after each round.
      likelihood_scale: t of the pairs' likelihood.
      neighbour_scale: t of the neighbours' likelihood.
      cosine_scale: s.
      weights: likelihood, neighbours, guidance, difference, quantization, bit_likelihood, balance; label_codes of the B-step.

    Returns:
      The method.
    """
    used: dict[str, float] = {**weights, **({} if difference else {"difference": 0.0})}
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
