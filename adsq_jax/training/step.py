"""One update of LabelNet, and one of an ImgNet: pure functions, which `adsq_jax.training.step` (in `rounds.py`) compiles.

They run on one device with `axis_name=None`, or on each of several under a mapped axis of that name.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from adsq_jax.methods import objective
from adsq_jax.methods.label_set_pairs import map_rows
from adsq_jax.methods.method import LossInputs
from adsq_jax.training.state import ImgNetState, LabelNetState, Targets

Metrics = dict[str, jax.Array]


def apply_label_net(model: nn.Module, variables: Any, sets: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return LabelNet's outputs for all label sets, uint8[m, c]; of many, without holding the hidden layer for all at once."""
    outputs: tuple[jax.Array, jax.Array, jax.Array] = map_rows(partial(model.apply, variables), sets, width=model.hidden)
    return outputs


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
    """Update LabelNet on all pairs of label sets at once. It is small: every device does the same.

    Args:
      state: LabelNet's state.
      sets: distinct label vectors, uint8[m, c].
      frequencies: the share of the training set with each label vector, float32[m].
      model: the LabelNet module.
      optimizer: an optax optimiser.
      statistics: the training set's pair statistics.
      cosine_scale: s.
      weights: the weight of each of `objective.label_net_terms`.

    Returns:
      The new state; each loss term times its weight, their sum `loss`, and `grad_norm`: float32[].
    """

    def loss_function(params: Any) -> tuple[jax.Array, Metrics]:
        semantic, relaxed_codes, label_logits = apply_label_net(model, {"params": params}, sets)
        terms = objective.label_net_terms(
            semantic,
            relaxed_codes,
            label_logits,
            sets=sets,
            frequencies=frequencies,
            statistics=statistics,
            cosine_scale=cosine_scale,
        )
        terms = objective.weighted(terms, weights, section="label_net")
        return objective.total(terms), terms

    (loss, terms), grads = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics = {**terms, "loss": loss, "grad_norm": optax.tree.norm(grads)}
    return replace(state, params=optax.apply_updates(state.params, updates), opt_state=opt_state), metrics


class Gradients(NamedTuple):
    """What one update of an ImgNet hands to the optimiser; the same on every device."""

    params: Any  # gradients of the loss
    batch_stats: Any
    key: jax.Array  # for the next update, uint32[2]


