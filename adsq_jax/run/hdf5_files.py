"""Read arrays of numbers from HDF5 files: .h5, and MATLAB's .mat of version 7.3. This needs h5py, of the extra `hdf5`."""

import collections
import functools
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.run.named_arrays import MAX_BYTES, NamedArray

MAGIC = b"\x89HDF\r\n\x1a\n"
_STARTS = (0, 512)  # where it may stand; MATLAB's text comes before it
_MATLAB_NUMBERS = {"double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
_DEEPEST, _MOST_ARRAYS = 8, 1_000
_DAMAGED = "it is damaged or incomplete; fix: copy or save it again"


def is_hdf5(content: bytes) -> bool:
    """Return whether the bytes of a file begin as HDF5 does."""
    return any(content[start : start + len(MAGIC)] == MAGIC for start in _STARTS)


def arrays(content: bytes) -> list[NamedArray]:
    """List the arrays of a file, those in groups by their path, `train/codes`.

    Args:
      content: the file's bytes.

    Returns:
      The arrays; numbers are read when they are loaded. Those that MATLAB wrote have MATLAB's shape.

    Raises:
      InputError: h5py isn't installed, or the file has too many arrays; `load` raises it too.

    Source: this project, after MATLAB's own description of its version 7.3.
    """
    try:
        import h5py  # an extra, and slow to import
    except ModuleNotFoundError as error:
        raise InputError("it is HDF5, which needs h5py; fix: pip install 'adsq_jax[hdf5]', or save it as .npy") from error
    found = list[NamedArray]()
    for name, dataset in _datasets(h5py.File(io.BytesIO(content), "r")):
        found.append(NamedArray(name, _shape(dataset), _problem(dataset), functools.partial(_load, dataset, len(content))))
        if len(found) > _MOST_ARRAYS:
            raise InputError(f"it has more than {_MOST_ARRAYS:,} arrays; fix: save the ones that matter")
    return found


def _datasets(file: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and dataset of all in a file, near ones first; links that could lead elsewhere are not followed.

    A group that several links lead to counts once: links in a circle would be followed for ever.
    """
    import h5py

    root = file["/"]
    groups, known = collections.deque([("", root)]), {root}  # two of h5py's groups are equal if they are the same in the file
    while groups:
        prefix, group = groups.popleft()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink) or name.startswith("#"):  # MATLAB's #refs#
                continue
            member = group[name]
            if isinstance(member, h5py.Dataset):
                yield prefix + name, member
            elif isinstance(member, h5py.Group) and prefix.count("/") < _DEEPEST and member not in known:
                known.add(member)
                groups.append((f"{prefix}{name}/", member))


def _matlab_class(dataset: Any) -> str | None:
    """Return the class of an array that MATLAB wrote; None for all others."""
    kind = dataset.attrs.get("MATLAB_class")
    return kind.decode(errors="replace") if isinstance(kind, bytes) else None if kind is None else str(kind)


def _shape(dataset: Any) -> tuple[int, ...]:
    shape = tuple(dataset.shape or ())
    return shape[::-1] if _matlab_class(dataset) else shape


def _problem(dataset: Any) -> str:
    kind = _matlab_class(dataset)
    if kind is not None and kind not in _MATLAB_NUMBERS:
        return f"MATLAB's {kind[:50]!r}"
    if dataset.shape is None or "MATLAB_empty" in dataset.attrs:
        return "empty"
    if dataset.external or dataset.is_virtual:
        return "stored in other files, which aren't opened"
    if dataset.dtype.kind not in "biuf" or (dataset.dtype.metadata and dataset.dtype.kind != "b"):
        return f"of dtype {str(dataset.dtype)[:50]}"
    return ""


def _load(dataset: Any, file_size: int) -> np.ndarray:
    size = math.prod(dataset.shape) * dataset.dtype.itemsize
    if size > MAX_BYTES:
        raise InputError(f"it has an array of {size:,} bytes, expected at most {MAX_BYTES:,}; fix: save it as .npy")
    # What was never written reads as zeros.
    if dataset.chunks is None:
        complete = dataset.id.get_storage_size() == size <= file_size
    else:
        chunks = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        complete = chunks <= file_size and dataset.id.get_num_chunks() == chunks
    if not complete:
        raise InputError(_DAMAGED)
    array = np.asarray(dataset[()])
    kind = _matlab_class(dataset)
    if kind == "logical":
        array = array != 0
    return array.T if kind else array
