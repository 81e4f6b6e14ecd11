"""CIFAR-10, its binary version: 60,000 images of 32 x 32 pixels in ten classes, in six files of records."""

from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.readers import files
from adsq_jax.data.sources import ArraySource
from adsq_jax.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")
RECORDS = 10_000  # of each file
_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE  # a label, then the red, green and blue plane
_FOLDER, _ARCHIVE = "cifar-10-batches-bin", "cifar-10-binary.tar.gz"
_PICKLED = ("cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1")
_GET = f"get {_ARCHIVE} from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it to"


def read(directory: Path) -> ArraySource:
    """Read the six files of the binary version, from `directory` or its folder cifar-10-batches-bin/.

    Returns:
      60,000 images, the training part first, in the order of the files.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
    """
    folder = directory / _FOLDER if storage.is_folder(directory / _FOLDER) else directory
    pixels = np.empty((len(FILES) * RECORDS, _SIDE, _SIDE, 3), np.uint8)
    ids = np.empty(len(pixels), np.uint8)
    for k, name in enumerate(FILES):
        rows = slice(k * RECORDS, (k + 1) * RECORDS)
        records = _records(folder / name, directory=directory)
        ids[rows] = records[:, 0]
        pixels[rows] = records[:, 1:].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return ArraySource(pixels, Labels.from_ids(ids, classes=len(CLASSES)), classes=CLASSES)


def _records(path: Path, *, directory: Path) -> np.ndarray:
    """Return a file's records, uint8[RECORDS, 3073]."""
    content = files.read(path, fix=_fix(directory), size=RECORDS * _RECORD)
    records = np.frombuffer(content, np.uint8).reshape(RECORDS, _RECORD)
    wrong = np.flatnonzero(records[:, 0] >= len(CLASSES))
    if len(wrong):
        label = records[wrong[0], 0]
        raise InputError(f"{path}, record {wrong[0]} has label {label}: expected 0 to 9; fix: {_GET} {directory} again")
    return records


def _fix(directory: Path) -> str:
    """Return what to do if a file is missing."""
    if (directory / _ARCHIVE).exists():
        return f"unpack {directory / _ARCHIVE} there (tar -xzf {_ARCHIVE})"
    if any((directory / name).exists() for name in _PICKLED):
        return f"{_GET} {directory}; what is there is the python version, whose files are pickles and never opened"
    return f"{_GET} {directory}, or give another folder with --config.data.directory"
