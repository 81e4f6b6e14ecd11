"""Encoding: images through an ImgNet in evaluation mode, in index order, nothing dropped, nothing twice."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from adsq_jax.data import pipeline
from adsq_jax.data.pipeline import Preprocessing, ReadOptions
from adsq_jax.data.sources import Source
from adsq_jax.devices.data_parallel import Local
from adsq_jax.models.img_net import ImgNet
from adsq_jax.training.state import ImgNetState


class Encoder:
    """Encodes images; compiled once, used for both ImgNets."""

    def __init__(
        self,
        model: ImgNet,
        source: Source,
        *,
        local: Local,
        batch_size: int,
        preprocessing: Preprocessing,
        read_options: ReadOptions,
    ):
        """Takes the network and its images.

        Args:
          model: the ImgNet module, with its backbone.
          source: of images.
          local: the devices of this process.
          batch_size: images a batch, rounded up to share them out evenly.
          preprocessing: how the network sees an image.
          read_options: threads and worker processes.
        """
        self._batch_size, self._bits = even(batch_size, local), model.bits
        self._local, self._source, self._preprocessing, self._read_options = local, source, preprocessing, read_options
        self.codes = jax.jit(lambda variables, images: model.apply(variables, images, train=False)[1])
        self.trunk = jax.jit(lambda variables, images: model.apply(variables, images, train=False, method=model.trunk))

    def __call__(self, state: ImgNetState, rows: np.ndarray) -> np.ndarray:
        """Relaxed codes of some rows of the source.

        Args:
          state: an ImgNet.
          rows: int[n], rows of the source.

        Returns:
          float32[n, bits] in [-1, 1], in the order of `rows`.
        """
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        outputs = self._outputs(self.codes, variables, rows, seed=None, start=0) if len(rows) else []
        return np.concatenate([np.zeros((0, self._bits), np.float32), *outputs])

    def features(self, trunk: Any, rows: np.ndarray, *, seed: int | None, start: int) -> Iterator[np.ndarray]:
        """A frozen trunk's features of some rows, batch after batch.

        Args:
          trunk: its variables.
          rows: int[n], rows of the source.
          seed: of the augmentation; None: the centre of each image.
          start: the place in `rows` to begin at.

        Returns:
          float32[batch, width] each, n - start rows in all.
        """
        return self._outputs(self.trunk, trunk, rows, seed=seed, start=start)

    def _outputs(
        self, function: Callable[..., jax.Array], variables: Any, rows: np.ndarray, *, seed: int | None, start: int
    ) -> Iterator[np.ndarray]:
        batches = pipeline.in_order(
            self._source,
            rows,
            preprocessing=self._preprocessing,
            batch_size=self._batch_size,
            read_options=self._read_options,
            seed=seed,
            start=start,
        )
        inputs = (batch["inputs"] for batch in batches)
        return _whole(computed(function, variables, inputs, local=self._local), count=len(rows) - start)


class HeadEncoder:
    """The same from a frozen trunk's features, which are there already: only the heads are left to do."""

    def __init__(self, model: ImgNet, lookup: Callable[[np.ndarray], np.ndarray], *, local: Local, batch_size: int):
        """Takes the network and its inputs.

        Args:
          model: the ImgNet module, without a backbone.
          lookup: from rows of the source, int[n], to their features, float32[n, width].
          local: the devices of this process.
          batch_size: images a batch, rounded up to share them out evenly.
        """
        self._batch_size, self._bits = even(batch_size, local), model.bits
        self._local, self._lookup = local, lookup
        self.codes = jax.jit(lambda variables, features: model.apply(variables, features, train=False)[1])

    def __call__(self, state: ImgNetState, rows: np.ndarray) -> np.ndarray:
        """See `Encoder`."""
        variables, starts = {"params": state.params}, range(0, len(rows), self._batch_size)
        inputs = (pipeline.padded(self._lookup(rows[start : start + self._batch_size]), self._batch_size) for start in starts)
        outputs = _whole(computed(self.codes, variables, inputs, local=self._local), count=len(rows))
        return np.concatenate([np.zeros((0, self._bits), np.float32), *outputs])


def even(batch_size: int, local: Local) -> int:
    """A number of images, rounded up so that all devices get as many."""
    devices = len(local.devices)
    return -(-batch_size // devices) * devices


def computed(function: Callable[..., Any], variables: Any, inputs: Iterable[np.ndarray], *, local: Local) -> Iterator[Any]:
    """What a compiled function gives for batch after batch; one computes while the next is read, in bounded memory.

    Args:
      function: of variables and a batch.
      variables: a tree of arrays.
      inputs: batches, whose first axis all devices can share evenly.
      local: the devices of this process.

    Returns:
      A tree of arrays for each batch, in their order.
    """
    variables = local.replicate(variables)
    running: Any = None
    for batch in inputs:
        following = function(variables, local.shard(batch))
        if running is not None:
            yield running
        running = following
    if running is not None:
        yield running


def _whole(outputs: Iterable[jax.Array], *, count: int) -> Iterator[np.ndarray]:
    """The first `count` rows of batches, as NumPy has them."""
    for output in outputs:
        yield np.asarray(output)[:count]
        count -= len(output)
