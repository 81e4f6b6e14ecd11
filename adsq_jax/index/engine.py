"""The contract of an index, `CodeIndex`; what an index holds; the checks that all engines share.

To add an engine, write a class with the methods of `CodeIndex` beside embedded.py, and return it from `opening._engine`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from adsq_jax import codes
from adsq_jax.errors import InputError
from adsq_jax.index.filters import Filter, is_text

FORMAT = 1
NOTHING = -1  # distance and key in a row of results that has fewer than k items
MAX_FEATURES = 4_096  # numbers of an item
MAX_TEXT = 4_096  # bytes of an id or a label: the longest path on Linux


class Manifest(NamedTuple):
    """Which codes an index holds. Codes of another length or another model can't be compared with them."""

    bits: int  # 1 to 256
    model_sha256: str  # of the model that made the codes; "" for codes from elsewhere
    model: str = ""  # the folder of that model's run when the index was made; "" if unknown
    features: int = 0  # numbers of an item's compressed features, by which hits are ranked again; 0: it has none

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON values, to be stored with the codes."""
        fields = self._asdict()
        if not self.features:  # as before there were any
            del fields["features"]
        return {"format": FORMAT, "bit_order": codes.BIT_ORDER, **fields}

    @classmethod
    def from_dict(cls, content: Any, *, location: str) -> "Manifest":
        """Return the manifest of what `to_dict` returned; raise `InputError` if `content` is anything else."""
        if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("bit_order") != codes.BIT_ORDER:
            raise InputError(
                f"{location} is not an index of format {FORMAT}, but of another version; fix: encode into a new one"
            )
        bits, texts = content.get("bits"), {name: content.get(name) for name in ("model_sha256", "model")}
        numbers = content.get("features", 0)
        if type(bits) is not int or not 1 <= bits <= codes.MAX_BITS or not all(isinstance(x, str) for x in texts.values()):
            raise InputError(f"{location} has a damaged manifest; fix: encode into a new index")
        if type(numbers) is not int or not 0 <= numbers <= MAX_FEATURES:
            raise InputError(f"{location} has a damaged manifest; fix: encode into a new index")
        return cls(bits=bits, **{name: str(text) for name, text in texts.items()}, features=numbers)

    @property
    def width(self) -> int:
        """Bytes of a packed code."""
        return -(-self.bits // 8)


class Item(NamedTuple):
    """What an index stores beside a code."""

    id: str  # unique; for an image its path: not empty, at most MAX_TEXT bytes of UTF-8
    labels: tuple[str, ...] = ()  # names of its classes
    sha256: str = ""  # of the content, hexadecimal: shows whether that has changed


class Batch(NamedTuple):
    """Some items of an index, with all that it holds of them."""

    items: list[Item]  # n
    codes: np.ndarray  # uint8[n, ceil(bits / 8)]
    features: np.ndarray  # int8[n, Manifest.features], compressed; [n, 0] if the index has none


def joined(batches: Iterable[Batch], manifest: Manifest) -> Batch:
    """Return some batches of an index as one."""
    empty = Batch([], np.zeros((0, manifest.width), np.uint8), np.zeros((0, manifest.features), np.int8))
    items, codes, features = zip(empty, *batches, strict=True)
    return Batch([item for some in items for item in some], np.concatenate(codes), np.concatenate(features))


class Hits(NamedTuple):
    """The nearest items of each query, nearest first; at equal distances in the order of their keys."""

    distances: np.ndarray  # int32[n_query, k], in bits; NOTHING where there are fewer than k items
    keys: np.ndarray  # int64[n_query, k], for `CodeIndex.items`; NOTHING in the same places


@runtime_checkable
class CodeIndex(Protocol):
    """An open index. `index.create` and `index.open_index` return one; close it, or use it in a `with` statement."""

    manifest: Manifest  # which codes it holds
    location: str  # its folder, or its address on a server

    @classmethod
    def exists(cls, location: str) -> bool:
        """Return whether there is an index, whole or damaged."""

    @classmethod
    def create(cls, location: str, manifest: Manifest, *, model: Mapping[str, bytes] | None = None) -> "CodeIndex":
        """Open the index for adding; make it if there is none. `index.create` compares the manifests.

        `model`: the files of a model that a new index keeps; only one in a folder can.
        """

    @classmethod
    def open(cls, location: str) -> "CodeIndex":
        """Open the index."""

    def add(self, items: Sequence[Item], packed_codes: np.ndarray, features: np.ndarray | None = None) -> None:
        """Add items, or replace those with the same ids. They are stored safely when the call returns.

        Args:
          items: n items; if several have the same id, the last one counts.
          packed_codes: uint8[n, ceil(bits / 8)], little bit order, 1 = +1, padding zero.
          features: int8[n, Manifest.features], from `retrieval.features.compress`; None for an index without.

        Raises:
          InputError: the codes, features or items are invalid, or they can't be written: the disk is full, the server can't be
            reached, another process writes to an engine that allows one writer, or another index is in its place (see
            `refresh`). Items that were added before stay.
        """

    def delete(self, ids: Sequence[str]) -> int:
        """Delete items by id; ignore ids that the index doesn't hold.

        Returns:
          The number of deleted items.

        Raises:
          InputError: as `add`.
        """

    def search(self, packed_codes: np.ndarray, *, k: int, radius: int | None = None, where: Filter | None = None) -> Hits:
        """Find the k nearest items of each query, exactly. Ties at rank k break arbitrarily.

        Args:
          packed_codes: the codes of the queries, uint8[n_query, ceil(bits / 8)], as in `add`.
          k: the largest number of items per query, at least 1.
          radius: the largest distance in bits, at least 0; None for any.
          where: the items to search in; None for all.

        Returns:
          Distances and keys, with fewer than k columns if there are fewer items.

        Raises:
          InputError: the codes, k or radius are invalid, or the engine can't return so many or apply the filter.
        """

    def items(self, keys: Sequence[int] | np.ndarray) -> list[Item]:
        """Return the items of keys.

        Args:
          keys: from the last `search`, without NOTHING; valid until the next `add`, `delete` or `refresh`.

        Returns:
          One item per key, in the same order.

        Raises:
          InputError: a key is out of range.
        """

    def features(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the compressed features of keys.

        Args:
          keys: as for `items`.

        Returns:
          int8[n, Manifest.features], in the same order; of an index without features int8[n, 0].

        Raises:
          InputError: a key is out of range.
        """

    def find(self, ids: Sequence[str]) -> dict[str, Item]:
        """Return the items with these ids, by id; ids that the index doesn't hold are missing."""

    def stored(self, *, ids: Sequence[str] = (), hashes: Sequence[str] = ()) -> Batch:
        """Return the items with these ids, or with contents of these SHA-256, with codes and features, in any order."""

    def content_hashes(self) -> Iterator[str]:
        """Yield the SHA-256 of each item's content, in any order; "" for an item without."""

    def ids(self, *, prefix: str = "", where: Filter | None = None) -> Iterator[str]:
        """Yield the ids that begin with `prefix` and, if one is given, pass a filter, in any order."""

    def scan(self) -> Iterator[Batch]:
        """Yield all items with their codes and features, each once, in any order."""

    def count(self, *, where: Filter | None = None) -> int:
        """Return the number of items, or of those that `where` selects."""

    def refresh(self) -> None:
        """Reload changes made by other processes; your own are visible at once.

        Raises:
          InputError: the index is gone or damaged, or another one is in its place that holds other codes: see `check_replaced`.
            What was open stays as it was.
        """

    def close(self) -> None:
        """Release files, locks, memory and connections."""

    def __enter__(self) -> "CodeIndex":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def check_model(opened: CodeIndex, manifest: Manifest) -> None:
    """Check that an index holds codes of a model.

    Args:
      opened: the index.
      manifest: the manifest of the model's codes.

    Raises:
      InputError: the index holds codes of another length or another model.
    """
    theirs = opened.manifest
    if theirs.bits != manifest.bits:
        raise InputError(
            f"{opened.location} holds codes of {theirs.bits} bits, and these have {manifest.bits}; fix: give another index"
        )
    if theirs.model_sha256 != manifest.model_sha256:
        raise InputError(
            f"{opened.location} holds codes of another model ({theirs.model_sha256[:12] or 'from elsewhere'}), these are of "
            f"{manifest.model_sha256[:12]}: they can't be compared; fix: give that model, or another index"
        )


