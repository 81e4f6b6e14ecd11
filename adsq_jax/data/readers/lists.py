"""List files, as HashNet and DeepHash-pytorch have them: one image a line, its path, then a 0 or 1 for each class."""

import re
from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import FileSource, Names
from adsq_jax.errors import InputError

FILES = {
    "query": ("query.txt", "test.txt"),
    "train": ("train.txt",),
    "database": ("database.txt",),
}  # names of each part's list
_BLOCK = 2_097_152  # labels looked at together
_LEADS_OUT = re.compile(rb"(?m)^/|^[A-Za-z]:|(?:^|/)\.\.(?:/|$)")
_OUTSIDE = "leads out of the images' folder: give paths below it, without .. and without a / at the beginning"
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")
_NO_FILE = re.compile(rb"(?m)(?:^|/)\.?$|^[A-Za-z]:")  # of paths in their shortest form
_ROUNDABOUT = re.compile(rb"(?m)(?:(?<=/)|^)(?:\./|/)+")  # a/./b and a//b are a/b


def read(directory: Path, *, lists: Path) -> FileSource:
    """Reads the lists of queries, training set and database.

    An image that stands in several lists is one row. Backslashes in paths are taken as /, and spaces may stand in them; a BOM
    and Windows line ends are accepted. `classes.txt`, if there is one, names the classes, one a line.

    Args:
      directory: the paths of the lists begin here.
      lists: the folder of query.txt (or test.txt), train.txt and database.txt.

    Returns:
      All images, those of the database first, in the order of the lists; `parts` has the rows of `query`, `train`, `database`.

    Raises:
      InputError: a list is missing, or a line of it is wrong; the text says which.
    """
    rows: dict[bytes, int] = {}
    packed = np.zeros((0, 0), np.uint8)
    parts: dict[str, np.ndarray] = {}
    classes = 0
    for part in ("database", "train", "query"):
        path = _list_of(lists, part)
        names, found, count = parse(path)
        if parts and count != classes:
            raise InputError(f"{path} has {count} labels a line and database.txt {classes}: give lists of the same classes")
        classes = count
        parts[part] = np.fromiter((rows.setdefault(name, len(rows)) for name in names), np.int64, len(names))
        packed = _joined(packed, found, parts[part], size=len(rows), path=path, names=names)
    labels = Labels.from_packed(packed, classes=classes)
    return FileSource(directory, labels, classes=_classes_of(lists, classes), names=Names(rows), parts=parts)


def read_one(path: Path, *, directory: Path) -> FileSource:
    """Reads one list, whatever its name.

    Args:
      path: the list.
      directory: the paths in it begin here.

    Returns:
      Its images, in its order; classes as `read` names them, by the classes.txt beside it.

    Raises:
      InputError: as `read`.
    """
    names, packed, classes = parse(path)
    labels = Labels.from_packed(packed, classes=classes)
    return FileSource(directory, labels, classes=_classes_of(path.parent, classes), names=Names(names))


def _list_of(lists: Path, part: str) -> Path:
    there = [lists / name for name in FILES[part] if storage.is_file(lists / name)]
    if len(there) != 1:
        wanted = " or ".join(FILES[part])
        raise InputError(
            f"{lists} holds {len(there) or 'no'} lists named {wanted}: expected one; give the folder of the list files with "
            "--config.data.lists"
        )
    return there[0]


def _joined(
    packed: np.ndarray, found: np.ndarray, rows: np.ndarray, *, size: int, path: Path, names: list[bytes]
) -> np.ndarray:
    """Labels of all images so far, with those of one more list; an image's labels must be the same in each."""
    known = rows < len(packed)
    differ = np.flatnonzero(known)[(packed[rows[known]] != found[known]).any(axis=1)] if known.any() else []
    if len(differ):
        line = int(differ[0])
        raise InputError(
            f"{path}, line {line + 1}: {_shown(names[line])} has other labels than in another list: make them the same"
        )
    return np.concatenate([packed.reshape(-1, found.shape[1]), found[~known]])[:size]


def _classes_of(lists: Path, count: int) -> list[str]:
    path = lists / "classes.txt"
    if not storage.is_file(path):
        return [str(k) for k in range(count)]
    names = [name.strip() for name in text_of(path).decode(errors="replace").splitlines() if name.strip()]
    if len(names) != count:
        raise InputError(f"{path} has {len(names)} names, and the lists have {count} classes: give one name a line")
    return names


