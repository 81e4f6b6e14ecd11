"""What `--out` names: checked before the work begins, so that nothing is lost after it and nothing is overwritten."""

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.run import workdir


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn an `OSError` raised inside into an `InputError` that names `--out`.

    Raises:
      InputError: `out` can't be written.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"--out={str(out)[:200]} can't be written ({error.strerror}); fix: give another place") from error


def check_new_file(out: Path, *, suffixes: Collection[str] = ()) -> Path:
    """Check that a file can be written where none is yet.

    Args:
      out: the file, on this machine or in an object store.
      suffixes: the endings that its name may have; none given: any.

    Returns:
      `out`.

    Raises:
      InputError: something is there, the folder isn't, or it can't be written.
    """
    if suffixes and out.suffix not in suffixes:
        raise InputError(f"--out={out}: expected a name that ends with {' or '.join(suffixes)}")
    with writing(out), storage.reached(out):
        remote = storage.is_remote(out)
        if storage.is_file(out) if remote else os.path.lexists(out):
            raise InputError(f"--out={out} is there already; fix: give another file, or remove it; nothing was overwritten")
        if not (remote or out.parent.is_dir()):
            raise InputError(f"--out={out}: expected a file in a folder that is there; fix: make the folder first")
        workdir.write_bytes(out, b"")
        out.unlink()
    return out


def check_folder(out: Path, *, own: Collection[str] = ()) -> Path:
    """Check that a folder can be written: new, empty, or with nothing but earlier files of the same names.

    Args:
      out: the folder, of this machine.
      own: names of files that an earlier call may have left there, and that are replaced.

    Returns:
      `out`.

    Raises:
      InputError: it is in an object store, holds other files, is no folder, or can't be written.
    """
    if storage.is_remote(out):
        raise InputError(f"--out={out} is in an object store; fix: give a folder of this machine")
    with writing(out):
        if os.path.lexists(out) and not out.is_dir():
            raise InputError(f"--out={out} is no folder; fix: give a folder; nothing was overwritten")
        left = tuple(f".{name}." for name in own)  # an unfinished write that was killed
        names = sorted(os.listdir(out)) if out.exists() else []
        others = [name for name in names if name not in own and not name.startswith(left or "\0")]
        if others:
            raise InputError(
                f"--out={out} holds other files ({others[0]!r:.100}); fix: give a new or an empty folder; nothing was overwritten"
            )
        there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
        workdir.write_bytes(there / ".adsq_jax", b"")
        (there / ".adsq_jax").unlink()
    return out
