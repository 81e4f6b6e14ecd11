"""From a source to batches: decode, augment, batch. The batch at step t depends on the seed and on t alone."""

from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from adsq_jax.data.sources import Source

_READ = grain.ReadOptions(num_threads=4, prefetch_buffer_size=32)


class _Rows:
    """Some rows of a source, each with its place among them: what ties an image to its row of the bank."""

    def __init__(self, source: Source, rows: np.ndarray):
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        return {"image": self._source[int(self._rows[index])]["image"], "index": np.int32(index)}


def train_batches(
    source: Source,
    rows: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    start: int,
    crop_padding: int,
    flip: bool,
    erase: float,
) -> Iterator[dict[str, np.ndarray]]:
    """Shuffled, augmented batches without end. Each pass shuffles anew and leaves out what doesn't fill a batch.

    Args:
      source: of images.
      rows: the training set's rows of the source, int[n].
      batch_size: images a batch, at most n.
      seed: of order and augmentation.
      start: the step to begin at.
      crop_padding: pixels of black around an image, out of which a crop of its size is cut at random.
      flip: whether to mirror half of the images, left to right.
      erase: greatest side of a black square laid on half of the images, as a share of the image's side; 0 for none.

    Returns:
      Batches {image: uint8[batch, h, w, 3], index: int32[batch]}; no index stands twice in a batch.

    Source: crop and flip as in He et al., CVPR 2016; squares as in DeVries and Taylor, arXiv 1708.04552.
    """

    def augment(element: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        image = _augment(element["image"], random, crop_padding=crop_padding, flip=flip, erase=erase)
        return {"image": image, "index": element["index"]}

    dataset = grain.MapDataset.source(_Rows(source, rows)).seed(seed).shuffle().random_map(augment)
    dataset = dataset.batch(batch_size, drop_remainder=True).repeat()
    return iter(dataset[start:].to_iter_dataset(_READ))


def in_order(source: Source, rows: np.ndarray, *, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Batches in the order of `rows`, each image once; the last one is padded with copies of its first image.

    Args:
      source: of images.
      rows: int[n].
      batch_size: images a batch.

    Returns:
      ceil(n / batch_size) batches {image: uint8[batch, h, w, 3], index: int32[batch]}; cut what is computed from them to n.
    """
    dataset = grain.MapDataset.source(_Rows(source, rows)).batch(batch_size, drop_remainder=False)
    for batch in dataset.to_iter_dataset(_READ):
        missing = batch_size - len(batch["index"])
        yield {name: np.concatenate([x, np.repeat(x[:1], missing, axis=0)]) for name, x in batch.items()}


def _augment(image: np.ndarray, random: np.random.Generator, *, crop_padding: int, flip: bool, erase: float) -> np.ndarray:
    height, width, channels = image.shape
    if crop_padding:
        room = np.zeros((height + 2 * crop_padding, width + 2 * crop_padding, channels), np.uint8)
        room[crop_padding : crop_padding + height, crop_padding : crop_padding + width] = image
        top, left = random.integers(0, 2 * crop_padding + 1, size=2)
        image = room[top : top + height, left : left + width]
    if flip and random.random() < 0.5:
        image = image[:, ::-1]
    if erase and random.random() < 0.5:
        image = image.copy()
        side = int(random.integers(1, max(2, round(erase * min(height, width)) + 1)))
        top, left = random.integers(0, (height, width))
        spans: Sequence[slice] = [slice(max(0, centre - side // 2), centre + -(-side // 2)) for centre in (top, left)]
        image[spans[0], spans[1]] = 0
    return image
