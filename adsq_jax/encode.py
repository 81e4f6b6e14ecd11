"""Encoding: images through an ImgNet in evaluation mode, in index order, nothing dropped, nothing twice."""

import flax.linen as nn
import jax
import numpy as np

from adsq_jax.data import pipeline
from adsq_jax.data.pipeline import Reading, View
from adsq_jax.data.sources import Source
from adsq_jax.parallel import DataParallel
from adsq_jax.train_state import ImgNetState


class Encoder:
    """Encodes images; compiled once, used for both ImgNets."""

    def __init__(self, model: nn.Module, *, parallel: DataParallel, batch_size: int, view: View, reading: Reading):
        """Takes the ImgNet module, the devices, the images a batch (rounded up to share them out evenly), and how to read."""
        devices = len(parallel.devices)
        self._batch_size = -(-batch_size // devices) * devices
        self._parallel, self._view, self._reading = parallel, view, reading
        self._apply = jax.jit(lambda variables, images: model.apply(variables, images, train=False)[1])

    def __call__(self, state: ImgNetState, source: Source, rows: np.ndarray) -> np.ndarray:
        """Relaxed codes of some rows of a source.

        Args:
          state: an ImgNet.
          source: of images.
          rows: int[n], rows of the source.

        Returns:
          float32[n, bits] in [-1, 1], in the order of `rows`.
        """
        variables = self._parallel.replicate({"params": state.params, "batch_stats": state.batch_stats})
        done: list[np.ndarray] = []
        running: jax.Array | None = None
        batches = pipeline.in_order(source, rows, view=self._view, batch_size=self._batch_size, reading=self._reading)
        for batch in batches:
            following = self._apply(variables, self._parallel.shard(batch["image"]))
            if running is not None:  # one batch computes while the next is read: bounded memory, no idle device
                done.append(np.asarray(running))
            running = following
        done.append(np.asarray(running))
        return np.concatenate(done)[: len(rows)]
