"""The folder of a run, on a disk or in an object store: claim it for one config, and write its files atomically."""

import contextlib
import fcntl
import io
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np

from adsq_jax import storage
from adsq_jax.errors import InputError, first_line


def claim(directory: Path, config: dict[str, Any]) -> IO[str]:
    """Reserve a folder for one run until the returned lock is closed; make it, and write `config.json` there.

    Object stores have no locks: there, two runs of the same config at the same time are not refused.

    Raises:
      InputError: the folder has another config or other files, another process uses it, or it can't be written.
    """
    check(directory, config)
    with contextlib.ExitStack() as on_error:
        try:
            lock: IO[str] = io.StringIO()
            if not storage.is_remote(directory):
                directory.mkdir(parents=True, exist_ok=True)
                # O_NONBLOCK: opening a pipe of that name fails instead of waiting for a reader
                lock = os.fdopen(os.open(directory / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o644), "w")
                on_error.callback(lock.close)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                check(directory, config)  # another run may have claimed the folder since the first check
            if not storage.is_file(directory / "config.json"):
                write_json(directory / "config.json", config)
            if storage.is_remote(directory):
                check(directory, config)  # without a lock, another run may have written its config at the same time
        except BlockingIOError as error:
            raise InputError(f"--workdir={directory} is in use by another run; fix: wait, or give another folder") from error
        except OSError as error:
            raise _unusable(directory, error) from error
        on_error.pop_all()
    return lock


def check(directory: Path, config: dict[str, Any]) -> None:
    """Raise InputError as `claim` does, unless a folder is new, empty or of the same config; write nothing."""
    try:
        names = storage.entries(directory).keys()
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise InputError(f"--workdir={directory} is a file, or below a file; fix: give a folder") from error
    except OSError as error:
        raise _unusable(directory, error) from error
    if "config.json" not in names:
        if any(not name.startswith(".") for name in names):
            raise InputError(
                f"--workdir={directory} holds other files and no config.json; fix: give a new or an empty folder; nothing was "
                "overwritten"
            )
        return
    theirs = _flatten(read_json(directory / "config.json"))
    ours = _flatten(json.loads(json.dumps(config)))
    different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if different:
        listed = ", ".join(f"{key} is {theirs.get(key)!r:.100} there and {ours.get(key)!r:.100} here" for key in different[:3])
        more = f", and {len(different) - 3} more" if len(different) > 3 else ""
        raise InputError(
            f"--workdir={directory} belongs to a run of another config ({listed}{more}); fix: give another folder, or the "
            "same config"
        )


def read_json(path: Path) -> Any:
    """Read a JSON file; raise InputError if it can't be read or isn't JSON."""
    try:
        return json.loads(storage.read(path).decode())
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a number too long
        raise InputError(f"{path} can't be read as JSON ({error}); fix: restore it, or give another folder") from error


def read_array(path: Path, *, description: str) -> np.ndarray:
    """Open a .npy file read-only: mapped into memory from a disk, read at once from an object store.

    Raises:
      InputError: the file is missing or not a complete .npy file, or holds Python objects, which are never unpickled. The text
        names it by the description.
    """
    try:
        if not storage.is_file(path):  # opening a pipe would wait for ever
            raise InputError(f"{path} can't be read as {description}: expected a regular file that you may read")
        content = storage.read(path) if storage.is_remote(path) else None
    except OSError as error:
        raise InputError(f"{path} can't be read as {description} ({error.strerror}); fix: give another file") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if content is None:
                return np.lib.format.open_memmap(path, mode="r")
            array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # for a damaged header NumPy raises whatever Python's tokenizer does
        raise InputError(
            f"{path} can't be read as {description} ({first_line(error)}): expected a non-empty array of numbers by numpy.save"
        ) from error
    array.flags.writeable = False
    return array


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_bytes(path, (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old file or the new one, never a part."""
    if storage.is_remote(path):
        storage.write(path, content)
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.")  # [:50]: names have a longest length
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink()
        raise


def make_folder(path: Path) -> None:
    """Make a folder unless it exists; in an object store, writing its first file makes it."""
    if not storage.is_remote(path):
        path.mkdir(exist_ok=True)


def _unusable(directory: Path, error: OSError) -> InputError:
    return InputError(f"--workdir={directory} can't be used ({error.strerror}); fix: give another folder")


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dicts by their dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, below in tree.items()
        for key, value in _flatten(below, f"{prefix}.{name}" if prefix else name).items()
    }
