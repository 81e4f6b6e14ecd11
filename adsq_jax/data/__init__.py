"""Data sets, for Python: one's own images by `from_arrays`, a published benchmark by `load`, and batches of either.

`read_array` reads codes or labels from files of NumPy, MATLAB, HDF5 and text.
"""

from typing import TYPE_CHECKING

from adsq_jax.run import lazy_names as _lazy_names
from adsq_jax.run.array_files import read as read_array

if TYPE_CHECKING:
    from adsq_jax.data.arrays import from_arrays
    from adsq_jax.data.benchmarks import load
    from adsq_jax.data.datasets import Dataset, batches
    from adsq_jax.data.preprocessing import Preprocessing

__all__ = ["Dataset", "Preprocessing", "batches", "from_arrays", "load", "read_array"]
_MODULES = {  # reading images takes packages that `read_array` does without
    "Dataset": "datasets",
    "Preprocessing": "preprocessing",
    "batches": "datasets",
    "from_arrays": "arrays",
    "load": "benchmarks",
}
__getattr__ = _lazy_names.loader(__name__, _MODULES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
