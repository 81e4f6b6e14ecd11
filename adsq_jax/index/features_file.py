"""A copy of an index's features in one file, mapped into memory: a search reads the rows of its hits, and loads no others.

LanceDB takes tens of milliseconds for 500 rows that lie apart. The table stays what counts: the copy is made from it when it
is first wanted after a write, its name says of which version of the table it is, and a damaged one is made again.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

_BEGIN, _END = ".features-", ".int8"  # of the file's name, in the index's folder
_PART, _SECONDS = ".part", 3_600  # the end of a file that is being written, and for how long at most
_BLOCK = 1 << 24  # bytes


def opened(folder: Path, identity: str, *, shape: tuple[int, int], read: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """Map the features of an index; copy them from the table first if this version of it has no sound copy.

    Args:
      folder: the index's folder; where it can't be written, the features are kept in memory.
      identity: of the table's version.
      shape: the number of items, and of each one's features.
      read: reads the table's features, int8[n, shape[1]] each, in its order.

    Returns:
      int8[shape], not to be written.
    """
    begin = f"{_BEGIN}{hashlib.sha256(f'{identity} {shape}'.encode()).hexdigest()[:32]}-"
    for path in sorted(folder.glob(f"{begin}*{_END}")):
        features = _mapped(path, shape)
        if features is not None and path.name == f"{begin}{_checksum(features)}{_END}":
            return features
    blocks = [np.ascontiguousarray(some, np.int8) for some in read()]
    features = np.concatenate([np.zeros((0, shape[1]), np.int8), *blocks])
    path = folder / f"{begin}{_checksum(features)}{_END}"
    try:
        _write(path, features)
    except OSError:  # another user's index, or a full disk
        return features
    mapped = _mapped(path, shape)
    return features if mapped is None else mapped


def _mapped(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """Map a file; return None if it isn't there, isn't a regular file, or has another size."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode) or path.lstat().st_size != shape[0] * shape[1]:
            return None
        return np.memmap(path, np.int8, mode="r", shape=shape)
    except (OSError, ValueError):
        return None


def _checksum(features: np.ndarray) -> str:
    content, value = memoryview(features.reshape(-1).view(np.uint8)), 0  # type: ignore[arg-type]
    for start in range(0, len(content), _BLOCK):
        value = zlib.crc32(content[start : start + _BLOCK], value)
    return f"{value:08x}"


def _write(path: Path, features: np.ndarray) -> None:
    """Write the copy as a whole, and remove those of other versions; who has mapped one keeps it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_BEGIN, suffix=_PART)
    try:
        with os.fdopen(handle, "wb") as file:
            features.tofile(file)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink()
        raise
    for other in path.parent.glob(f"{_BEGIN}*"):
        with contextlib.suppress(OSError):  # another process removes it
            is_left = (
                other.name.endswith(_PART) and time.time() - other.stat().st_mtime > _SECONDS
            )  # by a process that was killed
            if is_left or (other.name.endswith(_END) and other.name != path.name):
                other.unlink()