def check_replaced(opened: CodeIndex, manifest: Manifest) -> None:
    """Check that what lies at the location of an open index now holds codes of the same length and model.

    Args:
      opened: the index.
      manifest: that of the index which is there now.

    Raises:
      InputError: the index was replaced by one of other codes.
    """
    before = opened.manifest
    if manifest._replace(model="") != before._replace(model=""):
        was, now = (
            f"{m.bits} bits of model {m.model_sha256[:12] or 'from elsewhere'}{' with features' if m.features else ''}"
            for m in (before, manifest)
        )
        raise InputError(
            f"{opened.location} was replaced while it was open: it held codes of {was}, and holds codes of {now}; fix: open it "
            "again, with the model that made these codes"
        )


def check_codes(packed_codes: np.ndarray, manifest: Manifest) -> np.ndarray:
    """Check dtype, shape, length and zero padding of packed codes; return contiguous uint8[n, ceil(bits / 8)]."""
    array, bits = np.asarray(packed_codes), manifest.bits
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != manifest.width:
        raise InputError(
            f"the index holds codes of {bits} bits: expected packed codes, uint8[n, {manifest.width}], got "
            f"{array.dtype}{list(array.shape)}; fix: codes.pack packs codes of -1 and +1"
        )
    if bits % 8 and (array[:, -1] >> (bits % 8)).any():
        raise InputError(f"codes of {bits} bits have more than {bits} bits set; fix: pad with 0, in little bit order")
    return np.ascontiguousarray(array)


