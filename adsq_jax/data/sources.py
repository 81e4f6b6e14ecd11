"""Sources: random access to labelled images, in a fixed order. `source[i] -> {image: uint8[h, w, 3], label: uint8[c]}`."""

import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data import images
from adsq_jax.data.images import BadImage
from adsq_jax.data.labels import Labels
from adsq_jax.errors import InputError

_SAMPLE = 100  # images that `stamp` hashes if hashing all would take too long


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d " % len(part) + part)
    return digest.hexdigest()


class Names:
    """Many short texts in one piece of memory."""

    def __init__(self, names: Iterable[bytes]):
        """Join the texts, which contain no line ends."""
        names = list(names)
        self.joined = b"\n".join(names)
        self._starts = np.cumsum([0, *(len(name) + 1 for name in names)])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> str:
        """Return a text to print, whatever bytes it has."""
        return self.raw(index).decode(errors="backslashreplace")

    def raw(self, index: int) -> bytes:
        """Return a text as it was given."""
        return self.joined[self._starts[index] : self._starts[index + 1] - 1]

    def take(self, rows: np.ndarray) -> "Names":
        """Return some of the texts, int[m], in that order."""
        return Names(self.raw(row) for row in rows)

    def first(self) -> np.ndarray:
        """Return, for each text, the index of the first text that equals it, int64[n]."""
        rows: dict[bytes, int] = {}
        return np.fromiter((rows.setdefault(name, i) for i, name in enumerate(self.joined.split(b"\n"))), np.int64, len(self))

    def unique(self) -> np.ndarray:
        """Return whether each text occurs once, bool[n]."""
        first = self.first()
        return np.bincount(first, minlength=len(self))[first] == 1

    @property
    def nbytes(self) -> int:
        """Size in memory, in bytes."""
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
        """Set labels, names and parts.

        Args:
          labels: the labels of all images.
          classes: the names of the classes.
          names: the names of the images, if they have any; they enter a split's hash.
          parts: the rows of each part, if the data set comes divided.
          notes: counts to show to the user: {"files that are no pictures": 3}.

        Raises:
          ValueError: the numbers of classes, labels and names differ.
          InputError: two classes have the same name.
        """
        if len(classes) != labels.classes or (names is not None and len(names) != len(labels)):
            raise ValueError(f"{len(classes)} class names or the images' names don't fit labels of shape {labels.shape}")
        self.labels, self.names = labels, names
        self.classes = tuple("".join(c if c.isprintable() else "?" for c in name) for name in classes)
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise InputError(f"two classes are named {twice[:80]!r}; fix: give each its own name")
        self.parts, self.notes = dict(parts or {}), dict(notes or {})

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return {image: uint8[h, w, 3], label: uint8[c]}."""
        return {"image": self.image(index, shorter_side=0), "label": self.labels[index]}

    def name(self, index: int) -> str:
        """Return the name of an image, or `image INDEX`."""
        return f"image {index}" if self.names is None else self.names[index]

    def location(self, index: int) -> str:
        """Return where an image is stored, for messages."""
        return self.name(index)

    def path(self, index: int) -> bytes | None:
        """Return the path of an image's file, as it is opened; None where there is none of its own."""
        return None

    @abstractmethod
    def content(self, index: int) -> bytes:
        """Return an image's bytes as they are stored, to hash them.

        Raises:
          BadImage: the image is missing.
        """

    @abstractmethod
    def image(self, index: int, *, shorter_side: int, bit_depth: int = 0) -> np.ndarray:
        """Return an image as pixels, uint8[h, w, 3], which the caller must not change.

        Args:
          index: the image's row.
          shorter_side: the size to resize it to, in pixels; 0: none.
          bit_depth: the bits that stored pictures of 16 bits use, as in `images.decode`; 0: all.

        Raises:
          BadImage: the image is missing or damaged; the message names it.
        """

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Return those of some rows whose images are missing, int64[m], without reading any image."""
        return rows[:0]

    def stamp(self, rows: np.ndarray) -> str:
        """Return a hash that changes with the images, in seconds. By default it hashes all names and a sample of images."""
        sample = rows[:: max(1, len(rows) // _SAMPLE)]
        names = b"" if self.names is None else self.names.take(rows).joined
        return _sha256([names, *(self.content(int(row)) for row in sample)])


class ArraySource(Source):
    """Images of one size in memory."""

    def __init__(self, pixels: np.ndarray, labels: Labels, *, classes: Sequence[str]):
        """Wrap pixels, uint8[n, h, w, 1 or 3], with their labels and the names of the classes.

        Raises:
          ValueError: shape or dtype differ.
        """
        super().__init__(labels, classes=classes, names=None)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or len(pixels) != len(labels):
            raise ValueError(f"expected images uint8[{len(labels)}, h, w, 1 or 3], got {pixels.dtype}{pixels.shape}")
        self.pixels = pixels

    def stamp(self, rows: np.ndarray) -> str:
        """Return a hash of all pixels."""
        return _sha256(self.pixels[row].tobytes() for row in rows)

    def content(self, index: int) -> bytes:
        """Return the pixels."""
        return self.pixels[index].tobytes()

    def image(self, index: int, *, shorter_side: int, bit_depth: int = 0) -> np.ndarray:
        """Return the pixels, resized; a grey channel is repeated three times, without a copy."""
        return _in_colour(self.pixels[index], shorter_side=shorter_side)


class PictureSource(Source):
    """Images in memory, each with its own size."""

    def __init__(self, pictures: Sequence[np.ndarray], labels: Labels, *, classes: Sequence[str]):
        """Wrap pictures, each uint8[h, w, 1 or 3], with their labels and the names of the classes."""
        super().__init__(labels, classes=classes, names=None)
        self._pictures = pictures

    def content(self, index: int) -> bytes:
        """Return the size and the pixels."""
        pixels = self._pictures[index]
        return b"%d %d %d " % pixels.shape + pixels.tobytes()

    def image(self, index: int, *, shorter_side: int, bit_depth: int = 0) -> np.ndarray:
        """Return the pixels, resized."""
        return _in_colour(self._pictures[index], shorter_side=shorter_side)


def _in_colour(pixels: np.ndarray, *, shorter_side: int) -> np.ndarray:
    return images.resize(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), shorter_side=shorter_side)


class EncodedSource(Source):
    """Images stored as files or records of JPEG, PNG and the like, decoded when they are asked for."""

    def image(self, index: int, *, shorter_side: int, bit_depth: int = 0) -> np.ndarray:
        """Decode an image."""
        try:
            content = self.content(index)
            pixels = images.decode(content, shorter_side=shorter_side, bit_depth=bit_depth)
        except BadImage as error:
            raise BadImage(f"{self.location(index)} {error}") from error
        if not bit_depth:
            images.warn_if_dark(content, pixels, name=lambda: self.location(index))
        return pixels


class FileSource(EncodedSource):
    """One file per image, all below one folder."""

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
        """Wrap the files `names`: paths below `root`, with / between folders, that are known to stay inside it."""
        super().__init__(labels, classes=classes, names=names, parts=parts, notes=notes)
        self._names, self._root, self._is_remote = names, root, storage.is_remote(root)
        self._folder = os.fsencode(root)

    def location(self, index: int) -> str:
        """Return the path."""
        return os.path.join(self._root, self.name(index))

    def path(self, index: int) -> bytes:
        """Return the path."""
        if self._is_remote:
            return os.fsencode(self._root / self.name(index))
        return os.path.join(os.fsencode(storage.normal(self._root)), self._names.raw(index))

    def content(self, index: int) -> bytes:
        """Read the file."""
        if self._is_remote:
            try:
                return storage.read(self._root / self.name(index))
            except FileNotFoundError as error:
                raise BadImage("is missing; fix: restore it") from error
            except OSError as error:
                raise BadImage(f"can't be read ({error.strerror}); fix: try again, or restore it") from error
        path = self._path(index)
        try:
            return _read_file(path)
        except OSError as error:
            if not os.path.isfile(path):
                raise BadImage(
                    "is not a file; fix: restore it" if os.path.lexists(path) else "is missing; fix: restore it"
                ) from error
            raise BadImage(f"can't be read ({error.strerror}); fix: change its permissions, or restore it") from error

    def stamp(self, rows: np.ndarray) -> str:
        """Return a hash of names, sizes and times; for local files also inode and change time, which copying can't preserve."""
        if self._is_remote:
            objects = self._objects()
            return _sha256(name + b" " + objects.get(name, b"") for name in map(self._names.raw, rows))
        return _sha256(map(self._file_stamp, rows))

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows whose files don't exist, int64[m]; each folder is listed once."""
        if self._is_remote:
            objects = self._objects()
            return np.array([row for row in rows if self._names.raw(row) not in objects], np.int64)
        present: dict[bytes, set[bytes]] = {}
        missing = []
        for row in rows:
            folder, file = os.path.split(self._path(row))
            if folder not in present:
                try:
                    with os.scandir(folder) as entries:
                        present[folder] = {e.name for e in entries if not e.is_symlink() or os.path.exists(e.path)}
                except OSError:
                    present[folder] = set()
            if file not in present[folder]:
                missing.append(row)
        return np.array(missing, np.int64)

    def _path(self, index: int) -> bytes:
        return os.path.join(self._folder, self._names.raw(index))

    def _objects(self) -> dict[bytes, bytes]:
        """List all objects of a store by name; that takes one request per thousand."""
        try:
            return storage.objects(self._root)
        except OSError as error:
            raise InputError(f"{self._root} can't be listed ({error.strerror}); fix: run the same command again") from error

    def _file_stamp(self, row: int) -> bytes:
        name = self._names.raw(row)
        try:
            status = os.stat(self._path(row))
        except OSError:
            return name  # reading the image will report that it is missing
        return b"%b %d %d %d %d" % (name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _read_file(path: bytes) -> bytes:
    """Read a file by few calls of the system, each of which costs a thread its turn; refuse what is no file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a pipe would block
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadImage("is not a file; fix: restore it")
        images.check_bytes(status.st_size)
        if not status.st_size:  # the system may make it up while it is read
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
        parts = [os.read(descriptor, status.st_size)]
        left = status.st_size - len(parts[0])
        while left > 0 and parts[-1]:
            parts.append(os.read(descriptor, left))
            left -= len(parts[-1])
        return b"".join(parts)
    finally:
        os.close(descriptor)


class WrappedSource(Source):
    """A source that reads the images of another one."""

    _source: Source

    def content(self, index: int) -> bytes:
        """Return the other source's bytes."""
        return self._source.content(self._row(index))

    def image(self, index: int, *, shorter_side: int, bit_depth: int = 0) -> np.ndarray:
        """Return the other source's pixels."""
        return self._source.image(self._row(index), shorter_side=shorter_side, bit_depth=bit_depth)

    def location(self, index: int) -> str:
        """Return the other source's location."""
        return self._source.location(self._row(index))

    def path(self, index: int) -> bytes | None:
        """Return the other source's path."""
        return self._source.path(self._row(index))

    def stamp(self, rows: np.ndarray) -> str:
        """Return the other source's stamp."""
        return self._source.stamp(np.array([self._row(row) for row in rows], np.int64))

    def _row(self, index: int) -> int:
        return index


class Subset(WrappedSource):
    """Some images of another source, possibly with other labels."""

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
        """Select the rows, int[m], in that order; without `names` the images keep their own."""
        if names is None and source.names is not None:
            names = source.names.take(rows)
        super().__init__(labels, classes=classes, names=names, parts=parts, notes=source.notes)
        self._source, self._rows = source, rows

    def _row(self, index: int) -> int:
        return int(self._rows[index])

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows whose images the other source misses."""
        return rows[np.isin(self._rows[rows], self._source.missing(self._rows[rows]))]


class CachedSource(WrappedSource):
    """Keeps decoded and resized images of some rows in memory, up to a number of bytes.

    Training reads each training image several times a round: those that fit are decoded once, the others each time. Each
    process has its own cache.
    """

    def __init__(self, source: Source, rows: np.ndarray, *, most_bytes: int):
        """Wrap a source; images of `rows` are cached when they are first read, up to `most_bytes`."""
        super().__init__(source.labels, classes=source.classes, names=source.names, parts=source.parts, notes=source.notes)
        self._source, self._most_bytes = source, most_bytes
        self._cacheable = np.zeros(len(source), bool)
        self._cacheable[rows] = True
        self._cache: dict[tuple[int, int, int], np.ndarray] = {}
        self.cached_bytes = 0

    def missing(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows whose images the other source misses."""
        return self._source.missing(rows)

    def image(self, index: int, *, shorter_side: int, bit_depth: int = 0) -> np.ndarray:
        """Return the cached pixels, or read and cache them."""
        key = (int(index), shorter_side, bit_depth)
        image = self._cache.get(key)
        if image is None:
            image = self._source.image(index, shorter_side=shorter_side, bit_depth=bit_depth)
            if self._cacheable[index] and self.cached_bytes + image.nbytes <= self._most_bytes:
                self._cache[key] = image
                self.cached_bytes += image.nbytes  # threads may exceed the limit by an image each, which isn't worth a lock
        return image

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": {}, "cached_bytes": 0}  # a worker process starts with an empty cache
