"""What all commands share: flags in, one line and exit status 2 for bad input, signals as exceptions."""

import contextlib
import errno
import os
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, NoReturn

from absl import flags, logging

from adsq_jax.errors import (
    InputError,
    Stopped,
    did_you_mean,
    first_line,
    is_out_of_memory,
    is_system_error,
    is_without_device,
    last_line,
    remedy,
)
from adsq_jax.run import config_files, terminal

if TYPE_CHECKING:
    from ml_collections import ConfigDict  # measuring codes takes no config: only commands that do import this package

_UNINTERRUPTIBLE = {"_xla_gc_callback", "__del__"}  # functions whose exceptions Python swallows
_AFTER_COLON = ("bits", "method", "protocol", "name")  # arguments of the files in configs/
_LONGEST = 2_000  # characters of a message: a damaged file can hold a line of any length


class Flags:
    """The flags of one call of a command. Flags are defined per call, so commands can be imported together."""

    def __init__(self, arguments: Sequence[str], *, description: str | None):
        """Start without flags.

        Args:
          arguments: what follows the command's name.
          description: the command's docstring, which `--help` shows.
        """
        self._arguments, self._description = ["adsq", *arguments], description or ""
        self._values = flags.FlagValues()
        self._config = ""  # the name of the flag that is a config
        self._describe_keys: Callable[[ConfigDict | None], str] | None = None
        self.boolean("help", "Show this help and exit.")

    def text(self, name: str, explanation: str, *, default: str | None = None) -> None:
        """Define `--name=TEXT`."""
        flags.DEFINE_string(name, default, explanation, flag_values=self._values)

    def texts(self, name: str, explanation: str) -> None:
        """Define `--name=TEXT`, which may be given several times."""
        flags.DEFINE_multi_string(name, [], explanation, flag_values=self._values)

    def integer(self, name: str, explanation: str, *, default: int | None = None, low: int, high: int | None = None) -> None:
        """Define `--name=NUMBER`, a whole number from `low` to `high`."""
        flags.DEFINE_integer(name, default, explanation, lower_bound=low, upper_bound=high, flag_values=self._values)

    def boolean(self, name: str, explanation: str, *, default: bool = False) -> None:
        """Define `--name` and `--noname`."""
        flags.DEFINE_bool(name, default, explanation, flag_values=self._values)

    def config(self, name: str, explanation: str, *, describe_keys: "Callable[[ConfigDict | None], str] | None" = None) -> None:
        """Define `--name=CONFIG:ARGUMENT`, where CONFIG is as in `config_files.find`, and `--name.KEY=VALUE`.

        Args:
          name: of the flag.
          explanation: for the help.
          describe_keys: returns what the help says of the keys of the given config, None where none is given.

        Raises:
          InputError: no config has the name that is given.
        """
        from ml_collections import config_flags

        self._config, self._describe_keys = name, describe_keys
        self._arguments = _with_files(self._arguments, name)
        sys.modules.pop(f"{name}_config", None)  # else ml_collections loads this file over that of an earlier call
        config_flags.DEFINE_config_file(name, help_string=explanation, flag_values=self._values, sys_argv=self._arguments)

    def parse(self, *, positional: Sequence[str] = ()) -> SimpleNamespace:
        """Read the arguments.

        Args:
          positional: names of the arguments without a flag, for messages.

        Returns:
          The value of each flag by its name, and the list `positional`.

        Raises:
          InputError: an argument is unknown, or its value is not as expected.
          SystemExit: with status 0, after the help, if that was asked for.
        """
        names = [name for name in self._values if name not in ("flagfile", "undefok")]
        try:
            rest = self._values(self._arguments)
            given = {name: self._values[name].value for name in names}
            for value in given.values():
                getattr(value, "keys", None)  # a config file that isn't there raises only now
        except flags.UnrecognizedFlagError as error:
            raise InputError(self._unknown_flag(error)) from error
        except flags.Error as error:
            # The text ends with the traceback of a config file that raised: its last line says what is wrong.
            raise InputError(f"{last_line(error).removeprefix('adsq_jax.errors.InputError: ')} (see --help)") from error
        except (Exception, SystemExit) as error:  # a config file, or an override of what it lacks, may raise anything
            raise InputError(self._unknown_key() or _config_error(error)) from error
        if given.pop("help"):
            print(self._help(names))
            if self._describe_keys is not None:
                print(f"\n{self._describe_keys(given[self._config] or None)}")
            sys.exit(0)
        if len(rest) - 1 != len(positional):
            expected = f"expected {' '.join(positional)}" if positional else f"{rest[1]!r} is not a flag; fix: --name=value"
            raise InputError(expected)
        return SimpleNamespace(**given, positional=rest[1:])

    def _help(self, names: Sequence[str]) -> str:
        lines = [self._description.strip(), ""]
        for name in names:
            flag = self._values[name]
            default = "" if flag.default in (None, False, [], "") else f" Default: {flag.default}."
            lines.append(f"  --{name}")
            text = flag.help.partition(";\n")[0]  # absl adds to a flag that may be given several times
            indent = " " * 6
            lines += textwrap.wrap(
                f"{text}{default}", 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
            )
        return "\n".join(lines)

    def _unknown_flag(self, error: flags.UnrecognizedFlagError) -> str:
        flag, _, key = error.flagname.partition(".")
        if self._config and key and flag.removeprefix("no") == self._config:  # absl knows no keys before there is a config
            return f"--{error.flagname} changes a key of --{self._config}=NAME; fix: give the config, too"
        names = [f"--{name}" for name in self._values if name not in ("flagfile", "undefok")]
        return f"--{error.flagname} is not a flag{did_you_mean(f'--{error.flagname}', names)}; fix: --help lists all flags"

    def _unknown_key(self) -> str | None:
        if not self._config:
            return None
        from adsq_jax.run import config_keys

        return config_keys.unknown(self._arguments, flag=self._config, load=self._values[self._config].parser.parse)


