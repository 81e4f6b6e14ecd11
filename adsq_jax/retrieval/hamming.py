"""Hamming distances in XLA: exact integer histograms of distances. No sort, no ranked list."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def distance_histograms(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    *,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    bits: int,
) -> tuple[np.ndarray, np.ndarray]:
    """For each query, how many items lie at each distance, and how many of them are relevant.

    Args:
      query_codes: packed, uint8[n_query, ceil(bits / 8)], padding zero.
      database_codes: packed, uint8[n_database, ceil(bits / 8)].
      query_labels: uint8[n_query, c] in {0, 1}.
      database_labels: uint8[n_database, c]; relevant is what shares a label.
      bits: the code length.

    Returns:
      Two int32[n_query, bits + 1]: all items, and relevant items, at distances 0 to bits (in bits).

    Raises:
      ValueError: shapes don't match.

    Source: this project.
    """
    width = -(-bits // 8)
    for name, codes, labels in (
        ("query", query_codes, query_labels),
        ("database", database_codes, database_labels),
    ):
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != width or len(codes) == 0:
            raise ValueError(f"{name} codes of {bits} bits must be uint8[n, {width}], got {codes.dtype}{codes.shape}")
        if labels.ndim != 2 or len(labels) != len(codes) or labels.shape[1] != query_labels.shape[1]:
            raise ValueError(
                f"{name} labels must be [{len(codes)}, c], one row a code and as many columns as the query labels "
                f"{query_labels.shape}, got {labels.shape}"
            )
    histogram = _histograms(
        _words(query_codes),
        _words(database_codes),
        _words(np.packbits(query_labels != 0, axis=1)),
        _words(np.packbits(database_labels != 0, axis=1)),
        bits=bits,
    )
    irrelevant, relevant = np.split(np.asarray(histogram), 2, axis=1)
    return irrelevant + relevant, relevant


def _words(packed: np.ndarray) -> np.ndarray:
    """uint8[n, bytes] -> uint32[n, ceil(bytes / 4)], padded with zeros."""
    room = np.zeros((len(packed), -(-packed.shape[1] // 4) * 4), np.uint8)
    room[:, : packed.shape[1]] = packed
    return room.view(np.uint32)


@partial(jax.jit, static_argnames="bits")
def _histograms(
    query_codes: jax.Array,
    database_codes: jax.Array,
    query_labels: jax.Array,
    database_labels: jax.Array,
    *,
    bits: int,
) -> jax.Array:
    """int32[n_query, 2 (bits + 1)]: irrelevant items by distance, then relevant ones. One query at a time."""
    bins = 2 * (bits + 1)

    def one_query(query: tuple[jax.Array, jax.Array]) -> jax.Array:
        codes, labels = query  # [words], [label words]
        ones = jax.lax.population_count(codes[None, :] ^ database_codes)  # [n_database, words]
        distance = jnp.sum(ones.astype(jnp.int32), axis=1)  # [n_database]
        relevant = jnp.any((labels[None, :] & database_labels) != 0, axis=1)  # [n_database]
        place = distance + jnp.where(relevant, jnp.int32(bits + 1), jnp.int32(0))
        return jnp.zeros(bins, jnp.int32).at[place].add(1, mode="promise_in_bounds")

    return jax.lax.map(one_query, (query_codes, query_labels))
