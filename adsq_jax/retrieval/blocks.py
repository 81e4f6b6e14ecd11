"""Blocks of queries and database, so that memory stays bounded at any size, and the devices that compute them."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Limits(NamedTuple):
    """The most that is held at a time, for tests and small memory: other limits change no result."""

    queries: int = 4096  # whose distances are computed at a time
    items: int = 1 << 20  # on each device
    block: int = 1 << 15  # items whose distances a core holds: they fit its cache
    bins: int = 1 << 22  # of histograms: fewer queries if each has more
    neighbors: int = 1 << 22  # found: fewer queries if each wants more
    pairs: int = 1 << 26  # of query and item, in the figures of published code; at least one query
    rows: int = 1 << 18  # items read at a time, in the figures of published code


LIMITS = Limits()


class SingleDevice:
    """The database on JAX's default device. `adsq_jax.devices.ShardedDatabase` shards it over all devices and processes."""

    count = 1
    """Devices of this process."""

    def __init__(self) -> None:
        self._compiled: dict[Any, Callable[..., Any]] = {}

    @property
    def platform(self) -> str:
        """JAX's name of the platform: cpu, gpu or tpu."""
        return jax.default_backend()

    def local_range(self, size: int) -> tuple[int, int]:
        """Return which rows of a database of `size` this process reads: start and stop."""
        return 0, size

    def shard(self, words: np.ndarray) -> jax.Array:
        """Shard an array [words, n] along its last axis, a multiple of `count`."""
        return jnp.asarray(words)

    def replicate(self, words: np.ndarray) -> jax.Array:
        """Copy an array to each device."""
        return jnp.asarray(words)

    def gather(self, array: np.ndarray) -> np.ndarray:
        """Return the arrays that the processes have, of one shape, as [processes, ...]."""
        return array[None]

    def compiled(self, function: Callable[..., Any], *, add: bool, **static: Any) -> Callable[..., Any]:
        """Compile `function(replicated, sharded, **static)` once.

        Args:
          function: a pure function of replicated arrays and of arrays sharded along the last axis.
          add: whether outputs are summed over the devices, or concatenated along their last axis.
          static: arguments that are compiled in.

        Returns:
          A function of `(replicated, sharded)`.
        """
        key = (function, add, *sorted(static.items()))
        if key not in self._compiled:
            self._compiled[key] = self.build(partial(function, **static), add=add)
        return self._compiled[key]

    def build(self, function: Callable[..., Any], *, add: bool) -> Callable[..., Any]:
        """Jit a function of `(replicated, sharded)`, for `compiled`."""
        return jax.jit(function)


SINGLE_DEVICE = SingleDevice()


class Chunk(NamedTuple):
    """Rows of the database that go to the devices at once."""

    start: int
    stop: int
    padded_rows: int  # a multiple of devices x block
    block: int  # rows whose distances a device computes at a time


def query_blocks(size: int, *, most: int, limits: Limits = LIMITS) -> Iterator[tuple[slice, int]]:
    """Split the queries into blocks of about equal size.

    Args:
      size: the number of queries.
      most: another limit on queries per block; a block has at least one.
      limits: the most that is held at a time; `queries` counts here.

    Yields:
      The slice of a block, and its number of rows with padding, the same for all.
    """
    most = max(1, min(limits.queries, most))
    rows = -(-size // -(-size // most))
    for start in range(0, size, rows):
        yield slice(start, min(start + rows, size)), rows


def database_chunks(size: int, *, devices: SingleDevice, limits: Limits = LIMITS) -> Iterator[Chunk]:
    """Split this process's rows of a database of `size` into chunks of one padded size, so that one compilation serves all.

    Args:
      size: the rows of all processes.
      devices: the devices of this process.
      limits: the most that is held at a time; `items` and `block` count here.

    Yields:
      The chunks in order; none if there are more processes than rows.
    """
    start, stop = devices.local_range(size)
    if start == stop:
        return
    n_chunks = -(-(stop - start) // (limits.items * devices.count))
    rows_per_device = -(-(stop - start) // (n_chunks * devices.count))
    n_blocks = -(-rows_per_device // limits.block)
    block = -(-rows_per_device // n_blocks)
    padded_rows = n_blocks * block * devices.count
    for first in range(start, stop, padded_rows):
        yield Chunk(first, min(first + padded_rows, stop), padded_rows, block)


def pad(words: np.ndarray, size: int, *, value: np.ndarray | int = 0) -> np.ndarray:
    """Pad [words, n] to [words, size] with a number, or with a column [words, 1]."""
    if words.shape[1] == size:
        return words
    padded = np.empty((len(words), size), words.dtype)
    padded[:, : words.shape[1]] = words
    padded[:, words.shape[1] :] = value
    return padded
