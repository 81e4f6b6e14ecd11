"""Open an index with the engine for its location: a folder (LanceDB and faiss), or the address of a Milvus server."""

from pathlib import Path

from adsq_jax.errors import InputError
from adsq_jax.index.engine import CodeIndex, Manifest, check_model
from adsq_jax.index.filters import is_text


def create(location: str | Path, manifest: Manifest) -> CodeIndex:
    """Open an index for adding; make it first if there is none.

    Args:
      location: a folder, or `http[s]://HOST[:PORT][/COLLECTION][?nlist=N][&nprobe=N]` of a Milvus server: see README.
      manifest: the manifest of the codes that will be added.

    Returns:
      The open index.

    Raises:
      InputError: the location holds codes of another model or something else, the server can't be reached, or the extra `index`
        or `milvus` isn't installed.
    """
    opened = _engine(str(location)).create(str(location), manifest)
    try:
        check_model(opened, manifest)
    except InputError:
        opened.close()
        raise
    return opened


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
    return _engine(str(location)).open(str(location))


def _engine(location: str) -> type[CodeIndex]:
    """Import the engine for a location: that takes a second, and needs an extra."""
    if location.startswith(("http://", "https://")):
        try:
            from adsq_jax.index.milvus import MilvusIndex
        except ModuleNotFoundError as error:
            raise InputError(
                f"a Milvus server needs pymilvus ({error.name} is missing); fix: pip install -e '.[milvus]'"
            ) from error
        return MilvusIndex
    if not location:
        raise InputError("the index is empty: expected the path of a folder, or the address of a Milvus server")
    if not is_text(location):
        raise InputError(f"{location!r} isn't UTF-8; fix: give another name for the index")
    if "://" in location:
        raise InputError(
            f"{location} is not a folder on this machine: expected a path, or http://HOST:19530 of a Milvus server"
        )
    try:
        from adsq_jax.index.embedded import EmbeddedIndex
    except ModuleNotFoundError as error:
        raise InputError(
            f"an index needs LanceDB and faiss ({error.name} is missing); fix: pip install -e '.[index]'"
        ) from error
    return EmbeddedIndex
