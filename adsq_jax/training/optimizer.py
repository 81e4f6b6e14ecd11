"""The optimiser by its name in optax, with clipping, weight decay, a schedule, and the trunk's learning rate."""

import inspect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import jax
import optax

from adsq_jax.errors import InputError

EXTENSIONS = ("restart", "constant")  # of rounds that are added to a finished run
SCHEDULES = ("constant", "cosine")
MOST_STEPS = 2**31 - 1  # JAX counts them in 32 bits
# Functions of optax whose updates are linear in the learning rate.
NAMES = ("adabelief", "adam", "adamw", "lamb", "lion", "nadam", "radam", "rmsprop", "sgd", "yogi")


def build(
    name: str = "adam",
    *,
    total_steps: int,
    arguments: Mapping[str, float] | None = None,
    learning_rate: float = 3e-3,
    schedule: str = "cosine",
    warmup: float = 0.05,
    finished_steps: Sequence[int] = (),
    extensions: Sequence[tuple[str, float]] = (),
    weight_decay: float = 0.05,
    clip_norm: float = 1.0,
    trunk_lr_scale: float = 1.0,
) -> optax.GradientTransformation:
    """Build the optimiser of one ImgNet.

    Weight decay is decoupled and spares biases and norms, whatever the optimiser: `adam` with it is AdamW.

    Args:
      name: one of NAMES, functions of optax.
      total_steps: the number of updates; the cosine ends at 0 there.
      arguments: its other arguments, for instance {"momentum": 0.9}; None: none.
      learning_rate: the peak learning rate.
      schedule: one of SCHEDULES, after a linear warm-up.
      warmup: the share of the updates in which the rate rises from 0, in [0, 1].
      finished_steps: where the run had finished before it was extended, in updates, ascending; its schedule is that of the
        first of them, and `total_steps` is where it ends now.
      extensions: for each of these extensions one of EXTENSIONS and a factor on the peak, above 0. "restart": warm-up and
        schedule begin again, over the extension's updates; "constant": the rate stays at the peak. (): ("restart", 1.0).
      weight_decay: decoupled weight decay, multiplied by the learning rate.
      clip_norm: the greatest norm of the gradient; 0: no limit.
      trunk_lr_scale: a factor on the learning rate of `backbone`, above 0.

    Returns:
      The gradient transformation.

    Raises:
      InputError: there are more than MOST_STEPS updates.
      ValueError: there is no such optimiser, argument, schedule or extension.

    Source: optax; decoupled decay from Loshchilov and Hutter, ICLR 2019.
    """
    if total_steps > MOST_STEPS:
        raise InputError(f"{total_steps:,} steps of training: expected at most {MOST_STEPS:,}; fix: fewer rounds or epochs")
    extensions = extensions or [("restart", 1.0)] * len(finished_steps)
    ends = [*finished_steps, total_steps]
    rates = [_schedule(schedule, learning_rate, round(warmup * ends[0]), ends[0])]
    for (begin, end), (extension, scale) in zip(pairwise(ends), extensions, strict=True):
        if extension not in EXTENSIONS:
            raise ValueError(f"no extension named {extension!r}: choose one of {', '.join(EXTENSIONS)}")
        peak, updates = learning_rate * scale, end - begin
        again = _schedule(schedule, peak, round(warmup * updates), updates)
        rates.append(again if extension == "restart" else optax.constant_schedule(peak))
    rate = optax.join_schedules(rates, ends[:-1]) if finished_steps else rates[0]
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    parts += [
        _base(name, arguments or {}),
        # The optimiser's own step is already negative, and so must the decay be.
        optax.add_decayed_weights(-weight_decay, mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params)),
        optax.masked(optax.scale(trunk_lr_scale), _trunk_mask),
        optax.scale_by_schedule(rate),
    ]
    return optax.chain(*parts)


def steps(
    images: int,
    *,
    batch_size: int,
    epochs_per_round: int,
    rounds: int,
    finished_rounds: Sequence[int],
    extensions: Sequence[tuple[str, float]] = (),
) -> dict[str, Any]:
    """Return `total_steps`, `finished_steps` and `extensions` of `build`, for a training set of so many images."""
    updates = epochs_per_round * (images // batch_size)  # of a network, in a round
    ends = [n * updates for n in finished_rounds]
    return {"total_steps": rounds * updates, "finished_steps": ends, "extensions": extensions}


def _base(name: str, arguments: Mapping[str, float]) -> optax.GradientTransformation:
    if name not in NAMES:
        raise ValueError(f"no optimiser named {name!r}: choose one of {', '.join(NAMES)}")
    function = getattr(optax, name)
    known = inspect.signature(function).parameters
    free = [argument for argument in known if argument not in ("learning_rate", "weight_decay")]  # config keys of their own
    unknown = sorted(set(arguments) - set(free))
    if unknown:
        raise ValueError(f"optax.{name} takes no {', '.join(unknown)} as arguments: it takes {', '.join(free)}")
    own_decay = {"weight_decay": 0.0} if "weight_decay" in known else {}
    return function(learning_rate=1.0, **own_decay, **arguments)


def _schedule(name: str, peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    if name == "constant":
        return optax.linear_schedule(0.0, peak, warmup_steps) if warmup_steps else optax.constant_schedule(peak)
    if name == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, max(total_steps, warmup_steps + 1))
    raise ValueError(f"no schedule named {name!r}: choose one of {', '.join(SCHEDULES)}")


def _trunk_mask(params: Any) -> Any:
    return {name: jax.tree.map(lambda _, trunk=name == "backbone": trunk, tree) for name, tree in params.items()}
