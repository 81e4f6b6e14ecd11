"""The runs of `python -m benchmarks.methods.compare`: read, checked, and compared with one another."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from adsq_jax.errors import InputError
from benchmarks.methods import conditions, run_file
from benchmarks.methods.tasks import ADSQ, BUDGETS

RESAMPLES, SEED, LEVEL = 4_000, 0, 0.95
AP_UNITS = 10_000  # of 1: what the average precisions of a line are counted in
BOTH, ALONE = "ADSQ (both)", "ADSQ (f)"
NAMES = {  # of the methods that aren't written in capitals
    "bihalf": "Bi-half",
    "classify": "Classification",
    "greedyhash": "GreedyHash",
    "hashnet": "HashNet",
    "hyp2": "HyP2",
    "orthohash": "OrthoHash",
}
QUERY_NETS = {
    "ff": "f for both",
    "gg": "g for both",
    "fg": "f for queries, g for the database",
    "sum": "the sum of f and g for both",
}
NUMBER = (int, float)
RUN_KEYS: dict[str, Any] = {
    **dict.fromkeys(("set", "method", "map_at", "query_net", "protocol", "split_sha256", "machine", "date"), str),
    **dict.fromkeys(("code_sha256", "config_sha256"), str),
    **dict.fromkeys(("bits", "seed", "n_query", "n_train", "n_database"), int),
    **dict.fromkeys(("map", "precision_radius2", "empty_balls", "seconds", "memory_mib"), NUMBER),
    **dict.fromkeys(("map_by_query_net", "precision_at", "precision_recall", "settings", "versions"), dict),
    "ap": list,
    "trial": (int, type(None)),
}
TRIAL_KEYS: dict[str, Any] = {
    **dict.fromkeys(("method", "date"), str),
    **dict.fromkeys(("trial", "fold", "bits", "seed", "validation"), int),
    **dict.fromkeys(("map", "seconds"), NUMBER),
    "settings": dict,
}


class Score(NamedTuple):
    """A run with one of its query nets."""

    map: float
    run: dict[str, Any]
    resampled: np.ndarray  # the mean average precision over each resample of the queries, float64[RESAMPLES]


class Difference(NamedTuple):
    """A method's mAP minus another's, over their common seeds."""

    mean: float
    low: float | None  # the ends of the interval; None with one seed
    high: float | None

    @property
    def above(self) -> bool:
        """Return whether the interval is above 0."""
        return self.low is not None and self.low > 0

    @property
    def below(self) -> bool:
        """Return whether the interval is below 0."""
        return self.high is not None and self.high < 0


Cell = dict[int, Score]  # seed -> score
Table = dict[str, dict[int, Cell]]  # row's name -> code length -> cell


@dataclass
class Set:
    """The results of one data set."""

    folder: Path
    runs: list[dict[str, Any]]
    trials: list[dict[str, Any]]
    conditions: dict[str, list[dict[str, Any]]]  # condition -> runs
    variants: list[dict[str, Any]]
    table: Table = field(init=False)

    def __post_init__(self) -> None:
        self.table = table_of(self.runs)

    @property
    def name(self) -> str:
        """Return the data set's name."""
        return self.folder.name

    @property
    def bits(self) -> list[int]:
        """Return the code lengths of the runs."""
        return sorted({run["bits"] for run in self.runs})


def read(folder: Path) -> list[Set]:
    """Read the results of every data set.

    Args:
      folder: the folder with a folder of each data set.

    Returns:
      The data sets by name, without those that have neither runs nor trials.

    Raises:
      InputError: a line is not as expected, there are none, or runs can't be compared.
    """
    sets, order = [], {name: position for position, name in enumerate(conditions.NAMES)}
    for set_folder in sorted(path for path in folder.glob("*") if path.is_dir()):
        lines = [check_line(line, set_folder.name) for line in run_file.read(set_folder / run_file.NAME)]
        lines.sort(key=lambda line: tuple(line[key] for key in ("method", "variant", "budget", "bits", "seed")))
        lines.sort(key=lambda line: order.get(line["condition"], len(order)))
        trials, runs, harder = list[dict[str, Any]](), list[dict[str, Any]](), dict[str, list[dict[str, Any]]]()
        for line in lines:
            group = trials if line.get("validation") else runs
            (harder.setdefault(line["condition"], []) if line["condition"] else group).append(line)
        for group in (runs, *harder.values()):
            check_together(group)
        plain, variants = ([run for run in runs if bool(run["variant"]) is changed] for changed in (False, True))
        if runs or trials:
            sets.append(Set(set_folder, plain, trials, harder, variants))
    if not sets:
        raise InputError(
            f"{folder} has no SET/{run_file.NAME}: run python -m benchmarks.methods.compare first, or give --folder=DIR"
        )
    return sets


