"""Devices: the only file that knows of them. One pure step, run data-parallel by shard_map or by pmap."""

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from adsq_jax.devices import processes
from adsq_jax.devices.host import largest_divisor
from adsq_jax.devices.mesh import AXIS, describe, make_mesh
from adsq_jax.errors import InputError

KINDS = ("shard_map", "pmap")
_LEAST_PART = 1 << 14  # numbers in an array: less than that isn't worth sharing out


class Place(enum.Enum):
    """Where an array lies, of those that a step takes and gives."""

    SAME = "a whole copy on every device"
    ROWS = "the first axis, filled up with zeros, in equal parts on the devices"
    PARTS = "an axis in equal parts on the devices, if one can be parted evenly; whole while a step needs it"


def devices_for_batch(batch_size: int) -> list[jax.Device]:
    """The devices of all processes, the same number of each, as many as can share a batch evenly.

    Raises:
      InputError: the processes can't share it.
    """
    count = processes.count()
    if batch_size % count:
        raise InputError(f"train.batch_size={batch_size} can't be shared by {count} processes: give a multiple of {count}")
    of_process = [[device for device in jax.devices() if device.process_index == p] for p in range(count)]
    each = largest_divisor(batch_size // count, min(map(len, of_process)))
    return [device for own in of_process for device in own[:each]]


class Local:
    """The devices of this process, which it needs nobody else for."""

    def __init__(self, devices: Sequence[jax.Device]):
        """Takes devices of this process."""
        self.devices = list(devices)
        self._mesh = make_mesh(self.devices)

    def replicate(self, tree: Any) -> Any:
        """Puts a whole copy on each of the devices, of arrays that may lie on those of other processes too."""
        return jax.device_put(jax.tree.map(self.here, tree), NamedSharding(self._mesh, PartitionSpec()))

    @staticmethod
    def here(x: Any) -> Any:
        """An array that every device has a copy or a part of, on one device of this process; others as they are."""
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return x
        if not x.is_fully_replicated:
            mesh = cast(NamedSharding, x.sharding).mesh
            x = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))(x)
        return x.addressable_data(0)

    def shard(self, batch: Any) -> Any:
        """Puts a share of the first axis on each device."""
        return jax.device_put(batch, NamedSharding(self._mesh, PartitionSpec(AXIS)))


def local_devices() -> Local:
    """All devices of this process."""
    return Local(jax.local_devices())