def check_features(features: np.ndarray | None, manifest: Manifest, *, count: int) -> np.ndarray:
    """Check dtype and shape of the compressed features of `count` items; return contiguous int8[n, Manifest.features]."""
    array = np.zeros((count, 0), np.int8) if features is None else np.asarray(features)
    if array.dtype != np.int8 or array.shape != (count, manifest.features):
        given = "none" if features is None else f"{array.dtype}{list(array.shape)}"
        raise InputError(
            f"the index holds features of {manifest.features} numbers an item: expected int8[{count}, {manifest.features}], "
            f"got {given}; fix: give those that the index's model computes, or none where it holds none"
        )
    return np.ascontiguousarray(array)


def check_added(items: Sequence[Item], packed_codes: np.ndarray, features: np.ndarray | None, manifest: Manifest) -> Batch:
    """Check the arguments of `add`; return them without items whose id occurs again later."""
    packed_codes = check_codes(packed_codes, manifest)
    checked_features = check_features(features, manifest, count=len(packed_codes))
    if len(items) != len(packed_codes):
        raise InputError(f"expected one item per code, got {len(items)} items and {len(packed_codes)} codes")
    for item in items:
        texts = (item.id, *item.labels)
        if isinstance(item.labels, str) or not item.id or not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise InputError(
                f"{item!r:.200} can't be stored: expected an id and labels that are texts without a null character"
            )
        if not all(is_text(text) and len(text.encode()) <= MAX_TEXT for text in texts):
            raise InputError(f"{item!r:.200} can't be stored: expected UTF-8 of at most {MAX_TEXT} bytes; fix: rename it")
        if len(item.sha256) not in (0, 64):
            raise InputError(f"{item!r:.200} can't be stored: expected a sha256 of 64 hexadecimal digits, or none")
    rows = list({item.id: row for row, item in enumerate(items)}.values())
    return Batch([items[row] for row in rows], packed_codes[rows], checked_features[rows])


def check_search(packed_codes: np.ndarray, manifest: Manifest, *, k: int, radius: int | None) -> np.ndarray:
    """Check the arguments of `search`; return the codes as `check_codes` does."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k={k}: expected a whole number from 1, the number of items per query")
    if radius is not None and (isinstance(radius, bool) or not isinstance(radius, int | np.integer) or radius < 0):
        raise InputError(f"radius={radius}: expected a whole number of bits from 0, or None")
    return check_codes(packed_codes, manifest)


def check_keys(keys: Sequence[int] | np.ndarray, *, count: int) -> np.ndarray:
    """Check that the keys for `items` are below a count; return int64[n]."""
    given = np.asarray(keys).reshape(-1)
    if len(given) and given.dtype.kind not in "iu":  # 0.5 and True would be keys of other items
        raise InputError(f"expected whole numbers, keys of the last search of this index, got {given.dtype}")
    array = given.astype(np.int64)
    if len(array) and (array.min() < 0 or array.max() >= count):
        raise InputError(
            f"expected keys of the last search of this index, 0 to {count - 1}, got keys from {array.min()} to {array.max()}"
        )
    return array


def rank(distances: np.ndarray, keys: np.ndarray, *, radius: int | None) -> Hits:
    """Order each row by distance and key; put NOTHING where the distance is above the radius, or impossible."""
    order = np.lexsort((keys, distances))
    distances, keys = np.take_along_axis(distances, order, axis=1), np.take_along_axis(keys, order, axis=1)
    excluded = distances > (codes.MAX_BITS if radius is None else min(radius, codes.MAX_BITS))
    return Hits(np.where(excluded, np.int32(NOTHING), distances), np.where(excluded, np.int64(NOTHING), keys))
