"""Pictures to encode, with or without labels: a folder, a picture, a list file, or a data set of TFDS."""

import fnmatch
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.readers import folder, lists
from adsq_jax.data.sources import Source, Subset
from adsq_jax.errors import InputError

_TFDS = "tfds:"
_SHOWN = 3  # missing pictures that a message names


class Gallery(NamedTuple):
    """Images, and the ids that they have in an index."""

    source: Source
    prefix: str  # an image's id is the prefix and its name
    is_folder: bool  # whether everything below `prefix` belongs to it

    def __len__(self) -> int:
        return len(self.source)

    @property
    def is_on_files(self) -> bool:
        """Whether an id is the path of a file; a record of TFDS has none."""
        return not self.prefix.startswith(_TFDS)

    def id(self, row: int) -> str:
        """Return an image's id in an index: its absolute path, `gs://...`, or `tfds:NAME#ROW`."""
        names = self.source.names
        return self.prefix + (str(row) if self.prefix.startswith(_TFDS) or names is None else os.fsdecode(names.raw(row)))

    def labels(self, row: int) -> tuple[str, ...]:
        """Return the names of an image's classes."""
        return tuple(self.source.classes[k] for k in np.flatnonzero(self.source.labels[row]) if self.source.classes[k])


def read(images: str, *, directory: str) -> Gallery:
    """Open the pictures that a flag names.

    Args:
      images: a folder, whose pictures at any depth have the first folder below it as their label; a picture; a list file (a
        path a line, alone or with labels in the forms of `lists.read`, whose classes classes.txt beside it may name); or
        `tfds:NAME`, `tfds:NAME@SPLIT`.
      directory: where the paths of a list begin, "" for the list's folder; or TFDS's data_dir, "" for its default.

    Returns:
      The pictures, at least one.

    Raises:
      InputError: they are missing or can't be read.
    """
    if not images:
        raise InputError("--images is empty: expected a folder, a picture, a list file, or tfds:NAME")
    if images.startswith(_TFDS):
        return _open_tfds(images, directory)
    path = storage.path(images)
    try:
        with storage.translate_errors(path):
            if storage.is_file(path) and folder.is_picture(os.fsencode(path.name)):
                if directory:
                    raise InputError(f"--directory={directory} goes with a list or TFDS, and --images={images} is a picture")
                source = lists.unlabelled(path.parent, [os.fsencode(path.name)])
                return Gallery(source, _prefix(path.parent), is_folder=False)
            if storage.is_file(path):
                root = storage.path(directory) if directory else path.parent
                read_list = lists.read_plain if lists.is_plain(path) else lists.read_one
                return Gallery(read_list(path, directory=root), _prefix(root), is_folder=False)
            if directory:
                raise InputError(f"--directory={directory} needs a list file or TFDS, and --images={images} is neither")
            if not storage.is_folder(path):
                raise InputError(f"--images={images} isn't there: expected a folder, a picture, a list file, or tfds:NAME")
            return Gallery(folder.read_all(path), _prefix(path), is_folder=True)
    except OSError as error:
        raise InputError(
            f"{images} can't be read ({error.strerror}): expected a folder, a picture, a list file, or tfds:NAME"
        ) from error


def check_present(gallery: Gallery) -> None:
    """Check that not all pictures of a list are missing: a wrong folder is told before a million of them are tried one by one.

    Raises:
      InputError: none of them is there.
    """
    if gallery.is_folder or not gallery.is_on_files or storage.is_remote(gallery.prefix):
        return
    rows = range(len(gallery))
    if not any(os.path.exists(gallery.id(row)) for row in rows):
        first = ", ".join(gallery.source.location(row) for row in rows[:_SHOWN])
        raise InputError(
            f"none of the {len(gallery):,} images of the list is there, the first are {first}; fix: give the folder of its "
            "paths with --directory"
        )


def _prefix(path: Path) -> str:
    return os.path.join(storage.normal(path), "")


def _open_tfds(images: str, directory: str) -> Gallery:
    from adsq_jax.data.readers import tfds_sets  # imports TFDS, which takes a second

    name, _, split = images.removeprefix(_TFDS).partition("@")
    source = tfds_sets.read(name, directory, splits=[split] if split else None)
    return Gallery(source, f"{images}#", is_folder=False)


def without(gallery: Gallery, patterns: Sequence[str]) -> Gallery:
    """Leave pictures out whose paths match a pattern.

    Args:
      gallery: the pictures.
      patterns: as a shell has them, of an image's path below the folder or of its whole id: `*/drafts/*`, `*.gif`.

    Returns:
      The others, at least one.

    Raises:
      InputError: a pattern matches nothing, or none is left.
    """
    if not patterns:
        return gallery
    if not gallery.is_on_files:
        raise InputError("--exclude goes with files, and records of TFDS have no paths; fix: leave it out")
    ids = [gallery.id(row) for row in range(len(gallery))]
    kept = np.ones(len(ids), bool)
    for pattern in patterns:
        matches = re.compile(fnmatch.translate(storage.expand_home(pattern))).match
        found = np.array([bool(matches(name) or matches(name.removeprefix(gallery.prefix))) for name in ids])
        if not found.any():
            raise InputError(f"--exclude={pattern} matches none of the {len(ids):,} images; fix: leave it out, or correct it")
        kept &= ~found
    rows = np.flatnonzero(kept)
    if not len(rows):
        raise InputError(f"--exclude leaves none of the {len(ids):,} images; fix: exclude fewer")
    source, ids_of_classes = gallery.source, gallery.source.labels.ids(rows)
    if ids_of_classes is None:
        labels = Labels.from_multi_hot(source.labels[rows])
    else:
        labels = Labels.from_ids(ids_of_classes, classes=len(source.classes))
    others = Subset(source, rows, labels=labels, classes=source.classes, parts={})
    return Gallery(others, gallery.prefix, gallery.is_folder)
