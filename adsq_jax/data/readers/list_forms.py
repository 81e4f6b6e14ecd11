"""The forms of a list file's lines: `path 0 1 0`, `path 2`, `path,name,name`, `path,2`; and why a line has none of them."""

import csv
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adsq_jax.data.readers.folder import is_picture
from adsq_jax.data.text import quote
from adsq_jax.errors import InputError

HOT, IDS, NAMES = "a 0 or 1 for each class", "class ids", "class names"
EXPECTED = "expected a path, then a 0 or 1 for each of two or more classes, or one class id, or commas and class names"
_COMMAS = "write path,name,name, or a 0 or 1 for each class, path,0,1,0, or one class id, path,2"
_HOT_BY_COMMAS = re.compile(rb"(?:[ \t]*,[ \t]*[01]){2,}[ \t]*$")
_ID = re.compile(rb"[0-9]{1,18}")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MISSING = {"nan", "none", "null"}
_PARTS = {"train", "training", "test", "query", "val", "valid", "validation", "database", "gallery"}


class Parsed(NamedTuple):
    """The lines of a list: a path and labels each."""

    form: str  # HOT, IDS or NAMES
    paths: list[bytes]
    labels: Any  # HOT: bits uint8[n, ceil(c / 8)], first class highest; IDS: int64[n]; NAMES: a tuple of names of each line
    classes: int = 0  # HOT: c


def form_of(line: bytes, *, path: Path) -> tuple[str, bool]:
    """Return the form of a list, from its first line, and whether commas separate path and labels.

    Raises:
      InputError: it has none of them; the message says how to convert the list.
    """
    tokens, commas = line.split(), _fields(line)
    if _HOT_BY_COMMAS.search(line):
        return HOT, True
    if len(tokens) > 2 and {*tokens[-2:]} <= {b"0", b"1"}:
        return HOT, False
    if len(commas) > 1 and (is_picture(commas[0]) or not _ID.fullmatch(tokens[-1])) and not _is_odd(line):
        return (IDS if len(commas) == 2 and _ID.fullmatch(commas[1]) else NAMES), True
    if len(tokens) > 1 and _ID.fullmatch(tokens[-1]) and not _NUMBER.fullmatch(tokens[-2]):
        return IDS, False
    raise InputError(f"{path}, line 1: {quote(line)}{_why_none(line)}")


def _fields(line: bytes) -> list[bytes]:
    """Return what commas separate, without double quotes around it; nothing if these don't pair."""
    try:
        rows = list(csv.reader([line.decode(errors="surrogateescape")], strict=True, skipinitialspace=True))
    except csv.Error:
        return []
    return [field.strip().encode(errors="surrogateescape") for field in rows[0]] if len(rows) == 1 else []


def _is_odd(line: bytes) -> bool:
    """Return whether a line is a comment, or brackets are around its labels or itself; `path,crane (bird)` is none of these."""
    _, comma, last = line.strip().rpartition(b",")
    opened = re.search(rb"[\[({]", last.strip())
    is_name = comma and opened and opened.start()
    return line.lstrip().startswith((b"#", b"//", b"%", b"{", b"[")) or (last.endswith((b"]", b"}", b")")) and not is_name)


def why_unclear(name: str) -> str:
    """Return why a class name may mean something else, and how to write that, to follow the name; "": it is clear."""
    if name.lower() in _MISSING:
        return "may mean that a label is missing; fix: remove the line, or write its class"
    for marks, problem, fix in (
        ("|;\t", "may be several names", "write commas between them, path,name,name"),
        ("[](){}<>", "has brackets", "write names without them"),
        ("#", "may have a comment", "remove it"),
    ):
        if any(mark in name for mark in marks):
            return f"{problem}; fix: {fix}"
    if '"' in name or name[0] in "'`" or name[-1] in "'`":  # jack-o'-lantern is a name
        return "has quotes; fix: write names without them"
    return ""


