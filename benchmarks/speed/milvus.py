"""The index on a Milvus server: adding, searching, copying out and back, memory and work by size, recall of BIN_IVF_FLAT.

    python -m benchmarks.speed.milvus --run=runs/fashion64 [--sizes=500000,1000000,2000000] [--turns=5] [--out=FILE]

The server is that of launch/milvus/local.py, which ticks each 50 ms (200 by default). Random codes of 64 bits, with ids as
paths have them. Of each size: codes added a second, in batches of 50,000, until each is kept; then, with all of them sealed,
indexed (BIN_FLAT) and loaded by a server that was started anew, its memory, and its core-seconds and queries a second for the
nearest 100 and their items, 500 queries at a time. At the second size also: the same queries to an index in a folder (LanceDB
and faiss), alternating, whose distances must be the same; the time of one query, strongly consistent and not; the codes copied
into a folder and back; BIN_IVF_FLAT. Recall is measured on the codes of a finished run: of the nearest 100, the share that lies
no farther than the true 100th.
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

from adsq_jax import index
from adsq_jax.devices import host
from adsq_jax.index import CodeIndex, Item, Manifest
from adsq_jax.run import environment
from benchmarks.robustness.milvus_local import TOKEN, Server, client
from benchmarks.speed import search

BATCH, QUERIES, K = 50_000, 500, 100
LISTS, LOOKED = 1_024, 16  # of BIN_IVF_FLAT among random codes
PROBED = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # of as many lists as the last, among a run's codes
PATIENCE = 900  # seconds until an index is built


def process_of(folder: Path) -> Path:
    """/proc's folder of the server whose data lie in a folder."""
    wanted = f"{folder}/bin/milvus".encode()
    for found in Path("/proc").glob("[0-9]*"):
        try:
            if (found / "cmdline").read_bytes().split(b"\0")[0] == wanted:
                return found
        except OSError:  # it has ended
            continue
    raise AssertionError("no server runs there")


def core_seconds(process: Path) -> float:
    """What a process has computed so far."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process: Path) -> int:
    """Bytes that a process holds."""
    (line,) = (line for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS:"))
    return 1024 * int(line.split()[1])


def settled(server: Server, place: str) -> None:
    """Has a server seal what it was given, waits for the index, and starts it again, so that it loads just that."""
    name, asked = place.split("?")[0].split("/")[-1], client(server.address)
    asked.flush(name, timeout=PATIENCE)
    ends = time.monotonic() + PATIENCE
    while (state := asked.describe_index(name, "code"))["pending_index_rows"] or not state["indexed_rows"]:
        assert time.monotonic() < ends, state
        time.sleep(1)
    asked.close()
    server.kill()
    time.sleep(1)
    server.start()


def timed(work: Callable[[], Any]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def work_of(opened: CodeIndex, query: np.ndarray, process: Path, *, turns: int) -> dict[str, float]:
    """Queries a second (the median) and core-seconds of the server a query."""
    opened.search(query, k=K)
    before = core_seconds(process)
    seconds = [timed(lambda: opened.search(query, k=K)) for _ in range(turns)]
    used = core_seconds(process) - before
    return {
        "queries_a_second": len(query) / statistics.median(seconds),
        "core_seconds_a_query": used / turns / len(query),
    }


def sized(count: int, folder: Path, *, turns: int, more: bool) -> dict[str, Any]:
    """All figures of one size."""
    query = np.random.default_rng(1).integers(0, 256, (QUERIES, search.BITS // 8), np.uint8)
    with Server(folder) as server:
        place = f"{server.address}/codes"
        _, seconds = search.filled(place, count=count, batch=BATCH)
        settled(server, place)
        found: dict[str, Any] = {"codes": count, "codes_added_a_second": count / seconds}
        with index.open_index(place) as opened:
            found |= work_of(opened, query, process_of(folder), turns=turns)
            found["bytes"] = memory(process_of(folder))
            if more:
                found |= {"one_query_seconds": one_query(opened, query)}
                found |= beside_a_folder(opened, query, folder, turns=turns)
        if more:
            found["copied_back"] = copied_back(server, folder / "copy", count=count)
            found["lists"] = with_lists(server, folder / "copy", query, folder, turns=turns)
    return found


def one_query(opened: CodeIndex, query: np.ndarray) -> dict[str, float]:
    """Seconds of a query by itself, medians: of one that must see all that was kept, and of one that needn't."""

    def strong(row: int) -> float:
        opened.refresh()
        return timed(lambda: opened.search(query[row : row + 1], k=K))

    return {
        "strong": statistics.median(strong(row) for row in range(20)),
        "bounded": statistics.median(timed(lambda row=row: opened.search(query[row : row + 1], k=K)) for row in range(20)),
    }


