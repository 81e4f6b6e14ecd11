"""The model that an index in a folder keeps beside its codes: an untrained one, which no run's folder has.

An index on a server keeps none.
"""

from pathlib import Path

from adsq_jax.errors import InputError
from adsq_jax.index.engine import CodeIndex
from adsq_jax.run import workdir

FOLDER = "model"  # in the index's folder
_FILES = ("weights.safetensors", "model.json")  # the description last: with it, the model is whole


def is_in(opened: CodeIndex) -> bool:
    """Return whether an index keeps its model; if so, its location is where `adsq_jax.load` finds it."""
    return "://" not in opened.location and (_folder(opened) / _FILES[-1]).is_file()


def copy(source: CodeIndex, target: CodeIndex) -> None:
    """Copy the model of an index to another index in a folder; do nothing if there is none, or the target has one.

    Raises:
      InputError: it can't be read or written.
    """
    if not is_in(source) or is_in(target) or "://" in target.location:
        return
    try:
        workdir.make_folder(_folder(target))
        for name in _FILES:
            workdir.write_bytes(_folder(target) / name, (_folder(source) / name).read_bytes())
    except OSError as error:
        raise InputError(
            f"the model of {source.location} can't be copied to {target.location} ({error.strerror}); fix: make room, or "
            "change its permissions, and give the same command again"
        ) from error


def _folder(opened: CodeIndex) -> Path:
    return Path(opened.location) / FOLDER
