"""The methods under one harness: the same nets, data, budget, tuning and metric, one small JSON a run.

    python -m benchmarks.methods.compare --config=configs/stamps.py --validation=200 --methods=all --bits=12,24,48 --seeds=0,1,2
    python -m benchmarks.methods.report --write

First each method is tuned: four trials, two learning rates by the two choices that its file names (TUNING_GRID), on training
images held out, at 24 bits and seed 0. Then it is trained with its best trial's settings at each code length and seed, on
the whole training set, and measured on the protocol's queries. What is there is not run again, so the command can be
stopped and given again at any time; give it more methods, bits or seeds to go on.
`benchmarks/methods/compare.sh` has the commands of RESULTS.md.
"""

import argparse
import ast
import contextlib
import gc
import importlib.util
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from adsq_jax import codes, config_check, main, methods
from adsq_jax import config as config_module
from adsq_jax.data import datasets
from adsq_jax.devices import data_parallel, host
from adsq_jax.errors import InputError
from adsq_jax.retrieval import hamming, metrics
from adsq_jax.run import codes_folder, environment
from adsq_jax.training.rounds import NotFinite, Trainer
from benchmarks.methods import conditions, variants

OUT = Path("benchmarks/results/compare")
WORK = Path("runs/compare")
ADSQ = "adsq"
RATES = (2e-3, 8e-3)
ADSQ_TUNING_GRID = (  # who is nearer than whom; or each pair alone, and each bit's likelihood under LabelNet's codes
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
HELD_OUT = 0.2  # of the training set, if --validation isn't given
OWN_KNOBS = ("method", "bits", "seed", "data.validation", "eval.query_net", "objective.twin")  # of each task: not for --set


class Task(NamedTuple):
    """One training, and where its JSON goes."""

    path: Path
    method: str
    bits: int
    seed: int
    changes: dict[str, Any]  # of the config, by dotted key
    validation: int = 0
    held_out: Mapping[str, Any] = {}  # of the config, by dotted key: a split to tune on, instead of one drawn by `validation`
    trial: int | None = None
    condition: str = ""
    variant: str = ""


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a file of configs/, maybe with :protocol=...; its name is the set's")
    parser.add_argument("--methods", default="all", help="all, or names with commas between")
    parser.add_argument("--bits", type=numbers, default=(12, 24, 48))
    parser.add_argument("--seeds", type=numbers, default=(0, 1, 2))
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--beyond", type=names, default=(), help=", ".join(conditions.NAMES))
    instead.add_argument("--variants", default="", help="all, or names of benchmarks/methods/variants.py: changed ADSQs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a knob for all runs")
    parser.add_argument("--validation", type=int, default=0, help="training images held out for the trials; 0: a fifth")
    parser.add_argument(
        "--held-out",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="instead: a knob of the trials' own split, for instance data.lists=FOLDER: for images that no draw must part",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on its share of the cores")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=WORK, help="where runs are while they last, and features of frozen trunks")
    return parser.parse_args(given)


def names(text: str) -> tuple[str, ...]:
    """Reads `noise20,few20`."""
    return tuple(dict.fromkeys(text.split(",")))


def numbers(text: str) -> tuple[int, ...]:
    """Reads `12,24,48`."""
    return tuple(dict.fromkeys(int(number) for number in text.split(",")))


def run(given: argparse.Namespace) -> None:
    """Everything that is asked for and not there yet: trials, then runs, then what is beyond.

    Raises:
      InputError: a method, code length or config is not as it should be, or what is there is of another config.
    """
    folder = given.out / Path(given.config.split(":")[0]).stem
    methods = chosen_methods(given.methods)
    check(given, methods)
    split = dict(map(read_knob, given.held_out))
    validation = held_out(given, methods[0], split=split)
    work([task for method in methods for task in trials(method, folder, validation=validation, split=split)], given)
    best = {method: best_trial(folder, method) for method in methods}
    if given.beyond:
        tasks = [task for name in given.beyond for task in runs(folder / "beyond" / name, best, given, condition=name)]
    elif given.variants:
        tasks = variant_tasks(folder / "variants", best[ADSQ], given)
    else:
        tasks = runs(folder / "runs", best, given)
    work(tasks, given)


def check(given: argparse.Namespace, methods: list[str]) -> None:
    """Finds out before the first run what can't be.

    Raises:
      InputError: as `run`.
    """
    if given.jobs < 1:
        raise InputError(f"--jobs={given.jobs} must be at least 1")
    tried = {key for method in methods for task in trials(method, Path(), validation=0, split={}) for key in task.changes}
    own = [key for key, _ in map(read_knob, given.set) if key in tried.union(OWN_KNOBS)]
    if own:
        raise InputError(
            f"--set {own[0]}: each run has its own, by --methods, --bits, --seeds, --validation or its method's trials"
        )
    others = [key for key, _ in map(read_knob, given.held_out) if not key.startswith("data.")]
    if others:
        raise InputError(f"--held-out {others[0]}: expected a knob of config.data, as data.lists=FOLDER")
    if given.held_out and given.validation:
        raise InputError("--validation and --held-out both say what the trials hold out: give one")
    for name in given.beyond:
        conditions.check(name)
    if given.variants:
        chosen_variants(given.variants)
        if ADSQ not in methods:
            raise InputError(f"--variants are changed ADSQs: give --methods={ADSQ} with them")
    for method in methods:
        for bits in given.bits:
            config_of(Task(Path(), method, bits, TRIAL_SEED, {}), given)
    for seed in given.seeds:
        config_of(Task(Path(), methods[0], TRIAL_BITS, seed, {}), given)


def chosen_methods(text: str) -> list[str]:
    """The methods that --methods names."""
    if text == "all":
        return [ADSQ, *methods.METHODS]
    for name in names(text):
        if name != ADSQ:
            methods.find(name)
    return list(names(text))


def held_out(given: argparse.Namespace, method: str, *, split: Mapping[str, Any]) -> int:
    """How many training images the trials hold out: by --held-out, or an even number to draw.

    Raises:
      InputError: --validation isn't one, --held-out has others than training images, or the data aren't there.
    """
    task = Task(Path(), method, TRIAL_BITS, TRIAL_SEED, {})
    dataset = datasets.load(config_module.data_settings(config_of(task, given)))
    n_train = len(dataset.split.train)
    if split:
        config = config_of(task._replace(held_out=split), given)
        tuned = datasets.load(config_module.data_settings(config))
        known = {dataset.source.name(int(row)) for row in dataset.split.train}
        others = {tuned.source.name(int(row)) for rows in tuned.split for row in rows} - known
        if others:
            raise InputError(f"--held-out: {min(others)} is no training image of {given.config}: give a split of these alone")
        return n_train - len(tuned.split.train)
    validation = given.validation or int(HELD_OUT * n_train) // 2 * 2
    if validation % 2 or not 2 <= validation < n_train:
        raise InputError(
            f"--validation={validation} must be an even number, at least 2 and below the {n_train} training images"
        )
    return validation


def trials(method: str, folder: Path, *, validation: int, split: Mapping[str, Any]) -> list[Task]:
    """The four of a method."""
    choices = ADSQ_TUNING_GRID
    if method != ADSQ:
        choices = tuple(
            {f"baseline.{key}": value for key, value in tried.items()} for tried in methods.find(method).TUNING_GRID
        )
    changes = [{"optim.learning_rate": rate, **choice} for rate in RATES for choice in choices]
    return [
        Task(
            folder / "trials" / f"{method}_{number}.json",
            method,
            TRIAL_BITS,
            TRIAL_SEED,
            change,
            validation=validation,
            held_out=split,
            trial=number,
        )
        for number, change in enumerate(changes)
    ]


def best_trial(folder: Path, method: str) -> Task:
    """The trial with the highest mAP on the held-out images."""
    found = trials(method, folder, validation=0, split={})
    return max(found, key=lambda task: left(task.path)["map"])


def runs(folder: Path, best: dict[str, Task], given: argparse.Namespace, *, condition: str = "") -> list[Task]:
    """A run of each method, code length and seed."""
    return [
        Task(
            folder / f"{method}_{bits}bits_seed{seed}.json",
            method,
            bits,
            seed,
            trial.changes,
            trial=trial.trial,
            condition=condition,
        )
        for seed in given.seeds
        for bits in given.bits
        for method, trial in best.items()
    ]


def variant_tasks(folder: Path, trial: Task, given: argparse.Namespace) -> list[Task]:
    """ADSQ with its best settings and one change, for each variant that is one, code length and seed."""
    plain = fingerprint(config_of(trial, given))
    tasks = [
        Task(
            folder / f"{name}_{bits}bits_seed{seed}.json",
            ADSQ,
            bits,
            seed,
            {**trial.changes, **variants.VARIANTS[name]},
            trial=trial.trial,
            variant=name,
        )
        for name in chosen_variants(given.variants)
        for seed in given.seeds
        for bits in given.bits
    ]
    return [task for task in tasks if fingerprint(config_of(task._replace(bits=trial.bits, seed=trial.seed), given)) != plain]


def chosen_variants(text: str) -> list[str]:
    """The variants that --variants names."""
    chosen = list(variants.VARIANTS) if text == "all" else list(names(text))
    unknown = [name for name in chosen if name not in variants.VARIANTS]
    if unknown:
        raise InputError(
            f"--variants: no {', '.join(unknown)} in benchmarks/methods/variants.py: give {', '.join(variants.VARIANTS)}"
        )
    return chosen


def config_of(task: Task, given: argparse.Namespace) -> ConfigDict:
    """The config of a task: the file's, the knobs for all, then the task's."""
    path, _, argument = given.config.partition(":")
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise InputError(f"--config={path} is no file of configs/: give for instance configs/stamps.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(",".join(filter(None, [argument, f"bits={task.bits}", f"method={task.method}"])))
    except InputError:
        raise
    except Exception as error:  # whatever a file of Python may raise
        raise InputError(f"--config={path} gives no config: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config={path}: get_config gives {type(config).__name__}, not a ConfigDict of ml_collections")
    config.seed = task.seed
    config.host_devices = 1
    config.data.validation = 0 if task.held_out else task.validation
    config.checkpoint.update(every_rounds=config.train.rounds, keep=1)
    if config.optim.trunk_lr_scale == 0:
        config.data.feature_cache = str(given.work / "features")
    for key, value in {**dict(read_knob(text) for text in given.set), **task.held_out, **task.changes}.items():
        try:
            config.update_from_flattened_dict({key: value})
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{key}={value!r} can't be set ({error}): adsq_jax/config.py has every knob") from error
    if task.method == ADSQ and not config.objective.twin:
        config.eval.query_net = "ff"
    config_check.check(config)
    return config


def fingerprint(config: ConfigDict) -> str:
    """A hash of every knob, but for where features are kept, which changes no result."""
    same = config.copy_and_resolve_references()
    same.data.feature_cache = ""
    return config_module.sha256(same)


def read_knob(text: str) -> tuple[str, Any]:
    """Reads `KEY=VALUE`; what isn't a number or another literal is a text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{text!r}: expected KEY=VALUE, as optim.learning_rate=1e-3")
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = ast.literal_eval(value)
    return key, value


def work(tasks: list[Task], given: argparse.Namespace) -> None:
    """Runs the tasks whose JSON isn't there."""
    missing = []
    for task in tasks:
        wanted = fingerprint(config_of(task, given))
        if not task.path.exists():
            missing.append(task)
        elif left(task.path)["config_sha256"] != wanted:
            raise InputError(f"{task.path} is of another config: remove it, or give another --out")
    if not missing:
        return
    try:
        for folder in (given.work, *{task.path.parent for task in missing}):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename} can't be made ({error.strerror}): give another --out or --work") from error
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(given.jobs):
        numbers.put(number)
    with ProcessPoolExecutor(given.jobs, mp_context=context, initializer=begin, initargs=(numbers, given)) as pool:
        try:
            with deaf():
                running = {pool.submit(do, task, given): task for task in missing}
            for done in tqdm(as_completed(running), total=len(missing), unit=" runs", dynamic_ncols=True):
                task, score = running[done], outcome(done, running[done])
                tqdm.write(f"{task.path.relative_to(given.out)}: mAP {score:.4f}", file=sys.stderr)
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if not isinstance(error, Exception):
                end_workers(given.work)
            raise


def outcome(done: Future[float], task: Task) -> float:
    """The mAP of a run that has ended.

    Raises:
      InputError: it didn't end well; names its JSON.
    """
    try:
        return done.result()
    except InputError as error:
        raise InputError(f"{task.path}: {error}") from error
    except BrokenProcessPool as error:
        raise InputError(f"{task.path} or a run beside it was killed, maybe for its memory: give fewer --jobs") from error


def left(path: Path) -> dict[str, Any]:
    """Reads a run's JSON."""
    try:
        found = json.loads(path.read_text())
        return {**found, "map": float(found["map"]), "config_sha256": str(found["config_sha256"])}
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no result of a run: remove it, or give another --out") from error


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Processes that start meanwhile don't hear Ctrl-C, which a terminal sends to all: the one that started them ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_workers(folder: Path) -> None:
    """Ends this process's workers at once, and removes what they were at."""
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
        for run_folder in folder.glob(f"*_{worker.pid}_????????"):
            shutil.rmtree(run_folder, ignore_errors=True)


def begin(numbers: Any, given: argparse.Namespace) -> None:
    """Gives a worker its share of the cores, and one device, before JAX starts."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[numbers.get() % len(cores) :: given.jobs])
    host.split_into_devices(batch_size=1, host_devices=1)
    jax.config.update("jax_compilation_cache_dir", str(given.work.absolute() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def do(task: Task, given: argparse.Namespace) -> float:
    """Trains and measures, and writes the JSON whole or not at all; returns mAP."""
    config = config_of(task, given)
    given.work.mkdir(parents=True, exist_ok=True)
    jax.clear_caches()
    gc.collect()
    forget_peak()
    began, prefix = time.monotonic(), f"{task.path.stem}_{os.getpid()}_"
    with tempfile.TemporaryDirectory(dir=given.work, prefix=prefix) as folder, quiet(given.work / "log.txt"):
        dataset = datasets.load(config_module.data_settings(config))
        trained, measured = conditions.apply(task.condition, dataset)
        devices = data_parallel.DataParallel(config.parallel, devices=data_parallel.devices_for_batch(config.train.batch_size))
        trainer = Trainer(config, trained, parallel=devices)
        trainer.dataset = measured
        try:
            result = main.run(trainer, Path(folder), began=began)
            found = {**kept(result, identity(task, given)), **by_query(Path(folder), result)}
        except NotFinite as error:
            if not task.validation:
                raise
            found = {**identity(task, given), "map": 0.0, "failed": str(error), **environment.environment()}
            found |= {"seconds": round(time.monotonic() - began, 2)}
    found |= {"config_sha256": fingerprint(config), "memory_mib": round(peak_mib())}
    task.path.parent.mkdir(parents=True, exist_ok=True)
    partial = task.path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    partial.replace(task.path)
    return found["map"]


def identity(task: Task, given: argparse.Namespace) -> dict[str, Any]:
    """What a run is of."""
    return {
        "set": Path(given.config.split(":")[0]).stem,
        **{name: getattr(task, name) for name in ("method", "variant", "condition", "bits", "seed", "trial", "validation")},
        "settings": {key.removeprefix("baseline."): value for key, value in task.changes.items()},
        "settings_of_all": dict(map(read_knob, given.set)),
    }


def kept(result: dict[str, Any], which: dict[str, Any]) -> dict[str, Any]:
    """What of a result stays, beside which run it is of."""
    names = ("map", "map_at", "map_by_query_net", "query_net", "precision_radius2", "empty_balls", "protocol", "machine")
    names += ("split_sha256", "n_query", "n_train", "n_database", "date", "versions", "code_sha256")
    curves = {name: rounded(result[name]) for name in ("precision_at", "precision_recall")}
    return {
        **which,
        **{name: result[name] for name in names},
        **curves,
        "seconds": round(result["seconds"], 2),
    }


def rounded(tree: Any) -> Any:
    """Numbers to six digits after the point: curves for plots."""
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    return [rounded(value) for value in tree] if isinstance(tree, list) else round(tree, 6)


def by_query(folder: Path, result: dict[str, Any]) -> dict[str, list[int]]:
    """Each query's average precision in units of 1e-4, by the result's query net and by f alone."""
    packed, labels, bits = codes_folder.read(folder / "codes")
    cutoff = None if result["map_at"] == "all" else int(result["map_at"])
    found = {}
    for name, net in (("ap", result["query_net"]), ("ap_f", "ff")):
        if name == "ap" or net != result["query_net"]:
            query, database = codes.QUERY_NETS[net]
            counts, relevant = hamming.distance_histograms(
                packed["query"][query],
                packed["database"][database],
                query_labels=labels["query"],
                database_labels=labels["database"],
                bits=bits,
            )
            scores = metrics.average_precision(counts, relevant, cutoff=cutoff)
            found[name] = np.rint(scores * 1e4).astype(int).tolist()
    return found


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Sends what a run prints to a file, of which the last run stays."""
    with (
        log.with_suffix(f".{os.getpid()}.txt").open("w") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


def forget_peak() -> None:
    """Begins to count the process's peak memory anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The process's peak memory since then, in MiB; JAX itself and this module are in it."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # with its workers
    try:
        run(arguments(None))
    except InputError as problem:
        sys.stderr.write(f"error: {' '.join(str(problem).split())}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("stopped: the same command goes on\n")
        sys.exit(130)
