"""An index in a folder: LanceDB keeps it, faiss scans its codes in memory. No other file knows of either."""

import contextlib
import datetime
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

os.environ.setdefault("LANCEDB_LOG", "error")  # it warns of every new folder
import lancedb

from adsq_jax.errors import InputError
from adsq_jax.index import filters
from adsq_jax.index.filters import Filter
from adsq_jax.index.protocol import NOTHING, Found, Item, Manifest, check_codes, check_items, check_search

_TABLE = "codes"
_METADATA = b"adsq_jax"  # of the table's schema: the manifest, so that there is never one without the other
_ALL = 2**31 - 1  # rows: LanceDB wants a limit
_TOGETHER = 1_000  # ids in one question
_MANY_ADDS = 32  # after which their pieces are joined: each add looks through all of them
_OLD = datetime.timedelta(days=1)  # as long what others have open stays readable


class EmbeddedIndex:
    """See `protocol.CodeIndex`. Reads and writes by one thread at a time."""

    def __init__(self, folder: Path, table: Any, manifest: Manifest):
        """Takes an open table; `create` and `open` have it."""
        self.manifest = manifest
        self._folder, self._table = folder, table
        self._scanner: Any = None  # faiss's, of the codes as they lie in the table; None: to be loaded
        self._lock: int | None = None
        self._adds = 0

    @classmethod
    def create(cls, folder: Path, manifest: Manifest) -> "EmbeddedIndex":
        """Opens an index for adding, and makes it where there is none.

        Raises:
          InputError: see `places.create`.
        """
        _check_free(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} can't be made ({error.strerror}): give another folder for the index") from error
        lock = _locked(folder)
        try:
            with _readable(folder):
                if not _finished(folder):
                    lancedb.connect(folder).create_table(_TABLE, schema=_schema(manifest), mode="overwrite")
            found = cls.open(folder)
        except BaseException:
            os.close(lock)
            raise
        found._lock = lock
        return found

    @classmethod
    def open(cls, folder: Path) -> "EmbeddedIndex":
        """Opens an index.

        Raises:
          InputError: see `places.open_index`.
        """
        with _readable(folder):
            finished = _finished(folder)
        if not finished:
            raise InputError(f"{folder} holds no index: make one with adsq_jax.encode, or give another folder")
        _check_kinds(folder)
        with _readable(folder):
            table = lancedb.connect(folder).open_table(_TABLE)
            kept = json.loads((table.schema.metadata or {}).get(_METADATA, b"null"))
        manifest = Manifest.of_dict(kept, place=str(folder))
        if table.schema.remove_metadata() != _schema(manifest).remove_metadata():
            raise InputError(f"{folder} has other columns than an index: it was made by another version; encode into a new one")
        return cls(folder, table, manifest)

    def add(self, items: Sequence[Item], packed_codes: np.ndarray) -> None:
        """See `CodeIndex.add`."""
        packed_codes = check_codes(packed_codes, self.manifest)
        check_items(items, codes=len(packed_codes))
        rows = list({item.id: row for row, item in enumerate(items)}.values())  # of two with one id the last
        if not rows:
            return
        kept = [items[row] for row in rows]
        codes = pa.FixedSizeListArray.from_arrays(pa.array(packed_codes[rows].reshape(-1)), self.manifest.width)
        columns = [
            pa.array([item.id for item in kept], pa.string()),
            codes,
            pa.array([item.labels for item in kept], pa.list_(pa.string())),
            pa.array([item.sha256 for item in kept], pa.string()),
        ]
        content = pa.table(columns, schema=self._table.schema)
        with self._writing():
            upsert = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            upsert.execute(content)
            self._adds += 1
            if self._adds % _MANY_ADDS == 0:
                self._table.optimize(cleanup_older_than=_OLD)

    def delete(self, ids: Sequence[str]) -> int:
        """See `CodeIndex.delete`."""
        with self._writing():
            there = list(self.find(ids))  # now, when nobody else writes
            for start in range(0, len(there), _TOGETHER):
                self._table.delete(_among(there[start : start + _TOGETHER]))
        return len(there)

    def search(self, packed_codes: np.ndarray, *, k: int, radius: int | None = None, where: Filter | None = None) -> Found:
        """See `CodeIndex.search`."""
        query = check_codes(packed_codes, self.manifest)
        check_search(k, radius)
        scanner, positions = self._loaded(), None
        if where is not None:
            positions = self._positions(where)
            scanner = _scanner(_codes_of(scanner)[positions])
        k = min(int(k), scanner.ntotal)
        if not k or not len(query):
            return Found(np.zeros((len(query), k), np.int32), np.zeros((len(query), k), np.int64))
        distances, keys = scanner.search(query, k)
        if positions is not None:
            keys = positions[keys]
        order = np.lexsort((keys, distances))
        distances, keys = (np.take_along_axis(x, order, axis=1) for x in (distances, keys))
        if radius is not None:
            keys = np.where(distances <= radius, keys, NOTHING)
            distances = np.where(distances <= radius, distances, NOTHING)
        return Found(distances, keys)

    def items(self, keys: Sequence[int] | np.ndarray) -> list[Item]:
        """See `CodeIndex.items`."""
        wanted = np.asarray(keys, np.int64).reshape(-1)
        if not len(wanted):
            return []
        if wanted.min() < 0 or wanted.max() >= self.count():
            raise InputError(f"a key of {wanted.min()} to {wanted.max()} is none of this index: take keys of its last search")
        with _readable(self._folder):
            query = self._table.take_offsets(np.unique(wanted).tolist()).select(["id", "labels", "sha256", "_rowoffset"])
            found = query.to_arrow().to_pylist()
        by_key = {row["_rowoffset"]: _item(row) for row in found}
        return [by_key[key] for key in wanted.tolist()]

    def find(self, ids: Sequence[str]) -> dict[str, Item]:
        """See `CodeIndex.find`."""
        wanted, found = list(dict.fromkeys(ids)), {}
        for start in range(0, len(wanted), _TOGETHER):
            among = _among(wanted[start : start + _TOGETHER])
            for batch in self._rows(["id", "labels", "sha256"], where=among):
                found.update({row["id"]: _item(row) for row in batch.to_pylist()})
        return found

    def ids(self, *, prefix: str = "") -> Iterator[str]:
        """See `CodeIndex.ids`."""
        where = f"starts_with(id, {_quoted(prefix)})" if prefix else None
        for batch in self._rows(["id"], where=where):
            yield from batch["id"].to_pylist()

    def scan(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        """See `CodeIndex.scan`."""
        for batch in self._rows(["id", "labels", "sha256", "code"]):
            codes = batch["code"].flatten().to_numpy().reshape(-1, self.manifest.width)
            columns = (batch[name].to_pylist() for name in ("id", "labels", "sha256"))
            yield [Item(name, tuple(labels), sha256) for name, labels, sha256 in zip(*columns, strict=True)], codes

    def count(self, *, where: Filter | None = None) -> int:
        """See `CodeIndex.count`."""
        with _readable(self._folder):
            return int(self._table.count_rows(None if where is None else _sql(where)))

    def refresh(self) -> None:
        """See `CodeIndex.refresh`."""
        with _readable(self._folder):
            before = self._table.version
            self._table.checkout_latest()
            if self._table.version != before:
                self._scanner = None

    def close(self) -> None:
        """See `CodeIndex.close`."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._scanner = None

    def __enter__(self) -> "EmbeddedIndex":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Lets one process at a time write."""
        if self._lock is None:
            self._lock = _locked(self._folder)
            self.refresh()  # another may have written before
        self._scanner = None
        with _writable(self._folder):
            yield

    def _rows(self, columns: Sequence[str], *, where: str | None = None) -> Iterator[pa.RecordBatch]:
        query = self._table.search().select(list(columns)).limit(_ALL)
        with _readable(self._folder):
            yield from (query if where is None else query.where(where)).to_batches()

    def _positions(self, where: Filter) -> np.ndarray:
        """Where in the table the rows lie that a filter lets through, int64[m], ascending."""
        found = [batch["_rowoffset"].to_numpy() for batch in self._rows(["_rowoffset"], where=_sql(where))]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *found]).astype(np.int64))

    def _loaded(self) -> Any:
        """The scanner, with the codes of all rows in their order."""
        if self._scanner is None:
            codes, start = np.empty((self.count(), self.manifest.width), np.uint8), 0
            for batch in self._rows(["code"]):
                found = batch["code"].flatten().to_numpy().reshape(-1, self.manifest.width)
                codes[start : start + len(found)] = found
                start += len(found)
            try:
                check_codes(codes, self.manifest)
            except InputError as error:
                raise InputError(f"{self._folder} is damaged ({error}): encode into a new index") from error
            self._scanner = _scanner(codes)
        return self._scanner


