"""Fashion-MNIST's four IDX files."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from adsq_jax.data.labels import Labels
from adsq_jax.data.readers import files
from adsq_jax.data.sources import ArraySource
from adsq_jax.errors import InputError

DIRECTORY = "/usr/share/datasets/fashion-mnist"  # of Debian's package
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_GET = "apt-get install dataset-fashion-mnist"
_FIX = (
    f"{_GET}, or give the folder of its four files with --config.data.directory, or take TFDS's copy with "
    "--config.data.reader=tfds --config.data.directory="
)


def read(directory: Path) -> ArraySource:
    """Read 70,000 images of 28 x 28 pixels in ten classes, the 60,000 of the original training part first.

    Args:
      directory: the folder of the IDX files, `*-ubyte.gz`.

    Source: Xiao, Rasul and Vollgraf, arXiv 1708.07747.
    """
    parts = [
        [_read_idx(directory / f"{part}-{kind}-ubyte.gz", dimensions=n) for kind, n in (("images-idx3", 3), ("labels-idx1", 1))]
        for part in ("train", "t10k")
    ]
    for pixels, ids in parts:
        if len(pixels) != len(ids) or pixels.shape[1:] != (28, 28) or ids.max(initial=0) > 9:
            raise InputError(
                f"{directory} doesn't hold Fashion-MNIST: expected as many 28x28 images as labels from 0 to 9, got "
                f"{len(pixels)} images of {pixels.shape[1:]} and {len(ids)} labels; fix: {_GET}"
            )
    pixels, ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ArraySource(pixels[..., None], Labels.from_ids(ids, classes=10), classes=CLASSES)


def _read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes: magic 0x000008DD, sizes as big-endian int32, then the values."""
    try:
        content = gzip.decompress(files.read(path, fix=_FIX))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a complete gzip file ({error}); fix: {_FIX}") from error
    head = 4 + 4 * dimensions
    if len(content) < head or content[:4] != bytes((0, 0, 8, dimensions)):
        raise InputError(f"{path} is not an IDX file of unsigned bytes in {dimensions} dimensions; fix: {_FIX}")
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    if len(content) - head != np.prod(shape, dtype=np.int64):
        raise InputError(f"{path} declares {shape} bytes and holds {len(content) - head}; fix: {_FIX}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
