"""Devices and processes: a database sharded over all of them, training in parallel on all of them."""

from adsq_jax.devices.data_parallel import DataParallel
from adsq_jax.devices.sharded_database import ShardedDatabase

__all__ = ["DataParallel", "ShardedDatabase"]
