"""An index on a Milvus server or cluster, through pymilvus."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it logs every attempt to connect
from pymilvus import DataType, MilvusClient

from adsq_jax.errors import InputError
from adsq_jax.index import engine
from adsq_jax.index.engine import NOTHING, Batch, CodeIndex, Hits, Item, Manifest
from adsq_jax.index.filters import Filter
from adsq_jax.index.milvus_filters import Translator, id_starts_with, one_of, quote
from adsq_jax.index.milvus_server import Address, Calls, TooLargeError, no_index, understood

_ITEM = ["id", "labels", "sha256"]  # fields
_MAX_LABELS = 4_096  # per item; Milvus's limit
_MAX_K = 16_384  # Milvus's limit
_MAX_HITS = 100_000  # in one answer
_QUERIES_PER_CALL = 1_000
_ROWS_PER_CALL, _BYTES_PER_CALL = 5_000, 1 << 22  # to send
_PAGE = 10_000  # rows to receive; fewer if they are long
_IDS_PER_CALL = 1_000
_COMPARED_EVERY = 1.0  # seconds: others can replace a collection at any time, and no call says which of that name it meant


class MilvusIndex(CodeIndex):
    """An index on a Milvus server. Any number of processes write; if two write the same id, the later one counts.

    After it is opened or refreshed, or has written, it sees everything that any process has stored; later, what others write
    appears after some seconds. A collection of another model in its place is refused at a refresh, at a write, and otherwise
    within a second.
    """

    def __init__(self, calls: Calls, manifest: Manifest, *, nlist: int | None, collection_id: Any):
        """Hold a connection; `create` and `open` make one. `nlist` is that of BIN_IVF_FLAT, None for BIN_FLAT."""
        self.manifest, self.location = manifest, calls.address.location
        self._calls, self._nlist, self._collection_id = calls, nlist, collection_id
        self._compared = time.monotonic()  # when the collection was last compared with the manifest
        self._hits: list[Item] = []  # of the last search, in the order of their ids; keys count them
        self._see_all = True  # whether the next answer must include everything that was ever stored

    @classmethod
    def exists(cls, location: str) -> bool:
        """Return whether the server has the collection."""
        calls = Calls(Address.parse(location))
        try:
            return bool(calls("has_collection"))
        finally:
            calls.close()

    @classmethod
    def create(cls, location: str, manifest: Manifest, *, model: Mapping[str, bytes] | None = None) -> "MilvusIndex":
        """Open an index for adding; make it if there is none. A server keeps no model."""
        assert model is None
        return cls._connect(location, new=manifest)

    @classmethod
    def open(cls, location: str) -> "MilvusIndex":
        """Open an index."""
        return cls._connect(location, new=None)

    @classmethod
    def _connect(cls, location: str, *, new: Manifest | None) -> "MilvusIndex":
        """Make what is missing, if a manifest for it is given, and load the index. Any earlier call may have been cut short."""
        calls = Calls(Address.parse(location))
        try:
            if not calls("has_collection"):
                if new is None:
                    raise no_index(location)
                calls("create_collection", schema=_schema(new))
            (manifest, collection_id), nlist = _read_manifest(calls), None
            if new is None or (new.bits, new.model_sha256) == (manifest.bits, manifest.model_sha256):
                nlist = _ensure_index(calls, make=new is not None)
                calls.load()
            return cls(calls, manifest, nlist=nlist, collection_id=collection_id)
        except BaseException:
            calls.close()
            raise

    def add(self, items: Sequence[Item], packed_codes: np.ndarray, features: np.ndarray | None = None) -> None:
        """Add items, or replace those with the same ids."""
        items, packed_codes, features = engine.check_added(items, packed_codes, features, self.manifest)
        for item in items:
            if len(item.labels) > _MAX_LABELS:
                raise InputError(
                    f"{item.id!r:.200} can't be stored: expected at most {_MAX_LABELS:,} labels, got {len(item.labels):,}"
                )
        rows, size = list[dict[str, Any]](), 0
        self.refresh()
        for item, code, numbers in zip(items, packed_codes, features.tolist(), strict=True):
            row = {"id": item.id, "code": code.tobytes(), "labels": list(item.labels), "sha256": item.sha256}
            rows.append({**row, "features": numbers} if self.manifest.features else row)
            size += sum(4 * len(text) for text in (item.id, *item.labels)) + 4 * len(numbers)  # bytes, at most
            if len(rows) == _ROWS_PER_CALL or size >= _BYTES_PER_CALL:
                self._calls("upsert", data=rows)
                rows, size = [], 0
        if rows:
            self._calls("upsert", data=rows)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete items by id."""
        self.refresh()
        existing = list(self.find(ids))
        self._see_all = True
        for start in range(0, len(existing), _IDS_PER_CALL):
            self._calls("delete", filter=one_of("id", existing[start : start + _IDS_PER_CALL]))
        return len(existing)

    def search(self, packed_codes: np.ndarray, *, k: int, radius: int | None = None, where: Filter | None = None) -> Hits:
        """Find the k nearest items of each query, at most 16,384. With `nprobe` below `nlist` some may be missed."""
        query = engine.check_search(packed_codes, self.manifest, k=k, radius=radius)
        consistency = self._consistency()  # before a filter asks the server
        expression = self._expression(where)
        if k > _MAX_K:
            k = min(k, self._count(expression, consistency=consistency))
            if k > _MAX_K:
                raise InputError(
                    f"k={k:,}: a Milvus server returns at most {_MAX_K:,} items per query; fix: lower k, or give a filter"
                )
        k = max(1, int(k))
        nprobe = {} if self._nlist is None else {"nprobe": min(self._calls.address.nprobe or self._nlist, self._nlist)}

        def ask(codes: np.ndarray) -> list[Any]:
            hits = self._calls(
                "search",
                data=[code.tobytes() for code in codes],
                anns_field="code",
                limit=k,
                filter=expression,
                output_fields=_ITEM[1:],
                search_params={"metric_type": "HAMMING", "params": nprobe},
                consistency_level=consistency,
            )
            self._see_all = False
            with understood(self._calls.address):
                return [list(row) for row, _ in zip(hits, codes, strict=True)]

        step, rows = max(1, min(_QUERIES_PER_CALL, _MAX_HITS // k)), list[Any]()
        for start in range(0, len(query), step):
            rows += _ask_in_parts(ask, query[start : start + step])
        columns = max(map(len, rows)) if rows else min(k, self._count(expression, consistency=consistency))
        return self._to_result(rows, radius=radius, columns=columns)

    def _to_result(self, rows: Sequence[Sequence[Any]], *, radius: int | None, columns: int) -> Hits:
        """Order the hits by distance and key, where a key is the rank of the item's id among all hits."""
        with understood(self._calls.address):
            by_id = {hit["id"]: _to_item(hit["id"], hit["entity"]) for hits in rows for hit in hits}
            self._hits = [by_id[name] for name in sorted(by_id)]
            key_of = {item.id: key for key, item in enumerate(self._hits)}
            shape = (len(rows), columns)
            distances, keys = np.full(shape, np.iinfo(np.int32).max, np.int32), np.full(shape, NOTHING, np.int64)
            for row, hits in enumerate(rows):
                distances[row, : len(hits)] = [round(hit["distance"]) for hit in hits]
                keys[row, : len(hits)] = [key_of[hit["id"]] for hit in hits]
            if (distances < 0).any():
                raise ValueError("a distance below 0")
        return engine.rank(distances, keys, radius=radius)

    def items(self, keys: Sequence[int] | np.ndarray) -> list[Item]:
        """Return the items of keys of the last search."""
        return [self._hits[key] for key in engine.check_keys(keys, count=len(self._hits)).tolist()]

    def features(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the compressed features of keys of the last search."""
        ids = [item.id for item in self.items(keys)]
        width, found, wanted = self.manifest.features, dict[str, np.ndarray](), list(dict.fromkeys(ids))
        if not width or not ids:
            return np.zeros((len(ids), width), np.int8)
        consistency = self._consistency()

        def ask(some: Sequence[str]) -> list[dict[str, Any]]:
            return self._query(one_of("id", some), fields=["id", "features"], consistency=consistency)

        for start in range(0, len(wanted), _IDS_PER_CALL):
            rows = _ask_in_parts(ask, wanted[start : start + _IDS_PER_CALL])
            with understood(self._calls.address):
                found.update((row["id"], _to_features([row], width)[0]) for row in rows)
        nothing = np.zeros(width, np.int8)  # of an item that another process has removed meanwhile
        return np.stack([found.get(name, nothing) for name in ids])

    def find(self, ids: Sequence[str]) -> dict[str, Item]:
        """Return the items with these ids, by id."""
        wanted, items, consistency = list(dict.fromkeys(ids)), dict[str, Item](), self._consistency()

        def ask(some: Sequence[str]) -> list[dict[str, Any]]:
            return self._query(one_of("id", some), fields=_ITEM, consistency=consistency)

        for start in range(0, len(wanted), _IDS_PER_CALL):
            rows = _ask_in_parts(ask, wanted[start : start + _IDS_PER_CALL])
            with understood(self._calls.address):
                items.update((row["id"], _to_item(row["id"], row)) for row in rows)
        return items

    def stored(self, *, ids: Sequence[str] = (), hashes: Sequence[str] = ()) -> Batch:
        """Return the items with these ids, or with contents of these SHA-256, with codes and features."""
        field, wanted = ("id", list(dict.fromkeys(ids))) if ids else ("sha256", list(dict.fromkeys(hashes)))
        parts = (wanted[start : start + _IDS_PER_CALL] for start in range(0, len(wanted), _IDS_PER_CALL))
        return engine.joined((batch for part in parts for batch in self._batches(one_of(field, part))), self.manifest)

    def content_hashes(self) -> Iterator[str]:
        """Yield the SHA-256 of each item's content."""
        for rows in self._pages("", fields=["id", "sha256"]):
            yield from (row["sha256"] for row in rows)

    def ids(self, *, prefix: str = "", where: Filter | None = None) -> Iterator[str]:
        """Yield the ids that begin with `prefix` and pass a filter, in order."""
        conditions = [part for part in (id_starts_with(prefix), self._expression(where)) if part]
        for rows in self._pages(" and ".join(f"({part})" for part in conditions), fields=["id"]):
            yield from (row["id"] for row in rows)

    def scan(self) -> Iterator[Batch]:
        """Yield all items with their codes and features."""
        return self._batches("")

    def _batches(self, expression: str) -> Iterator[Batch]:
        width = self.manifest.features
        for rows in self._pages(expression, fields=[*_ITEM, "code", *(["features"] if width else [])]):
            with understood(self._calls.address):
                packed = b"".join(row["code"][0] for row in rows)
                items = [_to_item(row["id"], row) for row in rows]
                codes = np.frombuffer(packed, np.uint8).reshape(len(rows), self.manifest.width)
                features = _to_features(rows, width)
            yield Batch(items, codes, features)

    def count(self, *, where: Filter | None = None) -> int:
        """Return the number of items, or of those that `where` selects."""
        consistency = self._consistency()
        return self._count(self._expression(where), consistency=consistency)

    def refresh(self) -> None:
        """Reload changes made by other processes."""
        self._compare()
        self._see_all = True

    def _compare(self) -> None:
        """Check that there is still an index of the same codes; open what was put in its place."""
        if not self._calls("has_collection"):
            raise no_index(self.location)
        manifest, collection_id = _read_manifest(self._calls)
        engine.check_replaced(self, manifest)
        if collection_id != self._collection_id:
            self._nlist = _ensure_index(self._calls, make=False)
            self._calls.load()
            self._see_all = True
        self.manifest, self._collection_id = manifest, collection_id
        self._compared = time.monotonic()

    def close(self) -> None:
        """End the connection."""
        self._calls.close()

    def _consistency(self) -> str:
        """Return Milvus's consistency level for the next question, the same for all its parts.

        Strong waits until the server has seen everything that was stored, about 0.2 s; Bounded may lag by seconds.
        """
        if time.monotonic() > self._compared + _COMPARED_EVERY:
            self._compare()
        return "Strong" if self._see_all else "Bounded"

    def _query(self, expression: str, *, fields: list[str], consistency: str, **arguments: Any) -> list[dict[str, Any]]:
        rows = self._calls("query", filter=expression, output_fields=fields, consistency_level=consistency, **arguments)
        self._see_all = False
        return list(rows)

    def _count(self, expression: str, *, consistency: str) -> int:
        rows = self._query(expression, fields=["count(*)"], consistency=consistency)
        with understood(self._calls.address):
            return int(rows[0]["count(*)"])

    def _pages(self, expression: str, *, fields: list[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield rows in the order of their ids, as many as one answer holds."""
        last, size, consistency = "", _PAGE, self._consistency()
        while True:
            after = f"id > {quote(last)}"
            try:
                rows = self._query(
                    f"{expression} and {after}" if expression else after,
                    fields=fields,
                    consistency=consistency,
                    limit=size,
                    reduce_stop_for_best=True,
                )
            except TooLargeError:
                if size == 1:
                    raise
                size = -(-size // 2)
                continue
            if not rows:
                return
            with understood(self._calls.address):
                if not all(row["id"] > last for row in rows):
                    raise ValueError("ids that weren't asked for")  # which would come again and again
                last = max(row["id"] for row in rows)
            yield rows

    def _expression(self, where: Filter | None) -> str:
        if where is None:
            return ""
        return Translator(
            count=lambda expression: self._count(expression, consistency=self._consistency()),
            ids=lambda prefix: self.ids(prefix=prefix),
        ).translate(where)


def _ask_in_parts(ask: Callable[[Any], list[Any]], questions: Any) -> list[Any]:
    """Join the answers to a sequence of questions, asked at once, or in halves if that is too large for the server."""
    try:
        return ask(questions)
    except TooLargeError:
        if len(questions) == 1:
            raise
        half = len(questions) // 2
        return _ask_in_parts(ask, questions[:half]) + _ask_in_parts(ask, questions[half:])


def _read_manifest(calls: Calls) -> tuple[Manifest, Any]:
    """Read the manifest in a collection's description, check its fields, and return it with the collection's number."""
    location, collection = calls.address.location, calls("describe_collection")
    try:
        content = json.loads(collection["description"] or "null")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{location} is not an index of this library; fix: give the name of another collection")
    manifest = Manifest.from_dict(content, location=location)
    if _columns(collection["fields"]) != _columns(_schema(manifest).to_dict()["fields"]):
        raise InputError(f"{location} has other columns than an index, of another version; fix: encode into a new one")
    return manifest, collection.get("collection_id")


def _ensure_index(calls: Calls, *, make: bool) -> int | None:
    """Make Milvus's index of the codes if there is none; return its `nlist`, None for BIN_FLAT."""
    wanted, names = calls.address.nlist, calls("list_indexes", field_name="code")
    if not names and not make:
        raise InputError(f"{calls.address.location} is incomplete; fix: repeat the command that began to make it")
    if not names:
        kind, parameters = ("BIN_FLAT", {}) if wanted is None else ("BIN_IVF_FLAT", {"params": {"nlist": wanted}})
        kinds = MilvusClient.prepare_index_params()
        kinds.add_index("code", index_type=kind, metric_type="HAMMING", **parameters)
        calls("create_index", index_params=kinds, sync=False)
        names = calls("list_indexes", field_name="code")
    made = calls("describe_index", index_name=names[0])
    with understood(calls.address):
        nlist = int(made["nlist"]) if made.get("index_type") == "BIN_IVF_FLAT" else None
    if wanted is not None and wanted != nlist:
        kind = f"nlist={nlist}" if nlist else "BIN_FLAT"
        raise InputError(f"{calls.address.location} was made with {kind}, got nlist={wanted}; fix: leave nlist out")
    return nlist


def _schema(manifest: Manifest) -> Any:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=json.dumps(manifest.to_dict()))
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=engine.MAX_TEXT)
    schema.add_field("code", DataType.BINARY_VECTOR, dim=8 * manifest.width)
    schema.add_field(
        "labels", DataType.ARRAY, element_type=DataType.VARCHAR, max_length=engine.MAX_TEXT, max_capacity=_MAX_LABELS
    )
    schema.add_field("sha256", DataType.VARCHAR, max_length=64)
    if manifest.features:
        schema.add_field("features", DataType.ARRAY, element_type=DataType.INT8, max_capacity=manifest.features)
    return schema


def _columns(fields: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return what must be the same of each field."""
    limits = [(field["params"].get("dim"), field["params"].get("max_length")) for field in fields]
    return {f["name"]: (f["type"], f.get("is_primary", False), *limit) for f, limit in zip(fields, limits, strict=True)}


def _to_features(rows: Sequence[Any], width: int) -> np.ndarray:
    """Return the features of rows, int8[n, width]."""
    if not width:
        return np.zeros((len(rows), 0), np.int8)
    numbers = np.array([row["features"] for row in rows], np.int64).reshape(-1, width)
    if not (np.abs(numbers) <= 128).all():
        raise ValueError("features that aren't int8")
    return numbers.astype(np.int8)


def _to_item(name: str, row: Any) -> Item:
    return Item(name, tuple(row["labels"]), row["sha256"])
