"""Protocols: sizes, disjoint parts, balance, seeds, lists, overlaps, and a hash that tells any two splits apart."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsq_jax.data import protocols, splits
from adsq_jax.data.labels import Labels
from adsq_jax.data.protocols import Protocol
from adsq_jax.data.readers import digits
from adsq_jax.data.sources import Names, Source
from adsq_jax.data.splits import Split
from adsq_jax.errors import InputError

# The field's sizes: query, training set, database, whether the database holds the training set, cutoff; and how it is drawn.
PUBLISHED = {
    "cifar10": (1_000, 5_000, 54_000, False, "all", "by_class"),
    "cifar10-1": (1_000, 5_000, 59_000, True, "all", "by_class"),
    "cifar10-2": (10_000, 50_000, 50_000, True, "all", "by_class"),
    "coco": (5_000, 10_000, 122_218 - 5_000, True, "5000", "at_random"),
    "coco-lists": (5_000, 10_000, 112_218, True, "5000", "lists"),
    "digits": (100, 1_000, 1_697, True, "all", "by_class"),
    "fashion_mnist": (1_000, 5_000, 69_000, True, "all", "by_class"),
    "imagenet100": (5_000, 13_000, 128_503, True, "1000", "by_part"),
    "mirflickr25k": (1_000, 4_000, 25_000 - 5_000, False, "all", "at_random"),
    "nuswide": (2_100, 10_500, 195_834 - 2_100, True, "5000", "by_concept"),
    "nuswide-81": (5_000, 10_000, 223_496 - 5_000, True, "5000", "at_random"),
    "tiny_imagenet100": (100 * 50, 100 * 130, 100 * 500, True, "1000", "lists"),  # this project's
}


class Blind(Source):
    """Labels without images: what a split is drawn of."""

    def __init__(self, labels, *, names=None, parts=None):
        labels = labels if isinstance(labels, Labels) else Labels.from_multi_hot(np.asarray(labels, np.uint8))
        names = None if names is None else Names(name.encode() for name in names)
        super().__init__(labels, classes=[f"c{k}" for k in range(labels.classes)], names=names, parts=parts)

    def content(self, index):
        raise AssertionError("a draw doesn't look at images")

    def image(self, index, *, shorter_side):
        raise AssertionError("a draw doesn't look at images")


def of_counts(*counts):
    return Blind(Labels.from_ids(np.repeat(np.arange(len(counts)), counts), classes=len(counts)))


def by_class(source, *protocol, seed=0):
    return protocols.by_class(source, Protocol(*protocol, "all", "by_class"), seed=seed)


def draw(source, name, *, seed=0, query_share=0.1, train_share=1.0, **more):
    return protocols.draw(source, name, seed=seed, query_share=query_share, train_share=train_share, **more)


def parts_of(split):
    return [set(rows.tolist()) for rows in split]


def rows_of(split):
    return [rows.tolist() for rows in split]


def error_of(function, *arguments, **settings):
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@st.composite
def balanced_cases(draw):
    """A source of one class an image, sizes that fit it, and a seed."""
    classes = draw(st.integers(2, 5))
    query, train = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    counts = [query + train + draw(st.integers(0, 5)) for _ in range(classes)]
    ids = np.random.default_rng(draw(st.integers(0, 99))).permutation(np.repeat(np.arange(classes), counts))
    holds_train = draw(st.booleans())
    n_database = len(ids) - classes * (query if holds_train else query + train)
    sizes = (classes * query, classes * train, n_database, holds_train)
    return Blind(Labels.from_ids(ids, classes=classes)), sizes, draw(st.integers(0, 2**32 - 1))


# Sizes


@pytest.mark.parametrize("name", [*PUBLISHED, *(protocols.PROTOCOLS.keys() - PUBLISHED.keys())])
def test_published_sizes(name):
    """Each protocol has the sizes and the cutoff that the field publishes or its data have, and no other protocol is there."""
    assert protocols.PROTOCOLS[name] == PUBLISHED[name]
    assert protocols.PROTOCOLS[name].draw in protocols.DRAWS


def several_labels(n, classes, *, without=0, rarest=0.026):
    """Labels of n images, concepts from rare to common, at least one an image but for some without."""
    random = np.random.default_rng(7)
    labels = (random.random((n, classes)) < np.linspace(rarest, 0.3, classes)).astype(np.uint8)
    bare = np.flatnonzero(~labels.any(axis=1))
    labels[bare, random.integers(0, classes, len(bare))] = 1
    labels[random.choice(n, without, replace=False)] = 0
    return labels


def imagenet():
    """Two parts of the published lengths, and an uneven number of images a class in the first."""
    train = np.repeat(np.arange(100), np.diff(np.linspace(0, 128_503, 101).astype(int)))
    labels = Labels.from_ids(np.concatenate([train, np.repeat(np.arange(100), 50)]), classes=100)
    return Blind(labels, parts={"train": np.arange(128_503), "validation": np.arange(128_503, 133_503)})


def coco_lists():
    """Lists of the published lengths; the database is 112,218 of 117,218 images, and holds the training set."""
    parts = {"database": np.arange(112_218), "train": np.arange(100, 10_100), "query": np.arange(112_218, 117_218)}
    return Blind(several_labels(117_218, 80), parts=parts)


def tiny_imagenet_lists():
    """Lists of 500 images a class in the database, 130 of them to train on, and 50 queries a class."""
    rows = np.arange(50_000)
    parts = {"database": rows, "train": rows[rows % 500 < 130], "query": np.arange(50_000, 55_000)}
    return Blind(Labels.from_ids(np.append(rows // 500, rows[:5_000] // 50), classes=100), parts=parts)


REAL_SIZES = {
    "cifar10": lambda: of_counts(*[6_000] * 10),
    "cifar10-1": lambda: of_counts(*[6_000] * 10),
    "cifar10-2": lambda: of_counts(*[6_000] * 10),
    "coco": lambda: Blind(several_labels(122_218, 80, rarest=0.002)),
    "coco-lists": coco_lists,
    "digits": digits.read,
    "fashion_mnist": lambda: of_counts(*[7_000] * 10),
    "imagenet100": imagenet,
    "mirflickr25k": lambda: Blind(several_labels(25_000, 24, without=420)),
    "nuswide": lambda: Blind(several_labels(195_834, 21)),
    "nuswide-81": lambda: Blind(several_labels(223_496, 81, rarest=0.001)),
    "tiny_imagenet100": tiny_imagenet_lists,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_sizes(name):
    """For data of the published length, each protocol draws its published sizes: disjoint, ascending, all with labels."""
    source, wanted = REAL_SIZES[name](), PUBLISHED[name]
    split, map_at = draw(source, name)
    query, train, database = parts_of(split)
    assert (len(query), len(train), len(database)) == wanted[:3]
    assert [len(rows) for rows in split] == list(wanted[:3])
    assert map_at == wanted[4]
    assert all((np.diff(rows) > 0).all() and rows.dtype == np.int64 for rows in split)
    assert not query & (train | database)
    assert (train <= database) if wanted[3] else not train & database
    assert query | train | database == set(range(len(source)))
    per_image = source.labels[:].sum(axis=1)
    assert per_image[split.query].min() >= 1
    assert per_image[split.train].min() >= 1


@pytest.mark.parametrize("name", ["nuswide", "imagenet100", "mirflickr25k", "nuswide-81", "coco"])
def test_seeds_at_real_sizes(name):
    """The same seed gives the same split of a published size, another seed another training set."""
    source = REAL_SIZES[name]()
    splits = [draw(source, name, seed=seed)[0] for seed in (3, 3, 4)]
    assert rows_of(splits[0]) == rows_of(splits[1])
    assert splits[0].train.tolist() != splits[2].train.tolist()
    assert (splits[0].query.tolist() == splits[2].query.tolist()) == (name == "imagenet100")  # its queries are a part


def test_nus_wide_has_its_share_of_each_concept():
    """Each of the 21 concepts has at least 100 queries and 500 training images that show it, and the counts add up."""
    source = REAL_SIZES["nuswide"]()
    split, _ = draw(source, "nuswide")
    assert source.labels[split.query].sum(axis=0).min() >= 100
    assert source.labels[split.train].sum(axis=0).min() >= 500
    assert (split.query[:, None] != split.train).all()
    expected = slow_by_concept(source.labels[:], 100, 500, seed=0)
    assert rows_of(split)[:2] == expected[:2]


def test_imagenet_trains_on_130_of_each_class():
    """Each of the hundred classes gives 130 training images, all of the training part."""
    source = imagenet()
    split, _ = draw(source, "imagenet100")
    ids = np.repeat(np.arange(100), np.diff(np.linspace(0, 128_503, 101).astype(int)))
    np.testing.assert_array_equal(np.bincount(ids[split.train], minlength=100), 130)
    np.testing.assert_array_equal(split.query, np.arange(128_503, 133_503))


def test_unlabelled_images_of_mirflickr_are_in_the_database():
    """The 420 images without a label are all in the database."""
    source = REAL_SIZES["mirflickr25k"]()
    bare = np.flatnonzero(source.labels[:].sum(axis=1) == 0)
    assert len(bare) == 420
    assert set(bare.tolist()) <= set(draw(source, "mirflickr25k")[0].database.tolist())


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize(
    "name", sorted(PUBLISHED.keys() - {"cifar10-2", "coco-lists", "digits", "imagenet100", "tiny_imagenet100"})
)
def test_an_image_more_or_less(name, change):
    """With an image more or less than is published the sizes are refused, with both."""
    labels = REAL_SIZES[name]().labels
    changed = labels.take(np.arange(len(labels) + change) % len(labels))
    text = error_of(draw, Blind(changed), name)
    assert "isn't the published one" in text
    assert " / ".join(f"{size:,}" for size in PUBLISHED[name][:3]) in text


@pytest.mark.parametrize("sizes", [(3, 4, 8), (2, 5, 8), (2, 4, 9), (2, 4, 7)])
def test_sizes_that_differ(sizes):
    """Sizes other than the protocol's are refused, with both."""
    split = Split(np.arange(2), np.arange(2, 6), np.arange(2, 10))
    protocols.check_sizes(split, Protocol(2, 4, 8, True, "all", "by_class"))
    text = error_of(protocols.check_sizes, split, Protocol(*sizes, True, "all", "by_class"))
    assert "isn't the published one" in text
    assert " / ".join(map(str, sizes)) in text
    assert "2 / 4 / 8" in text


