"""The user's own pictures, one folder per class: DIRECTORY/CLASS/ and everything below it, or that in folders of a split."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import FileSource, Names
from adsq_jax.data.text import printable
from adsq_jax.errors import InputError

# fmt: off
EXTENSIONS = (  # of pictures that can be decoded, HEIC with its extra, in lower case
    ".apng", ".avif", ".avifs", ".bmp", ".gif", ".heic", ".heics", ".heif", ".heifs", ".hif", ".jfif", ".jpe", ".jpeg", ".jpg",
    ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
)
# fmt: on
LOOSE_FILES, LINKS = "files beside the class folders", "links to folders, not followed"
OTHER_FILES, _LONGEST_ENDING = "files of other kinds, not read", 6
SYSTEM_FOLDERS = "folders of thumbnails or deleted files, passed over"
# fmt: off
_SYSTEM = frozenset((  # in lower case: of NAS, Windows, macOS, and desktops
    b"@eadir", b"#recycle", b"@recycle", b"@recently-snapshot", b"#snapshot", b".@__thumb", b"$recycle.bin", b"recycler",
    b"system volume information", b"__macosx", b".trashes", b".trash", b".thumbnails",
))
# fmt: on
_EXTENSIONS = frozenset(map(os.fsencode, EXTENSIONS))
_LAYOUT = "expected DIRECTORY/CLASS/PICTURE, one folder per class"
_FIX = f"add pictures ({' '.join(EXTENSIONS)}) to each class, or remove the folder"
SPLIT_FOLDERS = "split_folders"  # the name of `read_split` among the readers
NOT_IN_SPLIT = "folders that are not in the split, not read"
_TRAIN, _DATABASE = (b"train", b"training"), (b"gallery", b"database")  # names of a split's folders, in lower case
_QUERY = ((b"test", b"testing"), (b"query",), (b"val", b"valid", b"validation"))  # the first of these that there are
_SPLIT = frozenset((*_TRAIN, *_DATABASE, *(name for names in _QUERY for name in names)))


class Pictures(NamedTuple):
    """The pictures in some folders."""

    names: list[bytes]  # paths below the root, folder by folder, sorted in each
    folders: np.ndarray  # for each picture, the index of its folder, int64[n]
    notes: Mapping[str, int]  # counts of what was left out


def read(directory: Path) -> FileSource:
    """Read one folder per class; pictures in its subfolders belong to it.

    Hidden files and folders (.NAME) and a system's folders of thumbnails and deleted files (@eaDir, #recycle, $RECYCLE.BIN,
    __MACOSX) are passed over. A class folder may be a link; below it, links to folders are not followed.

    Returns:
      All pictures: classes sorted by name, pictures by path; `notes` counts what was left out.

    Source: this project; the layout is torchvision's ImageFolder's.
    """
    folders, loose = _class_folders(directory)
    if len(folders) < 2:
        others = f"no class folder (and {sum(loose.values())} other entries)"
        held = f"one class folder, {printable(folders[0])}" if folders else others
        raise InputError(
            f"{printable(directory)} holds {held}: {_LAYOUT}, and at least two; fix: sort the pictures into folders, or give "
            "another folder with --config.data.directory"
        )
    _refuse_split(directory, folders)
    pictures = find_pictures(directory, folders, fix=_FIX)
    labels = Labels.from_ids(pictures.folders, classes=len(folders))
    classes = [printable(name) for name in folders]
    return FileSource(directory, labels, classes=classes, names=Names(pictures.names), notes={**pictures.notes, **loose})


def _refuse_split(directory: Path, folders: Sequence[bytes]) -> None:
    """Refuse class folders that are rather the parts of a split: by their names, and two of them hold the same folders."""
    if not all(name.lower() in _SPLIT for name in folders):
        return
    below = [set(_class_folders(directory / os.fsdecode(name))[0]) for name in folders]
    for one, two in combinations(below, 2):
        if len(one & two) > 1 or (one and one == two):
            names = ", ".join(map(printable, folders))
            raise InputError(
                f"{printable(directory)} holds the folders {names}, and the same folders in them, so they are no classes but a "
                f"split; fix: --config.data.reader={SPLIT_FOLDERS}"
            )


def read_split(directory: Path) -> FileSource:
    """Read DIRECTORY/PART/CLASS/ and everything below it, where the parts' names say how the pictures are split.

    Queries are test (or testing), or else query, or else val (valid, validation). The training set is train (or training), and
    the database is train with gallery and database, if there are any. Capital letters don't matter.

    Returns:
      The pictures of train, of gallery and database, and of the queries, each sorted by class and by path; `parts` has the rows
      of each; `notes` also counts the folders that aren't used.

    Raises:
      InputError: there are no such folders, a class has no picture, or one of the queries isn't in the database.
    """
    folders, notes = _class_folders(directory)
    train, database, *queries = ([name for name in folders if name.lower() in names] for names in (_TRAIN, _DATABASE, *_QUERY))
    query = next(filter(None, queries), [])
    if not train or not query:
        raise InputError(
            f"expected the folders train and test, query or val in {printable(directory)}, got "
            f"{', '.join(map(printable, folders)) or 'none'}; fix: rename them, or give another folder with "
            "--config.data.directory"
        )
    parts = [*train, *database, *query]
    inside: list[tuple[bytes, bytes]] = []  # part and class
    for part in parts:
        below, loose = _class_folders(directory / os.fsdecode(part))
        if not below:
            path = printable(directory / os.fsdecode(part))
            raise InputError(f"{path} holds no class folder; fix: sort its pictures into {path}/CLASS/, or remove it")
        inside += [(part, name) for name in below]
        notes += loose
    found = {name for part, name in inside if part not in query}
    unknown = sorted({name for part, name in inside if part in query} - found)
    if unknown:
        raise InputError(
            f"{printable(directory)} has queries of class {printable(unknown[0])}, and no such folder in "
            f"{', '.join(map(printable, train + database))}, so nothing can be found for them; fix: add pictures of "
            "it, or remove it from the queries"
        )
    classes = sorted(found)
    pictures = find_pictures(directory, [part + b"/" + name for part, name in inside], fix=_FIX)
    labels = Labels.from_ids(np.array([classes.index(name) for _, name in inside])[pictures.folders], classes=len(classes))
    rows = {
        part: np.flatnonzero(np.array([name in names for name, _ in inside])[pictures.folders])
        for part, names in (("query", query), ("train", train), ("database", train + database))
    }
    notes += Counter({NOT_IN_SPLIT: len(folders) - len(parts)})
    shown = [printable(name) for name in classes]
    return FileSource(
        directory, labels, classes=shown, names=Names(pictures.names), parts=rows, notes={**pictures.notes, **notes}
    )


def read_all(directory: Path) -> FileSource:
    """Read all pictures of a folder at any depth; a picture's only label is the first folder below `directory`, or "".

    Returns:
      The pictures, by path. The same files are ignored as by `read`. As there, folders directly below may be links, but only
      to places outside `directory`: no picture counts twice.
    """
    fix = f"give a folder with pictures, at any depth ({' '.join(EXTENSIONS)})"
    found = find_pictures(directory, [b".", *_links_outside(directory)], fix=fix, each=False)
    names = sorted(name.removeprefix(b"./") for name in found.names)
    folders = [name.partition(b"/")[0] if b"/" in name else b"" for name in names]
    classes = sorted(set(folders))
    number = {name: k for k, name in enumerate(classes)}
    labels = Labels.from_ids(np.array([number[name] for name in folders]), classes=len(classes))
    shown = [printable(name) for name in classes]
    return FileSource(directory, labels, classes=shown, names=Names(names), notes=found.notes)


def _links_outside(directory: Path) -> list[bytes]:
    """Return the links directly below a folder that lead to folders which neither are in it nor hold it."""
    if storage.is_remote(directory):
        return []
    root, outside = os.path.realpath(os.fsencode(directory)), []
    with os.scandir(root) as scanned:
        links = sorted(entry.name for entry in scanned if entry.is_symlink() and entry.is_dir() and not _is_ignored(entry.name))
    for name in links:
        target = os.path.realpath(os.path.join(root, name))
        if os.path.commonpath([root, target]) not in (root, target):
            outside.append(name)
    return outside


def find_pictures(root: Path, folders: Sequence[bytes], *, fix: str, each: bool = True) -> Pictures:
    """Find the pictures of some folders below a root, by their extensions.

    Args:
      root: the folder that holds them all.
      folders: paths below it.
      fix: what to do about a folder without a picture.
      each: whether each folder must hold a picture, and not only one of them.

    Returns:
      The pictures, folder by folder.
    """
    names: list[bytes] = []
    sizes: list[int] = []
    notes: Counter[str] = Counter()
    find = _find_in_store if storage.is_remote(root) else _find_on_disk
    for folder in folders:
        below = sorted(find(os.path.join(os.fsencode(root), folder), notes=notes))
        if not below and each:
            raise InputError(f"{printable(root / os.fsdecode(folder))} holds no picture; fix: {fix}")
        names += [folder + b"/" + name for name in below]
        sizes.append(len(below))
    if not names:
        raise InputError(f"{printable(root)} holds no picture; fix: {fix}")
    broken = next((name for name in names if b"\n" in name or b"\r" in name), None)
    if broken is not None:
        path = printable(root / os.fsdecode(broken))
        raise InputError(f"{path} has a line end in its name; fix: rename it, with letters and digits")
    return Pictures(names, np.repeat(np.arange(len(folders)), sizes), dict(notes))


def _class_folders(directory: Path) -> tuple[list[bytes], Counter[str]]:
    """Return the names of the folders in a folder, sorted, and count the files beside them."""
    try:
        if storage.is_remote(directory):
            entries = {name.encode(): is_folder for name, is_folder in storage.entries(directory).items()}
        else:
            with os.scandir(os.fsencode(directory)) as scanned:
                entries = {entry.name: entry.is_dir() for entry in scanned}
    except OSError as error:
        if storage.is_remote(directory):
            raise
        _refuse(error, fix="give another folder with --config.data.directory")
    entries = {name: is_folder for name, is_folder in entries.items() if not _is_ignored(name)}
    folders = sorted(name for name, is_folder in entries.items() if is_folder)
    loose = len(entries) - len(folders)
    return folders, Counter({LOOSE_FILES: loose} if loose else {})


def _find_on_disk(folder: bytes, *, notes: Counter[str]) -> list[bytes]:
    """Return the pictures in a folder and its subfolders, as paths below it; count what is left out."""
    pictures = []
    for path, folders, files in os.walk(folder, onerror=partial(_refuse, fix="give a folder of pictures")):
        system = sum(name.lower() in _SYSTEM for name in folders)
        folders[:] = [name for name in folders if not _is_ignored(name)]
        links = sum(os.path.islink(os.path.join(path, name)) for name in folders)
        files = [name for name in files if not _is_ignored(name)]
        names = [name for name in files if is_picture(name)]
        below = os.path.relpath(path, folder).replace(os.fsencode(os.sep), b"/")
        pictures += names if below == b"." else [below + b"/" + name for name in names]
        notes += Counter({LINKS: links, SYSTEM_FOLDERS: system})
        notes.update(map(_ending_of, set(files) - set(names)))
    return pictures


def _find_in_store(folder: bytes, *, notes: Counter[str]) -> list[bytes]:
    """Return the same for an object store, which has no links."""
    found = list(storage.objects(storage.path(folder.decode())))
    parts = {name: name.split(b"/") for name in found}
    passed_over = set()  # the outermost folder of each file that isn't looked at
    for *folders, _ in parts.values():
        depth = next((k for k, part in enumerate(folders, start=1) if _is_ignored(part)), 0)
        passed_over.add(b"/".join(folders[:depth]))
    files = [name for name in found if not any(map(_is_ignored, parts[name]))]
    pictures = [name for name in files if is_picture(name)]
    notes += Counter({SYSTEM_FOLDERS: sum(path.rpartition(b"/")[2].lower() in _SYSTEM for path in passed_over)})
    notes.update(_ending_of(name) for name in files if not is_picture(name))
    return pictures


def _ending_of(name: bytes) -> str:
    """Return what a file is counted as that isn't read; of some files each one has an ending of its own."""
    ending = printable(os.path.splitext(name)[1].lower())
    if not ending:
        return "files without an ending, not read"
    return f"files {ending}, not read" if len(ending) <= _LONGEST_ENDING and not ending[1:].isdigit() else OTHER_FILES


def is_picture(name: bytes) -> bool:
    """Return whether a file has a picture's extension."""
    return os.path.splitext(name)[1].lower() in _EXTENSIONS


def _is_ignored(name: bytes) -> bool:
    return name.startswith(b".") or name.lower() in _SYSTEM


def _refuse(error: OSError, *, fix: str) -> NoReturn:
    name = printable(os.fsencode(error.filename))
    raise InputError(f"{name} can't be read as a folder ({error.strerror}); fix: {fix}, or change its permissions") from error
