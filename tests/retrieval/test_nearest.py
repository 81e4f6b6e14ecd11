"""The nearest items against a stable sort of all distances, and against faiss."""

import faiss
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.errors import InputError
from adsq_jax.retrieval import blocks, nearest


def signs(n, bits, *, seed):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), (n, bits))


def sorted_by_distance(query, database, k):
    """Distances bit by bit, and indices in a stable order: of tied items the first in the database comes first."""
    distances = (query[:, None, :] != database[None, :, :]).sum(axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


def check(found, expected):
    for part, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(part, wanted)


# bits, queries, items: many items at each distance where bits are few
SIZES = {
    "1 bit": (1, 4, 30),
    "3 bits": (3, 5, 100),
    "1 query, 1 item": (12, 1, 1),
    "1 item": (40, 3, 1),
    "8 bits": (8, 20, 57),
    "33 bits": (33, 4, 40),
    "256 bits": (256, 3, 20),
    "512 bits": (512, 3, 20),
    "1,024 bits": (1024, 3, 20),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_equals_a_stable_sort_of_all_distances(size):
    """For k from 1 to the whole database, with ties at every distance, equal and opposite codes among them."""
    bits, n_query, n_database = size
    query, database = signs(n_query, bits, seed=0), signs(n_database, bits, seed=1)
    database[-1] = query[0]
    database[0] = -query[-1] if n_database > 1 else database[0]
    for k in sorted({1, min(7, n_database), n_database}):
        found = nearest.search(query, database, k)
        check(found, sorted_by_distance(query, database, k))
        assert (found[0].dtype, found[1].dtype) == (np.int32, np.int64)


@pytest.mark.parametrize(("n_database", "k"), [(3000, 1), (3000, 7), (2999, 40), (3000, 1400), (3000, 3000)])
def test_the_nearest_are_found_in_groups_of_any_size(n_database, k):
    """Groups of 64, 16, 8, 2 and 1 items, the last one filled up, with hundreds of items at each distance."""
    query, database = signs(6, 10, seed=0), signs(n_database, 10, seed=1)
    check(nearest.search(query, database, k), sorted_by_distance(query, database, k))


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_devices_and_chunks_do_not_change_the_neighbours(devices):
    """Queries 3 at a time, databases that devices don't divide, in one chunk or in several, and k beyond what a chunk holds."""
    devices = ShardedDatabase(jax.devices()[:devices])
    for n_database, items, block in ((1, 1 << 20, 8192), (3, 1 << 20, 8192), (45, 1 << 20, 4), (45, 4, 2), (45, 5, 5)):
        limits = blocks.Limits(queries=3, items=items, block=block)
        query, database = signs(7, 5, seed=0), signs(n_database, 5, seed=1)
        for k in sorted({1, min(9, n_database), n_database}):
            found = nearest.search(query, database, k, devices=devices, limits=limits)
            check(found, sorted_by_distance(query, database, k))


def test_many_neighbours_take_fewer_queries_at_a_time():
    """Where what two queries find, or not even one, fits into what is held at a time, nothing changes."""
    query, database = signs(7, 6, seed=0), signs(30, 6, seed=1)
    for most in (20, 3):
        found = nearest.search(query, database, 10, limits=blocks.Limits(neighbors=most))
        check(found, sorted_by_distance(query, database, 10))


def test_the_program_for_accelerators_gives_the_same():
    """Several queries at a time, with padding after the items."""
    query, database = signs(20, 9, seed=0), signs(50, 9, seed=1)
    words = [np.packbits(side > 0, axis=1, bitorder="little") for side in (query, database)]
    words = [np.pad(side, ((0, 0), (0, 2))).view(np.uint32).T for side in words]
    places = np.append(np.arange(50), [nearest._PADDING] * 6).astype(np.int32)[None]
    filled = np.concatenate([words[1], np.repeat(words[0][:, :1], 6, axis=1)], axis=1)  # would be the nearest
    found = nearest._nearest(jnp.asarray(words[0]), (jnp.asarray(filled), jnp.asarray(places)), k=50, batch_size=16)
    check(found, sorted_by_distance(query, database, 50))


def test_packed_codes_give_the_same():
    """Codes of 21 bits, packed."""
    query, database = signs(4, 21, seed=0), signs(60, 21, seed=1)
    packed = [np.packbits(side > 0, axis=1, bitorder="little") for side in (query, database)]
    check(nearest.search(*packed, 15, bits=21), sorted_by_distance(query, database, 15))


@pytest.mark.parametrize("bits", [8, 64, 128, 256, 512, 1024])
def test_distances_equal_those_of_faiss(bits):
    """Equal distances; of tied items faiss may return others, so ours are checked against their codes."""
    query, database = signs(30, bits, seed=0), signs(2000, bits, seed=1)
    packed = [np.packbits(side > 0, axis=1, bitorder="little") for side in (query, database)]
    index = faiss.IndexBinaryFlat(bits)
    index.add(packed[1])
    expected, _ = index.search(packed[0], 100)
    distances, indices = nearest.search(*packed, 100, bits=bits)
    np.testing.assert_array_equal(distances, expected)
    np.testing.assert_array_equal((query[:, None, :] != database[indices]).sum(axis=2), expected)


@pytest.mark.parametrize("k", [0, -1, 6, 1.5])
def test_a_bad_k_is_refused(k):
    """k is 0, negative, more than the items, or a fraction."""
    with pytest.raises(InputError, match=f"k={k}: expected a whole number from 1 to 5"):
        nearest.search(signs(2, 8, seed=0), signs(5, 8, seed=1), k)


def test_codes_that_do_not_fit_are_refused():
    """The database has codes of another length."""
    with pytest.raises(InputError, match="got query codes of 8 bits and database codes of 9"):
        nearest.search(signs(2, 8, seed=0), signs(5, 9, seed=1), 1)
