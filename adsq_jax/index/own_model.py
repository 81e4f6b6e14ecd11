"""The model that an index in a folder keeps beside its codes: an untrained one, which no run's folder has.

An index on a server keeps none. An index may come from anybody: no link is followed, and nothing but regular files is read.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from adsq_jax.errors import InputError
from adsq_jax.index.engine import CodeIndex
from adsq_jax.run import workdir

FOLDER = "model"  # in the index's folder
_FILES = ("weights.safetensors", "model.json")  # the description last: with it, the model is whole


def is_in(opened: CodeIndex) -> bool:
    """Return whether an index keeps its model; if so, its location is where `adsq_jax.load` finds it."""
    if "://" in opened.location:
        return False
    folder = Path(opened.location) / FOLDER
    return _is(folder, stat.S_ISDIR) and all(_is(folder / name, stat.S_ISREG) for name in _FILES)


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a model into a new index's folder; one that was cut short there is completed.

    Args:
      folder: the index's, locked.
      files: by name; none: the index keeps no model.

    Raises:
      InputError: another model is there, or what is no model.
      OSError: they can't be written.
    """
    if not files:
        return
    place = folder / FOLDER
    if os.path.lexists(place) and not _is(place, stat.S_ISDIR):
        raise InputError(f"{place} is not a folder; fix: give another folder for the index")
    for name in sorted(files, key=_FILES.index):
        if os.path.lexists(place / name) and (
            not _is(place / name, stat.S_ISREG) or (place / name).read_bytes() != files[name]
        ):
            raise InputError(f"{folder} holds another model; fix: give another folder for the index, or remove {place}")
    workdir.make_folder(place)
    for name in sorted(files, key=_FILES.index):
        if not os.path.lexists(place / name):
            workdir.write_bytes(place / name, files[name])


def read(opened: CodeIndex) -> dict[str, bytes] | None:
    """Return the files of the model that an index keeps, by name; None if it keeps none.

    Raises:
      InputError: they can't be read.
    """
    if not is_in(opened):
        return None
    try:
        return {name: (Path(opened.location) / FOLDER / name).read_bytes() for name in _FILES}
    except OSError as error:
        raise InputError(f"the model of {opened.location} can't be read ({error.strerror}); fix: restore it") from error


def _is(path: Path, kind: object) -> bool:
    """Return whether a path itself, and not what a link leads to, is of a kind."""
    try:
        return bool(kind(path.lstat().st_mode))  # type: ignore[operator]
    except OSError:
        return False
