"""The folder of a run's codes: packed codes, labels and rows of queries and database, with a manifest."""

import hashlib
import operator
import re
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import codes
from adsq_jax.devices import processes
from adsq_jax.errors import InputError
from adsq_jax.run import workdir

_PARTS = ("query", "database")
_FILE = re.compile(r"(query|database)_\w+\.npy", re.ASCII)


def write(
    directory: Path,
    packed: dict[str, dict[str, np.ndarray]],
    labels: dict[str, np.ndarray],
    rows: dict[str, np.ndarray],
    *,
    bits: int,
    split_sha256: str,
) -> None:
    """Write `{query,database}_{f,g,sum,labels,rows}.npy`, and a manifest with the hash of each.

    Args:
      directory: `DIR/codes`.
      packed: {"query" or "database": {"f", "g" or "sum": uint8[n, ceil(bits / 8)]}}. Every process needs all query
        codes, but only its own rows of the database.
      labels: {"query" or "database": class ids [n] or multi-hot [n, c]}.
      rows: {"query" or "database": rows of the data source, int[n]}.
      bits: the code length.
      split_sha256: the hash of the split.
    """
    workdir.make_folder(directory)
    _gather_rows(directory, packed["database"])
    if not processes.leads():
        return
    arrays = {f"{part}_{net}": array for part, nets in packed.items() for net, array in nets.items()}
    for part, array in labels.items():
        arrays |= {f"{part}_labels": array, f"{part}_rows": rows[part]}
    for name, array in arrays.items():
        workdir.write_array(directory / f"{name}.npy", array)
    manifest = {
        "bits": bits,
        "bit_order": codes.BIT_ORDER,
        "labels": "class ids" if labels["query"].ndim == 1 else "multi-hot",
        "rows": "of the source, in its fixed order",
        "split_sha256": split_sha256,
        "files": {f"{name}.npy": _describe(array) for name, array in arrays.items()},
    }
    workdir.write_json(directory / "manifest.json", manifest)


def _gather_rows(directory: Path, database: dict[str, np.ndarray]) -> None:
    """Copy the rows that other processes encoded into the leading process's arrays, through files in the folder."""

    def part(net: str, process: int) -> tuple[Path, slice]:
        return directory / f".{net}_{process}.npy", slice(*processes.local_range(len(database[net]), process))

    if not processes.leads():
        for net, packed in database.items():
            file, rows = part(net, processes.index())
            workdir.write_array(file, packed[rows])
    processes.wait_for_all("codes")
    if processes.leads():
        for net, packed in database.items():
            for process in range(1, processes.count()):
                file, rows = part(net, process)
                packed[rows] = workdir.read_array(file, description="codes of another process")
                file.unlink()


def read(directory: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray], int]:
    """Read the folder that `write` made.

    Args:
      directory: `DIR/codes`.

    Returns:
      Packed codes by part and network, labels by part, and the code length.

    Raises:
      InputError: a file is missing, or isn't as the manifest describes it.
    """
    manifest = workdir.read_json(directory / "manifest.json")
    arrays = {}
    try:
        bits = operator.index(manifest["bits"])
        for name, description in manifest["files"].items():
            if not _FILE.fullmatch(name):
                raise KeyError(name)
            array = workdir.read_array(directory / name, description="a file of the run's codes")
            if _describe(array) != description:
                raise InputError(
                    f"{directory / name} is not as manifest.json describes it; fix: if training was interrupted, run the "
                    "training command again; else restore it, or train in another folder"
                )
            arrays[name.removesuffix(".npy")] = array
        labels = {part: arrays[f"{part}_labels"] for part in _PARTS}
        nets = [net for net in ("f", "g", "sum") if f"query_{net}" in arrays]
        return {part: {net: arrays[f"{part}_{net}"] for net in nets} for part in _PARTS}, labels, bits
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{directory / 'manifest.json'} is not a manifest of codes; fix: restore it, or train again"
        ) from error


def _describe(array: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest}