def _why_none(line: bytes) -> str:
    """Return what is wrong with a line that has none of the forms, and how to convert it."""
    tokens = line.split()
    if not tokens:
        return " is blank; fix: remove the line"
    if tokens[0].startswith((b"#", b"//", b"%")):
        return " is a comment; fix: remove the line"
    if _is_odd(line):
        return f": {EXPECTED}; fix: write it so, without brackets"
    if len(tokens) > 1 and _NUMBER.fullmatch(tokens[0]) and is_picture(line.strip()):
        return f": {EXPECTED}; fix: put the path first"
    trailing = next((k for k, token in enumerate(reversed(tokens)) if not _NUMBER.fullmatch(token)), len(tokens))
    if trailing == len(tokens):
        return f" has no path: {EXPECTED}; fix: put the path first"
    odd = [token for token in tokens[len(tokens) - trailing :] if token not in (b"0", b"1")]
    if odd:
        return f" has {quote(odd[0])} among its labels: {EXPECTED}; fix: write 1 for a class that an image has, 0 for others"
    if len(tokens) > 1 and is_picture(b" ".join(tokens[:-1])):
        name = quote(b" ".join(tokens[:-1]) + b"," + tokens[-1])
        return f" ends in 0 labels of 0 or 1: {EXPECTED}; fix: put a comma before a class name, {name}"
    return f" ends in {trailing} labels of 0 or 1: {EXPECTED}; fix: write it so, or remove a heading"


def to_spaces(line: bytes) -> bytes:
    """Return a line `path,0,1` as `path 0 1`; other lines as they are."""
    match = _HOT_BY_COMMAS.search(line)
    if match is None:
        return line
    return b",".join(_fields(line[: match.start()])) + match[0].replace(b",", b" ")


def parse_ids(lines: list[bytes], *, path: Path, by_commas: bool) -> Parsed:
    """Parse lines `path ID`, or `path,ID`.

    Raises:
      InputError: a line has another form.
    """
    paths, ids = [], np.zeros(len(lines), np.int64)
    for row, line in enumerate(lines):
        parts = _fields(line) if by_commas else line.strip().rsplit(None, 1)
        if len(parts) != 2 or not parts[0] or not _ID.fullmatch(parts[1]) or _NUMBER.fullmatch(parts[0].split()[-1]):
            problem = "isn't a path and one class id, a whole number from 0, as line 1 is"
            raise _wrong(path, row, line, problem, "write it so, or write class names in all lines, path,name")
        paths.append(parts[0])
        ids[row] = int(parts[1])
    return Parsed(IDS, paths, ids)


def parse_names(lines: list[bytes], *, path: Path) -> Parsed:
    """Parse lines `path,name` or `path,name,name`; a path or a name that has a comma is in double quotes.

    Raises:
      InputError: a line has another form.
    """
    paths, labels = [], []
    for row, line in enumerate(lines):
        name, *given = _fields(line) or [b""]
        if row == 0 and len(lines) > 1 and not is_picture(name) and is_picture((_fields(lines[1]) or [b""])[0]):
            raise _wrong(path, row, line, "is a heading, not a picture", "remove the line")
        if not (name and given and all(given)):
            raise _wrong(path, row, line, "lacks a path, or a class name after a comma", _COMMAS)
        if any(_NUMBER.fullmatch(text) or text.lower() in (b"true", b"false") for text in given):
            raise _wrong(path, row, line, "has a number, true or false among class names", _COMMAS)
        if any(map(is_picture, given)):
            raise _wrong(path, row, line, "has a picture among class names", "put the path first, path,name")
        paths.append(name)
        labels.append(tuple(text.decode(errors="backslashreplace") for text in given))
    if all(len(names) > 1 and names[-1].lower() in _PARTS for names in labels):
        problem = f"has a part of the data, {labels[0][-1]!r}, for a class, as all lines have"
        raise _wrong(path, 0, lines[0], problem, "remove that column, and make a list of each part")
    return Parsed(NAMES, paths, labels)


def _wrong(path: Path, row: int, line: bytes, problem: str, fix: str) -> InputError:
    return InputError(f"{path}, line {row + 1}: {quote(line)} {problem}; fix: {fix}")
