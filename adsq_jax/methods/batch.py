"""Inputs of a loss for one batch on its own, without devices or a training run."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax import codes, label_columns
from adsq_jax.errors import InputError, nearest_name
from adsq_jax.methods import objective
from adsq_jax.methods.method import LossInputs


def loss_inputs(
    relaxed_codes: Any,
    labels: Any,
    *,
    bank: Any = None,
    bank_codes: Any = None,
    semantic: Any = None,
    seed: int = 0,
    progress: float = 0.0,
    parameters: Any = None,
    guidance: objective.Guidance | None = None,
    second_view: Any = None,
    classes: int | Sequence[str] | None = None,
) -> LossInputs:
    """Return everything that a loss needs for one batch, which is its own training set.

    It works under `jax.jit`, `jax.grad` and `jax.vmap`: relaxed codes and other arrays may be traced, and so may multi-hot
    labels. Then pair statistics are computed in float32, and a batch with only similar or only dissimilar pairs is allowed.

    Args:
      relaxed_codes: u, float[batch, bits].
      labels: class ids int[batch], or int[batch, 1] if a value is above 1; multi-hot [batch, c] in {0, 1}, as bool if c is 1;
        or a list of class names.
      bank: relaxed codes of the same images that the batch is compared with, such as another network's, float[batch, bits];
        None: `relaxed_codes`, as constants.
      bank_codes: hash codes of the same images, [batch, bits] in {-1, +1}; None: the signs of `relaxed_codes`.
      semantic: semantic features, float[batch, d]; None: `relaxed_codes`.
      seed: for what a method draws once, such as hash centers.
      progress: finished rounds / rounds, 0 to 1.
      parameters: the method's own, for methods with `Method.parameters`.
      guidance: LabelNet's outputs for each image's labels, one row per image, for methods with `Method.label_net`.
      second_view: relaxed codes of another view of each image, float[batch, bits], for methods with `Method.second_view`.
      classes: the number of classes, for ids; or the class names in order, for names. None: the largest id + 1, or the sorted
        names of this batch.

    Returns:
      The inputs: float32, on one device.

    Raises:
      InputError: a wrong shape, dtype or length; an invalid label; or all pairs of the batch similar, or none.

    Source: this project.
    """
    shape = getattr(relaxed_codes, "shape", None) or np.shape(relaxed_codes)
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"expected relaxed_codes [batch, bits], got shape {list(shape)}; fix: give one row per image")
    u = _floats("relaxed_codes", relaxed_codes, shape=shape)
    n = shape[0]
    multi_hot = _multi_hot(labels, n=n, classes=classes)
    given = {"bank": bank, "bank_codes": bank_codes, "second_view": second_view}
    arrays = {name: _floats(name, array, shape=shape) for name, array in given.items() if array is not None}
    if semantic is not None:
        semantic = _floats("semantic", semantic, shape=(n, None))
    if guidance is not None:
        shapes = {"features": (n, None), "codes": shape, "frequencies": (n,)}
        rows = {key: _floats(f"guidance.{key}", getattr(guidance, key), shape=wanted) for key, wanted in shapes.items()}
        guidance = objective.Guidance(**{key: jnp.asarray(array, jnp.float32) for key, array in rows.items()})
    if isinstance(multi_hot, np.ndarray):
        statistics = objective.pair_statistics(objective.label_sets(multi_hot))
    else:
        statistics = _traced_statistics(objective.similarity(multi_hot, multi_hot))

    u = jnp.asarray(u, jnp.float32)
    hot = jnp.asarray(multi_hot, jnp.float32)
    similar = objective.similarity(hot, hot)  # [batch, batch]
    fixed = jax.lax.stop_gradient(u)
    hash_codes = jnp.asarray(arrays.get("bank_codes", codes.signs(fixed)), jnp.float32)
    return LossInputs(
        relaxed_codes=u,
        labels=hot,
        similar=similar,
        bank=jnp.asarray(arrays.get("bank", fixed), jnp.float32),
        bank_codes=hash_codes,
        row_weights=jnp.full((1, n), 1 / n, jnp.float32) * (1 / n),
        errors=u - hash_codes,
        n_devices=1,
        sum_over_devices=lambda x: x,
        semantic=u if semantic is None else jnp.asarray(semantic, jnp.float32),
        similar_sets=similar,
        batch_similar_sets=similar,
        label_set=jnp.arange(n, dtype=jnp.int32),
        guidance=guidance,
        parameters=parameters,
        progress=jnp.asarray(progress, jnp.float32),
        statistics=statistics,
        seed=seed,
        second_view=None if second_view is None else jnp.asarray(arrays["second_view"], jnp.float32),
    )


def _floats(name: str, array: Any, *, shape: tuple[int | None, ...]) -> Any:
    """Return a traced array as it is, another one as NumPy's, after a check of shape (None: any length) and dtype."""
    if not isinstance(array, jax.Array):
        try:
            array = np.asarray(array)
        except ValueError:
            raise InputError(
                f"expected {name} as an array, got rows of different lengths; fix: give all the same length"
            ) from None
    fits = array.ndim == len(shape) and all(want in (None, got) for want, got in zip(shape, array.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise InputError(f"expected {name} [{wanted}], got shape {list(array.shape)}; fix: give one row for each image")
    if not jnp.issubdtype(array.dtype, jnp.floating) and not (
        name == "bank_codes" and jnp.issubdtype(array.dtype, jnp.integer)
    ):
        raise InputError(f"expected {name} as floating-point numbers, got {array.dtype}; fix: convert them to float32")
    return array


def _multi_hot(labels: Any, *, n: int, classes: int | Sequence[str] | None) -> Any:
    """Return labels as uint8[n, c] of NumPy, or as a traced array if they are traced."""
    given, traced = labels, isinstance(labels, jax.core.Tracer)
    if not traced:
        try:
            labels = np.asarray(labels)
        except ValueError:
            raise InputError(
                "expected labels of one shape, got rows of different lengths; fix: give ids or multi-hot"
            ) from None
    if labels.ndim not in (1, 2) or len(labels) != n:
        raise InputError(
            f"expected labels of {n} images, got shape {list(labels.shape)}; fix: give ids [{n}], multi-hot [{n}, c], or names"
        )
    if not traced and labels.ndim == 1 and labels.dtype.kind in "OTU":
        labels, classes = _name_ids(list(given), names=classes)
    if not traced:
        labels = label_columns.to_ids({"labels": labels})["labels"]
    count = len(classes) if isinstance(classes, Sequence) else classes
    if labels.ndim == 1:
        return _one_hot(labels, count=count)
    if count not in (None, labels.shape[1]):
        raise InputError(f"expected multi-hot labels of {count} classes, got {labels.shape[1]} columns; fix: change classes")
    if traced:
        label_columns.check(labels, name="traced labels")
        return labels
    if labels.dtype.kind not in "biuf" or not np.isin(labels, (0, 1)).all():
        raise InputError("expected multi-hot labels of 0 and 1, got other values; fix: set 1 in an image's classes, else 0")
    label_columns.check(labels, name="labels")
    return labels.astype(np.uint8)


def _name_ids(labels: list[Any], *, names: int | Sequence[str] | None) -> tuple[np.ndarray, Sequence[str]]:
    """Return each name's id, and the names in order."""
    if not all(isinstance(label, str) for label in labels):
        raise InputError("expected a class name for each image, got something else among them; fix: give strings alone")
    if names is None:
        names = sorted(set(labels))
    if not isinstance(names, Sequence):
        raise InputError(f"expected classes as the names in order, got {names!r}; fix: give the names, or None")
    order = {name: number for number, name in enumerate(names)}
    for label in labels:
        if label not in order:
            near = nearest_name(label, order)
            fix = "add it to classes" if near is None else f"write {near!r}"
            raise InputError(f"expected labels among classes, got {str(label)!r}; fix: {fix}")
    return np.array([order[label] for label in labels]), names


def _one_hot(ids: Any, *, count: int | None) -> Any:
    """Return uint8[n, count] of ids int[n]; by JAX if they are traced."""
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise InputError(
            f"expected class ids as integers, got {ids.dtype}; fix: convert them, or give multi-hot [n, c] or names"
        )
    if isinstance(ids, jax.core.Tracer):
        if count is None:
            raise InputError("expected classes with traced class ids, got None; fix: pass classes=the number of classes")
        return jax.nn.one_hot(ids, count, dtype=jnp.uint8)
    if ids.min() < 0 or (count is not None and ids.max() >= count):
        limit = "" if count is None else f" to {count - 1}"
        raise InputError(f"expected class ids from 0{limit}, got {ids.min()} to {ids.max()}; fix: change labels or classes")
    return np.eye(ids.max() + 1 if count is None else count, dtype=np.uint8)[ids]


def _traced_statistics(similar: jax.Array) -> objective.PairStatistics:
    """Return what `objective.pair_statistics` does, from S bool[n, n]; an absent kind is counted as one pair."""
    pairs = similar.size
    count = jnp.sum(similar.astype(jnp.float32))
    alike, unlike = jnp.maximum(count, 1.0), jnp.maximum(pairs - count, 1.0)
    values: Any = (jnp.minimum(1.0, alike / unlike), 0.5 * pairs / alike, 0.5 * pairs / unlike)
    return objective.PairStatistics(*values)
