"""The folder of a run: whose it is, and files that are whole or not there."""

import fcntl
import io
import json
import os
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from adsq_jax.errors import InputError


def claim(directory: Path, config: dict[str, Any]) -> IO[str]:
    """Makes a folder this run's own: writes `config.json`, or finds the same one there.

    Args:
      directory: the folder; made if it isn't there.
      config: of the run, what JSON can hold.

    Returns:
      The open lock file; the claim ends when it is closed.

    Raises:
      InputError: the folder belongs to another config or another process, holds something else, or can't be written.
    """
    check(directory, config)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    except OSError as error:
        raise _unwritable(directory, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise InputError(f"--workdir={directory} is in use by another run: wait, or give another folder") from error
    try:
        if not (directory / "config.json").exists():
            write_json(directory / "config.json", config)
    except OSError as error:
        lock.close()
        raise _unwritable(directory, error) from error
    return lock


def check(directory: Path, config: dict[str, Any]) -> None:
    """Says whether `claim` would fail for what is in the folder; writes nothing.

    Raises:
      InputError: as `claim`.
    """
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError(f"--workdir={directory} is a file: give a folder")
    path = directory / "config.json"
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in directory.iterdir()):
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
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} can't be read as JSON ({error}): restore it, or give another folder") from error


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    _replace(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    _replace(path, buffer.getvalue())


def _unwritable(directory: Path, error: OSError) -> InputError:
    return InputError(f"--workdir={directory} can't be written ({error.strerror}): give another folder")


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, below in tree.items()
        for key, value in _flat(below, f"{prefix}.{name}" if prefix else name).items()
    }
