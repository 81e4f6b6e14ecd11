"""Distance histograms against a loop over all pairs, with each kernel, number of devices and size of blocks; bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.errors import InputError
from adsq_jax.retrieval import blocks, hamming

# bits, queries, items, classes, chance of a label
SIZES = {
    "1 bit": (1, 3, 20, 2, 0.5),
    "1 query, 1 item": (12, 1, 1, 3, 0.5),
    "1 query": (16, 1, 30, 3, 0.5),
    "1 item": (24, 5, 1, 3, 0.5),
    "7 bits, 1 class": (7, 4, 25, 1, 0.5),
    "33 bits": (33, 4, 25, 5, 0.4),
    "48 bits, 32 classes": (48, 4, 40, 32, 0.05),
    "64 bits, 33 classes": (64, 4, 40, 33, 0.05),
    "100 bits, 81 classes": (100, 3, 40, 81, 0.02),
    "255 bits": (255, 3, 20, 10, 0.2),
    "256 bits": (256, 3, 20, 10, 0.2),
    "257 bits": (257, 3, 20, 10, 0.2),
    "512 bits": (512, 3, 20, 10, 0.2),
    "1,023 bits, 40 classes": (1023, 3, 20, 40, 0.1),
    "1,024 bits": (1024, 3, 20, 10, 0.2),
    "no relevant item": (20, 3, 20, 4, 0.0),
    "all relevant": (20, 3, 20, 4, 1.0),
}


def pack_little(signs):
    """uint8[n, ceil(bits / 8)] from {-1, +1}: bit k of a code is bit k % 8 of byte k // 8."""
    packed = np.zeros((len(signs), -(-signs.shape[1] // 8)), np.uint8)
    for i, k in np.argwhere(signs > 0):
        packed[i, k // 8] |= 1 << (k % 8)
    return packed


def brute_force(query, database, query_labels, database_labels):
    """Counts pair by pair, bit by bit."""
    counts = np.zeros((len(query), query.shape[1] + 1), np.int64)
    relevant = np.zeros_like(counts)
    for i, (code, labels) in enumerate(zip(query, query_labels, strict=True)):
        for other, other_labels in zip(database, database_labels, strict=True):
            distance = sum(a != b for a, b in zip(code, other, strict=True))
            counts[i, distance] += 1
            relevant[i, distance] += any(a and b for a, b in zip(labels, other_labels, strict=True))
    return counts, relevant


def histograms(query, database, *, query_labels, database_labels, kernel, bits=None, devices=blocks.SINGLE_DEVICE, **more):
    """All items and relevant items by distance, by one of the kernels."""
    codes = hamming.prepare_codes(query, database, bits=bits)
    labels = hamming.prepare_labels(query_labels, database_labels, n_query=len(query), n_database=len(database))
    parts = hamming.histograms_by_block(*codes, labels, devices=devices, kernel=kernel, **more)
    joint = np.concatenate([part for _, part in parts])
    return joint.sum(axis=2), joint[:, :, 1:].sum(axis=2)


@pytest.mark.parametrize("kernel", hamming.KERNELS)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_histograms_equal_a_loop_over_all_pairs(size, kernel):
    """Both histograms are exact and add up to the database; some codes are equal, some opposite."""
    bits, n_query, n_database, classes, chance = size
    random = np.random.default_rng(bits)
    query = random.choice(np.array([-1, 1], np.int8), (n_query, bits))
    database = random.choice(np.array([-1, 1], np.int8), (n_database, bits))
    database[0], database[-1] = query[0], -query[-1]  # distances 0 and `bits`
    kind = np.uint8 if classes > 1 else bool  # one class of numbers might be ids
    query_labels = (random.random((n_query, classes)) < chance).astype(kind)
    database_labels = (random.random((n_database, classes)) < chance).astype(kind)
    counts, relevant = histograms(
        pack_little(query),
        pack_little(database),
        query_labels=query_labels,
        database_labels=database_labels,
        bits=bits,
        kernel=kernel,
    )
    expected_counts, expected_relevant = brute_force(query, database, query_labels, database_labels)
    np.testing.assert_array_equal(counts, expected_counts)
    np.testing.assert_array_equal(relevant, expected_relevant)
    assert counts.dtype == relevant.dtype == np.int64
    assert (counts.sum(axis=1) == n_database).all()
    if chance in (0, 1):
        assert (relevant.sum(axis=1) == chance * n_database).all()


def test_a_label_in_each_column_alone_makes_relevant():
    """Query and item that share only label k are relevant for each k of 70, and those of other labels are not."""
    classes = 70
    codes, labels = np.zeros((classes, 2), np.uint8), np.eye(classes, dtype=np.uint8)
    counts, relevant = hamming.distance_histograms(codes, codes, query_labels=labels, database_labels=labels, bits=16)
    assert (counts[:, 0] == classes).all()
    assert (relevant[:, 0] == 1).all()


@pytest.mark.parametrize("kernel", hamming.KERNELS)
def test_class_ids_equal_one_hot_labels(kernel):
    """Ids and the same labels as one-hot rows give the same histograms; an id that no query has is relevant to none."""
    random = np.random.default_rng(0)
    query, database = random.choice([-1.0, 1.0], (9, 20)), random.choice([-1.0, 1.0], (51, 20))
    query_ids, database_ids = random.integers(0, 5, 9), random.integers(0, 7, 51)
    found = histograms(query, database, query_labels=query_ids, database_labels=database_ids, kernel=kernel)
    one_hot = np.eye(7)
    expected = histograms(
        query,
        database,
        query_labels=one_hot[query_ids],
        database_labels=one_hot[database_ids],
        kernel=kernel,
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[1].sum(axis=1), (query_ids[:, None] == database_ids).sum(axis=1))


def problem(*, n_query, n_database, bits=13, classes=4, seed=0):
    """Random codes and multi-hot labels, and their histograms by whole matrices."""
    random = np.random.default_rng(seed)
    query, database = random.choice([-1, 1], (n_query, bits)), random.choice([-1, 1], (n_database, bits))
    query_labels, database_labels = random.random((n_query, classes)) < 0.3, random.random((n_database, classes)) < 0.3
    distances = (bits - query @ database.T) // 2
    relevant = query_labels.astype(int) @ database_labels.T.astype(int) > 0
    at = distances[:, None, :] == np.arange(bits + 1)[:, None]
    expected = at.sum(axis=2), (at & relevant[:, None, :]).sum(axis=2)
    labels = {"query_labels": query_labels, "database_labels": database_labels}
    return (query, database), labels, expected


@pytest.mark.parametrize("kernel", hamming.KERNELS)
@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("ids", [False, True])
def test_devices_and_blocks_do_not_change_a_count(devices, kernel, ids):
    """Three queries at a time, databases that no number of devices or blocks divides, in one chunk or several."""
    devices = ShardedDatabase(jax.devices()[:devices])
    for n_database, items, block in ((1, 1 << 20, 8192), (37, 1 << 20, 8192), (37, 1 << 20, 3), (101, 10, 5), (101, 8, 8)):
        codes, labels, (counts, relevant) = problem(n_query=7, n_database=n_database)
        if ids:
            labels = {"query_labels": np.arange(7) % 3, "database_labels": np.arange(n_database) % 4}
            same = labels["query_labels"][:, None] == labels["database_labels"]
            distances = (13 - codes[0] @ codes[1].T) // 2
            relevant = ((distances[:, None, :] == np.arange(14)[:, None]) & same[:, None, :]).sum(axis=2)
        found = histograms(*codes, **labels, kernel=kernel, devices=devices, limits=blocks.Limits(3, items, block))
        np.testing.assert_array_equal(found, (counts, relevant))


@pytest.mark.parametrize("kernel", hamming.KERNELS)
def test_more_items_of_a_distance_than_bfloat16_counts(kernel):
    """Of 601 equal items each is counted: bfloat16 has no 257."""
    codes, labels = np.ones((1, 8), np.int8), np.zeros(1, int)
    many = {"query_labels": labels, "database_labels": np.zeros(601, int)}
    counts, relevant = histograms(codes, codes.repeat(601, axis=0), **many, kernel=kernel)
    assert counts[0].tolist() == relevant[0].tolist() == [601, *[0] * 8]


@pytest.mark.parametrize("shared", [0, 1, 2, 3])
def test_more_items_in_a_block_than_half_a_word_counts(shared):
    """Of 70,000 equal items each is counted, whether the number of labels that they share is even or odd."""
    codes, labels = np.ones((1, 8), np.int8), np.ones((1, 3), np.uint8)
    sides = hamming.prepare_codes(codes, codes.repeat(70_000, axis=0), bits=None)
    of_items = np.tile(np.arange(3) < shared, (70_000, 1)).astype(np.uint8)
    both = hamming.prepare_labels(labels, of_items, n_query=1, n_database=70_000)
    limits = blocks.Limits(block=1 << 20)
    for kernel in hamming.KERNELS:
        ((_, counts),) = hamming.histograms_by_block(*sides, both, devices=blocks.SINGLE_DEVICE, limits=limits, kernel=kernel)
        assert counts.sum() == counts[0, 0, shared] == 70_000


def test_many_bins_make_blocks_of_fewer_queries():
    """The counts stay the same if the bins of two queries fill the bound, or those of one exceed it."""
    codes, labels, expected = problem(n_query=7, n_database=20)
    for bins in (14 * 5 * 2, 1):
        found = hamming.distance_histograms(*codes, **labels, limits=blocks.Limits(bins=bins))
        np.testing.assert_array_equal(found, expected)


def test_progress_adds_up_to_all_pairs():
    """Over blocks of 3, 3 and 1 queries, and over chunks of the database, each pair is counted once."""
    limits = blocks.Limits(queries=3, items=8, block=4)
    codes, labels, _ = problem(n_query=7, n_database=21)
    sides = hamming.prepare_codes(*codes, bits=None)
    own = hamming.prepare_labels(*labels.values(), n_query=7, n_database=21)
    progress = []
    for _ in hamming.histograms_by_block(*sides, own, devices=blocks.SINGLE_DEVICE, limits=limits, on_progress=progress.append):
        pass
    assert sum(progress) == 7 * 21
    assert len(progress) > 3


def test_mapped_files_give_the_same(tmp_path):
    """Read-only maps of .npy files, codes and labels."""
    codes, labels, expected = problem(n_query=5, n_database=30)
    mapped = []
    for i, array in enumerate((*codes, *labels.values())):
        np.save(tmp_path / f"{i}.npy", array)
        mapped.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r"))
        assert isinstance(mapped[-1], np.memmap)
    found = hamming.distance_histograms(*mapped[:2], query_labels=mapped[2], database_labels=mapped[3])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("kernel", hamming.KERNELS)
@pytest.mark.parametrize("ids", [False, True])
def test_can_be_lowered_for_accelerators(platform, kernel, ids):
    """XLA lowers the program for platforms that this machine lacks, from shapes alone."""
    function = partial(hamming._histograms, bits=48, grades=2, block=64, kernel=kernel, ids=ids)
    label = jnp.int32 if ids else jnp.uint32
    query = jax.ShapeDtypeStruct((2, 20), jnp.uint32), jax.ShapeDtypeStruct((1, 20), label)
    database = jax.ShapeDtypeStruct((2, 256), jnp.uint32), jax.ShapeDtypeStruct((1, 256), label)
    exported = jax.export.export(jax.jit(function), platforms=[platform])(query, database)
    assert exported.platforms == (platform,)
    assert [(out.shape, out.dtype) for out in exported.out_avals] == [((20, 98), jnp.int32)]


def test_an_unknown_kernel_is_refused():
    """The message names those there are."""
    codes, labels, _ = problem(n_query=1, n_database=1)
    with pytest.raises(ValueError, match="kernel='magic': expected one of popcount, matmul, comparison"):
        histograms(*codes, **labels, kernel="magic")


GOOD = {
    "query_codes": np.zeros((2, 3), np.uint8),
    "database_codes": np.zeros((5, 3), np.uint8),
    "query_labels": np.ones((2, 4), np.uint8),
    "database_labels": np.ones((5, 4), np.uint8),
    "bits": 24,
}
BAD = {
    "codes of another width": ({"bits": 25}, r"packed, uint8\[n, 4\] for 25 bits"),
    "a narrow database": ({"database_codes": np.zeros((5, 2), np.uint8)}, "expected database codes packed"),
    "a label row missing": ({"database_labels": np.ones((4, 4), np.uint8)}, "database labels have 4 rows for 5 codes"),
    "query labels as ids": ({"query_labels": np.ones(2, np.uint8)}, "both must be class ids"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
def test_shapes_that_do_not_fit_are_refused(change, message):
    """The message names the array and what was expected; the same call without the change works."""
    hamming.distance_histograms(**GOOD)
    with pytest.raises(InputError, match=message):
        hamming.distance_histograms(**{**GOOD, **change})