def beside_a_folder(opened: CodeIndex, query: np.ndarray, folder: Path, *, turns: int) -> dict[str, Any]:
    """The same in a folder: copies into it, and searches both, alternating."""
    with index.create(str(folder / "copy"), opened.manifest) as beside:
        seconds = timed(lambda: index.copy(opened, beside, on_progress=lambda _: None))
        there, here = opened.search(query, k=K), beside.search(query, k=K)
        assert np.array_equal(there.distances, here.distances), "other distances"
        speeds: dict[str, list[float]] = {"server": [], "folder": []}
        for _ in range(turns):
            for name, one in (("server", opened), ("folder", beside)):
                speeds[name].append(len(query) / timed(lambda one=one: one.search(query, k=K)))
    return {"seconds_to_copy_out": seconds, "alternating": {name: statistics.median(values) for name, values in speeds.items()}}


def copied_back(server: Server, copy: Path, *, count: int) -> dict[str, float]:
    """From the folder into a new collection: every item and code the same."""
    with index.open_index(str(copy)) as source, index.create(f"{server.address}/back", source.manifest) as target:
        began = time.perf_counter()
        copied = index.copy(source, target, on_progress=lambda _: None)
        assert copied == (count, 0, 0), copied
        return {"seconds": time.perf_counter() - began, "items": count}


def with_lists(server: Server, copy: Path, query: np.ndarray, folder: Path, *, turns: int) -> dict[str, Any]:
    """Work of BIN_IVF_FLAT among as many random codes."""
    asked = client(server.address)
    for name in asked.list_collections():
        asked.drop_collection(name)
    asked.close()
    place = f"{server.address}/lists?nlist={LISTS}&nprobe={LOOKED}"
    with index.open_index(str(copy)) as source, index.create(place, source.manifest) as target:
        for items, codes in source.scan():
            target.add(items, codes)
    settled(server, place)
    with index.open_index(place) as opened:
        return {"nlist": LISTS, "nprobe": LOOKED} | work_of(opened, query, process_of(folder), turns=turns)


def recall(run: Path, folder: Path) -> dict[str, Any]:
    """BIN_IVF_FLAT on a run's codes: for each nprobe, recall of the nearest 100, and queries a second."""
    query, database = (np.load(run / "codes" / f"{part}_sum.npy") for part in ("query", "database"))
    bits, lists = json.loads((run / "config.json").read_text())["bits"], PROBED[-1]
    rows = []
    with Server(folder) as server:
        place = f"{server.address}/codes?nlist={lists}"
        with index.create(place, Manifest(bits, "")) as opened:
            opened.add([Item(f"/{row}") for row in range(len(database))], database)
        settled(server, place)
        with index.open_index(place) as opened:
            true = opened.search(query, k=K).distances
        for probed in PROBED:
            with index.open_index(f"{server.address}/codes?nprobe={probed}") as opened:
                found = opened.search(query, k=K)
                seconds = statistics.median(timed(lambda o=opened: o.search(query, k=K)) for _ in range(3))
            near = (found.keys >= 0) & (found.distances <= true[:, -1:])
            rows.append({"nprobe": probed, "recall": float(near.sum() / true.size), "queries_a_second": len(query) / seconds})
    distinct = len(np.unique(database, axis=0))
    return {"bits": bits, "items": len(database), "distinct_codes": distinct, "nlist": lists, "by_nprobe": rows}


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--sizes", default="500000,1000000,2000000")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/milvus/milvus.json"))
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
    for place, size in enumerate(sizes):
        with tempfile.TemporaryDirectory() as folder:
            result["sizes"].append(sized(size, Path(folder), turns=given.turns, more=place == min(1, len(sizes) - 1)))
        print(json.dumps(result["sizes"][-1]), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
