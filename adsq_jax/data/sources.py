"""Sources: random access to labelled images, in a fixed order. `source[i] -> {image: uint8[h, w, 3], label: uint8[c]}`."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data import images
from adsq_jax.data.images import BadImage
from adsq_jax.data.labels import Labels
from adsq_jax.errors import InputError

_SAMPLE = 100  # images that a stamp looks at, where looking at all would take too long


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d " % len(part) + part)
    return digest.hexdigest()


class Names:
    """Many short texts in one piece of memory."""

    def __init__(self, names: Iterable[bytes]):
        """Takes the texts as UTF-8, none with a line end."""
        names = list(names)
        self.joined = b"\n".join(names)
        self._starts = np.cumsum([0, *(len(name) + 1 for name in names)])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        return self.raw(index).decode(errors="backslashreplace")  # for people: whatever bytes a file's name has

    def raw(self, index: int) -> bytes:
        """One of them as it was given."""
        return self.joined[self._starts[index] : self._starts[index + 1] - 1]

    def take(self, rows: np.ndarray) -> "Names":
        """Some of them, in that order: int[m]."""
        return Names(self.raw(row) for row in rows)

    def first(self) -> np.ndarray:
        """Of each text, the index of the first one that is the same, int64[n]."""
        rows: dict[bytes, int] = {}
        return np.fromiter((rows.setdefault(name, i) for i, name in enumerate(self.joined.split(b"\n"))), np.int64, len(self))

    def once(self) -> np.ndarray:
        """Which texts no other is the same as, bool[n]."""
        first = self.first()
        return np.bincount(first, minlength=len(self))[first] == 1

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return len(self.joined) + self._starts.nbytes


class Source(ABC):
    """Labelled images in a fixed order."""

    def __init__(
        self,
        labels: Labels,
        *,
        classes: Sequence[str],
        names: Names | None,
        parts: Mapping[str, np.ndarray] | None = None,
        notes: Mapping[str, int] | None = None,
    ):
        """Takes what is known of all images.

        Args:
          labels: of all images.
          classes: the names of the classes.
          names: of the images, where they have any; they are part of a split's hash.
          parts: rows of the parts that the data set itself divides its images into.
          notes: counts of what was found on the way, for people: {"files that are no pictures": 3}.

        Raises:
          ValueError: the numbers of classes, labels and names don't fit.
          InputError: two classes have the same name.
        """
        if len(classes) != labels.classes or (names is not None and len(names) != len(labels)):
            raise ValueError(f"{len(classes)} names of classes and labels of {labels.shape} don't fit, or the images' names")
        self.labels, self.names = labels, names
        self.classes = tuple("".join(c if c.isprintable() else "?" for c in name) for name in classes)  # a terminal obeys some
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise InputError(f"two classes are named {twice[:80]!r}: give each a name of its own")
        self.parts, self.notes = dict(parts or {}), dict(notes or {})

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """{image: uint8[h, w, 3], label: uint8[c]}."""
        return {"image": self.image(index, shorter_side=0), "label": self.labels[index]}

    def name(self, index: int) -> str:
        """What to call an image."""
        return f"image {index}" if self.names is None else self.names[index]

    def location(self, index: int) -> str:
        """Where an image is, for people."""
        return self.name(index)

    @abstractmethod
    def content(self, index: int) -> bytes:
        """An image as it is stored: what a hash of it is taken of.

        Raises:
          BadImage: it isn't there.
        """

    @abstractmethod
    def image(self, index: int, *, shorter_side: int) -> np.ndarray:
        """An image as pixels.

        Args:
          index: its row.
          shorter_side: what to resize it to, in pixels; 0: as it is.

        Returns:
          uint8[h, w, 3].

        Raises:
          BadImage: it isn't there, or is no whole picture; says which.
        """

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Those of some rows whose images aren't there, as far as can be told without reading them: int64[m]."""
        return rows[:0]

    def stamp(self, rows: np.ndarray) -> str:
        """What changes when some images do, as far as can be told in seconds: a text for a hash. Here: names, and a sample."""
        sample = rows[:: max(1, len(rows) // _SAMPLE)]
        names = b"" if self.names is None else self.names.take(rows).joined
        return _sha256([names, *(self.content(int(row)) for row in sample)])


class ArraySource(Source):
    """Images that are in memory already; grey ones are shown in three equal channels, without a copy."""

    def __init__(self, pixels: np.ndarray, labels: Labels, *, classes: Sequence[str]):
        """Takes images and labels.

        Args:
          pixels: uint8[n, h, w, 1 or 3].
          labels: of n images.
          classes: the names of the classes.

        Raises:
          ValueError: shapes or dtypes differ from these.
        """
        super().__init__(labels, classes=classes, names=None)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or len(pixels) != len(labels):
            raise ValueError(f"images must be uint8[{len(labels)}, h, w, 1 or 3], got {pixels.dtype}{pixels.shape}")
        self.pixels = pixels

    def stamp(self, rows: np.ndarray) -> str:
        """All pixels."""
        return _sha256(self.pixels[row].tobytes() for row in rows)

    def content(self, index: int) -> bytes:
        """The pixels."""
        return self.pixels[index].tobytes()

    def image(self, index: int, *, shorter_side: int) -> np.ndarray:
        """See `Source.image`."""
        pixels = self.pixels[index]
        return images.resize(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), shorter_side=shorter_side)


class PictureSource(Source):
    """Images in memory, each with its own size."""

    def __init__(self, pictures: Sequence[np.ndarray], labels: Labels, *, classes: Sequence[str]):
        """Take pictures, each uint8[h, w, 1 or 3], with their labels and the names of the classes."""
        super().__init__(labels, classes=classes, names=None)
        self._pictures = pictures

    def content(self, index: int) -> bytes:
        """Return the size and the pixels."""
        pixels = self._pictures[index]
        return b"%d %d %d " % pixels.shape + pixels.tobytes()

    def image(self, index: int, *, shorter_side: int) -> np.ndarray:
        """Return the pixels, resized."""
        pixels = self._pictures[index]
        return images.resize(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), shorter_side=shorter_side)


