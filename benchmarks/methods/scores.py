"""The runs of `python -m benchmarks.methods.compare`: read, checked, and compared with one another."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from adsq_jax.errors import InputError
from benchmarks.methods import conditions, run_file

FLIPS, SEED = 10_000, 0
BOTH, ALONE = "ADSQ (both)", "ADSQ (f)"
NAMES = {  # of the methods that aren't written in capitals
    "greedyhash": "GreedyHash",
    "hashnet": "HashNet",
    "hyp2": "HyP2",
    "orthohash": "OrthoHash",
    "bihalf": "Bi-half",
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
    "trial": int,
}
TRIAL_KEYS: dict[str, Any] = {
    **dict.fromkeys(("method", "date"), str),
    **dict.fromkeys(("trial", "bits", "seed", "validation"), int),
    **dict.fromkeys(("map", "seconds"), NUMBER),
    "settings": dict,
}


class Score(NamedTuple):
    """A run with one of its query nets."""

    map: float
    ap: np.ndarray  # average precision of each query in units of 1e-4, int64[n_query]
    run: dict[str, Any]


class Difference(NamedTuple):
    """A method's mAP minus another's, over their common seeds."""

    mean: float
    spread: float | None  # pooled; None with one seed
    p: float

    @property
    def beyond(self) -> bool:
        """Return whether the difference, above or below 0, is larger than the spread."""
        return self.spread is not None and abs(self.mean) > self.spread


Table = dict[str, dict[int, dict[int, Score]]]  # row's name -> code length -> seed -> score
Differences = dict[str, dict[int, Difference]]  # name of the method subtracted -> code length -> difference


@dataclass
class Set:
    """The results of one data set."""

    folder: Path
    runs: list[dict[str, Any]]
    trials: list[dict[str, Any]]
    beyond: dict[str, list[dict[str, Any]]]  # condition -> runs
    variants: list[dict[str, Any]]
    table: Table = field(init=False)
    differences: dict[str, Differences] = field(init=False)  # ADSQ (both) or ADSQ (f) -> its differences

    def __post_init__(self):
        self.table = table_of(self.runs)
        self.differences = {name: compared(self.table, name) for name in (BOTH, ALONE)}

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
        lines.sort(key=lambda line: (line["method"], line["variant"], line["bits"], line["seed"]))
        lines.sort(key=lambda line: order.get(line["condition"], len(order)))
        trials, runs, beyond = [], [], dict[str, list[dict[str, Any]]]()
        for line in lines:
            group = trials if line.get("validation") else runs
            (beyond.setdefault(line["condition"], []) if line["condition"] else group).append(line)
        for group in (runs, *beyond.values()):
            check_together(group)
        plain, variants = ([run for run in runs if bool(run["variant"]) is changed] for changed in (False, True))
        if runs or trials:
            sets.append(Set(set_folder, plain, trials, beyond, variants))
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
      The line, with `variant` and `condition`, empty where it has none, and with `settings_of_all` as text.

    Raises:
      InputError: a key is missing, or a value is not as expected.
    """
    where, texts = line["where"], {key: line.get(key) or "" for key in ("variant", "condition")}
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
    if run["method"] == "adsq":
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
        which = tuple(run[name] for name in ("method", "variant", "bits", "seed"))
        if which in seen:
            raise InputError(f"{run['where']} and {seen[which]} are of the same method, code length and seed: remove one")
        seen[which] = run["where"]


def display_name(method: str) -> str:
    """Return a method's name as its paper writes it."""
    return NAMES.get(method, method.upper())


def scores_of(run: dict[str, Any]) -> dict[str, Score]:
    """Return a run's scores by row: ADSQ and its variants have one for network f alone and, with two networks, one for both."""
    score = Score(run["map"], np.array(run["ap"], np.int64), run)
    if run["method"] != "adsq":
        return {" ".join(filter(None, (display_name(run["method"]), run["variant"]))): score}
    name = run["variant"] or "ADSQ"
    alone = score if run["query_net"] == "ff" else Score(run["map_by_query_net"]["ff"], np.array(run["ap_f"], np.int64), run)
    return {f"{name} (f)": alone, **({f"{name} (both)": score} if run["query_net"] == "sum" else {})}


def table_of(runs: Iterable[dict[str, Any]]) -> Table:
    """Collect all scores; rows by falling mean over the code lengths, those with fewer code lengths last."""
    table: Table = {}
    for run in runs:
        for name, score in scores_of(run).items():
            table.setdefault(name, {}).setdefault(run["bits"], {})[run["seed"]] = score
    by_mean = sorted(table.items(), key=lambda row: (-len(row[1]), -mean(map_of(cell) for cell in row[1].values()), row[0]))
    return dict(by_mean)


