"""The exceptions that are meant for the person at the keyboard."""


class InputError(ValueError):
    """Bad input. The text is one line: what was expected, what was given, and how to mend it.

    Commands print the line and end with exit status 2. Any other exception is a defect and keeps its traceback.
    """


class Stopped(BaseException):
    """A signal ended the work early; the same command continues from what was saved. The argument is the signal's number.

    Like KeyboardInterrupt it is no error, so that `except Exception` lets it pass.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, at most 200 characters; its type's name if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
