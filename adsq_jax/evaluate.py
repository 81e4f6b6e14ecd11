"""Measure how well codes retrieve: the codes of a run, or any others.

`adsq evaluate --workdir=DIR`, or
`adsq evaluate --query_codes=Q.npy --database_codes=D.npy --query_labels=QL.npy --database_labels=DL.npy`.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adsq_jax import command_line, retrieval, storage
from adsq_jax.codes import MAX_MEASURED_BITS
from adsq_jax.devices import ShardedDatabase, host
from adsq_jax.errors import InputError
from adsq_jax.retrieval import query_nets
from adsq_jax.run import array_files, codes_folder, environment, output, tables, workdir
from adsq_jax.run.progress import reporting

_FILES = {
    "query_codes": "Codes [n, K]: float, -1 and +1, 0 and 1; or packed, with --bits. A .npy, .npz, .mat, .h5, .csv or .txt; in "
    "a file of several arrays, FILE.mat:NAME.",
    "database_codes": "The same of the database.",
    "query_labels": "Class ids [n], strings [n], or multi-hot [n, c], in a file of any of these kinds.",
    "database_labels": "The same of the database.",
}


def main(arguments: Sequence[str]) -> None:
    """Read the flags, measure, print the table, and write the JSON."""
    flags = command_line.Flags(arguments, description=__doc__)
    flags.text("workdir", "A finished run's folder: measures its codes again.")
    for name, explanation in _FILES.items():
        flags.text(name, explanation)
    flags.text("map_at", "Cutoffs, for instance 5000,all; by default all, and the run's cutoff.")
    explanation = "The code length of packed codes, uint8[n, ceil(bits / 8)], little bit order."
    flags.integer("bits", explanation, low=1, high=MAX_MEASURED_BITS)
    flags.boolean("legacy", "Add mAP as published code computes it: ties in database order, slower.")
    flags.boolean(
        "leave_self_out", "The queries are the database: leave each out of its own ranking. --database_* may be left out."
    )
    flags.text("out", "Where to write all figures as JSON; by default DIR/evaluation.json with --workdir.")
    given = flags.parse()
    files = {name: path for name in _FILES if (path := getattr(given, name)) is not None}
    if "" in (given.workdir, given.out, *files.values()):
        raise InputError("a path is empty; fix: give --name=PATH")
    if given.leave_self_out:
        files = _with_queries_as_database(files)
    if (given.workdir is None) == (not files) or (files and len(files) < len(_FILES)):
        raise InputError(
            f"expected --workdir=DIR, or all of {', '.join(f'--{name}=FILE' for name in _FILES)}, or those of the queries with "
            "--leave_self_out"
        )
    if given.workdir is not None and given.bits is not None:
        raise InputError("--bits goes with --query_codes; fix: leave it out, a run has its own")
    cutoffs = () if given.map_at is None else [cutoff.strip() for cutoff in given.map_at.split(",")]
    retrieval.check_cutoffs(cutoffs)
    out = None if given.workdir is None else storage.path(given.workdir) / "evaluation.json"
    if given.out is not None:
        if given.out.endswith("/"):
            raise InputError(f"--out={given.out}: expected a file, not a folder")
        out = output.check_new_file(storage.path(given.out))
    host.use_all_cores()
    if given.workdir is not None:
        figures = evaluate_run(given.workdir, map_at=cutoffs, legacy=given.legacy)
    else:
        figures = evaluate_files(
            **files,
            bits=given.bits,
            map_at=cutoffs or ["all"],
            legacy=given.legacy,
            leave_self_out=given.leave_self_out,
        )
    print(tables.measures_table(figures))
    if out is not None:
        with output.writing(out):
            workdir.write_json(out, figures)
        print(f"written to {out}")


def _with_queries_as_database(files: dict[str, str]) -> dict[str, str]:
    """Return the files of --leave_self_out, those of the database added where none is given."""
    if not {"query_codes", "query_labels"} <= files.keys():
        raise InputError("--leave_self_out goes with --query_codes=FILE and --query_labels=FILE; fix: give both")
    return {f"database_{kind}": files[f"query_{kind}"] for kind in ("codes", "labels")} | files


def evaluate_files(
    query_codes: str | Path,
    database_codes: str | Path,
    *,
    query_labels: str | Path,
    database_labels: str | Path,
    bits: int | None = None,
    map_at: Sequence[int | str] = ("all",),
    legacy: bool = False,
    leave_self_out: bool = False,
    devices: ShardedDatabase | None = None,
    on_progress: Callable[[int], Any] | None = None,
) -> dict[str, Any]:
    """Measure how the codes in files retrieve. A .npy on a disk is mapped, other files are loaded.

    Args:
      query_codes: a file of codes, as `retrieval.measure` takes them, which `adsq_jax.data.read_array` can read: .npy, .npz,
        .mat, .h5, .csv or .txt; in a file of several arrays one is named, `codes.mat:B`.
      database_codes: a file of the same form.
      query_labels: a file of labels, as `retrieval.measure` takes them.
      database_labels: a file of the same form.
      bits: K of packed codes; None if the codes are not packed.
      map_at: cutoffs, "all" or ranks.
      legacy: whether to add the figures of published code, which takes a slower pass.
      leave_self_out: whether the queries are the database, and each is left out of its own ranking.
      devices: the devices; None for all.
      on_progress: called with the number of pairs done since the last call; None shows a progress bar.

    Returns:
      `Measures.to_dict()`, with `files`, `leave_self_out`, and the versions, machine and seconds of this evaluation.

    Raises:
      InputError: a file can't be read, its array has the wrong form, or queries and database differ with `leave_self_out`.

    Source: this project.
    """
    began, devices = time.monotonic(), devices or ShardedDatabase()
    paths = dict(zip(_FILES, map(str, (query_codes, database_codes, query_labels, database_labels)), strict=True))
    arrays: dict[str, Any] = {
        name: array_files.read(path, description=name, dimensions=(2,) if name.endswith("codes") else (1, 2))
        for name, path in paths.items()
    }
    pairs = math.prod(arrays["query_codes"].shape[:1] + arrays["database_codes"].shape[:1])
    with reporting(on_progress, pairs * (1 + legacy), unit="pairs", description="measuring") as progress:
        measures = retrieval.measure(
            **arrays,
            bits=bits,
            cutoffs=map_at,
            with_legacy=legacy,
            leave_self_out=leave_self_out,
            devices=devices,
            on_progress=progress,
        )
    return {**measures.to_dict(), "files": paths, "leave_self_out": leave_self_out, **_circumstances(devices, began)}


def evaluate_run(
    directory: str | Path,
    *,
    map_at: Sequence[int | str] = (),
    legacy: bool = False,
    devices: ShardedDatabase | None = None,
    on_progress: Callable[[int], Any] | None = None,
) -> dict[str, Any]:
    """Measure the codes of a finished run again.

    Args:
      directory: the run's folder.
      map_at: further cutoffs, "all" or ranks; the run's own and "all" are always measured.
      legacy: whether to add the figures of published code, which takes a slower pass.
      devices: the devices; None for all.
      on_progress: called with the number of pairs done since the last call; None shows a progress bar.

    Returns:
      `Measures.to_dict()` of the result's query net, with `map`, `map_by_class`, `map_mean_of_classes`, `map_at`,
      `map_by_query_net`, `query_net`, the run's protocol, method, seed and, if it has them, `class_names`, and the versions,
      machine and seconds of this evaluation.

    Raises:
      InputError: the folder holds no finished run, or its files are damaged.

    Source: this project.
    """
    began, devices, directory = time.monotonic(), devices or ShardedDatabase(), storage.path(str(directory))
    retrieval.check_cutoffs(map_at)
    result = _read_result(directory)
    packed, labels, bits = codes_folder.read(directory / "codes")
    nets = query_nets.available_query_nets(packed)
    if result["query_net"] not in nets:
        raise _damaged(directory)
    pairs = len(labels["query"]) * len(labels["database"])
    with reporting(on_progress, pairs * (len(nets) + legacy), unit="pairs", description="measuring") as progress:
        figures = query_nets.measure_query_nets(
            packed,
            labels,
            bits=bits,
            query_net=result.pop("query_net"),
            map_at=result.pop("map_at"),
            cutoffs=[str(cutoff) for cutoff in map_at],
            with_legacy=legacy,
            devices=devices,
            on_progress=progress,
        )
    return {**result, **figures, **_circumstances(devices, began)}


def _read_result(directory: Path) -> dict[str, Any]:
    """Return the entries of `result.json` that an evaluation needs."""
    try:
        finished = storage.is_file(directory / "result.json")
    except OSError as error:
        raise InputError(f"--workdir={directory} can't be read ({error.strerror}); fix: give another folder") from error
    if not finished:
        raise InputError(f"--workdir={directory} holds no finished run; fix: finish it with adsq train, or give another folder")
    result = workdir.read_json(directory / "result.json")
    names = ("query_net", "map_at", "protocol", "split_sha256", "seed", "method", "config_sha256", "n_train")
    try:
        known = {name: result[name] for name in names}
        if "class_names" in result:  # runs of before have none
            known["class_names"] = _texts(result["class_names"])
        json.dumps(known, allow_nan=False)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(directory) from error
    if not isinstance(known["map_at"], str) or not isinstance(known["query_net"], str):
        raise _damaged(directory)
    return known


def _texts(names: Any) -> list[str]:
    """Return a list of texts from a file; raise TypeError if it is anything else."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("expected a list of texts")
    return names


def _damaged(directory: Path) -> InputError:
    return InputError(f"{directory / 'result.json'} is not the result of a run; fix: restore it, or train again")


def _circumstances(devices: ShardedDatabase, began: float) -> dict[str, Any]:
    seconds = time.monotonic() - began
    return {**environment.environment(), "machine": devices.describe(), "seconds_evaluate": seconds}


if __name__ == "__main__":
    command_line.run(main)