def map_of(cell: dict[int, Score]) -> float:
    """Return the mean mAP over the seeds."""
    return mean(score.map for score in cell.values())


@cache
def flips(n: int) -> np.ndarray:
    """Return signs for n queries, float64[flips, n]: all combinations if they are at most FLIPS, else FLIPS random ones."""
    if 2**n <= FLIPS:
        return np.array(list(product((-1.0, 1.0), repeat=n)))
    return np.random.default_rng(SEED).integers(0, 2, (FLIPS, n)) * 2.0 - 1


def paired_p(differences: np.ndarray) -> float:
    """Compute p of Fisher's two-sided paired randomisation test: how often flipped signs give a sum as far from 0.

    Args:
      differences: int[n_query], a difference for each query.

    Returns:
      The share of all flips if they are at most FLIPS, else (1 + count) / (1 + FLIPS) of random ones.
    """
    signs = flips(len(differences))
    as_far = int((abs(signs @ differences.astype(np.float64)) >= abs(differences.sum())).sum())
    return as_far / len(signs) if 2 ** len(differences) <= FLIPS else (1 + as_far) / (1 + FLIPS)


def holm(values: Sequence[float]) -> list[float]:
    """Correct the p values of one family by Holm's method, in their order."""
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = largest
    return adjusted


def difference(ours: dict[int, Score], other: dict[int, Score]) -> Difference | None:
    """Subtract a cell from another.

    Args:
      ours: scores by seed.
      other: scores by seed, on the same queries.

    Returns:
      The difference over the common seeds with an uncorrected p; None without a common seed.
    """
    seeds = sorted(ours.keys() & other.keys())
    if not seeds:
        return None
    sides = [[cell[seed].map for seed in seeds] for cell in (ours, other)]
    spread = mean(stdev(side) ** 2 for side in sides) ** 0.5 if len(seeds) > 1 else None
    by_query = sum(ours[seed].ap - other[seed].ap for seed in seeds)
    return Difference(mean(sides[0]) - mean(sides[1]), spread, paired_p(by_query))


def corrected(differences: Differences) -> Differences:
    """Return the differences with p corrected by Holm over the rows of a code length."""
    adjusted: Differences = {name: {} for name in differences}
    for bits in sorted({bits for row in differences.values() for bits in row}):
        family = {name: row[bits] for name, row in differences.items() if bits in row}
        for (name, one), p in zip(family.items(), holm([one.p for one in family.values()]), strict=True):
            adjusted[name][bits] = one._replace(p=p)
    return adjusted


def compared(table: Table, ours: str) -> Differences:
    """Subtract every baseline from a row.

    Args:
      table: scores of the baselines and of the row.
      ours: the row's name.

    Returns:
      Differences by baseline and code length, p corrected by Holm over the baselines of a code length; empty without the row.
    """
    differences: Differences = {}
    for name, row in table.items():
        for bits, cell in row.items() if name not in (BOTH, ALONE) else ():
            one = difference(table.get(ours, {}).get(bits, {}), cell)
            if one is not None:
                differences.setdefault(name, {})[bits] = one
    return corrected(differences)


def baselines_at(differences: Differences, bits: int) -> dict[str, Difference]:
    """Return the differences to the baselines at one code length."""
    return {name: row[bits] for name, row in differences.items() if bits in row}


def ranking(sets: Sequence[Set]) -> tuple[int, list[tuple[str, float, float]]]:
    """Rank the baselines over the set and code lengths at which all of them were run.

    Returns:
      The number of these set and code lengths; for each baseline its name, its mean rank among the baselines (1 is the highest
      mAP) and its mean distance below the best baseline's mAP, by rising rank.
    """
    names = {name for one in sets for name in one.table} - {BOTH, ALONE}
    maps = [
        {name: map_of(one.table[name][bits]) for name in names}
        for one in sets
        for bits in one.bits
        if all(bits in one.table.get(name, {}) for name in names)
    ]
    rows = []
    for name in names if maps else ():
        ranks = [1 + sum(other > by_name[name] for other in by_name.values()) for by_name in maps]
        rows.append((name, mean(ranks), mean(max(by_name.values()) - by_name[name] for by_name in maps)))
    return len(maps), sorted(rows, key=lambda row: (row[1], row[0]))
