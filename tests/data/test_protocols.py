"""Protocols: sizes, disjoint parts, balance, seeds, and a hash that tells any two splits apart."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsq_jax.data import protocols, sources
from adsq_jax.data.protocols import Protocol, Split
from adsq_jax.errors import InputError

# The field's sizes: query, training set, database, whether the database holds the training set, cutoff.
PUBLISHED = {
    "cifar10": (1_000, 5_000, 54_000, False, "all"),
    "cifar10-1": (1_000, 5_000, 59_000, True, "all"),
    "cifar10-2": (10_000, 50_000, 50_000, True, "all"),
    "digits": (100, 1_000, 1_697, True, "all"),
    "fashion_mnist": (1_000, 5_000, 69_000, True, "all"),
    "imagenet100": (5_000, 13_000, 128_503, True, "1000"),
    "nuswide": (2_100, 10_500, 193_734, True, "5000"),
    "nuswide-81": (5_000, 10_000, 223_496 - 5_000, True, "5000"),
}
IMAGES = {"cifar10": 60_000, "cifar10-1": 60_000, "cifar10-2": 60_000, "fashion_mnist": 70_000}


@st.composite
def balanced_cases(draw):
    """Labels of one class each, a protocol that fits them, and a seed."""
    classes = draw(st.integers(2, 5))
    query, train = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    counts = [query + train + draw(st.integers(0, 5)) for _ in range(classes)]
    ids = np.random.default_rng(draw(st.integers(0, 99))).permutation(np.repeat(np.arange(classes), counts))
    holds_train = draw(st.booleans())
    n_database = len(ids) - classes * (query if holds_train else query + train)
    protocol = Protocol(classes * query, classes * train, n_database, holds_train, "all")
    return sources.one_hot(ids, classes=classes), protocol, draw(st.integers(0, 2**32 - 1))


def labels_of_classes(*counts):
    return sources.one_hot(np.repeat(np.arange(len(counts)), counts), classes=len(counts))


def parts_of(split):
    return [set(rows.tolist()) for rows in split]


@pytest.mark.parametrize("name", [*PUBLISHED, *(protocols.PROTOCOLS.keys() - PUBLISHED.keys())])
def test_published_sizes(name):
    """Each protocol has the sizes and the cutoff that the field publishes, and no other protocol is there."""
    assert protocols.PROTOCOLS[name] == PUBLISHED[name]


@given(balanced_cases())
def test_split_is_what_the_protocol_says(case):
    """Sizes, rows that ascend, parts that don't meet, as many of each class, and the whole source in use."""
    labels, protocol, seed = case
    split = protocols.split_by_class(labels, protocol, seed=seed)
    query, train, database = parts_of(split)
    assert (len(query), len(train), len(database)) == protocol[:3]
    assert all((np.diff(rows) > 0).all() for rows in split)
    assert not query & (train | database)
    assert (train <= database) if protocol.database_holds_train else not train & database
    assert query | train | database == set(range(len(labels)))
    classes = labels.shape[1]
    assert labels[split.query].sum(axis=0).tolist() == [protocol.n_query // classes] * classes
    assert labels[split.train].sum(axis=0).tolist() == [protocol.n_train // classes] * classes


@given(balanced_cases())
def test_a_seed_fixes_the_split(case):
    """The same seed gives the same split."""
    labels, protocol, seed = case
    first, second = (protocols.split_by_class(labels, protocol, seed=seed) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_seeds_give_other_splits():
    """Twenty seeds give twenty different sets of queries and of training images."""
    labels = labels_of_classes(50, 50)
    splits = [protocols.split_by_class(labels, Protocol(20, 40, 80, True, "all"), seed=seed) for seed in range(20)]
    assert len({split.query.tobytes() for split in splits}) == 20
    assert len({split.train.tobytes() for split in splits}) == 20


def test_every_image_can_become_a_query():
    """The draw is uniform: over 2,000 seeds each of 10 images of a class is a query 600 times, give or take 5 deviations."""
    labels = labels_of_classes(10, 10)
    protocol = Protocol(6, 8, 14, True, "all")
    drawn = np.concatenate([protocols.split_by_class(labels, protocol, seed=seed).query for seed in range(2_000)])
    assert np.abs(np.bincount(drawn, minlength=20) - 600).max() < 5 * np.sqrt(2_000 * 0.3 * 0.7)


@pytest.mark.parametrize("name", IMAGES)
def test_real_sizes(name):
    """The published data set's class counts and the protocol fit one another, number for number."""
    classes = labels_of_classes(*[IMAGES[name] // 10] * 10)
    if name == "cifar10-2":  # its database is the training set: the 50,000 images that are no queries
        assert protocols.PROTOCOLS[name].n_train == protocols.PROTOCOLS[name].n_database
    split = protocols.split_by_class(classes, protocols.PROTOCOLS[name], seed=0)
    assert tuple(len(rows) for rows in split) == PUBLISHED[name][:3]


def test_real_digits():
    """The real digits, whose classes have 174 to 183 images, divide into 100, 1,000 and 1,697."""
    split = protocols.split_by_class(sources.digits().labels, protocols.PROTOCOLS["digits"], seed=0)
    assert tuple(len(rows) for rows in split) == (100, 1_000, 1_697)


def test_class_too_small():
    """A class with too few images is named, with its number and the protocol's."""
    with pytest.raises(InputError, match=r"class 1 has 6 images.* 3 queries and 4 training images") as caught:
        protocols.split_by_class(labels_of_classes(9, 6), Protocol(6, 8, 9, True, "all"), seed=0)
    assert "\n" not in str(caught.value)


def test_class_just_large_enough():
    """A class that has exactly the images that are wanted will do."""
    split = protocols.split_by_class(labels_of_classes(9, 7), Protocol(6, 8, 10, True, "all"), seed=0)
    assert len(split.database) == 10


@pytest.mark.parametrize("row", [[1, 1], [0, 0]])
def test_several_labels_or_none(row):
    """An image of two classes, or of none, is refused by a protocol of single classes."""
    labels = labels_of_classes(5, 5)
    labels[3] = row
    with pytest.raises(InputError, match="exactly one class"):
        protocols.split_by_class(labels, Protocol(2, 4, 8, True, "all"), seed=0)


@pytest.mark.parametrize("wanted", [(3, 4, 8), (2, 5, 8), (2, 4, 9), (2, 4, 7)])
def test_sizes_that_differ(wanted):
    """Data that don't give the protocol's sizes are refused, with both."""
    with pytest.raises(InputError, match="isn't the published one") as caught:
        protocols.split_by_class(labels_of_classes(5, 5), Protocol(*wanted, True, "all"), seed=0)
    assert str(wanted) in str(caught.value)
    assert "(2, 4, 8)" in str(caught.value)


@pytest.mark.parametrize("part", ["train", "database"])
def test_a_query_elsewhere(part):
    """A query that stands in the training set or the database too is refused, and the part is named."""
    split = Split(np.array([0, 1]), np.array([2, 3]), np.array([2, 3, 4]))
    protocols.check(split, Protocol(2, 2, 3, True, "all"))
    shared = split._replace(**{part: np.array([1, *getattr(split, part)[1:]])})
    with pytest.raises(InputError, match=f"1 queries are in the {part} part"):
        protocols.check(shared, Protocol(2, 2, 3, True, "all"))


@given(balanced_cases(), st.data())
def test_hold_out_divides_the_training_set(case, data):
    """Held-out queries, held-out database and what remains are the training set; no other image is touched."""
    labels, protocol, seed = case
    split = protocols.split_by_class(labels, protocol, seed=seed)
    if len(split.train) < 3:
        return
    validation = data.draw(st.integers(2, len(split.train) - 1))
    held = protocols.hold_out(split, validation=validation, seed=seed)
    query, train, database = parts_of(held)
    assert (len(query), len(database)) == (validation // 2, validation - validation // 2)
    assert len(query) + len(train) + len(database) == len(split.train)
    assert query | train | database == set(split.train.tolist())
    assert all((np.diff(rows) > 0).all() for rows in held)
    again = protocols.hold_out(split, validation=validation, seed=seed)
    assert parts_of(again) == parts_of(held)


def test_hold_out_depends_on_the_seed():
    """Another seed holds out other images."""
    split = Split(np.array([0]), np.arange(1, 101), np.arange(1, 120))
    held = [protocols.hold_out(split, validation=40, seed=seed).query.tobytes() for seed in range(10)]
    assert len(set(held)) == 10


@pytest.mark.parametrize("validation", [-1, 1, 6, 7])
def test_hold_out_too_many_or_too_few(validation):
    """Nothing to query with, or nothing left to train on, is an error that says what may be given."""
    with pytest.raises(InputError, match="give 2 to 5"):
        protocols.hold_out(Split(np.array([0]), np.arange(1, 7), np.arange(1, 9)), validation=validation, seed=0)


LABELS = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.uint8)
TINY = Split(np.array([0]), np.array([1, 2]), np.array([1, 2, 3]))


def test_hash_of_a_tiny_example():
    """The hash is what a shell's sha256sum gives for these bytes, and stays so from version to version."""
    rows = [b"\1" + bytes(7) + b"\0" + bytes(7), b"\2" + bytes(7) + b"\1" + bytes(7) + b"\2" + bytes(7)]
    rows.append(b"\3" + bytes(7) + b"".join(bytes([k]) + bytes(7) for k in (1, 2, 3)))
    content = b'{"protocol": "digits", "labels": [4, 2]}' + b"\x80\x40\x80\x40" + b"".join(rows)
    found = protocols.sha256(TINY, name="digits", labels=LABELS)
    assert found == hashlib.sha256(content).hexdigest()
    assert found == "b3fba0e8bc91a1a8e5918a98d33f65c22533fbf2d113a47470b250d6c5534fec"


OTHER_LABEL = np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.uint8)
CHANGES = {
    "nothing": (TINY, "digits", LABELS),
    "protocol": (TINY, "cifar10", LABELS),
    "a query": (TINY._replace(query=np.array([3])), "digits", LABELS),
    "a training image": (TINY._replace(train=np.array([1, 3])), "digits", LABELS),
    "a database row": (TINY._replace(database=np.array([0, 2, 3])), "digits", LABELS),
    "order": (TINY._replace(database=np.array([2, 1, 3])), "digits", LABELS),
    "a row moved to the next part": (Split(np.array([0, 1]), np.array([2]), np.array([1, 2, 3])), "digits", LABELS),
    "a label": (TINY, "digits", OTHER_LABEL),
    "order of the source": (TINY, "digits", LABELS[::-1]),
    "a class more": (TINY, "digits", np.pad(LABELS, ((0, 0), (0, 1)))),
    "an image more": (TINY, "digits", np.pad(LABELS, ((0, 1), (0, 0)))),
}


def test_hash_tells_splits_apart():
    """Any change of the protocol's name, of a row, of the order, or of one label changes the hash."""
    hashes = {what: protocols.sha256(split, name=name, labels=labels) for what, (split, name, labels) in CHANGES.items()}
    assert len(set(hashes.values())) == len(CHANGES)


def test_hash_is_of_values():
    """Rows of another integer type have the same hash."""
    narrow = Split(*(rows.astype(np.int32) for rows in TINY))
    assert protocols.sha256(narrow, name="digits", labels=LABELS) == protocols.sha256(TINY, name="digits", labels=LABELS)
