"""Speed of the evaluator, beside NumPy's sort and faiss, in one run: `python -m benchmarks.speed.evaluator [--out=DIR]`.

Random codes and labels of a fixed seed. Each way takes its turn several times, and the medians of the turns' ratios are told.
With --scale=ITEMS, only 10,000 queries against that many items, and the most memory that was held.
Needs the extra `test` (faiss, matplotlib).
"""

import argparse
import json
import resource
import time
from pathlib import Path
from statistics import median

import numpy as np

from adsq_jax import retrieval
from adsq_jax.devices import host, sharded_database
from adsq_jax.run import environment

SEED = 0
CASES = {  # queries, items, bits, labels (0: one of 10 classes), queries that NumPy's sort is timed on
    "1,000 x 54,000, 64 bits, 10 classes": (1_000, 54_000, 64, 0, 200),
    "5,000 x 200,000, 64 bits, 21 labels": (5_000, 200_000, 64, 21, 50),
}
TURNS = 7
FAISS_NEIGHBOURS = 100


def made_up(n_query: int, n_database: int, bits: int, labels: int) -> dict[str, np.ndarray]:
    """Packed codes, and class ids or multi-hot labels, of a fixed seed."""
    random = np.random.default_rng(SEED)
    made = {}
    for part, n in (("query", n_query), ("database", n_database)):
        made[f"{part}_codes"] = random.integers(0, 256, (n, bits // 8), dtype=np.uint8)
        made[f"{part}_labels"] = (
            (random.random((n, labels)) < 2.4 / labels).astype(np.uint8) if labels else random.integers(0, 10, n)
        )
    return made


def unpacked(data: dict[str, np.ndarray], *, bits: int, label_dtype: type) -> dict[str, np.ndarray]:
    """What `sort_based` takes: codes float32 in {-1, +1}, labels one-hot or multi-hot."""
    made = {}
    for part in ("query", "database"):
        ones = np.unpackbits(data[f"{part}_codes"], axis=1, count=bits, bitorder="little")
        made[f"{part}_codes"] = ones.astype(np.float32) * 2 - 1
        labels = data[f"{part}_labels"]
        made[f"{part}_labels"] = (np.eye(10)[labels] if labels.ndim == 1 else labels).astype(label_dtype)
    return made


def sort_based(data: dict[str, np.ndarray], *, n_query: int) -> float:
    """mAP@all as the field computes it in NumPy: a query at a time, signed products, argsort, precision at each hit.

    Labels in int64 are what the list loader of DeepHash-pytorch gives; in float32 NumPy multiplies them faster.
    """
    found, bits = 0.0, data["query_codes"].shape[1]
    for i in range(n_query):
        relevant = data["query_labels"][i] @ data["database_labels"].T > 0
        distance = (bits - data["query_codes"][i] @ data["database_codes"].T) / 2
        ranks = np.flatnonzero(relevant[np.argsort(distance)]) + 1
        found += np.mean(np.arange(1, len(ranks) + 1) / ranks) if len(ranks) else 0.0
    return found / n_query


def bare_pass(data: dict[str, np.ndarray], spread: sharded_database.ShardedDatabase):
    """XOR and population count of every pair, added up, and nothing else: what no exact evaluator can be faster than."""
    import jax
    import jax.numpy as jnp

    def total(query, shards):
        def one(code):
            return jnp.sum(jax.lax.population_count(code[:, None] ^ shards[0]).astype(jnp.int32))

        return jax.lax.map(one, query.T)

    words = {part: np.ascontiguousarray(data[f"{part}_codes"].view(np.uint32).T) for part in ("query", "database")}
    same, shards = spread.replicate(words["query"]), (spread.shard(words["database"]),)
    run = spread.build(total, add=True)
    return lambda: run(same, shards).block_until_ready()


def seconds(function) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def compare(name: str, spread: sharded_database.ShardedDatabase) -> dict:
    """All ways on one case, taking turns."""
    import faiss

    n_query, n_database, bits, labels, n_sorted = CASES[name]
    data = made_up(n_query, n_database, bits, labels)
    index = faiss.IndexBinaryFlat(bits)
    index.add(data["database_codes"])
    ways = {
        "evaluator": lambda: retrieval.measure(**data_of(data), bits=bits, devices=spread),
        "faiss": lambda: index.search(data["query_codes"], FAISS_NEIGHBOURS),
        "bare": bare_pass(data, spread),
    }
    for dtype in (np.int64, np.float32):  # prepared here: only the queries' own time may be scaled up
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


def data_of(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arguments of `retrieval.measure`."""
    return {name: data[name] for name in ("query_codes", "database_codes", "query_labels", "database_labels")}


def linear(spread: sharded_database.ShardedDatabase) -> dict[str, list[tuple[int, float]]]:
    """Seconds against queries, items and bits, one of them growing at a time; each the best of three."""
    base = {"n_query": 1_000, "n_database": 100_000, "bits": 64}
    grown = {
        "n_query": (500, 1_000, 2_000, 4_000),
        "n_database": (50_000, 100_000, 200_000, 400_000),
        "bits": (32, 64, 128, 256),
    }
    found: dict[str, list[tuple[int, float]]] = {}
    for name, sizes in grown.items():
        for size in sizes:
            shape = {**base, name: size}
            data = made_up(shape["n_query"], shape["n_database"], shape["bits"], 0)

            def run(data=data, bits=shape["bits"]):
                retrieval.measure(**data_of(data), bits=bits, devices=spread)

            run()
            found.setdefault(name, []).append((size, min(seconds(run) for _ in range(3))))
    return found


def plot(found: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """One panel a size, with the straight line of least squares."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3), layout="constrained", sharey=False)
    names = {"n_query": "queries", "n_database": "items in the database", "bits": "bits"}
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        sizes, times = np.array(points).T
        slope, start = np.polyfit(sizes, times, 1)
        line = np.array([0, sizes[-1] * 1.05])
        axis.plot(line, start + slope * line, color="0.6", label="straight line")
        axis.plot(sizes, times, "o", color="C0", label="measured")
        axis.set(xlabel=names[name], ylabel="seconds", xlim=(0, None), ylim=(0, None))
        axis.locator_params(axis="x", nbins=4)
    axes[0].legend(frameon=False)
    figure.suptitle("retrieval.measure; beside what grows: 1,000 queries, 100,000 items, 64 bits")
    figure.savefig(path, dpi=120)


def scale(n_database: int, spread: sharded_database.ShardedDatabase, folder: Path) -> dict:
    """10,000 queries against a mapped file of many codes."""
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
        retrieval.measure(query[0], codes, query_labels=query[1], database_labels=labels, bits=bits, devices=spread)

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
    """Runs what the flags ask for, prints it, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/evaluator"), help="folder of JSON and plot")
    parser.add_argument("--scale", type=int, help="only 10,000 queries against so many items")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    host.use_all_cores()
    spread = sharded_database.ShardedDatabase()
    about = {**environment.environment(), "machine": spread.describe(), "seed": SEED}
    if arguments.scale:
        found = {**about, "scale": scale(arguments.scale, spread, arguments.out)}
        path = arguments.out / "scale.json"
    else:
        found = {**about, "cases": [compare(name, spread) for name in CASES], "linear": linear(spread)}
        path = arguments.out / "speed.json"
        plot(found["linear"], arguments.out / "linear.png")
    print(json.dumps(found, indent=2))
    path.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
