"""An index in a folder: LanceDB stores it, faiss scans its codes in memory. No other file imports either."""

import contextlib
import datetime
import errno
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa

os.environ.setdefault("LANCEDB_LOG", "error")  # it warns about every new folder
import lancedb

from adsq_jax.errors import InputError, remedy
from adsq_jax.index import checksums, engine, features_file, filters, own_model, table_manifests
from adsq_jax.index.engine import Batch, CodeIndex, Hits, Item, Manifest
from adsq_jax.index.filters import Filter
from adsq_jax.run.file_locks import FileLock

_TABLE = "codes"
_FOLDER = f"{_TABLE}.lance"  # of the table, as LanceDB names it
_LOCK = ".lock"  # a file in the index's folder
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # what disks without locks say
_METADATA = b"adsq_jax"  # key of the manifest in the table's schema, so that neither exists without the other
_ITEM = ["id", "labels", "sha256"]  # columns
_NO_LIMIT = 2**31 - 1  # rows: LanceDB requires a limit
_IDS_PER_QUERY = 1_000
_MOST_SMALL_FRAGMENTS = 32  # each add makes one, whose files the next add searches and every new version lists again
_KEEP_VERSIONS = datetime.timedelta(days=1)  # other processes may read old versions for so long
_RESTORE = "restore it, or encode into a new index"


class _Opened(NamedTuple):
    """A version of the table, checked when it was opened."""

    table: Any
    manifest: Manifest
    identity: str  # another version, and another table in its place, has another
    files: dict[str, str]  # the checksums of its files, by their paths below the table's folder


