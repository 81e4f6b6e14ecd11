"""Names from files and users, made safe to print: on one line, without control characters."""

import os
from pathlib import Path

from adsq_jax import errors


def printable(text: str | bytes | Path) -> str:
    """Return a name or path with unprintable characters escaped, as `\\n`."""
    return errors.printable(os.fsencode(text).decode(errors="backslashreplace"), keep="")


def quote(text: bytes) -> str:
    """Return the first 80 bytes in quotes, with unprintable characters escaped."""
    return repr(text[:80].decode(errors="backslashreplace")) + ("..." if len(text) > 80 else "")
