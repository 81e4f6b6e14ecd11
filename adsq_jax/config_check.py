"""Check a config: the values that each key may have, and which values fit together."""

import functools
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from adsq_jax import codes, methods
from adsq_jax import config as config_module
from adsq_jax.codes import MAX_BITS
from adsq_jax.data import datasets, protocols
from adsq_jax.data.images import BIT_DEPTHS
from adsq_jax.data.preprocessing import MAX_SIDE
from adsq_jax.devices import data_parallel
from adsq_jax.errors import InputError, did_you_mean, nearest_key
from adsq_jax.methods.adsq import HEADS
from adsq_jax.models import backbones, layers, pretrained
from adsq_jax.training import optimizer


class _Rule(NamedTuple):
    accepts: Callable[[Any], bool]
    expected: str  # what it accepts, for messages
    names: tuple[str, ...] = ()  # the names, if it accepts only names


def _at_least(low: float) -> _Rule:
    return _Rule(lambda value: low <= value < math.inf, f"at least {low} and finite")


def _above(low: float) -> _Rule:
    return _Rule(lambda value: low < value < math.inf, f"above {low} and finite")


def _one_of(names: Iterable[str]) -> _Rule:
    names = tuple(names)
    return _Rule(lambda value: value in names, f"one of {', '.join(names)}", names)


def _fraction(value: float) -> bool:
    return 0 <= value <= 1


def _three_fractions(value: Sequence[Any]) -> bool:
    return not value or (len(value) == 3 and all(isinstance(x, int | float) and _fraction(x) for x in value))


_READERS = sorted({reader for readers in datasets.READERS_OF.values() for reader in readers})
_RULES: dict[str, _Rule] = {  # by a regular expression for keys; a value must pass all rules of its key
    r"bits": _Rule(lambda value: 1 <= value <= MAX_BITS, f"1 to {MAX_BITS}"),
    r"seed": _Rule(lambda value: 0 <= value < 2**32, "0 to 4294967295"),  # JAX keeps 32 bits
    r"data\.(split_seed|crop_padding|validation|resize|keep_mib|threads|workers|feature_views|bit_depth)": _at_least(0),
    r"data\.(resize|image_size|crop_padding)": _Rule(lambda value: value <= MAX_SIDE, f"at most {MAX_SIDE:,}"),
    r"host_devices|checkpoint\.every_steps": _at_least(0),
    r"parallel": _one_of(data_parallel.KINDS),
    r"data\.name": _one_of(datasets.PROTOCOLS_OF),
    r"data\.reader": _one_of(_READERS),
    r"data\.protocol": _one_of((*protocols.PROTOCOLS, protocols.OWN)),
    r"data\.bit_depth": _Rule(lambda value: value in BIT_DEPTHS, "0, or 9 to 16"),
    r"data\.small_classes": _one_of(protocols.SMALL_CLASSES),
    r"data\.query_share": _Rule(lambda value: 0 < value < 1, "above 0 and below 1"),
    r"data\.train_share": _Rule(lambda value: 0 < value <= 1, "above 0, up to 1"),
    r"data\.on_bad_image": _one_of(datasets.BAD_IMAGE),
    r"data\.image_size|model\.features|label_net\.(hidden|steps)|eval\.batch_size": _at_least(1),
    r"train\.(rounds|epochs_per_round|batch_size|log_every)|checkpoint\.(every_rounds|keep|keep_finished)": _at_least(1),
    r"train\.stop_after_rounds_without_gain": _at_least(0),
    r"data\.erase|data\.most_bad|optim\.warmup": _Rule(_fraction, "0 to 1"),
    r"model\.backbone": _one_of(backbones.NAMES),
    r"model\.mean": _Rule(_three_fractions, "three numbers from 0 to 1, or ()"),
    r"model\.deviation": _Rule(lambda value: _three_fractions(value) and 0 not in value, "three numbers above 0, up to 1"),
    r"model\.batch_norm": _one_of(layers.BATCH_NORMS),
    r"model\.dtype": _one_of(layers.DTYPES),
    r"model\.dropout": _Rule(lambda value: 0 <= value < 1, "at least 0 and below 1"),
    r"(objective|label_net)\.weights\..*|optim\.(weight_decay|clip_norm|trunk_lr_scale)|model\.width": _at_least(0),
    r"objective\.head": _one_of(HEADS),
    r"objective\.neighbour_scale": _Rule(lambda value: 0 < value <= 30, "above 0, up to 30"),
    r".*learning_rate|(objective|label_net)\..*_scale": _above(0),
    r"baseline\.(gamma|scale|cosine_scale|last_beta|temperature|deviation)": _above(0),
    r"baseline\..*": _at_least(0),
    r"optim\.extension": _one_of(optimizer.EXTENSIONS),
    r"optim\.extension_scale": _above(0),
    r"optim\.schedule": _one_of(optimizer.SCHEDULES),
    r"eval\.query_net": _one_of(codes.QUERY_NETS),
}