class EmbeddedIndex(CodeIndex):
    """An index in a folder, for one thread at a time. One process writes, any number read."""

    def __init__(self, folder: Path):
        """Open the newest version of the table in a folder."""
        self.location = str(folder)
        self._folder, self._verified = folder, dict[str, checksums.Stamp]()
        self._use(_open_newest(folder, self._verified))
        self._lock: FileLock | None = None

    def _use(self, opened: _Opened) -> None:
        self._table, self.manifest, self._identity, self._files = opened
        self._scanner: Any = None  # faiss's index of all codes, in the table's order; None: to be loaded
        self._features: np.ndarray | None = None  # of all items, in the table's order; None: to be mapped

    @classmethod
    def exists(cls, location: str) -> bool:
        """Return whether there is an index."""
        with _translate_errors(Path(location)):
            return _has_table(Path(location))

    @classmethod
    def create(cls, location: str, manifest: Manifest, *, model: Mapping[str, bytes] | None = None) -> "EmbeddedIndex":
        """Open an index for adding; make it if there is none."""
        folder = Path(location)
        _check_no_other_files(folder, may_have_model=model is not None)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} can't be made ({error.strerror}); fix: give another folder for the index") from error
        lock = _lock(folder)
        try:
            with _translate_errors(folder):
                if not _has_table(folder):
                    own_model.write(folder, model or {})  # before the table: an index is never without its model
                    _connect(folder).create_table(_TABLE, schema=_schema(manifest))  # fails if there is one
            opened = cls.open(location)
        except BaseException:
            lock.close()
            raise
        opened._lock = lock
        return opened

    @classmethod
    def open(cls, location: str) -> "EmbeddedIndex":
        """Open an index."""
        return cls(Path(location))

    def add(self, items: Sequence[Item], packed_codes: np.ndarray, features: np.ndarray | None = None) -> None:
        """Add items, or replace those with the same ids."""
        items, packed_codes, features = engine.check_added(items, packed_codes, features, self.manifest)
        if not items:
            return
        columns = [
            pa.array([item.id for item in items], pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(packed_codes.reshape(-1)), self.manifest.width),
            pa.array([item.labels for item in items], pa.list_(pa.string())),
            pa.array([item.sha256 for item in items], pa.string()),
        ]
        if self.manifest.features:
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), self.manifest.features))
        with self._writing():
            upsert = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            upsert.execute(pa.table(columns, schema=self._table.schema))
            if self._table.stats()["fragment_stats"]["num_small_fragments"] > _MOST_SMALL_FRAGMENTS:
                self._table.optimize(cleanup_older_than=_KEEP_VERSIONS)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete items by id."""
        with self._writing():
            existing = list(self.find(ids))  # under the lock
            for start in range(0, len(existing), _IDS_PER_QUERY):
                self._table.delete(_one_of("id", existing[start : start + _IDS_PER_QUERY]))
        return len(existing)

    def search(self, packed_codes: np.ndarray, *, k: int, radius: int | None = None, where: Filter | None = None) -> Hits:
        """Find the k nearest items of each query."""
        query = engine.check_search(packed_codes, self.manifest, k=k, radius=radius)
        scanner, rows = self._loaded_scanner(), None
        if where is not None:
            rows = self._rows_of(where)
            scanner = _make_scanner(_codes_of(scanner)[rows])
        k = min(int(k), scanner.ntotal)
        if not k or not len(query):
            return Hits(np.zeros((len(query), k), np.int32), np.zeros((len(query), k), np.int64))
        distances, keys = scanner.search(query, k)
        keys = keys if rows is None else rows[keys]
        return engine.rank(distances, keys, radius=radius)

    def items(self, keys: Sequence[int] | np.ndarray) -> list[Item]:
        """Return the items of keys, which are row numbers of the table."""
        wanted = engine.check_keys(keys, count=self.count())
        if not len(wanted):
            return []
        with self._reading():
            rows = self._table.take_offsets(np.unique(wanted).tolist()).select([*_ITEM, "_rowoffset"]).to_arrow()
        by_key = dict(zip(rows["_rowoffset"].to_pylist(), _to_items(rows), strict=True))
        return [by_key[key] for key in wanted.tolist()]

    def features(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the compressed features of keys."""
        wanted, width = engine.check_keys(keys, count=self.count()), self.manifest.features
        if not width or not len(wanted):
            return np.zeros((len(wanted), width), np.int8)
        if self._features is None:
            identity = f"{self._identity} {self._table.version}"  # the table can be newer than its checksums
            self._features = features_file.opened(
                self._folder, identity, shape=(self.count(), width), read=lambda: self._columns("features", width)
            )
            if len(self._features) != self.count():
                raise InputError(f"{self._folder} is damaged (features of {len(self._features):,} items); fix: {_RESTORE}")
        return self._features[wanted]

    def find(self, ids: Sequence[str]) -> dict[str, Item]:
        """Return the items with these ids, by id."""
        wanted, items = list(dict.fromkeys(ids)), dict[str, Item]()
        for start in range(0, len(wanted), _IDS_PER_QUERY):
            for batch in self._read(_ITEM, where=_one_of("id", wanted[start : start + _IDS_PER_QUERY])):
                items.update({item.id: item for item in _to_items(batch)})
        return items

    def stored(self, *, ids: Sequence[str] = (), hashes: Sequence[str] = ()) -> Batch:
        """Return the items with these ids, or with contents of these SHA-256, with codes and features."""
        column, wanted = ("id", list(dict.fromkeys(ids))) if ids else ("sha256", list(dict.fromkeys(hashes)))
        parts = (wanted[start : start + _IDS_PER_QUERY] for start in range(0, len(wanted), _IDS_PER_QUERY))
        return engine.joined((batch for part in parts for batch in self._batches(_one_of(column, part))), self.manifest)

    def content_hashes(self) -> Iterator[str]:
        """Yield the SHA-256 of each item's content."""
        for batch in self._read(["sha256"]):
            yield from batch["sha256"].to_pylist()

    def ids(self, *, prefix: str = "", where: Filter | None = None) -> Iterator[str]:
        """Yield the ids that begin with `prefix` and pass a filter."""
        conditions = [f"starts_with(id, {_quote(prefix)})"] if prefix else []
        conditions += [] if where is None else [_to_sql(where)]
        timeout = None if where is None else datetime.timedelta(seconds=filters.MAX_SECONDS)
        for batch in self._read(["id"], where=" and ".join(conditions) or None, timeout=timeout):
            yield from batch["id"].to_pylist()

    def scan(self) -> Iterator[Batch]:
        """Yield all items with their codes and features."""
        return self._batches(None)

    def _batches(self, where: str | None) -> Iterator[Batch]:
        width = self.manifest.features
        for batch in self._read([*_ITEM, "code", *(["features"] if width else [])], where=where):
            features = _numbers(batch, "features", width) if width else np.zeros((batch.num_rows, 0), np.int8)
            yield Batch(_to_items(batch), _numbers(batch, "code", self.manifest.width), features)

    def count(self, *, where: Filter | None = None) -> int:
        """Return the number of items, or of those that `where` selects."""
        if where is not None:
            return len(self._rows_of(where))
        with self._reading():
            return int(self._table.count_rows())

    def refresh(self) -> None:
        """Reload changes made by other processes."""
        with _translate_errors(self._folder):
            if checksums.identity(self._folder / _FOLDER) == self._identity:
                return
        opened = _open_newest(self._folder, self._verified)
        engine.check_replaced(self, opened.manifest)
        self._use(opened)

    def close(self) -> None:
        """Release the lock and the codes in memory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._scanner = self._features = None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Take the lock of the only writer, until `close`; store checksums of what was written."""
        if self._lock is None:
            self._lock = _lock(self._folder)
        else:
            _check_lock(self._lock)
        self.refresh()  # another process may have written before, or replaced the index
        with self._reading():  # a damaged file must not be merged into a new one
            self._scanner = self._features = None
        with _translate_errors(self._folder, writing=True):
            yield
            stored = checksums.write(
                self._folder / _FOLDER,
                version=self._table.version,
                items=self._table.count_rows(),
                known=self._files,
                verified=self._verified,
            )
            self._identity, self._files = checksums.identity(self._folder / _FOLDER), stored.files

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Check that no file has changed since it was compared with its checksum."""
        with _translate_errors(self._folder):
            try:
                checksums.check_files(self._folder / _FOLDER, self._files, verified=self._verified)
                yield
            except Exception as error:
                gone = isinstance(error, checksums.DamagedError) or re.search("(?i)not found|no such file", str(error))
                if not gone or checksums.identity(self._folder / _FOLDER) in ("", self._identity):
                    raise
                raise InputError(
                    f"{self._folder} was written or replaced while it was open, and the files of the version that was opened "
                    "are gone; fix: open it again"
                ) from error

    def _read(
        self, columns: list[str], *, where: str | None = None, timeout: datetime.timedelta | None = None
    ) -> Iterator[pa.RecordBatch]:
        query = self._table.search().select(columns).limit(_NO_LIMIT)
        with self._reading():
            yield from (query if where is None else query.where(where)).to_batches(timeout=timeout)

    def _rows_of(self, where: Filter) -> np.ndarray:
        """Return the row numbers that a filter selects, int64[m], ascending."""
        timeout = datetime.timedelta(seconds=filters.MAX_SECONDS)
        batches = self._read(["_rowoffset"], where=_to_sql(where), timeout=timeout)
        rows = [batch["_rowoffset"].to_numpy() for batch in batches]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64))

    def _columns(self, name: str, width: int) -> Iterator[np.ndarray]:
        """Yield the numbers of a column, [n, width] each, in the table's order."""
        for batch in self._read([name]):
            yield _numbers(batch, name, width)

    def _loaded_scanner(self) -> Any:
        if self._scanner is None:
            codes, start = np.empty((self.count(), self.manifest.width), np.uint8), 0
            for some in self._columns("code", self.manifest.width):
                codes[start : start + len(some)] = some[: len(codes) - start]
                start += len(some)
            try:
                if start != len(codes):
                    raise InputError(f"expected {len(codes):,} codes, got {start:,}")
                engine.check_codes(codes, self.manifest)
            except InputError as error:
                raise InputError(f"{self._folder} is damaged ({error}); fix: {_RESTORE}") from error
            self._scanner = _make_scanner(codes)
        return self._scanner


