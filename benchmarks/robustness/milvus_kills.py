"""Kills a Milvus server by `kill -9` while codes are added: the client goes on when it is back, and all acknowledged is there.

    python -m benchmarks.robustness.milvus_kills [--kills=10] [--out=benchmarks/results/milvus/kills.json]

As benchmarks/robustness/index_kills.py, a process adds batches of 2,000 codes and says after each that it is kept;
every other time they replace what is there. Here the server is killed, at a random moment,
and started again a second later; the process must come
to its end by itself. Then all batches are compared. At last the server is killed and stays away: the process must end, with
status 2 and one line, within 90 s (its own bound is 60 s a call).
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from adsq_jax.run import environment
from benchmarks.robustness import index_kills
from benchmarks.robustness.milvus_local import TOKEN, Server

MOST = 90.0  # seconds that the process may take to end, where the server stays away


def adding(place: str, *, first: int, version: int) -> "subprocess.Popen[str]":
    """Starts an ingestion; returns when it begins to add."""
    program = f"from benchmarks.robustness import index_kills; index_kills.run({place!r}, {first}, {version})"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "begins\n", line + process.communicate()[1]
    return process


def killed(server: Server, place: str, *, first: int, version: int, after: float) -> dict[str, Any]:
    """One kill: how many batches had been acknowledged, and the seconds that the client then waited for the next."""
    moments, process = list[float](), adding(place, first=first, version=version)

    def read() -> None:
        assert process.stdout is not None
        for _ in process.stdout:
            moments.append(time.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(after)
    server.kill()
    kill, before = time.monotonic(), len(moments)
    assert before < index_kills.BATCHES, "it had come to its end before: give it more to do"
    time.sleep(1)
    server.start()
    assert process.stderr is not None
    said = process.stderr.read()
    reader.join()
    assert process.wait() == 0, said
    assert len(moments) == index_kills.BATCHES, "batches are missing"
    waited = [moment - kill for moment in moments if moment > kill][:1]
    return {"seconds": round(after, 3), "acknowledged": before, "waited": round(waited[0], 1) if waited else None}


def left_alone(server: Server, place: str) -> dict[str, Any]:
    """The server stays away: seconds until the client ends, and what it says."""
    process = adding(place, first=0, version=0)
    time.sleep(0.3)
    server.kill()
    began = time.monotonic()
    said = process.communicate(timeout=MOST)[1]
    assert process.returncode == 2, said
    assert len(said.strip().splitlines()) == 1, said
    return {"seconds": round(time.monotonic() - began, 1), "said": said.strip().replace(server.address, "http://HOST:PORT")}


def main() -> None:
    """Kills, checks, and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--out", default="benchmarks/results/milvus/kills.json")
    given = parser.parse_args()
    os.environ["MILVUS_TOKEN"] = TOKEN
    draw, moments = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        place, acknowledged = f"{server.address}/kills", dict[int, int]()
        server.start()
        for kill in range(given.kills):
            first, version = index_kills.BATCHES * (kill // 2), kill % 2
            moments.append(killed(server, place, first=first, version=version, after=draw.uniform(0, 2)))
            acknowledged.update(dict.fromkeys(range(first, first + index_kills.BATCHES), version))
            count = index_kills.check(place, acknowledged, under_way={})
            print(f"kill {kill + 1}: {moments[-1]}; {count:,} codes, all there", flush=True)
        alone = left_alone(server, place)
    print(f"{given.kills} kills: nothing lost, nothing twice; left alone, it said after {alone['seconds']} s: {alone['said']}")
    if given.out:
        Path(given.out).parent.mkdir(parents=True, exist_ok=True)
        told = {**environment.environment(), "kills": moments, "left_alone": alone}
        Path(given.out).write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
