"""Train one run for each combination of some values, each in a folder of its own, and gather the results."""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.run import tables, workdir

FILE = "sweep.json"
_MOST = 1_000  # runs
_SEED = "seed"  # of all keys the one that results are averaged over
_FACTS = ("map", "map_at", "map_by_query_net", "query_net", "seconds", "config_sha256")  # of a result, in sweep.json


def parse(text: str) -> dict[str, list[str]]:
    """Parse the values of a sweep, "bits=12,24,48;seed=0,1", into a list for each key.

    Raises:
      InputError: a key has no value, or comes twice, or a value comes twice or can't be part of a folder's name.
    """
    grid: dict[str, list[str]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, _, values = part.partition("=")
        key = key.strip()
        listed = [value.strip() for value in values.split(",")]
        if not key or key in grid or not all(listed) or len(set(listed)) < len(listed):
            raise InputError(f'--sweep: {part!r:.100}: expected KEY=VALUE,VALUE, each once; fix: --sweep="bits=12,24;seed=0,1"')
        if any("/" in value for value in listed):
            raise InputError(f"--sweep: {part!r:.100} has a value that can't be part of a folder's name; fix: leave it out")
        grid[key] = listed
    if not grid:
        raise InputError('--sweep is empty; fix: --sweep="bits=12,24;seed=0,1"')
    return grid


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the values, the last key changing fastest.

    Raises:
      InputError: there are none, or more than a thousand.
    """
    count = math.prod(len(values) for values in grid.values())
    if not grid or not 1 <= count <= _MOST:
        raise InputError(f"a sweep of {count:,} runs: expected 1 to {_MOST:,}; fix: give other values")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def check_different(hashes: Mapping[str, str], *, count: int) -> None:
    """Check that `count` runs have configs of their own; raise InputError if two are the same.

    Args:
      hashes: of each run's config, by the name of its folder.
      count: how many runs there are.
    """
    by_hash = {digest: name for name, digest in hashes.items()}
    if len(by_hash) == count:
        return
    double = next((name for name, digest in hashes.items() if by_hash[digest] != name), next(iter(hashes)))
    raise InputError(
        f"--sweep: {double} and {by_hash[hashes[double]]} are the same run; fix: give each value once, and keys of the sweep "
        "nowhere else"
    )


def folder_name(values: Mapping[str, Any]) -> str:
    """Return the name of a combination's folder: "bits=12,seed=0"."""
    return ",".join(f"{key}={value}" for key, value in values.items())


def train_each(
    runs: Sequence[Mapping[str, Any]],
    train: Callable[[Mapping[str, Any], Path], dict[str, Any]],
    directory: Path,
    *,
    say: Callable[[str], Any],
) -> list[dict[str, Any]]:
    """Train the runs one after the other, and write `sweep.json` after each. A run that fails doesn't stop the others.

    Args:
      runs: the values of each.
      train: trains the run of some values in a folder, or finds that it has finished; returns its result.
      directory: where the runs' folders are.
      say: shows a line of text.

    Returns:
      For each run its values, its folder's name, and the result's main facts, or the error. `sweep.json` holds these, and
      what an earlier sweep left there of other runs.

    Raises:
      InputError: the folder holds a run, or can't be used.
    """
    workdir.check_sweep(directory)
    others = _rows_of_before(directory)
    rows = []
    for number, values in enumerate(runs, start=1):
        name = folder_name(values)
        say(f"run {number} of {len(runs)}: {name}")
        row: dict[str, Any] = {"values": dict(values), "folder": name}
        others.pop(name, None)
        try:
            result = train(values, directory / name)
            rows.append({**row, **_facts(result, directory / name)})
        except InputError as error:
            say(f"{name} failed: {error}")
            rows.append({**row, "error": str(error)})
        workdir.write_json(directory / FILE, {"runs": [*rows, *others.values()]})
    return rows


def _rows_of_before(directory: Path) -> dict[str, Any]:
    """Return the rows that an earlier sweep left in a folder, by the runs' folders."""
    path = directory / FILE
    if not storage.is_file(path):
        return {}
    try:
        return {str(row["folder"]): row for row in workdir.read_json(path)["runs"]}
    except (LookupError, TypeError) as error:
        raise InputError(f"{path} is not the result of a sweep; fix: restore or remove it") from error


def _facts(result: Any, folder: Path) -> dict[str, Any]:
    try:
        return {"map": float(result["map"]), **{key: result[key] for key in _FACTS if key != "map"}}
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{folder / 'result.json'} is not a result of a run; fix: restore it, or remove {folder}") from error


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Average the mAP of runs that differ in their seed alone.

    Returns:
      For each combination of the other values: {"values", "map_at", "maps", "map", "deviation", "seconds"}; `deviation` is the
      standard deviation over the seeds, 0 with one. Runs that failed are left out.
    """
    groups: dict[tuple[tuple[str, Any], ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if "error" not in row:
            groups.setdefault(tuple((k, v) for k, v in row["values"].items() if k != _SEED), []).append(row)
    return [
        {
            "values": dict(values),
            "map_at": group[0]["map_at"],
            "maps": [row["map"] for row in group],
            "map": statistics.fmean(row["map"] for row in group),
            "deviation": statistics.stdev(row["map"] for row in group) if len(group) > 1 else 0.0,
            "seconds": statistics.fmean(row["seconds"] for row in group),
        }
        for values, group in groups.items()
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the results of `train_each` as text: a line for each combination, averaged over seeds, then what failed."""
    found = means(rows)
    keys = list(found[0]["values"]) if found else []
    head = [*keys, "runs", "mAP", "at", "deviation", "seconds"]
    lines = [
        [
            *(str(one["values"][key]) for key in keys),
            str(len(one["maps"])),
            f"{one['map']:.4f}",
            str(one["map_at"]),
            f"{one['deviation']:.4f}" if len(one["maps"]) > 1 else "",
            f"{one['seconds']:.0f}",
        ]
        for one in found
    ]
    failed = [f"{row['folder']} failed: {row['error']}" for row in rows if "error" in row]
    return "\n".join([tables.align([head, *lines], right=range(len(head))), *failed])
