"""Look into an index, remove items from it, and follow pictures that were moved to another folder."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.index import filters, own_model, roots
from adsq_jax.index.engine import CodeIndex, Item
from adsq_jax.index.opening import opened as opened_index

_BATCH = 5_000  # items that are moved at a time


class Info(NamedTuple):
    """What an index holds. `model_sha256` is the hash of the model that made the codes; "" if unknown."""

    location: str  # its folder, or its address on a server
    items: int  # how many it holds
    bits: int  # the code length
    features: int  # numbers of an item; 0: it is searched by codes alone
    model: str  # where its model is, if the index keeps it, else where it was when the index was made; "" if unknown
    model_sha256: str
    size: int | None  # bytes on the disk; None for an index on a server
    labels: dict[str, int]  # the number of items with each label, the most frequent first
    folders: tuple[str, ...]  # that it was filled from; none for an index on a server


def info(index: str | Path | CodeIndex) -> Info:
    """Look into an index; its labels are counted, which reads all items.

    Args:
      index: the location of an index, or an open one.

    Returns:
      What it holds.

    Raises:
      InputError: there is none, or it is damaged.

    Source: this project.
    """
    with opened_index(index) as opened:
        counts = Counter(label for batch in opened.scan() for item in batch.items for label in item.labels)
        labels = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
        size = None if "://" in opened.location else _size(opened.location)
        manifest = opened.manifest
        model = os.path.join(opened.location, own_model.FOLDER) if own_model.is_in(opened) else manifest.model
        return Info(
            opened.location,
            opened.count(),
            manifest.bits,
            manifest.features,
            model,
            manifest.model_sha256,
            size,
            labels,
            roots.read(opened),
        )


def remove(index: str | Path | CodeIndex, what: str, *, allow_all: bool = False) -> int:
    """Remove items from an index; their pictures stay where they are.

    Args:
      index: the location of an index, or an open one.
      what: a folder or a picture, from / or ~ on, in an object store, or `tfds:NAME`; or a filter, as `label=cat`.
      allow_all: whether all items of the index may be removed.

    Returns:
      The number of items that were removed.

    Raises:
      InputError: `what` is neither a place nor a filter; nothing matches it; everything does and `allow_all` isn't given; or
        the index can't be written.

    Source: this project.
    """
    if not _is_place(what) and "=" not in what:
        raise InputError(
            f"expected the absolute path of a folder or picture, or a filter, got {what!r:.200}; fix: give the path from / on, "
            "or label=NAME"
        )
    with opened_index(index) as opened:
        opened.refresh()
        ids = list(_below(opened, _place(what)) if _is_place(what) else opened.ids(where=filters.parse(what)))
        if not ids:
            raise InputError(f"nothing in {opened.location} matches {what!r:.200}; fix: give a folder from / on, or a filter")
        if len(ids) == opened.count() and not allow_all:
            raise InputError(f"{what!r:.200} matches all {len(ids):,} items of {opened.location}; fix: --all, if you mean it")
        return opened.delete(ids)


def move(index: str | Path | CodeIndex, old: str, new: str) -> int:
    """Give items the places to which their pictures were moved. An interrupted move continues when it is called again.

    Args:
      index: the location of an index, or an open one.
      old: the folder or picture of before, an absolute path.
      new: where it is now; of a picture, its new path, or a folder that ends with /.

    Returns:
      The number of items that were moved.

    Raises:
      InputError: nothing is below the old folder, the index has other pictures at the new place, or it can't be written. In
        the first two cases nothing has changed.

    Source: this project.
    """
    for place in (old, new):
        if not _is_place(place) or place.startswith("tfds:"):
            raise InputError(f"expected the absolute path of a folder or picture, got {place!r:.200}; fix: give it from / on")
    before, after = _place(old), _place(new)
    if after == before or _is_below(after, before) or _is_below(before, after):
        raise InputError(f"{old!r:.200} and {new!r:.200} are one in the other; fix: move to another folder")
    with opened_index(index) as opened:
        opened.refresh()
        ids = list(_below(opened, before))
        if not ids:
            raise InputError(f"nothing in {opened.location} is below {before!r:.200}; fix: see adsq index info")
        is_picture = ids == [before]
        if is_picture and new.endswith("/"):
            after = f"{after}/{os.path.basename(before)}"
        wanted = {name: after + name.removeprefix(before) for name in ids}
        rows = _rows_to_move(opened, wanted)
        _record_root(opened, before=before, after=after, is_picture=is_picture)
        for start in range(0, len(rows), _BATCH):
            items, codes, features = zip(*rows[start : start + _BATCH], strict=True)
            opened.add([item._replace(id=wanted[item.id]) for item in items], np.stack(codes), np.stack(features))
        return opened.delete([item.id for item, _, _ in rows])


_Stored = tuple[Item, np.ndarray, np.ndarray]  # with code and features


def _rows_to_move(opened: CodeIndex, wanted: Mapping[str, str]) -> list[_Stored]:
    """Return the items with some ids; check that no new id is another picture's. A move that was cut short has left some."""
    rows, there, taken = list[_Stored](), dict[str, _Stored](), set(wanted.values())
    for batch in opened.scan():
        for row in zip(*batch, strict=True):
            if row[0].id in wanted:
                rows.append(row)
            elif row[0].id in taken:
                there[row[0].id] = row
    for item, *numbers in rows:
        other, *its_numbers = there.get(wanted[item.id], (None,))
        if other is not None and not (other == item._replace(id=other.id) and all(map(np.array_equal, numbers, its_numbers))):
            raise InputError(
                f"{opened.location} has another picture at {other.id!r:.200}; fix: remove it first, or move to another folder"
            )
    return rows


def _record_root(opened: CodeIndex, *, before: str, after: str, is_picture: bool) -> None:
    """Record where pictures are now, if the index knows the folder where they were."""
    for root in roots.read(opened):
        if root == f"{before}/" or _is_below(root, before):
            roots.record(opened, after + root.removeprefix(before))
        elif _is_below(before, root):
            roots.record(opened, f"{os.path.dirname(after) if is_picture else after}/")


def _below(opened: CodeIndex, place: str) -> Iterator[str]:
    """Yield the ids of a picture, or of all below a folder; /a/b is no part of /a/bc."""
    return (name for name in opened.ids(prefix=place) if name == place or _is_below(name, place))


def _is_below(name: str, place: str) -> bool:
    end = "#" if place.startswith("tfds:") else "/"  # /a#2 is no part of /a
    return name.startswith(place if place.endswith(end) else f"{place}{end}")


def _is_place(text: str) -> bool:
    return text.startswith(("/", "~", "tfds:")) or "://" in text.split("=")[0]


def _place(text: str) -> str:
    """Return a place as ids begin with it."""
    if not filters.is_text(text):
        raise InputError(f"{text!r:.200} isn't UTF-8, and an index holds nothing there; fix: give another place")
    if text.startswith("tfds:"):
        return text
    return text.rstrip("/") if "://" in text else storage.normal(storage.path(text))


def _size(folder: str) -> int:
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):  # a writer removes files while they are listed
            total += os.lstat(path).st_size
    return total
