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
    """The database sharded over the devices of this process, and over all processes."""

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        """Make a mesh of devices. Every process has to take part in each retrieval.

        Args:
          devices: devices of this process; None for all of them.
        """
        super().__init__()
        local_devices = list(jax.local_devices() if devices is None else devices)
        self.count = len(local_devices)
        self._mesh = make_mesh(local_devices)

    def describe(self) -> str:
        """Return a human-readable description: `2 x cpu (x86_64, 2 cores)`."""
        return describe(self._mesh.devices.flat[0], self.count)

    @property
    def platform(self) -> str:
        """JAX's name of the platform: cpu, gpu or tpu."""
        return self._mesh.devices.flat[0].platform

    def local_range(self, size: int) -> tuple[int, int]:
        """Return start and stop of the rows that this process reads, of a database of `size` rows."""
        return processes.local_range(size, processes.index())

    def shard(self, words: np.ndarray) -> jax.Array:
        """Shard an array [words, n] along its last axis, a multiple of `count`."""
        return jax.device_put(words, NamedSharding(self._mesh, PartitionSpec(None, AXIS)))

    def replicate(self, words: np.ndarray) -> jax.Array:
        """Copy an array to each device."""
        return jax.device_put(words, NamedSharding(self._mesh, PartitionSpec()))

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Stack an array of all processes, [processes, ...]."""
        return processes.gather(array)

    def build(self, function: Callable[..., Any], *, add: bool) -> Callable[..., Any]:
        """Jit a function of `(replicated, sharded)` over the mesh, for `compiled`."""

        def add_up(replicated: Any, sharded: Any) -> Any:
            return jax.lax.psum(function(replicated, sharded), AXIS)

        return jax.jit(
            jax.shard_map(
                add_up if add else function,
                mesh=self._mesh,
                in_specs=(PartitionSpec(), PartitionSpec(None, AXIS)),
                out_specs=PartitionSpec() if add else PartitionSpec(None, None, AXIS),
                check_vma=False,  # each device counts its own items from zero
            )
        )
