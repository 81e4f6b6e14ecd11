"""Measure the evaluator's speed beside NumPy's sort and faiss: `python -m benchmarks.speed.evaluator [--out=DIR]`.

Codes and labels are random with a fixed seed. The ways take turns; the figures are medians of the turns' ratios. With
--scale=ITEMS, only 10,000 queries against that many items, and the peak memory. Needs the extra `test` (faiss, matplotlib).
"""

import argparse
import json
import resource
import time
from pathlib import Path
from statistics import median

import numpy as np

from adsq_jax import retrieval, storage
from adsq_jax.devices import host, sharded_database
from adsq_jax.run import environment

SEED = 0
CASES = {  # queries, items, bits, labels (0: one of 10 classes), queries for timing NumPy's sort
    "1,000 x 54,000, 64 bits, 10 classes": (1_000, 54_000, 64, 0, 200),
    "5,000 x 200,000, 64 bits, 21 labels": (5_000, 200_000, 64, 21, 50),
}
TURNS = 7
FAISS_NEIGHBOURS = 100


def made_up(n_query: int, n_database: int, bits: int, labels: int) -> dict[str, np.ndarray]:
    """Draw packed codes, and class ids or multi-hot labels."""
    random = np.random.default_rng(SEED)
    data = {}
    for part, n in (("query", n_query), ("database", n_database)):
        data[f"{part}_codes"] = random.integers(0, 256, (n, bits // 8), dtype=np.uint8)
        data[f"{part}_labels"] = (
            (random.random((n, labels)) < 2.4 / labels).astype(np.uint8) if labels else random.integers(0, 10, n)
        )
    return data


def unpacked(data: dict[str, np.ndarray], *, bits: int, label_dtype: type) -> dict[str, np.ndarray]:
    """Return the arguments of `sort_based`: codes float32 in {-1, +1}, labels one-hot or multi-hot."""
    arrays = {}
    for part in ("query", "database"):
        ones = np.unpackbits(data[f"{part}_codes"], axis=1, count=bits, bitorder="little")
        arrays[f"{part}_codes"] = ones.astype(np.float32) * 2 - 1
        labels = data[f"{part}_labels"]
        arrays[f"{part}_labels"] = (np.eye(10)[labels] if labels.ndim == 1 else labels).astype(label_dtype)
    return arrays


def sort_based(data: dict[str, np.ndarray], *, n_query: int) -> float:
    """Compute mAP@all as usual in NumPy: a query at a time, signed products, argsort, precision at each hit.

    DeepHash-pytorch's list loader gives labels in int64; NumPy multiplies float32 faster.
    """
    total, bits = 0.0, data["query_codes"].shape[1]
    for i in range(n_query):
        relevant = data["query_labels"][i] @ data["database_labels"].T > 0
        distance = (bits - data["query_codes"][i] @ data["database_codes"].T) / 2
        ranks = np.flatnonzero(relevant[np.argsort(distance)]) + 1
        total += np.mean(np.arange(1, len(ranks) + 1) / ranks) if len(ranks) else 0.0
    return total / n_query


def bare_pass(data: dict[str, np.ndarray], devices: sharded_database.ShardedDatabase, *, batch_size: int | None = None):
    """Return a function that adds up XOR and population count of every pair: no exact evaluator can be faster.

    A CPU takes one query after the other, an accelerator `batch_size` at a time.
    """
    import jax
    import jax.numpy as jnp

    def total(query, shards):
        def one(code):
            return jnp.sum(jax.lax.population_count(code[:, None] ^ shards[0]).astype(jnp.int32))

        return jax.lax.map(one, query.T, batch_size=batch_size)

    words = {part: np.ascontiguousarray(data[f"{part}_codes"].view(np.uint32).T) for part in ("query", "database")}
    same, shards = devices.replicate(words["query"]), (devices.shard(words["database"]),)
    run = devices.build(total, add=True)
    return lambda: run(same, shards).block_until_ready()


def seconds(function) -> float:
    """Return the seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def compare(name: str, devices: sharded_database.ShardedDatabase) -> dict:
    """Time all ways on one case, in turns."""
    import faiss

    n_query, n_database, bits, labels, n_sorted = CASES[name]
    data = made_up(n_query, n_database, bits, labels)
    index = faiss.IndexBinaryFlat(bits)
    index.add(data["database_codes"])
    ways = {
        "evaluator": lambda: retrieval.measure(**data, bits=bits, devices=devices),
        "faiss": lambda: index.search(data["query_codes"], FAISS_NEIGHBOURS),
        "bare": bare_pass(data, devices),
    }
    for dtype in (np.int64, np.float32):  # unpacked before timing: only the time of the queries may be scaled up
        ready = unpacked(data, bits=bits, label_dtype=dtype)
        ways[f"sort {dtype.__name__}"] = lambda ready=ready: sort_based(ready, n_query=n_sorted)
    first = {way: seconds(run) for way, run in ways.items()}
    turns = [{way: seconds(run) for way, run in ways.items()} for _ in range(TURNS)]
    scaled = n_query / n_sorted
    took = median(turn["evaluator"] for turn in turns)
    return {
        "case": name,
        "seconds": took,
        "seconds_first_call": first["evaluator"],
        "seconds_faiss": median(turn["faiss"] for turn in turns),
        "seconds_sort": median(turn["sort int64"] for turn in turns) * scaled,
        "sort_timed_on_queries": n_sorted,
        "over_faiss": median(turn["evaluator"] / turn["faiss"] for turn in turns),
        "times_faster_than_sort": median(turn["sort int64"] / turn["evaluator"] for turn in turns) * scaled,
        "times_faster_than_sort_float32": median(turn["sort float32"] / turn["evaluator"] for turn in turns) * scaled,
        "distances_a_second": n_query * n_database / took,
        "share_of_bare_pass": median(turn["bare"] / turn["evaluator"] for turn in turns),
    }


def linear(devices: sharded_database.ShardedDatabase) -> dict[str, list[tuple[int, float]]]:
    """Measure seconds by queries, items and bits, varying one at a time; each the best of three."""
    base = {"n_query": 1_000, "n_database": 100_000, "bits": 64}
    grown = {
        "n_query": (500, 1_000, 2_000, 4_000),
        "n_database": (50_000, 100_000, 200_000, 400_000),
        "bits": (32, 64, 128, 256),
    }
    points: dict[str, list[tuple[int, float]]] = {}
    for name, sizes in grown.items():
        for size in sizes:
            shape = {**base, name: size}
            data = made_up(shape["n_query"], shape["n_database"], shape["bits"], 0)

            def run(data=data, bits=shape["bits"]):
                retrieval.measure(**data, bits=bits, devices=devices)

            run()
            points.setdefault(name, []).append((size, min(seconds(run) for _ in range(3))))
    return points


def plot(measured: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Draw a panel for each, with the least-squares line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3), layout="constrained", sharey=False)
    names = {"n_query": "queries", "n_database": "items in the database", "bits": "bits"}
    for axis, (name, points) in zip(axes, measured.items(), strict=True):
        sizes, times = np.array(points).T
        slope, start = np.polyfit(sizes, times, 1)
        line = np.array([0, sizes[-1] * 1.05])
        axis.plot(line, start + slope * line, color="0.6", label="straight line")
        axis.plot(sizes, times, "o", color="C0", label="measured")
        axis.set(xlabel=names[name], ylabel="seconds", xlim=(0, None), ylim=(0, None))
        axis.locator_params(axis="x", nbins=4)
    axes[0].legend(frameon=False)
    figure.suptitle("retrieval.measure; the other two fixed at 1,000 queries, 100,000 items, 64 bits")
    figure.savefig(path, dpi=120)


def scale(n_database: int, devices: sharded_database.ShardedDatabase, folder: Path) -> dict:
    """Measure 10,000 queries against a mapped file of many codes."""
    n_query, bits, block = 10_000, 64, 1 << 20
    random = np.random.default_rng(SEED)
    paths = {name: folder / f"scale_{name}.npy" for name in ("codes", "labels")}
    codes = np.lib.format.open_memmap(paths["codes"], mode="w+", dtype=np.uint8, shape=(n_database, bits // 8))
    labels = np.lib.format.open_memmap(paths["labels"], mode="w+", dtype=np.int32, shape=(n_database,))
    for start in range(0, n_database, block):
        rows = min(block, n_database - start)
        codes[start : start + rows] = random.integers(0, 256, (rows, bits // 8), dtype=np.uint8)
        labels[start : start + rows] = random.integers(0, 10, rows)
    del codes, labels
    query = random.integers(0, 256, (n_query, bits // 8), dtype=np.uint8), random.integers(0, 10, n_query)
    mapped = {name: np.load(path, mmap_mode="r") for name, path in paths.items()}

    def run(items: int) -> None:
        codes, labels = mapped["codes"][:items], mapped["labels"][:items]
        retrieval.measure(query[0], codes, query_labels=query[1], database_labels=labels, bits=bits, devices=devices)

    quarter = n_database // 4
    part, took = seconds(lambda: run(quarter)), seconds(lambda: run(n_database))
    for path in paths.values():
        path.unlink()
    return {
        "case": f"{n_query:,} x {n_database:,}, {bits} bits",
        "seconds": took,
        "seconds_of_a_quarter": part,
        "most_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "distances_a_second": n_query * n_database / took,
        "seconds_for_1e9_items_extrapolated": took + (took - part) / (n_database - quarter) * (1e9 - n_database),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=storage.path, default=Path("benchmarks/results/evaluator"), help="folder for JSON and plot"
    )
    parser.add_argument("--scale", type=int, help="only 10,000 queries against this many items")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    host.use_all_cores()
    devices = sharded_database.ShardedDatabase()
    about = {**environment.environment(), "machine": devices.describe(), "seed": SEED}
    if arguments.scale:
        content = {**about, "scale": scale(arguments.scale, devices, arguments.out)}
        path = arguments.out / "scale.json"
    else:
        content = {**about, "cases": [compare(name, devices) for name in CASES], "linear": linear(devices)}
        path = arguments.out / "speed.json"
        plot(content["linear"], arguments.out / "linear.png")
    print(json.dumps(content, indent=2))
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