def check(config: ConfigDict) -> None:
    """Check every key and value of a config.

    Args:
      config: from a file in configs/, with the changes of the command line. The module of a method of your own is not imported
        here; `config.from_argument` does that.

    Raises:
      InputError: an unknown or a missing key, a value out of its range, or values that don't fit together.
    """
    values, defaults = _leaves(config), _leaves(_default_of_method(config))
    for key in sorted(values.keys() ^ defaults.keys()):
        if key in defaults:
            raise InputError(f"config.{key} is missing; fix: --config=FILE.py:method=NAME, or config.default(method=NAME)")
        if not key.startswith("optim.arguments."):
            raise _unknown_key(key, defaults)
    for key, value in values.items():
        if config.method in methods.METHODS or not key.startswith("baseline."):
            _check_value(config, key, value, kinds=_kinds(defaults[key]) if key in defaults else (bool, int, float))
    _check_data(config)
    if config.train.stop_after_rounds_without_gain and not config.data.validation:
        expected = "expected 0, since no images are held out"
        raise _wrong(config, "train.stop_after_rounds_without_gain", expected, fix="--config.data.validation=N")
    _check_weights(config)
    _check_networks(config)
    _check_model(config)
    _check_optimizer(config)


def _default_of_method(config: ConfigDict) -> ConfigDict:
    method = config.get("method", "adsq")
    if not isinstance(method, str):
        raise _wrong(config, "method", f"expected one of {', '.join(methods.METHODS)}", fix="--config=FILE.py:method=NAME")
    try:
        # a name that was read from a file must not run code; a module that is imported already doesn't run again
        return config_module.default(method=method, allow_import=method in sys.modules)
    except InputError as error:
        raise InputError(f"config.method={method!r}: {error}; fix: --config=FILE.py:method=NAME") from error


def _unknown_key(key: str, defaults: Iterable[str]) -> InputError:
    near = nearest_key(key, defaults)
    return InputError(
        f"config.{key} is not a config key{'' if near is None else f' (did you mean {near!r}?)'}; fix: remove it; "
        "adsq train --help lists all keys, and with --config=FILE.py:method=NAME those of a method"
    )


def _check_value(config: ConfigDict, key: str, value: Any, *, kinds: tuple[type, ...]) -> None:
    if type(value) not in kinds:
        raise _wrong(config, key, f"expected the type {' or '.join(kind.__name__ for kind in kinds)}")
    for pattern, rule in _RULES.items():
        if re.fullmatch(pattern, key) and not rule.accepts(value):
            raise _wrong(config, key, f"expected {rule.expected}{did_you_mean(value, rule.names)}")


