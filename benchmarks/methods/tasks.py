"""What the comparison trains: the trials of each method, the runs with the best trial's settings, and their configs."""

import argparse
import ast
import contextlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from adsq_jax import config as config_module
from adsq_jax import config_check, methods
from adsq_jax.errors import InputError
from benchmarks.methods import run_file, variants

ADSQ = "adsq"
RATES = (2e-3, 8e-3)
ADSQ_TUNING_GRID = (  # a softmax over the neighbours; or each pair alone, and each bit's likelihood under LabelNet's codes
    {
        "objective.weights.likelihood": 0.0,
        "objective.weights.neighbours": 0.5,
        "objective.weights.guidance": 0.1,
        "objective.weights.quantization": 0.03,
        "objective.weights.label_codes": 0.0,
    },
    {
        "objective.weights.likelihood": 0.1,
        "objective.weights.guidance": 0.1,
        "objective.weights.quantization": 0.0,
        "objective.weights.bit_likelihood": 1.0,
        "objective.weights.label_codes": 1.0,
    },
)
TRIAL_BITS, TRIAL_SEED = 24, 0
TASK_KEYS = (
    "method",
    "bits",
    "seed",
    "data.validation",
    "eval.query_net",
    "objective.twin",
)  # not for --set


class Task(NamedTuple):
    """One training."""

    method: str
    bits: int
    seed: int
    changes: dict[str, Any]  # by dotted config key
    validation: int = 0  # the number of training images held out; a trial holds out some
    held_out: Mapping[str, Any] = {}  # by dotted config key: the split of a trial, where `validation` doesn't draw it
    trial: int | None = None
    condition: str = ""
    variant: str = ""

    @property
    def name(self) -> str:
        """The name of its line in runs.jsonl."""
        return run_file.name_of(self._asdict())


def trials(method: str, *, validation: int, split: Mapping[str, Any]) -> list[Task]:
    """Return the four trials of a method: two learning rates by two settings.

    Args:
      method: a name of METHODS.
      validation: the number of training images held out.
      split: config keys of the trials' own split, or empty.
    """
    grid = ADSQ_TUNING_GRID
    if method != ADSQ:
        grid = tuple({f"baseline.{key}": value for key, value in row.items()} for row in methods.find(method).tuning_grid)
    changes = [{"optim.learning_rate": rate, **choice} for rate in RATES for choice in grid]
    return [
        Task(method, TRIAL_BITS, TRIAL_SEED, change, validation=validation, held_out=split, trial=number)
        for number, change in enumerate(changes)
    ]


def runs(best: Mapping[str, Task], given: argparse.Namespace, *, condition: str = "") -> list[Task]:
    """Return a run of each method, code length and seed, with the settings of the method's best trial."""
    return [
        Task(method, bits, seed, trial.changes, trial=trial.trial, condition=condition)
        for seed in given.seeds
        for bits in given.bits
        for method, trial in best.items()
    ]


def variant_runs(trial: Task, given: argparse.Namespace) -> list[Task]:
    """Return the runs of ADSQ's variants: the settings of `trial`, without its split, and one change, where it is one."""
    plain = fingerprint(config_of(trial, given))
    tasks = [
        Task(ADSQ, bits, seed, {**trial.changes, **variants.VARIANTS[name]}, trial=trial.trial, variant=name)
        for name in chosen_variants(given.variants)
        for seed in given.seeds
        for bits in given.bits
    ]
    return [task for task in tasks if fingerprint(config_of(task._replace(bits=trial.bits, seed=trial.seed), given)) != plain]


def chosen_methods(text: str) -> list[str]:
    """Return the methods that --methods names."""
    if text == "all":
        return list(methods.METHODS)
    for name in names(text):
        if name != ADSQ:
            methods.find(name)
    return list(names(text))


def chosen_variants(text: str) -> list[str]:
    """Return the variants that --variants names."""
    chosen = list(variants.VARIANTS) if text == "all" else list(names(text))
    unknown = [name for name in chosen if name not in variants.VARIANTS]
    if unknown:
        known = ", ".join(variants.VARIANTS)
        raise InputError(f"--variants: no {', '.join(unknown)} in benchmarks/methods/variants.py: give {known}")
    return chosen


def names(text: str) -> tuple[str, ...]:
    """Parse `noise20,few20`; each name comes once."""
    return tuple(dict.fromkeys(text.split(",")))


def set_name(config: str) -> str:
    """Return the data set's name: the config file's, without its arguments."""
    return Path(config.split(":")[0]).stem


def config_of(task: Task, given: argparse.Namespace) -> ConfigDict:
    """Build and check the config of a task: the file's, changed by --set, then by the task.

    Raises:
      InputError: there is no such file, it gives no config, or a value isn't allowed.
    """
    path, _, argument = given.config.partition(":")
    config = _from_file(path, ",".join(filter(None, [argument, f"bits={task.bits}", f"method={task.method}"])))
    config.seed = task.seed
    config.host_devices = 1
    config.data.validation = 0 if task.held_out else task.validation
    config.checkpoint.update(every_rounds=config.train.rounds, keep=1)
    if config.optim.trunk_lr_scale == 0:
        config.data.feature_cache = str(given.work / "features")
    for key, value in {**dict(read_setting(text) for text in given.set), **task.held_out, **task.changes}.items():
        try:
            config.update_from_flattened_dict({key: value})
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{key}={value!r} can't be set ({error}): adsq_jax/config.py has every config key") from error
    if task.method == ADSQ and not config.objective.twin:
        config.eval.query_net = "ff"
    config_check.check(config)
    return config


def _from_file(path: str, argument: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise InputError(f"--config={path} is no file of configs/: give for instance configs/stamps.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(argument)
    except InputError:
        raise
    except Exception as error:  # a Python file may raise anything
        raise InputError(f"--config={path} gives no config: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config={path}: expected a ConfigDict of get_config, got {type(config).__name__}")
    return config


def fingerprint(config: ConfigDict) -> str:
    """Return a hash of every config key but data.feature_cache, which changes no result."""
    same = config.copy_and_resolve_references()
    same.data.feature_cache = ""
    return config_module.sha256(same)


def read_setting(text: str) -> tuple[str, Any]:
    """Parse `KEY=VALUE`; a value that is no Python literal is text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{text!r}: expected KEY=VALUE, as optim.learning_rate=1e-3")
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = ast.literal_eval(value)
    return key, value
