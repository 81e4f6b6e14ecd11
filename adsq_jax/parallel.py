"""Devices: the only file that knows of them. One pure step, run data-parallel by shard_map or by pmap."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from adsq_jax.errors import InputError
from adsq_jax.retrieval.blocks import OneDevice

AXIS = "devices"
KINDS = ("shard_map", "pmap")
_LEAST_SHARE = 16  # images a step: less than that keeps no core busy


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reading_threads(wanted: int) -> int:
    """Threads that read and decode images: as many as wanted, or, for 0, one a core and one that waits for the disk."""
    return wanted or cores() + 1


def split_host(*, batch_size: int, host_devices: int) -> None:
    """Splits the CPU into devices, before JAX starts. Without an accelerator that lets XLA use every core.

    XLA runs many CPU operations on one core; with a device a core each works on its own share of the batch.

    Args:
      batch_size: images a step.
      host_devices: how many; 0 for one a core, as far as each gets a whole and equal share of 16 images or more.

    Raises:
      RuntimeError: JAX has started already.
    """
    most = max(1, min(cores(), batch_size // _LEAST_SHARE))
    jax.config.update("jax_num_cpu_devices", host_devices or _largest_divisor(batch_size, most))


def use_all_cores() -> None:
    """Makes a device of each core of the CPU, before JAX starts: a scatter of XLA's runs on one core.

    Raises:
      RuntimeError: JAX has started already.
    """
    jax.config.update("jax_num_cpu_devices", cores())


def sharing(batch_size: int) -> list[jax.Device]:
    """The devices of this process, or as many of them as can share a batch evenly."""
    devices = jax.local_devices()
    return devices[: _largest_divisor(batch_size, len(devices))]


def _largest_divisor(number: int, most: int) -> int:
    return max(d for d in range(1, most + 1) if number % d == 0)


def _described(device: jax.Device, count: int) -> str:
    return f"{count} x {device.device_kind} ({platform.machine()}, {cores()} cores)"


def _mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


class DataParallel:
    """Runs one step on several devices at once, each with its share of the batch."""

    def __init__(self, kind: str, *, devices: Sequence[jax.Device] | None = None):
        """Takes devices.

        Args:
          kind: one of KINDS.
          devices: which; None for all of this process.

        Raises:
          ValueError: no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"no way to run in parallel named {kind!r}: choose one of {', '.join(KINDS)}")
        self.kind = kind
        self.devices = list(jax.local_devices() if devices is None else devices)
        self._mesh = _mesh_of(self.devices)

    def describe(self) -> str:
        """For people, of a result's machine: `2 x cpu (x86_64, 2 cores)`."""
        return _described(self.devices[0], len(self.devices))

    def check_batch(self, batch_size: int) -> None:
        """Raises InputError where a batch can't be shared out evenly."""
        if batch_size % len(self.devices):
            raise InputError(
                f"train.batch_size={batch_size} can't be shared by {len(self.devices)} devices: give a multiple of "
                f"{len(self.devices)}"
            )

    def replicate(self, tree: Any) -> Any:
        """Puts a whole copy on every device, as one global array."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def shard(self, batch: Any) -> Any:
        """Puts a share of the first axis on each device, as one global array."""
        return jax.device_put(batch, NamedSharding(self._mesh, PartitionSpec(AXIS)))

    def enter(self, tree: Any) -> Any:
        """What is the same on every device, as `step` takes it."""
        if self.kind == "shard_map":
            return self.replicate(tree)
        count = len(self.devices)
        return self.shard(jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (count, *np.shape(x))), tree))

    def leave(self, tree: Any) -> Any:
        """The inverse of `enter`: one global copy."""
        return tree if self.kind == "shard_map" else self.replicate(jax.tree.map(lambda x: x[0], tree))

    def split(self, batch: Mapping[str, np.ndarray]) -> Any:
        """A batch, as `step` takes it."""
        if self.kind == "shard_map":
            return self.shard(batch)
        return self.shard(jax.tree.map(lambda x: x.reshape(len(self.devices), -1, *x.shape[1:]), batch))

    def step(self, function: Callable[[Any, Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
        """Compiles `(state, targets, batch) -> (state, metrics)`; the state given is used up.

        Args:
          function: pure, run once a device under the axis AXIS; what it returns is the same on every device.

        Returns:
          The function over `enter(state)`, `enter(targets)`, `split(batch)`; states and metrics come back as entered.
        """
        if self.kind == "pmap":
            return jax.pmap(function, AXIS, devices=self.devices, donate_argnums=0)
        same, shared = PartitionSpec(), PartitionSpec(AXIS)
        mapped = jax.shard_map(function, mesh=self._mesh, in_specs=(same, same, shared), out_specs=(same, same))
        return jax.jit(mapped, donate_argnums=0)


class Spread(OneDevice):
    """Spreads a database over the devices of this process, and over all processes."""

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        """Takes devices.

        Args:
          devices: which; None for all of this process. In every process, take the same part in each retrieval.
        """
        super().__init__()
        own = list(jax.local_devices() if devices is None else devices)
        self.devices = len(own)
        self._mesh = _mesh_of(own)

    def describe(self) -> str:
        """For people, of a result's machine: `2 x cpu (x86_64, 2 cores)`."""
        return _described(self._mesh.devices.flat[0], self.devices)

    @property
    def platform(self) -> str:
        """JAX's name of it: cpu, gpu or tpu."""
        return self._mesh.devices.flat[0].platform

    def share(self, size: int) -> tuple[int, int]:
        """The rows of a database of `size` that this process sees to: start and stop."""
        each = -(-size // jax.process_count())
        start = min(jax.process_index() * each, size)
        return start, min(start + each, size)

    def shard(self, words: np.ndarray) -> jax.Array:
        """Puts a share of the last axis, which is a multiple of `devices`, on each device."""
        return jax.device_put(words, NamedSharding(self._mesh, PartitionSpec(None, AXIS)))

    def replicate(self, words: np.ndarray) -> jax.Array:
        """Puts a whole copy on every device."""
        return jax.device_put(words, NamedSharding(self._mesh, PartitionSpec()))

    def gather(self, array: np.ndarray) -> np.ndarray:
        """The same array of every process, [processes, ...]."""
        if jax.process_count() == 1:
            return array[None]
        # as halves: without its 64-bit mode JAX would cut an int64 short
        halves = multihost_utils.process_allgather(np.ascontiguousarray(array).view(np.uint32))
        return np.asarray(halves).view(array.dtype)

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
