"""The nearest items by Hamming distance, in XLA."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from adsq_jax.errors import InputError
from adsq_jax.retrieval import blocks
from adsq_jax.retrieval.arrays import Codes, prepare_codes
from adsq_jax.retrieval.blocks import LIMITS, SINGLE_DEVICE, Limits, SingleDevice
from adsq_jax.retrieval.hamming import count_set_bits

_ACCELERATOR_QUERIES = 64  # queries at a time on an accelerator; a CPU core takes one after the other
_PADDING = -1  # the row number of a padding item


def search(
    query_codes: ArrayLike,
    database_codes: ArrayLike,
    k: int,
    *,
    bits: int | None = None,
    devices: SingleDevice = SINGLE_DEVICE,
    limits: Limits = LIMITS,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest items of each query, ordered by (distance, index in the database).

    Args:
      query_codes: as `measure`, [n_query, K] or packed uint8[n_query, ceil(K / 8)].
      database_codes: the same form, [n_database, ...].
      k: the number of items, 1 to n_database.
      bits: K of packed codes; None if the codes are not packed.
      devices: one device, or `adsq_jax.devices.ShardedDatabase()` for all.
      limits: for tests and small memory: the most that is held at a time; it changes no result.

    Returns:
      distances int32[n_query, k] in bits, and indices int64[n_query, k].

    Raises:
      InputError: the codes have the wrong form or don't fit each other, or k is out of range.

    Source: this project.
    """
    query, database = prepare_codes(query_codes, database_codes, bits=bits)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(database):
        raise InputError(f"k={k}: expected a whole number from 1 to {len(database)}, the items of the database")
    distances, indices = np.empty((len(query), k), np.int32), np.empty((len(query), k), np.int64)
    for part, padded_rows in blocks.query_blocks(len(query), most=limits.neighbors // k, limits=limits):
        words = blocks.pad(query.words(part.start, part.stop), padded_rows)
        best = _search_database(words, database, k=k, devices=devices, limits=limits)
        distances[part], indices[part] = best[:, : part.stop - part.start]
    return distances, indices


def _search_database(query: np.ndarray, database: Codes, *, k: int, devices: SingleDevice, limits: Limits) -> np.ndarray:
    """Return distances and indices over all processes, int64[2, n_query, k]."""
    replicated = devices.replicate(query)
    batch_size = None if devices.platform == "cpu" else _ACCELERATOR_QUERIES
    best = np.empty((2, query.shape[1], 0), np.int64)
    for chunk in blocks.database_chunks(len(database), devices=devices, limits=limits):
        rows = np.arange(chunk.stop - chunk.start, dtype=np.int32)[None]
        sharded = (
            devices.shard(blocks.pad(database.words(chunk.start, chunk.stop), chunk.padded_rows)),
            devices.shard(blocks.pad(rows, chunk.padded_rows, value=_PADDING)),
        )
        k_per_device = min(k, chunk.padded_rows // devices.count)
        nearest = devices.compiled(_nearest, add=False, k=k_per_device, batch_size=batch_size)
        candidates = np.asarray(nearest(replicated, sharded), np.int64)
        candidates[1] += chunk.start
        best = _merge(best, candidates, k=k)
    missing = np.full((2, query.shape[1], k - best.shape[2]), np.iinfo(np.int64).max)  # if this process has fewer than k items
    return _merge(*devices.gather(np.concatenate([best, missing], axis=2)), k=k)


def _merge(*parts: np.ndarray, k: int) -> np.ndarray:
    """Return the k best of several [2, n_query, any], each in order and with lower indices than the next."""
    both = np.concatenate(parts, axis=2)
    order = np.argsort(both[0], axis=1, kind="stable")[None, :, :k]
    return np.take_along_axis(both, order, axis=2)


def _nearest(query: jax.Array, database: tuple[jax.Array, jax.Array], *, k: int, batch_size: int | None) -> jax.Array:
    """Return distances and rows of the nearest items of one device, int32[2, n_query, k], in order; padding comes last.

    The k nearest lie in the k groups whose nearest items are nearest: each of these groups has an item that is nearer than all
    items of any other group. So two short lists are sorted in place of a long one; both have about sqrt(n k) numbers.
    """
    items, rows = database  # [words, n], [1, n]
    size = 1 << max(0, round(math.log2(items.shape[1] / k) / 2))  # of a group
    missing = -items.shape[1] % size
    items, rows = jnp.pad(items, ((0, 0), (0, missing))), jnp.pad(rows, ((0, 0), (0, missing)), constant_values=_PADDING)
    beyond = 32 * len(items) + 1

    def search_one(codes: jax.Array) -> jax.Array:
        distance = jnp.where(rows[0] == _PADDING, beyond, count_set_bits(codes[:, None] ^ items))
        groups = distance.astype(jnp.float32).reshape(-1, size)
        _, nearest = jax.lax.top_k(-groups.min(axis=1), min(k, len(groups)))
        nearest = jnp.sort(nearest)  # items in order, since top_k puts the first of tied ones first
        closeness, at = jax.lax.top_k(-groups[nearest].reshape(-1), k)
        index = nearest[at // size] * size + at % size
        return jnp.stack([-closeness.astype(jnp.int32), rows[0][index]])

    return jax.lax.map(search_one, query.T, batch_size=batch_size).swapaxes(0, 1)
