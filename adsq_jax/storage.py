"""Files on this machine's disks, or in an object store (gs://, s3://) through etils' epath.

Functions raise an `OSError` with errno, reason and path if a file can't be read or written, or its store can't be reached.
"""

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

from adsq_jax.errors import InputError

SCHEMES = ("gs", "s3")
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}  # each store's package, and the extra that installs it
_PREFIXES = tuple(f"{scheme}://" for scheme in SCHEMES)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# Packages whose errors mean that a store refused, or couldn't be reached; some of them aren't OSErrors.
_CLIENTS = {"aiobotocore", "aiohttp", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs"}
_ERRNO = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES}


def expand_home(text: str) -> str:
    """Replace `~` or `~NAME` at the start of a path by a home folder, which a shell doesn't do in `--flag=~/x`.

    A folder of such a name is `./~`. `path` calls this; call it alone where only a path of this machine can be meant.

    Returns:
      The path; unchanged if it begins otherwise, or there is no user NAME.
    """
    try:
        return os.path.expanduser(text)
    except ValueError:  # no user's name has a null character
        return text


def absolute(text: str) -> str:
    """Return the absolute path of a folder or file of this machine; symbolic links and `..` in it stay.

    Raises:
      InputError: the path is relative, and the current folder was removed.
    """
    try:
        return os.path.join(os.getcwd(), expand_home(text))
    except FileNotFoundError as error:
        raise InputError(f"{text} is below the current folder, which was removed; fix: change to another folder") from error


def normal(path: Path | str) -> str:
    """Return the absolute path of a folder or file of this machine in its shortest form: with one / and without `.` and `..`.

    Symbolic links stay, but for one that is followed by `..`, which leads to the folder above the link's target. The path of an
    object store stays as it is.
    """
    if is_remote(path):
        return str(path)
    given = os.fspath(path)
    short = "/" + os.path.abspath(given).lstrip("/")  # abspath keeps two slashes at the beginning
    with contextlib.suppress(OSError):
        if ".." not in given.split("/") or os.path.samefile(short, given):
            return short
    return os.path.realpath(given)


def path(text: str) -> Path:
    """Make a path from a flag or a config key: `FOLDER`, `gs://BUCKET/FOLDER`, `s3://BUCKET/FOLDER`, or a file there.

    This is the one place that expands `~`, so that all flags, config keys and functions mean the same folder by it.

    Returns:
      The path; for an object store an `epath.Path`, which has the methods of `Path` that this package calls.

    Raises:
      InputError: the store is unknown, no bucket is named, or the store's package isn't installed.
    """
    match = _SCHEME.match(text)
    if match is None:
        # epath would read /s3/x and /gs/x as s3://x and gs://x, and its listings omit names that end in ~
        return Path(expand_home(text))
    scheme = match[1]
    if scheme not in SCHEMES:
        raise InputError(f"{text} begins with {scheme}://: expected a path of this machine, or {' or '.join(_PREFIXES)}")
    if not text.removeprefix(match[0]).strip("/"):
        raise InputError(f"{text} names no bucket: expected {scheme}://BUCKET/FOLDER")
    package, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{text} can't be opened without the package {package}; fix: pip install 'adsq_jax[{extra}]'")
    from etils import epath  # which the extras of the stores install

    os.environ.setdefault("EPATH_USE_TF", "false")  # TensorFlow's files, which epath would prefer, know no s3://
    _disable_listings_cache(scheme)
    return cast(Path, epath.Path(text))


def is_remote(path: Path | str) -> bool:
    """Return whether a path is in an object store."""
    return str(path).startswith(_PREFIXES)


