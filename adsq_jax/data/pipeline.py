"""From a source to batches: decode, crop, augment, batch. The batch at step t depends on the seed and on t alone."""

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
    """Who reads: it changes the speed, and nothing else."""

    threads: int  # that read and decode, in each process
    workers: int = 0  # processes that do so; 0: this one
    process: int = 0  # which of the processes that train together this is
    processes: int = 1


class _Rows:
    """Some rows of a source, each with its place among them: what ties an image to its row of the bank."""

    def __init__(self, source: Source, rows: np.ndarray, preprocessing: Preprocessing):
        self._source, self._rows, self._preprocessing = source, rows, preprocessing

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        return {"inputs": resized(self._source, int(self._rows[index]), self._preprocessing), "index": np.int32(index)}


class _Augment(grain.transforms.RandomMap):
    def __init__(self, preprocessing: Preprocessing):
        self._preprocessing = preprocessing

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        return {"inputs": augment(element["inputs"], rng, self._preprocessing), "index": element["index"]}


class _CentreCrop(grain.transforms.Map):
    def __init__(self, preprocessing: Preprocessing):
        self._side = preprocessing.image_size

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        return {"inputs": images.centre(element["inputs"], side=self._side), "index": element["index"]}


class _ChooseView(grain.transforms.RandomMap):
    def __init__(self, views: Sequence[np.ndarray]):
        self._views = views

    def random_map(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        view = self._views[int(rng.integers(len(self._views)))]
        return {"inputs": np.array(view[index]), "index": np.int32(index)}


def train_batches(
    source: Source,
    rows: np.ndarray,
    *,
    preprocessing: Preprocessing,
    batch_size: int,
    seed: int,
    start: int,
    read_options: ReadOptions,
    stop: int | None = None,
) -> Generator[dict[str, np.ndarray]]:
    """Shuffled, augmented batches without end. Each pass shuffles anew and leaves out what doesn't fill a batch.

    Args:
      source: of images.
      rows: the training set's rows of the source, int[n].
      preprocessing: resized, cropped at random, mirrored and erased as it says.
      batch_size: images a batch, at most n, over all processes; a multiple of their number.
      seed: of order and augmentation.
      start: the step to begin at.
      stop: the step to end before; None: never.
      read_options: threads and processes. Of `processes`, process p gets images p, p + processes, ... of each batch.

    Returns:
      Batches {inputs: uint8[batch, image_size, image_size, 3], index: int32[batch]} of this process; no index stands twice.
      Close it to end its threads.

    Raises:
      InputError: an image can't be read, or has another size than the network wants.

    Source: crop and flip as in He et al., CVPR 2016; squares as in DeVries and Taylor, arXiv 1708.04552.
    """
    dataset = (
        grain.MapDataset.source(_Rows(source, rows, preprocessing)).seed(seed).shuffle().random_map(_Augment(preprocessing))
    )
    return _repeated(dataset, batch_size=batch_size, start=start, stop=stop, read_options=read_options)


def train_feature_batches(
    views: Sequence[np.ndarray], *, batch_size: int, seed: int, start: int, read_options: ReadOptions
) -> Generator[dict[str, np.ndarray]]:
    """The same of a frozen trunk's features: shuffled batches without end, each image by one of its views at random.

    Args:
      views: of the training set, each float32[n, width].
      batch_size: as `train_batches`.
      seed: of order and choice.
      start: the step to begin at.
      read_options: threads and processes; there are no workers, since nothing is decoded.

    Returns:
      Batches {inputs: float32[batch, width], index: int32[batch]} of this process; no index stands twice.
    """
    dataset = grain.MapDataset.range(len(views[0])).seed(seed).shuffle().random_map(_ChooseView(views))
    return _repeated(dataset, batch_size=batch_size, start=start, stop=None, read_options=read_options._replace(workers=0))


def _repeated(
    dataset: Any, *, batch_size: int, start: int, stop: int | None, read_options: ReadOptions
) -> Generator[dict[str, np.ndarray]]:
    """This process's share of whole batches, pass after pass."""
    whole = len(dataset) // batch_size * batch_size
    dataset = (
        dataset[read_options.process : whole : read_options.processes].batch(batch_size // read_options.processes).repeat()
    )
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
    """Batches in the order of `rows`, each image once; the last one is padded with copies of its first image.

    Args:
      source: of images.
      rows: int[n].
      preprocessing: resized, and cropped to the centre; or as for training, where a seed is given.
      batch_size: images a batch.
      read_options: threads and worker processes.
      seed: of the augmentation; None: the centre. An image's augmentation depends on it and on the image's place in `rows`.
      start: the place in `rows` to begin at, below n.

    Returns:
      ceil((n - start) / batch_size) batches {inputs: uint8[batch, image_size, image_size, 3], index: int32[batch]}; cut what is
      computed from them to n - start.

    Raises:
      InputError: as `train_batches`.
    """
    dataset = grain.MapDataset.source(_Rows(source, rows, preprocessing))
    dataset = (
        dataset.map(_CentreCrop(preprocessing)) if seed is None else dataset.seed(seed).random_map(_Augment(preprocessing))
    )
    for batch in _closing(_read_ahead(dataset[start:].batch(batch_size, drop_remainder=False), read_options)):
        yield {name: padded(x, batch_size) for name, x in batch.items()}


def padded(x: np.ndarray, batch_size: int) -> np.ndarray:
    """A last batch in full size, [n, ...] -> [batch_size, ...]: copies of its first row follow."""
    return np.concatenate([x, np.repeat(x[:1], batch_size - len(x), axis=0)])


def _closing(batches: Any) -> Generator[dict[str, np.ndarray]]:
    """All batches; threads and workers end when the iterator is closed."""
    iterator = iter(batches)
    try:
        yield from iterator
    finally:
        iterator.close()


def _read_ahead(dataset: Any, read_options: ReadOptions) -> Any:
    """Reads ahead by threads, or by worker processes of as many threads."""
    ahead = max(2, 2 * read_options.threads // max(1, read_options.workers))  # batches
    iterated = dataset.to_iter_dataset(grain.ReadOptions(num_threads=read_options.threads, prefetch_buffer_size=ahead))
    if not read_options.workers:
        return iterated
    return iterated.mp_prefetch(grain.MultiprocessingOptions(num_workers=read_options.workers), worker_init_fn=_begin_worker)


def _begin_worker(index: int, count: int) -> None:
    """Signals to a whole group of processes are for the one that trains, which saves and then stops its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()


def _end_with(parent: int) -> None:
    """Ends a worker whose training process was killed: it would wait for ever for somebody to take its batches."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
