"""What the comparison trains: the trials of each method, the runs with the best trial's settings, and their configs."""

import ast
import contextlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from adsq_jax import config as config_module
from adsq_jax import config_check, methods
from adsq_jax.errors import InputError
from benchmarks.methods import run_file, variants

ADSQ = "adsq"
RATES = (2e-3, 8e-3)
TRIALS = 4  # two learning rates by two choices of settings
TRIAL_BITS, TRIAL_SEED = 24, 0
SECOND_SEED = 1_000  # from a run's seed to that of its second network, with the budget of two networks
BUDGETS = {"double": "twice the epochs", "two_nets": "two networks"}
TASK_KEYS = ("method", "bits", "seed", "data.validation", "eval.query_net", "objective.twin")  # not for --set


@dataclass(kw_only=True)
class Options:
    """What a comparison is asked for; `compare.compare` says what each option is."""

    config: str
    methods: Sequence[str] = ("all",)
    against: str = ""
    bits: Sequence[int] = (12, 24, 48)
    seeds: Sequence[int] = (0, 1, 2)
    trials: int = TRIALS
    conditions: Sequence[str] = ()
    variants: Sequence[str] = ()
    budgets: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    validation: int = 0
    held_out: Sequence[Mapping[str, Any]] = ()
    jobs: int = 1
    out: Path = Path("benchmarks/results/compare")
    work: Path = Path("runs/compare")

    def __post_init__(self) -> None:
        if not self.seeds:
            raise InputError(
                "--seeds: expected at least one seed, got none; fix: --seeds=3 for 0, 1 and 2, --seeds=0, for 0 alone"
            )
        self.methods = list(expand("methods", self.methods, known=methods.METHODS, check=find))
        self.variants = list(expand("variants", self.variants, known=variants.VARIANTS))
        self.budgets = list(expand("budget", self.budgets, known=BUDGETS))
        if self.against and self.against not in self.methods:
            raise InputError(
                f"--against={self.against}: expected one of --methods={','.join(self.methods)}; fix: name it there too"
            )


class Task(NamedTuple):
    """One training."""

    method: str
    bits: int
    seed: int
    changes: dict[str, Any]  # by dotted config key
    validation: int = 0  # the number of training images held out; a trial holds out some
    held_out: Mapping[str, Any] = {}  # by dotted config key: the split of a trial, where `validation` doesn't draw it
    trial: int | None = None  # None: the method's default settings
    fold: int = 0  # of a trial: which of the splits
    condition: str = ""
    variant: str = ""
    budget: str = ""

    @property
    def name(self) -> str:
        """The name of its line in runs.jsonl."""
        return run_file.name_of(self._asdict())


class Fold(NamedTuple):
    """A split of the training images for trials."""

    validation: int  # the number of training images held out
    held_out: Mapping[str, Any] = {}  # the config keys of the split, where `validation` doesn't draw it


def expand(
    flag: str, names: Iterable[str], *, known: Mapping[str, Any], check: Callable[[str], str] | None = None
) -> Iterator[str]:
    """Yield names of a flag, each once, and all known ones for `all`; `check` accepts others than the known ones.

    Raises:
      InputError: a name isn't known.
    """
    for name in dict.fromkeys(names):
        if name == "all":
            yield from known
        elif check is not None:
            yield check(name)
        elif name in known:
            yield name
        else:
            raise InputError(f"--{flag}={name}: expected all, or some of {', '.join(known)}")


def find(method: str) -> str:
    """Return the name of a method that there is; a dotted one is imported."""
    return methods.find(method, allow_import=True).name


