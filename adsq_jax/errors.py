"""The exceptions that are meant for the person at the keyboard."""


class InputError(ValueError):
    """Bad input: its text is one line that says what is wrong, what was expected, and what to do.

    Entry points print the line and end with exit status 2. Any other exception is a defect and keeps its traceback.
    """


class Stopped(BaseException):
    """A signal ended a run early; the same command goes on from what is on the disk. Its argument is the signal's number.

    Like KeyboardInterrupt it is no error, and passes by whoever takes all errors for something else.
    """
