"""Pictures to encode, labelled or not: a folder, a list file, or a data set of TFDS."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adsq_jax import storage
from adsq_jax.data.readers import folder, lists
from adsq_jax.data.sources import FileSource, Source
from adsq_jax.errors import InputError

_TFDS = "tfds:"


class Gallery(NamedTuple):
    """Images with the names that they have in an index."""

    source: Source
    prefix: str  # an image's id is this and its name
    is_folder: bool  # whether all that is below `prefix` belongs to it

    def __len__(self) -> int:
        return len(self.source)

    def id(self, row: int) -> str:
        """What names an image everywhere: its absolute path, `gs://...`, or `tfds:NAME#ROW`."""
        names = self.source.names
        return self.prefix + (str(row) if self.prefix.startswith(_TFDS) or names is None else os.fsdecode(names.raw(row)))

    def labels(self, row: int) -> tuple[str, ...]:
        """The names of an image's classes."""
        return tuple(self.source.classes[k] for k in np.flatnonzero(self.source.labels[row]) if self.source.classes[k])


def read(images: str, *, directory: str) -> Gallery:
    """Opens pictures by what a flag says.

    Args:
      images: a folder, whose pictures at any depth have the first folder below it as their label; a list file (a path, then a 0
        or 1 for each class; the names of the classes in classes.txt beside it); or `tfds:NAME`, `tfds:NAME@SPLIT`.
      directory: where the paths of a list begin, its own folder if "" is given; TFDS's data_dir, its own default if "".

    Returns:
      The pictures, at least one.

    Raises:
      InputError: they aren't there, or can't be read.
    """
    if not images:
        raise InputError("--images is empty: give a folder, a list file, or tfds:NAME")
    if images.startswith(_TFDS):
        return _of_tfds(images, directory)
    place = storage.path(images)
    try:
        with storage.reached(place):
            if storage.is_file(place):
                return _of_list(place, directory)
            if directory:
                raise InputError(f"--directory={directory} goes with a list file or TFDS, and --images={images} is none")
            if not storage.is_folder(place):
                raise InputError(f"--images={images} isn't there: give a folder, a list file, or tfds:NAME")
            return Gallery(folder.read_all(place), _root(place), is_folder=True)
    except OSError as error:
        raise InputError(f"{images} can't be read ({error.strerror}): give a folder, a list file, or tfds:NAME") from error


def _root(place: Path) -> str:
    return f"{str(place).rstrip('/')}/" if storage.is_remote(place) else os.path.join(os.path.abspath(place), "")


def _of_list(path: Path, directory: str) -> Gallery:
    source: FileSource = lists.read_one(path, directory=storage.path(directory) if directory else path.parent)
    return Gallery(source, _root(storage.path(directory) if directory else path.parent), is_folder=False)


def _of_tfds(images: str, directory: str) -> Gallery:
    from adsq_jax.data.readers import tfds_sets  # TFDS takes a second to import: only where it is wanted

    name, _, split = images.removeprefix(_TFDS).partition("@")
    source = tfds_sets.read(name, directory, splits=[split] if split else None)
    return Gallery(source, f"{images}#", is_folder=False)
