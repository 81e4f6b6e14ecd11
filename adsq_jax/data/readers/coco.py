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
from adsq_jax.errors import InputError, first_line

CATEGORIES = 80
PARTS, YEARS = ("train", "val"), (2014, 2017)
_FIELDS: dict[str, dict[str, type]] = {  # the fields that are read of each list, and their types
    "images": {"id": int, "file_name": str},
    "annotations": {"image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}
_READ = frozenset(_FIELDS).union(*_FIELDS.values())
_ID_END = 10**12  # ids have at most the 12 digits of the files' names
_FILE_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)


class _Part(NamedTuple):
    """The content of one JSON file."""

    categories: dict[int, str]
    ids: np.ndarray  # of its images, int64[n]
    paths: list[bytes]  # of its images
    annotations: np.ndarray  # ids of an image and a category, int64[annotations, 2]


def read(directory: Path) -> Subset:
    """Read the instances of both parts; the data of 2017 are the same as those of 2014, divided differently.

    Args:
      directory: holds annotations/instances_{train,val}2014.json and the images' folders train2014/ and val2014/, or those of
        2017.

    Returns:
      The images with a label, sorted and named by id, and classes sorted by id. `notes` counts those without a label.

    Source: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014.
    """
    year = _find_year(directory)
    train, val = (_read_part(_annotations(directory, part, year), folder=f"{part}{year}") for part in PARTS)
    where = f"{directory / 'annotations'}, instances_train{year}.json and instances_val{year}.json"
    again = _fix(directory, f"annotations_trainval{year}.zip") + " again"
    if train.categories != val.categories:
        raise InputError(f"{where} have different categories; {again}")
    ids, first, counts = np.unique(np.concatenate([train.ids, val.ids]), return_index=True, return_counts=True)
    if counts.max() > 1:
        raise InputError(f"{where} have image {ids[counts.argmax()]} more than once; {again}")
    annotations, categories = np.concatenate([train.annotations, val.annotations]), sorted(train.categories)
    labels = np.zeros((len(ids), CATEGORIES), np.uint8)
    labels[np.searchsorted(ids, annotations[:, 0]), np.searchsorted(categories, annotations[:, 1])] = 1
    rows = np.flatnonzero(labels.any(axis=1))
    paths = train.paths + val.paths
    files = FileSource(
        directory,
        Labels.from_multi_hot(labels[rows]),
        classes=[train.categories[k] for k in categories],
        names=Names(paths[i] for i in first[rows]),
        notes={"images without a label": len(ids) - len(rows)} if len(rows) < len(ids) else {},
    )
    # named by id, so that a split has the same hash for 2014 and 2017
    names = Names(b"%012d" % i for i in ids[rows].tolist())
    return Subset(files, np.arange(len(rows)), labels=files.labels, classes=files.classes, names=names, parts={})


def _fix(directory: Path, archive: str) -> str:
    return f"fix: get {archive} from https://cocodataset.org/#download and unpack it to {directory}"


def _annotations(directory: Path, part: str, year: int) -> Path:
    return directory / "annotations" / f"instances_{part}{year}.json"


def _find_year(directory: Path) -> int:
    """Return the year whose files are all there, 2014 rather than 2017."""
    files = {year: [_annotations(directory, part, year) for part in PARTS] for year in YEARS}
    folders = {year: [directory / f"{part}{year}" for part in PARTS] for year in YEARS}

    def completeness(year: int) -> tuple[bool, int]:
        exist = [storage.is_file(path) for path in files[year]]
        return all(exist), sum(exist) + sum(storage.is_folder(path) for path in folders[year])

    year = max(YEARS, key=completeness)
    for path in files[year]:
        if not storage.is_file(path):
            raise InputError(
                f"{path} is missing: expected instances_train and instances_val of 2014 or of 2017; "
                + _fix(directory, f"annotations_trainval{year}.zip")
            )
    for path in folders[year]:
        if not storage.is_folder(path):
            raise InputError(f"{path} is missing: expected the images there; {_fix(directory, path.name + '.zip')}")
    return year


def _read_part(path: Path, *, folder: str) -> _Part:
    """Read one JSON file, and check it."""
    content = _read_json(path)
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
    annotations = np.array(list(_entries(content, "annotations", path=path)), np.int64)  # [annotations, 2]
    for column, known, kind in ((0, ids, "image"), (1, np.array(list(categories)), "category")):
        unknown = np.flatnonzero(~np.isin(annotations[:, column], known))
        if len(unknown):
            i = annotations[unknown[0], column]
            raise InputError(f"{path}, annotations[{unknown[0]}]: {kind} {i} isn't among the file's; {_again(path)}")
    return _Part(categories, ids, [f"{folder}/{name}".encode() for _, name in images], annotations)


def _again(path: Path) -> str:
    return _fix(path.parent.parent, f"annotations_trainval{path.stem[-4:]}.zip") + " again"


def _read_json(path: Path) -> Any:
    """Read a file without the fields that aren't used: polygons, most of the file, are dropped as soon as they are parsed."""
    try:
        with path.open("rb") as file:
            return json.load(file, object_hook=lambda entry: {key: entry[key] for key in _READ & entry.keys()})
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); {_again(path)}, or change its permissions") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a complete JSON file ({first_line(error)[:100]}); {_again(path)}") from error


def _entries(content: Any, kind: str, *, path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield the fields of each entry of a list, after checking their types and the range of ids."""
    entries = content.get(kind) if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path} has no list {kind!r}: expected COCO's instances; {_again(path)}")
    fields = _FIELDS[kind]
    types = tuple(fields.values())
    for number, entry in enumerate(entries):
        values = tuple(map(entry.get, fields)) if isinstance(entry, dict) else ()
        if tuple(map(type, values)) != types or any(type(v) is int and not 0 <= v < _ID_END for v in values):
            expected = ", ".join(f"{key} ({'a number from 0' if t is int else 'a text'})" for key, t in fields.items())
            raise InputError(f"{path}, {kind}[{number}]: expected {expected}; {_again(path)}")
        yield values
