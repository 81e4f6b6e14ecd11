"""One training of the comparison, in a worker process: train, measure, and return the line for runs.jsonl."""

import contextlib
import gc
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from adsq_jax import codes, main
from adsq_jax import config as config_module
from adsq_jax.data import datasets
from adsq_jax.devices import data_parallel, host
from adsq_jax.inference import evaluation
from adsq_jax.retrieval import hamming, metrics
from adsq_jax.retrieval.blocks import SingleDevice
from adsq_jax.run import codes_folder, environment
from adsq_jax.training import NotFinite, loop
from adsq_jax.training.setup import TrainSetup
from benchmarks.methods import conditions, tasks
from benchmarks.methods.scores import AP_UNITS
from benchmarks.methods.tasks import Options, Task

KEPT = (
    *("map", "map_at", "map_by_query_net", "query_net", "precision_radius2", "empty_balls", "protocol", "machine"),
    *("split_sha256", "n_query", "n_train", "n_database", "date", "versions", "code_sha256"),
)


def start_worker(numbers: Any, options: Options) -> None:
    """Give a worker process its own part of the cores and one device, before JAX starts.

    Args:
      numbers: a queue with the number of each worker.
      options: what the comparison is asked for.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[numbers.get() % len(cores) :: options.jobs])
    host.split_into_devices(batch_size=1, host_devices=1)
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(options.work.absolute() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def train(task: Task, options: Options) -> dict[str, Any]:
    """Train and measure.

    Returns:
      The run's line. A trial whose loss isn't finite has mAP 0 and `failed`, so that no run takes its settings.

    Raises:
      NotFinite: the loss of a run, not of a trial, isn't finite.
    """
    config = tasks.config_of(task, options)
    options.work.mkdir(parents=True, exist_ok=True)
    jax.clear_caches()
    gc.collect()
    reset_peak()
    began, prefix = time.monotonic(), f"{task.name.replace(', ', '_')}_{os.getpid()}_"
    with tempfile.TemporaryDirectory(dir=options.work, prefix=prefix) as folder, output_to(options.work / "log.txt"):
        pair = conditions.apply(task.condition, datasets.load(config_module.data_settings(config)))
        try:
            result = (two_networks if task.budget == "two_nets" else one_config)(config, pair, Path(folder), began=began)
            line = {**identity(task, options), **from_result(result), **precision_by_query(Path(folder), result)}
        except NotFinite as error:
            if not task.validation:
                raise
            line = {**identity(task, options), "map": 0.0, "failed": str(error), **environment.environment()}
            line |= {"seconds": round(time.monotonic() - began, 2)}
    return line | {"config_sha256": tasks.fingerprint(config), "memory_mib": round(peak_mib())}


def build(config: ConfigDict, pair: conditions.Pair) -> TrainSetup:
    """Build the setup that trains and measures on a pair of data sets."""
    devices = data_parallel.DataParallel(config.parallel, devices=data_parallel.devices_for_batch(config.train.batch_size))
    return replace(loop.setup_from_config(config, pair.trained, devices=devices), data=pair.measured)


def one_config(config: ConfigDict, pair: conditions.Pair, folder: Path, *, began: float) -> dict[str, Any]:
    """Train a config and measure it; return its result.json."""
    return main.train_and_evaluate(build(config, pair), config, folder, began=began)


def two_networks(config: ConfigDict, pair: conditions.Pair, folder: Path, *, began: float) -> dict[str, Any]:
    """Train a config of one network twice, with two seeds, and measure the sum of the relaxed codes.

    Args:
      config: the config with the first seed.
      pair: the data to train on, and the data to measure on.
      folder: a folder for both trainings, and for the codes.
      began: `time.monotonic()` when the run began.

    Returns:
      What a result.json of two networks has; f is the first seed's network and g the other.
    """
    encoders = {}
    for net, seed in (("f", config.seed), ("g", config.seed + tasks.SECOND_SEED)):
        seeded = config.copy_and_resolve_references()
        seeded.seed = seed
        setup = build(seeded, pair)
        setup, state, _ = loop.train(
            setup,
            directory=folder / net,
            features=loop.feature_directory(seeded, folder / net),
            saving=loop.saving_from_config(seeded),
            origin=loop.origin(setup, json.loads(seeded.to_json())),
            began=began,
        )
        encoders[net] = partial(setup.encoder, state.variables["f"])
    measured = evaluation.evaluate(
        lambda encode, rows: encode(rows),
        encoders,
        pair.measured,
        bits=config.bits,
        query_net="sum",
        directory=folder,
        devices=SingleDevice(),
    )
    seconds, machine = time.monotonic() - began, setup.devices.describe()
    return {**measured, **environment.environment(), "seconds": seconds, "machine": machine}


def identity(task: Task, options: Options) -> dict[str, Any]:
    """Return the part of a line that says which run it is."""
    return {
        "set": tasks.set_name(options.config),
        **{
            name: getattr(task, name)
            for name in ("method", "variant", "budget", "condition", "bits", "seed", "trial", "fold", "validation")
        },
        "settings": {key.removeprefix("baseline."): value for key, value in task.changes.items()},
        "settings_of_all": dict(options.settings),
    }


def from_result(result: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a result.json that a line keeps."""
    curves = {name: rounded(result[name]) for name in ("precision_at", "precision_recall")}
    return {**{name: result[name] for name in KEPT}, **curves, "seconds": round(result["seconds"], 2)}


def rounded(tree: Any) -> Any:
    """Round the numbers of a tree to six digits after the point."""
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    return [rounded(value) for value in tree] if isinstance(tree, list) else round(tree, 6)


def precision_by_query(folder: Path, result: dict[str, Any]) -> dict[str, list[int]]:
    """Return each query's average precision in units of 1 / AP_UNITS.

    Args:
      folder: the run's folder.
      result: its result.json.

    Returns:
      `ap` with the result's query net; `ap_f` with network f alone, where that is another one.
    """
    packed, labels, bits = codes_folder.read(folder / "codes")
    cutoff = None if result["map_at"] == "all" else int(result["map_at"])
    precisions = {}
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
            precisions[name] = np.rint(scores * AP_UNITS).astype(int).tolist()
    return precisions


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Send what a run prints to a file of this process, which holds the last run's."""
    with (
        log.with_suffix(f".{os.getpid()}.txt").open("w") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


def reset_peak() -> None:
    """Set the process's peak memory to its present memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Return the process's peak memory since `reset_peak` in MiB, which includes JAX and this module."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
