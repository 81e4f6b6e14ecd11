"""Measure what many label sets cost: `python -m benchmarks.speed.label_sets [--sets=10000,20000,40000] [--out=FILE]`.

Each size has a process of its own, which begins to train ADSQ by its defaults on as many 8x8 images, each with another three of
80 labels. Seconds are of an update of LabelNet, of one of an ImgNet with a batch of 128 (medians of --steps after the first),
and of one B-step. Core-seconds add up the cores, and don't count what other processes take. Memory is the peak of the process,
with Python and JAX in it. Writes benchmarks/results/label_sets/label_sets.json.
"""

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax import data, models, training
from adsq_jax.data.datasets import Dataset
from adsq_jax.devices import host
from adsq_jax.run import environment
from benchmarks.methods import one_run

SEED, LABELS, LABELS_AN_IMAGE, BITS, FEATURES, BATCH = 0, 80, 3, 48, 512, 128


def make_data(count: int) -> Dataset:
    """Make noise of 8x8 pixels with `count` different label sets, all of them in the training set."""
    random = np.random.default_rng(SEED)
    every = np.array(list(combinations(range(LABELS), LABELS_AN_IMAGE)))
    sets = random.choice(every, count, replace=False)  # [count, 3]
    labels = np.zeros((count, LABELS), np.uint8)
    labels[np.arange(count)[:, None], sets] = 1
    rows = np.arange(count)
    images = random.integers(0, 256, (count, 8, 8), np.uint8)
    return data.from_arrays(images, labels, query=rows[:0], train=rows, database=rows)


def measure(count: int, *, hidden: int, steps: int) -> dict[str, Any]:
    """Return the seconds of each part, and the process's peak memory after it, for a number of label sets."""
    seconds: dict[str, list[float]] = {}
    of_cores: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}

    def timed(name: str, part: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        began, worked = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(part(*arguments, **settings))
        seconds.setdefault(name, []).append(time.perf_counter() - began)
        of_cores.setdefault(name, []).append(time.process_time() - worked)
        peaks[name] = one_run.peak_mib() / 1024
        return result

    everything, network = make_data(count), models.build("small_cnn", bits=BITS, features=FEATURES)
    settings = training.LabelNetSettings(hidden=hidden)
    setup = timed("start", training.setup, everything, "adsq", network, batch_size=BATCH, label_net=settings)
    state = training.init(setup, seed=SEED)
    label_net = jax.tree.map(jnp.array, state.label_net)
    for step in range(steps + 1):
        name = "LabelNet" if step else "LabelNet, compiled"
        label_net, _ = timed(name, setup.label_net_step, label_net, setup.sets.sets, setup.frequencies)
    state = replace(state, label_net=label_net)
    fixed = training.targets(setup, state, net="f")
    batches = data.batches(everything, batch_size=BATCH, seed=SEED, epoch=0)
    for step, batch in zip(range(steps + 1), batches, strict=False):
        state, _ = timed("ImgNet" if step else "ImgNet, compiled", training.step, setup, state, batch, net="f", fixed=fixed)
    timed("B-step", training.update_codes, setup, state, refresh=False)
    return {
        "sets": count,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "core_seconds": {name: statistics.median(values) for name, values in of_cores.items()},
        "peak_gib": peaks,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="10000,20000,40000", help="numbers of label sets, at most 82,160")
    parser.add_argument("--hidden", type=int, default=4096, help="units of LabelNet's first layer")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/label_sets/label_sets.json"))
    given = parser.parse_args()
    rows = []
    for count in map(int, given.sets.split(",")):
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # a new process, whose peak is this size's
            rows.append(pool.apply(measure, (count,), {"hidden": given.hidden, "steps": given.steps}))
    content = {
        **environment.environment(),
        "machine": f"{platform.machine()}, {host.cores()} cores",
        "seed": SEED,
        "labels": LABELS,
        "labels_an_image": LABELS_AN_IMAGE,
        "bits": BITS,
        "batch": BATCH,
        "hidden": given.hidden,
        "features": FEATURES,
        "steps": given.steps,
        "rows": rows,
    }
    print(json.dumps(content, indent=1))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
