"""Data-parallel training: one pure step on several devices, by shard_map or by pmap, or on one device without a mesh.

A PartitionSpec tells where an array lies: `WHOLE`, a copy on every device; `ROWS`, the first axis sharded over the devices,
zero-padded to equal parts; or another axis, for parameters that are sharded to save memory.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from adsq_jax.devices import processes
from adsq_jax.devices.host import largest_divisor
from adsq_jax.devices.mesh import AXIS, describe, make_mesh
from adsq_jax.errors import InputError

KINDS = ("shard_map", "pmap")
WHOLE, ROWS = PartitionSpec(), PartitionSpec(AXIS)
_SMALLEST_SHARDED = 1 << 14  # numbers in an array of parameters: smaller ones aren't worth sharding


def devices_for_batch(batch_size: int) -> list[jax.Device]:
    """Return the devices that share a batch evenly: the same number from each process, as many as possible.

    Raises:
      InputError: the processes can't share it.
    """
    count = processes.count()
    if batch_size % count:
        raise InputError(f"train.batch_size={batch_size} can't be shared by {count} processes; fix: give a multiple of {count}")
    by_process = [[device for device in jax.devices() if device.process_index == p] for p in range(count)]
    each = largest_divisor(batch_size // count, min(map(len, by_process)))
    return [device for local in by_process for device in local[:each]]


class LocalDevices:
    """The devices of this process, used without the other processes."""

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        """Use some devices of this process; None: all of them."""
        self.devices = list(jax.local_devices() if devices is None else devices)
        self._mesh = make_mesh(self.devices)

    def replicate(self, tree: Any) -> Any:
        """Copy arrays to each of these devices; the arrays may also lie on devices of other processes."""
        return jax.device_put(jax.tree.map(self.to_local, tree), NamedSharding(self._mesh, WHOLE))

    @staticmethod
    def to_local(x: Any) -> Any:
        """Return a process-local copy of a global array; anything else as it is."""
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return x
        if not x.is_fully_replicated:
            mesh = cast(NamedSharding, x.sharding).mesh
            x = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, WHOLE))(x)
        return x.addressable_data(0)

    def shard(self, batch: Any) -> Any:
        """Shard the first axis over these devices."""
        return jax.device_put(batch, NamedSharding(self._mesh, ROWS))


class TrainDevices:
    """The devices that train: here one, without a mesh and a mapped axis; `DataParallel` uses several."""

    axis_name: str | None = None

    def __init__(self, device: jax.Device | None = None):
        """Use a device of this process; None: the first."""
        self.devices = [jax.local_devices()[0] if device is None else device]
        self.process, self.processes = 0, 1
        self.local = LocalDevices(self.devices)

    def describe(self) -> str:
        """Return a human-readable description: `2 x cpu (x86_64, 2 cores)`."""
        return describe(self.devices[0], len(self.devices))

    def check_batch(self, batch_size: int) -> None:
        """Raise InputError if a batch can't be shared evenly."""
        if batch_size % len(self.devices):
            raise InputError(
                f"train.batch_size={batch_size} can't be shared by {len(self.devices)} devices; fix: give a multiple of "
                f"{len(self.devices)}"
            )

    def local_rows(self, size: int) -> slice:
        """Return which of `size` rows lie on the devices of this process."""
        return slice(0, size)

    def from_local_rows(self, rows: np.ndarray, *, size: int) -> jax.Array:
        """Make one global array of the rows of each process.

        Args:
          rows: this process's rows, `local_rows(size)`: [n, ...].
          size: the number of rows of all processes.

        Returns:
          [padded size, ...] at ROWS.
        """
        return jnp.asarray(rows, device=self.devices[0])

    def to_local_rows(self, rows: Any, *, size: int) -> np.ndarray:
        """Return this process's rows of a global array, without padding: the inverse of `from_local_rows`."""
        return np.asarray(rows)[:size]

    def parameter_specs(self, tree: Any) -> Any:
        """Return specs that shard large arrays over the devices, each along its longest axis that divides evenly."""
        return WHOLE

    def to_devices(self, tree: Any, specs: Any) -> Any:
        """Put a tree on the devices in the layout that a compiled step expects.

        Args:
          tree: arrays that are complete in every process, or come from `from_devices`.
          specs: a PartitionSpec for each part of the tree.
        """
        return jax.device_put(tree, self.devices[0])

    def from_devices(self, tree: Any, specs: Any) -> Any:
        """Turn what a step returns into global arrays; the inverse of `to_devices`."""
        return tree

    def to_host(self, tree: Any, specs: Any) -> Any:
        """Copy a tree to host memory, for a checkpoint. Rows that are spread over several processes stay where they are."""
        return jax.tree.map(np.array, tree)

    def split_batch(self, batch: Mapping[str, np.ndarray]) -> Any:
        """Put this process's part of a batch on the devices in the layout that a compiled step expects."""
        return jax.device_put(dict(batch), self.devices[0])

    def compile_step(
        self, gradients: Callable[..., Any], update: Callable[..., Any], *, state: Any, targets: Any, donate: bool
    ) -> Callable[..., Any]:
        """Compile `(state, targets, batch) -> (state, metrics)`.

        Args:
          gradients: `(state, targets, batch) -> (gradients, rows, metrics)`, pure, run once per device under the axis
            `axis_name`. Gradients and metrics are the same on every device; rows are the device's own.
          update: `(state, gradients, rows) -> state`, pure, without an axis.
          state: a PartitionSpec for each part of the state.
          targets: a PartitionSpec for each part of the targets.
          donate: whether the state's buffers may be reused: the state that is passed can't be used afterwards.

        Returns:
          The function over `to_devices(state)`, `to_devices(targets)` and `split_batch(batch)`.
        """
        return jax.jit(_complete_step(gradients, update), donate_argnums=0 if donate else ())