def _connect(folder: Path) -> Any:
    """Connect to a folder by its real path: LanceDB has its own reading of `~`, `..` and relative paths."""
    return lancedb.connect(os.path.realpath(folder))


def _open_newest(folder: Path, verified: dict[str, checksums.Stamp]) -> _Opened:
    """Open the newest version of a table, and check its files.

    Args:
      folder: the index's folder.
      verified: the stamps of files that were compared with their checksums; new ones are added.
    """
    with _translate_errors(folder):
        if not _has_table(folder):
            raise InputError(f"{folder} holds no index; fix: make one with adsq encode, or give another folder")
        _check_regular_files(folder)
        table_manifests.check_local(folder / _FOLDER, checked=verified)
        try:
            return _open_once(folder, verified)
        except checksums.DamagedError:  # unless another process replaced the index at this moment
            return _open_once(folder, verified)


def _open_once(folder: Path, verified: dict[str, checksums.Stamp]) -> _Opened:
    stored = checksums.read(folder / _FOLDER)  # before the table, which is written first
    identity = checksums.identity(folder / _FOLDER)
    table = _connect(folder).open_table(_TABLE)
    manifest = Manifest.from_dict(json.loads((table.schema.metadata or {}).get(_METADATA, b"null")), location=str(folder))
    if table.schema.remove_metadata() != _schema(manifest).remove_metadata():
        raise InputError(f"{folder} has other columns than an index, of another version; fix: encode into a new one")
    if stored is None:  # a version of this library that stored none wrote the index
        return _Opened(table, manifest, identity, {})
    checksums.check_version(stored, version=table.version, items=table.count_rows())
    checksums.check_files(folder / _FOLDER, stored.files, verified=verified)
    return _Opened(table, manifest, identity, stored.files)