def _schema(manifest: Manifest) -> pa.Schema:
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("code", pa.list_(pa.uint8(), manifest.width), nullable=False),
            pa.field("labels", pa.list_(pa.string()), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
        ],
        metadata={_METADATA: json.dumps(manifest.as_dict())},
    )


def _scanner(codes: np.ndarray) -> Any:
    """faiss's exact scan; flat, since codes repeat, which graphs can't stand."""
    scanner = faiss.IndexBinaryFlat(8 * codes.shape[1])
    scanner.add(codes)
    return scanner


def _codes_of(scanner: Any) -> np.ndarray:
    """The codes of a scanner, without a copy."""
    width = scanner.d // 8
    if not scanner.ntotal:
        return np.zeros((0, width), np.uint8)
    return faiss.rev_swig_ptr(scanner.xb.data(), scanner.ntotal * width).reshape(-1, width)


def _item(row: dict[str, Any]) -> Item:
    return Item(row["id"], tuple(row["labels"]), row["sha256"])


def _sql(where: Filter) -> str:
    """A filter as LanceDB's SQL."""
    match where:
        case filters.Label(name):
            return f"array_has(labels, {_quoted(name)})"
        case filters.Path() as path:
            return f"regexp_like(id, {_quoted('(?s)^' + '.*'.join(map(re.escape, path.parts)) + '$')})"
        case filters.Not(of):
            return f"(not {_sql(of)})"
        case filters.Every(several):
            return "(" + " and ".join(map(_sql, several)) + ")"
        case filters.Either(several):
            return "(" + " or ".join(map(_sql, several)) + ")"


