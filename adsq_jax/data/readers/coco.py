"""MS COCO: the 123,287 images of its training and validation parts, with 80 labels, as of 2014 or of 2017."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import FileSource, Names, Subset
from adsq_jax.errors import InputError

CATEGORIES = 80
PARTS, YEARS = ("train", "val"), (2014, 2017)
_FIELDS: dict[str, dict[str, type]] = {  # what is read of each list, and of what type it must be
    "images": {"id": int, "file_name": str},
    "annotations": {"image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}
_READ = frozenset(_FIELDS).union(*_FIELDS.values())
_ID_END = 10**12  # ids have at most the 12 digits of the files' names
_FILE_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)
_GET = "get {archive} from https://cocodataset.org/#download and unpack it to {directory}"


class _Part(NamedTuple):
    """What one JSON file says."""

    categories: dict[int, str]
    ids: np.ndarray  # of its images, int64[n]
    paths: list[bytes]  # of its images
    shown: np.ndarray  # an image's and a category's id, int64[annotations, 2]


def read(directory: Path) -> Subset:
    """Reads the instances of both parts; the data of 2017 are the same as those of 2014, divided otherwise.

    Args:
      directory: holds annotations/instances_{train,val}2014.json and the images' folders train2014/ and val2014/, or those of
        2017.

    Returns:
      The images with a label, by id; they are named by id too, and classes sorted by id. `notes` counts those without.

    Raises:
      InputError: a file or folder is missing, or a JSON file isn't COCO's; the text says which, where, and what to do.

    Source: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014.
    """
    year = _year_of(directory)
    train, val = (_parsed(_annotations(directory, part, year), folder=f"{part}{year}") for part in PARTS)
    where = f"{directory / 'annotations'}, instances_train{year}.json and instances_val{year}.json:"
    again = _get(directory, f"annotations_trainval{year}.zip") + " once more"
    if train.categories != val.categories:
        raise InputError(f"{where} their categories differ; {again}")
    ids, first, counts = np.unique(np.concatenate([train.ids, val.ids]), return_index=True, return_counts=True)
    if counts.max() > 1:
        raise InputError(f"{where} image {ids[counts.argmax()]} stands there more than once; {again}")
    shown, categories = np.concatenate([train.shown, val.shown]), sorted(train.categories)
    labels = np.zeros((len(ids), CATEGORIES), np.uint8)
    labels[np.searchsorted(ids, shown[:, 0]), np.searchsorted(categories, shown[:, 1])] = 1
    rows = np.flatnonzero(labels.any(axis=1))
    paths = train.paths + val.paths
    files = FileSource(
        directory,
        Labels.from_multi_hot(labels[rows]),
        classes=[train.categories[k] for k in categories],
        names=Names(paths[i] for i in first[rows]),
        notes={"images without a label": len(ids) - len(rows)} if len(rows) < len(ids) else {},
    )
    # named by id, so that a split's hash is that of 2014 and of 2017
    names = Names(b"%012d" % i for i in ids[rows].tolist())
    return Subset(files, np.arange(len(rows)), labels=files.labels, classes=files.classes, names=names, parts={})


def _get(directory: Path, archive: str) -> str:
    return _GET.format(archive=archive, directory=directory)


def _annotations(directory: Path, part: str, year: int) -> Path:
    return directory / "annotations" / f"instances_{part}{year}.json"


def _year_of(directory: Path) -> int:
    """The year whose files are there, 2014 if in doubt, once it is sure that all are."""
    files = {year: [_annotations(directory, part, year) for part in PARTS] for year in YEARS}
    folders = {year: [directory / f"{part}{year}" for part in PARTS] for year in YEARS}

    def there(year: int) -> tuple[bool, int]:
        found = [storage.is_file(path) for path in files[year]]
        return all(found), sum(found) + sum(storage.is_folder(path) for path in folders[year])

    year = max(YEARS, key=there)
    for path in files[year]:
        if not storage.is_file(path):
            raise InputError(
                f"{path} is missing: expected instances_train and instances_val of 2014 or of 2017; "
                + _get(directory, f"annotations_trainval{year}.zip")
            )
    for path in folders[year]:
        if not storage.is_folder(path):
            raise InputError(f"{path} is missing: expected the images there; {_get(directory, path.name + '.zip')}")
    return year


def _parsed(path: Path, *, folder: str) -> _Part:
    """One file's content, checked."""
    content = _json_of(path)
    categories = {int(i): str(name) for i, name in _entries(content, "categories", path=path)}
    if len(categories) != CATEGORIES:
        raise InputError(f"{path} has {len(categories)} categories: expected {CATEGORIES}; {_again(path)}")
    images = list(_entries(content, "images", path=path))
    for number, (_, name) in enumerate(images):
        if not _FILE_NAME.fullmatch(name):
            raise InputError(
                f"{path}, images[{number}]: file_name is {name[:80]!r}, expected a file's name without folders; {_again(path)}"
            )
    ids = np.array([i for i, _ in images], np.int64)
    shown = np.array(list(_entries(content, "annotations", path=path)), np.int64)  # [annotations, 2]
    for column, known, kind in ((0, ids, "image"), (1, np.array(list(categories)), "category")):
        lost = np.flatnonzero(~np.isin(shown[:, column], known))
        if len(lost):
            raise InputError(
                f"{path}, annotations[{lost[0]}]: {kind} {shown[lost[0], column]} isn't among the file's; {_again(path)}"
            )
    return _Part(categories, ids, [f"{folder}/{name}".encode() for _, name in images], shown)


def _again(path: Path) -> str:
    return _get(path.parent.parent, f"annotations_trainval{path.stem[-4:]}.zip") + " once more"


def _json_of(path: Path) -> Any:
    """A file's content without what isn't read, which is most of it: polygons are let go as soon as they are parsed."""
    try:
        with path.open("rb") as file:
            return json.load(file, object_hook=lambda entry: {key: entry[key] for key in _READ & entry.keys()})
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): change its permissions, or {_again(path)}") from error
    except (ValueError, RecursionError) as error:
        said = str(error).splitlines()[0][:100]
        raise InputError(f"{path} is no whole JSON file ({said}): {_again(path)}") from error


def _entries(content: Any, kind: str, *, path: Path) -> Iterator[tuple[Any, ...]]:
    """The fields of each entry of a list, if they are there, of their types, and ids in their range."""
    entries = content.get(kind) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} has no list {kind!r}: expected COCO's instances; {_again(path)}")
    fields = _FIELDS[kind]
    types = tuple(fields.values())
    for number, entry in enumerate(entries):
        values = tuple(map(entry.get, fields)) if isinstance(entry, dict) else ()
        if tuple(map(type, values)) != types or any(type(v) is int and not 0 <= v < _ID_END for v in values):
            wanted = ", ".join(f"{key} ({'a number from 0' if t is int else 'a text'})" for key, t in fields.items())
            raise InputError(f"{path}, {kind}[{number}]: expected {wanted}; {_again(path)}")
        yield values
