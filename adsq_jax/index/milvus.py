"""An index on a Milvus server or cluster, through pymilvus. Beside `milvus_server.py` no other file knows of it."""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it tells of each attempt to connect
from pymilvus import DataType, MilvusClient

from adsq_jax.errors import InputError
from adsq_jax.index import filters
from adsq_jax.index.filters import Filter
from adsq_jax.index.milvus_server import Address, Calls, TooLargeError
from adsq_jax.index.protocol import MOST_ID, NOTHING, Found, Item, Manifest, check_codes, check_items, check_search

_FIELDS = ("id", "labels", "sha256")
_MOST_LABELS = 4_096  # of an item, Milvus's bound
_MOST_FOUND = 16_384  # items of one query, Milvus's bound
_HITS = 100_000  # in one answer
_QUERIES = 1_000  # in one question
_ROWS, _BYTES = 5_000, 1 << 22  # sent at once
_PAGE = 10_000  # rows asked for at once, fewer where they are long
_TOGETHER = 1_000  # ids in one question
_MOST_LISTED = 1_000_000  # paths that a pattern is compared with here
_MOST_NAMED = 100_000  # ids in one expression


class MilvusIndex:
    """See `protocol.CodeIndex`. Any number of processes may write; those of two that write the same id, the later one counts.

    After it is opened, refreshed or written through, it sees all that anybody was told is kept; later on what others write
    comes within some seconds.
    """

    def __init__(self, calls: Calls, manifest: Manifest, *, lists: int | None):
        """Takes what `create` and `open` have found out; lists: of BIN_IVF_FLAT."""
        self.manifest = manifest
        self._calls, self._lists = calls, lists
        self._found: list[Item] = []  # by the last search, in the order of their ids
        self._newest = True  # whether the next question must see all that was ever kept

    @classmethod
    def create(cls, place: str, manifest: Manifest) -> "MilvusIndex":
        """Opens an index for adding, and makes it where there is none.

        Raises:
          InputError: see `places.create`.
        """
        calls = Calls(Address.of(place))
        try:
            if not calls("has_collection"):
                calls("create_collection", schema=_schema(manifest))
            return cls._ready(calls, wanted=manifest)
        except BaseException:
            calls.close()
            raise

    @classmethod
    def open(cls, place: str) -> "MilvusIndex":
        """Opens an index.

        Raises:
          InputError: see `places.open_index`.
        """
        calls = Calls(Address.of(place))
        try:
            if not calls("has_collection"):
                raise InputError(f"{place} holds no index: make one with adsq_jax.encode, or give another collection")
            return cls._ready(calls, wanted=None)
        except BaseException:
            calls.close()
            raise

    @classmethod
    def _ready(cls, calls: Calls, *, wanted: Manifest | None) -> "MilvusIndex":
        """An index that is loaded; making one may have been cut short at any point before."""
        place, kept = calls.address.place, calls("describe_collection")
        try:
            content = json.loads(kept["description"] or "null")
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise InputError(f"{place} is no index of this library: give the name of another collection")
        manifest = Manifest.of_dict(content, place=place)
        if _columns(kept["fields"]) != _columns(_schema(manifest).to_dict()["fields"]):
            raise InputError(f"{place} has other columns than an index: it was made by another version; encode into a new one")
        if wanted is None or (wanted.bits, wanted.model_sha256) == (manifest.bits, manifest.model_sha256):
            lists = _indexed(calls, make=wanted is not None)
            calls.load()
        else:
            lists = None  # whoever asked will refuse it
        return cls(calls, manifest, lists=lists)

    def add(self, items: Sequence[Item], packed_codes: np.ndarray) -> None:
        """See `CodeIndex.add`."""
        packed_codes = check_codes(packed_codes, self.manifest)
        check_items(items, codes=len(packed_codes))
        for item in items:
            if len(item.labels) > _MOST_LABELS:
                raise InputError(
                    f"{item.id!r:.200} can't be kept: it has {len(item.labels):,} labels; at most {_MOST_LABELS:,} fit"
                )
        last = {item.id: row for row, item in enumerate(items)}  # of two with one id the last
        rows, size = list[dict[str, Any]](), 0
        self._newest = True
        for row in last.values():
            item, code = items[row], packed_codes[row].tobytes()
            rows.append({"id": item.id, "code": code, "labels": list(item.labels), "sha256": item.sha256})
            size += sum(4 * len(text) for text in (item.id, *item.labels))  # bytes at most
            if len(rows) == _ROWS or size >= _BYTES:
                self._calls("upsert", data=rows)
                rows, size = [], 0
        if rows:
            self._calls("upsert", data=rows)

    def delete(self, ids: Sequence[str]) -> int:
        """See `CodeIndex.delete`."""
        self.refresh()
        there = list(self.find(ids))
        self._newest = True
        for start in range(0, len(there), _TOGETHER):
            self._calls("delete", filter=_among(there[start : start + _TOGETHER]))
        return len(there)

    def search(self, packed_codes: np.ndarray, *, k: int, radius: int | None = None, where: Filter | None = None) -> Found:
        """See `CodeIndex.search`; at most 16,384 items a query. With `nprobe` below `nlist` some may be missed."""
        query = check_codes(packed_codes, self.manifest)
        check_search(k, radius)
        level = self._level()  # before a filter asks questions of its own
        expression = self._expression(where)
        if k > _MOST_FOUND:
            k = min(int(k), self._count(expression, level=level))
            if k > _MOST_FOUND:
                raise InputError(
                    f"k={k:,}: a Milvus server finds at most {_MOST_FOUND:,} items of a query; give less, or a filter"
                )
        k = max(1, int(k))
        step = max(1, min(_QUERIES, _HITS // k))
        rows: list[Any] = []
        for start in range(0, len(query), step):
            rows += self._nearest(query[start : start + step], k=k, expression=expression, level=level)
        columns = max(map(len, rows)) if rows else min(k, self._count(expression, level=level))
        return self._sorted(rows, radius=radius, columns=columns)

    def _nearest(self, query: np.ndarray, *, k: int, expression: str, level: str) -> list[list[Any]]:
        """Of each query what the server found."""
        try:
            found = self._calls(
                "search",
                data=[code.tobytes() for code in query],
                anns_field="code",
                limit=k,
                filter=expression,
                output_fields=list(_FIELDS[1:]),
                search_params={"metric_type": "HAMMING", "params": self._probed()},
                consistency_level=level,
            )
        except TooLargeError:
            if len(query) == 1:
                raise
            half = len(query) // 2
            parts = (self._nearest(part, k=k, expression=expression, level=level) for part in (query[:half], query[half:]))
            return [hits for part in parts for hits in part]
        self._newest = False
        return [list(hits) for hits in found]

    def _probed(self) -> dict[str, int]:
        if self._lists is None:
            return {}
        return {"nprobe": min(self._calls.address.nprobe or self._lists, self._lists)}

    def _sorted(self, rows: Sequence[Sequence[Any]], *, radius: int | None, columns: int) -> Found:
        """Hits by (distance, key); a key is the place of an item among those that the search found, in order of ids."""
        by_id = {hit["id"]: _item(hit["id"], hit["entity"]) for hits in rows for hit in hits}
        self._found = [by_id[name] for name in sorted(by_id)]
        places = {item.id: place for place, item in enumerate(self._found)}
        shape = (len(rows), columns)
        distances, keys = np.full(shape, np.iinfo(np.int32).max, np.int32), np.full(shape, NOTHING, np.int64)
        for row, hits in enumerate(rows):
            distances[row, : len(hits)] = [round(hit["distance"]) for hit in hits]
            keys[row, : len(hits)] = [places[hit["id"]] for hit in hits]
        order = np.lexsort((keys, distances))
        distances, keys = np.take_along_axis(distances, order, axis=1), np.take_along_axis(keys, order, axis=1)
        beyond = keys == NOTHING if radius is None else (keys == NOTHING) | (distances > radius)
        distances[beyond], keys[beyond] = NOTHING, NOTHING
        return Found(distances, keys)

    def items(self, keys: Sequence[int] | np.ndarray) -> list[Item]:
        """See `CodeIndex.items`."""
        wanted = np.asarray(keys, np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self._found)):
            raise InputError(f"a key of {wanted.min()} to {wanted.max()} is none of this index: take keys of its last search")
        return [self._found[key] for key in wanted.tolist()]

    def find(self, ids: Sequence[str]) -> dict[str, Item]:
        """See `CodeIndex.find`."""
        wanted, found, level = list(dict.fromkeys(ids)), dict[str, Item](), self._level()
        for start in range(0, len(wanted), _TOGETHER):
            for row in self._of_ids(wanted[start : start + _TOGETHER], level=level):
                found[row["id"]] = _item(row["id"], row)
        return found

    def _of_ids(self, ids: Sequence[str], *, level: str) -> list[dict[str, Any]]:
        try:
            return self._asked(_among(ids), fields=_FIELDS, level=level)
        except TooLargeError:
            if len(ids) == 1:
                raise
            half = len(ids) // 2
            return self._of_ids(ids[:half], level=level) + self._of_ids(ids[half:], level=level)

    def ids(self, *, prefix: str = "") -> Iterator[str]:
        """See `CodeIndex.ids`."""
        for rows in self._pages(_beginning(prefix), fields=["id"]):
            yield from (row["id"] for row in rows)

    def scan(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        """See `CodeIndex.scan`."""
        for rows in self._pages("", fields=[*_FIELDS, "code"]):
            packed = b"".join(row["code"][0] for row in rows)
            items = [_item(row["id"], row) for row in rows]
            yield items, np.frombuffer(packed, np.uint8).reshape(len(rows), self.manifest.width)

    def count(self, *, where: Filter | None = None) -> int:
        """See `CodeIndex.count`."""
        level = self._level()
        return self._count(self._expression(where), level=level)

    def refresh(self) -> None:
        """See `CodeIndex.refresh`."""
        self._newest = True

    def close(self) -> None:
        """See `CodeIndex.close`."""
        self._calls.close()

    def __enter__(self) -> "MilvusIndex":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _level(self) -> str:
        """The consistency of the answers that follow: the same for all parts of a question.

        Strong waits until a server has seen all that was kept, a fifth of a second or so; Bounded may lag behind by seconds.
        """
        return "Strong" if self._newest else "Bounded"

    def _asked(self, expression: str, *, fields: Sequence[str], level: str, **arguments: Any) -> list[dict[str, Any]]:
        found = self._calls("query", filter=expression, output_fields=list(fields), consistency_level=level, **arguments)
        self._newest = False
        return list(found)

    def _count(self, expression: str, *, level: str) -> int:
        return int(self._asked(expression, fields=["count(*)"], level=level)[0]["count(*)"])

    def _pages(self, expression: str, *, fields: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Rows in the order of their ids, as many at a time as one answer holds."""
        last, size, level = "", _PAGE, self._level()
        while True:
            beyond = f"id > {_quoted(last)}"
            try:
                wanted = f"{expression} and {beyond}" if expression else beyond
                rows = self._asked(wanted, fields=fields, level=level, limit=size, reduce_stop_for_best=True)
            except TooLargeError:
                if size == 1:
                    raise
                size = -(-size // 2)
                continue
            if not rows:
                return
            last = max(row["id"] for row in rows)
            yield rows

    def _expression(self, where: Filter | None) -> str:
        """A filter as Milvus's expression."""
        match where:
            case None:
                return ""
            case filters.Label(name):
                return f"array_contains(labels, {_quoted(name)})"
            case filters.Path() as path:
                return self._of_path(path)
            case filters.Not(of):
                return f"(not {self._expression(of)})"
            case filters.Every(several):
                return "(" + " and ".join(map(self._expression, several)) + ")"
            case filters.Either(several):
                return "(" + " or ".join(map(self._expression, several)) + ")"

    def _of_path(self, path: filters.Path) -> str:
        first, *more = path.parts
        if not more:
            return f"(id == {_quoted(first)})"
        below = _beginning(first)
        if not any(more):
            return below or '(id != "")'
        # Milvus 2.3 knows only the beginnings of texts, so what lies below is compared here.
        count = self._count(below, level=self._level())
        if count > _MOST_LISTED:
            raise InputError(
                f"path={path.pattern} is compared path by path, and {count:,} begin as it does: at most {_MOST_LISTED:,} may; "
                "write more before its first *, or use label="
            )
        form = re.compile("(?s)" + ".*".join(map(re.escape, path.parts)))
        there, others = list[str](), list[str]()
        for name in self.ids(prefix=first):
            (there if form.fullmatch(name) else others).append(name)
        named = min(there, others, key=len)
        if len(named) > _MOST_NAMED:
            raise InputError(
                f"path={path.pattern} lets {len(there):,} items through and keeps {len(others):,} out: one of both may be at "
                f"most {_MOST_NAMED:,}; write more before its first *, or use label="
            )
        if named is there:
            return f"({_among(there)})" if there else '(id == "")'
        everything = below or '(id != "")'
        return f"({everything} and not ({_among(others)}))" if others else everything


def _indexed(calls: Calls, *, make: bool) -> int | None:
    """Sees to it that the codes have an index; the lists of BIN_IVF_FLAT, None for BIN_FLAT."""
    wanted, names = calls.address.nlist, calls("list_indexes", field_name="code")
    if not names and not make:
        raise InputError(f"{calls.address.place} was not made to its end: give the command again that began it")
    if not names:
        kinds = MilvusClient.prepare_index_params()
        if wanted is None:
            kinds.add_index("code", index_type="BIN_FLAT", metric_type="HAMMING")
        else:
            kinds.add_index("code", index_type="BIN_IVF_FLAT", metric_type="HAMMING", params={"nlist": wanted})
        calls("create_index", index_params=kinds, sync=False)
        names = calls("list_indexes", field_name="code")
    kept = calls("describe_index", index_name=names[0])
    lists = int(kept["nlist"]) if kept.get("index_type") == "BIN_IVF_FLAT" else None
    if wanted is not None and wanted != lists:
        raise InputError(f"{calls.address.place} was made with {f'nlist={lists}' if lists else 'BIN_FLAT'}: leave nlist out")
    return lists


def _schema(manifest: Manifest) -> Any:
    kept = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=json.dumps(manifest.as_dict()))
    kept.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MOST_ID)
    kept.add_field("code", DataType.BINARY_VECTOR, dim=8 * manifest.width)
    kept.add_field("labels", DataType.ARRAY, element_type=DataType.VARCHAR, max_length=MOST_ID, max_capacity=_MOST_LABELS)
    kept.add_field("sha256", DataType.VARCHAR, max_length=64)
    return kept


def _columns(fields: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """What of columns must be the same."""
    return {
        field["name"]: (
            field["type"],
            field["params"].get("dim"),
            field["params"].get("max_length"),
            field.get("is_primary", False),
        )
        for field in fields
    }


def _item(name: str, row: Any) -> Item:
    return Item(name, tuple(row["labels"]), row["sha256"])


def _among(ids: Sequence[str]) -> str:
    return f"id in [{', '.join(map(_quoted, ids))}]"


def _beginning(prefix: str) -> str:
    """Ids that begin so: Milvus orders texts by their bytes, which UTF-8 orders as their characters. Empty for all."""
    kept = prefix.rstrip(chr(sys.maxunicode))
    if not kept:
        return f"(id >= {_quoted(prefix)})" if prefix else ""
    following = ord(kept[-1]) + 1
    end = kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # between them are surrogates, which UTF-8 has not
    return f"(id >= {_quoted(prefix)} and id < {_quoted(end)})"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