@contextlib.contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Turn the errors of an object store's client into those of a disk.

    Raises:
      OSError: the client's error, with errno, a reason on one line, and the path.
    """
    try:
        yield
    except Exception as error:
        if not is_remote(path) or not (isinstance(error, OSError) or _CLIENTS & _packages(error)):
            raise
        if isinstance(error, OSError) and is_remote(error.filename):
            raise  # translated already
        number = next((number for kind, number in _ERRNO.items() if isinstance(error, kind)), errno.EIO)
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        if number != errno.EIO and " " not in reason:  # for a missing object, clients give only its name
            reason = os.strerror(number)
        raise OSError(number, reason[:200], str(path)) from error


def read(path: Path) -> bytes:
    """Read a file; from an object store in one request."""
    if not is_remote(path):
        if path.exists() and not path.is_file():  # opening a pipe would block
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return path.read_bytes()
    with translate_errors(path):
        return cast(bytes, _store(path).cat_file(str(path)))


def write(path: Path, content: bytes) -> None:
    """Write an object of a store, which appears completely or not at all."""
    with translate_errors(path):
        _store(path).pipe_file(str(path), content)


def is_file(path: Path) -> bool:
    """Return whether there is a regular file."""
    return _kind(path) == "file" if is_remote(path) else os.path.isfile(path)


def is_folder(path: Path) -> bool:
    """Return whether there is a folder; in an object store, whether there is anything below it."""
    return _kind(path) == "directory" if is_remote(path) else path.is_dir()


def _kind(path: Path) -> str:
    try:
        with translate_errors(path):  # epath's and fsspec's own `exists` say no if the store can't be reached
            return str(_store(path).info(str(path))["type"])
    except FileNotFoundError:
        return "nothing"


def size(path: Path) -> int:
    """Return a file's size in bytes."""
    if not is_remote(path):
        return path.stat().st_size
    with translate_errors(path):
        return int(_store(path).info(str(path))["size"])


def entries(folder: Path) -> dict[str, bool]:
    """List the names in a folder, and whether each is a folder."""
    if not is_remote(folder):
        with os.scandir(folder) as scanned:
            return {entry.name: entry.is_dir() for entry in scanned}
    with translate_errors(folder):
        listed = _store(folder).ls(str(folder), detail=True)
    inside = {entry["name"].rstrip("/"): entry["type"] == "directory" for entry in listed}
    inside.pop(str(folder).partition("://")[2], None)  # an empty object with the folder's name, which some tools create
    return {name.rpartition("/")[2]: is_folder for name, is_folder in inside.items()}


def objects(folder: Path) -> dict[bytes, bytes]:
    """List everything below a folder of an object store, by one listing.

    Returns:
      The size, time and hash of each object, as the store reports them, by its path below the folder.
    """
    with translate_errors(folder):
        listed = _store(folder).find(str(folder), detail=True)
    start = len(str(folder).partition("://")[2]) + 1
    return {
        name[start:].encode(): _stamp(info).encode()
        for name, info in sorted(listed.items())
        if name[start:] and not name.endswith("/")  # which stands for a folder
    }


def files(folder: Path) -> list[str]:
    """List the paths of all files below a folder, relative to it, sorted."""
    if is_remote(folder):
        return sorted(name.decode() for name in objects(folder))
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def copy_folder(source: Path, target: Path, *, last: str = "") -> None:
    """Copy the files below a folder, from or to an object store, which has neither links nor empty folders.

    Args:
      source: the folder.
      target: its copy; other files there stay.
      last: the file to copy after all others, as a path below the folder.

    Raises:
      OSError: a file can't be read or written.
      InputError: an object's name leads out of the folder.
    """
    for name in sorted(files(source), key=lambda name: name == last):
        if {"", ".."} & set(name.split("/")):
            raise InputError(f"{source}/{name} can't be copied: its name leads out of the folder; fix: remove it")
        content = read(source / name)
        if is_remote(target):
            write(target / name, content)
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)


def _stamp(info: dict[str, Any]) -> str:
    """Join the size, time and hash of an object, by the names that S3 and Google Cloud Storage use."""
    time = info.get("LastModified") or info.get("updated")
    time = time.timestamp() if isinstance(time, datetime.datetime) else time  # a text would depend on the time zone
    return f"{info.get('size')} {time} {info.get('ETag') or info.get('etag')}"


def _packages(error: Exception) -> set[str]:
    """Return the top-level packages of an exception's classes."""
    return {kind.__module__.partition(".")[0] for kind in type(error).__mro__}


@functools.cache
def _disable_listings_cache(scheme: str) -> None:
    """Make every listing a new one, so that it includes other machines' files."""
    import fsspec.config  # takes a tenth of a second: only if there is a store

    fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False


def _store(path: Path) -> Any:
    """Return the client of a path's store."""
    return _client(str(path).partition("://")[0])


@functools.cache  # fsspec itself makes one for each thread, with its own connections
def _client(scheme: str) -> Any:
    import fsspec  # as above

    _disable_listings_cache(scheme)  # a worker process gets its paths ready-made
    return fsspec.filesystem(scheme)
