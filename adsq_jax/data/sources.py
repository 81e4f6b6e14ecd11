"""Sources: random access to labelled images, in a fixed order. `source[i] -> {image: uint8[h, w, 3], label: uint8[c]}`."""

import gzip
import importlib.util
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from adsq_jax.errors import InputError

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"  # where Debian's package puts it


class Source(Protocol):
    """What every source offers."""

    labels: np.ndarray  # of all images, uint8[n, c] in {0, 1}

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """{image: uint8[h, w, 3], label: uint8[c]}."""


class ArraySource:
    """Images that fit in memory; grey ones are shown in three equal channels, without a copy."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        """Takes images and labels.

        Args:
          images: uint8[n, h, w, 1 or 3].
          labels: uint8[n, c] in {0, 1}.

        Raises:
          ValueError: shapes or dtypes differ from these.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(f"images must be uint8[n, h, w, 1 or 3], got {images.dtype}{images.shape}")
        if labels.dtype != np.uint8 or labels.ndim != 2 or len(labels) != len(images) or labels.max(initial=0) > 1:
            raise ValueError(f"labels must be uint8[{len(images)}, c] in {{0, 1}}, got {labels.dtype}{labels.shape}")
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        image = self.images[index]
        return {"image": np.broadcast_to(image, (*image.shape[:2], 3)), "label": self.labels[index]}


def one_hot(ids: np.ndarray, *, classes: int) -> np.ndarray:
    """Class ids int[n] in [0, classes) as uint8[n, classes]."""
    return (np.asarray(ids)[:, None] == np.arange(classes)).astype(np.uint8)


def digits() -> ArraySource:
    """Scikit-learn's handwritten digits: 1,797 images of 8x8, 10 classes, inside the package.

    Raises:
      InputError: scikit-learn isn't installed.

    Source: UCI, Optical Recognition of Handwritten Digits (test part), by way of `sklearn.datasets.load_digits`.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError as error:
        raise InputError("digits come inside scikit-learn, which isn't installed: pip install scikit-learn") from error
    data = datasets.load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]  # 0..16 -> 0..255
    return ArraySource(images, one_hot(data.target, classes=10))


def fashion_mnist(directory: str) -> ArraySource:
    """Fashion-MNIST: 70,000 images of 28x28, 10 classes; the 60,000 of the original training part come first.

    Reads the four IDX files of `directory`. Where that is FASHION_MNIST, the folder of Debian's `dataset-fashion-mnist`, and
    isn't there, takes TFDS `fashion_mnist` as prepared on this machine, or downloads and prepares it, for which TFDS needs
    TensorFlow. TFDS has its own fixed order within each part, and so another split.

    Args:
      directory: the folder of the IDX files, `*-ubyte.gz`.

    Raises:
      InputError: the folder isn't there or holds something else, or neither way leads to the data.

    Source: Xiao, Rasul and Vollgraf, arXiv 1708.07747.
    """
    folder = Path(directory)
    if directory == FASHION_MNIST and not folder.exists():
        return _tfds_fashion_mnist()
    parts = [
        (
            _read_idx(folder / f"{part}-images-idx3-ubyte.gz", dimensions=3),
            _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", dimensions=1),
        )
        for part in ("train", "t10k")
    ]
    for images, labels in parts:
        if len(images) != len(labels) or images.shape[1:] != (28, 28) or labels.max(initial=0) > 9:
            raise InputError(
                f"{folder} doesn't hold Fashion-MNIST: {len(images)} images of {images.shape[1:]} and {len(labels)} "
                "labels were read, expected as many 28x28 images as labels 0 to 9: apt-get install dataset-fashion-mnist"
            )
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return ArraySource(images[..., None], one_hot(labels, classes=10))


def _read_idx(path: Path, *, dimensions: int) -> np.ndarray:
    """Reads one gzipped IDX file of unsigned bytes: magic 0x000008DD, sizes as big-endian int32, then the values."""
    advice = "apt-get install dataset-fashion-mnist, or give the folder of its four files with --config.data.directory"
    if not os.path.isfile(path):
        raise InputError(f"{path} is missing: {advice}")
    try:
        content = gzip.decompress(path.read_bytes())
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


def _tfds_fashion_mnist() -> ArraySource:
    """TFDS's copy, prepared as array_record, read whole into memory (70,000 x 784 bytes)."""
    tfds: Any = importlib.import_module("tensorflow_datasets")
    try:
        parts = [
            tfds.data_source(
                "fashion_mnist",
                split=split,
                download=importlib.util.find_spec("tensorflow") is not None,  # TFDS reads what it downloads with TensorFlow
                builder_kwargs={"file_format": "array_record"},
            )
            for split in ("train", "test")
        ]
        examples = [part[i] for part in parts for i in range(len(part))]
    except Exception as error:  # TFDS raises whatever its network, disk and import layers do
        reason = str(error).strip().splitlines() or [""]
        raise InputError(
            f"Fashion-MNIST was found neither in {FASHION_MNIST} nor by TFDS ({type(error).__name__}: {reason[-1][:200]}): "
            "apt-get install dataset-fashion-mnist, or give the folder of its four IDX files with "
            "--config.data.directory, or prepare it once where there is a network: pip install tensorflow && "
            "tfds build fashion_mnist --file_format=array_record"
        ) from error
    images = np.stack([example["image"] for example in examples])
    return ArraySource(images, one_hot(np.array([example["label"] for example in examples]), classes=10))
