"""The folders that an index in a folder was filled from. Only `encode` and `move` record them: no other pictures are opened.

An index on a server records none: its paths may be those of another machine.
"""

import os
from pathlib import Path
from typing import Any

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.index.engine import MAX_TEXT, CodeIndex
from adsq_jax.run import workdir

_FILE = ".roots.json"  # in the index's folder
_FORMAT = 1
_MOST = 1_000  # folders
_MOST_BYTES = 2**23  # of the file: so many paths of the longest kind


def read(opened: CodeIndex) -> tuple[str, ...]:
    """Return the folders that an index was filled from: absolute paths and places in object stores, each ending with /.

    Returns:
      The folders; none for an index on a server, or one that an earlier version filled.

    Raises:
      InputError: the record is damaged.
    """
    path = _path(opened)
    if path is None or not os.path.lexists(path):
        return ()
    try:
        content: Any = workdir.read_json(path) if path.is_file() and path.stat().st_size <= _MOST_BYTES else None
    except (OSError, InputError):
        content = None
    if not _is_record(content):
        raise InputError(f"{path} is not a list of the index's folders; fix: remove it, and encode again")
    return tuple(content["roots"])


def record(opened: CodeIndex, root: str) -> None:
    """Record one more folder that an index is filled from.

    Args:
      opened: an index that no other process writes.
      root: an absolute path, or a place in an object store, that ends with /.

    Raises:
      InputError: the record is damaged, can't be written, or has too many folders.
    """
    path, known = _path(opened), read(opened)
    if path is None or root in known:
        return
    content = {"format": _FORMAT, "roots": [*known, root]}
    if not _is_record(content):
        limits = f"up to {_MOST:,} folders of up to {MAX_TEXT:,} characters"
        raise InputError(f"{root!r:.200} can't be recorded in {path}: expected {limits}; fix: encode into a new index")
    try:
        workdir.write_json(path, content)
    except OSError as error:
        raise InputError(f"{path} can't be written ({error.strerror}); fix: make room, or change its permissions") from error


def _path(opened: CodeIndex) -> Path | None:
    return None if "://" in opened.location else Path(opened.location) / _FILE


def _is_record(content: Any) -> bool:
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("roots"), list):
        return False
    return len(content["roots"]) <= _MOST and all(map(_is_folder, content["roots"]))


def _is_folder(root: Any) -> bool:
    if not isinstance(root, str) or len(root) > MAX_TEXT or "\0" in root or not root.endswith("/"):
        return False
    return root.startswith("/") or storage.is_remote(root)