def img_net_gradients(
    state: ImgNetState,
    targets: Targets,
    batch: Mapping[str, jax.Array],
    *,
    model: nn.Module,
    loss: Callable[[LossInputs], objective.Terms],
    statistics: objective.PairStatistics,
    seed: int,
    axis_name: str | None,
) -> tuple[Gradients, jax.Array, Metrics]:
    """Compute the gradients of one ImgNet on a batch against the whole training set.

    Each device puts its part of the batch through the network, and compares the whole batch's relaxed codes with its own rows
    of the training set. Devices exchange only those codes and the gradients, nothing that grows with the training set.

    Args:
      state: the ImgNet, the same on every device, but for the bank: this device's rows.
      targets: this device's rows, and the parts that are the same on every device.
      batch: this device's part: inputs uint8[part, h, w, 3], or float32[part, width] of a frozen trunk; index int32[part], the
        images' rows in the training set, without repetition; label_set int32[part], their label sets; for a method with a
        second view, second_inputs, of the shape and dtype of inputs.
      model: the ImgNet module.
      loss: the method's loss, with its settings.
      statistics: the training set's pair statistics.
      seed: the run's seed.
      axis_name: the mapped axis of devices; None: one device.

    Returns:
      The gradients. This device's rows of the bank: without a twin, the batch's rows are updated; with a twin, none. The
      metrics, the same on every device: each term, their sum `loss`, and `grad_norm`, float32[].
    """
    key, dropout = jax.random.split(jax.random.wrap_key_data(state.key))
    index = _all_gather(batch["index"], axis_name)  # [batch]
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    local_index = index - device * len(state.bank)  # position among this device's rows, if it is there

    def loss_of(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any, Metrics]]:
        outputs, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            _all_views(batch),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(dropout, device)},  # each device drops other units
        )
        semantic, relaxed_codes, second_view = _by_view(outputs, batch)
        inputs = _loss_inputs(
            semantic,
            _all_gather(relaxed_codes, axis_name),
            second_view=None if second_view is None else _all_gather(second_view, axis_name),
            parameters=params.get("method"),
            bank=state.bank if targets.bank is None else targets.bank,
            local_index=local_index,
            targets=targets,
            label_set=batch["label_set"],
            statistics=statistics,
            seed=seed,
            axis_name=axis_name,
        )
        terms = loss(inputs)
        batch_stats = {**state.batch_stats, **updated.get("batch_stats", {})}
        return objective.total(terms), (inputs.relaxed_codes, batch_stats, terms)

    (value, (relaxed_codes, batch_stats, terms)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    grads, terms = (grads, {**terms, "loss": value})
    if axis_name is not None:  # the value is this device's part of the loss, which is the mean over all devices
        grads, terms = jax.lax.pmean((grads, terms), axis_name)
    bank = state.bank
    if targets.bank is None:  # with a twin, nobody reads a network's own bank before it is refreshed
        bank = bank.at[jnp.where(local_index < 0, len(bank), local_index)].set(relaxed_codes, mode="drop")
    return Gradients(grads, batch_stats, jax.random.key_data(key)), bank, {**terms, "grad_norm": optax.tree.norm(grads)}


def img_net_update(
    state: ImgNetState, gradients: Gradients, bank: jax.Array, *, optimizer: optax.GradientTransformation
) -> ImgNetState:
    """Apply the gradients with an optax optimiser, and store the new bank."""
    updates, opt_state = optimizer.update(gradients.params, state.opt_state, state.params)
    return ImgNetState(
        params=optax.apply_updates(state.params, updates),
        batch_stats=gradients.batch_stats,
        opt_state=opt_state,
        key=gradients.key,
        bank=bank,
    )


def _all_views(batch: Mapping[str, jax.Array]) -> jax.Array:
    """Return the network's inputs: all first views, and then all second views, if the batch has them."""
    return jnp.concatenate([batch["inputs"], batch["second_inputs"]]) if "second_inputs" in batch else batch["inputs"]


def _by_view(
    outputs: tuple[jax.Array, jax.Array], batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Return the first views' features and relaxed codes, and the second views' relaxed codes, if the batch has them."""
    semantic, relaxed_codes = outputs
    if "second_inputs" not in batch:
        return semantic, relaxed_codes, None
    part = len(batch["inputs"])
    return semantic[:part], relaxed_codes[:part], relaxed_codes[part:]


def _all_gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def _similar_sets(sets: jax.Array, rows: jax.Array) -> jax.Array:
    """Return rows of S between label sets, bool[rows, m], by a product of the rows, or of all sets if these are fewer."""
    if len(sets) <= len(rows):
        return objective.similarity(sets, sets)[rows]
    return objective.similarity(sets[rows], sets)


def _loss_inputs(
    semantic: jax.Array,
    relaxed_codes: jax.Array,
    *,
    second_view: jax.Array | None,
    parameters: Any,
    bank: jax.Array,
    local_index: jax.Array,
    targets: Targets,
    label_set: jax.Array,
    statistics: objective.PairStatistics,
    seed: int,
    axis_name: str | None,
) -> LossInputs:
    """Gather the inputs of the loss: from this device's part of the batch, the whole batch, and this device's rows."""
    n_devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    sets = _all_gather(label_set, axis_name)  # [batch]
    batch_similar_sets = _similar_sets(targets.sets, sets)  # [batch, m]
    codes = targets.codes.astype(jnp.float32)  # [rows, bits]
    is_local = (local_index >= 0) & (local_index < len(codes))  # [batch]
    errors = relaxed_codes - codes[jnp.clip(local_index, 0, len(codes) - 1)]  # [batch, bits]
    return LossInputs(
        relaxed_codes=relaxed_codes,
        labels=targets.sets[sets].astype(jnp.float32),
        similar=batch_similar_sets.T[targets.set_index].T,  # rows, since TPUs are slow to gather columns
        bank=bank,
        bank_codes=codes,
        row_weights=targets.row_weights[None, :] * (n_devices / len(relaxed_codes)),  # sum over devices = n_devices x mean
        errors=jnp.where(is_local[:, None], errors, 0.0),
        n_devices=n_devices,
        sum_over_devices=(lambda x: x) if axis_name is None else partial(jax.lax.psum, axis_name=axis_name),
        semantic=semantic,
        similar_sets=_similar_sets(targets.sets, label_set),
        batch_similar_sets=batch_similar_sets,
        label_set=sets,
        guidance=targets.guidance,
        parameters=parameters,
        progress=targets.progress,
        statistics=statistics,
        seed=seed,
        second_view=second_view,
    )
