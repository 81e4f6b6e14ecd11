"""Measure an index of codes beside bare faiss: adding, opening, searching, and memory.

    python -m benchmarks.speed.search [--codes=1000000] [--turns=7] [--memory=10000000] [--out=FILE]

Random codes, with ids like paths. Adding is timed until each batch of 65,536 is saved; with a tenth of the codes, also until
each batch of 64 is, as encoding adds them. Opening is timed in its own process, until the first answer. Searching alternates
between the index and `faiss.IndexBinaryFlat` on the same codes, queries and threads; the ratio is that of the medians. Memory
is that of a process that opens an index of `--memory` codes and searches, minus what it has after its imports. Writes
benchmarks/results/index/search.json.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import index, storage
from adsq_jax.devices import host
from adsq_jax.index import Item, Manifest
from adsq_jax.run import environment

BITS, BATCH, SMALL, QUERIES, K = 64, 65_536, 64, 500, 100
_MEMORY = r"""
import re, sys, time
import faiss, lancedb, numpy, pyarrow
from adsq_jax import index
import adsq_jax.index.embedded
def used(what):
    return 1024 * int(re.search(what + r":\s+(\d+)", open("/proc/self/status").read())[1])
width, before, began = int(sys.argv[2]), used("VmRSS"), time.perf_counter()
with index.open_index(sys.argv[1]) as opened:
    opened.search(numpy.zeros((1, width), numpy.uint8), k=100)
    print(time.perf_counter() - began, used("VmHWM") - before, used("VmRSS") - before)
"""


def fill(location: str, *, count: int, batch: int) -> tuple[np.ndarray, float]:
    """Make an index of random codes; return the codes, and the seconds of adding."""
    random, seconds, all_codes = np.random.default_rng(0), 0.0, []
    with index.create(location, Manifest(bits=BITS, model_sha256="m" * 64)) as opened:
        for start in range(0, count, batch):
            rows = range(start, min(start + batch, count))
            codes = random.integers(0, 256, (len(rows), BITS // 8), np.uint8)
            items = [Item(f"/pictures/{row // 1000:05d}/{row:08d}.jpg", ("cat",), "0" * 64) for row in rows]
            began = time.perf_counter()
            opened.add(items, codes)
            seconds += time.perf_counter() - began
            all_codes.append(codes)
    return np.concatenate(all_codes), seconds


def time_opening(location: str) -> tuple[float, int, int]:
    """Measure a new process: seconds from opening to the first answer, peak bytes and bytes at the end."""
    done = subprocess.run([sys.executable, "-c", _MEMORY, location, str(BITS // 8)], check=True, capture_output=True, text=True)
    seconds, peak, last = done.stdout.split()
    return float(seconds), int(peak), int(last)


def time_searching(location: str, codes: np.ndarray, *, turns: int) -> dict[str, Any]:
    """Measure queries a second of both, alternating."""
    import faiss

    query = np.random.default_rng(1).integers(0, 256, (QUERIES, codes.shape[1]), np.uint8)
    bare = faiss.IndexBinaryFlat(8 * codes.shape[1])
    bare.add(codes)
    speeds: dict[str, list[float]] = {"index": [], "faiss": []}
    with index.open_index(location) as opened:
        ours, expected = opened.search(query, k=K).distances, bare.search(query, K)[0]
        assert np.array_equal(ours, expected), "different distances"
        for _ in range(turns):
            for name, search in (("index", lambda: opened.search(query, k=K)), ("faiss", lambda: bare.search(query, K))):
                began = time.perf_counter()
                search()
                speeds[name].append(QUERIES / (time.perf_counter() - began))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {"queries_a_second": medians, "ratio": medians["index"] / medians["faiss"]}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--memory", type=int, default=10_000_000, help="codes of the second index; 0: none")
    parser.add_argument("--out", type=storage.path, default=Path("benchmarks/results/index/search.json"))
    given = parser.parse_args()
    result: dict[str, Any] = {
        **environment.environment(),
        "machine": f"{platform.machine()}, {host.cores()} cores",
        "codes": given.codes,
        "bits": BITS,
        "k": K,
    }
    with tempfile.TemporaryDirectory() as folder:
        location = str(Path(folder) / "index")
        codes, seconds = fill(location, count=given.codes, batch=BATCH)
        result["codes_added_a_second"] = given.codes / seconds
        result["seconds_to_open"] = statistics.median(time_opening(location)[0] for _ in range(given.turns))
        result |= time_searching(location, codes, turns=given.turns)
    with tempfile.TemporaryDirectory() as folder:
        count = given.codes // 10
        result["codes_added_a_second_by_64"] = count / fill(f"{folder}/index", count=count, batch=SMALL)[1]
    if given.memory:
        with tempfile.TemporaryDirectory() as folder:
            codes, seconds = fill(str(Path(folder) / "index"), count=given.memory, batch=BATCH)
            opened, peak, last = time_opening(str(Path(folder) / "index"))
            result["large"] = {
                "codes": given.memory,
                "codes_added_a_second": given.memory / seconds,
                "seconds_to_open": opened,
                "bytes_at_most": peak,
                "bytes_after": last,
                "times_the_codes": peak / codes.nbytes,
            }
    print(json.dumps(result, indent=1))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
