"""ADSQ, asymmetric deep semantic quantization for image retrieval, in JAX and Flax."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from adsq_jax.inference.model import Model

__version__ = "0.1.0"


def load(directory: "str | Path") -> "Model":
    """Loads the trained model of a run.

    Args:
      directory: the run's folder, that `adsq_jax.main` was given as `--workdir`.

    Returns:
      The model; `model.encode(images)` gives packed codes.

    Raises:
      InputError: the folder holds no finished run, or its model is damaged.
    """
    from adsq_jax.inference import model  # JAX takes seconds to import: only where it is wanted

    return model.load(directory)
