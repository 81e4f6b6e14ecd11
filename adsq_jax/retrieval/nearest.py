"""The nearest items by Hamming distance, in XLA."""

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax.errors import InputError
from adsq_jax.retrieval import blocks
from adsq_jax.retrieval.arrays import Codes, pair_of_codes
from adsq_jax.retrieval.blocks import SINGLE_DEVICE, SingleDevice
from adsq_jax.retrieval.hamming import set_bits

_FOUND = 1 << 22  # neighbours held at a time, at most: fewer queries where each wants more
_TOGETHER = 16  # queries at a time on an accelerator; a core takes one after the other
_NOWHERE = -1  # the place of a row that fills up


def search(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    k: int,
    *,
    bits: int | None = None,
    devices: SingleDevice = SINGLE_DEVICE,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest items of each query, by (distance, index in the database).

    Args:
      query_codes: [n_query, K], or packed uint8[n_query, ceil(K / 8)]: see `arrays.pair_of_codes`.
      database_codes: the same way, [n_database, ...].
      k: how many, 1 to n_database.
      bits: K of packed codes; None where they are not packed.
      devices: the devices.

    Returns:
      distances int32[n_query, k] in bits, and indices int64[n_query, k].

    Raises:
      InputError: codes are not as they should be, or k is out of range.

    Source: this project.
    """
    query, database = pair_of_codes(query_codes, database_codes, bits=bits)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(database):
        raise InputError(f"k={k}: expected a whole number from 1 to {len(database)}, the items of the database")
    distances, indices = np.empty((len(query), k), np.int32), np.empty((len(query), k), np.int64)
    for part, rows in blocks.query_blocks(len(query), most=_FOUND // k):
        words = blocks.padded(query.words(part.start, part.stop), rows)
        found = _of_database(words, database, k=k, devices=devices)[:, : part.stop - part.start]
        distances[part], indices[part] = found
    return distances, indices


def _of_database(query: np.ndarray, database: Codes, *, k: int, devices: SingleDevice) -> np.ndarray:
    """int64[2, n_query, k]: distances and indices over all processes."""
    same = devices.replicate(query)
    together = None if devices.platform == "cpu" else _TOGETHER
    best = np.empty((2, query.shape[1], 0), np.int64)
    for chunk in blocks.database_chunks(len(database), devices=devices):
        places = np.arange(chunk.stop - chunk.start, dtype=np.int32)[None]
        shards = (
            devices.shard(blocks.padded(database.words(chunk.start, chunk.stop), chunk.rows)),
            devices.shard(blocks.padded(places, chunk.rows, value=_NOWHERE)),
        )
        nearest = devices.compiled(_nearest, add=False, k=min(k, chunk.rows // devices.count), together=together)
        found = np.asarray(nearest(same, shards), np.int64)
        found[1] += chunk.start
        best = _merged(best, found, k=k)
    far = np.full((2, query.shape[1], k - best.shape[2]), np.iinfo(np.int64).max)  # a process may hold less than k items
    parts = devices.gather(np.concatenate([best, far], axis=2))
    return _merged(*parts, k=k)


def _merged(*found: np.ndarray, k: int) -> np.ndarray:
    """The k best of several [2, n_query, any], each in order and before the next by index."""
    both = np.concatenate(found, axis=2)
    order = np.argsort(both[0], axis=1, kind="stable")[None, :, :k]
    return np.take_along_axis(both, order, axis=2)


def _nearest(query: jax.Array, database: tuple[jax.Array, jax.Array], *, k: int, together: int | None) -> jax.Array:
    """int32[2, n_query, k]: distances and places of the nearest of a device, in order; rows that fill up come last."""
    items, places = database  # [words, n], [1, n]
    beyond = jnp.float32(32 * len(items) + 1)

    def one(codes: jax.Array) -> jax.Array:
        distance = set_bits(codes[:, None] ^ items)
        near = -jnp.where(places[0] == _NOWHERE, beyond, distance.astype(jnp.float32))  # [n]
        near, at = jax.lax.top_k(near, k)  # of equals the first comes first
        return jnp.stack([-near.astype(jnp.int32), places[0][at]])

    return jax.lax.map(one, query.T, batch_size=together).swapaxes(0, 1)
