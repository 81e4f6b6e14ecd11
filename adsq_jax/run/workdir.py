"""The folder of a run, on a disk or in an object store: whose it is, and files that are whole or not there."""

import contextlib
import fcntl
import io
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from adsq_jax import storage
from adsq_jax.errors import InputError

path = storage.path  # what a flag names


def claim(directory: Path, config: dict[str, Any]) -> IO[str]:
    """Makes a folder this run's own: writes `config.json`, or finds the same one there.

    In an object store there are no locks: of two runs of the same config at the same time neither is refused.

    Args:
      directory: the folder; made if it isn't there.
      config: of the run, what JSON can hold.

    Returns:
      The open lock file; the claim ends when it is closed. For an object store, a stand-in.

    Raises:
      InputError: the folder belongs to another config or another process, holds something else, or can't be written.
    """
    check(directory, config)
    if storage.is_remote(directory):
        return _claim_without_lock(directory, config)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # a pipe in its place is an error, and not waited for
        lock = os.fdopen(os.open(directory / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o644), "w")
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        check(directory, config)  # again: another run may have claimed it in between
        if not (directory / "config.json").exists():
            write_json(directory / "config.json", config)
    except BlockingIOError as error:
        lock.close()
        raise InputError(f"--workdir={directory} is in use by another run: wait, or give another folder") from error
    except OSError as error:
        lock.close()
        raise _unusable(directory, error) from error
    except InputError:
        lock.close()
        raise
    return lock


def _claim_without_lock(directory: Path, config: dict[str, Any]) -> IO[str]:
    try:
        if not storage.is_file(directory / "config.json"):
            write_json(directory / "config.json", config)
    except OSError as error:
        raise _unusable(directory, error) from error
    check(directory, config)  # again: another run may have written its own in between
    return io.StringIO()


def check(directory: Path, config: dict[str, Any]) -> None:
    """Says whether `claim` would fail for what is in the folder; writes nothing.

    Raises:
      InputError: as `claim`.
    """
    path = directory / "config.json"
    try:
        entries = storage.entries(directory).keys()
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise InputError(f"--workdir={directory} is a file, or below one: give a folder") from error
    except OSError as error:
        raise _unusable(directory, error) from error
    if path.name not in entries:
        if any(not name.startswith(".") for name in entries):
            raise InputError(
                f"--workdir={directory} holds other files and no config.json: give an empty or a new folder, nothing was "
                "overwritten"
            )
        return
    theirs = _flat(read_json(path))
    ours = _flat(json.loads(json.dumps(config)))
    other = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if other:
        shown = ", ".join(f"{key} is {theirs.get(key)!r} there and {ours.get(key)!r} here" for key in other[:3])
        more = f", and {len(other) - 3} more" if len(other) > 3 else ""
        raise InputError(
            f"--workdir={directory} belongs to a run of another config ({shown}{more}): give another folder, or that config"
        )


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: it isn't one.
    """
    try:
        return json.loads(storage.read(path).decode())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, a number too long
        raise InputError(f"{path} can't be read as JSON ({error}): restore it, or give another folder") from error


def read_array(path: Path, *, what: str) -> np.ndarray:
    """Maps a .npy file into memory, so that what isn't looked at isn't read; from an object store, reads it.

    Args:
      path: the file.
      what: what it should be, for the message.

    Returns:
      The array, read-only.

    Raises:
      InputError: it isn't there, is no regular file or no .npy file, is cut short, or holds Python objects, which are never
        unpickled.
    """
    try:
        if not storage.is_file(path):  # to open a pipe would wait for ever
            raise InputError(f"{path} can't be read as {what}: it is no file, or one that may not be read")
        content = storage.read(path) if storage.is_remote(path) else None
    except OSError as error:
        raise InputError(f"{path} can't be read as {what} ({error.strerror}): give another file") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return np.lib.format.open_memmap(path, mode="r") if content is None else _parsed(content)
    except Exception as error:  # NumPy's parser of headers lets through whatever Python's tokenizer raises
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{path} can't be read as {what} ({said[0][:200]}): expected an array of numbers as numpy.save writes it, not empty"
        ) from error


def _parsed(content: bytes) -> np.ndarray:
    """The array of a .npy file, read-only as a mapped one."""
    array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    array.flags.writeable = False
    return array


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def _unusable(directory: Path, error: OSError) -> InputError:
    return InputError(f"--workdir={directory} can't be used ({error.strerror}): give another folder")


def make_folder(path: Path) -> None:
    """Makes a folder, unless it is there; in an object store it comes with its first file."""
    if not storage.is_remote(path):
        path.mkdir(exist_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all."""
    if storage.is_remote(path):
        storage.write(path, content)
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.")  # a name can be as long as names may be
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink()
        raise


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Says in one line that what `--out` names can't be written.

    Raises:
      InputError: of an `OSError` that was raised within.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"--out={str(out)[:200]} can't be written ({error.strerror}): give another place") from error


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, below in tree.items()
        for key, value in _flat(below, f"{prefix}.{name}" if prefix else name).items()
    }