class DataParallel(TrainDevices):
    """Several devices, of one process or many, each with its part of the batch and of the rows."""

    axis_name = AXIS

    def __init__(self, kind: str, *, devices: Sequence[jax.Device] | None = None):
        """Use some devices.

        Args:
          kind: "shard_map" or "pmap".
          devices: the devices, grouped by process, the same number from each; None: all.

        Raises:
          ValueError: there is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"no way to run in parallel named {kind!r}: choose one of {', '.join(KINDS)}")
        self.kind = kind
        self.devices = list(jax.devices() if devices is None else devices)
        self.process, self.processes = processes.index(), processes.count()
        self._mesh = make_mesh(self.devices)
        self.local = LocalDevices([device for device in self.devices if device.process_index == self.process])

    def local_rows(self, size: int) -> slice:
        """Return which of `size` rows lie on the devices of this process."""
        start, stop = processes.local_range(self._padded(size), self.process)
        return slice(min(start, size), min(stop, size))

    def _padded(self, size: int) -> int:
        return -(-size // len(self.devices)) * len(self.devices)

    def from_local_rows(self, rows: np.ndarray, *, size: int) -> jax.Array:
        """See the base class."""
        padded = self._padded(size)
        local = np.zeros((padded // self.processes, *rows.shape[1:]), rows.dtype)
        local[: len(rows)] = rows
        shape = (padded, *rows.shape[1:])
        return jax.make_array_from_process_local_data(NamedSharding(self._mesh, ROWS), local, shape)

    def to_local_rows(self, rows: Any, *, size: int) -> np.ndarray:
        """See the base class."""
        own = self.local_rows(size)
        return _shards_of_this_process(self._put(rows, ROWS))[: own.stop - own.start]

    def parameter_specs(self, tree: Any) -> Any:
        """See the base class."""

        def spec(x: Any) -> PartitionSpec:
            even = [axis for axis, length in enumerate(x.shape) if length % len(self.devices) == 0]
            if np.prod(x.shape) < _SMALLEST_SHARDED or not even:
                return WHOLE
            longest = max(even, key=lambda axis: x.shape[axis])
            return PartitionSpec(*(AXIS if axis == longest else None for axis in range(len(x.shape))))

        return jax.tree.map(spec, tree)

    def _put(self, x: Any, spec: PartitionSpec) -> jax.Array:
        """Make a global array from one that is complete in each process, or global already."""
        if spec == ROWS and not isinstance(x, jax.Array):
            return self.from_local_rows(np.asarray(x)[self.local_rows(len(x))], size=len(x))
        sharding = NamedSharding(self._mesh, spec)
        if isinstance(x, jax.Array) and (self.processes == 1 or not x.is_fully_addressable):
            return jax.device_put(x, sharding)
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    def to_devices(self, tree: Any, specs: Any) -> Any:
        """See the base class."""
        placed = _map_with_specs(self._put, tree, specs)
        if self.kind == "shard_map":
            return placed
        count = len(self.local.devices)

        def stack(x: jax.Array, spec: PartitionSpec) -> jax.Array:
            if spec == ROWS:
                rows = _shards_of_this_process(x)
                return self.local.shard(rows.reshape(count, -1, *rows.shape[1:]))
            return self.local.shard(np.broadcast_to(np.asarray(x.addressable_data(0)), (count, *x.shape)))

        return _map_with_specs(stack, placed, specs)

    def from_devices(self, tree: Any, specs: Any) -> Any:
        """See the base class."""
        if self.kind == "shard_map":
            return tree

        def unstack(x: jax.Array, spec: PartitionSpec) -> Any:
            local = _shards_of_this_process(x)
            if spec != ROWS:
                return self._put(local[0], spec)
            local = local.reshape(-1, *local.shape[2:])
            return self.from_local_rows(local, size=len(local) * self.processes)

        return _map_with_specs(unstack, tree, specs)

    def to_host(self, tree: Any, specs: Any) -> Any:
        """See the base class."""

        def fetch(x: Any, spec: PartitionSpec) -> Any:
            return self._put(x, spec) if spec == ROWS and self.processes > 1 else np.array(self.local.to_local(x))

        return _map_with_specs(fetch, tree, specs)

    def split_batch(self, batch: Mapping[str, np.ndarray]) -> Any:
        """See the base class."""
        if self.kind == "pmap":
            count = len(self.local.devices)
            return self.local.shard(jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), dict(batch)))
        sharding = NamedSharding(self._mesh, ROWS)
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, x, (len(x) * self.processes, *x.shape[1:])), dict(batch)
        )

    def compile_step(
        self, gradients: Callable[..., Any], update: Callable[..., Any], *, state: Any, targets: Any, donate: bool
    ) -> Callable[..., Any]:
        """See the base class."""
        if self.kind == "pmap":
            step = _complete_step(gradients, update)
            return jax.pmap(step, AXIS, devices=self.devices, donate_argnums=0 if donate else ())

        def in_specs(specs: Any) -> Any:  # inside the step parameters are complete
            return jax.tree.map(lambda spec: spec if spec == ROWS else WHOLE, specs, is_leaf=_is_spec)

        mapped = jax.shard_map(
            gradients,
            mesh=self._mesh,
            in_specs=(in_specs(state), in_specs(targets), ROWS),
            out_specs=(WHOLE, ROWS, WHOLE),
            check_vma=False,  # as pmap: a gradient is of this device's part of the loss, and `gradients` sums it, once
        )

        def constrain(x: jax.Array, spec: PartitionSpec) -> jax.Array:
            return jax.lax.with_sharding_constraint(x, NamedSharding(self._mesh, spec))

        def run(inputs: Any, targets: Any, batch: Any) -> tuple[Any, Any]:
            grads, rows, metrics = mapped(inputs, targets, batch)
            return _map_with_specs(constrain, update(inputs, grads, rows), state), metrics

        return jax.jit(run, donate_argnums=0 if donate else ())


def _complete_step(gradients: Callable[..., Any], update: Callable[..., Any]) -> Callable[..., Any]:
    """Return the step of one device: gradients and their update in one function."""

    def step(state: Any, targets: Any, batch: Any) -> tuple[Any, Any]:
        grads, rows, metrics = gradients(state, targets, batch)
        return update(state, grads, rows), metrics

    return step


def _shards_of_this_process(x: jax.Array) -> np.ndarray:
    """Return the part of an array, sharded along its first axis, that lies on the devices of this process."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def _is_spec(x: Any) -> bool:
    return isinstance(x, PartitionSpec)


def _map_with_specs(function: Callable[[Any, PartitionSpec], Any], tree: Any, specs: Any) -> Any:
    """Map `(array, spec)` over a tree; a spec may stand for a whole part of the tree."""
    return jax.tree.map(lambda spec, part: jax.tree.map(lambda x: function(x, spec), part), specs, tree, is_leaf=_is_spec)
