"""Read a file of a published data set, or say where to get it."""

from pathlib import Path

from adsq_jax import storage
from adsq_jax.errors import InputError


def read(path: Path, *, fix: str, size: int | None = None) -> bytes:
    """Read a file on this machine or in an object store; `fix` says what to do if it is missing or hasn't `size` bytes."""
    if not storage.is_file(path):
        raise InputError(f"{path} is missing; fix: {fix}")
    try:
        actual = storage.size(path)
        if size in (None, actual):
            return storage.read(path)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); fix: change its permissions, or {fix}") from error
    raise InputError(f"{path} has {actual:,} bytes: expected {size:,}; fix: {fix}")
