"""Exact integer histograms of Hamming distances, in XLA: no sort, no ranked list."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from adsq_jax.retrieval import blocks
from adsq_jax.retrieval.arrays import Codes, Labels, check_orientation, prepare_codes, prepare_labels
from adsq_jax.retrieval.blocks import LIMITS, SINGLE_DEVICE, Limits, SingleDevice

KERNELS = ("popcount", "matmul", "comparison")  # how items are counted, each by `_count_by_NAME`
_MATMUL_QUERIES = 16  # that a device takes at a time
_MOST_COMPARISONS = 1 << 28  # of items with bins that a device makes at a time
_MOST_PACKED = (1 << 16) - 1  # items that half of a word counts
_FEWEST_QUERIES, _MOST_QUERIES = 256, 1024  # in a block, if the database stays on the devices


def distance_histograms(
    query_codes: ArrayLike,
    database_codes: ArrayLike,
    *,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    bits: int | None = None,
    devices: SingleDevice = SINGLE_DEVICE,
    limits: Limits = LIMITS,
) -> tuple[np.ndarray, np.ndarray]:
    """Count for each query the items, and the relevant items, at each Hamming distance.

    Args:
      query_codes: as `measure`, [n_query, K] or packed uint8[n_query, ceil(K / 8)].
      database_codes: the same form, [n_database, ...].
      query_labels: as `measure`: class ids or strings [n_query], or multi-hot [n_query, c].
      database_labels: the same form. Items that share a label with the query are relevant.
      bits: K of packed codes; None if the codes are not packed.
      devices: one device, or `adsq_jax.devices.ShardedDatabase()` for all.
      limits: for tests and small memory: the most that is held at a time; it changes no result.

    Returns:
      Two int64[n_query, K + 1]: all items, and relevant items, at distances 0 to K (in bits).

    Raises:
      InputError: the codes or labels have the wrong form or don't fit each other.

    Source: this project.
    """
    check_orientation(query_codes, database_codes, query_labels=query_labels, database_labels=database_labels)
    query, database = prepare_codes(query_codes, database_codes, bits=bits)
    labels = prepare_labels(query_labels, database_labels, n_query=len(query), n_database=len(database))
    parts = histograms_by_block(query, database, labels, devices=devices, limits=limits)
    by_grade = np.concatenate([block for _, block in parts])
    return by_grade.sum(axis=2), by_grade[:, :, 1:].sum(axis=2)


def histograms_by_block(
    query: Codes,
    database: Codes,
    labels: tuple[Labels, Labels],
    *,
    devices: SingleDevice,
    limits: Limits = LIMITS,
    kernel: str | None = None,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Count the items of the database by distance and shared labels, block by block of the queries.

    Args:
      query: the codes of the queries.
      database: the codes of the database.
      labels: the labels of queries and database.
      devices: the devices.
      limits: the most that is held at a time.
      kernel: one of KERNELS, all exact; None for the platform's fastest.
      on_progress: called with the number of pairs done since the last call.

    Yields:
      The slice of the queries, and int64[queries, bits + 1, grades]: items at each distance that share 0, 1, ... labels.

    Raises:
      ValueError: there is no such kernel.

    Source: this project.
    """
    kernel = kernel or ("popcount" if devices.platform == "cpu" else "comparison")
    if kernel not in KERNELS:
        raise ValueError(f"kernel={kernel!r}: expected one of {', '.join(KERNELS)}")
    limits = limits._replace(block=min(limits.block, _MOST_PACKED))
    grades = 1 + labels[0].max_per_row()
    chunks = list(blocks.database_chunks(len(database), devices=devices, limits=limits))
    most = limits.bins // ((query.bits + 1) * grades)
    # A database that fits stays on the devices, so that small blocks cost nothing. All processes must have the same blocks.
    if len(database) <= limits.items * devices.count:
        most = min(most, max(_FEWEST_QUERIES, min(_MOST_QUERIES, -(-len(query) // 2))))
    count = partial(
        _Counts,
        place=_Placing(database, labels[1], devices=devices),
        chunks=chunks,
        kernel=kernel,
        grades=grades,
        on_progress=on_progress,
    )
    begun: list[_Counts] = []
    for part, padded_rows in blocks.query_blocks(len(query), most=most, limits=limits):
        begun.append(count(part, [blocks.pad(side.words(part.start, part.stop), padded_rows) for side in (query, labels[0])]))
        if len(begun) == 2:  # the caller works on one block while the devices count the next
            yield begun.pop(0).finish()
    for counts in begun:
        yield counts.finish()


class _Placing:
    """Puts chunks of the database on the devices; the last one stays there."""

    def __init__(self, database: Codes, labels: Labels, *, devices: SingleDevice):
        self.database, self.labels, self.devices = database, labels, devices
        self._last: tuple[blocks.Chunk, tuple[jax.Array, jax.Array]] | None = None

    def __call__(self, chunk: blocks.Chunk) -> tuple[jax.Array, jax.Array]:
        """Return words of codes and labels, each [words, padded rows]."""
        if self._last is None or self._last[0] != chunk:
            codes = blocks.pad(self.database.words(chunk.start, chunk.stop), chunk.padded_rows)
            labels = self.labels.words(chunk.start, chunk.stop)
            padded = blocks.pad(labels, chunk.padded_rows, value=self.labels.padding)
            self._last = chunk, (self.devices.shard(codes), self.devices.shard(padded))
        return self._last[1]


class _Counts:
    """The counts of a block of queries, of which the devices may still compute the last two chunks."""

    def __init__(
        self,
        part: slice,
        words: list[np.ndarray],
        *,
        place: _Placing,
        chunks: list[blocks.Chunk],
        kernel: str,
        grades: int,
        on_progress: Callable[[int], None],
    ):
        """Begin; the words of the queries may be padded."""
        devices, bits, padded_queries = place.devices, place.database.bits, words[0].shape[1]
        self._part, self._devices = part, devices
        self._total = np.zeros((padded_queries, bits + 1, grades), np.int64)
        padding_distance = np.bitwise_count(words[0]).sum(axis=0)  # of a padding item, which has code 0 and shares no label
        replicated = tuple(devices.replicate(side) for side in words)
        self._pending: list[jax.Array] = []
        for chunk in chunks:
            static = {"bits": bits, "grades": grades, "block": chunk.block, "kernel": kernel, "ids": place.labels.ids}
            self._pending.append(devices.compiled(_histograms, add=True, **static)(replicated, place(chunk)))
            self._total[np.arange(padded_queries), padding_distance, 0] -= chunk.padded_rows - (chunk.stop - chunk.start)
            if len(self._pending) == 2:
                self._add()
            on_progress((chunk.stop - chunk.start) * (part.stop - part.start))

    def _add(self) -> None:
        self._total += np.asarray(self._pending.pop(0)).reshape(self._total.shape)

    def finish(self) -> tuple[slice, np.ndarray]:
        """Return the slice of the queries, and int64[queries, bits + 1, grades] over all processes."""
        while self._pending:
            self._add()
        return self._part, self._devices.gather(self._total[: self._part.stop - self._part.start]).sum(axis=0)


def _histograms(
    query: tuple[jax.Array, jax.Array],
    database: tuple[jax.Array, jax.Array],
    *,
    bits: int,
    grades: int,
    block: int,
    kernel: str,
    ids: bool,
    at_a_time: int | None = None,
) -> jax.Array:
    """Return int32[n_query, (bits + 1) * grades] from codes [words, n] and labels [label words, n], block by block.

    `at_a_time` queries are taken together; None: as many as the kernel likes.
    """

    def convert(side: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        if kernel == "popcount":
            return side
        return _unpack_signs(side[0]), side[1] if ids else _unpack_bits(side[1])

    ways = {"popcount": _count_by_popcount, "matmul": _count_by_matmul, "comparison": _count_by_comparison}
    if at_a_time is None and kernel != "popcount":  # which takes one after the other
        compared = (bits + 1) * -(-grades // 2) * block
        at_a_time = _MATMUL_QUERIES if kernel == "matmul" else max(1, _MOST_COMPARISONS // compared)

    def add_block(total: jax.Array, items: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        # The queries are converted in here too: XLA on CPUs has no product of bfloat16 from outside the loop.
        rows = jax.tree.map(jnp.transpose, convert(query))
        count = partial(ways[kernel], items=convert(items), bits=bits, grades=grades, ids=ids)
        return total + jax.lax.map(count, rows, batch_size=at_a_time), None

    by_block = jax.tree.map(lambda x: x.reshape(len(x), -1, block).swapaxes(0, 1), database)  # [blocks, words, block]
    zero = jnp.zeros((query[0].shape[1], (bits + 1) * grades), jnp.int32)
    return jax.lax.scan(add_block, zero, by_block)[0]


def _count_by_popcount(
    query: tuple[jax.Array, jax.Array], *, items: tuple[jax.Array, jax.Array], bits: int, grades: int, ids: bool
) -> jax.Array:
    """Return int32[(bits + 1) * grades] of one query's codes [words] and labels [label words] against a block."""
    grade = (items[1][0] == query[1][0]).astype(jnp.int32) if ids else count_set_bits(query[1][:, None] & items[1])
    index = count_set_bits(query[0][:, None] ^ items[0]) * grades + grade  # [block]
    return jnp.zeros((bits + 1) * grades, jnp.int32).at[index].add(1, mode="promise_in_bounds")


def _count_by_matmul(
    query: tuple[jax.Array, jax.Array], *, items: tuple[jax.Array, jax.Array], bits: int, grades: int, ids: bool
) -> jax.Array:
    """Return the same from one query's signs [32 words] and labels, by matrix products: scatters are only fast on CPUs."""
    distance, grade = _distance_and_grade(query, items, ids=ids)
    at_distance = jax.nn.one_hot(distance, bits + 1, dtype=jnp.bfloat16, axis=0)  # [bits + 1, block]
    at_grade = jax.nn.one_hot(grade, grades, dtype=jnp.bfloat16)  # [block, grades]
    counts = jnp.matmul(at_distance, at_grade, preferred_element_type=jnp.float32)
    return counts.astype(jnp.int32).reshape(-1)


def _count_by_comparison(
    query: tuple[jax.Array, jax.Array], *, items: tuple[jax.Array, jax.Array], bits: int, grades: int, ids: bool
) -> jax.Array:
    """Return the same by a comparison with each bin: one reduction, from which XLA writes nothing but the counts to memory.

    An even grade and the next odd one are counted in the halves of one word, which takes half the comparisons.
    """
    distance, grade = _distance_and_grade(query, items, ids=ids)
    words = -(-grades // 2)  # of each distance
    index = distance * words + grade // 2  # [block]
    one = jnp.where(grade % 2 == 1, jnp.uint32(1 << 16), jnp.uint32(1))
    is_at = index[None] == jnp.arange((bits + 1) * words, dtype=jnp.int32)[:, None]  # [(bits + 1) * words, block]
    packed = jnp.sum(jnp.where(is_at, one[None], jnp.uint32(0)), axis=1, dtype=jnp.uint32)
    counts = jnp.stack([packed & _MOST_PACKED, packed >> 16], axis=1).astype(jnp.int32)
    return counts.reshape(bits + 1, 2 * words)[:, :grades].reshape(-1)


def _distance_and_grade(
    query: tuple[jax.Array, jax.Array], items: tuple[jax.Array, jax.Array], *, ids: bool
) -> tuple[jax.Array, jax.Array]:
    """Return distances and numbers of shared labels by matrix products, int32[block] each.

    bfloat16 holds -1, 0 and 1 exactly, and float32 their sums up to 2^24.
    """
    product = jnp.matmul(query[0], items[0], preferred_element_type=jnp.float32)  # [block]
    distance = (len(items[0]) - product.astype(jnp.int32)) // 2
    if ids:
        return distance, (items[1][0] == query[1][0]).astype(jnp.int32)
    return distance, jnp.matmul(query[1], items[1], preferred_element_type=jnp.float32).astype(jnp.int32)


def count_set_bits(words: jax.Array) -> jax.Array:
    """Count the set bits of uint32[words, n] as int32[n]; the count for the XOR of two codes is their Hamming distance."""
    return jnp.sum(jax.lax.population_count(words).astype(jnp.int32), axis=0)


def _unpack_bits(words: jax.Array) -> jax.Array:
    """Turn uint32[words, n] into bfloat16[32 words, n] in {0, 1}."""
    shifts = jnp.arange(32, dtype=jnp.uint32)[None, :, None]
    return ((words[:, None, :] >> shifts) & 1).astype(jnp.bfloat16).reshape(-1, words.shape[1])


def _unpack_signs(words: jax.Array) -> jax.Array:
    """Turn uint32[words, n] into bfloat16[32 words, n] in {-1, +1}; padding, -1 on both sides, adds nothing to a distance."""
    return 2 * _unpack_bits(words) - 1
