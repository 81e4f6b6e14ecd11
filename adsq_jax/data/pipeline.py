"""From a source to batches: decode, crop, augment, batch. The batch at step t depends only on the seed and on t."""

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from adsq_jax.data import images
from adsq_jax.data.order import InOrder, Order
from adsq_jax.data.preprocessing import Preprocessing, augment, resized
from adsq_jax.data.sources import Source


class ReadOptions(NamedTuple):
    """Threads and processes that read images; they set the speed, and which part of a batch this process reads."""

    threads: int  # that read and decode, in each process
    workers: int = 0  # processes that read; 0: the calling one
    process: int = 0  # the index of this process among those that train together
    processes: int = 1


class _ReadBatch(grain.transforms.Map):
    """Reads a step's images, each straight into its place; `index` is a position among the rows, and so the bank's row."""

    def __init__(
        self,
        source: Source,
        rows: np.ndarray,
        preprocessing: Preprocessing,
        order: Order | InOrder,
        *,
        names: Sequence[str],
        augmented: bool,
    ):
        self._source, self._rows, self._preprocessing, self._order = source, np.asarray(rows), preprocessing, order
        self._names, self._augmented = names, augmented

    def map(self, step: int) -> dict[str, np.ndarray]:
        side = self._preprocessing.image_size
        index, numbers = self._order.batch(step)
        views = {name: np.empty((len(index), side, side, 3), np.uint8) for name in self._names}
        generators = self._order.generators(numbers) if self._augmented else itertools.repeat(None)
        for place, (row, random) in enumerate(zip(self._rows[index].tolist(), generators, strict=False)):
            image = resized(self._source, row, self._preprocessing)
            for view in views.values():
                if random is None:
                    view[place] = images.centre(image, side=side)
                else:
                    augment(image, random, self._preprocessing, out=view[place])
        return {**views, "index": index.astype(np.int32)}


class _ChooseViews(grain.transforms.Map):
    """Gathers a step's features, of each image one view at random, or two."""

    def __init__(self, views: Sequence[np.ndarray], order: Order, *, second_view: bool):
        self._views, self._order, self._names = views, order, view_names(second_view=second_view)

    def map(self, step: int) -> dict[str, np.ndarray]:
        index, numbers = self._order.batch(step)
        chosen = [self._choose(random) for random in self._order.generators(numbers)]
        batch = {name: np.empty((len(index), *self._views[0].shape[1:]), self._views[0].dtype) for name in self._names}
        for place, (position, views) in enumerate(zip(index, chosen, strict=True)):
            for view, name in zip(views, self._names, strict=True):
                batch[name][place] = self._views[view][position]
        return {**batch, "index": index.astype(np.int32)}

    def _choose(self, random: np.random.Generator) -> list[int]:
        count = len(self._views)
        chosen = [int(random.integers(count))]
        if len(self._names) == 2:  # another one, if there is another
            chosen.append((chosen[0] + int(random.integers(1, max(2, count)))) % count)
        return chosen


def view_names(*, second_view: bool) -> tuple[str, ...]:
    """Return the names of a batch's views."""
    return ("inputs", "second_inputs") if second_view else ("inputs",)


def train_batches(
    source: Source,
    rows: np.ndarray,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    seed: int,
    start: int,
    stop: int | None = None,
    read_options: ReadOptions,
    second_view: bool = False,
) -> Generator[dict[str, np.ndarray]]:
    """Yield shuffled, augmented batches. Each pass has its own order and drops an incomplete last batch.

    Args:
      source: the images.
      rows: the training set's rows of the source, int[n].
      preprocessing: how to resize, crop, mirror and erase.
      batch_size: images per batch over all processes, at most n; a multiple of their number.
      seed: the seed for order and augmentation.
      start: the first step.
      stop: the step after the last; None: batches never end.
      read_options: process p of `processes` gets images p, p + processes, ... of each batch.
      second_view: whether to augment each image a second time, by further random numbers; the rest stays the same.

    Returns:
      Batches {inputs: uint8[batch, image_size, image_size, 3], index: int32[batch]} of this process, without repeated
      indices; with a second view, also second_inputs, like inputs. Closing the generator ends its threads.

    Raises:
      InputError: an image can't be read, or has another size than the network expects.
    """
    order = _order(len(rows), batch_size=batch_size, seed=seed, read_options=read_options)
    read = _ReadBatch(
        source,
        rows,
        preprocessing,
        order,
        names=view_names(second_view=second_view),
        augmented=True,
    )
    return _closing(_read_ahead(grain.MapDataset.range(start, _end(stop)).map(read), read_options))


