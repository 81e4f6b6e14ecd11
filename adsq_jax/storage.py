"""Where files are: on this machine's disks, or in an object store (gs://, s3://), which etils' epath has paths of."""

import contextlib
import datetime
import errno
import functools
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from etils import epath

from adsq_jax.errors import InputError

SCHEMES = ("gs", "s3")
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}  # what reads each, and the extra that installs it
_PREFIXES = tuple(f"{scheme}://" for scheme in SCHEMES)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# Top names of the packages whose errors say that a store couldn't be reached, or refused; some aren't OSErrors.
_CLIENTS = {"aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs"}
_ERRNO = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}


def path(text: str) -> Path:
    """What a flag or a knob names: a path of this machine, or of an object store.

    Args:
      text: `FOLDER`, `gs://BUCKET/FOLDER` or `s3://BUCKET/FOLDER`, or a file there.

    Returns:
      The path; for an object store an `epath.Path`, which has those methods of a `Path` that are called here.

    Raises:
      InputError: it is of another store, of no bucket, or the store's package isn't installed.
    """
    found = _SCHEME.match(text)
    if found is None:
        # not epath's: it takes /s3/x and /gs/x for s3://x and gs://x, and its listings pass over names that end in ~
        return Path(text)
    scheme = found[1]
    if scheme not in SCHEMES:
        raise InputError(f"{text} begins with {scheme}://: expected a path of this machine, or {' or '.join(_PREFIXES)}")
    if not text.removeprefix(found[0]).strip("/"):
        raise InputError(f"{text} names no bucket: give {scheme}://BUCKET/FOLDER")
    package, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{text} can't be opened without the package {package}: pip install -e '.[{extra}]'")
    os.environ.setdefault("EPATH_USE_TF", "false")  # where TensorFlow is installed, epath takes its files, which know no s3://
    _uncached(scheme)
    return cast(Path, epath.Path(text))


def is_remote(path: Path | str) -> bool:
    """Whether a path is of an object store."""
    return str(path).startswith(_PREFIXES)


@contextlib.contextmanager
def reached(path: Path) -> Iterator[None]:
    """Lets what goes wrong with an object store look like what goes wrong with a disk.

    Raises:
      OSError: whatever the store's client raised, with errno, a reason on one line, and the path.
    """
    try:
        yield
    except Exception as error:
        if not is_remote(path) or not (isinstance(error, OSError) or _CLIENTS & _tops(error)):
            raise
        if isinstance(error, OSError) and is_remote(error.filename):
            raise  # has been here
        number = next((number for kind, number in _ERRNO.items() if isinstance(error, kind)), errno.EIO)
        said = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        if number != errno.EIO and " " not in said:  # of a missing object the clients say its name alone
            said = os.strerror(number)
        raise OSError(number, said[:200], str(path)) from error


def read(path: Path) -> bytes:
    """A file's bytes; from an object store in one request.

    Raises:
      OSError: it can't be read.
    """
    if not is_remote(path):
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return path.read_bytes()
    with reached(path):
        return cast(bytes, _store(path).cat_file(str(path)))


def write(path: Path, content: bytes) -> None:
    """Writes an object of a store, which shows whole or not at all.

    Raises:
      OSError: it can't be written.
    """
    with reached(path):
        _store(path).pipe_file(str(path), content)


def is_file(path: Path) -> bool:
    """Whether there is a regular file.

    Raises:
      OSError: its object store can't be reached.
    """
    return _kind(path) == "file" if is_remote(path) else os.path.isfile(path)


def is_folder(path: Path) -> bool:
    """Whether there is a folder; in an object store, whether anything is below it.

    Raises:
      OSError: its object store can't be reached.
    """
    return _kind(path) == "directory" if is_remote(path) else path.is_dir()


def _kind(path: Path) -> str:
    try:
        with reached(path):  # epath's and fsspec's own questions answer no where the store can't be reached
            return str(_store(path).info(str(path))["type"])
    except FileNotFoundError:
        return "nothing"


def size(path: Path) -> int:
    """Bytes of a file.

    Raises:
      OSError: it isn't there, or its object store can't be reached.
    """
    if not is_remote(path):
        return path.stat().st_size
    with reached(path):
        return int(_store(path).info(str(path))["size"])


def entries(folder: Path) -> dict[str, bool]:
    """Names in a folder, and whether each is a folder.

    Raises:
      OSError: it isn't there, is a file, or its object store can't be reached.
    """
    if not is_remote(folder):
        with os.scandir(folder) as there:
            return {entry.name: entry.is_dir() for entry in there}
    with reached(folder):
        found = _store(folder).ls(str(folder), detail=True)
    inside = {entry["name"].rstrip("/"): entry["type"] == "directory" for entry in found}
    inside.pop(str(folder).partition("://")[2], None)  # an empty object of a folder's name, which some tools make
    return {name.rpartition("/")[2]: is_folder for name, is_folder in inside.items()}


def objects(folder: Path) -> dict[bytes, bytes]:
    """All that is below a folder of an object store, by one listing.

    Returns:
      Of each object its path below the folder, with its size, time and hash as the store tells them.

    Raises:
      OSError: the store can't be reached.
    """
    with reached(folder):
        found = _store(folder).find(str(folder), detail=True)
    start = len(str(folder).partition("://")[2]) + 1
    return {
        name[start:].encode(): _stamp(info).encode()
        for name, info in sorted(found.items())
        if name[start:] and not name.endswith("/")  # which stands for a folder
    }


def files(folder: Path) -> list[str]:
    """Paths of all files below a folder, from there, sorted.

    Raises:
      OSError: its object store can't be reached.
    """
    if is_remote(folder):
        return sorted(name.decode() for name in objects(folder))
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def copy_folder(whence: Path, to: Path, *, last: str = "") -> None:
    """Copies the files below a folder, from or to an object store, which has neither links nor empty folders.

    Args:
      whence: the folder.
      to: its copy; other files there stay.
      last: the path below the folder of a file to copy when all others are there.

    Raises:
      OSError: one can't be read or written.
      InputError: an object's name leads out of the folder.
    """
    for name in sorted(files(whence), key=lambda name: name == last):
        if {"", ".."} & set(name.split("/")):
            raise InputError(f"{whence}/{name} can't be copied: its name leads out of the folder; remove it")
        content = read(whence / name)
        if is_remote(to):
            write(to / name, content)
        else:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(content)


def _stamp(info: dict[str, Any]) -> str:
    """Size, time and hash of an object, as S3 and as Google Cloud Storage call them."""
    time = info.get("LastModified") or info.get("updated")
    time = time.timestamp() if isinstance(time, datetime.datetime) else time  # which else depends on the machine's time zone
    return f"{info.get('size')} {time} {info.get('ETag') or info.get('etag')}"


def _tops(error: Exception) -> set[str]:
    """The top packages that an exception's classes come from."""
    return {kind.__module__.partition(".")[0] for kind in type(error).__mro__}


@functools.cache
def _uncached(scheme: str) -> None:
    """Lets every listing be a new one: what other machines write is to be seen."""
    import fsspec.config  # takes a tenth of a second: only where there is a store

    fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False


def _store(path: Path) -> Any:
    """The client of a path's store."""
    return _client(str(path).partition("://")[0])


@functools.cache  # fsspec itself makes one for each thread, with connections of its own
def _client(scheme: str) -> Any:
    import fsspec  # as above

    _uncached(scheme)  # a worker process gets its paths ready-made
    return fsspec.filesystem(scheme)