def check_line(line: dict[str, Any], set_name: str) -> dict[str, Any]:
    """Check what a line of runs.jsonl holds.

    Args:
      line: from `run_file.read`.
      set_name: the data set of its file.

    Returns:
      The line, with `variant`, `condition` and `budget`, empty where it has none, `fold`, 0 where it has none, and
      `settings_of_all` as text.

    Raises:
      InputError: a key is missing, or a value is not as expected.
    """
    where, texts = line["where"], {key: line.get(key) or "" for key in ("variant", "condition", "budget")}
    line = {"fold": 0, **line}
    for key, kind in (TRIAL_KEYS if line.get("validation") else RUN_KEYS).items():
        if key not in line:
            raise InputError(f"{where} has no {key!r}: run it again")
        if not isinstance(line[key], kind) or isinstance(line[key], bool):
            raise InputError(f"{where}: {key} is {str(line[key])[:50]!r}, of the wrong type: run it again")
    for key, text in texts.items():
        if not isinstance(text, str):
            raise InputError(f"{where}: {key} is {str(text)[:50]!r}, not text: run it again")
    of_all = line.get("settings_of_all") or {}
    if not isinstance(of_all, dict):
        raise InputError(f"{where}: settings_of_all is {str(of_all)[:50]!r}, not an object: run it again")
    if texts["budget"] not in ("", *BUDGETS):
        raise InputError(f"{where}: budget is {texts['budget']!r}, expected one of {', '.join(BUDGETS)}: run it again")
    if line.get("set", set_name) != set_name:
        raise InputError(f"{where} is of {line['set']!r}, its folder of {set_name!r}: move the line")
    line = {**line, **texts, "settings_of_all": settings_text(of_all)}
    if not line.get("validation"):
        check_measurements(line)
    return line


def settings_text(settings: dict[str, Any]) -> str:
    """Write settings on a line: `rounds 4, rate 0.01`."""
    return ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items())


def check_measurements(run: dict[str, Any]) -> None:
    """Check the measurements of a run that isn't a trial."""
    where, precisions = run["where"], {"ap": run["ap"]}
    if run["method"] == ADSQ:
        for net in QUERY_NETS if run["query_net"] == "sum" else ("ff",):
            if not isinstance(run["map_by_query_net"].get(net), NUMBER):
                raise InputError(f"{where} has no {net!r} in map_by_query_net: run it again")
        if run["query_net"] != "ff":
            precisions["ap_f"] = run.get("ap_f")
        if run["query_net"] != "sum" and not run["variant"]:
            raise InputError(f"{where}: expected query_net 'sum' of an ADSQ run, got {run['query_net']!r}: run it again")
    for key, values in precisions.items():
        if not isinstance(values, list) or len(values) != run["n_query"] or any(type(value) is not int for value in values):
            raise InputError(f"{where}: {key} is not a list of {run['n_query']} whole numbers, one a query: run it again")
    curve = [run["precision_recall"].get(key) for key in ("radius", "precision", "recall")]
    if not all(isinstance(values, list) and len(values) == len(curve[0]) and numbers(values) for values in curve):
        raise InputError(f"{where}: precision_recall lacks lists of one length (radius, precision, recall): run it again")
    if not (all(n.isdecimal() for n in run["precision_at"]) and numbers(run["precision_at"].values())):
        raise InputError(f"{where}: precision_at holds something else than numbers: run it again")


def numbers(values: Iterable[Any]) -> bool:
    """Return whether all values are numbers."""
    return all(isinstance(value, NUMBER) for value in values)


def check_together(runs: list[dict[str, Any]]) -> None:
    """Check that runs of one data set and condition can be compared.

    Raises:
      InputError: their splits, cutoffs or settings differ, or two are the same run.
    """
    for key in ("split_sha256", "map_at", "n_query", "settings_of_all"):
        first: dict[Any, str] = {}
        for run in runs:
            first.setdefault(run[key], run["where"])
        if len(first) > 1:
            values = ", ".join(f"{str(value)[:12]} in {where}" for value, where in first.items())
            raise InputError(f"runs to be compared differ in {key} ({values}): keep those with one value")
    seen: dict[tuple, str] = {}
    for run in runs:
        which = tuple(run[name] for name in ("method", "variant", "budget", "bits", "seed"))
        if which in seen:
            raise InputError(f"{run['where']} and {seen[which]} are of the same method, code length and seed: remove one")
        seen[which] = run["where"]


def display_name(method: str) -> str:
    """Return a method's name as its paper writes it; that of a module of one's own stays."""
    return method if "." in method else NAMES.get(method, method.upper())


