"""What a command does before it imports anything else: streams, Ctrl-C, and limits under which imports would fail."""

import faulthandler
import os
import signal
import sys
from types import TracebackType
from typing import Any

from adsq_jax import errors
from adsq_jax.run import terminal

_LEAST_FILES = 64  # open at once: libraries, data, the files of a run and of an event loop
_LEAST_ADDRESS_SPACE = 3 << 29  # bytes; with less, XLA ends the process where it starts its threads
_ABORTED = b"Fatal Python error: Aborted"  # the beginning of the fault handler's note


def is_command() -> bool:
    """Return whether this process began as `adsq` or `python -m adsq_jax...`, and not as a worker of such a process."""
    program = (getattr(sys, "argv", None) or [""])[0]
    if program == "-m":  # until Python has found the module
        return any(argument.removeprefix("-m").split(".")[0] == "adsq_jax" for argument in sys.orig_argv[1:])
    return os.path.basename(program) == "adsq" and program in sys.orig_argv


def prepare() -> None:
    """Take names of files as UTF-8, replace closed streams, let Ctrl-C end the imports in one line, and check limits.

    Ends the process with status 2 where limits are too low.
    """
    _use_utf8()
    terminal.open_closed_streams()
    sys.excepthook = _explain_missing_package
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as nohup and shells want it
        signal.signal(signal.SIGINT, _stop)
    problem = limits_problem(_LEAST_ADDRESS_SPACE)
    if problem is not None:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    if limit("RLIMIT_AS") is not None:
        _explain_aborts()


def _explain_missing_package(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line which extra installs what the imports of `python -m adsq_jax.NAME` miss; show other errors as ever."""
    problem = errors.missing_package(error, "this command")
    if problem is None:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def _use_utf8() -> None:
    """Start Python again in its UTF-8 mode where the locale has another encoding: an index knows names as UTF-8."""
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1" or not sys.executable:
        return
    shown = getattr(sys.stdout, "encoding", None) or "ascii"  # the terminal's is still the locale's
    environment = {"PYTHONIOENCODING": f"{shown}:backslashreplace", **os.environ, "PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def limits_problem(least_space: int) -> str | None:
    """Return which limit of this process is too low, and how to raise it; None if none is.

    Args:
      least_space: the address space that is needed, in bytes.
    """
    files, space = limit("RLIMIT_NOFILE"), limit("RLIMIT_AS")
    if files is not None and files < _LEAST_FILES:
        return f"expected a limit of at least {_LEAST_FILES} open files, got {files}; fix: ulimit -n {_LEAST_FILES}"
    if space is not None and space < least_space:
        return (
            f"expected an address space of at least {least_space >> 20:,} MiB, got {space >> 20:,} MiB; fix: "
            "ulimit -v unlimited, or limit the memory of a container instead"
        )
    return None


def limit(kind: str) -> int | None:
    """Return a limit of this process, None where there is none.

    Args:
      kind: its name in `resource`: "RLIMIT_NOFILE" (open files), "RLIMIT_AS" (address space, in bytes) or "RLIMIT_DATA".
    """
    try:
        import resource
    except ModuleNotFoundError:  # on Windows, which has no such limits
        return None
    found, _ = resource.getrlimit(getattr(resource, kind))
    return None if found == resource.RLIM_INFINITY else found


def _explain_aborts() -> None:
    """Say what an abort means, which Python can't: where its address space is limited, C++ ends a process that needs more.

    Another process waits for the end of this one, and says it if Python's fault handler has noted a fault.
    """
    notes, fault = os.pipe()
    if os.fork():
        os.close(notes)
        faulthandler.enable(fault, all_threads=False)
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # which may be sent to both
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (0, 1, fault):
        os.close(descriptor)
    noted = b""
    while piece := os.read(notes, 4_096):
        noted = (noted + piece)[: len(_ABORTED)]  # it comes in pieces
    if noted == _ABORTED:
        os.write(2, b"error: too little memory for a library, which ended the process; fix: raise the limit (ulimit -v)\n")
    os._exit(0)


def _stop(number: int, frame: Any) -> None:
    print("stopped", file=sys.stderr, flush=True)
    os._exit(128 + number)
