"""Copy an index to another location, between any engines, and compare the two item by item."""

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.index import own_model
from adsq_jax.index.engine import Batch, CodeIndex, Item, check_model
from adsq_jax.index.opening import create, open_index
from adsq_jax.run.progress import reporting

_BATCH = 50_000  # items per call of `add`; each batch is stored before the next
_DIGEST = 16  # bytes of the hash of an item and its code


class Copied(NamedTuple):
    """Numbers of items after a copy."""

    added: int  # new in the target, or changed there
    unchanged: int  # in the target already
    others: int  # that only the target has


def copy(
    source: str | Path | CodeIndex, target: str | Path | CodeIndex, *, on_progress: Callable[[int], Any] | None = None
) -> Copied:
    """Copy the items that the target doesn't have yet, then compare every item's id, labels, hash, code and features.

    The model that a source keeps in its folder goes with it to a new index in a folder.

    A copy that was interrupted continues when it is called again. Takes about 100 bytes of memory per item.

    Args:
      source: the location of an index, or an open one.
      target: the location of another index, made if there is none, or an open one. It must hold codes of the same model.
      on_progress: called with the number of items done since the last call; None shows a progress bar.

    Returns:
      How many items were added, were there already, and are in the target alone.

    Raises:
      InputError: an index can't be opened or written, they hold codes of different models, or they differ after the copy
        because another process writes to one of them.

    Source: this project.
    """
    with contextlib.ExitStack() as stack:
        opened = source if isinstance(source, CodeIndex) else stack.enter_context(open_index(source))
        copied = target if isinstance(target, CodeIndex) else stack.enter_context(create_for_copy(target, opened))
        if opened.location == copied.location:
            raise InputError(f"{opened.location} can't be copied to itself; fix: give another location")
        check_model(copied, opened.manifest)
        if copied.manifest.features != opened.manifest.features:
            raise InputError(
                f"{opened.location} has features of {opened.manifest.features} numbers an item, and {copied.location} of "
                f"{copied.manifest.features}; fix: copy to a new index"
            )
        report = stack.enter_context(reporting(on_progress, opened.count(), unit="items"))
        return _copy(opened, copied, on_progress=report)


def create_for_copy(target: str | Path, source: CodeIndex) -> CodeIndex:
    """Open an index to copy another one to; if it is new and in a folder, it gets the model that the other one keeps.

    Raises:
      InputError: as `create`, or the model can't be read.
    """
    return create(target, source.manifest, model=None if "://" in str(target) else own_model.read(source))


def _copy(source: CodeIndex, target: CodeIndex, *, on_progress: Callable[[int], Any]) -> Copied:
    before, digests, added = _all_digests(target), [np.zeros(0, f"S{_DIGEST}")], 0
    for items, codes, features in _batches(source):
        digests.append(_digests(Batch(items, codes, features)))
        new = np.flatnonzero(~_contained(digests[-1], before))
        if len(new):
            target.add([items[row] for row in new], codes[new], features[new])
        added += len(new)
        on_progress(len(items))
    source.refresh()
    target.refresh()
    after, wanted = _all_digests(target), np.concatenate(digests)
    missing = int((~_contained(wanted, after)).sum()) + abs(source.count() - len(wanted))
    if missing:
        raise InputError(
            f"{missing:,} of {len(wanted):,} items differ between the index and its copy; fix: wait until no other process "
            "writes to one of the two, and give the same command again"
        )
    return Copied(added=added, unchanged=len(wanted) - added, others=len(after) - len(wanted))


def _batches(source: CodeIndex) -> Iterator[Batch]:
    """Yield all items of an index in batches of at least `_BATCH`, and the rest."""
    several = list[Batch]()
    for some in source.scan():
        several.append(some)
        if sum(len(batch.items) for batch in several) >= _BATCH:
            yield _joined(several)
            several = []
    if several:
        yield _joined(several)


def _joined(several: Sequence[Batch]) -> Batch:
    items, codes, features = zip(*several, strict=True)
    return Batch(list(itertools.chain(*items)), np.concatenate(codes), np.concatenate(features))


def _all_digests(opened: CodeIndex) -> np.ndarray:
    """Return the digests of all items of an index, sorted."""
    return np.sort(np.concatenate([np.zeros(0, f"S{_DIGEST}"), *map(_digests, opened.scan())]))


def _digests(batch: Batch) -> np.ndarray:
    """Return a hash of each item with its code and features, bytes[n]."""

    def digest(item: Item, numbers: bytes) -> bytes:
        texts = (item.id, item.sha256, str(len(item.labels)), *item.labels)  # without null characters
        return hashlib.blake2b("\0".join(texts).encode() + b"\0" + numbers, digest_size=_DIGEST).digest()

    rows = zip(*batch, strict=True)
    return np.array([digest(item, code.tobytes() + numbers.tobytes()) for item, code, numbers in rows], f"S{_DIGEST}")


def _contained(digests: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Return which digests are among sorted ones, bool[n]."""
    if not len(ordered):
        return np.zeros(len(digests), bool)
    positions = np.minimum(np.searchsorted(ordered, digests), len(ordered) - 1)
    return ordered[positions] == digests
