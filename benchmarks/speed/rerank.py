"""Measure what it costs to rank hits again by features: bytes an item, opening, and seconds a query.

    python -m benchmarks.speed.rerank [--codes=1000000] [--turns=200] [--out=FILE]

Random codes of 64 bits and random features, with ids like paths. Opening is timed in its own process until the first hits, the
first time, when the features are copied to a file, and later. Queries come one at a time, as `adsq_jax.search` asks them, with
and without ranking again, in turns; the figures are medians. Writes benchmarks/results/index/rerank.json.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import index
from adsq_jax.devices import host
from adsq_jax.index import Item, Manifest
from adsq_jax.inference import hits
from adsq_jax.retrieval.features import DIMS
from adsq_jax.run import environment

BITS, BATCH, K = 64, 50_000, 20
_OPEN = r"""
import sys, time
import numpy
from adsq_jax import index
from adsq_jax.inference import hits
import adsq_jax.index.embedded
began, bits, dims = time.perf_counter(), int(sys.argv[2]), int(sys.argv[3])
with index.open_index(sys.argv[1]) as opened:
    code, features = numpy.zeros((1, bits // 8), numpy.uint8), numpy.ones((1, dims), numpy.int8)
    hits.search_codes(opened, code, features, k=20, radius=None, where=None, rerank=500)
    print(time.perf_counter() - began)
"""


def fill(location: str, *, count: int) -> None:
    """Make an index of random codes and features."""
    random = np.random.default_rng(0)
    with index.create(location, Manifest(bits=BITS, model_sha256="m" * 64, features=DIMS)) as opened:
        for start in range(0, count, BATCH):
            rows = range(start, min(start + BATCH, count))
            codes = random.integers(0, 256, (len(rows), BITS // 8), np.uint8)
            features = random.integers(-127, 128, (len(rows), DIMS)).astype(np.int8)
            sha256 = [hashlib.sha256(str(row).encode()).hexdigest() for row in rows]
            items = [
                Item(f"/pictures/{row // 1000:05d}/{row:08d}.jpg", ("cat",), name)
                for row, name in zip(rows, sha256, strict=True)
            ]
            opened.add(items, codes, features)


def size(folder: str) -> int:
    """Return the bytes of all files below a folder."""
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names)


def time_opening(location: str) -> float:
    """Return the seconds that a new process takes from opening to the first hits."""
    command = [sys.executable, "-c", _OPEN, location, str(BITS), str(DIMS)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def time_searching(location: str, *, turns: int) -> dict[str, float]:
    """Return the median milliseconds of a query by codes alone, ranked again, and in the part that ranks again."""
    random, spent = np.random.default_rng(1), dict[int, list[float]]({0: [], hits.RERANK: []})
    with index.open_index(location) as opened:
        for turn in range(turns + 5):
            code = random.integers(0, 256, (1, BITS // 8), np.uint8)
            features = random.integers(-127, 128, (1, DIMS)).astype(np.int8)
            for rerank, seconds in spent.items():
                began = time.perf_counter()
                hits.search_codes(opened, code, features, k=K, radius=None, where=None, rerank=rerank)
                if turn >= 5:  # the first ones load pages
                    seconds.append(time.perf_counter() - began)
    plain, again = (1_000 * statistics.median(seconds) for seconds in spent.values())
    return {"ms_by_codes": plain, "ms_ranked_again": again, "throughput_lost": 1 - plain / again}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/index/rerank.json"))
    given = parser.parse_args()
    result: dict[str, Any] = {
        **environment.environment(),
        "machine": f"{platform.machine()}, {host.cores()} cores",
        "codes": given.codes,
        "bits": BITS,
        "features": DIMS,
        "reranked": hits.RERANK,
        "k": K,
    }
    with tempfile.TemporaryDirectory() as folder:
        location = str(Path(folder) / "index")
        fill(location, count=given.codes)
        result["seconds_to_open_first"] = time_opening(location)
        result["seconds_to_open"] = statistics.median(time_opening(location) for _ in range(5))
        result["bytes_an_item"] = size(location) / given.codes
        result |= time_searching(location, turns=given.turns)
    print(json.dumps(result, indent=1))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
