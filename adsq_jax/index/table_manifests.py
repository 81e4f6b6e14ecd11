"""Check the manifests of a LanceDB table before LanceDB reads them: one may say that table or files lie elsewhere.

In such a place, which may be an object store, LanceDB looks with the credentials of whoever opens the table. An index of this
library has all its files in its own folder. The format is that of lance's table.proto, in protobuf's encoding.
"""

import os
import struct
from pathlib import Path

from adsq_jax.errors import InputError
from adsq_jax.index.checksums import Stamp, stamp_of

_MAGIC = b"LANC"  # ends a manifest's file, after its position (8 bytes) and version (4)
_BASE_PATHS = 18  # the field of other places
_LONGEST_NUMBER = 10  # bytes of a number of 64 bits
_FIXED = {1: 8, 5: 4}  # bytes of a value, by its kind; the others have a number, and perhaps as many bytes, behind it
_CATALOG = "__manifest"  # a table beside ours, in which LanceDB looks up where ours lies; this library makes none
_FIX = "encode into a new index, or give one that isn't from elsewhere"


def check_local(table: Path, *, checked: dict[str, Stamp]) -> None:
    """Check that LanceDB finds a table in its folder, and each version's files below it.

    Args:
      table: the table's folder.
      checked: the stamps of manifests that were checked earlier; new ones are added.

    Raises:
      InputError: it would look in other places, or a manifest can't be read.
    """
    if os.path.lexists(table.parent / _CATALOG):
        raise InputError(f"{table.parent / _CATALOG} can name other places for the index, which isn't opened; fix: {_FIX}")
    for path in [*table.glob("*.manifest"), *(table / "_versions").glob("*.manifest")]:
        try:
            stamp = stamp_of(path)
            if checked.get(path.name) == stamp:
                continue
            content = path.read_bytes()
        except FileNotFoundError:  # LanceDB removes old versions
            continue
        try:
            elsewhere = has_other_places(content)
        except (ValueError, IndexError, struct.error) as error:
            raise InputError(f"{path} is damaged; fix: restore it, or {_FIX}") from error
        if elsewhere:
            raise InputError(f"{path} names other places for the index's files, and isn't opened; fix: {_FIX}")
        checked[path.name] = stamp


def has_other_places(content: bytes) -> bool:
    """Return whether the content of a manifest's file names places for files beside the table's folder.

    Raises:
      ValueError, IndexError, struct.error: it isn't one.
    """
    if content[-4:] != _MAGIC:
        raise ValueError("it has another end")
    (start,) = struct.unpack("<Q", content[-16:-8])
    (length,) = struct.unpack("<I", content[start : start + 4])
    message, at = content[start + 4 : start + 4 + length], 0
    while at < length:
        key, at = _number(message, at)
        kind = key & 7
        if key >> 3 == _BASE_PATHS:
            return True
        if kind in _FIXED:
            at += _FIXED[kind]
            continue
        if kind not in (0, 2):
            raise ValueError("it has a value of unknown kind")
        value, at = _number(message, at)
        at += value if kind == 2 else 0
    if at != length or len(message) != length:
        raise ValueError("it is cut short")
    return False


def _number(message: bytes, at: int) -> tuple[int, int]:
    """Return a number of protobuf, and the position after it."""
    value = 0
    for shift in range(_LONGEST_NUMBER):
        byte = message[at + shift]
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value, at + shift + 1
    raise ValueError("it has a number that is too long")
