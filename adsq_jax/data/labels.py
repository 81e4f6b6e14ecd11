"""Labels of many images in few bytes: class ids if each image has one label, else a bit per class."""

from collections.abc import Iterator
from typing import Any

import numpy as np

_BLOCK = 65_536  # images unpacked at a time


class Labels:
    """The classes of n images; indexing gives multi-hot rows."""

    def __init__(self, stored: np.ndarray, *, classes: int):
        """Wrap class ids, unsigned [n], or bits, uint8[n, ceil(classes / 8)], first class in the highest bit."""
        self._stored, self.classes = stored, classes

    @classmethod
    def from_ids(cls, ids: np.ndarray, *, classes: int) -> "Labels":
        """Make labels of images of one class each, from int[n] in [0, classes)."""
        ids = np.asarray(ids)
        if len(ids) and not 0 <= ids.min() <= ids.max() < classes:
            raise ValueError(f"expected class ids from 0 to {classes - 1}, got {ids.min()} to {ids.max()}")
        return cls(ids.astype(np.min_scalar_type(max(classes - 1, 0))), classes=classes)

    @classmethod
    def from_multi_hot(cls, labels: np.ndarray) -> "Labels":
        """Make labels from uint8[n, c] in {0, 1}."""
        if labels.dtype != np.uint8 or labels.ndim != 2 or labels.max(initial=0) > 1:
            raise ValueError(f"expected labels uint8[n, c] in {{0, 1}}, got {labels.dtype}{list(labels.shape)}")
        return cls.from_packed(np.packbits(labels, axis=1), classes=labels.shape[1])

    @classmethod
    def from_packed(cls, packed: np.ndarray, *, classes: int) -> "Labels":
        """Make labels from uint8[n, ceil(classes / 8)], first class in the highest bit, zero padding."""
        labels = cls(packed, classes=classes)
        ids = labels.ids(np.arange(len(packed)))
        return labels if ids is None else cls.from_ids(ids, classes=classes)

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return multi-hot labels, uint8[..., c], of one row, or of an array or slice of rows."""
        stored = self._stored[rows]
        if self.single:
            return (stored[..., None] == np.arange(self.classes, dtype=self._stored.dtype)).astype(np.uint8)
        return np.unpackbits(stored, axis=-1, count=self.classes)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of images and classes."""
        return len(self), self.classes

    @property
    def single(self) -> bool:
        """Whether each image has exactly one label and labels are stored as class ids."""
        return self._stored.ndim == 1

    @property
    def nbytes(self) -> int:
        """Size in memory, in bytes."""
        return self._stored.nbytes

    def blocks(self, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Iterate over the multi-hot labels of some rows, or of all, in blocks uint8[block, c]."""
        for start in range(0, len(self) if rows is None else len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            yield self[block if rows is None else rows[block]]

    def ids(self, rows: np.ndarray) -> np.ndarray | None:
        """Return class ids int64[m] of some rows, or None if a row hasn't exactly one label."""
        if self.single:
            return self._stored[rows].astype(np.int64)
        parts = []
        for block in self.blocks(rows):
            if (block.sum(axis=1, dtype=np.int64) != 1).any():
                return None
            parts.append(block.argmax(axis=1))
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def members(self, k: int) -> np.ndarray:
        """Return the rows with class k, int64[members], in ascending order."""
        if self.single:
            return np.flatnonzero(self._stored == k)
        return np.flatnonzero(self._stored[:, k // 8] & (128 >> k % 8))

    def per_image(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Count the labels of each image, int64[n]."""
        return np.concatenate([np.zeros(0, np.int64), *(block.sum(axis=1, dtype=np.int64) for block in self.blocks(rows))])

    def per_class(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Count the images of each class, int64[c]."""
        zero = np.zeros(self.classes, np.int64)
        return sum((block.sum(axis=0, dtype=np.int64) for block in self.blocks(rows)), start=zero)

    def select_classes(self, classes: np.ndarray) -> "Labels":
        """Return the same images with some of the classes, int[chosen], in that order."""
        empty = np.zeros((0, -(-len(classes) // 8)), np.uint8)
        packed = np.concatenate([empty, *(np.packbits(block[:, classes], axis=1) for block in self.blocks())])
        return Labels(packed, classes=len(classes))

    def take(self, rows: np.ndarray) -> "Labels":
        """Return some of the images, int[m], in that order."""
        return Labels(self._stored[rows], classes=self.classes)
