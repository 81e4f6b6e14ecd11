"""RESULTS.md and plots of the comparison of methods: `python -m benchmarks.report [--write] [--folder=DIR]`.

Reads what `python -m benchmarks.compare` leaves: a folder a data set, in it a JSON a run. Prints RESULTS.md; with --write also
writes it, and PNGs beside the runs. Needs the extra `test` (matplotlib, and scipy, which scikit-learn brings).
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from adsq_jax.errors import InputError

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "results" / "compare"
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
RUN_KEYS: dict[str, Any] = {
    **dict.fromkeys(("set", "method", "map_at", "query_net", "protocol", "split_sha256", "machine", "date"), str),
    **dict.fromkeys(("code_sha256", "config_sha256"), str),
    **dict.fromkeys(("bits", "seed", "n_query", "n_train", "n_database"), int),
    **dict.fromkeys(("map", "precision_radius2", "empty_balls", "seconds", "memory_mib"), NUMBER),
    **dict.fromkeys(("map_by_query_net", "precision_at", "precision_recall", "settings", "versions"), dict),
    "ap": list,
    "trial": (int, type(None)),  # None: nothing to choose
}
TRIAL_KEYS: dict[str, Any] = {
    **dict.fromkeys(("method", "date"), str),
    **dict.fromkeys(("trial", "bits", "seed", "validation"), int),
    **dict.fromkeys(("map", "seconds"), NUMBER),
    "settings": dict,
}
MISSING = "\u2013"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the report, and writes it where that is asked for.

    Args:
      arguments: of the command line; None: the process's own.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the report and the plots")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the sets' folders; the plots go there too")
    parser.add_argument("--out", type=Path, default=ROOT / "RESULTS.md", help="the report's file")
    given = parser.parse_args(arguments)
    try:
        sets = read(given.folder)
        text = report(sets, place=Path(os.path.relpath(given.folder, given.out.parent)))
        if given.write:
            for one in sets:
                plot(one, looks(sets))
            given.out.write_text(text, encoding="utf-8")
    except (InputError, OSError) as error:
        parser.exit(2, f"error: {' '.join(str(error).split())}\n")
    sys.stdout.write(text)


# ---------------------------------------------------------------------------------------------------------------- what is read


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
        raise InputError(f"{folder} has no SET/runs/*.json: run python -m benchmarks.compare first, or give --folder=DIR")
    return sets


def read_json(path: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: its file.
      keys: that it must have, and their types.

    Returns:
      It, with its `path`, and with `variant`, empty where it has none.

    Raises:
      InputError: it can't be read, or lacks a key.
    """

    def refuse(name: str):
        raise ValueError(f"{name} is no number")

    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
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
    return {**found, "variant": variant, "path": path}


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
    if not all(isinstance(values, list) and len(values) == len(curve[0]) for values in curve):
        raise InputError(f"{path}: precision_recall lacks lists of one length (radius, precision, recall): run that part again")
    return run


def check_together(runs: list[dict[str, Any]]) -> None:
    """Checks that runs can be compared.

    Args:
      runs: of one set and condition.

    Raises:
      InputError: their splits or cutoffs differ, or two are the same run.
    """
    for key in ("split_sha256", "map_at", "n_query"):
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


# ------------------------------------------------------------------------------------------------------------------- statistics


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


