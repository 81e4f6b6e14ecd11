"""Other methods over one ImgNet: the same nets, data, loop and metric as ADSQ. One file a method, one line a file in METHODS.

A file holds SETTINGS, the method's own knobs with their starting values; TUNING_GRID, the two choices of them that the
comparison tries on held-out images, each at two learning rates, as for every method; `loss`; and `method`.
"""

from types import ModuleType

from adsq_jax.errors import InputError
from adsq_jax.methods import adsh, classify, csq, dadh, dch, dhn, dpsh, dsdh, dseh, dsh, greedyhash, hashnet, orthohash

METHODS: dict[str, ModuleType] = {
    "dsh": dsh,
    "dpsh": dpsh,
    "dhn": dhn,
    "hashnet": hashnet,
    "dsdh": dsdh,
    "adsh": adsh,
    "dadh": dadh,
    "dseh": dseh,
    "dch": dch,
    "greedyhash": greedyhash,
    "csq": csq,
    "orthohash": orthohash,
    "classify": classify,
}


def find(name: str) -> ModuleType:
    """A baseline's module.

    Args:
      name: one of METHODS.

    Returns:
      The module.

    Raises:
      InputError: there is none of that name.
    """
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}: give adsq or one of {', '.join(METHODS)}")
    return METHODS[name]
