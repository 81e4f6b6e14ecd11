"""The values that each key of a config may have, and what they must be together."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from adsq_jax import codes, methods
from adsq_jax import config as config_module
from adsq_jax.codes import MAX_BITS
from adsq_jax.data import datasets, protocols
from adsq_jax.devices import data_parallel
from adsq_jax.errors import InputError
from adsq_jax.models import backbones, layers, pretrained
from adsq_jax.training import optimizer

Rule = tuple[Callable[[Any], bool], str]


def _at_least(low: float) -> Rule:
    return (lambda value: low <= value < math.inf, f"at least {low} and finite")


def _above(low: float) -> Rule:
    return (lambda value: low < value < math.inf, f"above {low} and finite")


def _one_of(*names: str) -> Rule:
    return (lambda value: value in names, f"one of {', '.join(names)}")


def _share(value: float) -> bool:
    return 0 <= value <= 1


def _three_numbers(value: Sequence[Any]) -> bool:
    return not value or (len(value) == 3 and all(isinstance(x, int | float) and _share(x) for x in value))


_RULES: dict[str, Rule] = {
    r"method": _one_of(*methods.METHODS),
    r"bits": (lambda value: 1 <= value <= MAX_BITS, f"1 to {MAX_BITS}"),
    r"seed": (lambda value: 0 <= value < 2**32, "0 to 4294967295"),  # what JAX tells apart
    r"data\.(split_seed|crop_padding|validation|resize|keep_mib|threads|workers|feature_views)": _at_least(0),
    r"host_devices|checkpoint\.every_steps": _at_least(0),
    r"parallel": _one_of(*data_parallel.KINDS),
    r"data\.name": _one_of(*datasets.PROTOCOLS_OF),
    r"data\.reader": _one_of(*sorted({reader for readers in datasets.READERS_OF.values() for reader in readers})),
    r"data\.protocol": _one_of(*protocols.PROTOCOLS, protocols.OWN),
    r"data\.query_share": (lambda value: 0 < value < 1, "above 0 and below 1"),
    r"data\.train_share": (lambda value: 0 < value <= 1, "above 0, up to 1"),
    r"data\.on_bad_image": _one_of(*datasets.BAD_IMAGE),
    r"data\.image_size|model\.features|label_net\.(hidden|steps)|eval\.batch_size": _at_least(1),
    r"train\..*|checkpoint\.(every_rounds|keep)": _at_least(1),
    r"data\.erase|data\.most_bad|optim\.warmup": (_share, "0 to 1"),
    r"model\.backbone": _one_of(*backbones.NAMES),
    r"model\.mean": (_three_numbers, "three numbers from 0 to 1, or ()"),
    r"model\.deviation": (lambda value: _three_numbers(value) and 0 not in value, "three numbers above 0, up to 1, or ()"),
    r"model\.batch_norm": _one_of(*layers.BATCH_NORMS),
    r"model\.dtype": _one_of(*layers.DTYPES),
    r"model\.dropout": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    r".*\.weights\..*|optim\.(weight_decay|clip_norm|trunk_lr_scale)|model\.width": _at_least(0),
    r"baseline\.(?!gamma|scale|cosine_scale|last_beta).*": _at_least(0),
    r"objective\.neighbour_scale": (lambda value: 0 < value <= 30, "above 0, up to 30"),
    r".*learning_rate|(objective|label_net)\..*_scale|baseline\.(gamma|scale|cosine_scale|last_beta)": _above(0),
    r"optim\.schedule": _one_of(*optimizer.SCHEDULES),
    r"eval\.query_net": _one_of(*codes.QUERY_NETS),
}


def check(config: ConfigDict) -> None:
    """Checks every key and value of a config.

    Args:
      config: from a file in configs/, with what the command line changed.

    Raises:
      InputError: an unknown or a missing key, or a value out of its range.
    """
    method = config.get("method", "adsq")
    expectation = _expectation("method", method, kinds=(str,))
    if expectation:
        raise InputError(f"config.method={method!r} must be {expectation}: give --config=FILE.py:method=NAME")
    found, wanted = _leaves(config), _leaves(config_module.default(method=method))
    for key in sorted(found.keys() ^ wanted.keys()):
        if key.startswith("optim.arguments."):
            continue
        known = "isn't a knob: remove it" if key in found else "is missing: start from adsq_jax.config.default()"
        raise InputError(
            f"config.{key} {known}; adsq_jax/config.py has every knob, those of a method come by --config=FILE.py:method=NAME"
        )
    for key, value in found.items():
        expectation = _expectation(key, value, kinds=_kinds(wanted[key]) if key in wanted else (bool, int, float))
        if expectation:
            raise InputError(f"config.{key}={value!r} must be {expectation}: give --config.{key}=VALUE")
    if config.data.reader not in datasets.READERS_OF[config.data.name]:
        raise InputError(
            f"config.data.reader={config.data.reader!r} doesn't read {config.data.name!r}: give --config.data.reader="
            + " or ".join(datasets.READERS_OF[config.data.name])
        )
    if config.data.protocol not in datasets.PROTOCOLS_OF[config.data.name]:
        raise InputError(
            f"config.data.protocol={config.data.protocol!r} divides another data set than {config.data.name!r}: give both, "
            "--config.data.name=NAME and --config.data.protocol=NAME"
        )
    if config.data.resize and config.data.resize < config.data.image_size:
        raise InputError(
            f"config.data.resize={config.data.resize} is less than config.data.image_size={config.data.image_size}, which is "
            "cut out of it: give as much or more, or 0"
        )
    _check_weights(config)
    _check_query_net(config)
    if config.shard_parameters and config.parallel != "shard_map":
        raise InputError(
            f"config.shard_parameters=True is of shard_map, not of {config.parallel}: give --config.parallel=shard_map, or "
            "leave it out"
        )
    _check_model(config)
    _check_optimizer(config)


def _check_weights(config: ConfigDict) -> None:
    """Something must be minimised."""
    left_out = {"label_codes"}  # which is of the B-step
    if "objective" in config:
        switches = {"difference": config.objective.difference, "guidance": config.objective.label_net}
        left_out |= {name for name, on in switches.items() if not on}
    for part in ("objective", "label_net"):
        if part in config and not any(weight for name, weight in config[part].weights.items() if name not in left_out):
            raise InputError(f"config.{part}.weights are all 0, so nothing would be learned: give one of them a value above 0")


def _check_query_net(config: ConfigDict) -> None:
    if config.eval.query_net == "ff" or (config.method == "adsq" and config.objective.twin):
        return
    if config.method == "adsq":
        raise InputError(
            f"config.eval.query_net={config.eval.query_net!r} needs the twin: give --config.eval.query_net=ff with "
            "--config.objective.twin=False"
        )
    if not methods.find(config.method)(**config.baseline.to_dict()).twin:
        raise InputError(
            f"config.eval.query_net={config.eval.query_net!r} needs two networks, and {config.method} has one: give "
            "--config.eval.query_net=ff"
        )


def _check_model(config: ConfigDict) -> None:
    model = config.model
    try:
        backbones.check_side(model.backbone, config.data.image_size)
    except ValueError as error:
        raise InputError(f"{error}: give another --config.data.image_size, or --config.model.backbone") from error
    try:
        backbones.build(model.backbone, width=model.width, layers=layers.Layers())
    except ValueError as error:
        raise InputError(f"config.model.width={model.width}: {error}") from error
    if model.pretrained and model.backbone not in pretrained.LAYOUTS:
        raise InputError(
            f"config.model.pretrained is for {', '.join(pretrained.LAYOUTS)}, not for {model.backbone}: leave it out, or give "
            "another --config.model.backbone"
        )
    for key in ("feature_views", "feature_cache"):
        if config.data[key] and config.optim.trunk_lr_scale:
            raise InputError(
                f"config.data.{key}={config.data[key]!r} is of a frozen trunk: give --config.optim.trunk_lr_scale=0 with it, "
                "or leave it out"
            )
    if model.dropout and (model.backbone not in backbones.WITH_DROPOUT or not config.optim.trunk_lr_scale):
        raise InputError(
            f"config.model.dropout={model.dropout} is of {' or '.join(backbones.WITH_DROPOUT)} with a trunk that trains: give "
            "one with it, or leave it out"
        )


def _check_optimizer(config: ConfigDict) -> None:
    try:
        optimizer.build(
            config.optim.name,
            arguments=config.optim.arguments.to_dict(),
            learning_rate=config.optim.learning_rate,
            schedule=config.optim.schedule,
            total_steps=2,
        )
    except ValueError as error:
        raise InputError(f"config.optim.name={config.optim.name!r} can't be built: {error}") from error


def _kinds(default: Any) -> tuple[type, ...]:
    return (int, float) if isinstance(default, float) else (type(default),)


def _expectation(key: str, value: Any, *, kinds: tuple[type, ...]) -> str | None:
    """What a value must be and is not; None where it is."""
    if type(value) not in kinds:
        return "of type " + " or ".join(kind.__name__ for kind in kinds)
    return next((text for pattern, (fits, text) in _RULES.items() if re.fullmatch(pattern, key) and not fits(value)), None)


def _leaves(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
