"""Inference: a trained `Model` encodes images; `encode` does so during training."""

from typing import Any, Protocol

import numpy as np

from adsq_jax import errors as _errors

with _errors.needing(__name__):
    from adsq_jax.inference.loading import load
    from adsq_jax.inference.model import Model

__all__ = ["Model", "encode", "load"]


class _Setup(Protocol):
    """What `encode` needs of an `adsq_jax.training.TrainSetup`."""

    def model(self, state: Any, *, query_net: str | None = None) -> Model:
        """Return the model of a state."""
        ...


def encode(setup: _Setup, state: Any, images: Any, *, query_net: str | None = None, packed: bool = False) -> np.ndarray:
    """Encode images with the networks of a training state.

    Args:
      setup: an `adsq_jax.training.TrainSetup`.
      state: its `TrainState`.
      images: as in `Model.encode`: an array uint8[n, h, w, 3], or a list of paths or PIL images.
      query_net: which networks encode: "ff", "gg" or "sum"; None: "sum" with a twin, else "ff".
      packed: whether to pack eight bits into a byte.

    Returns:
      int8[n, bits] in {-1, +1}; or, packed, uint8[n, ceil(bits / 8)], little bit order.

    Raises:
      InputError: an image can't be read, or isn't one.

    Source: this project.
    """
    return setup.model(state, query_net=query_net).encode(images, packed=packed)
