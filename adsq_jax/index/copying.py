"""Copies an index to another place, whatever engines keep the two, and compares them item by item."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.index.protocol import CodeIndex, Item

_TOGETHER = 50_000  # items added at a time: each add is kept before the next
_MARK = 16  # bytes that stand for an item with its code


class Copied(NamedTuple):
    """What became of the items."""

    added: int  # new, or there in another form
    unchanged: int
    others: int  # that the target has beside them


def copy(source: CodeIndex, target: CodeIndex, *, on_progress: Callable[[int], Any]) -> Copied:
    """Adds to an index what another one has and it hasn't, and then makes sure of each item, its labels, hash and code.

    What is there already isn't sent again, so that a copy which was cut short goes on. Takes about 100 bytes of memory an item.

    Args:
      source: an open index.
      target: another one, of the same bits and model.
      on_progress: is called on the way with the number of items done since.

    Returns:
      How many items were added, and how many not.

    Raises:
      InputError: the target can't be written, or hasn't afterwards what the source had: something else writes to one of them.

    Source: this project.
    """
    before, wanted, added = _marks_of(target), [np.zeros(0, f"S{_MARK}")], 0
    for items, codes in _gathered(source):
        marks = _marks(items, codes)
        new = np.flatnonzero(~_among(marks, before))
        if len(new):
            target.add([items[row] for row in new], codes[new])
        wanted.append(marks)
        added += len(new)
        on_progress(len(items))
    source.refresh()
    target.refresh()
    after, marks = _marks_of(target), np.concatenate(wanted)
    missing = int((~_among(marks, after)).sum()) + abs(source.count() - len(marks))
    if missing:
        raise InputError(
            f"{missing:,} of {len(marks):,} items aren't in the copy as they were read: if something else writes to one of the "
            "two indexes, wait for it, and give the same command again"
        )
    return Copied(added=added, unchanged=len(marks) - added, others=len(after) - len(marks))


def _gathered(source: CodeIndex) -> Iterator[tuple[list[Item], np.ndarray]]:
    """All items of an index, as many at a time as are added."""
    items, codes = list[Item](), list[np.ndarray]()
    for some, packed in source.scan():
        items += some
        codes.append(packed)
        if len(items) >= _TOGETHER:
            yield items, np.concatenate(codes)
            items, codes = [], []
    if items:
        yield items, np.concatenate(codes)


def _marks_of(opened: CodeIndex) -> np.ndarray:
    """The marks of all items of an index, sorted, [n]."""
    return np.sort(np.concatenate([np.zeros(0, f"S{_MARK}"), *(_marks(*some) for some in opened.scan())]))


def _marks(items: Sequence[Item], codes: np.ndarray) -> np.ndarray:
    """A hash of each item with its code, [n]."""

    def mark(item: Item, code: bytes) -> bytes:
        texts = (item.id, item.sha256, str(len(item.labels)), *item.labels)  # none has a null in it
        return hashlib.blake2b("\0".join(texts).encode() + b"\0" + code, digest_size=_MARK).digest()

    return np.array([mark(item, code.tobytes()) for item, code in zip(items, codes, strict=True)], f"S{_MARK}")


def _among(marks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which marks are among others that are sorted, bool[n]."""
    if not len(others):
        return np.zeros(len(marks), bool)
    places = np.minimum(np.searchsorted(others, marks), len(others) - 1)
    return others[places] == marks
