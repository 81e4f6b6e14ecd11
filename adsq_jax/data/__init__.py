"""Data sets, for Python: one's own images by `from_arrays`, a published benchmark by `load`, and batches of either."""

from adsq_jax.data.arrays import from_arrays
from adsq_jax.data.benchmarks import load
from adsq_jax.data.datasets import Dataset, batches
from adsq_jax.data.preprocessing import Preprocessing

__all__ = ["Dataset", "Preprocessing", "batches", "from_arrays", "load"]
