"""Standard output and standard error of a command: what is printed can do no harm, and a reader that leaves ends nothing."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from adsq_jax.errors import printable

_NAMES = ("stdin", "stdout", "stderr")  # by file descriptor
_NO_READER = {errno.EPIPE, errno.EIO}  # a pipe's has ended; a terminal was closed


class OutputError(OSError):
    """Standard output can't be written: its reader has ended, or its disk is full."""


class Stream:
    """A text stream that takes what any other takes, and writes it with control characters escaped."""

    def __init__(self, stream: Any, *, clean: Callable[[str], str], lossy: bool):
        """Wrap a stream.

        Args:
          stream: the stream below.
          clean: applied to every text.
          lossy: whether text that can't be written is lost without an error.
        """
        self._stream, self._clean, self._lossy, self._outlives_reader = stream, clean, lossy, lossy
        self.bars: Stream = self if clean is str else Stream(stream, clean=str, lossy=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        self._call(self._stream.write, self._clean(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Pass on what was written."""
        self._call(self._stream.flush)

    def outlive_reader(self) -> None:
        """From now on, lose what nobody reads."""
        self._outlives_reader = True

    def silence(self) -> None:
        """Replace what lies below, also for libraries that write past Python, by the null device."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()
        with contextlib.suppress(OSError, ValueError):  # it may have no file descriptor
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
            self._stream.flush()

    def write_last(self, text: str) -> None:
        """Write a text, and lose what anybody else writes beside it or after it."""
        try:
            kept = os.dup(self._stream.fileno())
        except (OSError, ValueError):  # it has no file descriptor
            self.write(text)
            return
        self.silence()
        content = self._clean(text).encode(self._stream.encoding, errors="backslashreplace")
        with contextlib.suppress(OSError), os.fdopen(kept, "wb") as file:
            file.write(content)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            function(*arguments)
        except OSError as error:
            if error.errno in _NO_READER and self._outlives_reader:
                self.silence()
            elif not self._lossy:
                raise OutputError(error.errno, error.strerror) from error


def clean(text: str) -> str:
    """Escape the control characters of a text of several lines; a first `\\r`, with which progress bars begin, stays."""
    start = "\r" if text.startswith("\r") else ""
    return start + printable(text.removeprefix(start), keep="\n\t")


def open_closed_streams() -> None:
    """Put the null device in place of standard streams that are closed, so that no other file gets their descriptors."""
    for descriptor, name in enumerate(_NAMES):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            stream = open(os.devnull, "w" if descriptor else "r")  # noqa: SIM115 - as long as the process
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def clean_streams() -> None:
    """Wrap standard output and standard error, unless they are: what is printed there is cleaned."""
    for name in _NAMES[1:]:
        stream = getattr(sys, name)
        if not isinstance(stream, Stream):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # names in a terminal of another encoding
            setattr(sys, name, Stream(stream, clean=clean, lossy=name == "stderr"))


def bar_stream() -> Any:
    """Return the stream for progress bars, which move the cursor: standard error, where what is printed isn't cleaned.

    Text from files must be cleaned before it gets into a bar.
    """
    return getattr(sys.stderr, "bars", sys.stderr)


def outlive_reader() -> None:
    """Go on when nobody reads standard output any more, as a command must whose results are files."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.outlive_reader()


def print_last(text: str) -> None:
    """Print a line to standard error, whole, as the last: what libraries write from then on is lost."""
    if isinstance(sys.stderr, Stream):
        sys.stderr.write_last(f"{text}\n")
    else:
        print(text, file=sys.stderr)
