"""Fashion-MNIST's four IDX files."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from adsq_jax import storage
from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import ArraySource
from adsq_jax.errors import InputError

DIRECTORY = "/usr/share/datasets/fashion-mnist"  # where Debian's package puts them
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def read(directory: Path) -> ArraySource:
    """70,000 images of 28x28, 10 classes; the 60,000 of the original training part come first.

    Args:
      directory: the folder of the IDX files, `*-ubyte.gz`.

    Raises:
      InputError: the folder isn't there, or holds something else.

    Source: Xiao, Rasul and Vollgraf, arXiv 1708.07747.
    """
    parts = [
        (
            _read_idx(directory / f"{part}-images-idx3-ubyte.gz", dimensions=3),
            _read_idx(directory / f"{part}-labels-idx1-ubyte.gz", dimensions=1),
        )
        for part in ("train", "t10k")
    ]
    for pixels, ids in parts:
        if len(pixels) != len(ids) or pixels.shape[1:] != (28, 28) or ids.max(initial=0) > 9:
            raise InputError(
                f"{directory} doesn't hold Fashion-MNIST: {len(pixels)} images of {pixels.shape[1:]} and {len(ids)} "
                "labels were read, expected as many 28x28 images as labels 0 to 9: apt-get install dataset-fashion-mnist"
            )
    pixels, ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ArraySource(pixels[..., None], Labels.from_ids(ids, classes=10), classes=CLASSES)


def _read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """Reads one gzipped IDX file of unsigned bytes: magic 0x000008DD, sizes as big-endian int32, then the values."""
    advice = (
        "apt-get install dataset-fashion-mnist, or give the folder of its four files with --config.data.directory, or take "
        "TFDS's copy with --config.data.reader=tfds --config.data.directory="
    )
    if not storage.is_file(path):
        raise InputError(f"{path} is missing: {advice}")
    try:
        content = gzip.decompress(storage.read(path))
    except PermissionError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): change its permissions") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a whole gzip file ({error}): {advice}") from error
    head = 4 + 4 * dimensions
    if len(content) < head or content[:4] != bytes((0, 0, 8, dimensions)):
        raise InputError(f"{path} is not an IDX file of unsigned bytes in {dimensions} dimensions: {advice}")
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    if len(content) - head != np.prod(shape, dtype=np.int64):
        raise InputError(f"{path} promises {shape} bytes and holds {len(content) - head}: {advice}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
