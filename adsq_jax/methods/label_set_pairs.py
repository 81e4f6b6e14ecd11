"""All pairs of a training set's m label sets, some rows at a time: an m x m matrix may be larger than the memory."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MOST_AT_ONCE = 4096  # label sets whose pairs are all compared at once: 64 MiB a float32 matrix
MOST_NUMBERS = 2**22  # of one array at a time where there are more sets: 16 MiB in float32


def similar_rows(sets: np.ndarray, *, rows: int = 1024) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield S between label sets, a block of rows at a time.

    Args:
      sets: label vectors, uint8[m, c] in {0, 1}.
      rows: rows of a block at most; fewer if a block would have more than MOST_NUMBERS pairs.

    Yields:
      Which rows, and whether each of them and each label set have a label in common, bool[block, m].

    Source: this project.
    """
    table = sets.astype(np.float32)
    step = min(rows, _rows_at_a_time(len(sets)))
    for start in range(0, len(sets), step):
        block = slice(start, min(start + step, len(sets)))
        yield block, table[block] @ table.T > 0


def sum_pairs(function: Callable[[Any, Any], Any], arrays: Any) -> Any:
    """Return sums over all pairs of m rows, of a function of two rows that is the same for (a, b) and (b, a).

    Of more than MOST_AT_ONCE rows, a block at a time is compared with all, and the gradient computes each block again. Since
    the function is symmetric, the whole gradient is twice that of the rows of the blocks.

    Args:
      function: from two trees like `arrays`, with some rows and with all m, to a tree of sums over their pairs, float32[].
      arrays: a tree of arrays [m, ...].

    Returns:
      The tree of sums over all m x m pairs.

    Source: this project; rematerialisation, Chen et al., arXiv 1604.06174.
    """
    m = len(jax.tree.leaves(arrays)[0])
    if m <= MOST_AT_ONCE:
        return function(arrays, arrays)
    others = jax.lax.stop_gradient(arrays)
    by_row = _by_blocks(lambda row: function(_with_axis(row), others), arrays, width=m)
    sums = jax.tree.map(jnp.sum, by_row)
    return jax.tree.map(lambda x: 2 * x - jax.lax.stop_gradient(x), sums)


def map_rows(function: Callable[[Any], Any], arrays: Any, *, width: int) -> Any:
    """Return a function of each of m rows; of more than MOST_AT_ONCE, a block at a time, which the gradient computes again.

    Args:
      function: from some rows of `arrays` to a tree of arrays with as many rows, each of which depends on one row alone.
      arrays: a tree of arrays [m, ...].
      width: the most numbers that `function` holds for a row.

    Returns:
      The tree of arrays with all m rows.

    Source: this project; rematerialisation, Chen et al., arXiv 1604.06174.
    """
    if len(jax.tree.leaves(arrays)[0]) <= MOST_AT_ONCE:
        return function(arrays)
    return _by_blocks(lambda row: jax.tree.map(lambda x: x[0], function(_with_axis(row))), arrays, width=width)


def _by_blocks(function: Callable[[Any], Any], arrays: Any, *, width: int) -> Any:
    return jax.lax.map(jax.checkpoint(function), arrays, batch_size=_rows_at_a_time(width))


def _rows_at_a_time(width: int) -> int:
    return max(1, MOST_NUMBERS // width)


def _with_axis(row: Any) -> Any:
    return jax.tree.map(lambda x: x[None], row)
