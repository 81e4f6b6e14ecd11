"""Read the images of a gallery that an index lacks: by threads, in order, a batch ahead of the network."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from adsq_jax.data import images as pictures
from adsq_jax.data.gallery import Gallery
from adsq_jax.data.images import BadImage
from adsq_jax.errors import InputError
from adsq_jax.index import CodeIndex, Item, is_text
from adsq_jax.inference.model import Model

_IDS_PER_LOOKUP = 1_000


class LeftOut(NamedTuple):
    """An image that can't be used."""

    id: str
    reason: str
    has_code: bool  # of an earlier content, in the index

    def explain(self, *, pruned: bool, can_prune: bool) -> str:
        """Return the reason, and what becomes of the image's earlier code."""
        if not self.has_code:
            return self.reason
        if pruned:
            return f"{self.reason}; its earlier code was removed from the index"
        return f"{self.reason}; its earlier code stays in the index{', --prune removes it' if can_prune else ''}"


class Image(NamedTuple):
    """An image that is to be encoded."""

    item: Item
    pixels: np.ndarray  # that the network sees, uint8[image_size, image_size, 3]


# An item: the index has its content, under another id or with other labels. None: it is there unchanged.
Read = Image | Item | LeftOut | None


class Contents:
    """The contents that an index had when the first new image was met, in 8 bytes each."""

    def __init__(self, opened: CodeIndex):
        """Read nothing before it is asked for."""
        self._opened, self._sorted = opened, np.zeros(0, np.int64)
        self._has_read = False

    def read(self) -> None:
        """Read the hashes, unless that was done."""
        if not self._has_read:
            self._sorted, self._has_read = np.sort(np.fromiter(map(hash, self._opened.content_hashes()), np.int64)), True

    def may_have(self, sha256: str) -> bool:
        """Return whether the index most likely has this content."""
        place = int(np.searchsorted(self._sorted, hash(sha256)))
        return place < len(self._sorted) and bool(self._sorted[place] == hash(sha256))


def read_ahead(
    model: Model, gallery: Gallery, wanted: Iterable[tuple[int, Item | None]], *, contents: Contents | None, threads: int
) -> Iterator[Read]:
    """Read images, by row and item, with threads, a batch ahead of the network, in order."""
    pool, waiting = ThreadPoolExecutor(threads), deque[Future[Read]]()
    try:
        for row, stored in wanted:
            waiting.append(pool.submit(_read, model, gallery, row, stored=stored, contents=contents))
            if len(waiting) > model.batch_size:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C nobody waits for what is being decoded


def stored_items(gallery: Gallery, opened: CodeIndex, contents: Contents | None) -> Iterator[tuple[int, Item | None]]:
    """Yield the row of each image, with its item if the index has one."""
    for start in range(0, len(gallery), _IDS_PER_LOOKUP):
        rows = range(start, min(start + _IDS_PER_LOOKUP, len(gallery)))
        ids = [gallery.id(row) for row in rows]
        items = opened.find([name for name in ids if is_text(name)])
        if contents is not None and len(items) < len(ids):
            contents.read()
        yield from ((row, items.get(name)) for row, name in zip(rows, ids, strict=True))


def _read(model: Model, gallery: Gallery, row: int, *, stored: Item | None, contents: Contents | None) -> Read:
    """Return an image, what the index has of it, or the reason why it can't be used."""
    source, name = gallery.source, gallery.id(row)

    def left_out(reason: str) -> LeftOut:
        return LeftOut(name, reason, has_code=stored is not None)

    if not is_text(name):
        return left_out(f"{source.location(row)} has a name that isn't UTF-8; fix: rename it")
    try:
        content = source.content(row)
        item = Item(name, gallery.labels(row), hashlib.sha256(content).hexdigest())
        if item == stored:
            return None
        if contents is not None and ((stored and stored.sha256 == item.sha256) or contents.may_have(item.sha256)):
            return item
        # what was hashed: the file may change meanwhile
        pixels = pictures.decode(content, shorter_side=model.resize, bit_depth=model.bit_depth)
        if not model.bit_depth:
            pictures.warn_if_dark(content, pixels, name=lambda: source.location(row))
        return Image(item, model.crop(pixels, name=source.location(row)))
    except BadImage as error:
        return left_out(f"{source.location(row)} {error}")
    except InputError as error:  # the network expects another size
        return left_out(str(error))