def paired_p(differences: np.ndarray) -> float:
    """Two-sided paired randomisation test of Fisher: how often flipped signs give a sum as far from 0.

    Args:
      differences: of each query, whole numbers [n_query].

    Returns:
      p, of all flips where they are no more than FLIPS, else (1 + count) / (1 + FLIPS).
    """
    from scipy.stats import permutation_test

    found = permutation_test(
        (differences.astype(np.float64),),
        lambda x, axis: np.abs(x.sum(axis=axis)),
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        batch=max(1, 1_000_000 // max(1, len(differences))),
        alternative="greater",
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)


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


# ------------------------------------------------------------------------------------------------------------------------- text


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def cell_text(cell: dict[int, Score] | None, *, seeds: int, best: float | None) -> str:
    """A cell's mean and spread.

    Args:
      cell: scores by seed, if there are any.
      seeds: how many the cells beside it have.
      best: the highest mean of the column; None: none is marked.

    Returns:
      Markdown.
    """
    if not cell:
        return MISSING
    text = f"{map_of(cell):.4f}"
    if len(cell) > 1:
        text += f" ± {stdev(score.map for score in cell.values()):.4f}"
    if map_of(cell) == best:
        text = f"**{text}**"
    return text + (f" ({count(len(cell), 'seed')})" if len(cell) < seeds else "")


def count(n: int, word: str) -> str:
    """A number and its noun: "1 seed", "2 seeds"."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def difference_text(one: Difference | None) -> str:
    """A difference in a table: bold where it is beyond the spread."""
    if one is None:
        return MISSING
    text = f"{one.mean:+.4f}"
    return f"{f'**{text}**' if one.beyond else text}, p {one.p:.4f}"


def difference_words(one: Difference, other: str) -> str:
    """A difference in a sentence: "0.0100 below DPSH, beyond the spread (p 0.0200)"."""
    side = "above" if one.mean > 0 else "below" if one.mean < 0 else "away from"
    spread = "spread unknown of one seed" if one.spread is None else f"{'beyond' if one.beyond else 'within'} the spread"
    return f"{abs(one.mean):.4f} {side} {other}, {spread} (p {one.p:.4f})"


def columns(table: Table, keys: Sequence[int]) -> tuple[int, dict[int, float]]:
    """The most seeds of a cell, and the highest mean of each code length."""
    seeds = max((len(cell) for row in table.values() for cell in row.values()), default=0)
    return seeds, {bits: max(map_of(row[bits]) for row in table.values() if bits in row) for bits in keys}


def main_table(one: Set) -> str:
    """A row a method, a column a code length; then the mean over them and what a run takes."""
    seeds, best = columns(one.table, one.bits)
    rows = []
    for name, row in one.table.items():
        runs = [score.run for cell in row.values() for score in cell.values()]
        passes = "1" if name == ALONE or runs[0]["query_net"] != "sum" else "2"
        cells = [cell_text(row.get(bits), seeds=seeds, best=best[bits]) for bits in one.bits]
        whole = f"{mean(map_of(cell) for cell in row.values()):.4f}" if len(row) == len(one.bits) else MISSING
        cost = [f"{median(run[key] for run in runs):,.0f}" for key in ("seconds", "memory_mib")]
        rows.append([name, *cells, whole, passes, *cost])
    lengths = [f"{bits} bits" for bits in one.bits]
    return markdown(["method", *lengths, "mean", "passes an image", "seconds a run", "memory, MiB"], rows)


def differences_tables(one: Set) -> str:
    """ADSQ's two rows minus every baseline."""
    text = ""
    for ours, differences in one.differences.items():
        if differences:
            rows = [[name, *(difference_text(row.get(bits)) for bits in one.bits)] for name, row in differences.items()]
            text += f"\n{ours} minus each:\n\n" + markdown([f"{ours} minus", *(f"{bits} bits" for bits in one.bits)], rows)
    return text or "\nNo seed is common to ADSQ and a baseline: there is nothing to compare.\n"


def query_nets_table(one: Set) -> str:
    """ADSQ's mAP by what encodes queries and database, all of the same runs; empty without such runs."""
    cells = one.table.get(BOTH, {})
    found = {
        net: {
            bits: {seed: score._replace(map=score.run["map_by_query_net"][net]) for seed, score in cell.items()}
            for bits, cell in cells.items()
        }
        for net in QUERY_NETS
    }
    seeds, best = columns(found, list(cells))
    rows = [
        [what, *(cell_text(found[net].get(bits), seeds=seeds, best=best.get(bits)) for bits in one.bits)]
        for net, what in QUERY_NETS.items()
    ]
    head = ["encoded by", *(f"{bits} bits" for bits in one.bits)]
    return "\nADSQ by query net:\n\n" + markdown(head, rows) if cells else ""


def at_radius(run_scores: dict[int, Score] | None, name: str) -> tuple[str, str]:
    """Precision within radius 2 and the share of empty balls, means over the seeds, of a run's own query net."""
    runs = [score.run for score in (run_scores or {}).values() if name != ALONE or score.run["query_net"] == "ff"]
    if not runs:
        return MISSING, MISSING
    return f"{mean(run['precision_radius2'] for run in runs):.4f}", f"{mean(run['empty_balls'] for run in runs):.1%}"


def radius_table(one: Set) -> str:
    """Precision within radius 2 and empty balls."""
    rows = [[name, *(" / ".join(at_radius(row.get(bits), name)) for bits in one.bits)] for name, row in one.table.items()]
    return markdown(["method", *(f"{bits} bits" for bits in one.bits)], rows)


def settings_text(settings: dict[str, Any]) -> str:
    """Settings on a line."""
    return ", ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in settings.items())


def trials_table(one: Set) -> str:
    """A row a trial; of each method the one that its runs took is marked."""
    chosen: dict[tuple, set] = {}
    for run in (*one.runs, *one.variants):
        chosen.setdefault((run["method"], run["variant"]), set()).add(run["trial"])
    rows = []
    for trial in sorted(one.trials, key=lambda trial: (trial["method"], trial["variant"], trial["trial"])):
        key = trial["method"], trial["variant"]
        name = " ".join(filter(None, (shown(key[0]), key[1])))
        best = max(other["map"] for other in one.trials if (other["method"], other["variant"]) == key)
        value = f"{trial['map']:.4f}" + (" (best)" if trial["map"] == best else "")
        mark = "**chosen**" if trial["trial"] in chosen.get(key, ()) else ""
        rest = [f"{trial['validation']:,}", f"{trial['bits']}, {trial['seed']}", f"{trial['seconds']:,.0f}", trial["date"]]
        rows.append([name, str(trial["trial"]), settings_text(trial["settings"]), value, mark, *rest])
    head = ["method", "trial", "settings", "validation mAP", "runs take", "images held out", "bits, seed", "seconds", "date"]
    return markdown(head, rows)


def beyond_text(one: Set) -> str:
    """Runs under other conditions: a table a code length, and for each condition where ADSQ stands."""
    tables = {condition: table_of(runs) for condition, runs in one.beyond.items()}
    differences = {(condition, ours): compared(table, ours) for condition, table in tables.items() for ours in (BOTH, ALONE)}
    text = ""
    for bits in sorted({bits for table in tables.values() for row in table.values() for bits in row}):
        at = {"unchanged": one.table, **tables}
        at = {condition: table for condition, table in at.items() if any(bits in row for row in table.values())}
        order = dict.fromkeys(name for table in at.values() for name, row in table.items() if bits in row)
        ranked = {condition: columns(table, [bits]) for condition, table in at.items()}
        rows = [
            [
                name,
                *(cell_text(at[c].get(name, {}).get(bits), seeds=ranked[c][0], best=ranked[c][1][bits]) for c in at),
                *at_radius(one.table.get(name, {}).get(bits), name),
            ]
            for name in order
        ]
        text += f"\n{bits} bits:\n\n"
        text += markdown(["method", *at, "unchanged: precision within radius 2", "unchanged: empty balls"], rows) + "\n"
        for (condition, ours), found in differences.items():
            text += standing(f"{condition}: {ours}", table=tables[condition], found=found, bits=bits)
    about = [f"- {condition}: {about_runs(runs)}\n" for condition, runs in one.beyond.items()]
    return "\nWhat each condition's runs were trained and tested on:\n\n" + "".join(about) + text


def standing(name: str, *, table: Table, found: Differences, bits: int) -> str:
    """A line that says how far a row is from the best baseline; empty where there is none."""
    others = baselines_at(found, bits)
    if not others:
        return ""
    best = max(others, key=lambda other: map_of(table[other][bits]))
    return f"- {name} is {difference_words(others[best], f'the best baseline, {best}')}.\n"


def variants_text(one: Set) -> str:
    """Changed objectives: the mAP of each, and each minus the plain method with as many networks."""
    table = table_of(one.variants)
    lengths = sorted({run["bits"] for run in one.variants})
    found: dict[str, Differences] = {"(both)": {}, "(f)": {}}
    for name, row in table.items():
        for nets, plain in (("(both)", BOTH), ("(f)", ALONE)):
            cells = {bits: difference(cell, one.table.get(plain, {}).get(bits, {})) for bits, cell in row.items()}
            if name.endswith(nets):
                found[nets][name] = {bits: cell for bits, cell in cells.items() if cell is not None}
    differences = {name: row for nets in found.values() for name, row in corrected(nets).items()}
    seeds, _ = columns(table, lengths)
    rows = []
    for name, row in table.items():
        maps = [cell_text(row.get(bits), seeds=seeds, best=None) for bits in lengths]
        rows.append([name, *maps, *(difference_text(differences.get(name, {}).get(bits)) for bits in lengths)])
    head = ["variant", *(f"{bits} bits" for bits in lengths), *(f"minus ADSQ, {bits} bits" for bits in lengths)]
    text = (
        f"\nA variant (both) is set beside {BOTH}, a variant (f) beside {ALONE}, and p corrected over those of each kind.\n\n"
    )
    return text + markdown(head, rows)


def span(values: Iterable[str]) -> str:
    """A value, or the first and the last."""
    found = sorted(set(values))
    return " to ".join(dict.fromkeys((found[0], found[-1])))


def about_runs(runs: list[dict[str, Any]]) -> str:
    """Protocol, sizes and split of runs, on a line."""
    protocols = ", ".join(sorted({run["protocol"] for run in runs}))
    sizes = [
        f"{' or '.join(f'{n:,}' for n in sorted({run[key] for run in runs}))} {what}"
        for key, what in (("n_query", "queries"), ("n_train", "training images"), ("n_database", "images in the database"))
    ]
    return f"{protocols}; mAP@{runs[0]['map_at']}; {', '.join(sizes)}; split `{runs[0]['split_sha256'][:12]}`."


def how_made(runs: list[dict[str, Any]]) -> str:
    """Days, machines and versions of runs."""
    codes = sorted({run["code_sha256"][:12] for run in runs})
    packages = sorted({f"{name} {version}" for run in runs for name, version in run["versions"].items()})
    machines = "; ".join(sorted({run["machine"] for run in runs}))
    return (
        f"{count(len(runs), 'run')}, {span(run['date'] for run in runs)}, on {machines}. "
        f"{count(len(codes), 'version')} of the code ({', '.join(f'`{code}`' for code in codes)}); {', '.join(packages)}."
    )


IMAGES = {
    "map_by_bits.png": "mAP by code length; bars: spread over the seeds",
    "precision_recall.png": "Precision over recall by Hamming radius, mean over the seeds",
    "precision_at.png": "Precision of the first N, mean over the seeds",
}


def section(one: Set, place: Path) -> str:
    """A data set's section.

    Args:
      one: the data set.
      place: the folder of all data sets, as seen from the report.

    Returns:
      Markdown.
    """
    text = f"\n## {one.name}\n"
    if one.runs:
        images = "\n".join(f"![{what}]({(place / one.name / file).as_posix()})\n" for file, what in IMAGES.items())
        text += f"\n{about_runs(one.runs)}\n{how_made([*one.runs, *one.variants])}\n\n{main_table(one)}"
        text += differences_tables(one) + query_nets_table(one)
        text += f"\nPrecision within radius 2 / share of queries with nothing there:\n\n{radius_table(one)}\n{images}"
    if one.trials:
        text += f"\n### {one.name}: tuning\n\nOn training images that were held out, not on the queries.\n\n{trials_table(one)}"
    if one.beyond:
        text += f"\n### {one.name}: other conditions\n{beyond_text(one)}"
    if one.variants:
        text += f"\n### {one.name}: variants of the objective\n{variants_text(one)}"
    return text


HEAD = f"""# Comparison of hashing methods

Made by two commands, no number typed by hand: `python -m benchmarks.compare ...` trains, measures and leaves a JSON a run under
`PLACE`; `python -m benchmarks.report --write` makes this file and the plots from those.

- **mAP** is that of a method's own codes at the protocol's cutoff, ties averaged, from 0 to 1: mean ± spread over the seeds.
  The **spread** is the sample standard deviation over the seeds. Bold: the best of a column.
- ADSQ stands in every table of mAP twice: **{ALONE}** encodes an image by one network, **{BOTH}** by the sum of two, which
  takes two passes an image (over a frozen trunk, which the two share, one pass and two heads). The rows are of the same runs.
- Nets, data, augmentation and epochs of a network are the same for all. ADSQ and DADH train two networks, and so take twice the
  updates of the others; ADSQ and DSEH train LabelNet as well. The two choices of settings that a method's four trials have were
  written down before its runs, except for ADSQ's, which were changed after earlier runs on stamps and on emoji_frozen (there
  called "before neighbours", among the variants): these two sets tell less of ADSQ than those that had no part in it.
- A **difference** is one of means over the seeds that both methods have. It is **beyond the spread** where it is larger than
  the pooled sample standard deviation of the two (the root of the mean of their variances); differences beyond it are bold.
  With three seeds, a difference as large as that comes by chance in about three of ten cases (t of 4 degrees of freedom).
- **p** is of a two-sided paired randomisation test (Fisher's; Smucker, Allan and Carterette, CIKM 2007) on the average
  precision of each query, averaged over the common seeds: {FLIPS:,} random flips of signs from a fixed seed,
  p = (1 + count) / (1 + flips), or all flips where they are fewer. It is corrected by Holm over the rows of one table and code
  length; the summary repeats the p of the set's table. It is of the queries, and says nothing of other seeds. Queries that
  belong together, as an emoji's pictures do, count as independent, so that p is too small there.
- {MISSING} stands for what is missing; a cell with fewer seeds than others says how many it has.
"""


def report(sets: list[Set], *, place: Path) -> str:
    """The whole of RESULTS.md.

    Args:
      sets: what `read` returns.
      place: their folder, as seen from the report.

    Returns:
      Markdown.
    """
    return HEAD.replace("PLACE", place.as_posix()) + summary(sets) + "".join(section(one, place) for one in sets)


def summary(sets: list[Set]) -> str:
    """Where ADSQ is above every baseline and where it isn't, and a row a data set and code length."""
    text = "\n## Summary\n\n" + "".join(verdict(sets, ours) for ours in (BOTH, ALONE)) + gaps(sets)
    rows = []
    for one in sets:
        for bits in one.bits:
            means = {name: map_of(row[bits]) for name, row in one.table.items() if bits in row}
            others = {name: value for name, value in means.items() if name not in (BOTH, ALONE)}
            rival = max(others, key=others.__getitem__, default=None)
            best = max(means, key=means.__getitem__)
            line = [one.name, str(bits), f"{best} ({means[best]:.4f})", f"{rival} ({means[rival]:.4f})" if rival else MISSING]
            for ours in (BOTH, ALONE):
                found = one.differences[ours].get(rival, {}).get(bits)
                line.append(difference_text(found) if found else MISSING)
            rows.append(line)
    return text + markdown(["set", "bits", "best method", "best baseline", f"{BOTH} minus it", f"{ALONE} minus it"], rows)


def verdict(sets: list[Set], ours: str) -> str:
    """A paragraph on one of ADSQ's rows: how often it is above every baseline beyond the spread, and where."""
    places = {(one.name, bits): baselines_at(one.differences[ours], bits) for one in sets for bits in one.bits}
    places = {place: found for place, found in places.items() if found}
    if not places:
        return f"{ours} can't be compared: no seed of it is common to a baseline.\n\n"
    failing = {
        place: {name: one for name, one in found.items() if not (one.mean > 0 and one.beyond)}
        for place, found in places.items()
    }
    failing = {place: found for place, found in failing.items() if found}
    below, far = (
        sum(any(one.mean < 0 and (one.beyond or not strictly) for one in found.values()) for found in failing.values())
        for strictly in (False, True)
    )
    text = (
        f"**{ours} is above every baseline beyond the spread at {len(places) - len(failing)} of {len(places)} set and code "
        f"lengths.** It is below at least one baseline at {below} of them, beyond the spread at {far}."
    )
    lines: dict[bool, list[str]] = {True: [], False: []}  # whether it is above all
    for (name, bits), found in places.items():
        others, among = failing.get((name, bits), found), count(len(found), "baseline")
        nearest = min(others, key=lambda other: others[other].mean)
        more = f"not beaten beyond the spread: {len(others)} of {among}" if others is not found else f"the nearest of {among}"
        lines[others is found].append(f"- {name}, {bits} bits: {difference_words(found[nearest], nearest)}; {more}\n")
    for so, words in ((True, "It is so at"), (False, "It is not so at")):
        text += f"\n\n{words}:\n\n{''.join(lines[so])}".removesuffix("\n") if lines[so] else ""
    return text + "\n\n"


def gaps(sets: list[Set]) -> str:
    """A sentence on what has not been run, so far as the other rows tell; empty where nothing is missing."""
    missing = [
        f"{one.name}, {bits} bits: {', '.join(names)}"
        for one in sets
        for bits in one.bits
        if (names := [name for name, row in one.table.items() if bits not in row])
    ]
    return f"Without runs, and so left out of the sentences above: {'; '.join(missing)}.\n\n" if missing else ""


# ------------------------------------------------------------------------------------------------------------------------ plots

ADSQ_COLOUR = "#d4000f"
COLOURS = (
    *("#332288", "#66aadd", "#117733", "#c9a227", "#aa4499", "#44aa99"),
    *("#888888", "#885522", "#999933", "#000000", "#dd99bb", "#446677"),
)
DASHES = ("-", "--", "-.", ":")
MARKERS = "os^DvPX<>*"


def looks(sets: list[Set]) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of every method: the same in all plots."""
    names = sorted({name for one in sets for name in one.table} - {BOTH, ALONE})
    found = {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": DASHES[(i + i // len(COLOURS)) % len(DASHES)],
            "marker": MARKERS[i % len(MARKERS)],
            "linewidth": 1.3,
            "markersize": 4,
            "zorder": 2,
        }
        for i, name in enumerate(names)
    }
    ours = {"color": ADSQ_COLOUR, "marker": "o", "markersize": 5, "zorder": 3}
    found[BOTH] = {**ours, "linestyle": "-", "linewidth": 2.8}
    found[ALONE] = {**ours, "linestyle": "--", "linewidth": 2.0, "markerfacecolor": "white"}
    return found


def plot(one: Set, look: dict[str, dict[str, Any]]) -> None:
    """Draws the plots of a data set into its folder.

    Args:
      one: the data set; without runs nothing is drawn.
      look: what `looks` returns.
    """
    if not one.runs:
        return

    def by_radius(run):
        points = run["precision_recall"]
        return {
            radius: (recall, precision)
            for radius, recall, precision in zip(*(points[key] for key in ("radius", "recall", "precision")), strict=True)
        }

    def by_number(run):
        return {int(n): (int(n), precision) for n, precision in run["precision_at"].items()}

    curves(one, look, points=by_radius, file="precision_recall.png", xlabel="recall")
    curves(one, look, points=by_number, file="precision_at.png", xlabel="first N", xscale="log")
    by_bits(one, look)


def mean_curve(runs: list[dict[str, Any]], points: Callable[[dict[str, Any]], dict]) -> np.ndarray:
    """Points that all runs have, averaged over the runs: float64[2, n]."""
    found = [points(run) for run in runs]
    common = sorted(set.intersection(*(set(one) for one in found)))
    return np.array([[one[key] for key in common] for one in found], np.float64).mean(axis=0).reshape(-1, 2).T


def curves(
    one: Set, look: dict[str, dict[str, Any]], *, points: Callable[[dict[str, Any]], dict], file: str, xlabel: str, **axis: str
) -> None:
    """One panel a code length, one line a method."""
    from matplotlib.figure import Figure

    width = max(6.0, 3.6 * len(one.bits))
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    panels = figure.subplots(1, len(one.bits), squeeze=False, sharey=True)[0]
    names = [name for name in sorted(one.table, key=lambda name: (name != BOTH, name)) if name != ALONE]
    for panel, bits in zip(panels, one.bits, strict=True):
        for name in names:
            cell = one.table[name].get(bits, {})
            x, y = mean_curve([score.run for score in cell.values()], points) if cell else ([], [])
            panel.plot(x, y, label=name, **{**look[name], "marker": ""})
        panel.set(title=f"{bits} bits", xlabel=xlabel, **axis)
        panel.grid(color="0.9")
    panels[0].set_ylabel("precision")
    finish(figure, one.folder / file, title=f"{one.name}. {IMAGES[file]}")


def by_bits(one: Set, look: dict[str, dict[str, Any]]) -> None:
    """mAP over the code length with bars of the spread; the methods lie side by side at a code length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 2.2 * len(one.bits) + 1.5), 4.6), layout="constrained")
    panel = figure.subplots()
    names = sorted(one.table, key=lambda name: (name not in (BOTH, ALONE), name))
    for i, name in enumerate(names):
        bits = [b for b in one.bits if b in one.table[name]]
        x = [one.bits.index(b) + 0.5 * ((i + 0.5) / len(names) - 0.5) for b in bits]
        cells = [one.table[name][b] for b in bits]
        spread = [stdev(score.map for score in cell.values()) if len(cell) > 1 else 0.0 for cell in cells]
        panel.errorbar(x, [map_of(cell) for cell in cells], yerr=spread, label=name, capsize=2.5, **look[name])
    panel.set_xticks(range(len(one.bits)), [str(b) for b in one.bits])
    panel.set(xlabel="bits", ylabel=f"mAP@{one.runs[0]['map_at']}", xlim=(-0.4, len(one.bits) - 0.6))
    panel.grid(axis="y", color="0.9")
    finish(figure, one.folder / "map_by_bits.png", title=f"{one.name}. {IMAGES['map_by_bits.png']}")


def finish(figure, path: Path, *, title: str) -> None:
    """Adds title and legend and writes a PNG of few colours, whose bytes hang on the figures alone.

    Args:
      figure: of matplotlib.
      path: the file.
      title: of the whole figure.
    """
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = max(2, int(figure.get_figwidth() / 1.5))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.2, fontsize=9)
    figure.suptitle(title, fontsize=11)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    with Image.open(drawn) as image:  # a palette: a third of the bytes
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