def _with_files(arguments: Sequence[str], flag: str) -> list[str]:
    """Return a command's arguments with the file of its config where they name one: `--config=digits`, `--config digits`."""
    found: list[str] = []
    for argument in arguments:
        given, equals, value = argument.partition("=")
        if equals and given in (f"-{flag}", f"--{flag}"):
            argument = f"{given}={_file(value)}"
        elif found and found[-1] in (f"-{flag}", f"--{flag}"):
            argument = _file(argument)
        found.append(argument)
    return found


def _file(text: str) -> str:
    """Return a config's file; it can import from the current folder if that may hold the config, or its method."""
    file = config_files.find(text)
    if config_files.may_need_current_folder(text) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, and else not at all: JAX runs any jax_plugins that it finds
    return file


def with_values(arguments: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return a command's arguments with other values of its config.

    What a file of configs/ takes after the colon, as bits and method, goes there; other keys follow as `--config.KEY=VALUE`.

    Raises:
      InputError: the config is not given with the = sign.
    """
    flag = "--config="
    found = [argument for argument in arguments if argument.startswith(flag)]
    if len(found) != 1:
        raise InputError("expected one --config=NAME or --config=FILE.py, with the = sign")
    path, _, rest = found[0].partition(":")
    pairs = dict(pair.split("=", 1) for pair in rest.split(",") if "=" in pair)
    pairs |= {key: value for key, value in values.items() if key in _AFTER_COLON}
    colon = f":{','.join(f'{key}={value}' for key, value in pairs.items())}" if pairs else ""
    others = [argument for argument in arguments if argument != found[0]]
    return [path + colon, *others, *(f"--config.{key}={value}" for key, value in values.items() if key not in _AFTER_COLON)]


def _config_error(error: BaseException) -> str:
    """Return one line that says what is wrong with a config file or a key."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name in ("<module>", "get_config")]
    if frames and frames[-1].filename != sys.argv[0]:
        return f"{frames[-1].filename}, line {frames[-1].lineno}: {type(error).__name__}: {last_line(error)}"
    return f"{type(error).__name__}: {last_line(error)}"


def run(main: Callable[[list[str]], None]) -> None:
    """Run a command with the arguments of this process; only a defect ends with a traceback.

    Args:
      main: takes the arguments after the command's name, and does the work.
    """
    logging.use_absl_handler()
    if not flags.FLAGS.is_parsed():  # ours are the command's own; absl and grain look at the global ones
        flags.FLAGS(sys.argv[:1])
    logging.set_verbosity(logging.WARNING)  # orbax logs every rename
    terminal.open_closed_streams()
    terminal.clean_streams()
    try:
        with _as_exception(signal.SIGINT, first=lambda: None), stoppable():
            main(sys.argv[1:])
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, Stopped) as error:
        _end(error)


