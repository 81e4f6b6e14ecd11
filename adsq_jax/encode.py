"""Encoding: images through an ImgNet in evaluation mode, in index order, nothing dropped, nothing twice."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from adsq_jax.data import pipeline
from adsq_jax.data.pipeline import Reading, View
from adsq_jax.data.sources import Source
from adsq_jax.models.img_net import ImgNet
from adsq_jax.parallel import Local
from adsq_jax.train_state import ImgNetState


class Encoder:
    """Encodes images; compiled once, used for both ImgNets."""

    def __init__(self, model: ImgNet, source: Source, *, local: Local, batch_size: int, view: View, reading: Reading):
        """Takes the network and its images.

        Args:
          model: the ImgNet module, with its backbone.
          source: of images.
          local: the devices of this process.
          batch_size: images a batch, rounded up to share them out evenly.
          view: how the network sees an image.
          reading: threads and worker processes.
        """
        self._batch_size, self._bits = _even(batch_size, local), model.bits
        self._local, self._source, self._view, self._reading = local, source, view, reading
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
            view=self._view,
            batch_size=self._batch_size,
            reading=self._reading,
            seed=seed,
            start=start,
        )
        inputs = (batch["inputs"] for batch in batches)
        return _computed(function, variables, inputs, count=len(rows) - start, local=self._local)


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
        self._batch_size, self._bits = _even(batch_size, local), model.bits
        self._local, self._lookup = local, lookup
        self.codes = jax.jit(lambda variables, features: model.apply(variables, features, train=False)[1])

    def __call__(self, state: ImgNetState, rows: np.ndarray) -> np.ndarray:
        """See `Encoder`."""
        variables, starts = {"params": state.params}, range(0, len(rows), self._batch_size)
        inputs = (pipeline.filled(self._lookup(rows[start : start + self._batch_size]), self._batch_size) for start in starts)
        outputs = _computed(self.codes, variables, inputs, count=len(rows), local=self._local)
        return np.concatenate([np.zeros((0, self._bits), np.float32), *outputs])


def _even(batch_size: int, local: Local) -> int:
    devices = len(local.devices)
    return -(-batch_size // devices) * devices


def _computed(
    function: Callable[..., jax.Array], variables: Any, inputs: Iterable[np.ndarray], *, count: int, local: Local
) -> Iterator[np.ndarray]:
    """Outputs of batches, `count` rows in all; one batch computes while the next is read: bounded memory, no idle device."""
    variables = local.replicate(variables)
    running: jax.Array | None = None
    for batch in inputs:
        following = function(variables, local.shard(batch))
        if running is not None:
            yield np.asarray(running)
            count -= len(running)
        running = following
    if running is not None:
        yield np.asarray(running)[:count]