class DataParallel:
    """Runs one step on several devices at once, of one process or of many, each with its share of the batch."""

    def __init__(self, kind: str, *, devices: Sequence[jax.Device] | None = None):
        """Takes devices.

        Args:
          kind: one of KINDS.
          devices: which, those of a process together, as many of each; None for all.

        Raises:
          ValueError: no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"no way to run in parallel named {kind!r}: choose one of {', '.join(KINDS)}")
        self.kind = kind
        self.devices = list(jax.devices() if devices is None else devices)
        self.process, self.processes = processes.index(), processes.count()
        self._mesh = make_mesh(self.devices)
        self.local = Local([device for device in self.devices if device.process_index == self.process])

    def describe(self) -> str:
        """For people, of a result's machine: `2 x cpu (x86_64, 2 cores)`."""
        return describe(self.devices[0], len(self.devices))

    def check_batch(self, batch_size: int) -> None:
        """Raises InputError where a batch can't be shared out evenly."""
        if batch_size % len(self.devices):
            raise InputError(
                f"train.batch_size={batch_size} can't be shared by {len(self.devices)} devices: give a multiple of "
                f"{len(self.devices)}"
            )

    def share(self, size: int) -> slice:
        """Which of `size` rows lie on the devices of this process."""
        start, stop = processes.local_range(self._filled(size), self.process)
        return slice(min(start, size), min(stop, size))

    def _filled(self, size: int) -> int:
        return -(-size // len(self.devices)) * len(self.devices)

    def of_own_rows(self, own: np.ndarray, *, size: int) -> jax.Array:
        """Makes one array of the rows that each process has.

        Args:
          own: those of this process, [rows, ...] of `share(size)`.
          size: rows of all.

        Returns:
          [rows, ...] of all processes with their filling, at Place.ROWS.
        """
        filled = self._filled(size)
        room = np.zeros((filled // self.processes, *own.shape[1:]), own.dtype)
        room[: len(own)] = own
        shape = (filled, *own.shape[1:])
        return jax.make_array_from_process_local_data(NamedSharding(self._mesh, PartitionSpec(AXIS)), room, shape)

    def own_rows(self, rows: Any, *, size: int) -> np.ndarray:
        """The inverse of `of_own_rows`: this process's rows, without their filling."""
        share = self.share(size)
        return _of_this_process(self.put(rows, Place.ROWS))[: share.stop - share.start]

    def _sharding(self, place: Place, shape: tuple[int, ...]) -> NamedSharding:
        spec = PartitionSpec(AXIS) if place is Place.ROWS else PartitionSpec()
        if place is Place.PARTS and np.prod(shape) >= _LEAST_PART:
            whole = [axis for axis in range(len(shape)) if shape[axis] % len(self.devices) == 0]
            if whole:
                longest = max(whole, key=lambda axis: shape[axis])
                spec = PartitionSpec(*[AXIS if axis == longest else None for axis in range(len(shape))])
        return NamedSharding(self._mesh, spec)

    def put(self, tree: Any, places: Any) -> Any:
        """Makes arrays of all devices from what each process has whole.

        Args:
          tree: arrays, of NumPy or of JAX; of JAX they may lie where they should already.
          places: a `Place` for each part of the tree.

        Returns:
          The same tree of global arrays.
        """

        def one(place: Place, x: Any) -> jax.Array:
            if place is Place.ROWS and not isinstance(x, jax.Array):
                return self.of_own_rows(np.asarray(x)[self.share(len(x))], size=len(x))
            sharding = self._sharding(place, np.shape(x))
            if isinstance(x, jax.Array) and (self.processes == 1 or not x.is_fully_addressable):
                return jax.device_put(x, sharding)
            whole = np.asarray(x)
            return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

        return _placed(one, places, tree)

    def enter(self, tree: Any, places: Any) -> Any:
        """What every process has whole, or from `leave`, as `step` takes it."""
        placed = self.put(tree, places)
        if self.kind == "shard_map":
            return placed
        count = len(self.local.devices)

        def one(place: Place, x: jax.Array) -> jax.Array:
            if place is Place.ROWS:
                own = _of_this_process(x)
                return self.local.shard(own.reshape(count, -1, *own.shape[1:]))
            return self.local.shard(np.broadcast_to(np.asarray(x.addressable_data(0)), (count, *x.shape)))

        return _placed(one, places, placed)

    def leave(self, tree: Any, places: Any) -> Any:
        """The inverse of `enter`."""
        if self.kind == "shard_map":
            return tree

        def one(place: Place, x: jax.Array) -> Any:
            own = _of_this_process(x)
            if place is not Place.ROWS:
                return self.put(own[0], place)
            own = own.reshape(-1, *own.shape[2:])
            return self.of_own_rows(own, size=len(own) * self.processes)

        return _placed(one, places, tree)

    def outside(self, tree: Any, places: Any) -> Any:
        """As a checkpoint takes it: NumPy arrays, copies; but rows that lie with several processes stay where they are."""

        def one(place: Place, x: Any) -> Any:
            return self.put(x, place) if place is Place.ROWS and self.processes > 1 else np.array(self.local.here(x))

        return _placed(one, places, tree)

    def split(self, batch: Mapping[str, np.ndarray]) -> Any:
        """This process's share of a batch, as `step` takes it."""
        if self.kind == "pmap":
            count = len(self.local.devices)
            return self.local.shard(jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch))
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, x, (len(x) * self.processes, *x.shape[1:])), batch
        )

    def step(
        self, gradients: Callable[..., Any], update: Callable[..., Any], *, state: Any, targets: Any
    ) -> Callable[..., Any]:
        """Compiles `(state, targets, batch) -> (state, metrics)`; the state given is used up.

        Args:
          gradients: `(state, targets, batch) -> (found, rows, metrics)`, pure, run once a device under the axis AXIS; found and
            metrics are the same on every device, rows are the device's own.
          update: `(state, found, rows) -> state`, pure, of no axis.
          state: a `Place` for each part of the state.
          targets: a `Place` for each part of the targets.

        Returns:
          The function over `enter(state)`, `enter(targets)`, `split(batch)`; states come back as entered.
        """
        if self.kind == "pmap":

            def whole(own: Any, same: Any, batch: Any) -> tuple[Any, Any]:
                found, rows, metrics = gradients(own, same, batch)
                return update(own, found, rows), metrics

            return jax.pmap(whole, AXIS, devices=self.devices, donate_argnums=0)
        rows_of = PartitionSpec(AXIS)

        def specs(places: Any) -> Any:
            return jax.tree.map(lambda place: rows_of if place is Place.ROWS else PartitionSpec(), places)

        mapped = jax.shard_map(
            gradients,
            mesh=self._mesh,
            in_specs=(specs(state), specs(targets), rows_of),
            out_specs=(PartitionSpec(), rows_of, PartitionSpec()),
            check_vma=False,  # as pmap: a gradient is of this device's part of the loss, and `gradients` sums it, once
        )

        def run(own: Any, same: Any, batch: Any) -> tuple[Any, Any]:
            found, rows, metrics = mapped(own, same, batch)
            return _placed(self._kept, state, update(own, found, rows)), metrics

        return jax.jit(run, donate_argnums=0)

    def _kept(self, place: Place, x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, self._sharding(place, x.shape))


def _of_this_process(x: jax.Array) -> np.ndarray:
    """What of an array, whose first axis is parted among devices, lies on those of this process."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def _placed(function: Callable[[Place, Any], Any], places: Any, tree: Any) -> Any:
    """Maps `(place, array)` over a tree whose parts have places."""
    return jax.tree.map(lambda place, part: jax.tree.map(lambda x: function(place, x), part), places, tree)
