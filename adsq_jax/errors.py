"""The exceptions that commands report in one line, and helpers for their text."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input. The text is one line: what was expected, what was given, and how to fix it.

    Commands print the line and end with exit status 2. Any other exception is a defect and keeps its traceback.
    """


class Stopped(BaseException):
    """A signal ended the work early; the same command continues from what was saved. The argument is the signal's number.

    Like KeyboardInterrupt it is not an error, so that `except Exception` lets it pass.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, at most 200 characters; its type's name if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def nearest_name(name: object, names: Iterable[str]) -> str | None:
    """Return the known name nearest to an unknown one, or None if none is near."""
    return next(iter(difflib.get_close_matches(str(name), names, n=1)), None)


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """Return ` (did you mean 'NAME'?)` with the known name nearest to an unknown one, or "" if none is near."""
    near = nearest_name(name, names)
    return "" if near is None else f" (did you mean {near!r}?)"
