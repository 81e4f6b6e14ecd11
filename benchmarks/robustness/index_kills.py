"""Kill a process that adds to an index by `kill -9` at random moments: each acknowledged batch must be there, none twice.

    python -m benchmarks.robustness.index_kills [--kills=20] [--folder=FOLDER] [--out=benchmarks/results/index/kills.json]

The process adds batches of 2,000 codes and acknowledges each one when it is saved. Every other kill comes while it replaces
batches that are there. After a kill the index is opened, its items and every 500th code with its features are compared with the
acknowledged batches, and the next process goes on.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from adsq_jax import index
from adsq_jax.errors import InputError
from adsq_jax.index import Item, Manifest
from adsq_jax.run import environment

FEATURES = 16
MANIFEST = Manifest(bits=64, model_sha256="m" * 64, features=FEATURES)
BATCH, BATCHES = 2_000, 40  # codes a batch, batches a process


def batch(number: int, *, version: int) -> tuple[list[Item], np.ndarray, np.ndarray]:
    """Make items, codes and features; another version has the same ids with other codes and features."""
    items = [Item(f"/{number}/{i}", (str(version),)) for i in range(BATCH)]
    numbers = np.random.default_rng((number, version)).integers(0, 256, (BATCH, 8 + FEATURES), np.uint8)
    return items, numbers[:, :8], numbers[:, 8:].view(np.int8)


def ingest(location: str, first: int, version: int) -> None:
    """Add batches, and acknowledge each on stdout."""
    with index.create(location, MANIFEST) as opened:
        print("begins", flush=True)
        for number in range(first, first + BATCHES):
            opened.add(*batch(number, version=version))
            print(number, flush=True)


def run(location: str, first: int, version: int) -> None:
    """Run `ingest` as a command: bad input is one line and exit status 2."""
    try:
        ingest(location, first, version)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def kill_while_adding(location: str, *, first: int, version: int, after: float) -> list[int]:
    """Kill a process `after` seconds after it began to add; return the batches that it acknowledged."""
    command = [sys.executable, __file__, "--ingest", location, str(first), str(version)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        return [int(line) for line in process.stdout.read().split()]


def check(location: str, acknowledged: dict[int, int], *, uncertain: dict[int, int]) -> int:
    """Check that acknowledged batches are there, and nothing twice.

    Args:
      location: the index.
      acknowledged: version by batch; that of an uncertain batch which was added, but not acknowledged, is brought up to date.
      uncertain: version by batch, of batches that were being added when the process was killed.

    Returns:
      The number of items.
    """
    with index.open_index(location) as opened:
        ids = list(opened.ids())
        assert len(set(ids)) == len(ids) == opened.count(), "an item is there twice"
        for number, version in list(acknowledged.items()):
            items, codes, features = batch(number, version=version)
            items_there = opened.find([item.id for item in items])
            if items_there != {item.id: item for item in items}:
                newer, codes, features = batch(number, version=uncertain[number])  # KeyError: an acknowledged batch isn't there
                assert items_there == {item.id: item for item in newer}, "a batch is there in part"
                acknowledged[number] = uncertain[number]
            hits = opened.search(codes[::500], k=1, radius=0)
            assert not hits.distances.any(), "a code has changed"
            assert np.array_equal(opened.features(hits.keys[:, 0]), features[::500]), "features are another item's"
        others = set(ids) - {f"/{number}/{i}" for number in acknowledged for i in range(BATCH)}
        assert len(others) in (0, BATCH), "a batch is there in part"
        return len(ids)


def main() -> None:
    """Kill, check, and write the figures."""
    if sys.argv[1:2] == ["--ingest"]:
        run(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", default="")
    parser.add_argument("--out", default="benchmarks/results/index/kills.json")
    given = parser.parse_args()
    draw, moments = random.Random(0), []
    with tempfile.TemporaryDirectory(dir=given.folder or None) as folder:
        location, acknowledged = str(Path(folder) / "index"), dict[int, int]()
        for kill in range(given.kills):
            first, version = BATCHES * (kill // 2), kill % 2  # version 1 replaces the batches of the process before
            after = draw.uniform(0, 1)
            done = kill_while_adding(location, first=first, version=version, after=after)
            acknowledged.update(dict.fromkeys(done, version))
            following = done[-1] + 1 if done else first
            count = check(location, acknowledged, uncertain={following: version})
            moments.append({"seconds": round(after, 3), "acknowledged": len(done), "items": count})
            print(
                f"kill {kill + 1} after {after:.3f} s: {len(done)} batches acknowledged, all there; {count:,} codes", flush=True
            )
            if following not in acknowledged and count > BATCH * len(acknowledged):
                acknowledged[following] = version  # it was added, but not acknowledged
    print(f"{given.kills} kills: nothing lost, nothing twice")
    if given.out:
        Path(given.out).parent.mkdir(parents=True, exist_ok=True)
        content = {**environment.environment(), "kills": moments}
        Path(given.out).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
