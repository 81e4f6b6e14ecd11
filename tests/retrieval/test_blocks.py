"""Blocks of queries and of the database cover every row once, equal in size and within their bounds."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsq_jax.devices.sharded_database import ShardedDatabase
from adsq_jax.retrieval import blocks, distance_histograms, measure, search


@settings(max_examples=200)
@given(st.integers(1, 300), st.integers(0, 60), st.integers(1, 40))
def test_blocks_of_queries_cover_each_query_once(size, most, bound):
    """Slices follow one another from 0 to the end, none above the bounds; all have one padded size."""
    parts = list(blocks.query_blocks(size, most=most, limits=blocks.Limits(queries=bound)))
    covered = [i for part, _ in parts for i in range(part.start, part.stop)]
    assert covered == list(range(size))
    sizes = {rows for _, rows in parts}
    assert len(sizes) == 1
    rows = sizes.pop()
    assert rows <= max(1, min(bound, most))
    assert all(part.stop - part.start == rows for part, _ in parts[:-1])
    assert len(parts) <= -(-size // max(1, min(bound, most)))


@settings(max_examples=200)
@given(st.integers(1, 400), st.integers(1, 10), st.integers(1, 6), st.integers(1, 4))
def test_chunks_of_a_database_cover_each_item_once(size, block, blocks_held, devices):
    """Chunks follow one another, all with one size and block, whole blocks on each device, within what a device may hold."""
    limits = blocks.Limits(items=block * blocks_held, block=block)
    chunks = list(blocks.database_chunks(size, devices=ShardedDatabase(jax.devices()[:devices]), limits=limits))
    covered = [i for chunk in chunks for i in range(chunk.start, chunk.stop)]
    assert covered == list(range(size))
    assert len({(chunk.padded_rows, chunk.block) for chunk in chunks}) == 1
    for chunk in chunks:
        assert chunk.start < chunk.stop <= chunk.start + chunk.padded_rows
        assert chunk.padded_rows % (devices * chunk.block) == 0
        assert chunk.block <= block
        assert chunk.padded_rows // devices <= block * blocks_held
    assert len(chunks) <= -(-size // (block * blocks_held * devices))


class OneOfSeveral(blocks.SingleDevice):
    """One process of several, with a given range of rows; it keeps account of what it would exchange with the others."""

    def __init__(self, start, stop):
        super().__init__()
        self._rows, self.gathered = (start, stop), []

    def gather(self, array):
        """Alone."""
        self.gathered.append(array.shape)
        return super().gather(array)

    def local_range(self, size):
        """The rows given, whatever the size."""
        return self._rows


def test_chunks_cover_the_rows_of_one_process():
    """Rows 10 to 35 of a database; no chunk if the range is empty."""
    chunks = list(blocks.database_chunks(100, devices=OneOfSeveral(10, 35), limits=blocks.Limits(items=8, block=4)))
    assert [i for chunk in chunks for i in range(chunk.start, chunk.stop)] == list(range(10, 35))
    assert list(blocks.database_chunks(100, devices=OneOfSeveral(100, 100))) == []


@pytest.mark.parametrize("parts", [(0, 3, 3), (0, 8, 12, 12), (0, 20, 30), (0, 7)])
def test_processes_exchange_arrays_of_one_shape(parts):
    """Whether a process has no row, one chunk or several, it cuts the queries as the others do, and the counts add up."""
    random = np.random.default_rng(0)
    query, database = random.choice([-1, 1], (600, 4)), random.choice([-1, 1], (parts[-1], 4))
    labels = {"query_labels": np.arange(600) % 2, "database_labels": np.arange(parts[-1]) % 2}
    processes = [OneOfSeveral(*rows) for rows in itertools.pairwise(parts)]
    limits = blocks.Limits(items=8, block=4)
    found = [distance_histograms(query, database, **labels, devices=process, limits=limits) for process in processes]
    assert len({tuple(process.gathered) for process in processes}) == 1
    np.testing.assert_array_equal(np.sum(found, axis=0), distance_histograms(query, database, **labels))


class Watched(blocks.SingleDevice):
    """A device that keeps account of how many queries and items it gets at a time."""

    def __init__(self):
        super().__init__()
        self.queries, self.items = set(), set()

    def shard(self, words):
        """Items."""
        self.items.add(words.shape[1])
        return super().shard(words)

    def replicate(self, words):
        """Queries."""
        self.queries.add(words.shape[1])
        return super().replicate(words)


@pytest.mark.parametrize("function", [search, distance_histograms, measure])
def test_devices_get_no_more_than_the_limits(function):
    """At most so many queries and items at a time; fewer queries if each wants many neighbours, or has many bins."""
    random = np.random.default_rng(0)
    query, database = random.choice([-1, 1], (9, 4)), random.choice([-1, 1], (50, 4))
    labels = {"query_labels": np.arange(9) % 2, "database_labels": np.arange(50) % 2}
    more = {"k": 5} if function is search else labels
    for limits, queries, items in (
        (blocks.Limits(), {9}, {50}),
        (blocks.Limits(queries=5, items=10, block=5), {5}, {10}),
        (blocks.Limits(neighbors=15, bins=3 * 5 * 2), {3}, {50}),
    ):
        watched = Watched()
        function(query, database, **more, devices=watched, limits=limits)
        assert (watched.queries, watched.items) == (queries, items)


@settings(max_examples=50)
@given(st.integers(1, 3), st.integers(0, 9), st.integers(0, 9), st.sampled_from([np.int32, np.uint32, np.int64]))
def test_padding_keeps_the_columns(words, n, more, dtype):
    """The given columns stay, the others hold the value, a number or a column; the dtype stays."""
    array = np.arange(words * n, dtype=dtype).reshape(words, n)
    column = np.arange(7, 7 + words, dtype=dtype)[:, None]
    for value, expected in ((0, 0), (5, 5), (column, column)):
        found = blocks.pad(array, n + more, value=value)
        assert found.dtype == dtype
        assert found.shape == (words, n + more)
        np.testing.assert_array_equal(found[:, :n], array)
        assert (found[:, n:] == expected).all()
