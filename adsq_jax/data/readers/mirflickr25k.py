"""MIRFlickr-25K: 25,000 photographs from Flickr, each with any number of 24 labels."""

from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.readers import files
from adsq_jax.data.sources import FileSource, Names
from adsq_jax.data.text import quote
from adsq_jax.errors import InputError

IMAGES = 25_000
# "Potential" labels; the files NAME_r1.txt, of images for which a label is especially relevant, are not read.
# fmt: off
CLASSES = (
    "animals", "baby", "bird", "car", "clouds", "dog", "female", "flower", "food", "indoor", "lake", "male",
    "night", "people", "plant_life", "portrait", "river", "sea", "sky", "structures", "sunset", "transport", "tree", "water",
)
# fmt: on
_FOLDERS = ("mirflickr25k_annotations_v080", "annotations")
_GET = "get {archive} from https://press.liacs.nl/mirflickr/mirdownload.html and unpack it to {to}"


def read(directory: Path) -> FileSource:
    """Read the 24 files of labels, each a list of images' numbers.

    Args:
      directory: holds mirflickr25k_annotations_v080/NAME.txt (or annotations/NAME.txt), and mirflickr/im1.jpg and so on (or
        im1.jpg itself).

    Returns:
      All 25,000 images in the order of their numbers; `notes` counts those without a label.

    Source: Huiskes and Lew, The MIR Flickr Retrieval Evaluation, MIR 2008.
    """
    folder = next((directory / name for name in _FOLDERS if storage.is_folder(directory / name)), directory / _FOLDERS[0])
    labels = np.zeros((IMAGES, len(CLASSES)), np.uint8)
    for k, name in enumerate(CLASSES):
        labels[_read_numbers(folder / f"{name}.txt", folder=folder) - 1, k] = 1
    unlabelled = int((~labels.any(axis=1)).sum())
    return FileSource(
        _find_images(directory),
        Labels.from_multi_hot(labels),
        classes=CLASSES,
        names=Names(b"im%d.jpg" % number for number in range(1, IMAGES + 1)),
        notes={"images without a label": unlabelled} if unlabelled else {},
    )


def _find_images(directory: Path) -> Path:
    """Return the folder of the images; names don't include it, so that a split's hash doesn't depend on it."""
    if storage.is_folder(directory / "mirflickr"):
        return directory / "mirflickr"
    if not storage.is_file(directory / "im1.jpg"):
        get = _GET.format(archive="mirflickr25k.zip", to=directory)
        raise InputError(f"{directory / 'mirflickr'} is missing: expected im1.jpg to im{IMAGES}.jpg there; fix: {get}")
    return directory


def _read_numbers(path: Path, *, folder: Path) -> np.ndarray:
    """Return the images' numbers in one file, int64[n], from 1."""
    get = _GET.format(archive="mirflickr25k_annotations_v080.zip", to=folder)
    lines = files.read(path, fix=get).removeprefix(b"\xef\xbb\xbf").rstrip().splitlines()
    if not lines:
        raise InputError(f"{path} is empty: expected an image's number in each line; fix: {get}")
    line_of: dict[int, int] = {}
    for line, token in enumerate(map(bytes.strip, lines), start=1):
        number = int(token) if token.isdigit() and len(token) < 10 else 0
        if not 1 <= number <= IMAGES:
            raise InputError(f"{path}, line {line}: {quote(token[:20])} is not a number from 1 to {IMAGES}; fix: {get} again")
        if number in line_of:
            raise InputError(f"{path}, line {line}: image {number} is in line {line_of[number]} already; fix: {get} again")
        line_of[number] = line
    return np.fromiter(line_of, np.int64, len(line_of))