# One class an image


@given(balanced_cases())
def test_split_is_what_the_protocol_says(case):
    """Sizes, rows that ascend, parts that don't meet, as many of each class, and the whole source in use."""
    source, sizes, seed = case
    split = by_class(source, *sizes, seed=seed)
    query, train, database = parts_of(split)
    assert (len(query), len(train), len(database)) == sizes[:3]
    assert all((np.diff(rows) > 0).all() for rows in split)
    assert not query & (train | database)
    assert (train <= database) if sizes[3] else not train & database
    assert query | train | database == set(range(len(source)))
    classes = source.labels.classes
    assert source.labels[split.query].sum(axis=0).tolist() == [sizes[0] // classes] * classes
    assert source.labels[split.train].sum(axis=0).tolist() == [sizes[1] // classes] * classes


@given(balanced_cases())
def test_a_seed_fixes_the_split(case):
    """The same seed gives the same split, however the labels are stored."""
    source, sizes, seed = case
    packed = Blind(Labels(np.packbits(source.labels[:], axis=1), classes=source.labels.classes))
    again = Blind(Labels.from_packed(packed.labels._stored, classes=packed.labels.classes))
    first, second = (by_class(one, *sizes, seed=seed) for one in (source, again))
    assert rows_of(first) == rows_of(second)


def test_other_seeds_give_other_splits():
    """Twenty seeds give twenty different sets of queries and of training images."""
    splits = [by_class(of_counts(50, 50), 20, 40, 80, True, seed=seed) for seed in range(20)]
    assert len({split.query.tobytes() for split in splits}) == 20
    assert len({split.train.tobytes() for split in splits}) == 20


def test_every_image_can_become_a_query():
    """The draw is uniform: over 2,000 seeds each of 10 images of a class is a query 600 times, give or take 5 deviations."""
    source = of_counts(10, 10)
    drawn = np.concatenate([by_class(source, 6, 8, 14, True, seed=seed).query for seed in range(2_000)])
    assert np.abs(np.bincount(drawn, minlength=20) - 600).max() < 5 * np.sqrt(2_000 * 0.3 * 0.7)


def test_class_too_small():
    """A class with too few images is named, with its number and the protocol's."""
    text = error_of(by_class, of_counts(9, 6), 6, 8, 9, True)
    assert "class c1 has 6 images to draw from" in text
    assert "3 queries and 4 training images" in text


def test_class_just_large_enough():
    """A class that has exactly the images that are wanted will do."""
    assert len(by_class(of_counts(9, 7), 6, 8, 10, True).database) == 10


@pytest.mark.parametrize("row", [[1, 1], [0, 0]])
def test_several_labels_or_none(row):
    """An image of two classes, or of none, is refused by a protocol of single classes."""
    labels = of_counts(5, 5).labels[:]
    labels[3] = row
    assert "exactly one class" in error_of(by_class, Blind(labels), 2, 4, 8, True)


# Several labels


def slow_by_concept(labels, n_query, n_train, *, seed, once=None):
    """By concept, rarest first, with a set of what may still be drawn."""
    random = np.random.default_rng(seed)
    free = set(range(len(labels))) if once is None else set(once)
    query, train = [], []
    for k in sorted(range(labels.shape[1]), key=lambda k: labels[:, k].sum()):
        members = [row for row in np.flatnonzero(labels[:, k]).tolist() if row in free]
        members = random.permutation(members).tolist()
        query += members[:n_query]
        train += members[n_query : n_query + n_train]
        free -= set(members[: n_query + n_train])
    database = sorted(set(range(len(labels))) - set(query))
    return [sorted(query), sorted(train), database]


@st.composite
def concept_cases(draw):
    """Labels of several concepts, wide enough for two queries and three training images of each; maybe names."""
    random = np.random.default_rng(draw(st.integers(0, 999)))
    classes = draw(st.integers(2, 9))
    labels = (random.random((40 * classes, classes)) < random.uniform(0.3, 0.7, classes)).astype(np.uint8)
    names = [f"{k}" for k in random.integers(0, 3 * len(labels), len(labels))] if draw(st.booleans()) else None
    return labels, names, draw(st.integers(0, 2**32 - 1))


@given(concept_cases())
def test_by_concept_is_the_slow_one(case):
    """Draws by concept are those of a slow loop over sets: none twice, none whose name stands twice, enough of each."""
    labels, names, seed = case
    classes = labels.shape[1]
    protocol = Protocol(2 * classes, 3 * classes, len(labels) - 2 * classes, True, "all", "by_concept")
    split = protocols.by_concept(Blind(labels, names=names), protocol, seed=seed)
    once = None if names is None else [row for row, name in enumerate(names) if names.count(name) == 1]
    assert rows_of(split) == slow_by_concept(labels, 2, 3, seed=seed, once=once)
    protocols.check_sizes(split, protocol)
    assert labels[split.query].sum(axis=0).min() >= 2
    assert labels[split.train].sum(axis=0).min() >= 3
    assert once is None or set(split.query.tolist()) | set(split.train.tolist()) <= set(once)


def test_rarest_concept_draws_first():
    """A concept whose few images all show a common one too gets its share, since its turn is first."""
    labels = np.zeros((40, 2), np.uint8)
    labels[:, 1] = 1
    labels[[3, 9, 27], 0] = 1
    for seed in range(20):
        split = protocols.by_concept(Blind(labels), Protocol(2, 4, 38, True, "all", "by_concept"), seed=seed)
        assert labels[split.query, 0].sum() >= 1
        assert labels[split.train, 0].sum() >= 2


def test_concept_with_too_few():
    """A concept that has too few images left is named, with the number that it may still draw from."""
    labels = np.ones((10, 2), np.uint8)
    labels[8:, 0] = 0
    text = error_of(protocols.by_concept, Blind(labels), Protocol(4, 8, 6, True, "all", "by_concept"), seed=0)
    assert "class c1 has 4 images to draw from, and the protocol takes 2 queries and 4 training images" in text


@pytest.mark.parametrize("with_train", [True, False])
def test_at_random(with_train):
    """Queries and training images are the first of a permutation of what has a label and stands there once."""
    labels = several_labels(300, 6, without=40)
    names = [str(min(k, 250)) for k in range(300)]  # the last fifty have the same name
    split = protocols.at_random(Blind(labels, names=names), Protocol(30, 60, 0, with_train, "all", "at_random"), seed=5)
    may = [row for row in range(250) if labels[row].any()]
    order = np.random.default_rng(5).permutation(may).tolist()
    out = set(order[:30]) if with_train else set(order[:90])
    assert rows_of(split) == [sorted(order[:30]), sorted(order[30:90]), sorted(set(range(300)) - out)]


def test_too_few_at_random():
    """With fewer labelled images that stand there once than are wanted, both numbers are told."""
    labels = np.eye(2, dtype=np.uint8)[np.arange(12) % 2]
    labels[0] = 0
    source = Blind(labels, names=["x", "x", "y", "y", *"abcdefgh"])
    protocol = Protocol(4, 5, 8, True, "all", "at_random")
    text = error_of(protocols.at_random, source, protocol, seed=0)
    assert "draws 9 images with a label, and there are 8" in text
    assert len(protocols.at_random(source, protocol._replace(n_train=4), seed=0).train) == 4


def test_part_with_too_few_to_train_on():
    """A class whose training part is too small is an error, though its validation part has more."""
    parts = {"train": np.arange(6), "validation": np.arange(6, 30)}
    source = Blind(Labels.from_ids(np.arange(30) % 2, classes=2), parts=parts)
    protocol = Protocol(24, 6, 6, True, "1000", "by_part")
    assert rows_of(protocols.by_part(source, protocol, seed=0)) == [list(range(6, 30)), list(range(6)), list(range(6))]
    text = error_of(protocols.by_part, source, protocol._replace(n_train=8), seed=0)
    assert "class c0 has 3 images to draw from" in text


# Images of one's own


def slow_own(labels, *, seed, query_share, train_share, once=None):
    """By class, rarest first; each image counts with the first class that it comes to."""
    random = np.random.default_rng(seed)
    free = set(range(len(labels))) if once is None else set(once)
    query, train = [], []
    for k in sorted(range(labels.shape[1]), key=lambda k: labels[:, k].sum()):
        shows = set(np.flatnonzero(labels[:, k]).tolist())
        members = random.permutation(sorted(shows & free)).tolist()
        n_query = max(1, round(query_share * len(members)))
        n_train = max(1, round(train_share * (len(members) - n_query)))
        query += members[:n_query]
        train += members[n_query : n_query + n_train]
        free -= shows
    return [sorted(query), sorted(train), sorted(set(range(len(labels))) - set(query))]


@st.composite
def own_cases(draw):
    """Labels of one's own, in one class or several, some without, maybe names; shares; a seed."""
    random = np.random.default_rng(draw(st.integers(0, 999)))
    classes = draw(st.integers(2, 5))
    labels = np.eye(classes, dtype=np.uint8)[np.repeat(np.arange(classes), random.integers(8, 30, classes))]
    if draw(st.booleans()):
        more = (random.random((30, classes)) < 0.4).astype(np.uint8)
        labels = random.permutation(np.concatenate([labels, more, np.zeros((5, classes), np.uint8)]))
    names = None
    if draw(st.booleans()):
        names = [str(k) for k in range(len(labels))]
        names[3] = names[7] = names[5]
    shares = {"query_share": draw(st.floats(0.001, 0.6)), "train_share": draw(st.floats(0.001, 1))}
    return labels, names, shares, draw(st.integers(0, 2**32 - 1))


@given(own_cases())
def test_own_is_the_slow_one(case):
    """The split of one's own images is that of a slow loop: each class gives queries, in its share, none is drawn twice."""
    labels, names, shares, seed = case
    source = Blind(labels, names=names)
    split, map_at = protocols.draw(source, "own", seed=seed, **shares)
    once = None if names is None else [row for row, name in enumerate(names) if names.count(name) == 1]
    assert rows_of(split) == slow_own(labels, seed=seed, once=once, **shares)
    assert map_at == "all"
    query, train, database = parts_of(split)
    assert not query & database
    assert train <= database
    assert query | database == set(range(len(labels)))
    assert labels[split.query].any(axis=1).all()
    assert labels[split.train].any(axis=1).all()
    assert labels[split.query].any(axis=0).all()
    assert labels[split.train].any(axis=0).all()
    assert once is None or query | train <= set(once)


def test_own_with_the_whole_rest():
    """With train_share=1 the training set is the database, when each image has a label and a name of its own."""
    split, _ = draw(of_counts(10, 40), "own")
    assert (len(split.query), split.train.tolist()) == (1 + 4, split.database.tolist())


@pytest.mark.parametrize("count", [0, 1])
def test_own_class_too_small(count):
    """A class that can't give a query and a training image is named."""
    text = error_of(draw, of_counts(9, count), "own")
    assert f"expected two or more images to draw from in each class, got fewer in 1 of 2: c1 ({count}); fix: add" in text


def test_own_classes_too_small():
    """All such classes are named in one error, with their images of a name of their own, but no more than twenty."""
    text = error_of(draw, of_counts(1, 5, 0, 2, 1), "own")
    assert "got fewer in 3 of 5: c0 (1), c2 (0), c4 (1); fix: " in text
    assert "of 3: c0 (0), c1 (1);" in error_of(draw, Blind(np.eye(3)[[0, 0, 1, 1, 1, 2, 2]], names="aabbcde"), "own")
    for small, more in ((20, "c19 (1); fix: "), (23, "c19 (1) and 3 more; fix: ")):
        assert more in error_of(draw, of_counts(*[1] * small, 9), "own")


def test_the_error_names_the_way_out():
    """The error of too small classes names the key that keeps them."""
    assert "--config.data.small_classes=database" in error_of(draw, of_counts(9, 1), "own")


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.floats(0.01, 0.9))
def test_own_small_classes_in_the_database(counts, seed, share):
    """Images of small classes are in database and training set alone; all others are divided as if those weren't there."""
    counts = [5, *counts]
    random = np.random.default_rng(seed)
    ids = random.permutation(np.repeat(np.arange(len(counts)), counts))
    source = Blind(Labels.from_ids(ids, classes=len(counts)))
    split, _ = draw(source, "own", seed=seed, query_share=share, train_share=0.7, small_classes="database")
    classes, rows = protocols.without_queries(source, "own", small_classes="database")
    small = [k for k, count in enumerate(counts) if count < 2]
    assert list(classes) == [f"c{k} ({counts[k]})" for k in small]
    assert rows.tolist() == np.flatnonzero(np.isin(ids, small)).tolist()
    others, large = np.flatnonzero(~np.isin(ids, small)), np.flatnonzero(np.array(counts) >= 2)
    alone = Blind(Labels.from_ids(np.searchsorted(large, ids[others]), classes=len(large)))
    wanted, _ = draw(alone, "own", seed=seed, query_share=share, train_share=0.7)
    assert split.query.tolist() == others[wanted.query].tolist()
    assert split.train.tolist() == sorted([*others[wanted.train], *rows])
    assert split.database.tolist() == sorted([*others[wanted.database], *rows])


def test_own_small_classes_of_several_labels():
    """Of images with several labels, those of a class of a single image are no queries; those of a name twice are neither."""
    labels = np.zeros((24, 3), np.uint8)
    labels[:20, 0], labels[7, 1], labels[20:22, 2], labels[22:, 0] = 1, 1, 1, 1
    names = [*map(str, range(20)), "x", "x", "y", "z"]
    source = Blind(labels, names=names)
    assert protocols.without_queries(source, "own", small_classes="database")[0] == ("c1 (1)", "c2 (0)")
    for seed in range(8):
        split, _ = draw(source, "own", seed=seed, query_share=0.9, small_classes="database")
        assert not {7, 20, 21} & set(split.query)
        assert {7, 20, 21} <= set(split.train) & set(split.database)
        splits.check_disjoint(split, source.names, allow_overlap=False)


def test_small_classes_alone():
    """Without a class that gives a query there is no split."""
    text = error_of(draw, of_counts(1, 1), "own", small_classes="database")
    assert "no class has two images to draw from, a query and a training image; fix: add images of these classes" in text
    assert error_of(draw, Blind(np.zeros((3, 2), np.uint8)), "own").endswith("fix: give images with labels")


def test_small_classes_of_lists_and_of_a_protocol():
    """Lists and published protocols divide by themselves: no class is kept out of the queries."""
    for source, name in ((listed(), "own"), (of_counts(5, 1), "digits")):
        classes, rows = protocols.without_queries(source, name, small_classes="database")
        assert (classes, len(rows)) == ((), 0)


@pytest.mark.parametrize("left", [0, 1])
def test_own_class_whose_images_show_rarer_ones(left):
    """A class of several-label images that all, or all but one, count with a rarer class needs no queries of its own."""
    labels = np.ones((20, 2), np.uint8)
    labels[20 - left :, 0] = 0
    split, _ = draw(Blind(labels), "own", query_share=0.25)
    query, train, database = parts_of(split)
    assert query | database == set(range(20))
    assert not query & database
    assert train <= database
    assert labels[split.query].any(axis=0).all()


@pytest.mark.parametrize("query_share", [0.1, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_own_small_classes(count, query_share):
    """A class of two images or more gives a query and a training image at any share."""
    split, _ = draw(of_counts(count, 50), "own", query_share=query_share)
    of_first = [int((rows < count).sum()) for rows in split]
    assert of_first[0] >= 1
    assert of_first[1] >= 1
    assert of_first[0] + of_first[2] == count


# Lists


def listed(**parts):
    chosen = {"query": np.array([7, 1]), "train": np.array([4, 3]), "database": np.array([5, 4, 3, 2]), **parts}
    return Blind(Labels.from_ids(np.arange(10) % 2, classes=2), parts=chosen)


@pytest.mark.parametrize("name", ["coco-lists", "nuswide", "coco", "cifar10", "own"])
def test_lists_go_before_any_draw(name, monkeypatch):
    """If list files give the parts, each protocol takes them, sorted, whatever the seed; other images are in no part."""
    if name != "own":
        monkeypatch.setitem(protocols.PROTOCOLS, name, protocols.PROTOCOLS[name]._replace(n_query=2, n_train=2, n_database=4))
    for seed in (0, 1):
        split, map_at = draw(listed(), name, seed=seed)
        assert rows_of(split) == [[1, 7], [3, 4], [2, 3, 4, 5]]
        assert map_at == ("all" if name == "own" else protocols.PROTOCOLS[name].map_at)


def test_lists_of_other_sizes():
    """Lists of other lengths than the protocol's are refused."""
    assert "2 / 2 / 4" in error_of(draw, listed(), "coco-lists")


@pytest.mark.parametrize("missing", ["query", "train", "database"])
def test_lists_that_are_not_there(missing):
    """A protocol of published lists says how to give them."""
    source = listed()
    del source.parts[missing]
    assert "--config.data.reader=lists" in error_of(draw, source, "coco-lists")


# Overlaps


@pytest.mark.parametrize("part", ["train", "database"])
def test_a_query_elsewhere(part):
    """A query that stands in the training set or the database too is refused, and the part is named; or it is allowed."""
    split = Split(np.array([0, 1]), np.array([2, 3]), np.array([2, 3, 4]))
    splits.check_disjoint(split, None, allow_overlap=False)
    shared = split._replace(**{part: np.array([1, *getattr(split, part)[1:]])})
    text = error_of(splits.check_disjoint, shared, None, allow_overlap=False)
    assert f"query in {part}: 1 of 2" in text
    assert "--config.data.allow_overlap=True" in text
    splits.check_disjoint(shared, None, allow_overlap=True)
    assert splits.overlaps(shared, None)[f"query in {part}"] == 1


@pytest.mark.parametrize("part", ["train", "database"])
def test_a_copy_elsewhere(part):
    """A query whose name another image has in another part is refused too; or it is allowed."""
    split = Split(np.array([0, 1]), np.array([2]), np.array([3, 4]))
    names = ["a", "b", "c", "d", "e"]
    names[{"train": 2, "database": 4}[part]] = "b"
    names = Names(name.encode() for name in names)
    assert f"query in {part}: 1 of 2" in error_of(splits.check_disjoint, split, names, allow_overlap=False)
    splits.check_disjoint(split, names, allow_overlap=True)
    splits.check_disjoint(split, None, allow_overlap=False)


@given(st.lists(st.integers(0, 6), min_size=12, max_size=12), st.integers(0, 999))
def test_overlaps_are_those_of_a_loop(names, seed):
    """Counts of queries that are elsewhere, by row or by name, are those of a loop over pairs."""
    random = np.random.default_rng(seed)
    split = Split(*(np.sort(random.choice(12, n, replace=False)) for n in (4, 3, 5)))
    wanted = {
        f"query in {part}": sum(any(names[q] == names[row] for row in getattr(split, part)) for q in split.query)
        for part in ("train", "database")
    }
    assert splits.overlaps(split, Names(str(name).encode() for name in names)) == wanted
    rows = {f"query in {part}": len(set(split.query) & set(getattr(split, part))) for part in ("train", "database")}
    assert splits.overlaps(split, None) == rows


# Holding out, leaving out


@given(balanced_cases(), st.data())
def test_hold_out_divides_the_training_set(case, data):
    """Held-out queries, held-out database and what remains are the training set; no other image is touched.

    Of the database so many are training images as of the protocol's, as far as there are any left; all, if all of them are.
    """
    source, sizes, seed = case
    split = by_class(source, *sizes, seed=seed)
    if len(split.train) < 3:
        return
    validation = data.draw(st.integers(2, len(split.train) - 1))
    held = splits.hold_out(split, validation=validation, seed=seed)
    query, train, database = parts_of(held)
    assert query | train | database == set(split.train.tolist())
    assert not query & (train | database)
    seen = len(set(split.train.tolist()) & set(split.database.tolist())) / max(len(split.database), 1)
    if seen == 1:
        assert (len(query), database) == (validation, train)
    else:
        assert (len(query), len(database - train)) == (validation // 2, validation - validation // 2)
        assert abs(len(database & train) - min(len(train), seen / (1 - seen) * len(database - train))) <= 0.5
    assert all((np.diff(rows) > 0).all() for rows in held)
    again = splits.hold_out(split, validation=validation, seed=seed)
    assert parts_of(again) == parts_of(held)


def test_hold_out_of_a_database_that_is_the_training_set():
    """All held-out images are queries, and the database is what is trained on, as in the protocol."""
    split = Split(np.array([0]), np.arange(1, 101), np.arange(1, 101))
    query, train, database = parts_of(splits.hold_out(split, validation=40, seed=0))
    assert (len(query), train | query, database) == (40, set(range(1, 101)), train)


def test_hold_out_keeps_rows():
    """Rows that stay are never held out, and remain training images, whatever the seed; too many to hold out are refused."""
    split = Split(np.array([0]), np.arange(1, 21), np.arange(1, 21))
    keep = np.array([3, 5, 8])
    for seed in range(10):
        held = splits.hold_out(split, validation=17, seed=seed, keep=keep)
        assert (len(held.query), held.train.tolist(), held.database.tolist()) == (17, keep.tolist(), keep.tolist())
    assert "expected 2 to 17" in error_of(splits.hold_out, split, validation=18, seed=0, keep=keep)


def test_hold_out_depends_on_the_seed():
    """Another seed holds out other images."""
    split = Split(np.array([0]), np.arange(1, 101), np.arange(1, 120))
    held = [splits.hold_out(split, validation=40, seed=seed).query.tobytes() for seed in range(10)]
    assert len(set(held)) == 10


@pytest.mark.parametrize("validation", [-1, 1, 6, 7])
def test_hold_out_too_many_or_too_few(validation):
    """Nothing to query with, or nothing left to train on, is an error that says what may be given."""
    split = Split(np.array([0]), np.arange(1, 7), np.arange(1, 9))
    assert "expected 2 to 5" in error_of(splits.hold_out, split, validation=validation, seed=0)


@given(st.sets(st.integers(0, 9)))
def test_without(out):
    """Rows that are left out are in no part, and all others are where they were."""
    split = Split(np.array([0, 5]), np.array([2, 3]), np.array([2, 3, 4, 8]))
    found = splits.drop_rows(split, np.array(sorted(out), np.int64))
    assert rows_of(found) == [[row for row in part if row not in out] for part in rows_of(split)]


# The hash


LABELS = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.uint8)
TINY = Split(np.array([0]), np.array([1, 2]), np.array([1, 2, 3]))


def hash_of(split, name, labels, names=None):
    names = None if names is None else Names(name.encode() for name in names)
    return splits.sha256(split, name=name, labels=Labels.from_multi_hot(labels), names=names)


def test_hash_of_a_tiny_example():
    """The hash is what a shell's sha256sum gives for these bytes, and stays so from version to version."""
    rows = [b"\1" + bytes(7) + b"\0" + bytes(7), b"\2" + bytes(7) + b"\1" + bytes(7) + b"\2" + bytes(7)]
    rows.append(b"\3" + bytes(7) + b"".join(bytes([k]) + bytes(7) for k in (1, 2, 3)))
    content = b'{"protocol": "digits", "labels": [4, 2]}' + b"\x80\x40\x80\x40" + b"".join(rows)
    found = hash_of(TINY, "digits", LABELS)
    assert found == hashlib.sha256(content).hexdigest()
    assert found == "b3fba0e8bc91a1a8e5918a98d33f65c22533fbf2d113a47470b250d6c5534fec"
    assert (
        hash_of(TINY, "digits", LABELS, ["a", "b/é", "c", "d"]) == hashlib.sha256(content + "a\nb/é\nc\nd".encode()).hexdigest()
    )


def slow_hash(split, name, labels):
    """The hash of a source without names, as the first version of this project took it: of everything at once."""
    digest = hashlib.sha256(json.dumps({"protocol": name, "labels": list(labels.shape)}).encode())
    digest.update(np.packbits(labels, axis=1).tobytes())
    for rows in split:
        digest.update(np.array([len(rows), *rows], "<u8").tobytes())
    return digest.hexdigest()


def test_hash_of_the_digits():
    """The split of the digits with seed 0 has the hash that results quote since the first version."""
    source = digits.read()
    split, _ = draw(source, "digits")
    found = splits.sha256(split, name="digits", labels=source.labels, names=None)
    assert found.startswith("281c7fcec6f2")
    assert found == slow_hash(split, "digits", source.labels[:])


@pytest.mark.parametrize(("n", "classes"), [(65_536, 3), (65_537, 21), (140_000, 10)])
def test_hash_of_many_labels(n, classes):
    """The hash of labels that are unpacked block by block is that of all at once."""
    labels = several_labels(n, classes)
    split = Split(np.arange(5), np.arange(5, 9), np.arange(5, n))
    assert hash_of(split, "nuswide", labels) == slow_hash(split, "nuswide", labels)


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
    "names": (TINY, "digits", LABELS, "abcd"),
    "another name": (TINY, "digits", LABELS, "abce"),
    "order of the names": (TINY, "digits", LABELS, "abdc"),
    "names that are joined otherwise": (TINY, "digits", LABELS, ["ab", "c", "d", ""]),
}


def test_hash_tells_splits_apart():
    """Any change of the protocol's name, of a row, of the order, of one label, or of a name changes the hash."""
    hashes = {what: hash_of(*change) for what, change in CHANGES.items()}
    assert len(set(hashes.values())) == len(CHANGES)


def test_hash_is_of_values():
    """Rows of another integer type have the same hash, and so have labels that are stored otherwise."""
    narrow = Split(*(rows.astype(np.int32) for rows in TINY))
    assert hash_of(narrow, "digits", LABELS) == hash_of(TINY, "digits", LABELS)
    packed = Labels(np.packbits(LABELS, axis=1), classes=2)
    assert splits.sha256(TINY, name="digits", labels=packed, names=None) == hash_of(TINY, "digits", LABELS)
