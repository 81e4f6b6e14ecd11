"""Measure the index on a Milvus server: adding, searching, copying, memory and work by size, recall of BIN_IVF_FLAT.

    python -m benchmarks.speed.milvus --run=runs/fashion64 [--sizes=500000,1000000,2000000] [--turns=5] [--out=FILE]

launch/milvus/local.py starts the server, with a tick of 50 ms (default: 200). Random codes of 64 bits, with ids like paths.
For each size: codes added a second, in batches of 50,000, until each is saved; then, with all of them sealed, indexed
(BIN_FLAT) and loaded by a restarted server, its memory, and its core-seconds and queries a second for the nearest 100 and their
items, 500 queries at a time. For the second size also: the same queries to an index in a folder (LanceDB and faiss),
alternating, which must give the same distances; the time of one query, strongly consistent and not; the codes copied into a
folder and back; BIN_IVF_FLAT. Recall is measured on the codes of a finished run: the share of the nearest 100 that is no
farther than the true 100th.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import index, storage
from adsq_jax.devices import host
from adsq_jax.index import CodeIndex, Item, Manifest
from adsq_jax.run import environment
from benchmarks.speed import search
from launch.milvus.server import TOKEN, Server, client

BATCH, QUERIES, K = 50_000, 500, 100
LISTS, PROBES = 1_024, 16  # nlist and nprobe of BIN_IVF_FLAT for random codes
RUN_PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # nprobe for a run's codes; nlist is the last
PATIENCE = 900  # seconds until an index is built


def process_of(folder: Path) -> Path:
    """Return the folder in /proc of the server that has its data in a folder."""
    wanted = f"{folder}/bin/milvus".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().split(b"\0")[0] == wanted:
                return process
        except OSError:  # it has ended
            continue
    raise AssertionError(f"no server has its data in {folder}")


def core_seconds(process: Path) -> float:
    """Return the CPU seconds of a process so far."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process: Path) -> int:
    """Return the resident bytes of a process."""
    (line,) = (line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS:"))
    return 1024 * int(line.split()[1])


def seal(server: Server, location: str) -> None:
    """Have a server seal its codes, wait for the index, and release the codes: when it loads them again, it has only these."""
    name, connection = location.split("?")[0].split("/")[-1], client(server.address)
    connection.flush(name, timeout=PATIENCE)
    ends = time.monotonic() + PATIENCE
    while (state := connection.describe_index(name, "code"))["pending_index_rows"] or not state["indexed_rows"]:
        assert time.monotonic() < ends, state
        time.sleep(0.2)
    connection.release_collection(name)
    connection.close()


def restart(server: Server) -> None:
    """Kill the server, and start it again with its data."""
    server.kill()
    time.sleep(1)
    server.start()


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def query_cost(opened: CodeIndex, query: np.ndarray, process: Path, *, turns: int) -> dict[str, float]:
    """Measure queries a second (the median) and the server's core-seconds a query."""
    opened.search(query, k=K)
    before = core_seconds(process)
    seconds = [timed(lambda: opened.search(query, k=K)) for _ in range(turns)]
    used = core_seconds(process) - before
    return {
        "queries_a_second": len(query) / statistics.median(seconds),
        "core_seconds_a_query": used / turns / len(query),
    }


def measure_size(count: int, folder: Path, *, turns: int, more: bool) -> dict[str, Any]:
    """Measure all figures of one size; `more` are those of the second size."""
    query = np.random.default_rng(1).integers(0, 256, (QUERIES, search.BITS // 8), np.uint8)
    with Server(folder) as server:
        location = f"{server.address}/codes"
        _, seconds = search.fill(location, count=count, batch=BATCH)
        seal(server, location)
        restart(server)
        figures: dict[str, Any] = {"codes": count, "codes_added_a_second": count / seconds}
        with index.open_index(location) as opened:
            figures |= query_cost(opened, query, process_of(folder), turns=turns)
            figures["bytes"] = memory(process_of(folder))
            if more:
                figures |= {"one_query_seconds": one_query(opened, query)}
                figures |= beside_a_folder(opened, query, folder, turns=turns)
        if more:
            figures["copied_back"] = copied_back(server, folder / "copy", count=count)
            figures["lists"] = with_lists(server, folder / "copy", query, folder, turns=turns)
    return figures


def one_query(opened: CodeIndex, query: np.ndarray) -> dict[str, float]:
    """Measure the seconds of one query, medians: strongly consistent, which sees everything that was saved, and not."""

    def strong(row: int) -> float:
        opened.refresh()
        return timed(lambda: opened.search(query[row : row + 1], k=K))

    return {
        "strong": statistics.median(strong(row) for row in range(20)),
        "bounded": statistics.median(timed(lambda row=row: opened.search(query[row : row + 1], k=K)) for row in range(20)),
    }


def beside_a_folder(opened: CodeIndex, query: np.ndarray, folder: Path, *, turns: int) -> dict[str, Any]:
    """Copy into a folder, and measure the speed of searching both, alternating."""
    with index.create(str(folder / "copy"), opened.manifest) as beside:
        seconds = timed(lambda: index.copy(opened, beside, on_progress=lambda _: None))
        remote, local = opened.search(query, k=K), beside.search(query, k=K)
        assert np.array_equal(remote.distances, local.distances), "different distances"
        speeds: dict[str, list[float]] = {"server": [], "folder": []}
        for _ in range(turns):
            for name, one in (("server", opened), ("folder", beside)):
                speeds[name].append(len(query) / timed(lambda one=one: one.search(query, k=K)))
    return {"seconds_to_copy_out": seconds, "alternating": {name: statistics.median(values) for name, values in speeds.items()}}


def copied_back(server: Server, copy: Path, *, count: int) -> dict[str, float]:
    """Copy from the folder into a new collection, where every item and code must be the same."""
    with index.open_index(str(copy)) as source, index.create(f"{server.address}/back", source.manifest) as target:
        began = time.perf_counter()
        copied = index.copy(source, target, on_progress=lambda _: None)
        assert copied == (count, 0, 0), copied
        return {"seconds": time.perf_counter() - began, "items": count}


def with_lists(server: Server, copy: Path, query: np.ndarray, folder: Path, *, turns: int) -> dict[str, Any]:
    """Measure BIN_IVF_FLAT on as many random codes."""
    connection = client(server.address)
    for name in connection.list_collections():
        connection.drop_collection(name)
    connection.close()
    location = f"{server.address}/lists?nlist={LISTS}&nprobe={PROBES}"
    with index.open_index(str(copy)) as source, index.create(location, source.manifest) as target:
        for items, codes, _ in source.scan():
            target.add(items, codes)
    seal(server, location)
    with index.open_index(location) as opened:
        return {"nlist": LISTS, "nprobe": PROBES} | query_cost(opened, query, process_of(folder), turns=turns)


def recall(run: Path, folder: Path) -> dict[str, Any]:
    """Measure BIN_IVF_FLAT on a run's codes: for each nprobe, recall of the nearest 100, and queries a second."""
    query, database = (np.load(run / "codes" / f"{part}_sum.npy") for part in ("query", "database"))
    bits, lists = json.loads((run / "config.json").read_text())["bits"], RUN_PROBES[-1]
    rows = []
    with Server(folder) as server:
        location = f"{server.address}/codes?nlist={lists}"
        with index.create(location, Manifest(bits, "")) as opened:
            opened.add([Item(f"/{row}") for row in range(len(database))], database)
        seal(server, location)
        with index.open_index(location) as opened:
            true = opened.search(query, k=K).distances
        for probes in RUN_PROBES:
            with index.open_index(f"{server.address}/codes?nprobe={probes}") as opened:
                hits = opened.search(query, k=K)
                seconds = statistics.median(timed(lambda o=opened: o.search(query, k=K)) for _ in range(3))
            near = (hits.keys >= 0) & (hits.distances <= true[:, -1:])
            rows.append({"nprobe": probes, "recall": float(near.sum() / true.size), "queries_a_second": len(query) / seconds})
    distinct = len(np.unique(database, axis=0))
    return {"bits": bits, "items": len(database), "distinct_codes": distinct, "nlist": lists, "by_nprobe": rows}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=storage.path, required=True, help="the folder of a finished run")
    parser.add_argument("--sizes", default="500000,1000000,2000000")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=storage.path, default=Path("benchmarks/results/milvus/milvus.json"))
    given = parser.parse_args()
    os.environ["MILVUS_TOKEN"] = TOKEN
    sizes = [int(size) for size in given.sizes.split(",")]
    result: dict[str, Any] = {
        **environment.environment(),
        "machine": f"{platform.machine()}, {host.cores()} cores",
        "server": "Milvus 2.3.5, standalone",
        "bits": search.BITS,
        "k": K,
    }
    with tempfile.TemporaryDirectory() as folder:
        result["recall"] = recall(given.run, Path(folder))
    print(json.dumps(result["recall"]), flush=True)
    result["sizes"] = []
    for number, size in enumerate(sizes):
        with tempfile.TemporaryDirectory() as folder:
            result["sizes"].append(measure_size(size, Path(folder), turns=given.turns, more=number == min(1, len(sizes) - 1)))
        print(json.dumps(result["sizes"][-1]), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
