"""Labels in few bytes: in every way that one asks, the answers of a plain array of zeros and ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adsq_jax.data import labels as labels_module
from adsq_jax.data.labels import Labels


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Blocks of a few rows, so that most examples have several."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(labels_module, "_BLOCK", 3)
        yield


sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))
multi_hot = hnp.arrays(np.uint8, sizes, elements=st.integers(0, 1))
one_hot = sizes.flatmap(
    lambda size: st.lists(st.integers(0, size[1] - 1), min_size=size[0], max_size=size[0]).map(
        lambda ids: np.array([[int(k == i) for k in range(size[1])] for i in ids], np.uint8)
    )
)
plain = st.one_of(multi_hot, one_hot)  # uint8[n, c]


def rows_for(data, array, **options):
    return np.array(data.draw(st.lists(st.integers(0, len(array) - 1), max_size=30)), np.int64, **options)


def ids_of(array):
    """Class ids by hand, or None."""
    found = [[k for k, value in enumerate(row) if value] for row in array.tolist()]
    return [row[0] for row in found] if all(len(row) == 1 for row in found) else None


def check(found, expected, dtype):
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    assert found.shape == np.shape(expected)


@given(plain)
def test_round_trip(array):
    """The rows that went in come out, and their number, and that of the classes."""
    labels = Labels.from_multi_hot(array)
    check(labels[:], array, np.uint8)
    assert labels.shape == array.shape
    assert len(labels) == len(array)
    assert labels.classes == array.shape[1]


@given(plain)
def test_packed(array):
    """Bits, the first class in the highest, are the same labels as the rows that they were made of."""
    packed = [
        [int("".join(map(str, row[k : k + 8])).ljust(8, "0"), 2) for k in range(0, len(row), 8)] for row in array.tolist()
    ]
    labels = Labels.from_packed(np.array(packed, np.uint8), classes=array.shape[1])
    check(labels[:], array, np.uint8)
    assert labels.single == Labels.from_multi_hot(array).single


@given(st.lists(st.integers(0, 400), max_size=40), st.integers(0, 300))
def test_ids(ids, more):
    """Class ids, of any number of classes, are rows with one 1."""
    classes = max([0, *ids]) + 1 + more
    labels = Labels.from_ids(np.array(ids, np.int64), classes=classes)
    assert labels.single
    check(labels[:], [[int(k == i) for k in range(classes)] for i in ids] or np.zeros((0, classes)), np.uint8)
    check(labels.ids(np.arange(len(ids))), ids, np.int64)


@pytest.mark.parametrize("classes", [1, 2, 255, 256, 257, 65_535, 65_536, 65_537])
def test_ids_at_the_edges(classes):
    """The last class is found where the bytes of an id just suffice, or just don't."""
    labels = Labels.from_ids(np.array([classes - 1, 0]), classes=classes)
    check(labels.ids(np.arange(2)), [classes - 1, 0], np.int64)
    assert labels[0].sum() == labels[0, ...][classes - 1] == 1 if classes > 1 else labels[0][0] == 1
    np.testing.assert_array_equal(labels.members(classes - 1), [0] if classes > 1 else [0, 1])
    assert labels.nbytes == 2 * (1 if classes <= 256 else 2 if classes <= 65_536 else 4)


@given(plain, st.data())
def test_index(array, data):
    """One row, some rows in any order, a slice, and a mask give what the array gives."""
    labels = Labels.from_multi_hot(array)
    for index in (
        data.draw(st.integers(-len(array), len(array) - 1)),
        np.int64(data.draw(st.integers(0, len(array) - 1))),
        rows_for(data, array),
        data.draw(st.slices(len(array))),
        data.draw(hnp.arrays(bool, len(array))),
    ):
        check(labels[index], array[index], np.uint8)


@given(plain, st.data())
def test_single_and_ids(array, data):
    """Labels are single exactly if each row has one; ids of some rows are there exactly if each of those has."""
    labels = Labels.from_multi_hot(array)
    assert labels.single == (ids_of(array) is not None)
    rows = rows_for(data, array)
    expected = ids_of(array[rows])
    if expected is None:
        assert labels.ids(rows) is None
    else:
        check(labels.ids(rows), expected, np.int64)


@given(plain)
def test_members(array):
    """Members of each class are the rows with a 1 in its column, in order."""
    labels = Labels.from_multi_hot(array)
    for k in range(array.shape[1]):
        check(labels.members(k), [i for i, row in enumerate(array.tolist()) if row[k]], np.int64)