def trials(method: str, *, folds: Sequence[Fold], count: int = TRIALS) -> list[Task]:
    """Return the trials of a method: the first of two learning rates by two choices of settings, each on every fold.

    Args:
      method: a name of METHODS, or of a module with a method.
      folds: the splits.
      count: how many on each fold, 0 to TRIALS.

    Raises:
      InputError: the method has no choices of settings.
    """
    section, grid = "objective" if method == ADSQ else "baseline", methods.find(method, allow_import=True).tuning_grid
    if count and not grid:
        raise InputError(
            f"--methods={method}: expected a TUNING_GRID in its module, got none; fix: write one, or give --trials=0"
        )
    changes = [{"optim.learning_rate": rate, **dict(dotted(section, choice))} for rate in RATES for choice in grid]
    return [
        Task(method, TRIAL_BITS, TRIAL_SEED, change, **fold._asdict(), trial=trial, fold=number)
        for trial, change in enumerate(changes[:count])
        for number, fold in enumerate(folds)
    ]


def best_trial(several: Sequence[Task], finished: Mapping[str, Mapping[str, Any]]) -> Task:
    """Return the trial with the highest mean mAP over its folds, the first of equals, as a task without a split."""
    scores: dict[int | None, list[float]] = {}
    for task in several:
        scores.setdefault(task.trial, []).append(finished[task.name]["map"])
    best = max(scores, key=lambda trial: mean(scores[trial]))
    return next(task for task in several if task.trial == best)._replace(validation=0, held_out={}, fold=0)


def dotted(section: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield a method's settings by their dotted config keys."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from dotted(f"{section}.{key}", value)
        else:
            yield f"{section}.{key}", value


def runs(best: Mapping[str, Task], options: Options, *, condition: str = "", budget: str = "") -> list[Task]:
    """Return a run of each method, code length and seed, with the settings of the method's best trial."""
    return [
        Task(method, bits, seed, trial.changes, trial=trial.trial, condition=condition, budget=budget)
        for seed in options.seeds
        for bits in options.bits
        for method, trial in best.items()
    ]


def variant_runs(trial: Task, options: Options) -> list[Task]:
    """Return the runs of ADSQ's variants: the settings of `trial`, without its split, and one change, where it is one."""
    plain = fingerprint(config_of(trial, options))
    tasks = [
        Task(ADSQ, bits, seed, {**trial.changes, **variants.VARIANTS[name]}, trial=trial.trial, variant=name)
        for name in options.variants
        for seed in options.seeds
        for bits in options.bits
    ]
    return [task for task in tasks if fingerprint(config_of(task._replace(bits=trial.bits, seed=trial.seed), options)) != plain]


def set_name(config: str) -> str:
    """Return the data set's name: the config file's, without its arguments."""
    return Path(config.split(":")[0]).stem


def config_of(task: Task, options: Options) -> ConfigDict:
    """Build and check the config of a task: the file's, changed by --set, then by the task.

    With the budget of two networks it is that of each, but for the seed.

    Raises:
      InputError: there is no such file, it gives no config, or a value isn't allowed.
    """
    path, _, argument = options.config.partition(":")
    config = _from_file(path, ",".join(filter(None, [argument, f"bits={task.bits}", f"method={task.method}"])))
    config.seed = task.seed
    config.host_devices = 1
    config.data.validation = 0 if task.held_out else task.validation
    config.checkpoint.update(every_rounds=config.train.rounds, keep=1)
    if config.optim.trunk_lr_scale == 0:
        config.data.feature_cache = str(options.work / "features")
    for key, value in {**options.settings, **task.held_out, **task.changes}.items():
        try:
            config.update_from_flattened_dict({key: value})
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{key}={value!r} can't be set ({error}): adsq_jax/config.py has every config key") from error
    if task.budget == "double":
        config.train.rounds *= 2
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


def read_folds(settings: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Collect the settings of --held-out: a key that is given again begins the next fold, with the other keys as before."""
    folds, given = list[dict[str, Any]](), set[str]()
    for key, value in settings:
        if not folds or key in given:
            folds.append(dict(folds[-1]) if folds else {})
            given = set()
        folds[-1][key] = value
        given.add(key)
    return folds


def read_setting(text: str) -> tuple[str, Any]:
    """Parse `KEY=VALUE`; a value that is no Python literal is text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{text!r}: expected KEY=VALUE, as optim.learning_rate=1e-3")
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = ast.literal_eval(value)
    return key, value
