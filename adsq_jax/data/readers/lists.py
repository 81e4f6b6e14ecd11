"""List files as in HashNet and DeepHash-pytorch: one image per line, its path, then a 0 or 1 for each class."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.readers.folder import is_picture
from adsq_jax.data.sources import FileSource, Names
from adsq_jax.data.text import quote
from adsq_jax.errors import InputError

FILES = {"query": ("query.txt", "test.txt"), "train": ("train.txt",), "database": ("database.txt",)}  # of each part
_BLOCK = 2_097_152  # labels parsed together
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")
_OUTSIDE = re.compile(rb"(?m)^/|^[A-Za-z]:|(?:^|/)\.\.(?:/|$)")
_NO_FILE = re.compile(rb"(?m)(?:^|/)\.?$|^[A-Za-z]:")  # of paths in their shortest form
_REDUNDANT = re.compile(rb"(?m)(?:(?<=/)|^)(?:\./|/)+")  # a/./b and a//b are a/b


def read(directory: Path, *, lists: Path) -> FileSource:
    """Read the lists of queries, training set and database.

    An image that is in several lists is one row. Backslashes in paths are read as /, and paths may contain spaces; a BOM and
    Windows line ends are accepted. `classes.txt`, if there is one, names the classes, one per line.

    Args:
      directory: the folder at which the paths of the lists begin.
      lists: the folder of query.txt (or test.txt), train.txt and database.txt.

    Returns:
      All images, those of the database first, in the order of the lists; `parts` has the rows of `query`, `train`, `database`.
    """
    rows: dict[bytes, int] = {}
    packed = np.zeros((0, 0), np.uint8)
    parts: dict[str, np.ndarray] = {}
    classes = 0
    for part in ("database", "train", "query"):
        path = _find_list(lists, part)
        names, labels, count = parse(path)
        if parts and count != classes:
            raise InputError(
                f"{path} has {count} labels per line and database.txt {classes}; fix: give lists of the same classes"
            )
        classes = count
        parts[part] = np.fromiter((rows.setdefault(name, len(rows)) for name in names), np.int64, len(names))
        packed = _append(packed, labels, parts[part], size=len(rows), path=path, names=names)
    labels_of_all = Labels.from_packed(packed, classes=classes)
    return FileSource(directory, labels_of_all, classes=_class_names(lists, classes), names=Names(rows), parts=parts)


def read_one(path: Path, *, directory: Path) -> FileSource:
    """Read one list, whatever its name; the paths in it begin at `directory`, and classes.txt beside it names the classes."""
    names, packed, classes = parse(path)
    labels = Labels.from_packed(packed, classes=classes)
    return FileSource(directory, labels, classes=_class_names(path.parent, classes), names=Names(names))


def is_plain(path: Path) -> bool:
    """Return whether a list has paths without labels: its first line ends like a picture's name."""
    return is_picture(read_text(path).partition(b"\n")[0].strip())


def read_plain(path: Path, *, directory: Path) -> FileSource:
    """Read one list of paths, one a line, without labels; the paths begin at `directory`, and may name it."""
    root = os.fsencode(storage.normal(directory)).rstrip(b"/") + b"/"
    lines = [line.strip() for line in read_text(path).split(b"\n")]
    names = clean_paths([line.removeprefix(root) for line in lines], path=path)
    _check_unique(names, path=path)
    return unlabelled(directory, names)


def unlabelled(directory: Path, names: Sequence[bytes]) -> FileSource:
    """Return pictures without labels, by their paths below a folder."""
    return FileSource(directory, Labels.from_ids(np.zeros(len(names), np.int64), classes=1), classes=[""], names=Names(names))


def _find_list(lists: Path, part: str) -> Path:
    paths = [lists / name for name in FILES[part] if storage.is_file(lists / name)]
    if len(paths) != 1:
        raise InputError(
            f"{lists} holds {len(paths) or 'no'} lists named {' or '.join(FILES[part])}: expected one; fix: give the folder of "
            "the list files with --config.data.lists"
        )
    return paths[0]


def _append(
    packed: np.ndarray, labels: np.ndarray, rows: np.ndarray, *, size: int, path: Path, names: list[bytes]
) -> np.ndarray:
    """Append the labels of one more list; an image's labels must be the same in each list."""
    known = rows < len(packed)
    differ = np.flatnonzero(known)[(packed[rows[known]] != labels[known]).any(axis=1)] if known.any() else []
    if len(differ):
        line = int(differ[0])
        raise InputError(
            f"{path}, line {line + 1}: {quote(names[line])} has other labels than in another list; fix: make them the same"
        )
    return np.concatenate([packed.reshape(-1, labels.shape[1]), labels[~known]])[:size]


def _class_names(lists: Path, count: int) -> list[str]:
    path = lists / "classes.txt"
    if not storage.is_file(path):
        return [str(k) for k in range(count)]
    names = [name.strip() for name in read_text(path).decode(errors="replace").splitlines() if name.strip()]
    if len(names) != count:
        raise InputError(f"{path} has {len(names)} names, and the lists have {count} classes; fix: give one name per line")
    return names


