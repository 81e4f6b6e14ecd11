"""Search an index for the page, from many threads: codes of pictures, the nearest pictures, and some to pick from."""

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from adsq_jax import index
from adsq_jax.data.images import BadImage
from adsq_jax.errors import InputError
from adsq_jax.index import CodeIndex
from adsq_jax.inference import hits, html_page
from adsq_jax.inference.hits import Hit
from adsq_jax.inference.model import Model

_LONGER = 320  # pixels of its longer side, at most
_MAX_IDS = 100_000  # ids that samples are drawn from, and items whose labels are counted
_MAX_KEPT = 32 * 2**20  # characters of thumbnails that are kept, since many visitors see the same
_MAX_LABEL = 100  # characters of a label to filter by: twenty of them make a filter that is short enough
_MAX_LABELS = 500  # characters of a hit's labels: an item may have any number of them
_SECONDS_KEPT = 60.0  # that a picture which was deleted or replaced is still shown

Decode = Callable[[bytes, Sequence[int]], Sequence[np.ndarray]]  # content, shorter sides -> uint8[h, w, 3] of each
Read = Callable[[str], bytes]  # an item's id -> the content of its file


class Query(NamedTuple):
    """A picture to search for. The visitor's browser keeps it, and nothing of it stays here."""

    name: str
    source: str  # a thumbnail for `src`
    code: np.ndarray  # uint8[1, m]: the code's ceil(bits / 8) bytes, then those of the compressed features


class Finder:
    """An index with its model, safe to share between threads."""

    def __init__(self, plain: CodeIndex, filtered: CodeIndex, model: Model, *, decode: Decode, read: Read):
        """Compile the model before anybody waits for it.

        Args:
          plain: the index.
          filtered: the same index, opened once more for questions with a filter: what such a question costs is decided by
            who asks it, and others don't wait for it.
          model: the model of the index's codes.
          decode: decodes a picture that may come from anybody, raising `BadImage`.
          read: reads a picture of the index, raising `BadImage`.
        """
        self.bits = model.bits
        self._width, self._dims = plain.manifest.width, plain.manifest.features  # bytes of a code, and of features
        hits.check_features(plain)
        self._model, self._decode, self._read = model, decode, read
        # An index is for one thread at a time, and keys of a search are valid until the next refresh.
        self._plain, self._filtered = (plain, threading.Lock()), (filtered, threading.Lock())
        self._encoding = threading.Lock()
        self._thumbnails = _Thumbnails()
        self._encode(np.zeros((model.image_size, model.image_size, 3), np.uint8))

    def query(self, name: str, content: bytes) -> Query:
        """Encode the picture in a file's content; `name` is for messages and to show.

        Raises:
          InputError: it isn't a picture, costs too much to decode, or has a size that the model can't take.
        """
        pixels, shown = self._decoded(name, content, (self._model.resize, hits.SIDE))
        return Query(name, _source(shown), self._encode(self._model.crop(pixels, name=name)))

    def code(self, name: str, content: bytes) -> np.ndarray:
        """Return a picture's code and features, as `Query.code`; raise as `query` does."""
        (pixels,) = self._decoded(name, content, (self._model.resize,))
        return self._encode(self._model.crop(pixels, name=name))

    def stored_code(self, name: str) -> np.ndarray:
        """Return the code and the features that the index holds of an item, as `Query.code`.

        Raises:
          InputError: it has no such item.
        """
        opened, lock = self._plain
        with lock:
            opened.refresh()
            batch = opened.stored(ids=[name])
        if not batch.items:
            raise InputError(f"{name!r:.200} isn't in the index; fix: give the id of an item")
        return np.concatenate([batch.codes, batch.features.view(np.uint8)], axis=1)

    def count(self) -> int:
        """Return the number of items."""
        opened, lock = self._plain
        with lock:
            opened.refresh()
            return opened.count()

    def _decoded(self, name: str, content: bytes, sides: Sequence[int]) -> Sequence[np.ndarray]:
        try:
            return self._decode(content, sides)
        except BadImage as error:
            raise InputError(f"{name} {error}") from error
        except OSError as error:  # no process, for instance where memory lacks
            raise InputError(f"{name} can't be decoded now ({error.strerror}); fix: try again in a minute") from error

    def _encode(self, pixels: np.ndarray) -> np.ndarray:
        with self._encoding:
            ((code, features),) = self._model.stream_with_features(iter([pixels[None]]), part="query")
        return np.concatenate([code, features.view(np.uint8)[:, : self._dims]], axis=1)

    def indexed(self, name: str) -> Query:
        """Encode the picture of an item by its id; no other file is opened.

        Raises:
          InputError: the index has no such item, or its file was deleted or damaged.
        """
        opened, lock = self._plain
        with lock:
            opened.refresh()
            items = opened.find([name]) if index.is_text(name) else {}
        if name not in items:
            raise InputError(f"{name!r:.200} isn't in the index; fix: pick another picture")
        try:
            content = self._read(name)
        except BadImage as error:
            raise InputError(f"{name} {error}") from error
        return self.query(name, content)

    def hits(
        self, given: np.ndarray, *, k: int, radius: int, where: str, rerank: int = hits.RERANK
    ) -> tuple[list[Hit], float, int]:
        """Return the nearest pictures, the seconds of the search, and the number of items in the index.

        `given` is a query's code and features, as the page sends them back, uint8[1, m].

        Raises:
          InputError: an argument is out of range, or the filter `where` can't be read; a blank one selects all.
        """
        code, features = given[:, : self._width], given[:, self._width :].view(np.int8)
        if features.shape[1] != self._dims:
            raise InputError(f"expected a code of {self._width + self._dims} bytes, got {given.shape[1]}; fix: reload the page")
        parsed = index.parse(where) if where.strip() else None
        opened, lock = self._plain if parsed is None else self._filtered
        with lock:
            opened.refresh()
            start = time.perf_counter()
            (hits_of_query,) = hits.search_codes(opened, code, features, k=k, radius=radius, where=parsed, rerank=rerank)
            seconds, count = time.perf_counter() - start, opened.count()
        return [hit._replace(labels=_shortened(hit.labels)) for hit in hits_of_query], seconds, count

    def samples(self, count: int) -> dict[str, str]:
        """Return thumbnails by id of up to `count` pictures that can be shown, drawn from a fixed seed."""
        opened, lock = self._plain
        with lock:
            ids = sorted(itertools.islice(opened.ids(), _MAX_IDS))
        drawn = random.Random(0).sample(ids, min(len(ids), 3 * count))  # some files may be gone
        shown = ((name, self.thumbnail(name)) for name in drawn)
        return dict(itertools.islice(((name, source) for name, source in shown if source is not None), count))

    def labels(self, count: int) -> list[str]:
        """Return up to `count` labels, the most frequent first, that a filter can be written for."""
        opened, lock = self._plain
        counts, left = Counter[str](), _MAX_IDS
        with lock:
            for batch in opened.scan():
                counts.update(label for item in batch.items[:left] for label in item.labels if len(label) <= _MAX_LABEL)
                left -= len(batch.items)
                if left <= 0:
                    break
        ordered = sorted(counts, key=lambda label: (-counts[label], label))
        return [label for label in ordered if index.filters.of_label(label)][:count]

    def thumbnail(self, name: str) -> str | None:
        """Return a picture of the index for `src`; None if it can't be shown."""
        source = self._thumbnails.get(name)
        if source is None:
            pixels = hits.decode_small(lambda: self._read(name), bit_depth=self._model.bit_depth)
            if pixels is None:
                return None
            source = _source(pixels)
            self._thumbnails.keep(name, source)
        return source


