"""Search an index for the page, from many threads: codes of pictures, the nearest pictures, and some to pick from."""

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

_SIDE = 160  # pixels of a shown picture's shorter side
_MAX_IDS = 100_000  # ids that samples are drawn from


class Query(NamedTuple):
    """A picture to search for."""

    name: str
    pixels: np.ndarray  # to show, uint8[h, w, 3]
    code: np.ndarray  # uint8[1, ceil(bits / 8)]


class Finder:
    """An index with its model, safe to share between threads."""

    def __init__(self, opened: CodeIndex, model: Model):
        """Keep an index and the model that its codes come from, and compile the model before anybody waits for it."""
        self.bits = model.bits
        self._opened, self._model = opened, model
        self._lock = threading.Lock()  # keys of a search are valid until the next refresh
        self._encode(np.zeros((model.image_size, model.image_size, 3), np.uint8))

    def query(self, name: str, content: bytes) -> Query:
        """Encode the picture in a file's content; `name` is for messages and to show.

        Raises:
          InputError: it isn't a picture, has too many pixels, or has a size that the model can't take.
        """
        try:
            pixels = images.decode(content, shorter_side=self._model.resize)
            shown = images.decode(content, shorter_side=_SIDE)
        except BadImage as error:
            raise InputError(f"{name} {error}") from error
        return Query(name, shown, self._encode(self._model.crop(pixels, name=name)))

    def _encode(self, pixels: np.ndarray) -> np.ndarray:
        with self._lock:
            (code,) = self._model.stream(iter([pixels[None]]), part="query")
        return code

    def indexed(self, name: str) -> Query:
        """Encode the picture of an item by its id; no other file is opened.

        Raises:
          InputError: the index has no such item, or its file was deleted or damaged.
        """
        with self._lock:
            self._opened.refresh()
            items = self._opened.find([name]) if index.is_text(name) else {}
        if name not in items:
            raise InputError(f"{name!r:.200} isn't in the index; fix: pick another picture")
        try:
            content = images.read(storage.path(name))
        except BadImage as error:
            raise InputError(f"{name} {error}") from error
        return self.query(name, content)

    def hits(self, query: Query, *, k: int, radius: int, where: str) -> tuple[list[Hit], float, int]:
        """Return the nearest pictures, the seconds of the search, and the number of items in the index.

        Raises:
          InputError: an argument is out of range, or the filter `where` can't be read; a blank one selects all.
        """
        parsed = index.parse(where) if where.strip() else None
        with self._lock:
            self._opened.refresh()
            start = time.perf_counter()
            (hits_of_query,) = hits.search_codes(self._opened, query.code, k=k, radius=radius, where=parsed)
            return hits_of_query, time.perf_counter() - start, self._opened.count()

    def samples(self, count: int) -> list[str]:
        """Return ids of up to `count` pictures whose files exist, drawn from a fixed seed."""
        with self._lock:
            ids = sorted(itertools.islice(self._opened.ids(), _MAX_IDS))
        drawn = random.Random(0).sample(ids, min(len(ids), 3 * count))  # some files may be gone
        existing = (name for name in drawn if hits.thumbnail(name) is not None)
        return list(itertools.islice(existing, count))
