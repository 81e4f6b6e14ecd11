"""One update of LabelNet, and one of an ImgNet: pure functions from state and batch to state and metrics."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from adsq_jax import objective
from adsq_jax.train_state import ImgNetState, LabelNetState, Targets

Metrics = dict[str, jax.Array]


def label_net_step(
    state: LabelNetState,
    sets: jax.Array,
    frequencies: jax.Array,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    statistics: objective.PairStatistics,
    cosine_scale: float,
    weights: Mapping[str, float],
) -> tuple[LabelNetState, Metrics]:
    """Updates LabelNet on all pairs of label sets at once; the same on every device, since it is small.

    Args:
      state: LabelNet.
      sets: distinct label vectors, uint8[m, c].
      frequencies: share of the training set with each, float32[m].
      model: the LabelNet module.
      optimizer: optax.
      statistics: of the training set's pairs.
      cosine_scale: s.
      weights: of each of `objective.label_net_terms`.

    Returns:
      The new state; each loss term, their weighted sum `loss`, and `grad_norm`: float32[].
    """

    def loss_function(params: Any) -> tuple[jax.Array, Metrics]:
        semantic, relaxed_codes, label_logits = model.apply({"params": params}, sets)
        terms = objective.label_net_terms(
            semantic,
            relaxed_codes,
            label_logits,
            sets=sets,
            frequencies=frequencies,
            statistics=statistics,
            cosine_scale=cosine_scale,
        )
        return objective.weighted_sum(terms, weights), terms

    (loss, terms), grads = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics = {**terms, "loss": loss, "grad_norm": optax.tree.norm(grads)}
    return LabelNetState(params=optax.apply_updates(state.params, updates), opt_state=opt_state), metrics


def img_net_step(
    state: ImgNetState,
    targets: Targets,
    batch: Mapping[str, jax.Array],
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    statistics: objective.PairStatistics,
    likelihood_scale: float,
    cosine_scale: float,
    weights: Mapping[str, float],
    axis_name: str,
) -> tuple[ImgNetState, Metrics]:
    """Updates one ImgNet on a batch against the whole training set. Runs once per device, under a mapped axis.

    Args:
      state: the ImgNet, the same on every device.
      targets: the same on every device.
      batch: this device's share: inputs uint8[batch, h, w, 3], or float32[batch, width] of a frozen trunk; index int[batch]
        (rows in the training set, none twice).
      model: the ImgNet module.
      optimizer: optax.
      statistics: of the training set's pairs.
      likelihood_scale: t.
      cosine_scale: s.
      weights: of each of `objective.img_net_terms`.
      axis_name: of the devices.

    Returns:
      The new state; without a twin, with the batch's rows of the bank renewed. The metrics, averaged over the devices. Both
      are the same on every device.
    """
    key, dropout = jax.random.split(jax.random.wrap_key_data(state.key))
    loss_function = partial(
        _img_net_loss,
        dropout=jax.random.fold_in(dropout, jax.lax.axis_index(axis_name)),  # each device drops other units
        batch_stats=state.batch_stats,
        bank=state.bank if targets.bank is None else targets.bank,
        targets=targets,
        batch=batch,
        model=model,
        weights=weights,
        axis_name=axis_name,
        statistics=statistics,
        likelihood_scale=likelihood_scale,
        cosine_scale=cosine_scale,
    )
    # The loss is averaged over devices inside the gradient, and the gradients outside: right under pmap and shard_map alike.
    grad_function = jax.value_and_grad(loss_function, has_aux=True)
    (loss, (relaxed_codes, batch_stats, terms)), grads = grad_function(state.params)
    grads = jax.lax.pmean(grads, axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    bank = state.bank
    if targets.bank is None:  # with a twin, nobody reads a network's own bank before it is refreshed
        rows = _gather(batch["index"], axis_name)  # [devices * batch]
        bank = bank.at[rows].set(_gather(relaxed_codes, axis_name), unique_indices=True)
    new_state = ImgNetState(
        params=optax.apply_updates(state.params, updates),
        batch_stats=jax.lax.pmean(batch_stats, axis_name),
        opt_state=opt_state,
        key=jax.random.key_data(key),
        bank=bank,
    )
    return new_state, {**terms, "loss": loss, "grad_norm": optax.tree.norm(grads)}


def _img_net_loss(
    params: Any,
    *,
    dropout: jax.Array,
    batch_stats: Any,
    bank: jax.Array,
    targets: Targets,
    batch: Mapping[str, jax.Array],
    model: nn.Module,
    weights: Mapping[str, float],
    axis_name: str,
    **settings: Any,
) -> tuple[jax.Array, tuple[jax.Array, Any, Metrics]]:
    """The loss, averaged over the devices; with it relaxed codes [batch, bits], new batch statistics, and each term."""
    index, codes = batch["index"], targets.codes.astype(jnp.float32)  # [batch], [n, bits]
    variables = {"params": params, "batch_stats": batch_stats}
    (semantic, relaxed_codes), updated = model.apply(
        variables, batch["inputs"], train=True, mutable=["batch_stats"], rngs={"dropout": dropout}
    )
    terms = objective.img_net_terms(
        relaxed_codes,
        semantic,
        labels=targets.labels[index],
        codes=codes[index],
        bit_means=jax.lax.pmean(jnp.mean(relaxed_codes, axis=0), axis_name),
        bank=bank,
        bank_codes=codes,
        bank_labels=targets.labels,
        guidance=targets.guidance,
        **settings,
    )
    terms = jax.lax.pmean(terms, axis_name)
    return objective.weighted_sum(terms, weights), (relaxed_codes, {**batch_stats, **updated.get("batch_stats", {})}, terms)


def _gather(x: jax.Array, axis_name: str) -> jax.Array:
    """Concatenates every device's x, [batch, ...] -> [devices * batch, ...], as a sum that is known to be the same on all."""
    devices = jax.lax.axis_size(axis_name)
    room = jnp.zeros((devices, *x.shape), x.dtype).at[jax.lax.axis_index(axis_name)].set(x)
    return jax.lax.psum(room, axis_name).reshape(-1, *x.shape[1:])