def _end(error: BaseException) -> None:
    """Report what ended a command and exit; raise a defect again."""
    if isinstance(error, KeyboardInterrupt | Stopped):  # first: the number of processes is known once all are there
        print("stopped", file=sys.stderr)
        hard_exit(130 if isinstance(error, KeyboardInterrupt) else 143)
    if isinstance(error, terminal.OutputError):
        if error.errno == errno.EPIPE:  # the reader of our output has ended: nobody reads a message
            hard_exit(1)
        terminal.print_last(_error_line(f"the standard output can't be written ({error.strerror}); fix: {remedy(error)}"))
        hard_exit(2)
    problem = str(error) if isinstance(error, InputError) else _machine_problem(error)
    if "adsq_jax.devices.processes" in sys.modules:  # else this process never had a chance to connect with others
        _end_among_several(error, problem)
    if problem is not None:
        terminal.print_last(_error_line(problem))  # threads of libraries may still complain of the same
        sys.exit(2)
    raise error


def _end_among_several(error: BaseException, problem: str | None) -> None:
    """Report what ended one process of several, and end it at once: a normal exit would wait for the others."""
    from adsq_jax.devices import processes  # takes JAX, which --help doesn't wait for

    if processes.count() == 1:
        return
    if problem is not None:
        terminal.print_last(_error_line(problem))
        if isinstance(error, processes.AgreedError):
            sys.exit(2)
        processes.hard_exit_if_several(2)
    if processes.is_lost_connection(error):
        problem = f"{processes.name()}: another process ended ({last_line(error)[:200]}); resume with the same command on all"
        terminal.print_last(_error_line(problem))
    else:
        traceback.print_exception(error)
    processes.hard_exit_if_several(1)


def _machine_problem(error: BaseException) -> str | None:
    """Return one line about what the system refused or lacks, where a command has no better one; None for a defect."""
    if is_out_of_memory(error):
        return f"too little memory ({first_line(error)}); fix: {remedy(error)}"
    if is_without_device(error):
        return f"JAX can't compute here ({first_line(error)}); fix: change the environment variable JAX_PLATFORMS, or unset it"
    if isinstance(error, OSError) and is_system_error(error):
        reason = error.strerror or type(error).__name__
        if isinstance(error.filename, str | bytes | os.PathLike):
            reason = f"{os.fsdecode(error.filename)} can't be used ({reason})"
        return f"{reason}; fix: {remedy(error)}"
    return None


@contextlib.contextmanager
def stoppable(*, first: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Raise `Stopped` inside when SIGTERM arrives.

    Args:
      first: called in the handler, before the exception is raised.

    Raises:
      Stopped: SIGTERM arrived.
    """
    with _as_exception(signal.SIGTERM, first=first):
        yield


@contextlib.contextmanager
def _as_exception(number: int, *, first: Callable[[], None]) -> Iterator[None]:
    """Raise an exception wherever the signal arrives."""

    def handler(_: int, frame: FrameType | None) -> None:
        if _swallows_exceptions(frame):  # try again in a moment
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


def _swallows_exceptions(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _UNINTERRUPTIBLE:
            return True
        frame = frame.f_back
    return False


def hard_exit(status: int) -> NoReturn:
    """End the process without the interpreter's shutdown, which XLA's threads don't survive while they compute.

    Args:
      status: the exit status.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def _error_line(text: str) -> str:
    line = " ".join(text.split())
    return f"error: {line if len(line) <= _LONGEST else f'{line[:_LONGEST]}...'}"
