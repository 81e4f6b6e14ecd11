"""What all entry points share: flags in, one line and exit status 2 for bad input."""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging

from adsq_jax.errors import InputError


def run(main: Callable[[], None]) -> None:
    """Parses the command line and runs an entry point; the only way out with a traceback is a defect.

    Args:
      main: reads its flags and does the work.
    """

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            _stop(f"{argv[1]!r} is not a flag: give --name=value")
        logging.set_verbosity(logging.WARNING)  # orbax tells every rename
        try:
            main()
        except InputError as error:
            _stop(str(error))

    app.run(guarded, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        # A config file that raises is quoted with its traceback: the last line says what is wrong.
        _stop(f"{str(error).strip().splitlines()[-1].removeprefix('adsq_jax.errors.InputError: ')} (see --help)")
    except AttributeError as error:  # an override of a key that the config lacks
        _stop(f"config has no key {str(error).strip(chr(34) + chr(39))}: adsq_jax/config.py has every knob")


def _stop(text: str) -> NoReturn:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(2)