def _among(ids: Sequence[str]) -> str:
    return f"id in ({', '.join(map(_quoted, ids))})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _finished(folder: Path) -> bool:
    """Whether a table was made there to the end; what was begun holds nothing yet.

    Raises:
      InputError: it was, and has lost what says what it holds.
    """
    versions, data = (folder / f"{_TABLE}.lance" / name for name in ("_versions", "data"))
    if versions.is_dir() and any(versions.iterdir()):
        return True
    if data.is_dir() and any(data.iterdir()):
        raise InputError(f"{folder} is damaged, its versions are gone: restore it, or encode into a new index")
    return False


def _check_kinds(folder: Path) -> None:
    """Says that there are files and folders alone: LanceDB would wait at a pipe for ever."""
    for path, _, files in os.walk(folder / f"{_TABLE}.lance"):
        for name in files:
            if not os.path.isfile(os.path.join(path, name)):
                raise InputError(f"{os.path.join(path, name)} is no regular file: restore the index, or encode into a new one")


def _check_free(folder: Path) -> None:
    """Says that a folder is an index, or can become one."""
    try:
        others = [name for name in os.listdir(folder) if not name.startswith(".") and name != f"{_TABLE}.lance"]
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{folder} can't be used for an index ({error.strerror}): give a folder") from error
    if others:
        raise InputError(f"{folder} holds other files ({others[0]!r:.100}): give an empty or a new folder for the index")


def _locked(folder: Path) -> int:
    """The lock of the one process that writes."""
    try:
        lock = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"{folder} can't be written ({error.strerror}): change its permissions") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise InputError(f"{folder} is being written by another process: wait for it to end") from error
        raise InputError(f"{folder} can't be locked ({error.strerror}): put the index on a local disk") from error
    return lock


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    with _told(folder, "can't be read", "restore it, or encode into a new index"):
        yield


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    with _told(folder, "can't be written", "make room, and give the same command again; what was added before is kept"):
        yield


@contextlib.contextmanager
def _told(folder: Path, what: str, remedy: str) -> Iterator[None]:
    """Says in one line what LanceDB says in many, by exceptions of many kinds."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        system = re.search(r"[A-Z][a-z ]+ \(os error \d+\)", said)  # of all that it says what a person can act upon
        if system is None and ("panicked" in said or "LanceError" in said):  # with the places in its source, over pages
            what, said, remedy = "is damaged", "LanceDB can't make sense of its files", "restore it, or encode into a new index"
        raise InputError(f"{folder} {what} ({system[0] if system else said[:200]}): {remedy}") from error
