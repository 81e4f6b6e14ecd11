"""Write arrays as files of NumPy, MATLAB or text, which `array_files` reads."""

import contextlib
import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.run import output, workdir
from adsq_jax.run.named_arrays import MAX_BYTES

TOGETHER, APART = (".npz", ".mat"), (".npy", ".csv", ".txt")  # all arrays in one file, and a file for each
SUFFIXES = (*APART, *TOGETHER)


def check_new_files(out: Path, names: list[str]) -> dict[str, Path]:
    """Return the file that each array goes to; raise InputError if one exists, or can't be written.

    Args:
      out: FILE.npz or FILE.mat for all arrays; or FILE.npy, FILE.csv or FILE.txt for a file FILE_NAME.npy and so on for each.
      names: of the arrays.
    """
    if out.suffix not in SUFFIXES:
        raise InputError(f"--out={str(out)[:200]}: expected a name that ends with {', '.join(SUFFIXES)}")
    apart = out.suffix in APART
    files = {name: out.with_name(f"{out.stem}_{name}{out.suffix}") if apart else out for name in names}
    for file in dict.fromkeys(files.values()):
        output.check_new_file(file)
    return files


def write(files: Mapping[str, Path], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to the files that `check_new_files` returned, each atomically; if one fails, none stays.

    Args:
      files: by name.
      arrays: by name: numbers of one or two dimensions, or strings [n].

    Raises:
      InputError: an array holds Python objects or is too large for the format, a string can't be written as a line, or a file
        can't be written.
    """
    with contextlib.ExitStack() as undo:
        for file in dict.fromkeys(files.values()):
            content = _content({name: arrays[name] for name in arrays if files[name] == file}, file.suffix)
            with output.writing(file), storage.translate_errors(file):
                workdir.write_bytes(file, content)
            undo.callback(file.unlink)
        undo.pop_all()


def _content(arrays: Mapping[str, np.ndarray], suffix: str) -> bytes:
    buffer = io.BytesIO()
    for name, array in arrays.items():
        if array.dtype.hasobject:  # which NumPy would pickle; older ones have no argument of savez against it
            raise InputError(f"{name} holds Python objects: expected numbers or strings; fix: convert it")
    large = {name: array.nbytes for name, array in arrays.items() if array.nbytes > MAX_BYTES}
    if large and suffix != ".npy":
        raise InputError(
            f"{next(iter(large))} has {max(large.values()):,} bytes, too many for a {suffix}; fix: give --out=FILE.npy"
        )
    if suffix == ".npz":
        np.savez_compressed(buffer, **dict[str, Any](arrays))
    elif suffix == ".mat":
        import scipy.io  # a tenth of a second

        scipy.io.savemat(buffer, _for_matlab(arrays), do_compression=True, oned_as="column")
    else:
        [(name, array)] = arrays.items()
        if suffix == ".npy":
            np.save(buffer, array, allow_pickle=False)
        else:
            return _text(_with_second_class(array) if name.endswith("labels") else array, suffix)
    return buffer.getvalue()


def _with_second_class(labels: np.ndarray) -> np.ndarray:
    """Return labels of one class, [n, 1], with a class that no item has: read again, a single column may be ids."""
    return np.concatenate([labels, np.zeros_like(labels)], axis=1) if labels.shape[1:] == (1,) else labels


def _for_matlab(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays as MATLAB has them: strings in cells; ids 0 and 1, which a column can't tell from one class, as columns."""
    labels = {name: array for name, array in arrays.items() if name.endswith("labels")}
    ids = {name: array for name, array in labels.items() if array.ndim == 1}
    if max((int(array.max(initial=0)) for array in ids.values()), default=2) < 2:
        labels |= {name: np.eye(2, dtype=bool)[array] for name, array in ids.items()}
    arrays = {**arrays, **{name: _with_second_class(array) for name, array in labels.items()}}
    return {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in arrays.items()}


def _text(array: np.ndarray, suffix: str) -> bytes:
    """Return a row on each line."""
    mark, buffer = "," if suffix == ".csv" else " ", io.StringIO()
    if array.dtype.kind == "U":
        texts = array.tolist()
        if any(len(text.splitlines()) != 1 for text in texts):
            raise InputError(f"an id or label has a line break, which a {suffix} can't hold; fix: give --out=FILE.npz")
        if suffix == ".csv":
            csv.writer(buffer, lineterminator="\n").writerows([text] for text in texts)
        else:
            buffer.writelines(f"{text}\n" for text in texts)
        return buffer.getvalue().encode()
    if array.dtype == bool or array.ndim == 1:
        array = array.astype(np.int64)
    rows = array[:, None] if array.ndim == 1 else array
    for start in range(0, len(rows), 1 << 14):
        buffer.writelines(mark.join(map(str, row)) + "\n" for row in rows[start : start + (1 << 14)].tolist())
    return buffer.getvalue().encode()