def train_feature_batches(
    views: Sequence[np.ndarray],
    *,
    batch_size: int,
    seed: int,
    start: int,
    read_options: ReadOptions,
    second_view: bool = False,
) -> Generator[dict[str, np.ndarray]]:
    """Yield batches of a frozen trunk's features, as `train_batches` does for images: one view of each image at random.

    Args:
      views: the training set's features, one array float32[n, width] per view.
      batch_size, seed, start: as in `train_batches`.
      read_options: threads and processes; there are no workers, since nothing is decoded.
      second_view: whether to choose a second view of each image, another one where there are several.

    Returns:
      Batches {inputs: float32[batch, width], index: int32[batch]} of this process; with a second view, also second_inputs.
    """
    order = _order(len(views[0]), batch_size=batch_size, seed=seed, read_options=read_options)
    dataset = grain.MapDataset.range(start, _end(None)).map(_ChooseViews(views, order, second_view=second_view))
    return _closing(_read_ahead(dataset, read_options._replace(workers=0)))


def _order(n: int, *, batch_size: int, seed: int, read_options: ReadOptions) -> Order:
    return Order(n, seed=seed, batch_size=batch_size, process=read_options.process, processes=read_options.processes)


def _end(stop: int | None) -> int:
    return sys.maxsize if stop is None else stop


def in_order(
    source: Source,
    rows: np.ndarray,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    read_options: ReadOptions,
    seed: int | None = None,
    start: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches in the order of `rows`, each image once; the last batch is padded with copies of its first image.

    Args:
      source, rows, preprocessing, batch_size, read_options: as in `train_batches`.
      seed: the seed for the augmentation, which also depends on an image's position in `rows`; None: crop to the centre.
      start: the first position in `rows`, below n.

    Returns:
      ceil((n - start) / batch_size) batches {inputs: uint8[batch, image_size, image_size, 3], index: int32[batch]}; the
      caller drops the padding.
    """
    order = InOrder(len(rows), seed=seed or 0, batch_size=batch_size, start=start)
    read = _ReadBatch(source, rows, preprocessing, order, names=["inputs"], augmented=seed is not None)
    steps = -(-(len(rows) - start) // batch_size)
    for batch in _closing(_read_ahead(grain.MapDataset.range(steps).map(read), read_options)):
        yield {name: padded(x, batch_size) for name, x in batch.items()}


def padded(x: np.ndarray, batch_size: int) -> np.ndarray:
    """Fill up a last batch with copies of its first row, [n, ...] -> [batch_size, ...]."""
    return np.concatenate([x, np.repeat(x[:1], batch_size - len(x), axis=0)])


def _closing(batches: Any) -> Generator[dict[str, np.ndarray]]:
    """Yield all batches; end threads and workers when the generator is closed."""
    iterator = iter(batches)
    try:
        yield from iterator
    finally:
        iterator.close()


def _read_ahead(dataset: Any, read_options: ReadOptions) -> Any:
    """Read ahead by threads, or by worker processes with as many threads each."""
    ahead = max(2, 2 * read_options.threads // max(1, read_options.workers))  # batches
    iterated = dataset.to_iter_dataset(grain.ReadOptions(num_threads=read_options.threads, prefetch_buffer_size=ahead))
    if not read_options.workers:
        return iterated
    return iterated.mp_prefetch(grain.MultiprocessingOptions(num_workers=read_options.workers), worker_init_fn=_begin_worker)


def _begin_worker(index: int, count: int) -> None:
    """Ignore signals to the process group: the training process handles them, saves, and then stops its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()


def _end_with(parent: int) -> None:
    """End a worker whose training process was killed: it would wait forever for someone to take its batches."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
