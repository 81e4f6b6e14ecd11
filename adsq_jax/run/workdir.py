"""The folder of a run, on a disk or in an object store: claim it for one config, and write its files atomically."""

import contextlib
import errno
import io
import json
import math
import os
import re
import tempfile
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from adsq_jax import storage
from adsq_jax.errors import InputError, first_line, printable
from adsq_jax.run.file_locks import FileLock

# A temporary file of `write_bytes`, and the folders of a run that may have some.
_TEMPORARY = re.compile(r"\..+\.(json|jsonl|npy|safetensors)\.[a-z0-9_]{8}")
_FOLDERS = ("codes", "model", "checkpoints", "best", "best/model")
_NO_FOLDER_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP}  # network disks lock what is open for writing
# The longest name that Linux takes, less what orbax adds below the folder of a run: checkpoints, a step, its temporary files.
_LONGEST_NAME = 4_096 - 512
_DEEPEST = 50  # levels of a JSON file; a config has five
_READ_HEADER = {  # of a .npy file, by its version; the third is for records, whose fields have names
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def claim(
    directory: Path, config: dict[str, Any], *, may_change: Collection[str] = (), added: Mapping[str, Any] | None = None
) -> contextlib.ExitStack:
    """Reserve a folder for one run until what is returned is closed; make it, and write `config.json` there.

    Object stores have no locks: there, two runs of the same config at the same time are not refused.

    Args:
      directory: the folder.
      config: the run's config.
      may_change: keys, with dots, that may have other values than in the folder's `config.json`, which then gets those of now.
      added: the values of keys that an older `config.json` may lack; None: it lacks none.

    Raises:
      InputError: the folder has another config or other files, another process uses it, or it can't be written.
    """
    changed = check(directory, config, may_change=may_change, added=added)
    with contextlib.ExitStack() as locks:
        try:
            if not storage.is_remote(directory):
                directory.mkdir(parents=True, exist_ok=True)
                # The folder's own lock stays if somebody removes `.lock`, which network disks and Windows need.
                locks.enter_context(contextlib.closing(FileLock(directory / ".lock")))
                _lock_folder(directory, locks)
                # another run may have claimed it since then
                changed = check(directory, config, may_change=may_change, added=added)
                _remove_leftovers(directory)
            if changed or not storage.is_file(directory / "config.json"):
                write_json(directory / "config.json", config)
            if storage.is_remote(directory):
                # without a lock, another run may have written its config at the same time
                check(directory, config, added=added)
        except BlockingIOError as error:
            raise InputError(f"--workdir={directory} is in use by another run; fix: wait, or give another folder") from error
        except OSError as error:
            raise _unusable(directory, error) from error
        return locks.pop_all()


def _lock_folder(directory: Path, locks: contextlib.ExitStack) -> None:
    """Lock a folder until `locks` is closed, where folders can be locked; raise BlockingIOError if another process has it."""
    try:
        import fcntl
    except ModuleNotFoundError:  # on Windows, where nobody can remove a `.lock` that is open
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    locks.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_FOLDER_LOCKS:
            raise


def _remove_leftovers(directory: Path) -> None:
    """Remove the temporary files of writes that were killed, from a folder that this process has claimed."""
    for folder in (directory, *(directory / name for name in _FOLDERS)):
        for name in os.listdir(folder) if folder.is_dir() else []:
            if _TEMPORARY.fullmatch(name):
                (folder / name).unlink()


class Identity:
    """Which folder a path named when a run began, to see that it is still that one."""

    def __init__(self, directory: Path):
        """Note the folder, which must be there, unless it is in an object store."""
        self._directory = directory
        self._noted = None if storage.is_remote(directory) else _device_and_inode(directory)

    def check(self) -> None:
        """Raise InputError if the folder was removed or renamed since."""
        if self._noted is None:
            return
        try:
            same = _device_and_inode(self._directory) == self._noted
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            raise InputError(
                f"{self._directory} was removed or renamed while a run used it: nothing can be saved there; fix: move it "
                "back, then run the same command again"
            )


def _device_and_inode(path: Path) -> tuple[int, int]:
    noted = path.stat()
    return noted.st_dev, noted.st_ino


def check(
    directory: Path, config: dict[str, Any], *, may_change: Collection[str] = (), added: Mapping[str, Any] | None = None
) -> list[str]:
    """Check that a folder is new, empty or of the same config, as `claim` does; write nothing.

    Returns:
      A line for each key among `may_change` whose value is another one there.
    """
    _check_name(directory)
    try:
        names = storage.entries(directory).keys()
    except FileNotFoundError:
        return []
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
        return []
    theirs = {**(added or {}), **_flatten(read_json(directory / "config.json"))}
    ours = _flatten(json.loads(json.dumps(config)))
    changed = {
        key: f"{printable(key, keep='')[:100]} is {theirs.get(key)!r:.100} there and {ours.get(key)!r:.100} here"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    }
    different = [key for key in changed if key not in may_change]
    if different:
        listed = ", ".join(changed[key] for key in different[:3])
        more = f", and {len(different) - 3} more" if len(different) > 3 else ""
        raise InputError(
            f"--workdir={directory} belongs to a run of another config ({listed}{more}); fix: give the same "
            "config, or another folder, where training can start from this run's weights by --from or from_run"
        )
    return list(changed.values())


def check_sweep(directory: Path) -> None:
    """Make a folder for several runs; raise InputError if it is a run's own, or can't be used."""
    _check_name(directory)
    try:
        make_folder(directory, parents=True)
        names = {} if storage.is_remote(directory) else storage.entries(directory)
    except OSError as error:
        raise _unusable(directory, error) from error
    if "config.json" in names:
        raise InputError(f"--workdir={directory} is the folder of one run; fix: give --sweep another folder, for many")


def _check_name(directory: Path) -> None:
    """Raise InputError if libraries that save there can't be given the folder's name."""
    if storage.is_remote(directory):
        return
    name = os.fsencode(directory.absolute())
    try:
        name.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"--workdir={directory} is not UTF-8; fix: give a folder whose whole path is") from error
    if len(name) > _LONGEST_NAME:
        raise InputError(
            f"--workdir={str(directory)[:100]}... has {len(name):,} bytes as an absolute path: expected at most "
            f"{_LONGEST_NAME:,}, so that the run's files have names too; fix: give a shorter path"
        )


