"""What `python -m benchmarks.methods.compare` leaves, read and compared: a folder a data set, in it a JSON a run."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from adsq_jax.errors import InputError

FLIPS, SEED = 10_000, 0
BOTH, ALONE = "ADSQ (both)", "ADSQ (f)"
NAMES = {  # how a method is written that isn't all capitals
    "greedyhash": "GreedyHash",
    "hashnet": "HashNet",
    "orthohash": "OrthoHash",
}
QUERY_NETS = {
    "ff": "f for both",
    "gg": "g for both",
    "fg": "f for queries, g for the database",
    "sum": "the sum of f and g for both",
}
NUMBER = (int, float)
LARGEST = 1e15
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
    """One run by one query net."""

    map: float
    ap: np.ndarray  # of each query in units of 1e-4, int64[n_query]
    run: dict[str, Any]


class Difference(NamedTuple):
    """A method minus another, over the seeds that both have."""

    mean: float
    spread: float | None  # pooled; None of one seed
    p: float

    @property
    def beyond(self) -> bool:
        """Whether it is larger than the spread, above or below 0."""
        return self.spread is not None and abs(self.mean) > self.spread


Table = dict[str, dict[int, dict[int, Score]]]  # by a row's name, code length and seed
Differences = dict[str, dict[int, Difference]]  # by the name of the method that is taken away, and code length


@dataclass
class Set:
    """Everything of one data set."""

    folder: Path
    runs: list[dict[str, Any]]
    trials: list[dict[str, Any]]
    beyond: dict[str, list[dict[str, Any]]]  # by condition
    variants: list[dict[str, Any]]
    table: Table = field(init=False)
    differences: dict[str, Differences] = field(init=False)  # of ADSQ (both) and ADSQ (f)

    def __post_init__(self):
        self.table = table_of(self.runs)
        self.differences = {name: compared(self.table, name) for name in (BOTH, ALONE)}

    @property
    def name(self) -> str:
        """The data set's."""
        return self.folder.name

    @property
    def bits(self) -> list[int]:
        """The code lengths of the runs."""
        return sorted({run["bits"] for run in self.runs})


def read(folder: Path) -> list[Set]:
    """Reads the results of every data set.

    Args:
      folder: of the data sets' folders.

    Returns:
      The data sets by name, without those that have neither runs nor trials.

    Raises:
      InputError: a file is not what is expected, there are none, or runs can't be compared.
    """
    sets = []
    for place in sorted(path for path in folder.glob("*") if path.is_dir()):
        runs = [read_run(path) for part in ("runs", "variants") for path in sorted((place / part).glob("*.json"))]
        beyond = {
            inner.name: [read_run(path) for path in sorted(inner.glob("*.json"))]
            for inner in sorted((place / "beyond").glob("*"))
        }
        trials = [read_json(path, TRIAL_KEYS) for path in sorted((place / "trials").glob("*.json"))]
        for group in (runs, *beyond.values()):
            check_together(group)
        plain, changed = ([run for run in runs if bool(run["variant"]) is varied] for varied in (False, True))
        if runs or trials:
            sets.append(Set(place, plain, trials, {name: group for name, group in beyond.items() if group}, changed))
    if not sets:
        raise InputError(
            f"{folder} has no SET/runs/*.json: run python -m benchmarks.methods.compare first, or give --folder=DIR"
        )
    return sets


