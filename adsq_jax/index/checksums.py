"""Checksums of an embedded index's files, stored beside them: a changed byte or a lost version is noticed, not searched.

LanceDB never changes a file of a table: each write adds files, and a file `_versions/N.manifest` that lists all of the new
version. It checks none of them. So each write is followed by `write`, which stores the version's number, its count of items
and a checksum of each of its files; whoever opens the index reads that first, then the table, and compares. A process that is
killed between the two writes leaves a table that is newer than its checksums: what was acknowledged earlier is still checked.
An index of an earlier version of this library has no checksums until it is written.
"""

import contextlib
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_NAME = "checksums.json"
_FORMAT = 1
_BLOCK = 1 << 20  # bytes of a file to read at a time
_MAX_BYTES = 1 << 26  # of the checksums: those of half a million files
_FILE = re.compile(r"(data|_deletions|_versions)/[\w.-]+", re.ASCII)
_MANIFEST = re.compile(r"(\d+)\.manifest", re.ASCII)
_DATA = b".lance"  # the end of the names that a manifest gives
_INVERTED = 20  # digits of a manifest's number that counts down from 2**64 - 1, so that listings begin with the newest


class DamagedError(Exception):
    """An index isn't what was stored. The text says what differs; whoever knows the index's folder adds that."""


Stamp = tuple[int, int, int]  # size, time and inode of a file that was found to be unchanged


class Checksums(NamedTuple):
    """What was stored after the last write."""

    version: int  # the table's
    items: int  # their number
    files: dict[str, str]  # the checksum of each file of that version, by its path below the table's folder


def newest_manifest(table: Path) -> Path | None:
    """Return the file that describes the newest version of a table; None if there is none."""
    try:
        names = os.listdir(table / "_versions")
    except (FileNotFoundError, NotADirectoryError):
        return None
    numbers = {match[1]: name for name in names if (match := _MANIFEST.fullmatch(name))}
    if not numbers:
        return None
    newest = max(numbers, key=lambda number: 2**64 - 1 - int(number) if len(number) == _INVERTED else int(number))
    return table / "_versions" / numbers[newest]


def identity(table: Path) -> str:
    """Return a hash that another version, and another table in its place, has not; "" if there is no table."""
    manifest = newest_manifest(table)
    if manifest is None:
        return ""
    if not manifest.is_file():  # opening a pipe would block
        raise DamagedError(f"{manifest.name} is not a regular file")
    return f"{manifest.name} {hashlib.sha256(manifest.read_bytes()).hexdigest()}"


def read(table: Path) -> Checksums | None:
    """Read the stored checksums; None if there are none.

    Raises:
      DamagedError: they are damaged.
    """
    damaged = DamagedError(f"the file {_NAME} is damaged")
    try:
        with (table / _NAME).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    try:
        stored: Any = None if len(content) > _MAX_BYTES else json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged from error
    if not isinstance(stored, dict) or stored.get("format") != _FORMAT or stored.keys() != {"format", *Checksums._fields}:
        raise damaged
    numbers, files = (stored["version"], stored["items"]), stored["files"]
    if not all(type(number) is int for number in numbers) or not isinstance(files, dict):
        raise damaged
    if not all(_FILE.fullmatch(name) and isinstance(checksum, str) for name, checksum in files.items()):
        raise damaged
    return Checksums(*numbers, files)


def write(table: Path, *, version: int, items: int, known: Mapping[str, str], verified: dict[str, Stamp]) -> Checksums:
    """Store the checksums of the version that was just written, which is the newest.

    Args:
      table: the table's folder.
      version: its number.
      items: the number of its items.
      known: checksums of files that were stored earlier, which are not computed again.
      verified: the stamps of files that are known to be unchanged; those that are read now are added.

    Returns:
      What was stored.
    """
    files = {}
    for name in _files(table):
        with contextlib.suppress(FileNotFoundError):  # old deletions, which LanceDB may remove
            stamp = stamp_of(table / name)
            files[name] = known.get(name) or _checksum(table / name)
            verified.setdefault(name, stamp)
    stored = Checksums(version, items, files)
    partial = table / f"{_NAME}.partial"  # always the same name: a kill leaves one at most
    partial.unlink(missing_ok=True)  # opened, a link would lead to a file elsewhere
    with partial.open("xb") as file:
        file.write(json.dumps({"format": _FORMAT, **stored._asdict()}).encode())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(table / _NAME)
    return stored


def check_files(table: Path, files: Mapping[str, str], *, verified: dict[str, Stamp]) -> None:
    """Compare files with their checksums. A file that is gone is left to LanceDB, which may have removed it itself.

    Args:
      table: the table's folder.
      files: the checksums.
      verified: the stamps of files that were compared earlier, which are not read again; new ones are added.

    Raises:
      DamagedError: a file has changed.
    """
    for name, checksum in files.items():
        with contextlib.suppress(FileNotFoundError):
            stamp = stamp_of(table / name)
            if verified.get(name) == stamp:
                continue
            if _checksum(table / name) != checksum:
                raise DamagedError(f"the file {name} has changed")
            verified[name] = stamp


def check_version(stored: Checksums, *, version: int, items: int) -> None:
    """Check that a table, opened after its checksums were read, has the version that they are of, or a newer one.

    Raises:
      DamagedError: the newest version is missing, or has another number of items.
    """
    if version < stored.version:
        raise DamagedError(f"version {stored.version} is missing, the newest is {version}")
    if version == stored.version and items != stored.items:
        raise DamagedError(f"expected {stored.items:,} items, got {items:,}")


def _files(table: Path) -> Iterator[str]:
    """Yield the files that the newest version needs, and those of old deletions: manifests don't name them as texts."""
    manifest = newest_manifest(table)
    if manifest is None:
        return
    yield f"_versions/{manifest.name}"
    content = manifest.read_bytes()
    for folder in ("data", "_deletions"):
        with contextlib.suppress(FileNotFoundError):
            names = set(os.listdir(table / folder))
            if folder == "data":
                names &= _texts_that_end(content, _DATA, lengths={len(name) for name in names})
            yield from (f"{folder}/{name}" for name in sorted(names))


def _texts_that_end(content: bytes, ending: bytes, *, lengths: set[int]) -> set[str]:
    """Return all texts of given lengths in a binary file that have an ending."""
    ends = [match.end() for match in re.finditer(re.escape(ending), content)]
    return {content[end - length : end].decode("latin-1") for end in ends for length in lengths}


def stamp_of(path: Path) -> Stamp:
    """Return size, time and inode of a file."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _checksum(path: Path) -> str:
    """Return size and CRC-32 of a file: against chance, not against people, who could as well change what is stored."""
    crc, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return f"{size} {crc:08x}"
