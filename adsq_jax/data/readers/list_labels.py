"""The labels of list files that belong together, in one set of classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from adsq_jax.data.labels import Labels
from adsq_jax.data.readers.list_forms import HOT, IDS, Parsed, why_unclear
from adsq_jax.errors import InputError

_MOST_BYTES = 2**32  # of a bit for each image and class


def join(
    lists: Mapping[str, Parsed], *, files: Mapping[str, Path], names: tuple[Path, list[str]] | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the labels of several lists in one set of classes.

    Args:
      lists: the lists by part, the first of which is named in messages about the others.
      files: their paths.
      names: the path of classes.txt and its names; None: there is none.

    Returns:
      By part, bits uint8[n, ceil(c / 8)], or class ids uint32[n, 1] where each image has one class and ids or names were given;
      and the names of the classes.

    Raises:
      InputError: the lists have several forms or numbers of classes, don't fit the names, or their form or a name is ambiguous.
    """
    (first, origin), *others = lists.items()
    for part, parsed in others:
        if parsed.form != origin.form:
            raise InputError(
                f"{files[part]} has {parsed.form} and {files[first].name} {origin.form}; fix: give lists of the same form"
            )
        if parsed.classes != origin.classes:
            counts = f"{parsed.classes} labels per line and {files[first].name} {origin.classes}"
            raise InputError(f"{files[part]} has {counts}; fix: give lists of the same classes")
    if origin.form == HOT:
        return {part: parsed.labels for part, parsed in lists.items()}, _numbered(origin.classes, names)
    if origin.form == IDS:
        return _join_ids(lists, files=files, names=names)
    return _join_names(lists, files=files, names=names)


def wrap(stored: np.ndarray, classes: int) -> Labels:
    """Return labels as `join` gives them."""
    if stored.dtype == np.uint32:
        return Labels.from_ids(stored[:, 0], classes=classes)
    return Labels.from_packed(stored, classes=classes)


def _numbered(count: int, names: tuple[Path, list[str]] | None) -> list[str]:
    if names is None:
        return [str(k) for k in range(count)]
    if len(names[1]) != count:
        raise InputError(
            f"{names[0]} has {len(names[1])} names, and the lists have {count} classes; fix: give one name per line"
        )
    return names[1]


def _all(files: Mapping[str, Path]) -> str:
    first, *others = files.values()
    return ", ".join([str(first), *(path.name for path in others)])


def _join_ids(
    lists: Mapping[str, Parsed], *, files: Mapping[str, Path], names: tuple[Path, list[str]] | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    known = np.unique(np.concatenate([parsed.labels for parsed in lists.values()]))
    if names is not None:
        path, classes = names
        if known[-1] >= len(classes):
            raise InputError(
                f"{path} has {len(classes)} names, and the lists have class ids from {known[0]} to {known[-1]}; fix: give a "
                "name for each id, from 0 on"
            )
        return {part: parsed.labels[:, None].astype(np.uint32) for part, parsed in lists.items()}, classes
    if known[-1] <= 1:
        raise InputError(
            f"{_all(files)}: each line has one number, 0 or 1, which may be a class id, or say whether an image is of a single "
            "class; fix: write class names, path,name; or, for ids, put a classes.txt with their two names beside it"
        )
    stored = {part: np.searchsorted(known, parsed.labels)[:, None].astype(np.uint32) for part, parsed in lists.items()}
    return stored, [str(k) for k in known]


def _join_names(
    lists: Mapping[str, Parsed], *, files: Mapping[str, Path], names: tuple[Path, list[str]] | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    labels: dict[str, Sequence[tuple[str, ...]]] = {part: parsed.labels for part, parsed in lists.items()}
    found = {name for each in labels.values() for line in each for name in line}
    unclear = set() if names else {name for name in found if why_unclear(name)}
    classes = sorted(found) if names is None else names[1]
    ids = {name: k for k, name in enumerate(classes)}
    for part, each in labels.items():
        for row, line in enumerate(each):
            odd = [name for name in line if name in unclear or name not in ids]
            if odd and names is not None:
                where = f"{files[part]}, line {row + 1}"
                raise InputError(f"{where}: {odd[0]!r:.80} isn't a class of {names[0]}; fix: add it there, or correct it")
            if odd:
                raise InputError(
                    f"{files[part]}, line {row + 1}: {odd[0]!r:.80} {why_unclear(odd[0])}; or, if it is a class, put a "
                    "classes.txt with all their names beside the list"
                )
    if all(len(line) == 1 for each in labels.values() for line in each):
        return {part: np.array([[ids[line[0]]] for line in each], np.uint32) for part, each in labels.items()}, classes
    width = -(-len(classes) // 8)
    if width * sum(map(len, labels.values())) > _MOST_BYTES:
        raise InputError(f"{_all(files)}: {len(classes):,} class names take too much memory; fix: give fewer classes")
    return {part: _pack(each, ids, width=width) for part, each in labels.items()}, classes


def _pack(labels: Sequence[tuple[str, ...]], ids: Mapping[str, int], *, width: int) -> np.ndarray:
    """Return a bit for each image and class, uint8[n, width]."""
    packed = np.zeros((len(labels), width), np.uint8)
    for row, line in enumerate(labels):
        for name in line:
            packed[row, ids[name] // 8] |= 128 >> ids[name] % 8
    return packed
