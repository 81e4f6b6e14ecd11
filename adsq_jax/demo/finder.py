"""What the page asks of an index: codes of pictures, the nearest, and some to pick from; for many threads."""

import itertools
import random
import threading
import time
from typing import NamedTuple

import numpy as np

from adsq_jax import index, storage
from adsq_jax.data import images
from adsq_jax.data.images import BadImage
from adsq_jax.errors import InputError
from adsq_jax.index import CodeIndex
from adsq_jax.inference import hits
from adsq_jax.inference.hits import Hit
from adsq_jax.inference.model import Model

_SIDE = 160  # pixels of a picture's shorter side, as it is shown
_DRAWN_FROM = 100_000  # ids, at most, that samples are drawn from


class Query(NamedTuple):
    """A picture that is looked for."""

    name: str
    pixels: np.ndarray  # as it is shown, uint8[h, w, 3]
    code: np.ndarray  # uint8[1, ceil(bits / 8)]


class Finder:
    """An index with its model, for many threads."""

    def __init__(self, opened: CodeIndex, model: Model):
        """Takes an index, and the model that its codes are of."""
        self.bits = model.bits
        self._opened, self._model = opened, model
        self._lock = threading.Lock()  # keys of a search are good until the next refresh
        self._encoded(np.zeros((model.image_size, model.image_size, 3), np.uint8))  # compiles, before anybody waits for it

    def query(self, name: str, content: bytes) -> Query:
        """Encodes a picture.

        Args:
          name: for messages, and to be shown.
          content: of a file.

        Returns:
          What to look for.

        Raises:
          InputError: it is no picture, has too many pixels, or a size that the model can't take.
        """
        try:
            pixels = images.decode(content, shorter_side=self._model.resize)
            shown = images.decode(content, shorter_side=_SIDE)
        except BadImage as error:
            raise InputError(f"{name} {error}") from error
        return Query(name, shown, self._encoded(self._model.cut(pixels, name=name)))

    def _encoded(self, seen: np.ndarray) -> np.ndarray:
        with self._lock:
            (code,) = self._model.stream(iter([seen[None]]), part="query")
        return code

    def indexed(self, name: str) -> Query:
        """Encodes a picture of the index; no other file is opened.

        Args:
          name: the id of an item.

        Returns:
          What to look for.

        Raises:
          InputError: the index has no such item, or its file can't be used any more.
        """
        with self._lock:
            self._opened.refresh()
            there = self._opened.find([name]) if index.is_text(name) else {}
        if name not in there:
            raise InputError(f"{name!r:.200} isn't in the index: pick another picture")
        try:
            content = images.read(storage.path(name))
        except BadImage as error:
            raise InputError(f"{name} {error}") from error
        return self.query(name, content)

    def hits(self, query: Query, *, k: int, radius: int, where: str) -> tuple[list[Hit], float, int]:
        """The nearest pictures.

        Args:
          query: what to look for.
          k: how many, at most.
          radius: the greatest distance, in bits.
          where: a filter, as `index.parse` reads it; blank for none.

        Returns:
          The hits, nearest first; the seconds it took; the number of items in the index.

        Raises:
          InputError: an argument is out of range, or the filter can't be read.
        """
        only = index.parse(where) if where.strip() else None
        with self._lock:
            self._opened.refresh()
            began = time.perf_counter()
            (found,) = hits.search_codes(self._opened, query.code, k=k, radius=radius, where=only)
            return found, time.perf_counter() - began, self._opened.count()

    def samples(self, count: int) -> list[str]:
        """Some pictures to pick from.

        Args:
          count: how many, at most.

        Returns:
          Ids of the index, whose files are there.
        """
        with self._lock:
            ids = sorted(itertools.islice(self._opened.ids(), _DRAWN_FROM))
        drawn = random.Random(0).sample(ids, min(len(ids), 3 * count))  # more than needed: files may be gone
        there = (name for name in drawn if hits.pixels_of(name) is not None)
        return list(itertools.islice(there, count))
