"""Kill a Milvus server by `kill -9` while a client adds codes: the client must go on when it is back, and nothing may be lost.

    python -m benchmarks.robustness.milvus_kills [--kills=10] [--limit=60] [--out=benchmarks/results/milvus/kills.json]

As in benchmarks/robustness/index_kills.py, a process adds batches of 2,000 codes and acknowledges each one when it is saved;
every other time it replaces batches that are there. Here the server is killed at a random moment and started again a second
later; the process must finish by itself. Then all batches are compared. At the end the server is killed and not started again:
the process, whose limit is 60 s a call (or --limit), must end at most 30 s after that, with status 2 and one line.
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

from adsq_jax.index.milvus_server import Calls
from adsq_jax.run import environment
from benchmarks.robustness import index_kills
from launch.milvus.server import TOKEN, Server

MORE = 30.0  # seconds after the limit of a call in which the process must end without a server


def start_adding(location: str, *, first: int, version: int, limit: float = Calls.time_limit) -> "subprocess.Popen[str]":
    """Start a process that adds, with a time limit of its calls; return when it begins to."""
    program = (
        "from adsq_jax.index.milvus_server import Calls; from benchmarks.robustness import index_kills; "
        f"Calls.time_limit = {limit}; index_kills.run({location!r}, {first}, {version})"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "begins\n", line + process.communicate()[1]
    return process


def kill_while_adding(server: Server, location: str, *, first: int, version: int, after: float) -> dict[str, Any]:
    """Kill the server once; return the number of batches acknowledged by then, and the seconds until the next one."""
    moments, process = list[float](), start_adding(location, first=first, version=version)

    def read() -> None:
        assert process.stdout is not None
        for _ in process.stdout:
            moments.append(time.monotonic())

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(after)
    server.kill()
    kill, before = time.monotonic(), len(moments)
    assert before < index_kills.BATCHES, "the process finished before the kill: raise BATCHES"
    time.sleep(1)
    server.start()
    assert process.stderr is not None
    stderr = process.stderr.read()
    reader.join()
    assert process.wait() == 0, stderr
    assert len(moments) == index_kills.BATCHES, "batches are missing"
    waited = [moment - kill for moment in moments if moment > kill][:1]
    return {"seconds": round(after, 3), "acknowledged": before, "waited": round(waited[0], 1) if waited else None}


def without_server(server: Server, location: str, *, limit: float) -> dict[str, Any]:
    """Kill the server for good; return the seconds until the client ends, and its message."""
    process = start_adding(location, first=0, version=0, limit=limit)
    time.sleep(0.3)
    server.kill()
    began = time.monotonic()
    stderr = process.communicate(timeout=limit + MORE)[1]
    assert process.returncode == 2, stderr
    assert len(stderr.strip().splitlines()) == 1, stderr
    message = stderr.strip().replace(server.address, "http://HOST:PORT")
    return {"seconds": round(time.monotonic() - began, 1), "said": message}


def main() -> None:
    """Kill, check, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--limit", type=float, default=Calls.time_limit, help="seconds a call, where the server stays down")
    parser.add_argument("--out", default="benchmarks/results/milvus/kills.json")
    given = parser.parse_args()
    os.environ["MILVUS_TOKEN"] = TOKEN
    draw, moments = random.Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        location, acknowledged = f"{server.address}/kills", dict[int, int]()
        server.start()
        for kill in range(given.kills):
            first, version = index_kills.BATCHES * (kill // 2), kill % 2
            moments.append(kill_while_adding(server, location, first=first, version=version, after=draw.uniform(0, 2)))
            acknowledged.update(dict.fromkeys(range(first, first + index_kills.BATCHES), version))
            count = index_kills.check(location, acknowledged, uncertain={})
            print(f"kill {kill + 1}: {moments[-1]}; {count:,} codes, all there", flush=True)
        alone = without_server(server, location, limit=given.limit)
    print(f"{given.kills} kills: nothing lost, nothing twice")
    print(f"without a server the client ended after {alone['seconds']} s: {alone['said']}")
    if given.out:
        Path(given.out).parent.mkdir(parents=True, exist_ok=True)
        content = {**environment.environment(), "kills": moments, "left_alone": alone}
        Path(given.out).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
