"""List files as in HashNet and DeepHash-pytorch: an image per line, its path, then a 0 or 1 for each class; or ids or names."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.readers import list_forms, list_labels
from adsq_jax.data.readers.folder import is_picture
from adsq_jax.data.readers.list_forms import HOT, IDS, Parsed
from adsq_jax.data.sources import FileSource, Names
from adsq_jax.data.text import quote
from adsq_jax.errors import InputError

FILES = {"query": ("query.txt", "test.txt"), "train": ("train.txt",), "database": ("database.txt",)}  # of each part
_ABSOLUTE = re.compile(rb"/|[A-Za-z]:/")
_BLOCK = 2_097_152  # labels parsed together
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")
_OUTSIDE = re.compile(rb"(?m)^/|^[A-Za-z]:|(?:^|/)\.\.(?:/|$)")
_NO_FILE = re.compile(rb"(?m)(?:^|/)\.?$|^[A-Za-z]:")  # of paths in their shortest form
_REDUNDANT = re.compile(rb"(?m)(?:(?<=/)|^)(?:\./|/)+")  # a/./b and a//b are a/b


def read(directory: Path, *, lists: Path, strip_prefix: str = "") -> FileSource:
    """Read the lists of queries, training set and database.

    A line is a path, then a 0 or 1 for each class, or one class id; or `path,name,name`, `path,ID`, `path,0,1`. All three lists
    have one form. An image that is in several lists is one row. Backslashes in paths are read as /, and paths may contain
    spaces; a BOM and Windows line ends are accepted. `classes.txt`, if there is one, names the classes, one per line, in the
    order of the labels; else the classes of ids and names are those that occur, sorted, and names that may mean something else
    are refused, as `dog|cat`, `['dog']` or `nan`.

    Args:
      directory: the folder at which the paths of the lists begin, which they may name.
      lists: the folder of query.txt (or test.txt), train.txt and database.txt.
      strip_prefix: the folder that all paths of the lists begin with, and that is left out; "": none.

    Returns:
      All images, those of the database first, in the order of the lists; `parts` has the rows of `query`, `train`, `database`.

    Raises:
      InputError: a list is missing, a line has none of the forms, or its path leads out of the folder; or labels differ.
    """
    files = {part: _find_list(lists, part) for part in ("database", "train", "query")}
    parsed = {part: _parse(path) for part, path in files.items()}
    hint = "" if strip_prefix else _prefix_hint([paths for _, paths, *_ in parsed.values()])
    for part, path in files.items():
        paths = _below(parsed[part].paths, directory, path=path, strip_prefix=strip_prefix)
        parsed[part] = parsed[part]._replace(paths=_clean(paths, path=path, hint=hint))
    stored, classes = list_labels.join(parsed, files=files, names=_read_class_names(lists))
    if len(classes) < 2:
        raise InputError(f"{files['database']} has images of one class, {classes[0]!r:.80}: {list_forms.EXPECTED}")
    rows: dict[bytes, int] = {}
    kept = stored["database"][:0]
    parts: dict[str, np.ndarray] = {}
    for part, path in files.items():
        names = parsed[part].paths
        parts[part] = np.fromiter((rows.setdefault(name, len(rows)) for name in names), np.int64, len(names))
        kept = _append(kept, stored[part], parts[part], size=len(rows), path=path, names=names)
    return FileSource(directory, list_labels.wrap(kept, len(classes)), classes=classes, names=Names(rows), parts=parts)


def read_one(path: Path, *, directory: Path) -> FileSource:
    """Read one list, whatever its name, in the forms of `read`; classes.txt beside it names the classes."""
    parsed = _parse(path)
    parsed = parsed._replace(paths=_clean(_below(parsed.paths, directory, path=path), path=path))
    stored, classes = list_labels.join({"list": parsed}, files={"list": path}, names=_read_class_names(path.parent))
    labels = list_labels.wrap(stored["list"], len(classes))
    return FileSource(directory, labels, classes=classes, names=Names(parsed.paths))


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


def _read_class_names(folder: Path) -> tuple[Path, list[str]] | None:
    """Return the path and the names of classes.txt, one a line; None if there is none."""
    path = folder / "classes.txt"
    if not storage.is_file(path):
        return None
    return path, [name.strip() for name in read_text(path).decode(errors="replace").splitlines() if name.strip()]


def read_text(path: Path) -> bytes:
    """Read a file with plain line ends, without a BOM and trailing white space."""
    try:
        text = storage.read(path)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); fix: change its permissions, or restore it") from error
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16 text; fix: save it as UTF-8")
    return text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").rstrip()


def parse(path: Path) -> Parsed:
    """Parse one list of any form, whose paths are below a folder."""
    parsed = _parse(path)
    return parsed._replace(paths=_clean(parsed.paths, path=path))


def _parse(path: Path) -> Parsed:
    """Parse one list; its paths are as they are written."""
    text = read_text(path)
    if not text:
        raise InputError(f"{path} is empty: {list_forms.EXPECTED}")
    form, by_commas = list_forms.form_of(text.partition(b"\n")[0], path=path)
    if form == HOT:
        return _parse_hot(b"\n".join(map(list_forms.to_spaces, text.split(b"\n"))) if by_commas else text, path=path)
    lines = text.split(b"\n")
    return (
        list_forms.parse_ids(lines, path=path, by_commas=by_commas) if form == IDS else list_forms.parse_names(lines, path=path)
    )


def _parse_hot(text: bytes, *, path: Path) -> Parsed:
    """Parse lines of a path and a 0 or 1 for each class."""
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
    return Parsed(HOT, names, packed, classes)


def _below(names: list[bytes], directory: Path, *, path: Path, strip_prefix: str = "") -> list[bytes]:
    """Return paths without the folder that they all begin with, or, where there is none, without the images' folder."""
    if not strip_prefix:
        root = os.fsencode(storage.normal(directory)).rstrip(b"/") + b"/"
        return [name.removeprefix(root) for name in names]
    prefix = os.fsencode(strip_prefix).replace(b"\\", b"/").rstrip(b"/") + b"/"
    below = [name.replace(b"\\", b"/") for name in names]
    for number, name in enumerate(below, start=1):
        if not name.startswith(prefix):
            raise InputError(
                f"{path}, line {number}: {quote(names[number - 1])} doesn't begin with {quote(prefix)}; fix: give another "
                "--config.data.strip_prefix, or leave it out"
            )
    return [name[len(prefix) :] for name in below]


