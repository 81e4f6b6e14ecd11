"""Exact integer histograms of Hamming distances, in XLA. No sort, no ranked list."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from adsq_jax.retrieval import blocks
from adsq_jax.retrieval.arrays import Codes, Labels, pair_of_codes, pair_of_labels
from adsq_jax.retrieval.blocks import SINGLE_DEVICE, SingleDevice

KERNELS = ("popcount", "matmul")  # XOR and population count; products of matrices of +1 and -1
_BINS = 1 << 22  # counts held at a time, at most: fewer queries where each has more
_TOGETHER = 16  # queries a matrix product takes at a time


def distance_histograms(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    *,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    bits: int | None = None,
    devices: SingleDevice = SINGLE_DEVICE,
) -> tuple[np.ndarray, np.ndarray]:
    """For each query, how many items lie at each distance, and how many of them are relevant.

    Args:
      query_codes: [n_query, K], or packed uint8[n_query, ceil(K / 8)]: see `arrays.pair_of_codes`.
      database_codes: the same way, [n_database, ...].
      query_labels: class ids [n_query] or multi-hot [n_query, c]: see `arrays.pair_of_labels`.
      database_labels: the same way; relevant is what shares a label.
      bits: K of packed codes; None where they are not packed.
      devices: the devices.

    Returns:
      Two int64[n_query, K + 1]: all items, and relevant items, at distances 0 to K (in bits).

    Raises:
      InputError: codes or labels are not as they should be.

    Source: this project.
    """
    query, database = pair_of_codes(query_codes, database_codes, bits=bits)
    labels = pair_of_labels(query_labels, database_labels, n_query=len(query), n_database=len(database))
    parts = [part for _, part in histograms_by_block(query, database, labels, devices=devices)]
    joint = np.concatenate(parts)
    return joint.sum(axis=2), joint[:, :, 1:].sum(axis=2)


def histograms_by_block(
    query: Codes,
    database: Codes,
    labels: tuple[Labels, Labels],
    *,
    devices: SingleDevice,
    kernel: str | None = None,
    on_progress: Callable[[int], None] = lambda pairs: None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Goes through the queries block by block, and for each block through the database.

    Args:
      query: codes of the queries.
      database: codes of the database.
      labels: of queries and database.
      devices: the devices.
      kernel: one of KERNELS; None for the fastest on the platform. Both are exact.
      on_progress: is called on the way with the number of pairs done since.

    Yields:
      Which queries, and int64[queries, bits + 1, grades]: how many items lie at each distance and share 0, 1, ... labels.

    Raises:
      ValueError: no such kernel.

    Source: this project.
    """
    kernel = kernel or ("popcount" if devices.platform == "cpu" else "matmul")
    if kernel not in KERNELS:
        raise ValueError(f"kernel={kernel!r}: expected one of {', '.join(KERNELS)}")
    grades = 1 + labels[0].most()
    bins = (query.bits + 1) * grades
    for part, rows in blocks.query_blocks(len(query), most=_BINS // bins):
        words = (
            blocks.padded(query.words(part.start, part.stop), rows),
            blocks.padded(labels[0].words(part.start, part.stop), rows),
        )
        total = _against_database(
            words,
            database,
            labels[1],
            own=part.stop - part.start,
            grades=grades,
            kernel=kernel,
            devices=devices,
            on_progress=on_progress,
        )
        yield part, total.reshape(-1, query.bits + 1, grades)


def _against_database(
    query: tuple[np.ndarray, np.ndarray],
    database: Codes,
    labels: Labels,
    *,
    own: int,
    grades: int,
    kernel: str,
    devices: SingleDevice,
    on_progress: Callable[[int], None],
) -> np.ndarray:
    """int64[own, (bits + 1) * grades] of the first `own` of queries' words, against the whole database, over all processes."""
    n_query, bits = query[0].shape[1], database.bits
    total = np.zeros((n_query, (bits + 1) * grades), np.int64)
    at_zero = np.bitwise_count(query[0]).sum(axis=0) * grades  # the bin of an item of zeros that shares no label
    same = tuple(devices.replicate(words) for words in query)
    pending: list[jax.Array] = []  # the block before, which the devices work on while the next is read
    for chunk in blocks.database_chunks(len(database), devices=devices):
        shards = (
            devices.shard(blocks.padded(database.words(chunk.start, chunk.stop), chunk.rows)),
            devices.shard(blocks.padded(labels.words(chunk.start, chunk.stop), chunk.rows, value=labels.absent)),
        )
        static = {"bits": bits, "grades": grades, "block": chunk.block, "kernel": kernel, "ids": labels.ids}
        pending.append(devices.compiled(_histograms, add=True, **static)(same, shards))
        total[np.arange(n_query), at_zero] -= chunk.rows - (chunk.stop - chunk.start)
        if len(pending) == 2:
            total += np.asarray(pending.pop(0))
        on_progress((chunk.stop - chunk.start) * own)
    for counts in pending:
        total += np.asarray(counts)
    return devices.gather(total[:own]).sum(axis=0)


def _histograms(
    query: tuple[jax.Array, jax.Array],
    database: tuple[jax.Array, jax.Array],
    *,
    bits: int,
    grades: int,
    block: int,
    kernel: str,
    ids: bool,
) -> jax.Array:
    """int32[n_query, (bits + 1) * grades], of codes [words, n] and labels [label words, n], block by block."""

    def written(side: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """As the way to distances takes it: words, or a number a bit."""
        if kernel == "popcount":
            return side
        return _signs(side[0]), side[1] if ids else _bits_of(side[1])

    one_query = _count_by_popcount if kernel == "popcount" else _count_by_matmul
    together = None if kernel == "popcount" else _TOGETHER

    def add_block(total: jax.Array, items: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        # the queries' too in here: XLA on CPUs has no product of bfloat16 that come from outside the loop
        own = jax.tree.map(jnp.transpose, written(query))
        count = partial(one_query, items=written(items), bits=bits, grades=grades, ids=ids)
        return total + jax.lax.map(count, own, batch_size=together), None

    by_block = jax.tree.map(lambda x: x.reshape(len(x), -1, block).swapaxes(0, 1), database)  # [blocks, words, block]
    zero = jnp.zeros((query[0].shape[1], (bits + 1) * grades), jnp.int32)
    return jax.lax.scan(add_block, zero, by_block)[0]


def _count_by_popcount(
    query: tuple[jax.Array, jax.Array], *, items: tuple[jax.Array, jax.Array], bits: int, grades: int, ids: bool
) -> jax.Array:
    """int32[(bits + 1) * grades] of one query's codes [words] and labels [label words], against a block."""
    grade = (items[1][0] == query[1][0]).astype(jnp.int32) if ids else set_bits(query[1][:, None] & items[1])
    place = set_bits(query[0][:, None] ^ items[0]) * grades + grade  # [block]
    return jnp.zeros((bits + 1) * grades, jnp.int32).at[place].add(1, mode="promise_in_bounds")


def _count_by_matmul(
    query: tuple[jax.Array, jax.Array], *, items: tuple[jax.Array, jax.Array], bits: int, grades: int, ids: bool
) -> jax.Array:
    """The same of one query's signs [32 words] and labels, as products of matrices: without a scatter, which only CPUs like.

    bfloat16 holds -1, 0 and 1, and float32 the sums of up to 2^24 of them, exactly.
    """
    product = jnp.matmul(query[0], items[0], preferred_element_type=jnp.float32)  # [block]
    distance = (len(items[0]) - product.astype(jnp.int32)) // 2
    if ids:
        grade = (items[1][0] == query[1][0]).astype(jnp.int32)
    else:
        grade = jnp.matmul(query[1], items[1], preferred_element_type=jnp.float32).astype(jnp.int32)
    at_distance = jax.nn.one_hot(distance, bits + 1, dtype=jnp.bfloat16, axis=0)  # [bits + 1, block]
    at_grade = jax.nn.one_hot(grade, grades, dtype=jnp.bfloat16)  # [block, grades]
    counts = jnp.matmul(at_distance, at_grade, preferred_element_type=jnp.float32)
    return counts.astype(jnp.int32).reshape(-1)


def set_bits(words: jax.Array) -> jax.Array:
    """Counts the bits that are set; of the XOR of codes that is their distance.

    Args:
      words: uint32[words, n].

    Returns:
      int32[n].
    """
    return jnp.sum(jax.lax.population_count(words).astype(jnp.int32), axis=0)


def _bits_of(words: jax.Array) -> jax.Array:
    """uint32[words, n] -> bfloat16[32 words, n] in {0, 1}."""
    places = jnp.arange(32, dtype=jnp.uint32)[None, :, None]
    return ((words[:, None, :] >> places) & 1).astype(jnp.bfloat16).reshape(-1, words.shape[1])


def _signs(words: jax.Array) -> jax.Array:
    """uint32[words, n] -> bfloat16[32 words, n] in {-1, +1}; padding, -1 on both sides, adds nothing to a distance."""
    return 2 * _bits_of(words) - 1