def read_text(path: Path) -> bytes:
    """Read a file with plain line ends, without a BOM and trailing white space."""
    try:
        text = storage.read(path)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); fix: change its permissions, or restore it") from error
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16 text; fix: save it as UTF-8")
    return text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip()


def parse(path: Path) -> tuple[list[bytes], np.ndarray, int]:
    """Parse one list file.

    Returns:
      The images' paths; their labels as bits, uint8[n, ceil(c / 8)], first class highest; c.
    """
    text = read_text(path)
    if not text:
        raise InputError(f"{path} is empty: expected one image per line, its path, then a 0 or 1 for each class")
    classes = len(_parse_line(text.partition(b"\n")[0], path=path, number=1, classes=None)[1])
    lines = text.split(b"\n")
    packed = np.zeros((len(lines), -(-classes // 8)), np.uint8)
    names: list[bytes] = []
    ends = np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)) + 1) - 1
    buffer = np.frombuffer(text, np.uint8)
    at_once = max(1, _BLOCK // classes)
    for start in range(0, len(lines), at_once):
        block = lines[start : start + at_once]
        values, regular = _parse_block(buffer, ends[start : start + at_once], block, classes=classes)
        paths = [line[: -2 * classes] for line in block]
        for row in np.flatnonzero(~regular).tolist():
            paths[row], values[row] = _parse_line(block[row], path=path, number=start + row + 1, classes=classes)
        packed[start : start + at_once] = np.packbits(values, axis=1)
        names += paths
    names = clean_paths(names, path=path)
    _check_unique(names, path=path)
    return names, packed, classes


def _parse_block(buffer: np.ndarray, ends: np.ndarray, lines: list[bytes], *, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels uint8[block, classes] of the regular lines, which end in exactly ` 0 1 ...`, and which lines those are."""
    lengths = np.fromiter(map(len, lines), np.int64, len(lines))
    width = 2 * classes + 2  # with the two characters before the labels
    long_enough = lengths > width
    last = np.where(long_enough, ends, width)[:, None] - width + np.arange(width)
    tail = buffer[np.minimum(last, len(buffer) - 1)]  # [block, width]
    values = tail[:, 3::2] - ord("0")
    odd = (tail[:, 0] <= ord(" ")) | (tail[:, 1] <= ord(" "))  # a label too many, or spaces to strip
    odd |= buffer[np.minimum(ends - lengths, len(buffer) - 1)] <= ord(" ")
    regular = long_enough & (tail[:, 2::2] == ord(" ")).all(axis=1) & (values <= 1).all(axis=1) & ~odd
    return values, regular


def _parse_line(line: bytes, *, path: Path, number: int, classes: int | None) -> tuple[bytes, np.ndarray]:
    """Return path and labels uint8[classes] of any line; without `classes`, all zeros and ones at its end are labels."""
    tokens = line.split()
    trailing = next((k for k, token in enumerate(reversed(tokens)) if token not in (b"0", b"1")), len(tokens))
    count = trailing if classes is None else classes
    wrong = f"{path}, line {number}: {quote(line)} ends in {trailing} labels of 0 or 1"
    if count < 2:
        raise InputError(f"{wrong}: expected a path, then a 0 or 1 for each of two or more classes")
    if trailing != count or len(tokens) <= count:
        bad = [token for token in tokens[-count:] if token not in (b"0", b"1")]
        odd = f", and {quote(bad[-1])} among them" if bad and len(tokens) > count else ""
        raise InputError(f"{wrong}{odd}: expected a path and {count} labels as in line 1")
    return line.strip().rsplit(None, count)[0], np.array([token == b"1" for token in tokens[-count:]], np.uint8)


def clean_paths(names: list[bytes], *, path: Path) -> list[bytes]:
    """Return the paths of a list in their shortest form, with / between folders, if they stay below the images' folder."""
    joined = b"\n".join(names).replace(b"\\", b"/")
    short = _REDUNDANT.sub(b"", joined)
    outside = "leads out of the images' folder; fix: give paths below it, without .. and without a / at the beginning"
    for pattern, text, wrong in (
        (_CONTROL, joined, "has a control character in its path; fix: rename it"),
        (_OUTSIDE, joined, outside),
        (_NO_FILE, short, "is not a file below the images' folder; fix: give one"),
    ):
        match = pattern.search(text)
        if match:
            number = text.count(b"\n", 0, match.start()) + 1
            raise InputError(f"{path}, line {number}: {quote(names[number - 1])} {wrong}")
    return short.split(b"\n")


def _check_unique(names: list[bytes], *, path: Path) -> None:
    if len(set(names)) == len(names):
        return
    line_of: dict[bytes, int] = {}
    for number, name in enumerate(names, start=1):
        if name in line_of:
            raise InputError(
                f"{path}, line {number}: {quote(name)} is in line {line_of[name]} already; fix: remove one of them"
            )
        line_of[name] = number