class EncodedSource(Source):
    """Images that are stored as files or records of JPEG, PNG and the like, and decoded when asked for."""

    def image(self, index: int, *, shorter_side: int) -> np.ndarray:
        """See `Source.image`."""
        try:
            return images.decode(self.content(index), shorter_side=shorter_side)
        except BadImage as error:
            raise BadImage(f"{self.location(index)} {error}") from error


class FileSource(EncodedSource):
    """One file an image, all below one folder."""

    def __init__(
        self,
        root: Path,
        labels: Labels,
        *,
        classes: Sequence[str],
        names: Names,
        parts: Mapping[str, np.ndarray] | None = None,
        notes: Mapping[str, int] | None = None,
    ):
        """Takes the folder, and `names`: paths below it, with / between folders, checked not to lead out of it."""
        super().__init__(labels, classes=classes, names=names, parts=parts, notes=notes)
        self._root, self._is_remote = root, storage.is_remote(root)

    def location(self, index: int) -> str:
        """The path."""
        return os.path.join(self._root, self.name(index))

    def content(self, index: int) -> bytes:
        """The file's bytes."""
        assert self.names is not None
        if self._is_remote:
            return self._object(index)
        path = os.path.join(os.fsencode(self._root), self.names.raw(index))
        try:
            if not os.path.isfile(path):  # to open a pipe would wait for ever
                raise BadImage("is no file: restore it" if os.path.lexists(path) else "is missing: bring it")
            with open(path, "rb") as file:
                images.check_bytes(os.fstat(file.fileno()).st_size)
                return file.read()
        except OSError as error:
            raise BadImage(f"can't be read ({error.strerror}): change its permissions, or restore it") from error

    def _object(self, index: int) -> bytes:
        try:
            return storage.read(self._root / self.name(index))
        except FileNotFoundError as error:
            raise BadImage("is missing: bring it") from error
        except OSError as error:
            raise BadImage(f"can't be read ({error.strerror}): try again, or restore it") from error

    def _listed(self) -> dict[bytes, bytes]:
        """All objects of a store, by name; with one request a thousand, and none for each."""
        try:
            return storage.objects(self._root)
        except OSError as error:
            raise InputError(f"{self._root} can't be listed ({error.strerror}): give the same command again") from error

    def stamp(self, rows: np.ndarray) -> str:
        """Of each file its name, size and times, with that of its inode, which no copying tool sets back.

        Of an object: name, size, time and hash.
        """
        assert self.names is not None
        if self._is_remote:
            there = self._listed()
            return _sha256(name + b" " + there.get(name, b"") for name in map(self.names.raw, rows))
        return _sha256(self._stamp(self.names.raw(row)) for row in rows)

    def _stamp(self, name: bytes) -> bytes:
        try:
            found = os.stat(os.path.join(os.fsencode(self._root), name))
        except OSError:
            return name  # it is missed where it is to be read
        return b"%b %d %d %d %d" % (name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Lists each folder once, which is quicker than to ask for each file."""
        assert self.names is not None
        if self._is_remote:
            there = self._listed()
            return np.array([row for row in rows if self.names.raw(row) not in there], np.int64)
        root, present = os.fsencode(self._root), dict[bytes, set[bytes]]()
        gone = []
        for row in rows:
            folder, file = os.path.split(os.path.join(root, self.names.raw(row)))
            if folder not in present:
                try:
                    with os.scandir(folder) as found:
                        present[folder] = {e.name for e in found if not e.is_symlink() or os.path.exists(e.path)}
                except OSError:
                    present[folder] = set()
            if file not in present[folder]:
                gone.append(row)
        return np.array(gone, np.int64)


class WrappedSource(Source):
    """What it doesn't say itself, it asks another source."""

    _source: Source

    def content(self, index: int) -> bytes:
        """See `Source.content`."""
        return self._source.content(self._row(index))

    def image(self, index: int, *, shorter_side: int) -> np.ndarray:
        """See `Source.image`."""
        return self._source.image(self._row(index), shorter_side=shorter_side)

    def location(self, index: int) -> str:
        """See `Source.location`."""
        return self._source.location(self._row(index))

    def stamp(self, rows: np.ndarray) -> str:
        """See `Source.stamp`."""
        return self._source.stamp(np.array([self._row(row) for row in rows], np.int64))

    def _row(self, index: int) -> int:
        return index


class Subset(WrappedSource):
    """Some images of another source, maybe with other labels."""

    def __init__(
        self,
        source: Source,
        rows: np.ndarray,
        *,
        labels: Labels,
        classes: Sequence[str],
        names: Names | None = None,
        parts: Mapping[str, np.ndarray],
    ):
        """Takes the rows, int[m], in the order they are to have, and what is known of them; names of theirs if not given."""
        if names is None and source.names is not None:
            names = source.names.take(rows)
        super().__init__(labels, classes=classes, names=names, parts=parts, notes=source.notes)
        self._source, self._rows = source, rows

    def _row(self, index: int) -> int:
        return int(self._rows[index])

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """See `Source.missing`."""
        gone = self._source.missing(self._rows[rows])
        return rows[np.isin(self._rows[rows], gone)]


class CachedSource(WrappedSource):
    """Keeps decoded and resized images of some rows in memory, up to a number of bytes, from when they are first asked for.

    Training looks at each image of the training set several times a round. What fits is decoded once; what doesn't is decoded
    each time. Each process has its own.
    """

    def __init__(self, source: Source, rows: np.ndarray, *, most_bytes: int):
        """Takes a source, the rows worth keeping, and the room for them."""
        super().__init__(source.labels, classes=source.classes, names=source.names, parts=source.parts, notes=source.notes)
        self._source, self._most_bytes = source, most_bytes
        self._worth = np.zeros(len(source), bool)
        self._worth[rows] = True
        self._kept: dict[tuple[int, int], np.ndarray] = {}
        self.kept_bytes = 0

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """See `Source.missing`."""
        return self._source.missing(rows)

    def image(self, index: int, *, shorter_side: int) -> np.ndarray:
        """See `Source.image`; don't write into it."""
        key = (int(index), shorter_side)
        image = self._kept.get(key)
        if image is None:
            image = self._source.image(index, shorter_side=shorter_side)
            if self._worth[index] and self.kept_bytes + image.nbytes <= self._most_bytes:
                self._kept[key] = image
                self.kept_bytes += image.nbytes  # threads may pass the limit by an image each: no lock is worth that
        return image

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": {}, "kept_bytes": 0}  # a worker process begins with its own
