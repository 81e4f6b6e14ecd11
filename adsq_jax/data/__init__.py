"""Data sets, for Python: one's own images by `from_arrays`, a published benchmark by `load`, and batches of either.

`read_array` reads codes or labels from files of NumPy, MATLAB, HDF5 and text.
"""

from adsq_jax.data.arrays import from_arrays
from adsq_jax.data.benchmarks import load
from adsq_jax.data.datasets import Dataset, batches
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.run.array_files import read as read_array

__all__ = ["Dataset", "Preprocessing", "batches", "from_arrays", "load", "read_array"]
