"""From a source to batches: decode, crop, augment, batch. The batch at step t depends only on the seed and on t."""

import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from adsq_jax.data import images
from adsq_jax.data.preprocessing import Preprocessing, augment, resized
from adsq_jax.data.sources import Source


class ReadOptions(NamedTuple):
    """Threads and processes that read images; they set the speed, and which part of a batch this process reads."""

    threads: int  # that read and decode, in each process
    workers: int = 0  # processes that read; 0: the calling one
    process: int = 0  # the index of this process among those that train together
    processes: int = 1


class _Rows:
    """Some rows of a source; an image's `index` is its position among them, and so its row of the bank."""

    def __init__(self, source: Source, rows: np.ndarray, preprocessing: Preprocessing):
        self._source, self._rows, self._preprocessing = source, rows, preprocessing

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        return {"inputs": resized(self._source, int(self._rows[index]), self._preprocessing), "index": np.int32(index)}


class _Augment(grain.transforms.RandomMap):
    def __init__(self, preprocessing: Preprocessing, *, second_view: bool):
        self._preprocessing, self._names = preprocessing, view_names(second_view=second_view)

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        views = {name: augment(element["inputs"], rng, self._preprocessing) for name in self._names}
        return {**views, "index": element["index"]}


class _CentreCrop(grain.transforms.Map):
    def __init__(self, preprocessing: Preprocessing):
        self._side = preprocessing.image_size

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        return {"inputs": images.centre(element["inputs"], side=self._side), "index": element["index"]}


class _ChooseViews(grain.transforms.RandomMap):
    def __init__(self, views: Sequence[np.ndarray], *, second_view: bool):
        self._views, self._names = views, view_names(second_view=second_view)

    def random_map(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        count = len(self._views)
        chosen = [int(rng.integers(count))]
        if len(self._names) == 2:  # another one, if there is another
            chosen.append((chosen[0] + int(rng.integers(1, max(2, count)))) % count)
        views = {name: np.array(self._views[view][index]) for name, view in zip(self._names, chosen, strict=True)}
        return {**views, "index": np.int32(index)}


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
    rows_dataset = grain.MapDataset.source(_Rows(source, rows, preprocessing))
    dataset = rows_dataset.seed(seed).shuffle().random_map(_Augment(preprocessing, second_view=second_view))
    return _repeat(dataset, batch_size=batch_size, start=start, stop=stop, read_options=read_options)


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
    dataset = grain.MapDataset.range(len(views[0])).seed(seed).shuffle()
    dataset = dataset.random_map(_ChooseViews(views, second_view=second_view))
    return _repeat(dataset, batch_size=batch_size, start=start, stop=None, read_options=read_options._replace(workers=0))


def _repeat(
    dataset: Any, *, batch_size: int, start: int, stop: int | None, read_options: ReadOptions
) -> Generator[dict[str, np.ndarray]]:
    """Yield this process's part of complete batches, pass after pass."""
    process, processes = read_options.process, read_options.processes
    whole = len(dataset) // batch_size * batch_size
    dataset = dataset[process:whole:processes].batch(batch_size // processes).repeat()
    return _closing(_read_ahead(dataset[start:stop], read_options))


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
    dataset = grain.MapDataset.source(_Rows(source, rows, preprocessing))
    if seed is None:
        dataset = dataset.map(_CentreCrop(preprocessing))
    else:
        dataset = dataset.seed(seed).random_map(_Augment(preprocessing, second_view=False))
    for batch in _closing(_read_ahead(dataset[start:].batch(batch_size, drop_remainder=False), read_options)):
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
