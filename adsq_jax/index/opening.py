"""Open an index with the engine for its location: a folder (LanceDB and faiss), or the address of a Milvus server."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.index.engine import CodeIndex, Manifest, check_model
from adsq_jax.index.filters import is_text


def create(location: str | Path, manifest: Manifest, *, model: Mapping[str, bytes] | None = None) -> CodeIndex:
    """Open an index for adding; make it first if there is none.

    Args:
      location: a folder, or `http[s]://HOST[:PORT][/COLLECTION][?nlist=N][&nprobe=N]` of a Milvus server.
      manifest: the manifest of the codes that will be added.
      model: the files of the model, as `Model.files` has them, for a new index in a folder to keep; None: it keeps none.

    Returns:
      The open index.

    Raises:
      InputError: the location holds codes of another model or something else, the server can't be reached, or the extra `index`
        or `milvus` isn't installed.
    """
    place = _place(location)
    made = _engine(place).create(place, manifest, model=model)
    try:
        check_model(made, manifest)
    except InputError:
        made.close()
        raise
    return made


def exists(location: str | Path) -> bool:
    """Return whether there is an index at a location, whole or damaged.

    Args:
      location: as in `create`.

    Raises:
      InputError: the server can't be reached, or an extra isn't installed.
    """
    place = _place(location)
    return _engine(place).exists(place)


def open_index(location: str | Path) -> CodeIndex:
    """Open an existing index.

    Args:
      location: as in `create`.

    Returns:
      The open index.

    Raises:
      InputError: there is none, it is damaged or of another version, the server can't be reached, or the extra `index` or
        `milvus` isn't installed.
    """
    place = _place(location)
    return _engine(place).open(place)


@contextlib.contextmanager
def opened(index: str | Path | CodeIndex) -> Iterator[CodeIndex]:
    """Open the index at a location, and close it at the end; one that is open already stays open."""
    if isinstance(index, CodeIndex):
        yield index
    else:
        with open_index(index) as found:
            yield found


def _is_address(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def _place(location: str | Path) -> str:
    """Return the address of a server, or the absolute path of a folder, which every library reads in the same way."""
    text = str(location)
    if _is_address(text):
        return text
    if not text:
        raise InputError("the index is empty: expected the path of a folder, or the address of a Milvus server")
    if "://" in text:
        raise InputError(f"{text} is not a folder on this machine: expected a path, or http://HOST:19530 of a Milvus server")
    folder = storage.absolute(text)
    if not is_text(folder):
        raise InputError(f"{folder!r} isn't UTF-8; fix: give another name for the index")
    return folder


def _engine(place: str) -> type[CodeIndex]:
    """Import the engine for a place: that takes a second, and needs an extra."""
    if _is_address(place):
        try:
            from adsq_jax.index.milvus import MilvusIndex
        except ModuleNotFoundError as error:
            raise InputError(
                f"a Milvus server needs pymilvus ({error.name} is missing); fix: pip install 'adsq_jax[milvus]'"
            ) from error
        return MilvusIndex
    try:
        from adsq_jax.index.embedded import EmbeddedIndex
    except ModuleNotFoundError as error:
        raise InputError(
            f"an index needs LanceDB and faiss ({error.name} is missing); fix: pip install 'adsq_jax[index]'"
        ) from error
    return EmbeddedIndex
