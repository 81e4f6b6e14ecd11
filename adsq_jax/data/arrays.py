"""Data sets from arrays, paths or pictures in memory: `from_arrays`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adsq_jax import label_columns, storage
from adsq_jax.data import datasets, images, splits
from adsq_jax.data.datasets import Dataset
from adsq_jax.data.images import BadImage
from adsq_jax.data.labels import Labels
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.data.sources import ArraySource, CachedSource, FileSource, Names, PictureSource, Source
from adsq_jax.data.splits import Split
from adsq_jax.errors import InputError

Rows = np.ndarray | Sequence[int] | slice
PROTOCOL = "arrays"
PICTURES = Preprocessing(resize=256, image_size=224)  # the default for paths and pictures of any size
CACHE_BYTES = 2**30  # of decoded training images
_MOST_CLASSES = 100_000  # of ids without names: a larger id is rather a key of a database


def from_arrays(
    images: Any,
    labels: Any,
    *,
    query: Rows | None = None,
    train: Rows | None = None,
    database: Rows | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Make a data set from your own images and labels.

    Args:
      images: one of

        - an array of NumPy or JAX, uint8[n, h, w, 3], or grey, uint8[n, h, w, 1] or uint8[n, h, w];
        - a list of paths on this machine; files are read when they are needed, and decoded training images stay in memory, up
          to 1 GiB;
        - a list of PIL images;
        - a list of arrays, each uint8[h, w, 3], uint8[h, w, 1] or uint8[h, w].
      labels: one of

        - class ids, int[n] from 0, or int[n, 1] if a value is above 1;
        - multi-hot labels, [n, c] in {0, 1}, as bool if c is 1;
        - a list of n class names;
        - a list of n lists of class names, for any number of labels per image.
      query: the queries: indices int[m], a mask bool[n] or a slice; None for no queries.
      train: the training set, in the same forms; None for all images but the queries.
      database: the database, in the same forms; None for all images but the queries. It may share images with `train`.
      preprocessing: how to resize, crop and augment. None: square arrays are used as they are, other arrays are cropped to
        their shorter side; paths, PIL images and arrays of several sizes are resized to 256 pixels and cropped to 224.
      classes: the names of the classes, in their order. None: the sorted names that occur in `labels`, or "0", "1", ...

    Returns:
      The data set. The rows of each part are in ascending order.

    Raises:
      InputError: an argument is invalid; the message says why.
    """
    known, names = make_labels(labels, classes=classes)
    bit_depth = preprocessing.bit_depth if isinstance(preprocessing, Preprocessing) else 0
    source = _make_source(images, known, names, bit_depth=bit_depth)
    chosen = choose_preprocessing(source, preprocessing)
    split = _make_split(len(source), query=query, train=train, database=database)
    for overlap, count in splits.overlaps(split, source.names).items():
        if count:
            part = overlap.removeprefix("query in ")
            raise InputError(
                f"{count:,} of {len(split.query):,} queries are in {part} too; fix: remove them from one of the two"
            )
    if isinstance(source, FileSource):
        missing = source.missing(datasets.used_rows(split))
        if len(missing):
            raise InputError(
                f"{len(missing):,} of {len(source):,} images are missing, the first is {source.name(int(missing[0]))}; "
                "fix: give paths of pictures on this machine"
            )
        source = CachedSource(source, split.train, most_bytes=CACHE_BYTES)
    return datasets.make_dataset(source, split, protocol=PROTOCOL, map_at="all", preprocessing=chosen)


def make_labels(labels: Any, *, classes: Sequence[str] | None = None) -> tuple[Labels, list[str]]:
    """Convert labels in any of the forms that `from_arrays` takes.

    Args:
      labels: as in `from_arrays`.
      classes: the names of the classes, in their order; None: as in `from_arrays`.

    Returns:
      The labels, and the names of the classes.

    Raises:
      InputError: an argument is invalid; the message says why.
    """
    if classes is not None:
        classes = list(classes)
        if isinstance(classes, str) or not classes or not all(isinstance(name, str) for name in classes):
            raise InputError("classes: expected a list of at least one name")
    if isinstance(labels, str | bytes) or not (hasattr(labels, "__array__") or isinstance(labels, Sequence)):
        raise InputError(f"labels: expected an array or a list, got {type(labels).__name__}")
    items = labels
    if hasattr(labels, "__array__"):
        array = np.asarray(labels)
        if array.dtype.kind not in "OU":
            return _labels_from_numbers(array, classes)
        items = array.tolist()
    if not len(items):
        raise InputError("labels are empty; fix: give one label per image")
    sets = [[item] if isinstance(item, str) else item for item in items]
    if all(isinstance(item, list | tuple | set | frozenset) and all(isinstance(x, str) for x in item) for item in sets):
        return _labels_from_texts(sets, classes)
    try:
        array = np.asarray(items)
    except ValueError as error:  # rows of several lengths
        raise InputError("labels: expected rows of the same length; fix: give class ids [n] or 0 and 1 [n, c]") from error
    return _labels_from_numbers(array, classes)


