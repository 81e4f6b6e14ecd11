"""Measure the evaluator's kernels and the search on this machine's accelerator, with codes that lie there already.

`python -m benchmarks.speed.gpu --evaluator` runs it. Every kernel's counts are compared with the CPU's before it is timed. The
kernels take turns; figures are medians. The share of a bare pass is that of `benchmarks.speed.evaluator`: XOR and population
count of every pair, added up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import jax
import numpy as np

from adsq_jax import retrieval
from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.retrieval import blocks, hamming, nearest
from benchmarks.speed.evaluator import bare_pass, made_up, seconds

TURNS = 7
NEIGHBOURS = 100
CPU_KERNEL = "popcount"
CHECKED = ((12, 0), (48, 21), (64, 0), (64, 21), (100, 0), (512, 5))  # bits, and labels as in `made_up`


@dataclass(frozen=True)
class Case:
    """The sizes of what is timed or checked; a bare pass takes bits by the 32."""

    n_query: int
    n_database: int
    bits: int
    labels: int  # 0: one of 10 classes

    def __str__(self) -> str:
        labels = f"{self.labels} labels" if self.labels else "10 classes"
        return f"{self.n_query:,} x {self.n_database:,}, {self.bits} bits, {labels}"


CASES = (Case(1_000, 54_000, 64, 0), Case(5_000, 200_000, 64, 0), Case(5_000, 200_000, 64, 21))
# queries at a time, and items in a block
SHAPES = ((32, 32_768), (128, 8_192), (128, 32_768), (512, 8_192), (512, 32_768), (2_048, 8_192))


class Problem:
    """The codes and labels of a case."""

    def __init__(self, case: Case):
        """Draw them."""
        self.case = case
        self.data = made_up(case.n_query, case.n_database, -(-case.bits // 8) * 8, case.labels)
        if case.bits % 8:  # bits beyond the last are 0
            for part in ("query", "database"):
                self.data[f"{part}_codes"][:, -1] &= (1 << case.bits % 8) - 1
        self.codes = hamming.prepare_codes(self.data["query_codes"], self.data["database_codes"], bits=case.bits)
        sides = self.data["query_labels"], self.data["database_labels"]
        self.labels = hamming.prepare_labels(*sides, n_query=case.n_query, n_database=case.n_database)

    def counts(self, devices: ShardedDatabase, *, kernel: str) -> np.ndarray:
        """Return the histograms of all queries, int64[n_query, bits + 1, grades]."""
        parts = hamming.histograms_by_block(*self.codes, self.labels, devices=devices, kernel=kernel)
        return np.concatenate([part for _, part in parts])

    def placed(self, devices: ShardedDatabase, *, block: int) -> tuple[tuple[Any, ...], tuple[Any, ...], blocks.Chunk]:
        """Put words of codes and labels on the devices: those of the queries, of the database, and how that is cut."""
        limits = blocks.Limits(block=block)
        chunk = next(blocks.database_chunks(self.case.n_database, devices=devices, limits=limits))
        query = tuple(devices.replicate(side.words(0, self.case.n_query)) for side in (self.codes[0], self.labels[0]))
        return query, hamming._Placing(self.codes[1], self.labels[1], devices=devices)(chunk), chunk


def way(problem: Problem, *, kernel: str, queries: int | None, block: int) -> Callable[[], Any]:
    """Return a function that counts once, all on the devices."""
    devices = ShardedDatabase()  # which compiles for these sizes alone
    queried, sharded, chunk = problem.placed(devices, block=block)
    static = {"bits": problem.case.bits, "grades": 1 + problem.labels[0].max_per_row(), "ids": problem.labels[0].ids}
    run = devices.compiled(hamming._histograms, add=True, block=chunk.block, kernel=kernel, at_a_time=queries, **static)
    return lambda: run(queried, sharded).block_until_ready()


def search_way(problem: Problem, *, queries: int) -> Callable[[], Any]:
    """Return a function that searches once, all on the devices."""
    devices = ShardedDatabase()
    (words, _), (database, _), chunk = problem.placed(devices, block=blocks.LIMITS.block)
    rows = np.arange(problem.case.n_database, dtype=np.int32)[None]
    sharded = database, devices.shard(blocks.pad(rows, chunk.padded_rows, value=nearest._PADDING))
    run = devices.compiled(nearest._nearest, add=False, k=NEIGHBOURS, batch_size=queries)
    return lambda: run(words, sharded).block_until_ready()


def check(case: Case) -> dict[str, bool]:
    """Compare all kernels' counts, and the search, with the CPU's."""
    problem, devices = Problem(case), ShardedDatabase()
    cpu = ShardedDatabase(jax.devices("cpu"))
    expected = problem.counts(cpu, kernel=CPU_KERNEL)
    kernels = {kernel: np.array_equal(problem.counts(devices, kernel=kernel), expected) for kernel in hamming.KERNELS}
    codes = problem.data["query_codes"][:100], problem.data["database_codes"]
    ours, theirs = (retrieval.search(*codes, NEIGHBOURS, bits=case.bits, devices=side) for side in (devices, cpu))
    return {**kernels, "search": all(map(np.array_equal, ours, theirs))}


def compare(case: Case) -> dict[str, Any]:
    """Time all ways in turns."""
    problem, devices = Problem(case), ShardedDatabase()
    ways = {"bare pass": bare_pass(problem.data, devices, batch_size=SHAPES[1][0])}
    for kernel in ("matmul", "comparison"):
        ways[f"{kernel}, as the evaluator"] = way(problem, kernel=kernel, queries=None, block=blocks.LIMITS.block)
    for queries, block in SHAPES:
        name = f"comparison, {queries:,} queries, blocks of {block:,}"
        ways[name] = way(problem, kernel="comparison", queries=queries, block=block)
    for queries in (16, nearest._ACCELERATOR_QUERIES, 256):
        ways[f"nearest {NEIGHBOURS}, {queries} queries"] = search_way(problem, queries=queries)
    ways["retrieval.measure"] = lambda: retrieval.measure(**problem.data, bits=case.bits, devices=devices)
    for run in ways.values():
        run()
    turns = [{name: seconds(run) for name, run in ways.items()} for _ in range(TURNS)]
    pairs = case.n_query * case.n_database
    return {
        name: {
            "seconds": median(turn[name] for turn in turns),
            "pairs_a_second": pairs / median(turn[name] for turn in turns),
            "share_of_bare_pass": median(turn["bare pass"] / turn[name] for turn in turns),
        }
        for name in ways
    }


def measure(cases: tuple[Case, ...] = CASES, *, checked: tuple[int, int] = (500, 20_000)) -> dict[str, Any]:
    """Check and time everything.

    Args:
      cases: what is timed.
      checked: queries and items of what is compared with the CPU.
    """
    checks = {str(case): check(case) for case in (Case(*checked, *sizes) for sizes in CHECKED)}
    wrong = [f"{case}: {name}" for case, found in checks.items() for name, same in found.items() if not same]
    if wrong:
        raise SystemExit(f"not exact: {'; '.join(wrong)}")
    return {"checked": list(checks), "cases": {str(case): compare(case) for case in cases}}


def table(measured: dict[str, Any]) -> str:
    """Write what was measured as text."""
    lines = [f"equal to the CPU's counts: {', '.join(measured['checked'])}"]
    for case, ways in measured["cases"].items():
        lines += [f"\n{case}"] + [
            f"  {name:45} {row['seconds']:9.4f} s {row['pairs_a_second']:.2e} pairs/s {row['share_of_bare_pass']:7.1%} of bare"
            for name, row in ways.items()
        ]
    return "\n".join(lines)
