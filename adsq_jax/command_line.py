"""What all entry points share: flags in, one line and exit status 2 for bad input."""

import contextlib
import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from tqdm import tqdm

from adsq_jax.devices import processes
from adsq_jax.errors import InputError, Stopped

_DEAF = {"_xla_gc_callback", "__del__"}  # functions out of which Python lets no exception come
_LONGEST = 2_000  # characters of a message: a damaged file can hold a line of any length


def run(main: Callable[..., None], *, arguments: Sequence[str] = ()) -> None:
    """Parses the command line and runs an entry point; the only way out with a traceback is a defect.

    Args:
      main: reads its flags and does the work; takes what stands without a flag.
      arguments: what that is, for people.
    """

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) - 1 != len(arguments):
            _stop(f"expected {' '.join(arguments)}" if arguments else f"{argv[1]!r} is not a flag: give --name=value")
        logging.set_verbosity(logging.WARNING)  # orbax tells every rename
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names in a terminal of another encoding
        try:
            with _raised(signal.SIGINT, first=lambda: None), stoppable():
                main(*argv[1:])
            sys.stdout.flush()
        except InputError as error:
            _tell(str(error))
            if not isinstance(error, processes.AgreedError):
                processes.hard_exit(2)
            sys.exit(2)
        except jax.errors.JaxRuntimeError as error:
            if processes.count() == 1:
                raise
            _tell(f"{processes.name()}: another process ended ({_last_line(error)[:200]}); resume with the same command on all")
            processes.hard_exit(1)
        except BrokenPipeError:  # whoever read our output has gone: nobody is left to tell
            hard_exit(1)
        except Exception as error:  # a defect; the others would wait for this process, and it, at an orderly end, for them
            if _is_of_output(error):
                _tell(f"the standard output can't be written ({os.strerror(errno.ENOSPC)}): make room")
                hard_exit(2)
            if processes.count() == 1:
                raise
            traceback.print_exc()
            processes.hard_exit(1)
        except (KeyboardInterrupt, Stopped) as error:
            print("stopped", file=sys.stderr)
            hard_exit(130 if isinstance(error, KeyboardInterrupt) else 143)

    app.run(guarded, flags_parser=_parse)


@contextlib.contextmanager
def stoppable(*, first: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Makes SIGTERM end what is done inside.

    Args:
      first: is called before, in the handler.

    Raises:
      Stopped: the signal came.
    """
    with _raised(signal.SIGTERM, first=first):
        yield


@contextlib.contextmanager
def _raised(number: int, *, first: Callable[[], None]) -> Iterator[None]:
    """Makes a signal an exception, wherever it comes."""

    def handler(_: int, frame: FrameType | None) -> None:
        if _is_deaf(frame):  # a moment later, then
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return
        first()
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)

    if signal.getsignal(number) is signal.SIG_IGN:  # as nohup and shells want it
        yield
        return
    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, previous)


def _is_deaf(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _DEAF:
            return True
        frame = frame.f_back
    return False


def progress_bar(count: int, *, unit: str) -> "tqdm[Any]":
    """Progress on stderr: how many, how many a second, time left.

    Args:
      count: how many there are.
      unit: what they are, in the plural.

    Returns:
      A bar, to be used with `with`; its `update` takes how many were done since.
    """
    return tqdm(total=count, unit=f" {unit}", delay=1, mininterval=0.5, dynamic_ncols=True)


def hard_exit(status: int) -> NoReturn:
    """Ends the process without the interpreter's own end, which XLA's threads, if they still compute, don't survive.

    Args:
      status: the exit status.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it is ending
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def _is_of_output(error: Exception) -> bool:
    """Whether the disk that the standard output goes to is full; entry points see to the files that they write."""
    return isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        for name in flags.FLAGS:
            getattr(flags.FLAGS[name].value, "keys", None)  # a config file that isn't there raises only now
        return rest
    except flags.Error as error:
        # A config file that raises is quoted with its traceback: the last line says what is wrong.
        _stop(f"{_last_line(error).removeprefix('adsq_jax.errors.InputError: ')} (see --help)")
    except Exception as error:  # whatever a config file, or an override of what it lacks, may raise
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name in ("<module>", "get_config")]
        if lines:
            _stop(f"{lines[-1].filename}, line {lines[-1].lineno}: {type(error).__name__}: {_last_line(error)}")
        key = re.match(r"[\"'\\]+(\w+)", str(error))  # ml_collections quotes it, and adds a guess at what was meant
        if isinstance(error, AttributeError | KeyError) and key:
            _stop(f"config has no key {key[1]}: adsq_jax/config.py has every knob")
        _stop(f"{type(error).__name__}: {_last_line(error)}")


def _last_line(error: Exception) -> str:
    return [type(error).__name__, *str(error).strip().splitlines()][-1]


def _stop(text: str) -> NoReturn:
    _tell(text)
    sys.exit(2)


def _tell(text: str) -> None:
    line = " ".join(text.split())
    print(f"error: {line if len(line) <= _LONGEST else f'{line[:_LONGEST]}...'}", file=sys.stderr)