def _check_data(config: ConfigDict) -> None:
    data = config.data
    readers, names = datasets.READERS_OF[data.name], datasets.PROTOCOLS_OF[data.name]
    if data.reader not in readers:
        raise _wrong(config, "data.reader", f"{data.name!r} can be read by {' or '.join(readers)}")
    if data.protocol not in names:
        raise _wrong(config, "data.protocol", f"data.name={data.name!r} can be split by {' or '.join(names)}")
    if data.resize and data.resize < data.image_size:
        raise _wrong(config, "data.resize", f"expected 0, or at least data.image_size={data.image_size}, the size of crops")
    if data.strip_prefix and data.reader != "lists":
        raise _wrong(
            config, "data.strip_prefix", "expected the reader of lists", fix="--config.data.reader=lists, or remove it"
        )
    if data.small_classes != "error" and not datasets.has_small_classes(reader=data.reader, protocol=data.protocol):
        expected = "expected 'error', since no share of each class is drawn here"
        raise _wrong(config, "data.small_classes", expected, fix="remove it")
    if data.bit_depth and not datasets.has_bit_depth(name=data.name, reader=data.reader):
        expected = f"expected 0, since the files of {data.name} have 8 bits a pixel"
        raise _wrong(config, "data.bit_depth", expected, fix="remove it")
    for key in ("feature_views", "feature_cache"):
        if data[key] and config.optim.trunk_lr_scale:
            raise _wrong(config, f"data.{key}", "expected a frozen backbone", fix="--config.optim.trunk_lr_scale=0")


def _check_weights(config: ConfigDict) -> None:
    unused = {"label_codes"}  # of the B-step, not of the loss
    if "objective" in config:
        unused |= set() if config.objective.difference else {"difference"}
        unused |= set() if config.objective.label_net else {"guidance", "code_guidance"}
    for section in ("objective", "label_net"):
        if section in config and not any(weight for name, weight in config[section].weights.items() if name not in unused):
            raise InputError(f"config.{section}.weights are 0 for all losses in use; fix: --config.{section}.weights.NAME=1")


def _check_networks(config: ConfigDict) -> None:
    """Check a method's settings, the query net, views of features, and parameter sharding."""
    section = "objective" if config.method == "adsq" else "baseline"
    recipe = methods.find(config.method, allow_import=config.method in sys.modules)
    try:
        method = recipe(**config[section].to_dict())
    except InputError as error:
        raise InputError(f"config.{section}: {error}") from error
    if config.eval.query_net != "ff" and not method.twin:
        fix = "--config.eval.query_net=ff" + (", with --config.objective.twin=False" if section == "objective" else "")
        raise _wrong(config, "eval.query_net", f"expected ff: {config.method} trains one network here", fix=fix)
    if method.second_view and not config.optim.trunk_lr_scale and config.data.feature_views < 2:
        fix = "--config.data.feature_views=4" + (
            ", or --config.objective.weights.consistency=0" if section == "objective" else ""
        )
        expected = f"expected at least 2, since {config.method} compares two views of each image"
        raise _wrong(config, "data.feature_views", expected, fix=fix)
    if config.shard_parameters and config.parallel != "shard_map":
        raise _wrong(config, "shard_parameters", f"{config.parallel} can't shard parameters", fix="--config.parallel=shard_map")


def _check_model(config: ConfigDict) -> None:
    model = config.model
    try:
        backbones.check_side(model.backbone, config.data.image_size)
    except ValueError as error:
        raise _wrong(config, "data.image_size", str(error)) from error
    try:
        backbones.build(model.backbone, width=model.width, layers=layers.Layers())
    except ValueError as error:
        raise _wrong(config, "model.width", str(error)) from error
    if model.pretrained and model.backbone not in pretrained.LAYOUTS:
        networks = ", ".join(pretrained.LAYOUTS)
        raise _wrong(config, "model.pretrained", f"there are none for {model.backbone}, only for {networks}", fix="remove it")
    if model.dropout and (model.backbone not in backbones.WITH_DROPOUT or not config.optim.trunk_lr_scale):
        networks = " or ".join(backbones.WITH_DROPOUT)
        raise _wrong(config, "model.dropout", f"expected 0, unless {networks} is trained", fix="remove it")


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
        raise _wrong(config, "optim.name", str(error)) from error


def _wrong(config: ConfigDict, key: str, problem: str, *, fix: str = "") -> InputError:
    """Return the error of one value; without a `fix`, the advice is to set the key."""
    value = functools.reduce(lambda section, name: section[name], key.split("."), config)
    return InputError(f"config.{key}={value!r}: {problem}; fix: {fix or f'--config.{key}=VALUE'}")


def _kinds(default: Any) -> tuple[type, ...]:
    return (int, float) if isinstance(default, float) else (type(default),)


def _leaves(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Return all values by their dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            leaves |= _leaves(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
