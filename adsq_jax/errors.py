"""The exceptions that commands report in one line, and helpers for their text."""

import contextlib
import difflib
import errno
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator

# Errors of the system that only a mistake in a program causes; all others say what the machine refused or lacks.
_MISTAKES = {errno.EBADF, errno.EFAULT}
_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EFBIG: "make room, or raise the limit of a file's size (ulimit -f)",
    errno.EACCES: "get the permission, or give another place",
    errno.EPERM: "get the permission, or give another place",
    errno.EROFS: "make the disk writable, or give another place",
    errno.ENOENT: "put it back, or give another place",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EILSEQ: "give a name in UTF-8",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "close other programs, or raise the limit of memory (ulimit -v)",
    errno.EAGAIN: "close other programs, or raise the limits of processes and memory (ulimit -u, ulimit -v)",
}
_BY_REASON = {os.strerror(number): number for number in _REMEDIES}
# How Python and libraries say that there is no memory, where it isn't a MemoryError or ENOMEM.
_NO_MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED: Out of memory|Out of memory (while trying to )?allocat|[Cc]annot allocate memory|std::bad_alloc"
    r"|can't start new thread|failed to map segment"
)


# Modules that an extra installs, and that are imported without a message of their own. The first that is missing is named.
_EXTRAS = {
    "train": (
        *("flax", "optax", "orbax", "grain", "ml_collections", "PIL", "simplejpeg", "safetensors", "tensorboardX", "etils"),
        "filelock",
    ),
    "tfds": ("tensorflow_datasets",),
}


class InputError(ValueError):
    """Bad input. The text is one line: what was expected, what was given, and how to fix it.

    Commands print the line and end with exit status 2. Any other exception is a defect and keeps its traceback.
    """


class Stopped(BaseException):
    """A signal ended the work early; the same command continues from what was saved. The argument is the signal's number.

    Like KeyboardInterrupt it is not an error, so that `except Exception` lets it pass.
    """


class MissingPackage(ModuleNotFoundError, InputError):
    """A package that one of the extras installs isn't there."""


@contextlib.contextmanager
def needing(subject: str, *, extras: str | None = None) -> Iterator[None]:
    """Say which extra installs what an import inside misses.

    Args:
      subject: what needs it, as `adsq train` or `adsq_jax.fit`.
      extras: those of all that `subject` needs, as `index,pretrained`, so that one installation will do; None: only the extra
        of what is missing.

    Raises:
      MissingPackage: a package of an extra is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        text = missing_package(error, subject, extras=extras)
        if text is None:
            raise
        raise MissingPackage(text, name=error.name) from error


def missing_package(error: BaseException, subject: str, *, extras: str | None = None) -> str | None:
    """Return one line on the package of an extra that an import misses; None if the error is about anything else.

    Args:
      error: what the import raised.
      subject: what needs the package.
      extras: as in `needing`.
    """
    missing = (getattr(error, "name", None) or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    for extra, packages in _EXTRAS.items():
        if missing in packages:
            name = next((name for name in packages if importlib.util.find_spec(name) is None), missing)
            return f"{subject} needs {name}, which isn't installed; fix: pip install 'adsq_jax[{extras or extra}]'"
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, at most 200 characters; its type's name if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def last_line(error: BaseException) -> str:
    """Return the last line of an exception's text; its type's name if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def is_system_error(error: BaseException) -> bool:
    """Return whether the system refused something or lacks it: a file, a disk, a connection, memory."""
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _MISTAKES


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether there was too little memory, or address space, for what an exception ended."""
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
        or (isinstance(cause, RuntimeError | ImportError) and _NO_MEMORY.search(str(cause)) is not None)
        for cause in _chain(error)
    )


def is_without_device(error: BaseException) -> bool:
    """Return whether JAX can't use the devices that the environment names."""
    return isinstance(error, RuntimeError) and str(error).startswith("Unable to initialize backend")


def remedy(error: BaseException) -> str:
    """Return what to do about an error of the system, `make room`, by its number or by the reason that its text names."""
    if "No usable temporary directory" in str(error):  # which Python calls a missing file
        return "make room in one of them, or name another in the environment variable TMPDIR"
    number = _number(error)
    if number is None and is_out_of_memory(error):
        number = errno.ENOMEM
    return _REMEDIES.get(number, "repair that") if number is not None else "repair that"


def reason(error: BaseException) -> str:
    """Return what the system refused, in its own words, or the end of what a library says, at most 200 characters."""
    number = _number(error)
    return os.strerror(number) if number is not None else last_line(error)[-200:]


def _number(error: BaseException) -> int | None:
    """Return the number of the system's error that led to an exception, by its number or by the reason that a text names."""
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause.errno
        for text, number in _BY_REASON.items():
            if text.lower() in str(cause).lower():
                return number
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it."""
    cause: BaseException | None = error
    for _ in range(20):  # a chain can be a circle
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def printable(text: str, *, keep: str) -> str:
    """Escape what a terminal would obey, or show as nothing: control characters, marks of direction, bytes that aren't UTF-8.

    Args:
      text: any text, with bytes that aren't UTF-8 as Python has them in names of files.
      keep: characters that stay, as "\\n" where the text has several lines.

    Returns:
      The text with the others as `\\x1b`, `\\u202e`, `\\xff`.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()


def nearest_name(name: object, names: Iterable[str]) -> str | None:
    """Return the known name nearest to an unknown one, or None if none is near."""
    return next(iter(difflib.get_close_matches(str(name), names, n=1)), None)


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """Return ` (did you mean 'NAME'?)` with the known name nearest to an unknown one, or "" if none is near."""
    near = nearest_name(name, names)
    return "" if near is None else f" (did you mean {near!r}?)"


def nearest_key(key: str, keys: Iterable[str]) -> str | None:
    """Return the known dotted key nearest to an unknown one, or None if none is near.

    Args:
      key: as `train.round`.
      keys: as `train.rounds`. A near name in the same section comes first, then the same name in another, then any near key.
    """
    section, _, name = key.rpartition(".")
    names = {other: other.rpartition(".")[2] for other in keys}
    siblings = {names[other]: other for other in names if other.rpartition(".")[0] == section}
    elsewhere = [other for other in names if names[other] == name]
    near = nearest_name(name, siblings)
    return siblings[near] if near is not None else nearest_name(key, elsewhere or names) or next(iter(elsewhere), None)
