"""Checks of what `--out` names, made before the work begins, so that no work is lost and no file overwritten."""

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.run import workdir


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an `OSError` raised inside into an `InputError` that names `--out`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"--out={str(out)[:200]} can't be written ({error.strerror}); fix: give another path") from error


def check_new_file(out: Path, *, suffixes: Collection[str] = ()) -> Path:
    """Return `out`, or raise InputError if that file exists, can't be written, or has none of the suffixes."""
    if suffixes and out.suffix not in suffixes:
        raise InputError(f"--out={out}: expected a name that ends with {' or '.join(suffixes)}")
    with writing(out), storage.translate_errors(out):
        remote = storage.is_remote(out)
        if storage.is_file(out) if remote else os.path.lexists(out):
            raise InputError(f"--out={out} is there already; fix: give another file, or remove it; nothing was overwritten")
        if not (remote or out.parent.is_dir()):
            raise InputError(f"--out={out}: expected a file in an existing folder; fix: make the folder first")
        workdir.write_bytes(out, b"")
        out.unlink()
    return out


def check_folder(out: Path, *, replaceable: Collection[str] = ()) -> Path:
    """Return `out`, or raise InputError if that folder can't be written, or holds files that aren't replaceable.

    It must be on this machine; it may be new.
    """
    if storage.is_remote(out):
        raise InputError(f"--out={out} is in an object store; fix: give a folder on this machine")
    with writing(out):
        if os.path.lexists(out) and not out.is_dir():
            raise InputError(f"--out={out} is not a folder; fix: give a folder; nothing was overwritten")
        unfinished = tuple(f".{name}." for name in replaceable)  # temporary files of a write that was killed
        others = [
            name
            for name in (sorted(os.listdir(out)) if out.exists() else [])
            if name not in replaceable and not (unfinished and name.startswith(unfinished))
        ]
        if others:
            raise InputError(
                f"--out={out} holds other files ({others[0]!r:.100}); fix: give an empty folder; nothing was overwritten"
            )
        existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
        workdir.write_bytes(existing / ".adsq_jax", b"")
        (existing / ".adsq_jax").unlink()
    return out