def read_json(path: Path) -> Any:
    """Read a JSON file; raise InputError if it can't be read, isn't JSON, or is nested deeper than any of ours."""
    try:
        content = json.loads(storage.read(path).decode())
        _check_depth(content)
        return content
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a number too long
        raise InputError(f"{path} can't be read as JSON ({error}); fix: restore it, or give another folder") from error


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(_DEEPEST):
        level = [below for tree in level for below in _values(tree)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {_DEEPEST} levels")


def _values(tree: Any) -> list[Any]:
    return list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list) else []


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
            with path.open("rb") if content is None else io.BytesIO(content) as file:
                read_header(file, size=storage.size(path) if content is None else len(content))
            if content is None:
                return np.lib.format.open_memmap(path, mode="r")
            array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # for a damaged header NumPy raises whatever Python's tokenizer does
        raise InputError(
            f"{path} can't be read as {description} ({first_line(error)}): expected a non-empty array of numbers by numpy.save"
        ) from error
    array.flags.writeable = False
    return array


class ObjectArray(ValueError):
    """A .npy file holds Python objects, which are never unpickled."""

    def __init__(self, shape: tuple[int, ...]):
        """Keep the array's shape."""
        super().__init__("Object arrays cannot be loaded")
        self.shape = shape


def read_header(file: IO[bytes], *, size: int) -> tuple[tuple[int, ...], np.dtype]:
    """Read the header of a .npy file, checked, as NumPy allocates what it says, and divides by the size of its numbers.

    Args:
      file: the file, at its beginning.
      size: bytes of the whole file.

    Returns:
      Shape and dtype of the array, which isn't larger than the file.

    Raises:
      ObjectArray: it holds Python objects.
      ValueError: the header is damaged or lies; for some damage NumPy raises whatever Python's tokenizer does.
    """
    version = np.lib.format.read_magic(file)
    if version not in _READ_HEADER:
        raise ValueError(f"its version is {version}")
    try:
        shape, _, dtype = _READ_HEADER[version](file)
    except MemoryError as error:  # Python's parser says so of parentheses that are too deep
        raise ValueError("its header is nested too deep") from error
    if dtype.hasobject:
        raise ObjectArray(shape)
    if not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"its header says {dtype}{list(shape)}"[:200])
    if math.prod(shape) * dtype.itemsize > size - file.tell():
        raise ValueError(f"its header says {dtype}{list(shape)}"[:150] + ", more than the file holds")
    return shape, dtype


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Return the content of a JSON file."""
    return (json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


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
    # realpath: mkstemp itself takes LINK/../x for x. [:50]: names have a longest length.
    handle, temporary = tempfile.mkstemp(dir=os.path.realpath(path.parent), prefix=f".{path.name[:50]}.")
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


def make_folder(path: Path, *, parents: bool = False) -> None:
    """Make a folder unless it exists, with those above it if asked; in an object store, writing its first file makes it."""
    if not storage.is_remote(path):
        path.mkdir(exist_ok=True, parents=parents)


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
