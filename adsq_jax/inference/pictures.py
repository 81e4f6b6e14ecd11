"""Which pictures an index, or a run from elsewhere, may make this machine open: those below known folders, and no others.

A path in data is only a text: whoever wrote it may name any file, or an object store that this machine's user has credentials
for. `read` alone decides what is opened.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from adsq_jax import storage
from adsq_jax.data import images
from adsq_jax.data.images import BadImage
from adsq_jax.errors import InputError
from adsq_jax.index import CodeIndex, roots


class Places(NamedTuple):
    """Where pictures that data name may lie."""

    folders: tuple[str, ...]  # absolute paths without links, and places in object stores; each ends with /
    hint: str  # why pictures elsewhere aren't shown, and how to show them

    def find(self, name: str) -> Path | None:
        """Return the path to open for a picture's name, without links; None if it must not be opened."""
        if "://" in name:
            allowed = storage.is_remote(name) and not {"", ".", ".."} & set(name.split("://", 1)[1].split("/"))
            return storage.path(name) if allowed and name.startswith(self._of_stores) else None
        if not os.path.isabs(name) or "\0" in name:
            return None
        path = os.path.realpath(name)
        return Path(path) if path.startswith(self._of_disks) else None

    def holds(self, folder: str) -> bool:
        """Return whether a folder is one of the places, or below one."""
        path = folder if storage.is_remote(folder) else os.path.realpath(folder)
        return f"{path.rstrip('/')}/".startswith(self.folders)

    @property
    def _of_stores(self) -> tuple[str, ...]:
        return tuple(filter(storage.is_remote, self.folders))

    @property
    def _of_disks(self) -> tuple[str, ...]:
        return tuple(folder for folder in self.folders if not storage.is_remote(folder))


def places(opened: CodeIndex, *, folders: Sequence[str], remote: bool) -> Places:
    """Return where the pictures of an index may lie.

    Args:
      opened: the index.
      folders: folders of this machine or of object stores that the user names; none: those that the index was filled from.
      remote: whether those may be in object stores.

    Raises:
      InputError: a folder isn't there, or the index's record of its folders is damaged.
    """
    if folders:
        return named(folders)
    known = roots.read(opened)
    hint = f"{opened.location} doesn't say which folders its pictures come from; fix: give them with --pictures=FOLDER"
    if known:
        hint = "only pictures below the folders that the index was filled from are; fix: give others with --pictures=FOLDER"
    if not remote and any(map(storage.is_remote, known)):
        hint += ", or those in object stores with --remote_pictures"
    return allow((root for root in known if remote or not storage.is_remote(root)), hint=hint)


def named(folders: Sequence[str]) -> Places:
    """Return the places that `--pictures` names.

    Raises:
      InputError: one isn't a folder.
    """
    for folder in folders:
        try:
            is_there = bool(folder) and storage.is_folder(storage.path(folder))
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            is_there = False
        if not is_there:
            raise InputError(f"--pictures={folder} isn't there: expected a folder of pictures")
    paths = (str(storage.path(folder)) for folder in folders)
    return allow(paths, hint="only pictures below --pictures are; fix: give other folders too, each with --pictures=FOLDER")


def allow(folders: Iterable[str], *, hint: str) -> Places:
    """Return the places below some folders, which needn't exist."""
    absolute = (folder if storage.is_remote(folder) else os.path.realpath(folder) for folder in folders)
    return Places(tuple(f"{folder.rstrip('/')}/" for folder in absolute), hint)


def read(name: str, places: Places) -> bytes:
    """Read the picture of an item.

    Args:
      name: the item's id, or any other text.
      places: where pictures may lie.

    Returns:
      The file's content.

    Raises:
      BadImage: it isn't at one of the places, is missing, or can't be read.
    """
    path = places.find(name)
    if path is None:
        raise BadImage(f"isn't shown: {places.hint}")
    return images.read(path)


def outside(names: Iterable[str], places: Places) -> int:
    """Return how many pictures are at none of the places; a record of TFDS is no file."""
    return sum(places.find(name) is None for name in names if os.path.isabs(name) or "://" in name)
