"""The optimiser, by its name in optax, with what every optimiser shares: clipping, weight decay, schedule, the trunk's rate."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import optax

SCHEDULES = ("constant", "cosine")
# Functions of optax whose step is the learning rate times what only gradients and parameters decide.
NAMES = ("adabelief", "adam", "adamw", "lamb", "lion", "nadam", "radam", "rmsprop", "sgd", "yogi")


def build(
    name: str,
    *,
    arguments: Mapping[str, float],
    learning_rate: float,
    schedule: str,
    warmup_steps: int,
    total_steps: int,
    weight_decay: float,
    clip_norm: float,
    trunk_lr_scale: float,
) -> optax.GradientTransformation:
    """Builds the optimiser of one network.

    Weight decay is decoupled and spares biases and norms, whatever the optimiser: `adam` with it is AdamW.

    Args:
      name: one of NAMES.
      arguments: its other arguments, for instance {"momentum": 0.9}.
      learning_rate: the peak.
      schedule: one of SCHEDULES, after a linear warm-up.
      warmup_steps: updates until the peak.
      total_steps: updates in all; cosine ends at 0 there.
      weight_decay: share of a weight that a step at learning rate 1 takes away.
      clip_norm: greatest norm of the gradient; 0 for no limit.
      trunk_lr_scale: factor on the learning rate of `backbone`, above 0.

    Returns:
      The gradient transformation.

    Raises:
      ValueError: no such optimiser, argument or schedule.

    Source: optax; decoupled decay from Loshchilov and Hutter, ICLR 2019.
    """
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    parts += [
        _base(name, arguments),
        # The optimiser's own step is already negative, and so must the decay be.
        optax.add_decayed_weights(-weight_decay, mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params)),
        optax.masked(optax.scale(trunk_lr_scale), _of_the_trunk),
        optax.scale_by_schedule(_schedule(schedule, learning_rate, warmup_steps, total_steps)),
    ]
    return optax.chain(*parts)


def _base(name: str, arguments: Mapping[str, float]) -> optax.GradientTransformation:
    if name not in NAMES:
        raise ValueError(f"no optimiser named {name!r}: choose one of {', '.join(NAMES)}")
    function = getattr(optax, name)
    known = inspect.signature(function).parameters
    free = [argument for argument in known if argument not in ("learning_rate", "weight_decay")]  # those have their own knobs
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


def _of_the_trunk(params: Any) -> Any:
    return {name: jax.tree.map(lambda _, trunk=name == "backbone": trunk, tree) for name, tree in params.items()}
