"""The folder of a run's codes: packed codes, labels and rows of queries and database, with a manifest."""

import hashlib
import operator
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import codes
from adsq_jax.devices import processes
from adsq_jax.errors import InputError
from adsq_jax.run import workdir


def write(
    directory: Path,
    packed: dict[str, dict[str, np.ndarray]],
    labels: dict[str, np.ndarray],
    rows: dict[str, np.ndarray],
    *,
    bits: int,
    split_sha256: str,
) -> None:
    """Writes `{query,database}_{f,g,sum,labels,rows}.npy`, and a manifest with the hash of each."""
    workdir.make_folder(directory)
    _gather_rows(directory, packed["database"])
    if not processes.leads():
        return
    arrays = {f"{part}_{name}": array for part, nets in packed.items() for name, array in nets.items()}
    for part, array in labels.items():
        arrays[f"{part}_labels"] = array
        arrays[f"{part}_rows"] = rows[part]
    for name, array in arrays.items():
        workdir.write_array(directory / f"{name}.npy", array)
    manifest = {
        "bits": bits,
        "bit_order": codes.BIT_ORDER,
        "labels": "class ids" if labels["query"].ndim == 1 else "multi-hot",
        "rows": "of the source, in its fixed order",
        "split_sha256": split_sha256,
        "files": {f"{name}.npy": _entry(array) for name, array in sorted(arrays.items())},
    }
    workdir.write_json(directory / "manifest.json", manifest)


def _gather_rows(directory: Path, database: dict[str, np.ndarray]) -> None:
    """Gives the leading process the rows that the others have encoded, by way of the run's folder."""
    for name, codes_of_net in database.items():
        if not processes.leads():
            start, stop = processes.local_range(len(codes_of_net), processes.index())
            workdir.write_array(directory / f".{name}_{processes.index()}.npy", codes_of_net[start:stop])
    processes.wait_for_all("codes")
    for name, codes_of_net in database.items():
        for process in range(1, processes.count()) if processes.leads() else ():
            part = directory / f".{name}_{process}.npy"
            start, stop = processes.local_range(len(codes_of_net), process)
            codes_of_net[start:stop] = workdir.read_array(part, what="codes of another process")
            part.unlink()


def _entry(array: np.ndarray) -> dict[str, Any]:
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
    }


def read(directory: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray], int]:
    """Reads the folder that `evaluate` wrote.

    Args:
      directory: `DIR/codes`.

    Returns:
      Packed codes by part and network, labels by part, and the code length.

    Raises:
      InputError: a file is missing, or isn't what the manifest says.
    """
    manifest = workdir.read_json(directory / "manifest.json")
    arrays = {}
    try:
        bits, files = operator.index(manifest["bits"]), dict(manifest["files"])
        for name, entry in files.items():
            array = workdir.read_array(directory / Path(name).name, what="a file of the run's codes")
            if _entry(array) != entry:
                raise InputError(f"{directory / name} is not what manifest.json says: restore it, or train in another folder")
            arrays[name.removesuffix(".npy")] = array
        parts = ("query", "database")
        labels = {part: arrays[f"{part}_labels"] for part in parts}
        nets = [net for net in ("f", "g", "sum") if f"query_{net}" in arrays]
        return {part: {net: arrays[f"{part}_{net}"] for net in nets} for part in parts}, labels, bits
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{directory / 'manifest.json'} is no manifest of codes: restore it, or train again") from error