def _labels_from_texts(sets: Sequence[Any], classes: list[str] | None) -> tuple[Labels, list[str]]:
    names = sorted({name for item in sets for name in item}) if classes is None else classes
    if not names:
        raise InputError("labels: no image has a label")
    number = {name: k for k, name in enumerate(names)}
    hot = np.zeros((len(sets), len(names)), np.uint8)
    for row, item in enumerate(sets):
        for name in item:
            if name not in number:
                raise InputError(f"labels[{row}] is {name[:80]!r}, which is not one of the {len(names)} classes given")
            hot[row, number[name]] = 1
    return Labels.from_multi_hot(hot), names


def _labels_from_numbers(array: np.ndarray, classes: list[str] | None) -> tuple[Labels, list[str]]:
    shape = list(array.shape)
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf" or not array.size:
        raise InputError(f"labels: expected class ids int[n], 0 and 1 [n, c], or class names, got {array.dtype}{shape}")
    array = label_columns.to_ids({"labels": array})["labels"]
    if array.ndim == 2:
        odd = array[(array != 0) & (array != 1)]
        if len(odd):
            raise InputError(f"labels of shape {shape} must be 0 or 1, got {odd[0]}; fix: give class ids as int[n]")
        label_columns.check(array, name="labels")
        if classes is not None and len(classes) != array.shape[1]:
            raise InputError(
                f"labels have {array.shape[1]} columns for {len(classes)} classes; fix: give a name for each column"
            )
        names = [str(k) for k in range(array.shape[1])] if classes is None else classes
        return Labels.from_multi_hot(array.astype(np.uint8)), names
    if array.dtype.kind not in "iu":
        raise InputError(f"labels: expected integers as class ids, got {array.dtype}; fix: labels.astype('int64')")
    low, high = int(array.min()), int(array.max())
    count = high + 1 if classes is None else len(classes)
    if low < 0 or high >= min(count, _MOST_CLASSES if classes is None else count):
        most = (_MOST_CLASSES if classes is None else count) - 1
        raise InputError(
            f"labels: expected class ids from 0 to at most {most}, got {low} to {high}; "
            "fix: numpy.unique(labels, return_inverse=True)[1]"
        )
    return Labels.from_ids(array, classes=count), [str(k) for k in range(count)] if classes is None else classes


def _make_source(given: Any, labels: Labels, classes: Sequence[str], *, bit_depth: int) -> Source:
    """Make a source of images in any of the forms that `from_arrays` takes."""
    if isinstance(given, str | bytes | os.PathLike | Image.Image):
        raise InputError(f"images: expected an array or a list, got one {type(given).__name__}; fix: give several, [...]")
    if hasattr(given, "__array__"):
        array = np.asarray(given)
        if array.dtype.kind not in "OU":
            pixels = _check_pixels(array, name="images", grey_dimensions=3)
            _check_length(len(pixels), labels)
            return ArraySource(pixels, labels, classes=classes)
        given = array.tolist()
    try:
        items = list(given)
    except TypeError as error:
        raise InputError(f"images: expected an array or a list, got {type(given).__name__}") from error
    _check_length(len(items), labels)
    if all(isinstance(item, str | os.PathLike) for item in items):
        return FileSource(Path(), labels, classes=classes, names=_check_paths(items))
    pictures = [_pixels(item, name=f"images[{number}]", bit_depth=bit_depth) for number, item in enumerate(items)]
    if len({picture.shape for picture in pictures}) == 1 and not any(isinstance(item, Image.Image) for item in items):
        return ArraySource(np.stack(pictures), labels, classes=classes)
    return PictureSource(pictures, labels, classes=classes)


def _check_length(images: int, labels: Labels) -> None:
    if images != len(labels):
        raise InputError(f"expected as many labels as images, got {len(labels):,} labels of {images:,} images")


