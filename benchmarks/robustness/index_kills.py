"""Kills an ingestion by `kill -9` at random moments: every batch that was acknowledged is there, none twice, the index opens.

    python -m benchmarks.robustness.index_kills [--kills=20] [--folder=FOLDER] [--out=benchmarks/results/index/kills.json]

A process adds batches of 2,000 codes and says after each that it is kept. Every other kill falls in batches that replace what
is there. After a kill the index is opened and counted, its items and every 500th code are compared with what was acknowledged,
and it goes on.
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

MANIFEST = Manifest(bits=64, model_sha256="m" * 64)
BATCH, BATCHES = 2_000, 40  # codes a batch, batches a sitting


def batch(number: int, *, version: int) -> tuple[list[Item], np.ndarray]:
    """Items and codes; of another version the same ids with other codes."""
    items = [Item(f"/{number}/{i}", (str(version),)) for i in range(BATCH)]
    return items, np.random.default_rng((number, version)).integers(0, 256, (BATCH, 8), np.uint8)


def ingest(place: str, first: int, version: int) -> None:
    """Adds batches, and acknowledges each on stdout."""
    with index.create(place, MANIFEST) as opened:
        print("begins", flush=True)
        for number in range(first, first + BATCHES):
            opened.add(*batch(number, version=version))
            print(number, flush=True)


def run(place: str, first: int, version: int) -> None:
    """The same as a process: bad input is one line and status 2."""
    try:
        ingest(place, first, version)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def killed(place: str, *, first: int, version: int, after: float) -> list[int]:
    """Kills an ingestion so many seconds after it begins to add; the batches that it has acknowledged."""
    command = [sys.executable, __file__, "--ingest", place, str(first), str(version)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        return [int(line) for line in process.stdout.read().split()]


def check(place: str, acknowledged: dict[int, int], *, under_way: dict[int, int]) -> int:
    """Says that what was acknowledged is there, and nothing twice; the number of items.

    Args:
      place: of the index.
      acknowledged: the version of each batch.
      under_way: versions of the batches that the kill may have let in or not.
    """
    with index.open_index(place) as opened:
        ids = list(opened.ids())
        assert len(set(ids)) == len(ids) == opened.count(), "an item is there twice"
        for number, version in acknowledged.items():
            items, codes = batch(number, version=version)
            kept = opened.find([item.id for item in items])
            if kept != {item.id: item for item in items}:
                newer, codes = batch(number, version=under_way[number])  # KeyError: what was acknowledged isn't there
                assert kept == {item.id: item for item in newer}, "a batch is there in part"
            found = opened.search(codes[::500], k=1, radius=0)
            assert not found.distances.any(), "a code is another one"
        others = set(ids) - {f"/{number}/{i}" for number in acknowledged for i in range(BATCH)}
        assert len(others) in (0, BATCH), "a batch is there in part"
        return len(ids)


def main() -> None:
    """Kills, checks, and writes the figures."""
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
        place, acknowledged = str(Path(folder) / "index"), dict[int, int]()
        for kill in range(given.kills):
            again = kill % 2 == 1  # replaces the batches of the sitting before
            first, version = BATCHES * (kill // 2), int(again)
            after = draw.uniform(0, 1)
            done = killed(place, first=first, version=version, after=after)
            acknowledged.update(dict.fromkeys(done, version))
            following = done[-1] + 1 if done else first
            count = check(place, acknowledged, under_way={following: version})
            moments.append({"seconds": round(after, 3), "acknowledged": len(done), "items": count})
            print(
                f"kill {kill + 1} after {after:.3f} s: {len(done)} batches acknowledged, all there; {count:,} codes", flush=True
            )
            if following not in acknowledged and count > BATCH * len(acknowledged):
                acknowledged[following] = version  # was let in, and told by nobody
    print(f"{given.kills} kills: nothing lost, nothing twice")
    if given.out:
        Path(given.out).parent.mkdir(parents=True, exist_ok=True)
        told = {**environment.environment(), "kills": moments}
        Path(given.out).write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