def _schema(manifest: Manifest) -> pa.Schema:
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("code", pa.list_(pa.uint8(), manifest.width), nullable=False),
        pa.field("labels", pa.list_(pa.string()), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
    if manifest.features:
        fields.append(pa.field("features", pa.list_(pa.int8(), manifest.features), nullable=False))
    return pa.schema(fields, metadata={_METADATA: json.dumps(manifest.to_dict())})


def _numbers(batch: pa.RecordBatch, name: str, width: int) -> np.ndarray:
    """Return a column of lists of numbers, [n, width]."""
    return batch[name].flatten().to_numpy().reshape(-1, width)


def _make_scanner(codes: np.ndarray) -> Any:
    """Return faiss's exact scan; flat, because graph indexes fail where many codes are equal."""
    scanner = faiss.IndexBinaryFlat(8 * codes.shape[1])
    scanner.add(codes)
    return scanner


def _codes_of(scanner: Any) -> np.ndarray:
    """Return the codes of a scanner, without a copy."""
    width = scanner.d // 8
    if not scanner.ntotal:
        return np.zeros((0, width), np.uint8)
    return faiss.rev_swig_ptr(scanner.xb.data(), scanner.ntotal * width).reshape(-1, width)


def _to_items(batch: Any) -> list[Item]:
    columns = (batch[name].to_pylist() for name in _ITEM)
    return [Item(name, tuple(labels), sha256) for name, labels, sha256 in zip(*columns, strict=True)]


def _to_sql(where: Filter) -> str:
    """Translate a filter into LanceDB's SQL."""
    match where:
        case filters.Label(name):
            return f"array_has(labels, {_quote(name)})"
        case filters.IdPattern() as path:
            return f"regexp_like(id, {_quote('(?s)^' + '.*'.join(map(re.escape, path.parts)) + '$')})"
        case filters.Not(inner):
            return f"(not {_to_sql(inner)})"
        case filters.And(parts):
            return "(" + " and ".join(map(_to_sql, parts)) + ")"
        case filters.Or(parts):
            return "(" + " or ".join(map(_to_sql, parts)) + ")"
        case _:
            raise filters.no_filter(where)


def _one_of(column: str, texts: Sequence[str]) -> str:
    return f"{column} in ({', '.join(map(_quote, texts))})"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _has_table(folder: Path) -> bool:
    """Return whether a table was completely made; an incomplete one holds nothing yet."""
    data = folder / _FOLDER / "data"
    if checksums.newest_manifest(folder / _FOLDER) is not None:
        return True
    if data.is_dir() and any(data.iterdir()):
        raise InputError(f"{folder} is damaged, its versions are missing; fix: {_RESTORE}")
    return False


def _check_regular_files(folder: Path) -> None:
    """Check that all files are regular: LanceDB would wait forever for a pipe."""
    for parent, _, names in os.walk(folder / _FOLDER):
        for path in (os.path.join(parent, name) for name in names):
            if not os.path.isfile(path) and os.path.lexists(path):  # a writer removes files while they are listed
                raise InputError(f"{path} is not a regular file; fix: {_RESTORE}")


def _check_no_other_files(folder: Path, *, may_have_model: bool) -> None:
    """Check that a folder holds an index or nothing, or doesn't exist."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
        own = (_FOLDER, own_model.FOLDER) if may_have_model or _FOLDER in names else (_FOLDER,)
        others = [name for name in names if name not in own]
    except FileNotFoundError:
        others = []
    except OSError as error:
        raise InputError(f"{folder} can't be used for an index ({error.strerror}); fix: give a folder") from error
    above = next((parent for parent in folder.resolve().parents if os.path.isdir(parent / _FOLDER)), None)
    if above is not None and not (folder / _FOLDER).is_dir():  # a new one would be another file there
        raise InputError(f"{folder} is in the folder of another index, {above}; fix: give a folder outside")
    if others:
        raise InputError(f"{folder} holds other files ({others[0]!r:.100}); fix: give an empty or a new folder for the index")


def _lock(folder: Path) -> FileLock:
    """Lock a folder for the one process that writes."""
    try:
        return FileLock(folder / _LOCK)
    except BlockingIOError as error:
        raise InputError(f"{folder} is being written by another process; fix: wait until it ends") from error
    except OSError as error:
        fixes = {**dict.fromkeys(_NO_LOCKS, "put the index on a local disk"), errno.EINVAL: "remove it"}
        fix = fixes.get(error.errno or 0) or remedy(error)
        raise InputError(f"{folder / _LOCK} can't be locked ({error.strerror}); fix: {fix}") from error


def _check_lock(lock: FileLock) -> None:
    """Check that a lock is still that of its folder: whoever removes the file, or replaces the index, lets others write."""
    if not lock.is_in_place():
        raise InputError(
            f"{lock.path} was removed or replaced while the index was open, and another process may write; fix: leave it "
            "there, and give the same command again"
        )


@contextlib.contextmanager
def _translate_errors(folder: Path, *, writing: bool = False) -> Iterator[None]:
    """Turn LanceDB's errors, of many types and many lines, into an `InputError` of one line."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except checksums.DamagedError as error:
        raise InputError(f"{folder} is damaged ({error}); fix: {_RESTORE}") from error
    except Exception as error:
        problem, fix = ("can't be written", f"{remedy(error)}, and give the same command again; items that were added stay")
        if not writing:
            problem, fix = "can't be read", _RESTORE
        text = " ".join(str(error).split()) or type(error).__name__
        if "Query timeout" in text:  # only a filter has one
            raise filters.too_slow() from error
        system = re.search(r"[A-Z][a-z ]+ \(os error \d+\)", text)  # the part of the text that helps a reader
        if system is None and ("panicked" in text or "LanceError" in text):  # pages of LanceDB's source locations
            problem, text, fix = "is damaged", "LanceDB can't read its files", _RESTORE
        raise InputError(f"{folder} {problem} ({system[0] if system else text[:200]}); fix: {fix}") from error
