"""Names from files and users, made safe to print: on one line, without control characters."""

import os
from pathlib import Path


def printable(text: str | bytes | Path) -> str:
    """Return a name or path with unprintable characters escaped, as `\\n`."""
    decoded = os.fsencode(text).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in decoded)


def quote(text: bytes) -> str:
    """Return the first 80 bytes in quotes, with unprintable characters escaped."""
    return repr(text[:80].decode(errors="backslashreplace")) + ("..." if len(text) > 80 else "")
