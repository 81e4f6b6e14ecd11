"""MIRFlickr-25K: 25,000 photographs from Flickr, with 24 labels, any number of them each."""

from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import FileSource, Names
from adsq_jax.errors import InputError

IMAGES = 25_000
# "Potential" labels; the files NAME_r1.txt, of images where a label is relevant above all, are not read.
CLASSES = (
    "animals",
    "baby",
    "bird",
    "car",
    "clouds",
    "dog",
    "female",
    "flower",
    "food",
    "indoor",
    "lake",
    "male",
    "night",
    "people",
    "plant_life",
    "portrait",
    "river",
    "sea",
    "sky",
    "structures",
    "sunset",
    "transport",
    "tree",
    "water",
)
_FOLDERS = ("mirflickr25k_annotations_v080", "annotations")
_GET = "get {archive} from https://press.liacs.nl/mirflickr/mirdownload.html and unpack it to {to}"


def read(directory: Path) -> FileSource:
    """Reads the 24 files of labels, each a list of images' numbers.

    Args:
      directory: holds mirflickr25k_annotations_v080/NAME.txt (or annotations/NAME.txt), and mirflickr/im1.jpg and so on (or
        im1.jpg itself).

    Returns:
      All 25,000 images in the order of their numbers, those without a label too; `notes` counts those.

    Raises:
      InputError: a file or the images are missing, or a line is no image's number or a repeated one; the text says which.

    Source: Huiskes and Lew, The MIR Flickr Retrieval Evaluation, MIR 2008.
    """
    folder = next((directory / name for name in _FOLDERS if storage.is_folder(directory / name)), directory / _FOLDERS[0])
    labels = np.zeros((IMAGES, len(CLASSES)), np.uint8)
    for k, name in enumerate(CLASSES):
        labels[_numbers_of(folder / f"{name}.txt", folder=folder) - 1, k] = 1
    names = Names(b"im%d.jpg" % number for number in range(1, IMAGES + 1))
    bare = int((~labels.any(axis=1)).sum())
    return FileSource(
        _images_of(directory),
        Labels.from_multi_hot(labels),
        classes=CLASSES,
        names=names,
        notes={"images without a label": bare} if bare else {},
    )


def _images_of(directory: Path) -> Path:
    """The folder of the images: its name is no part of theirs, so that a split's hash doesn't depend on it."""
    if storage.is_folder(directory / "mirflickr"):
        return directory / "mirflickr"
    if not storage.is_file(directory / "im1.jpg"):
        get = _GET.format(archive="mirflickr25k.zip", to=directory)
        raise InputError(f"{directory / 'mirflickr'} is missing: expected im1.jpg to im{IMAGES}.jpg there; {get}")
    return directory


def _numbers_of(path: Path, *, folder: Path) -> np.ndarray:
    """Images' numbers in one file, int64[n], from 1."""
    get = _GET.format(archive="mirflickr25k_annotations_v080.zip", to=folder)
    if not storage.is_file(path):
        raise InputError(f"{path} is missing: expected one file for each of {len(CLASSES)} labels; {get}")
    try:
        text = storage.read(path)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): change its permissions, or {get}") from error
    lines = text.removeprefix(b"\xef\xbb\xbf").rstrip().splitlines()
    if not lines:
        raise InputError(f"{path} is empty: expected one image's number a line; {get}")
    seen: dict[int, int] = {}
    for line, token in enumerate(map(bytes.strip, lines), start=1):
        number = int(token) if token.isdigit() and len(token) < 10 else 0
        if not 1 <= number <= IMAGES:
            told = token[:20].decode(errors="backslashreplace")
            raise InputError(f"{path}, line {line}: {told!r} is no number from 1 to {IMAGES}; {get} once more")
        if number in seen:
            raise InputError(f"{path}, line {line}: image {number} stands in line {seen[number]} already; {get} once more")
        seen[number] = line
    return np.fromiter(seen, np.int64, len(seen))
