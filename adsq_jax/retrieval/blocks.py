"""How a retrieval goes through memory and devices: queries and database block by block, the database spread over devices.

Memory is bounded by the blocks, whatever the size of the database.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_QUERIES = 4096  # queries at a time, at most
_ITEMS = 1 << 20  # items a device holds at a time, at most
_BLOCK = 8192  # items whose distances a core holds at a time: within its cache


class SingleDevice:
    """Where the database lies: on one device of one process. `data_parallel.ShardedDatabase` has the same methods for many."""

    count = 1

    def __init__(self) -> None:
        self._compiled: dict[Any, Callable[..., Any]] = {}

    @property
    def platform(self) -> str:
        """JAX's name of it: cpu, gpu or tpu."""
        return jax.default_backend()

    def share(self, size: int) -> tuple[int, int]:
        """The rows of a database of `size` that this process sees to: start and stop."""
        return 0, size

    def shard(self, words: np.ndarray) -> jax.Array:
        """Puts a share of the last axis, which is a multiple of `devices`, on each device."""
        return jnp.asarray(words)

    def replicate(self, words: np.ndarray) -> jax.Array:
        """Puts a whole copy on every device."""
        return jnp.asarray(words)

    def gather(self, array: np.ndarray) -> np.ndarray:
        """The same array of every process, [processes, ...]."""
        return array[None]

    def compiled(self, function: Callable[..., Any], *, add: bool, **static: Any) -> Callable[..., Any]:
        """Compiles `function(same, shards, **static)`, once.

        Args:
          function: pure, of arrays that are the same everywhere and arrays sharded over the last axis.
          add: whether outputs are added up over the devices, or put side by side along their last axis.
          static: what is fixed when it is compiled.

        Returns:
          The function of `(same, shards)`.
        """
        key = (function, add, *sorted(static.items()))
        if key not in self._compiled:
            self._compiled[key] = self.build(partial(function, **static), add=add)
        return self._compiled[key]

    def build(self, function: Callable[..., Any], *, add: bool) -> Callable[..., Any]:
        """What `compiled` keeps."""
        return jax.jit(function)


SINGLE_DEVICE = SingleDevice()


class Chunk(NamedTuple):
    """Rows of the database that go to the devices at once."""

    start: int
    stop: int
    rows: int  # with the filling: a multiple of devices x block
    block: int  # how many a device takes at a time


def query_blocks(size: int, *, most: int) -> Iterator[tuple[slice, int]]:
    """About equal parts of the queries: which, and how many rows each has with its filling.

    Args:
      size: how many queries.
      most: how many at a time, beside the bound of this file; at least one goes.

    Yields:
      A slice of the queries, and the rows of a part, the same for all.
    """
    most = max(1, min(_QUERIES, most))
    rows = -(-size // -(-size // most))
    for start in range(0, size, rows):
        yield slice(start, min(start + rows, size)), rows


def database_chunks(size: int, *, devices: SingleDevice) -> Iterator[Chunk]:
    """About equal parts of the rows that this process sees to, so that one compilation serves all and little is filling.

    Args:
      size: the items of the whole database.
      devices: the devices.

    Yields:
      The parts, in order; none where there are more processes than rows.
    """
    start, stop = devices.share(size)
    if start == stop:
        return
    chunks = -(-(stop - start) // (_ITEMS * devices.count))
    each = -(-(stop - start) // (chunks * devices.count))  # rows a device
    count = -(-each // _BLOCK)
    block = -(-each // count)
    rows = count * block * devices.count
    for first in range(start, stop, rows):
        yield Chunk(first, min(first + rows, stop), rows, block)


def padded(words: np.ndarray, size: int, *, value: np.ndarray | int = 0) -> np.ndarray:
    """Fills up the last axis.

    Args:
      words: [words, n].
      size: at least n.
      value: what to fill with, of one column or one number.

    Returns:
      [words, size].
    """
    if words.shape[1] == size:
        return words
    room = np.empty((len(words), size), words.dtype)
    room[:, : words.shape[1]] = words
    room[:, words.shape[1] :] = value
    return room
