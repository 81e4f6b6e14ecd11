"""Measures how codes retrieve, a run's or anyone's.

`python -m adsq_jax.evaluate --workdir=DIR`, or
`python -m adsq_jax.evaluate --query_codes=Q.npy --database_codes=D.npy --query_labels=QL.npy --database_labels=DL.npy`.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from adsq_jax import command_line, retrieval, storage
from adsq_jax.devices import host, sharded_database
from adsq_jax.errors import InputError
from adsq_jax.inference import evaluation
from adsq_jax.run import codes_folder, environment, tables, workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "A finished run's folder: measures its codes again.")
_ARRAYS = {
    name: flags.DEFINE_string(name, None, text)
    for name, text in (
        ("query_codes", ".npy of codes [n, K]: float, -1 and +1, 0 and 1; or packed, with --bits."),
        ("database_codes", "The same of the database."),
        ("query_labels", ".npy of class ids [n], or multi-hot [n, c]."),
        ("database_labels", "The same of the database."),
    )
}
_MAP_AT = flags.DEFINE_string("map_at", None, "Cutoffs, for instance 5000,all; if not given: all, and a run's own.")
_BITS = flags.DEFINE_integer("bits", None, "The code length of packed codes, uint8[n, ceil(bits / 8)], little bit order.")
_LEGACY = flags.DEFINE_bool("legacy", False, "Adds mAP as published code counts it: ties in database order, slower.")
_OUT = flags.DEFINE_string("out", None, "Where to write all figures as JSON; with --workdir, DIR/evaluation.json if not given.")


def main() -> None:
    """Reads the flags, measures, tells and writes."""
    given = {name: flag.value for name, flag in _ARRAYS.items() if flag.value is not None}
    if "" in (_WORKDIR.value, _OUT.value, *given.values()):
        raise InputError("a path is empty: give --name=PATH")
    if (_WORKDIR.value is None) == (not given) or (given and len(given) < len(_ARRAYS)):
        raise InputError(f"give --workdir=DIR, or all of {', '.join(f'--{name}=FILE.npy' for name in _ARRAYS)}")
    if _WORKDIR.value is not None and _BITS.value is not None:
        raise InputError("--bits goes with --query_codes: a run knows its own")
    cutoffs = [] if _MAP_AT.value is None else [cutoff.strip() for cutoff in _MAP_AT.value.split(",")]
    retrieval.check_cutoffs(cutoffs)
    out = _place_of_result()
    host.use_all_cores()
    began = time.monotonic()
    try:
        devices = sharded_database.ShardedDatabase()
        if _WORKDIR.value is not None:
            found = _of_run(workdir.path(_WORKDIR.value), cutoffs=cutoffs, devices=devices)
        else:
            found = _of_files(given, cutoffs=cutoffs or ["all"], devices=devices)
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        command_line.hard_exit(130)
    found |= {**environment.environment(), "machine": devices.describe(), "seconds_evaluate": time.monotonic() - began}
    print(tables.measures_table(found))
    if out is not None:
        with workdir.writing(out):
            workdir.write_json(out, found)
        print(f"written to {out}")


def _place_of_result() -> Path | None:
    """Where the JSON goes; an existing file that isn't ours stays."""
    if _OUT.value is None:
        return None if _WORKDIR.value is None else workdir.path(_WORKDIR.value) / "evaluation.json"
    out = workdir.path(_OUT.value)
    with workdir.writing(out):
        there = storage.is_file(out) if storage.is_remote(out) else os.path.lexists(out)
    if there:
        raise InputError(f"--out={out} is there already: give another file, or remove it; nothing was overwritten")
    if not (storage.is_remote(out) or os.path.isdir(out.parent)) or _OUT.value.endswith("/"):
        raise InputError(f"--out={out}: expected a file in a folder that is there: make it first")
    with workdir.writing(out), storage.reached(out):  # finds out before the work whether it can be done after it
        workdir.write_bytes(out, b"")
        out.unlink()
    return out


def _of_files(paths: dict[str, str], *, cutoffs: list[str], devices: sharded_database.ShardedDatabase) -> dict[str, Any]:
    arrays = {name: workdir.read_array(workdir.path(path), what=f"--{name}") for name, path in paths.items()}
    pairs = len(arrays["query_codes"]) * len(arrays["database_codes"]) if all(x.ndim for x in arrays.values()) else 0
    with _bar(pairs * (2 if _LEGACY.value else 1)) as bar:
        found = retrieval.measure(
            arrays["query_codes"],
            arrays["database_codes"],
            query_labels=arrays["query_labels"],
            database_labels=arrays["database_labels"],
            bits=_BITS.value,
            cutoffs=cutoffs,
            with_legacy=_LEGACY.value,
            devices=devices,
            on_progress=bar.update,
        )
    return {**found.to_dict(), "files": paths}


def _of_run(directory: Path, *, cutoffs: list[str], devices: sharded_database.ShardedDatabase) -> dict[str, Any]:
    try:
        finished = storage.is_file(directory / "result.json")
    except OSError as error:
        raise InputError(f"--workdir={directory} can't be read ({error.strerror}): give another folder") from error
    if not finished:
        raise InputError(f"--workdir={directory} holds no finished run: finish it with adsq_jax.main, or give another folder")
    result = workdir.read_json(directory / "result.json")
    packed, labels, bits = codes_folder.read(directory / "codes")
    nets = evaluation.available_query_nets(packed)
    try:
        query_net, map_at = result["query_net"], result["map_at"]
        known = {name: result[name] for name in ("protocol", "split_sha256", "seed", "method", "config_sha256", "n_train")}
        if query_net not in nets or not isinstance(map_at, str):
            raise ValueError(query_net)
        json.dumps(known, allow_nan=False)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{directory / 'result.json'} is no result of a run: restore it, or train again") from error
    pairs = len(labels["query"]) * len(labels["database"])
    with _bar(pairs * (len(nets) + bool(_LEGACY.value))) as bar:
        found = evaluation.measure(
            packed,
            labels,
            bits=bits,
            query_net=query_net,
            map_at=map_at,
            cutoffs=cutoffs,
            with_legacy=_LEGACY.value,
            devices=devices,
            on_progress=bar.update,
        )
    return {**known, **found}


def _bar(pairs: int) -> "tqdm[Any]":
    """Progress on stderr, of what takes longer than two seconds."""
    return tqdm(total=pairs, unit=" pairs", unit_scale=True, delay=2, mininterval=1, dynamic_ncols=True, leave=False)


if __name__ == "__main__":
    command_line.run(main)