class _Thumbnails:
    """Thumbnails drawn lately, the newest _MAX_KEPT characters of them."""

    def __init__(self) -> None:
        self._kept = dict[str, tuple[str, float]]()  # by name, the oldest first: thumbnail, and when it was drawn
        self._size, self._lock = 0, threading.Lock()

    def get(self, name: str) -> str | None:
        """Return a thumbnail; None if there is none, or an old one."""
        source, since = self._kept.get(name, ("", 0.0))
        return source if source and time.monotonic() - since < _SECONDS_KEPT else None

    def keep(self, name: str, source: str) -> None:
        """Keep a thumbnail in place of the oldest ones."""
        with self._lock:
            self._drop(name)
            self._kept[name] = (source, time.monotonic())
            self._size += len(name) + len(source)
            while self._size > _MAX_KEPT:
                self._drop(next(iter(self._kept)))

    def _drop(self, name: str) -> None:
        source, _ = self._kept.pop(name, ("", 0.0))
        self._size -= len(name) + len(source) if source else 0


def _shortened(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the first labels, at most _MAX_LABELS characters with the marks between them, and a mark where there are more."""
    shown, room = list[str](), _MAX_LABELS
    for label in labels:
        if len(label) > room or not room:
            return (*shown, f"{label[:room]}…")
        shown.append(label)
        room = max(0, room - len(label) - len(", "))
    return tuple(shown)


def _source(pixels: np.ndarray) -> str:
    return html_page.data_uri(pixels, longer_side=_LONGER)