@given(plain, st.data())
def test_counts(array, data):
    """Labels an image and images a class are the sums of rows and columns, of all images or of some."""
    labels = Labels.from_multi_hot(array)
    rows = rows_for(data, array)
    check(labels.per_image(), array.sum(axis=1), np.int64)
    check(labels.per_class(), array.sum(axis=0), np.int64)
    check(labels.per_image(rows), array[rows].sum(axis=1), np.int64)
    check(labels.per_class(rows), array[rows].sum(axis=0), np.int64)


@given(plain, st.data())
def test_blocks(array, data):
    """Blocks, of three rows here, are together all rows, or those asked for, each once and in order."""
    labels = Labels.from_multi_hot(array)
    rows = rows_for(data, array)
    for blocks, expected in ((list(labels.blocks()), array), (list(labels.blocks(rows)), array[rows])):
        assert [len(block) for block in blocks] == [3] * (len(expected) // 3) + [len(expected) % 3] * (len(expected) % 3 > 0)
        check(np.concatenate([np.zeros((0, array.shape[1]), np.uint8), *blocks]), expected, np.uint8)


@given(plain, st.data())
def test_of_classes(array, data):
    """Some of the classes, in any order, are those columns."""
    classes = np.array(data.draw(st.lists(st.integers(0, array.shape[1] - 1), min_size=1, unique=True)))
    check(Labels.from_multi_hot(array).select_classes(classes)[:], array[:, classes], np.uint8)


@given(plain, st.data())
def test_of_rows(array, data):
    """Some of the images, in any order, are those rows."""
    rows = rows_for(data, array)
    check(Labels.from_multi_hot(array).take(rows)[:], array[rows], np.uint8)


@given(plain, st.data())
def test_memory(array, data):
    """A row takes a bit a class, rounded up to bytes, or the bytes of an id, whichever way it was made."""
    n, classes = array.shape
    bits = -(-classes // 8)
    made = Labels.from_multi_hot(array)
    assert made.nbytes == n * (1 if made.single else bits)
    rows = rows_for(data, array)
    assert made.take(rows).nbytes == len(rows) * (1 if made.single else bits)
    assert made.select_classes(np.arange(classes)).nbytes <= n * bits


def test_nus_wide_fits():
    """NUS-WIDE's 269,648 images with 81 labels take 11 bytes each, ImageNet's ids with 1,000 classes two."""
    assert Labels.from_multi_hot(np.ones((2696, 81), np.uint8)).nbytes == 2696 * 11
    assert Labels.from_ids(np.zeros(1000, np.int64), classes=1000).nbytes == 2000


@pytest.mark.parametrize("classes", [0, 1, 9])
def test_no_images(classes):
    """Labels of no image answer every question, with nothing."""
    labels = Labels.from_multi_hot(np.zeros((0, classes), np.uint8))
    assert labels.shape == labels[:].shape == (0, classes)
    none = np.zeros(0, np.int64)
    for found in (labels.per_image(), labels.ids(none), labels.members(0)):
        check(found, none, np.int64)
    check(labels.per_class(), np.zeros(classes), np.int64)
    assert labels.take(none).shape == (0, classes)
    assert list(labels.blocks()) == []
    assert labels.select_classes(np.arange(classes)).shape == (0, classes)


@pytest.mark.parametrize(("ids", "classes"), [([0, 3], 3), ([-1, 2], 3), ([256], 256), ([0], 0), ([2**40], 10)])
def test_ids_out_of_range(ids, classes):
    """An id below 0 or beyond the classes is refused, with what was found."""
    with pytest.raises(ValueError, match=rf"0 to {classes - 1}, got {min(ids)} to {max(ids)}"):
        Labels.from_ids(np.array(ids), classes=classes)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), np.int64),
        np.zeros((2, 3), bool),
        np.zeros((2, 3), np.float32),
        np.zeros(3, np.uint8),
        np.zeros((2, 3, 1), np.uint8),
        np.full((2, 3), 2, np.uint8),
    ],
)
def test_no_multi_hot(array):
    """Another shape, dtype or value than rows of 0 and 1 is refused, with what was found."""
    with pytest.raises(ValueError, match=r"expected labels uint8\[n, c\].*got "):
        Labels.from_multi_hot(array)


def test_other_stays_as_it_was():
    """Labels keep their own copy: what was given may change afterwards."""
    array = np.eye(4, dtype=np.uint8)[[0, 1, 2, 2]]
    ids = np.array([0, 1, 2, 2], np.uint8)
    made = Labels.from_multi_hot(array), Labels.from_ids(ids, classes=4)
    array[:], ids[:] = 0, 3
    for labels in made:
        check(labels.ids(np.arange(4)), [0, 1, 2, 2], np.int64)