def text_of(path: Path) -> bytes:
    """A file's bytes with plain line ends, without a BOM and without what is blank at its end.

    Raises:
      InputError: it can't be read, or is UTF-16.
    """
    try:
        text = storage.read(path)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): change its permissions, or restore it") from error
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16 text: save it as UTF-8")
    return text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip()


def parse(path: Path) -> tuple[list[bytes], np.ndarray, int]:
    """Reads one list file.

    Args:
      path: the file.

    Returns:
      The images' paths; their labels as bits, uint8[n, ceil(c / 8)], first class highest; c.

    Raises:
      InputError: it is empty; a line has another number of labels than the first, a label that is neither 0 nor 1, a path out
        of the folder, or a path that was there before.
    """
    text = text_of(path)
    if not text:
        raise InputError(f"{path} is empty: expected one image a line, its path, then a 0 or 1 for each class")
    classes = len(_parsed_line(text.partition(b"\n")[0], path=path, number=1, classes=None)[1])
    lines = text.split(b"\n")
    packed = np.zeros((len(lines), -(-classes // 8)), np.uint8)
    names: list[bytes] = []
    ends = np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)) + 1) - 1
    buffer = np.frombuffer(text, np.uint8)
    at_once = max(1, _BLOCK // classes)
    for start in range(0, len(lines), at_once):
        block = lines[start : start + at_once]
        values, regular = _regular(buffer, ends[start : start + at_once], block, classes=classes)
        found = [line[: -2 * classes] for line in block]
        for row in np.flatnonzero(~regular).tolist():
            found[row], values[row] = _parsed_line(block[row], path=path, number=start + row + 1, classes=classes)
        packed[start : start + at_once] = np.packbits(values, axis=1)
        names += found
    return _once(inside(names, path=path), path=path), packed, classes


def _regular(buffer: np.ndarray, ends: np.ndarray, lines: list[bytes], *, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels uint8[block, classes] of lines that end in ` 0 1 ...` and nothing else, and which lines do."""
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


def _parsed_line(line: bytes, *, path: Path, number: int, classes: int | None) -> tuple[bytes, np.ndarray]:
    """Path and labels uint8[classes] of any line; without `classes`, all zeros and ones at its end are labels."""
    tokens = line.split()
    trailing = next((k for k, token in enumerate(reversed(tokens)) if token not in (b"0", b"1")), len(tokens))
    count = trailing if classes is None else classes
    wrong = f"{path}, line {number}: {_shown(line)}"
    if count < 2:
        raise InputError(
            f"{wrong} ends in {count} labels of 0 or 1: expected a path, then a 0 or 1 for each of two or more classes"
        )
    bad = [token for token in tokens[-count:] if token not in (b"0", b"1")]
    if trailing != count or len(tokens) <= count:
        odd = f", and {_shown(bad[-1])} among them" if bad and len(tokens) > count else ""
        raise InputError(f"{wrong} ends in {trailing} labels of 0 or 1{odd}: expected a path and {count} labels as in line 1")
    return line.strip().rsplit(None, count)[0], np.array([token == b"1" for token in tokens[-count:]], np.uint8)


def inside(names: list[bytes], *, path: Path) -> list[bytes]:
    """Paths in their shortest form, with / between folders, if each of them stays inside its folder.

    Args:
      names: paths as a list has them, maybe with backslashes.
      path: the list.

    Returns:
      The same with /.

    Raises:
      InputError: one is absolute, or has a .. or a control character in it; the text says which line.
    """
    joined = b"\n".join(names).replace(b"\\", b"/")
    short = _ROUNDABOUT.sub(b"", joined)
    for pattern, text, wrong in (
        (_CONTROL, joined, "has a control character in its path: rename it"),
        (_LEADS_OUT, joined, _OUTSIDE),
        (_NO_FILE, short, "is no file below the images' folder: give one"),
    ):
        found = pattern.search(text)
        if found:
            number = text.count(b"\n", 0, found.start()) + 1
            raise InputError(f"{path}, line {number}: {_shown(names[number - 1])} {wrong}")
    return short.split(b"\n")


def _once(names: list[bytes], *, path: Path) -> list[bytes]:
    """The same, if each stands in the list once."""
    if len(set(names)) != len(names):
        seen: dict[bytes, int] = {}
        for number, name in enumerate(names, start=1):
            if name in seen:
                raise InputError(
                    f"{path}, line {number}: {_shown(name)} stands in line {seen[name]} already: remove one of them"
                )
            seen[name] = number
    return names


def _shown(text: bytes) -> str:
    return repr(text[:80].decode(errors="backslashreplace")) + ("..." if len(text) > 80 else "")
