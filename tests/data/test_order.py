"""The order of training: grain's own, for any number of images, and random generators as grain's."""

import itertools

import grain
import numpy as np
import pytest
from grain.experimental import index_shuffle
from hypothesis import given, settings
from hypothesis import strategies as st

from adsq_jax.data.order import InOrder, Order, shuffled


@settings(max_examples=30)
@given(st.integers(1, 300_000).filter(lambda n: n not in (65_537, 262_145)), st.integers(0, 2**32 - 1))
def test_order_is_grains(n, seed):
    """A shuffled pass is what grain's `index_shuffle` gives for each place."""
    places = np.unique(np.linspace(0, n - 1, 20, dtype=int)).tolist()
    expected = [index_shuffle(place, max_index=n - 1, seed=seed, rounds=4) for place in places]
    assert shuffled(n, seed=seed)[places].tolist() == expected


@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 257, 65_535, 65_536, 65_537, 65_538, 262_144, 262_145, 262_146])
def test_order_at_powers_of_two(n):
    """That is so where the cipher's size changes, and all images come; for 2**k + 1 grain leaves one out."""
    order = shuffled(n, seed=7)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    if n not in (65_537, 262_145):
        for place in {0, n // 2, n - 1}:
            assert order[place] == index_shuffle(place, max_index=n - 1, seed=7, rounds=4)


def draws(order, steps):
    """Of each step, the images and a first number of each generator."""
    made = []
    for step in steps:
        index, numbers = order.batch(step)
        made.append(list(zip(index.tolist(), [random.random() for random in order.generators(numbers)], strict=True)))
    return made


@pytest.mark.parametrize(("n", "batch_size", "processes"), [(20, 6, 1), (20, 6, 3), (7, 7, 1), (50, 8, 2), (3, 1, 1)])
def test_batches_and_random_numbers_are_grains(n, batch_size, processes):
    """Over several passes, each process's batches and generators are those of grain's transformations."""
    for process, seed in itertools.product(range(processes), (0, 3)):
        dataset = grain.MapDataset.range(n).seed(seed).shuffle().random_map(lambda index, rng: (index, rng.random()))
        dataset = dataset[process : n // batch_size * batch_size : processes].batch(batch_size // processes, batch_fn=list)
        order = Order(n, seed=seed, batch_size=batch_size, process=process, processes=processes)
        assert draws(order, range(12)) == [dataset.repeat()[step] for step in range(12)]


@pytest.mark.parametrize("start", [0, 4, 19])
def test_random_numbers_in_order_are_grains(start):
    """In order, each image has the generator of its place, wherever the first batch begins; the last batch is shorter."""
    dataset = grain.MapDataset.range(20).seed(5).random_map(lambda index, rng: (index, rng.random()))
    expected = dataset[start:].batch(6, drop_remainder=False, batch_fn=list)
    assert draws(InOrder(20, seed=5, batch_size=6, start=start), range(len(expected))) == list(expected)
