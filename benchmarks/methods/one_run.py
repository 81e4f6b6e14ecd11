"""One training of the comparison, in a worker process: train, measure, and return the line for runs.jsonl."""

import argparse
import contextlib
import gc
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adsq_jax import codes, main
from adsq_jax import config as config_module
from adsq_jax.data import datasets
from adsq_jax.devices import data_parallel, host
from adsq_jax.retrieval import hamming, metrics
from adsq_jax.run import codes_folder, environment
from adsq_jax.training import NotFinite, loop
from benchmarks.methods import conditions, tasks
from benchmarks.methods.tasks import Task

KEPT = (
    *("map", "map_at", "map_by_query_net", "query_net", "precision_radius2", "empty_balls", "protocol", "machine"),
    *("split_sha256", "n_query", "n_train", "n_database", "date", "versions", "code_sha256"),
)


def start_worker(numbers: Any, given: argparse.Namespace) -> None:
    """Give a worker process its own part of the cores and one device, before JAX starts.

    Args:
      numbers: a queue with the number of each worker.
      given: the command line.
    """
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[numbers.get() % len(cores) :: given.jobs])
    host.split_into_devices(batch_size=1, host_devices=1)
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(given.work.absolute() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def train(task: Task, given: argparse.Namespace) -> dict[str, Any]:
    """Train and measure.

    Returns:
      The run's line. A trial whose loss isn't finite has mAP 0 and `failed`, so that no run takes its settings.

    Raises:
      NotFinite: the loss of a run, not of a trial, isn't finite.
    """
    config = tasks.config_of(task, given)
    given.work.mkdir(parents=True, exist_ok=True)
    jax.clear_caches()
    gc.collect()
    reset_peak()
    began, prefix = time.monotonic(), f"{task.name.replace(', ', '_')}_{os.getpid()}_"
    with tempfile.TemporaryDirectory(dir=given.work, prefix=prefix) as folder, output_to(given.work / "log.txt"):
        dataset = datasets.load(config_module.data_settings(config))
        trained, measured = conditions.apply(task.condition, dataset)
        devices = data_parallel.DataParallel(config.parallel, devices=data_parallel.devices_for_batch(config.train.batch_size))
        setup = replace(loop.setup_from_config(config, trained, devices=devices), data=measured)
        try:
            result = main.train_and_evaluate(setup, config, Path(folder), began=began)
            line = {**identity(task, given), **from_result(result), **precision_by_query(Path(folder), result)}
        except NotFinite as error:
            if not task.validation:
                raise
            line = {**identity(task, given), "map": 0.0, "failed": str(error), **environment.environment()}
            line |= {"seconds": round(time.monotonic() - began, 2)}
    return line | {"config_sha256": tasks.fingerprint(config), "memory_mib": round(peak_mib())}


def identity(task: Task, given: argparse.Namespace) -> dict[str, Any]:
    """Return the part of a line that says which run it is."""
    return {
        "set": tasks.set_name(given.config),
        **{name: getattr(task, name) for name in ("method", "variant", "condition", "bits", "seed", "trial", "validation")},
        "settings": {key.removeprefix("baseline."): value for key, value in task.changes.items()},
        "settings_of_all": dict(map(tasks.read_setting, given.set)),
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
    """Return each query's average precision in units of 1e-4.

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
            precisions[name] = np.rint(scores * 1e4).astype(int).tolist()
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