def _prefix_hint(names: list[list[bytes]]) -> str:
    """Return advice for lists whose paths are absolute and of one root: to leave out the folder that they share; else ""."""
    short = [name.replace(b"\\", b"/") for each in names for name in each]
    roots = {match and match[0] for match in map(_ABSOLUTE.match, short)}
    if None in roots or len(roots) > 1:  # `/` and `C:/` share no folder
        return ""
    shared = os.path.commonpath([os.path.dirname(name) for name in (min(short), max(short))]).rstrip(b"/") + b"/"
    return f"; fix: if the images' folder holds what follows {quote(shared)}, --config.data.strip_prefix={os.fsdecode(shared)}"


def _clean(names: list[bytes], *, path: Path, hint: str = "") -> list[bytes]:
    """Return the paths of a list in their shortest form, each once, if they stay below the images' folder."""
    names = clean_paths(names, path=path, hint=hint)
    _check_unique(names, path=path)
    return names


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
        raise InputError(f"{wrong}: {list_forms.EXPECTED}")
    if trailing != count or len(tokens) <= count:
        bad = [token for token in tokens[-count:] if token not in (b"0", b"1")]
        odd = f", and {quote(bad[-1])} among them" if bad and len(tokens) > count else ""
        raise InputError(f"{wrong}{odd}: expected a path and {count} labels as in line 1")
    return line.strip().rsplit(None, count)[0], np.array([token == b"1" for token in tokens[-count:]], np.uint8)


def clean_paths(names: list[bytes], *, path: Path, hint: str = "") -> list[bytes]:
    """Return the paths of a list in their shortest form, with / between folders, if they stay below the images' folder.

    `hint` is advice on those that don't, "" for the usual one.
    """
    joined = b"\n".join(names).replace(b"\\", b"/")
    short = _REDUNDANT.sub(b"", joined)
    outside = (
        f"leads out of the images' folder{hint or '; fix: give paths below it, without .. and without a / at the beginning'}"
    )
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
