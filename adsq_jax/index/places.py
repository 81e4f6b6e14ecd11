"""Where an index is, and which engine keeps it: a folder of this machine, by LanceDB and faiss, or a Milvus server."""

from pathlib import Path
from typing import TYPE_CHECKING

from adsq_jax.errors import InputError
from adsq_jax.index.filters import is_text
from adsq_jax.index.protocol import CodeIndex, Manifest

if TYPE_CHECKING:
    from adsq_jax.index.embedded import EmbeddedIndex
    from adsq_jax.index.milvus import MilvusIndex


def create(place: str, manifest: Manifest) -> CodeIndex:
    """Opens the index of a place for adding; makes it first, where there is none.

    Args:
      place: a folder, or `http[s]://HOST[:PORT][/COLLECTION][?nlist=N][&nprobe=N]` of a Milvus server: see README.
      manifest: what codes it holds, or is to hold.

    Returns:
      The index.

    Raises:
      InputError: there is an index of other codes, or something else, the server can't be reached, or the extra `index` or
        `milvus` isn't installed.
    """
    found: CodeIndex = (
        _of_servers().create(place, manifest) if _is_address(place) else _of_folders().create(_folder(place), manifest)
    )
    check_same(found, manifest, place=place)
    return found


def open_index(place: str) -> CodeIndex:
    """Opens the index of a place.

    Args:
      place: as of `create`.

    Returns:
      The index.

    Raises:
      InputError: there is none, it is damaged or of another version, the server can't be reached, or the extra `index` or
        `milvus` isn't installed.
    """
    return _of_servers().open(place) if _is_address(place) else _of_folders().open(_folder(place))


def check_same(found: CodeIndex, manifest: Manifest, *, place: str) -> None:
    """Says whether a model's codes belong into an index, or can be looked for there.

    Args:
      found: the index; closed if not.
      manifest: of the model's codes.
      place: of the index, for the message.

    Raises:
      InputError: the index holds codes of another length or of another model.
    """
    theirs = found.manifest
    if (theirs.bits, theirs.model_sha256) == (manifest.bits, manifest.model_sha256):
        return
    found.close()
    if theirs.bits != manifest.bits:
        raise InputError(f"{place} holds codes of {theirs.bits} bits, and these have {manifest.bits}: give another index")
    raise InputError(
        f"{place} holds codes of another model ({theirs.model_sha256[:12] or 'from elsewhere'}, and this one is "
        f"{manifest.model_sha256[:12]}), which can't be compared: give that model, or another index"
    )


def _is_address(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _folder(place: str) -> Path:
    if not place:
        raise InputError("the index is empty: give the path of a folder, or the address of a Milvus server")
    if not is_text(place):
        raise InputError(f"{place!r} isn't UTF-8: give another name for the index")
    if "://" in place:
        raise InputError(f"{place} is no folder of this machine: give a path, or http://HOST:19530 of a Milvus server")
    return Path(place)


def _of_folders() -> "type[EmbeddedIndex]":
    try:
        from adsq_jax.index.embedded import EmbeddedIndex  # a second to import, and an extra
    except ImportError as error:
        raise InputError(f"an index needs LanceDB and faiss ({error.name} is missing): pip install -e '.[index]'") from error
    return EmbeddedIndex


def _of_servers() -> "type[MilvusIndex]":
    try:
        from adsq_jax.index.milvus import MilvusIndex
    except ImportError as error:
        raise InputError(f"a Milvus server needs pymilvus ({error.name} is missing): pip install -e '.[milvus]'") from error
    return MilvusIndex
