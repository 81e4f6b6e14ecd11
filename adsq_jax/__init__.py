"""ADSQ, asymmetric deep semantic quantization for image retrieval, in JAX and Flax.

`fit` trains in one call, `pretrained_model` needs no training, and `load` reads a model; `data`, `methods`, `models`,
`training`, `inference`, `retrieval` and `index` hold the pieces. Everything else is private.
"""

from typing import TYPE_CHECKING

from adsq_jax.run import lazy_names as _lazy_names
from adsq_jax.run import startup as _startup

if TYPE_CHECKING:
    from adsq_jax import data, devices, index, inference, methods, models, retrieval, training
    from adsq_jax.inference.loading import load
    from adsq_jax.inference.model import Model
    from adsq_jax.inference.untrained import UntrainedModel, pretrained_model
    from adsq_jax.retrieval.measures import Measures
    from adsq_jax.training.fit import Run, fit

__version__ = "0.1.0"
__all__ = [
    "Measures",
    "Model",
    "Run",
    "UntrainedModel",
    "data",
    "devices",
    "fit",
    "index",
    "inference",
    "load",
    "methods",
    "models",
    "pretrained_model",
    "retrieval",
    "training",
]
_MODULES = {  # JAX takes seconds to import: each name is loaded when it is first used
    "Measures": "retrieval.measures",
    "Model": "inference.model",
    "Run": "training.fit",
    "UntrainedModel": "inference.untrained",
    "fit": "training.fit",
    "load": "inference.loading",
    "pretrained_model": "inference.untrained",
}
__getattr__ = _lazy_names.loader(__name__, {**{name: name for name in __all__}, **_MODULES})

if _startup.is_command():  # this is the first of its imports, which take seconds
    _startup.prepare()


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
