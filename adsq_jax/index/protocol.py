"""What an index of hash codes is, whatever engine keeps it: items by id, each with a code, found again by Hamming distance."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from adsq_jax import codes
from adsq_jax.errors import InputError
from adsq_jax.index.filters import Filter, is_text

FORMAT = 1
NOTHING = -1  # distance and key where there is no further item


class Manifest(NamedTuple):
    """What codes an index holds; codes of another length or of another model must not come among them."""

    bits: int  # 1 to 256
    model_sha256: str  # of the model that makes them; "" for codes from elsewhere
    model: str = ""  # where that model was when the index was made: the run's folder

    def as_dict(self) -> dict[str, Any]:
        """What is kept with the codes, as JSON can hold it."""
        return {"format": FORMAT, "bit_order": codes.BIT_ORDER, **self._asdict()}

    @classmethod
    def of_dict(cls, kept: Any, *, place: str) -> "Manifest":
        """The inverse of `as_dict`.

        Args:
          kept: what was kept.
          place: of the index, for messages.

        Raises:
          InputError: it isn't a manifest of this format.
        """
        if not isinstance(kept, dict) or kept.get("format") != FORMAT or kept.get("bit_order") != codes.BIT_ORDER:
            raise InputError(f"{place} is no index of format {FORMAT}: it was made by another version; encode into a new one")
        bits, texts = kept.get("bits"), {name: kept.get(name) for name in ("model_sha256", "model")}
        if type(bits) is not int or not 1 <= bits <= codes.MAX_BITS or not all(isinstance(x, str) for x in texts.values()):
            raise InputError(f"{place} has a damaged manifest: encode into a new index")
        return cls(bits=bits, **{name: str(text) for name, text in texts.items()})

    @property
    def width(self) -> int:
        """Bytes of a packed code."""
        return -(-self.bits // 8)


class Item(NamedTuple):
    """What an index keeps beside a code."""

    id: str  # what names it; for an image, its path: not empty, at most MOST_ID bytes of UTF-8
    labels: tuple[str, ...] = ()  # names of its classes
    sha256: str = ""  # of its content, in hexadecimal: tells whether it has changed


MOST_ID = 4_096  # bytes: the longest path of Linux


class Found(NamedTuple):
    """The nearest items of each query, nearest first; of the same distance by key."""

    distances: np.ndarray  # in bits, int32[n_query, k]; NOTHING where there are no k items
    keys: np.ndarray  # for `CodeIndex.items`, int64[n_query, k]; NOTHING there as well


class CodeIndex(Protocol):
    """An index that is open. `index.create` makes one and `index.open_index` opens it; close it, or use it with `with`."""

    manifest: Manifest

    def add(self, items: Sequence[Item], packed_codes: np.ndarray) -> None:
        """Adds items, or replaces those of the same id; when it returns, all of them are kept, whatever happens.

        Args:
          items: n items; of two with one id the last one counts.
          packed_codes: uint8[n, ceil(bits / 8)], little bit order, 1 = +1, padding zero.

        Raises:
          InputError: codes or items are not as they should be, or they can't be written: the disk is full, the server is gone,
            another process writes and the engine lets one do so at a time. What was added before stays; the same again mends.
        """

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes items by id; ids that aren't there are passed over.

        Returns:
          How many were there.

        Raises:
          InputError: as `add`.
        """

    def search(self, packed_codes: np.ndarray, *, k: int, radius: int | None = None, where: Filter | None = None) -> Found:
        """The nearest items of each query, exactly.

        Args:
          packed_codes: of the queries, as those of `add`.
          k: how many at most, 1 or more.
          radius: the greatest distance, in bits, 0 or more; None for any.
          where: which items to look at; None for all.

        Returns:
          Distances and keys; k columns, or fewer where the index or `where` has less items. Among items of the distance at
          which k are reached, which ones are in is the engine's choice.

        Raises:
          InputError: codes, k or radius are not as they should be, or the engine can't find so many or filter so.
        """

    def items(self, keys: Sequence[int] | np.ndarray) -> list[Item]:
        """What is kept of items.

        Args:
          keys: of the last `search`, valid until the next `add`, `delete` or `refresh`; none of them NOTHING.

        Returns:
          The items, in the order of the keys.
        """

    def find(self, ids: Sequence[str]) -> dict[str, Item]:
        """Those of some items that are there, by id."""

    def ids(self, *, prefix: str = "") -> Iterator[str]:
        """The ids that begin with a text, in no order; all, if none is given."""

    def scan(self) -> Iterator[tuple[list[Item], np.ndarray]]:
        """All items with their codes, each once, in no order, some at a time.

        Yields:
          n items, and their packed codes, uint8[n, ceil(bits / 8)].
        """

    def count(self, *, where: Filter | None = None) -> int:
        """How many items there are, or how many of them `where` lets through."""

    def refresh(self) -> None:
        """Takes in what others have added or deleted since; one's own changes are seen without it."""

    def close(self) -> None:
        """Lets go of files and memory."""

    def __enter__(self) -> "CodeIndex": ...

    def __exit__(self, *error: object) -> None: ...


def check_codes(packed_codes: np.ndarray, manifest: Manifest) -> np.ndarray:
    """Says whether codes are of an index's kind, and gives them as the engines want them.

    Args:
      packed_codes: what was given.
      manifest: of the index.

    Returns:
      uint8[n, ceil(bits / 8)], contiguous.

    Raises:
      InputError: they are of another dtype, shape or length, or their padding isn't zero.
    """
    array, bits = np.asarray(packed_codes), manifest.bits
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != manifest.width:
        raise InputError(
            f"codes are {array.dtype}{list(array.shape)}, and the index holds codes of {bits} bits: expected packed codes, "
            f"uint8[n, {manifest.width}]; codes.pack makes them of -1 and +1"
        )
    if bits % 8 and (array[:, -1] >> (bits % 8)).any():
        raise InputError(f"codes of {bits} bits have more than {bits} set: the bits behind them must be 0, in little bit order")
    return np.ascontiguousarray(array)


def check_items(items: Sequence[Item], *, codes: int) -> None:
    """Says whether items can be kept.

    Args:
      items: what was given.
      codes: the number of codes that came with them.

    Raises:
      InputError: they are not one a code, or one has an id, label or hash that can't be kept.
    """
    if len(items) != codes:
        raise InputError(f"{len(items)} items and {codes} codes: give one item a code, in the same order")
    for item in items:
        texts = (item.id, *item.labels)
        if not item.id or not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise InputError(f"{item!r:.200} can't be kept: expected an id and labels that are texts without a null")
        if any(len(text.encode(errors="surrogatepass")) > MOST_ID for text in texts) or not all(map(is_text, texts)):
            raise InputError(f"{item!r:.200} can't be kept: expected texts of UTF-8, of {MOST_ID} bytes at most; rename it")
        if len(item.sha256) not in (0, 64):
            raise InputError(f"{item!r:.200} can't be kept: its sha256 must have 64 hexadecimal digits, or none")


def check_search(k: int, radius: int | None) -> None:
    """Says whether a search can be done.

    Raises:
      InputError: k or radius is out of range.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k={k}: expected a whole number from 1, the items wanted of each query")
    if radius is not None and (isinstance(radius, bool) or not isinstance(radius, int | np.integer) or radius < 0):
        raise InputError(f"radius={radius}: expected a whole number of bits from 0, or none")
