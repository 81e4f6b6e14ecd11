"""Encoding: images through an ImgNet in evaluation mode, in the order of their rows, none dropped and none twice."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from adsq_jax.data import pipeline
from adsq_jax.data.pipeline import Preprocessing, ReadOptions
from adsq_jax.data.sources import Source
from adsq_jax.devices.data_parallel import LocalDevices
from adsq_jax.inference.batches import map_batches, round_up
from adsq_jax.models.img_net import ImgNet


class Encoder:
    """Encodes images of a source; compiled once, used for both ImgNets."""

    def __init__(
        self,
        model: ImgNet,
        source: Source,
        *,
        local: LocalDevices,
        batch_size: int,
        preprocessing: Preprocessing,
        read_options: ReadOptions,
    ):
        """Compile a network for the images of a source.

        Args:
          model: the ImgNet module, with its backbone.
          source: the images.
          local: the devices of this process.
          batch_size: images per batch; rounded up, so that each device gets the same number.
          preprocessing: how images are resized and cropped.
          read_options: threads and worker processes.
        """
        self.batch_size, self._bits = round_up(batch_size, local), model.bits
        self._local, self._source, self._preprocessing, self._read_options = local, source, preprocessing, read_options
        self._codes = jax.jit(lambda variables, images: model.apply(variables, images, train=False)[1])
        self._trunk = jax.jit(lambda variables, images: model.apply(variables, images, train=False, method=model.trunk))

    def __call__(self, variables: Any, rows: np.ndarray) -> np.ndarray:
        """Return relaxed codes of some rows of the source.

        Args:
          variables: an ImgNet's variables.
          rows: int[n], rows of the source.

        Returns:
          float32[n, bits], in the order of `rows`; their range is that of the network's head.
        """
        outputs = self._outputs(self._codes, variables, rows, seed=None, start=0) if len(rows) else []
        return np.concatenate([np.zeros((0, self._bits), np.float32), *outputs])

    def features(self, trunk: Any, rows: np.ndarray, *, seed: int | None, start: int) -> Iterator[np.ndarray]:
        """Yield a frozen trunk's features of some rows, batch after batch.

        Args:
          trunk: the trunk's variables.
          rows: int[n], rows of the source.
          seed: seed for augmentation; None: the centre crops.
          start: the position in `rows` to begin at.

        Yields:
          float32[batch, width], n - start rows in all.
        """
        return self._outputs(self._trunk, trunk, rows, seed=seed, start=start)

    def _outputs(
        self, function: Callable[..., jax.Array], variables: Any, rows: np.ndarray, *, seed: int | None, start: int
    ) -> Iterator[np.ndarray]:
        batches = pipeline.in_order(
            self._source,
            rows,
            preprocessing=self._preprocessing,
            batch_size=self.batch_size,
            read_options=self._read_options,
            seed=seed,
            start=start,
        )
        inputs = (batch["inputs"] for batch in batches)
        return _without_padding(map_batches(function, variables, inputs, local=self._local), count=len(rows) - start)


class HeadEncoder:
    """Encodes from a frozen trunk's features, which are computed already."""

    def __init__(self, model: ImgNet, lookup: Callable[[np.ndarray], np.ndarray], *, local: LocalDevices, batch_size: int):
        """Compile a network for a frozen trunk's features.

        Args:
          model: the ImgNet module, without a backbone.
          lookup: maps rows of the source, int[n], to their features, float32[n, width].
          local: the devices of this process.
          batch_size: images per batch; rounded up, so that each device gets the same number.
        """
        self.batch_size, self._bits = round_up(batch_size, local), model.bits
        self._local, self._lookup = local, lookup
        self._codes = jax.jit(lambda variables, features: model.apply(variables, features, train=False)[1])

    def __call__(self, variables: Any, rows: np.ndarray) -> np.ndarray:
        """Return relaxed codes of some rows of the source, float32[n, bits]; arguments as in `Encoder`."""
        starts = range(0, len(rows), self.batch_size)
        inputs = (pipeline.padded(self._lookup(rows[start : start + self.batch_size]), self.batch_size) for start in starts)
        outputs = _without_padding(map_batches(self._codes, variables, inputs, local=self._local), count=len(rows))
        return np.concatenate([np.zeros((0, self._bits), np.float32), *outputs])


def _without_padding(outputs: Iterable[jax.Array], *, count: int) -> Iterator[np.ndarray]:
    for output in outputs:
        yield np.asarray(output)[:count]
        count -= len(output)