def _check_paths(paths: Sequence[str | os.PathLike]) -> Names:
    for number, path in enumerate(paths):
        text = os.fspath(path)
        if not text or any(letter in text for letter in "\0\n\r") or "://" in text:
            raise InputError(f"images[{number}] is {text[:80]!r}: expected the path of a picture on this machine")
    return Names(os.fsencode(storage.expand_home(os.fspath(path))) for path in paths)


def _pixels(item: Any, *, name: str, bit_depth: int) -> np.ndarray:
    """Return one picture, uint8[h, w, 1 or 3]."""
    if isinstance(item, Image.Image):
        try:
            return images.from_picture(item, shorter_side=0, bit_depth=bit_depth)
        except BadImage as error:
            raise InputError(f"{name} {error}") from error
    if isinstance(item, str | bytes | os.PathLike) or not hasattr(item, "__array__"):
        raise InputError(f"{name} is a {type(item).__name__}; fix: give paths only, or PIL images and arrays only")
    return _check_pixels(np.asarray(item), name=name, grey_dimensions=2)


def _check_pixels(array: np.ndarray, *, name: str, grey_dimensions: int) -> np.ndarray:
    """Return pixels with a last axis of 1 or 3 channels, if they are uint8 and not empty."""
    axes = "n, h, w" if grey_dimensions == 3 else "h, w"
    if array.dtype != np.uint8:
        if array.dtype.kind in "fV":
            if np.isnan(array).any():
                raise InputError(f"{name}: expected uint8 from 0 to 255, got {array.dtype} with NaN; fix: restore the images")
            fix = "(255 * images).round().astype('uint8') if they are in [0, 1]"
        else:
            fix = "images.astype('uint8') if they are in 0 to 255"
        raise InputError(f"{name}: expected uint8 from 0 to 255, got {array.dtype}; fix: {fix}")
    pixels = array[..., None] if array.ndim == grey_dimensions else array
    if pixels.ndim != grey_dimensions + 1 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        first = pixels.ndim == grey_dimensions + 1 and pixels.shape[-3] in (1, 3)
        fix = "; fix: move the channels to the last axis" if first else ""
        raise InputError(f"{name}: expected uint8[{axes}], [{axes}, 1] or [{axes}, 3], got {list(array.shape)}{fix}")
    return pixels


def choose_preprocessing(source: Source, given: Preprocessing | None) -> Preprocessing:
    """Return the preprocessing given, if it fits the images, or the default for them."""
    shape = source.pixels.shape[1:3] if isinstance(source, ArraySource) else None
    if given is None:
        if shape is None:
            return PICTURES
        return Preprocessing(resize=0 if shape[0] == shape[1] else min(shape), image_size=min(shape))
    if not isinstance(given, Preprocessing):
        raise InputError(f"preprocessing: expected adsq_jax.data.Preprocessing, got {type(given).__name__}")
    given.check()
    if shape is not None and not given.resize and shape != (given.image_size, given.image_size):
        raise InputError(
            f"images are {shape[0]}x{shape[1]}, and preprocessing leaves them so and expects image_size={given.image_size}; "
            f"fix: Preprocessing(resize={given.image_size}, image_size={given.image_size})"
        )
    return given


def _make_split(n: int, *, query: Rows | None, train: Rows | None, database: Rows | None) -> Split:
    queries = np.zeros(0, np.int64) if query is None else _rows(query, n, name="query")
    rest = np.setdiff1d(np.arange(n), queries)
    given = {"train": train, "database": database}
    split = Split(queries, *(rest if rows is None else _rows(rows, n, name=part) for part, rows in given.items()))
    for part in given:
        if not len(getattr(split, part)):
            raise InputError(f"{part} is empty; fix: leave images that are not queries")
    return split


def _rows(rows: Rows, n: int, *, name: str) -> np.ndarray:
    """Return indices int64[m] in ascending order."""
    if isinstance(rows, slice):
        return np.sort(np.arange(n)[rows])
    try:
        array = np.asarray(rows)
    except ValueError:  # a list of lists of several lengths
        array = np.array(None)
    if array.ndim == 1 and not len(array):
        return np.zeros(0, np.int64)
    if array.dtype == bool and array.shape == (n,):
        return np.flatnonzero(array)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{name}: expected indices int[m], a mask bool[{n}] or a slice, got {array.dtype}{list(array.shape)}")
    if array.min() < 0 or array.max() >= n:
        raise InputError(f"{name}: expected indices from 0 to {n - 1}, got {array.min()} to {array.max()}")
    unique = np.unique(array)
    if len(unique) < len(array):
        raise InputError(f"{name}: expected each index once, got {len(array):,} indices of {len(unique):,} images")
    return unique.astype(np.int64)
