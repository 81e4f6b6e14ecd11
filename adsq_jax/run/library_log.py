"""What libraries say when something fails: pages of tracebacks, which belong into a file beside the one line for the user."""

import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adsq_jax import storage

NAME = "libraries.log"  # in the folder of a run
_MOST_BYTES = 1 << 20  # of one run of a command: a library may repeat itself for days


class _Log(logging.Filter):
    """Writes what has a traceback, or is an error, to a file, which it makes when there is something to write."""

    def __init__(self, path: Path):
        super().__init__()
        self._path, self._left, self._lock = path, _MOST_BYTES, threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether standard error is to show a record: a warning of one line."""
        if record.levelno < logging.ERROR and not record.exc_info:
            return True
        self.write(record.getMessage(), record.exc_info[1] if record.exc_info else None)
        return False

    def write(self, text: str, error: BaseException | None) -> None:
        """Add a text and a traceback; where that fails, as on a full disk, they are lost."""
        lines = [text, "\n", *([] if error is None else traceback.format_exception(error)), "\n"]
        content = "".join(lines).encode(errors="backslashreplace")
        with self._lock, contextlib.suppress(OSError):
            if len(content) <= self._left:
                with self._path.open("ab") as file:
                    file.write(content)
                if self._left == _MOST_BYTES:
                    print(f"a library reports an error: see {self._path}", file=sys.stderr, flush=True)
                self._left -= len(content)


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Inside, write tracebacks of libraries, and of threads, to a file in the folder of a run.

    In an object store, which can't append to a file, they go to standard error as ever. After an error, what a
    library's threads in C++ raise later still goes to the file: it is known by naming no object.
    """
    if storage.is_remote(directory):
        yield
        return
    log = _Log(directory / NAME)
    handlers = [handler for handler in (*logging.getLogger().handlers, logging.lastResort) if handler is not None]
    hooks = threading.excepthook, sys.unraisablehook

    def of_thread(failed: Any) -> None:
        log.write(f"in the thread {getattr(failed.thread, 'name', '?')}", failed.exc_value)

    def of_object(failed: Any) -> None:
        log.write(f"{failed.err_msg or 'ignored'}: {failed.object!r:.200}", failed.exc_value)

    def after_error(failed: Any) -> None:
        if failed.err_msg is None and failed.object is None:  # TensorStore, of a write that orbax doesn't wait for any more
            of_object(failed)
        else:
            hooks[1](failed)

    afterwards = hooks
    threading.excepthook, sys.unraisablehook = of_thread, of_object
    for handler in handlers:
        handler.addFilter(log)
    try:
        yield
    except BaseException:
        afterwards = hooks[0], after_error
        raise
    finally:
        threading.excepthook, sys.unraisablehook = afterwards
        for handler in handlers:
            handler.removeFilter(log)
