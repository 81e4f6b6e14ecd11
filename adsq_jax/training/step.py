"""One update of LabelNet, and one of an ImgNet: pure functions from state and batch to state and metrics."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from adsq_jax.methods import objective
from adsq_jax.methods.method import LossInputs
from adsq_jax.training.state import ImgNetState, LabelNetState, Targets

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
      The new state; each loss term times its weight, their sum `loss`, and `grad_norm`: float32[].
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
        terms = objective.weighted(terms, weights)
        return objective.total(terms), terms

    (loss, terms), grads = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics = {**terms, "loss": loss, "grad_norm": optax.tree.norm(grads)}
    return LabelNetState(params=optax.apply_updates(state.params, updates), opt_state=opt_state), metrics


class Gradients(NamedTuple):
    """What the devices agree on of one update of an ImgNet, before the optimiser has its turn."""

    params: Any  # of the loss, as the parameters
    batch_stats: Any
    key: jax.Array  # of the next update, uint32[2]


def img_net_gradients(
    state: ImgNetState,
    targets: Targets,
    batch: Mapping[str, jax.Array],
    *,
    model: nn.Module,
    loss: Callable[[LossInputs], objective.Terms],
    statistics: objective.PairStatistics,
    seed: int,
    axis_name: str,
) -> tuple[Gradients, jax.Array, Metrics]:
    """Gradients of one ImgNet on a batch against the whole training set. Runs once per device, under a mapped axis.

    Each device puts its share of the batch through the network, and holds the whole batch's relaxed codes against its own rows
    of the training set: what travels is those codes and the gradients, and nothing that grows with the training set.

    Args:
      state: the ImgNet, the same on every device, but for the bank: this device's rows.
      targets: this device's rows, and what is the same on every device.
      batch: this device's share: inputs uint8[batch, h, w, 3], or float32[batch, width] of a frozen trunk; index int32[batch]
        (rows in the training set, none twice), label_set int32[batch].
      model: the ImgNet module.
      loss: the method's, its settings filled in.
      statistics: of the training set's pairs.
      seed: of the run.
      axis_name: of the devices.

    Returns:
      The gradients, the same on every device. This device's rows of the bank: without a twin, with the batch's renewed; with
      one as they were. The metrics, the same on every device: each term, their sum `loss`, `grad_norm`.
    """
    key, dropout = jax.random.split(jax.random.wrap_key_data(state.key))
    index = jax.lax.all_gather(batch["index"], axis_name, tiled=True)  # [batch of all devices]
    own = index - jax.lax.axis_index(axis_name) * len(state.bank)  # place among this device's rows, if it is there

    def of_params(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any, Metrics]]:
        outputs, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            batch["inputs"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(dropout, jax.lax.axis_index(axis_name))},  # each device drops other units
        )
        seen = _seen(
            *outputs,
            parameters=params.get("method"),
            bank=state.bank if targets.bank is None else targets.bank,
            own=own,
            targets=targets,
            label_set=batch["label_set"],
            statistics=statistics,
            seed=seed,
            axis_name=axis_name,
        )
        terms = loss(seen)
        return objective.total(terms), (seen.relaxed_codes, {**state.batch_stats, **updated.get("batch_stats", {})}, terms)

    (value, (relaxed_codes, batch_stats, terms)), grads = jax.value_and_grad(of_params, has_aux=True)(state.params)
    # the value is this device's part of the loss: the mean over all devices is the loss
    grads, terms = jax.lax.pmean((grads, {**terms, "loss": value}), axis_name)
    bank = state.bank
    if targets.bank is None:  # with a twin, nobody reads a network's own bank before it is refreshed
        bank = bank.at[jnp.where(own < 0, len(bank), own)].set(relaxed_codes, mode="drop")
    return Gradients(grads, batch_stats, jax.random.key_data(key)), bank, {**terms, "grad_norm": optax.tree.norm(grads)}


def img_net_update(
    state: ImgNetState, gradients: Gradients, bank: jax.Array, *, optimizer: optax.GradientTransformation
) -> ImgNetState:
    """The state after an update. Knows of no devices.

    Args:
      state: the ImgNet.
      gradients: of `img_net_gradients`.
      bank: of the same.
      optimizer: optax.
    """
    updates, opt_state = optimizer.update(gradients.params, state.opt_state, state.params)
    return ImgNetState(
        params=optax.apply_updates(state.params, updates),
        batch_stats=gradients.batch_stats,
        opt_state=opt_state,
        key=gradients.key,
        bank=bank,
    )


def _seen(
    semantic: jax.Array,
    relaxed_codes: jax.Array,
    *,
    parameters: Any,
    bank: jax.Array,
    own: jax.Array,
    targets: Targets,
    label_set: jax.Array,
    statistics: objective.PairStatistics,
    seed: int,
    axis_name: str,
) -> LossInputs:
    """What a loss may look at."""
    devices = jax.lax.axis_size(axis_name)
    everyones = jax.lax.all_gather(relaxed_codes, axis_name, tiled=True)  # [batch of all devices, bits]
    sets = jax.lax.all_gather(label_set, axis_name, tiled=True)
    codes = targets.codes.astype(jnp.float32)  # [rows, bits]
    here = (own >= 0) & (own < len(codes))
    errors = everyones - codes[jnp.clip(own, 0, len(codes) - 1)]
    return LossInputs(
        relaxed_codes=everyones,
        labels=targets.sets[sets].astype(jnp.float32),
        similar=targets.similar_sets[sets].T[targets.set_index].T,  # rows, since TPUs are slow to gather columns
        bank=bank,
        bank_codes=codes,
        shares=targets.shares[None, :] * (devices / len(everyones)),  # sums over the devices: so much in a mean over them
        errors=jnp.where(here[:, None], errors, 0.0),
        devices=devices,
        total=partial(jax.lax.psum, axis_name=axis_name),
        semantic=semantic,
        similar_sets=targets.similar_sets[label_set],
        label_set=sets,
        guidance=targets.guidance,
        parameters=parameters,
        progress=targets.progress,
        statistics=statistics,
        seed=seed,
    )
