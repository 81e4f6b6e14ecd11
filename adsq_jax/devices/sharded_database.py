"""A database sharded over devices and processes, for retrieval."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from adsq_jax.devices import processes
from adsq_jax.devices.mesh import AXIS, describe, make_mesh
from adsq_jax.retrieval.blocks import SingleDevice


class ShardedDatabase(SingleDevice):
    """Spreads a database over the devices of this process, and over all processes."""

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        """Takes devices.

        Args:
          devices: which; None for all of this process. In every process, take the same part in each retrieval.
        """
        super().__init__()
        own = list(jax.local_devices() if devices is None else devices)
        self.count = len(own)
        self._mesh = make_mesh(own)

    def describe(self) -> str:
        """For people, of a result's machine: `2 x cpu (x86_64, 2 cores)`."""
        return describe(self._mesh.devices.flat[0], self.count)

    @property
    def platform(self) -> str:
        """JAX's name of it: cpu, gpu or tpu."""
        return self._mesh.devices.flat[0].platform

    def share(self, size: int) -> tuple[int, int]:
        """The rows of a database of `size` that this process sees to: start and stop."""
        return processes.local_range(size, processes.index())

    def shard(self, words: np.ndarray) -> jax.Array:
        """Puts a share of the last axis, which is a multiple of `devices`, on each device."""
        return jax.device_put(words, NamedSharding(self._mesh, PartitionSpec(None, AXIS)))

    def replicate(self, words: np.ndarray) -> jax.Array:
        """Puts a whole copy on every device."""
        return jax.device_put(words, NamedSharding(self._mesh, PartitionSpec()))

    def gather(self, array: np.ndarray) -> np.ndarray:
        """The same array of every process, [processes, ...]."""
        return processes.gather(array)

    def build(self, function: Callable[..., Any], *, add: bool) -> Callable[..., Any]:
        """What `compiled` keeps."""

        def summed(same: Any, shards: Any) -> Any:
            return jax.lax.psum(function(same, shards), AXIS)

        return jax.jit(
            jax.shard_map(
                summed if add else function,
                mesh=self._mesh,
                in_specs=(PartitionSpec(), PartitionSpec(None, AXIS)),
                out_specs=PartitionSpec() if add else PartitionSpec(None, None, AXIS),
                check_vma=False,  # each device counts its own from zero
            )
        )
