"""Pictures of one's own, one folder a class: DIRECTORY/CLASS/ and whatever is below it."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import FileSource, Names
from adsq_jax.errors import InputError

EXTENSIONS = (  # of pictures that can be decoded, in lower case
    ".apng",
    ".bmp",
    ".gif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".pnm",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
OTHER_FILES, LOOSE_FILES, LINKS = (
    "files that are no pictures",
    "files beside the class folders",
    "links to folders, not followed",
)
_EXTENSIONS = frozenset(map(os.fsencode, EXTENSIONS))
_ANY = f"expected pictures, at any depth ({' '.join(EXTENSIONS)}); give another folder"
_LAYOUT = "expected DIRECTORY/CLASS/PICTURE, one folder a class"


class Pictures(NamedTuple):
    """What is in some folders."""

    names: list[bytes]  # paths below the root, folder by folder, sorted in each
    folders: np.ndarray  # of each picture, the index of its folder, int64[n]
    notes: Mapping[str, int]  # what was left out


def read(directory: Path) -> FileSource:
    """Reads one folder a class; pictures in its subfolders belong to it.

    Hidden files and folders (.NAME) and __MACOSX are passed over. A class folder may be a link; below it, links to folders are
    not followed.

    Args:
      directory: holds the folders.

    Returns:
      All pictures: classes sorted by name, pictures by path; `notes` counts what was left out.

    Raises:
      InputError: the folder or its classes aren't there, a class has no picture, or a name can't be used; the text says which.

    Source: this project; the layout is torchvision's ImageFolder's.
    """
    folders, loose = _class_folders(directory)
    if len(folders) < 2:
        held = (
            f"one class folder, {printable(folders[0])}"
            if folders
            else f"no class folder (and {sum(loose.values())} other entries)"
        )
        raise InputError(
            f"{printable(directory)} holds {held}: {_LAYOUT}, and at least two; sort the pictures into folders, or give "
            "another folder with --config.data.directory"
        )
    found = pictures_of(directory, folders, advice=f"{_LAYOUT}; add pictures ({' '.join(EXTENSIONS)}), or remove the folder")
    labels = Labels.from_ids(found.folders, classes=len(folders))
    classes = [printable(name) for name in folders]
    return FileSource(directory, labels, classes=classes, names=Names(found.names), notes={**found.notes, **loose})


def read_all(directory: Path) -> FileSource:
    """Reads all pictures of a folder at any depth, one label each at most: the first folder below it that a picture is in.

    What is passed over, and links, are as in `read`.

    Args:
      directory: the folder.

    Returns:
      The pictures, by path; of those that are in no folder below it the class is named "".

    Raises:
      InputError: the folder isn't there or holds no picture, or a name can't be used; the text says which.
    """
    names = [name.removeprefix(b"./") for name in pictures_of(directory, [b"."], advice=_ANY).names]
    folders = [name.partition(b"/")[0] if b"/" in name else b"" for name in names]
    classes = sorted(set(folders))
    number = {name: k for k, name in enumerate(classes)}
    labels = Labels.from_ids(np.array([number[name] for name in folders]), classes=len(classes))
    return FileSource(directory, labels, classes=[printable(name) for name in classes], names=Names(names))


def pictures_of(root: Path, folders: Sequence[bytes], *, advice: str) -> Pictures:
    """Finds the pictures of some folders, by their extensions.

    Args:
      root: of them all.
      folders: paths below it.
      advice: what to do about a folder without a picture.

    Returns:
      The pictures, folder by folder.

    Raises:
      InputError: a folder can't be read or holds no picture, or there is a line end in a name; the text says which.
    """
    names: list[bytes] = []
    sizes: list[int] = []
    notes: Counter[str] = Counter()
    below = _below_in_store if storage.is_remote(root) else _below
    for folder in folders:
        found = sorted(below(os.path.join(os.fsencode(root), folder), notes=notes))
        if not found:
            raise InputError(f"{printable(root / os.fsdecode(folder))} holds no picture: {advice}")
        names += [folder + b"/" + name for name in found]
        sizes.append(len(found))
    broken = next((name for name in names if b"\n" in name or b"\r" in name), None)
    if broken is not None:
        raise InputError(
            f"{printable(root / os.fsdecode(broken))} has a line end in its name: rename it, with letters and digits"
        )
    return Pictures(names, np.repeat(np.arange(len(folders)), sizes), dict(notes))


def printable(path: Path | bytes) -> str:
    """A path on one line, for people."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _class_folders(directory: Path) -> tuple[list[bytes], Counter[str]]:
    """Names of the folders in a folder, sorted, and how many files are beside them."""
    folders, loose = [], Counter[str]()
    if storage.is_remote(directory):
        there = {name: is_folder for name, is_folder in storage.entries(directory).items() if not _passed_over(name.encode())}
        folders = [name.encode() for name, is_folder in there.items() if is_folder]
        return sorted(folders), Counter({LOOSE_FILES: len(there) - len(folders)} if len(there) > len(folders) else {})
    try:
        with os.scandir(os.fsencode(directory)) as entries:
            for entry in entries:
                if _passed_over(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                else:
                    loose[LOOSE_FILES] += 1
    except OSError as error:
        _refuse(error, advice="give another folder with --config.data.directory")
    return sorted(folders), loose


def _below(folder: bytes, *, notes: Counter[str]) -> list[bytes]:
    """Pictures in a folder and its subfolders, as paths below it; counts what it leaves out."""
    found = []
    for path, folders, files in os.walk(folder, onerror=partial(_refuse, advice="give a folder of pictures")):
        folders[:] = [name for name in folders if not _passed_over(name)]
        links = sum(os.path.islink(os.path.join(path, name)) for name in folders)
        files = [name for name in files if not _passed_over(name)]
        pictures = [name for name in files if os.path.splitext(name)[1].lower() in _EXTENSIONS]
        below = os.path.relpath(path, folder).replace(os.fsencode(os.sep), b"/")
        found += pictures if below == b"." else [below + b"/" + name for name in pictures]
        notes += Counter({LINKS: links, OTHER_FILES: len(files) - len(pictures)})
    return found


def _below_in_store(folder: bytes, *, notes: Counter[str]) -> list[bytes]:
    """The same of an object store, which has no links."""
    files = [name for name in storage.objects(storage.path(folder.decode())) if not any(map(_passed_over, name.split(b"/")))]
    pictures = [name for name in files if os.path.splitext(name)[1].lower() in _EXTENSIONS]
    notes += Counter({OTHER_FILES: len(files) - len(pictures)})
    return pictures


def _passed_over(name: bytes) -> bool:
    return name.startswith(b".") or name == b"__MACOSX"


def _refuse(error: OSError, *, advice: str) -> NoReturn:
    name = printable(os.fsencode(error.filename))
    raise InputError(f"{name} can't be read as a folder ({error.strerror}): {advice}, or change its permissions") from error