def rows_of(run: dict[str, Any]) -> dict[str, tuple[float, list[int]]]:
    """Return a run's mAP and average precisions by row of a table.

    ADSQ and its variants have a row for network f alone and, with two networks, one for both.
    """
    if run["method"] != ADSQ:
        name = " ".join(filter(None, (display_name(run["method"]), run["variant"])))
        return {", ".join(filter(None, (name, BUDGETS.get(run["budget"])))): (run["map"], run["ap"])}
    name = run["variant"] or "ADSQ"
    alone = run["ap"] if run["query_net"] == "ff" else run["ap_f"]
    both = {f"{name} (both)": (run["map"], run["ap"])} if run["query_net"] == "sum" else {}
    return {f"{name} (f)": (run["map_by_query_net"]["ff"], alone), **both}


def table_of(runs: Iterable[dict[str, Any]]) -> Table:
    """Collect the scores of runs on the same queries.

    Returns:
      Rows by falling mean over the code lengths, those with fewer code lengths last.
    """
    rows = [(name, run, *scored) for run in runs for name, scored in rows_of(run).items()]
    if not rows:
        return {}
    precisions = np.array([ap for *_, ap in rows], np.float64)  # whole numbers, so that their sums are exact
    resampled = precisions @ query_resamples(precisions.shape[1]).T / (AP_UNITS * precisions.shape[1])
    table: Table = {}
    for (name, run, value, _), means in zip(rows, resampled, strict=True):
        table.setdefault(name, {}).setdefault(run["bits"], {})[run["seed"]] = Score(value, run, means)
    by_mean = sorted(table.items(), key=lambda row: (-len(row[1]), -mean(map_of(cell) for cell in row[1].values()), row[0]))
    return dict(by_mean)


def map_of(cell: Cell) -> float:
    """Return the mean mAP over the seeds."""
    return mean(score.map for score in cell.values())


@lru_cache(maxsize=1)
def query_resamples(n: int) -> np.ndarray:
    """Draw n queries of n with replacement, RESAMPLES times: how often each was drawn, float64[RESAMPLES, n]."""
    random = np.random.default_rng(SEED)
    return np.array([np.bincount(random.integers(n, size=n), minlength=n) for _ in range(RESAMPLES)], np.float64)


def difference(ours: Cell, other: Cell) -> Difference | None:
    """Subtract a cell from another, with a bootstrap interval over seeds and queries.

    A resample draws seeds with replacement, then queries, the same ones for each drawn seed and both methods. The interval
    holds the middle LEVEL of the resampled differences (Efron and Tibshirani 1993, chapter 13: percentiles).

    Args:
      ours: scores by seed.
      other: scores by seed, on the same queries.

    Returns:
      The difference over the common seeds; None without a common seed.
    """
    seeds = sorted(ours.keys() & other.keys())
    if not seeds:
        return None
    middle = mean(ours[seed].map - other[seed].map for seed in seeds)
    if len(seeds) == 1:
        return Difference(middle, None, None)
    drawn = np.random.default_rng(SEED + 1).integers(len(seeds), size=(RESAMPLES, len(seeds)))
    by_seed = np.array([ours[seed].resampled - other[seed].resampled for seed in seeds])  # [seeds, RESAMPLES]
    means = by_seed[drawn, np.arange(RESAMPLES)[:, None]].mean(axis=1)
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Difference(middle, float(low), float(high))


def to_baselines(table: Table, ours: str, bits: int) -> dict[str, Difference]:
    """Subtract every baseline from one of ADSQ's rows at a code length; from ADSQ (f), those of one network.

    Returns:
      Differences by baseline; empty without the row or without a baseline.
    """
    cell, differences = table.get(ours, {}).get(bits, {}), {}
    for name, row in table.items():
        other = row.get(bits, {})
        if name in (BOTH, ALONE) or (ours == ALONE and any(score.run["query_net"] == "sum" for score in other.values())):
            continue
        one = difference(cell, other)
        if one is not None:
            differences[name] = one
    return differences


def to_best_baseline(table: Table, ours: str, bits: int) -> tuple[str, Difference | None]:
    """Return the best of `to_baselines` and the difference to it; "" and None without any."""
    differences = to_baselines(table, ours, bits)
    best = max(differences, key=lambda name: map_of(table[name][bits]), default="")
    return best, differences.get(best)


def best_of(table: Table, bits: int) -> set[str]:
    """Return the best row at a code length, and the rows that it isn't above."""
    cells = {name: row[bits] for name, row in table.items() if bits in row}
    if not cells:
        return set()
    best = max(cells, key=lambda name: map_of(cells[name]))
    others = {name: difference(cells[best], cell) for name, cell in cells.items()}
    return {best, *(name for name, one in others.items() if one is not None and one.low is not None and not one.above)}