def read_json(path: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: its file.
      keys: that it must have, and their types.

    Returns:
      It, with its `path`, with `variant`, empty where it has none, and with `settings_of_all` as a text, empty too.

    Raises:
      InputError: it can't be read, or lacks a key.
    """

    def number(text: str) -> float:
        value = int(text) if text.removeprefix("-").isdecimal() else float(text)
        if not abs(value) < LARGEST:
            raise ValueError(f"{text[:50]} is no number that a run gives")
        return value

    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=number, parse_float=number, parse_int=number)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read as JSON ({error}): run that part again") from error
    for key, kind in keys.items():
        if not isinstance(found, dict) or key not in found:
            raise InputError(f"{path} has no {key!r}: run that part again")
        if not isinstance(found[key], kind) or isinstance(found[key], bool):
            raise InputError(f"{path}: {key} is {str(found[key])[:50]!r}, of the wrong type: run that part again")
    variant = found.get("variant") or ""
    if not isinstance(variant, str):
        raise InputError(f"{path}: variant is {str(variant)[:50]!r}, not a text: run that part again")
    of_all = found.get("settings_of_all") or {}
    if not isinstance(of_all, dict):
        raise InputError(f"{path}: settings_of_all is {str(of_all)[:50]!r}, no object: run that part again")
    return {**found, "variant": variant, "settings_of_all": settings_text(of_all), "path": path}


def settings_text(settings: dict[str, Any]) -> str:
    """Settings on a line."""
    return ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items())


def read_run(path: Path) -> dict[str, Any]:
    """Reads the JSON of a run.

    Args:
      path: SET/runs/NAME.json, SET/variants/NAME.json or SET/beyond/CONDITION/NAME.json.

    Returns:
      What it holds, and its `path`.

    Raises:
      InputError: it isn't a run's JSON.
    """
    run = read_json(path, RUN_KEYS)
    folder = path.parents[2 if path.parents[1].name == "beyond" else 1].name
    if run["set"] != folder:
        raise InputError(f"{path} is of {run['set']!r} and lies in the folder of {folder!r}: move it")
    if path.parents[1].name == "beyond" and run.get("condition") != path.parent.name:
        raise InputError(f"{path} is of condition {str(run.get('condition'))[:50]!r} and lies in {path.parent.name!r}: move it")
    nets = {"ap": run["ap"]}
    if run["method"] == "adsq":
        for net in QUERY_NETS if run["query_net"] == "sum" else ("ff",):
            if not isinstance(run["map_by_query_net"].get(net), NUMBER):
                raise InputError(f"{path} has no {net!r} in map_by_query_net: run that part again")
        if run["query_net"] != "ff":
            nets["ap_f"] = run.get("ap_f")
        if run["query_net"] != "sum" and not run["variant"]:
            raise InputError(f"{path}: query_net is {run['query_net']!r}, and ADSQ's runs are compared by 'sum': run it again")
    for key, values in nets.items():
        if not isinstance(values, list) or len(values) != run["n_query"] or any(type(value) is not int for value in values):
            raise InputError(f"{path}: {key} is not a list of {run['n_query']} whole numbers, one a query: run that part again")
    curve = [run["precision_recall"].get(key) for key in ("radius", "precision", "recall")]
    if not all(isinstance(values, list) and len(values) == len(curve[0]) and numbers(values) for values in curve):
        raise InputError(f"{path}: precision_recall lacks lists of one length (radius, precision, recall): run that part again")
    if not (all(n.isdecimal() for n in run["precision_at"]) and numbers(run["precision_at"].values())):
        raise InputError(f"{path}: precision_at has something else than numbers: run that part again")
    return run


def numbers(values: Iterable[Any]) -> bool:
    """Whether all are numbers."""
    return all(isinstance(value, NUMBER) for value in values)


def check_together(runs: list[dict[str, Any]]) -> None:
    """Checks that runs can be compared.

    Args:
      runs: of one set and condition.

    Raises:
      InputError: their splits or cutoffs differ, or two are the same run.
    """
    for key in ("split_sha256", "map_at", "n_query", "settings_of_all"):
        first: dict[Any, Path] = {}
        for run in runs:
            first.setdefault(run[key], run["path"])
        if len(first) > 1:
            said = ", ".join(f"{str(value)[:12]} in {path}" for value, path in first.items())
            raise InputError(f"runs that are to be compared differ in {key} ({said}): keep those of one")
    seen: dict[tuple, Path] = {}
    for run in runs:
        which = tuple(run[name] for name in ("method", "variant", "bits", "seed"))
        if which in seen:
            raise InputError(f"{run['path']} and {seen[which]} are of the same method, code length and seed: remove one")
        seen[which] = run["path"]


def shown(method: str) -> str:
    """How a method's name is written."""
    return NAMES.get(method, method.upper())


def scores_of(run: dict[str, Any]) -> dict[str, Score]:
    """A run's rows: ADSQ and its variants have one for a network alone and, with two, one for both."""
    own = Score(run["map"], np.array(run["ap"], np.int64), run)
    if run["method"] != "adsq":
        return {" ".join(filter(None, (shown(run["method"]), run["variant"]))): own}
    name = run["variant"] or "ADSQ"
    alone = own if run["query_net"] == "ff" else Score(run["map_by_query_net"]["ff"], np.array(run["ap_f"], np.int64), run)
    return {f"{name} (f)": alone, **({f"{name} (both)": own} if run["query_net"] == "sum" else {})}


def table_of(runs: Iterable[dict[str, Any]]) -> Table:
    """All scores by row, code length and seed; rows by falling mean over the code lengths, those that lack one last."""
    found: Table = {}
    for run in runs:
        for name, score in scores_of(run).items():
            found.setdefault(name, {}).setdefault(run["bits"], {})[run["seed"]] = score
    by_mean = sorted(found.items(), key=lambda row: (-len(row[1]), -mean(map_of(cell) for cell in row[1].values()), row[0]))
    return dict(by_mean)


def map_of(cell: dict[int, Score]) -> float:
    """The mean over the seeds."""
    return mean(score.map for score in cell.values())


@cache
def flips(n: int) -> np.ndarray:
    """Signs for n queries, float64[flips, n]: all there are where they are no more than FLIPS, else FLIPS drawn from SEED."""
    if 2**n <= FLIPS:
        return np.array(list(product((-1.0, 1.0), repeat=n)))
    return np.random.default_rng(SEED).integers(0, 2, (FLIPS, n)) * 2.0 - 1


def paired_p(differences: np.ndarray) -> float:
    """Two-sided paired randomisation test of Fisher: how often flipped signs give a sum as far from 0.

    Args:
      differences: of each query, whole numbers [n_query].

    Returns:
      p, of all flips where they are no more than FLIPS, else (1 + count) / (1 + FLIPS).
    """
    signs = flips(len(differences))
    as_far = int((abs(signs @ differences.astype(np.float64)) >= abs(differences.sum())).sum())
    return as_far / len(signs) if 2 ** len(differences) <= FLIPS else (1 + as_far) / (1 + FLIPS)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's correction of the p values of one family, in their order."""
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        adjusted[i] = largest
    return adjusted


def difference(ours: dict[int, Score], other: dict[int, Score]) -> Difference | None:
    """One cell minus another.

    Args:
      ours: scores by seed.
      other: scores by seed, on the same queries.

    Returns:
      The difference over the common seeds with an uncorrected p, None without a common seed.
    """
    seeds = sorted(ours.keys() & other.keys())
    if not seeds:
        return None
    sides = [[cell[seed].map for seed in seeds] for cell in (ours, other)]
    spread = mean(stdev(side) ** 2 for side in sides) ** 0.5 if len(seeds) > 1 else None
    by_query = sum(ours[seed].ap - other[seed].ap for seed in seeds)
    return Difference(mean(sides[0]) - mean(sides[1]), spread, paired_p(by_query))


def corrected(found: Differences) -> Differences:
    """The same differences, their p corrected by Holm over the rows of a code length."""
    adjusted: Differences = {name: {} for name in found}
    for bits in sorted({bits for row in found.values() for bits in row}):
        family = {name: row[bits] for name, row in found.items() if bits in row}
        for (name, one), p in zip(family.items(), holm([one.p for one in family.values()]), strict=True):
            adjusted[name][bits] = one._replace(p=p)
    return adjusted


def compared(table: Table, ours: str) -> Differences:
    """A row minus every baseline.

    Args:
      table: with the baselines.
      ours: the row's name; where the table lacks it, nothing is compared.

    Returns:
      Differences by baseline and code length, p corrected by Holm over the baselines of a code length.
    """
    found: Differences = {}
    for name, row in table.items():
        for bits, cell in row.items() if name not in (BOTH, ALONE) else ():
            one = difference(table.get(ours, {}).get(bits, {}), cell)
            if one is not None:
                found.setdefault(name, {})[bits] = one
    return corrected(found)


def baselines_at(differences: Differences, bits: int) -> dict[str, Difference]:
    """The differences to the baselines at one code length."""
    return {name: row[bits] for name, row in differences.items() if bits in row}


def ranking(sets: Sequence[Set]) -> tuple[int, list[tuple[str, float, float]]]:
    """The baselines over all set and code lengths that have each of them.

    Args:
      sets: of `read`.

    Returns:
      How many places there are; of each baseline its name, its mean rank among the baselines (from 1, by mAP) and how far its
      mAP is below the best baseline's on average, by rising rank.
    """
    names = {name for one in sets for name in one.table} - {BOTH, ALONE}
    places = [
        {name: map_of(one.table[name][bits]) for name in names}
        for one in sets
        for bits in one.bits
        if all(bits in one.table.get(name, {}) for name in names)
    ]
    found = []
    for name in names if places else ():
        ranks = [1 + sum(other > place[name] for other in place.values()) for place in places]
        found.append((name, mean(ranks), mean(max(place.values()) - place[name] for place in places)))
    return len(places), sorted(found, key=lambda row: (row[1], row[0]))
