"""Protocols: how the images of a source are divided into queries, training set and database, by seeded draws.

A draw raises an `InputError` if the images don't fit the protocol.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from adsq_jax.data.sources import Source
from adsq_jax.data.splits import Split
from adsq_jax.errors import InputError


class Protocol(NamedTuple):
    """A published way to divide a data set."""

    n_query: int
    n_train: int
    n_database: int
    database_holds_train: bool
    map_at: str  # the cutoff of mAP: "all" or a number
    draw: str  # one of DRAWS


# Sizes as the field publishes them.
PROTOCOLS = {
    "cifar10": Protocol(1_000, 5_000, 54_000, False, "all", "by_class"),
    "cifar10-1": Protocol(1_000, 5_000, 59_000, True, "all", "by_class"),
    "cifar10-2": Protocol(10_000, 50_000, 50_000, True, "all", "by_class"),
    "coco": Protocol(5_000, 10_000, 117_218, True, "5000", "at_random"),
    "coco-lists": Protocol(5_000, 10_000, 112_218, True, "5000", "lists"),  # HashNet's; its queries are in its database
    "digits": Protocol(100, 1_000, 1_697, True, "all", "by_class"),
    "fashion_mnist": Protocol(1_000, 5_000, 69_000, True, "all", "by_class"),
    "imagenet100": Protocol(5_000, 13_000, 128_503, True, "1000", "by_part"),
    "mirflickr25k": Protocol(1_000, 4_000, 20_000, False, "all", "at_random"),
    "nuswide": Protocol(2_100, 10_500, 193_734, True, "5000", "by_concept"),
    "nuswide-81": Protocol(5_000, 10_000, 218_496, True, "5000", "at_random"),
    "tiny_imagenet100": Protocol(5_000, 13_000, 50_000, True, "1000", "lists"),  # this project's: 100 classes of Tiny-ImageNet
}
OWN = "own"  # the protocol for the user's own pictures: its sizes are shares of the images
SMALL_CLASSES = ("error", "database")  # with OWN, what to do with classes that can't give a query and a training image
_CLASSES_NAMED = 20  # in an error
_NOT_PUBLISHED = "the data set isn't the published one; fix: for your own images give --config=folder or --config=lists"


def by_class(source: Source, protocol: Protocol, *, seed: int) -> Split:
    """Draw equally many queries and training images from each class, for images of one class each.

    Source: the field's CIFAR-10 protocols.
    """
    if not source.labels.single:
        raise InputError("this protocol expects images of exactly one class each; fix: check the labels")
    classes = source.labels.classes
    sizes = (protocol.n_query // classes, protocol.n_train // classes)
    random = np.random.default_rng(seed)
    drawn = [_draw_class(source, k, sizes=sizes, random=random, allowed=None) for k in range(classes)]
    query, train = (np.concatenate(rows) for rows in zip(*drawn, strict=True))
    return _split(query, train, size=len(source), with_train=protocol.database_holds_train)


def by_concept(source: Source, protocol: Protocol, *, seed: int) -> Split:
    """Draw equally many queries and training images for each concept, for images of several labels.

    Draws go concept by concept, the rarest first, among images not drawn before. Images that occur more than once are not
    drawn, so that no copy of a query is in another part.

    Source: the field's NUS-WIDE protocol of 21 concepts; the order of the concepts is this project's.
    """
    classes = source.labels.classes
    sizes = (protocol.n_query // classes, protocol.n_train // classes)
    random = np.random.default_rng(seed)
    free = _is_unique(source)
    query, train = [], []
    for k in np.argsort(source.labels.per_class(), kind="stable"):
        q, t = _draw_class(source, int(k), sizes=sizes, random=random, allowed=free)
        free[q] = free[t] = False
        query.append(q)
        train.append(t)
    return _split(np.concatenate(query), np.concatenate(train), size=len(source), with_train=protocol.database_holds_train)


def at_random(source: Source, protocol: Protocol, *, seed: int) -> Split:
    """Draw queries and training images from all images that have a label and occur once; the rest is the database.

    Source: HashNet's protocols, Cao et al., ICCV 2017; that images without a label are only in the database, this project.
    """
    rows = np.flatnonzero(_is_unique(source) & (source.labels.per_image() > 0))
    n_query, n_drawn = protocol.n_query, protocol.n_query + protocol.n_train
    if len(rows) < n_drawn:
        raise InputError(f"the protocol draws {n_drawn:,} images with a label, and there are {len(rows):,}: {_NOT_PUBLISHED}")
    rows = np.random.default_rng(seed).permutation(rows)[:n_drawn]
    return _split(rows[:n_query], rows[n_query:], size=len(source), with_train=protocol.database_holds_train)


def by_part(source: Source, protocol: Protocol, *, seed: int) -> Split:
    """Take the part `validation` as queries and `train` as database; draw equally many training images from each class.

    Source: HashNet's ImageNet protocol, Cao et al., ICCV 2017.
    """
    allowed = np.zeros(len(source), bool)
    allowed[source.parts["train"]] = True
    random, sizes = np.random.default_rng(seed), (0, protocol.n_train // source.labels.classes)
    train = [_draw_class(source, k, sizes=sizes, random=random, allowed=allowed)[1] for k in range(source.labels.classes)]
    return Split(np.sort(source.parts["validation"]), np.sort(np.concatenate(train)), np.sort(source.parts["train"]))


def from_lists(source: Source, protocol: Protocol | None, *, seed: int) -> Split:
    """Return the split of the list files; neither protocol nor seed change it."""
    if not _is_listed(source):
        raise InputError("this protocol uses published lists; fix: --config.data.reader=lists and --config.data.lists=FOLDER")
    return Split(*(np.sort(source.parts[part]) for part in Split._fields))


def _is_listed(source: Source) -> bool:
    return set(Split._fields) <= source.parts.keys()


DRAWS: dict[str, Callable[..., Split]] = {
    "by_class": by_class,
    "by_concept": by_concept,
    "at_random": at_random,
    "by_part": by_part,
    "lists": from_lists,
}


def draw(
    source: Source, name: str, *, seed: int, query_share: float, train_share: float, small_classes: str = "error"
) -> tuple[Split, str]:
    """Divide a source by a protocol; list files take precedence over any draw.

    Args:
      source: the images.
      name: one of PROTOCOLS, or OWN.
      seed: the seed for the draw.
      query_share: with OWN, the share of each class that becomes queries, above 0, below 1.
      train_share: with OWN, the share of the rest to train on, above 0, at most 1.
      small_classes: with OWN, one of SMALL_CLASSES, for classes of fewer than two images to draw from: "error" refuses them,
        "database" puts all their images into database and training set.

    Returns:
      The split, and the protocol's cutoff of mAP: "all" or a number.

    Raises:
      InputError: the data don't fit the protocol.
    """
    listed = _is_listed(source)
    if name == OWN:
        if listed:
            return from_lists(source, None, seed=seed), "all"
        split = by_share(source, seed=seed, query_share=query_share, train_share=train_share, small_classes=small_classes)
        return split, "all"
    protocol = PROTOCOLS[name]
    split = DRAWS["lists" if listed else protocol.draw](source, protocol, seed=seed)
    check_sizes(split, protocol)
    return split, protocol.map_at


def by_share(source: Source, *, seed: int, query_share: float, train_share: float, small_classes: str = "error") -> Split:
    """Draw a share of each class as queries, and a share of the rest to train on; all but the queries is the database.

    An image with several labels counts for the rarest of them. Each class of at least two images gives one of each. With
    `small_classes="database"` the images of smaller classes are in database and training set; the others are divided as if
    these classes weren't there.

    Source: this project.
    """
    random = np.random.default_rng(seed)
    free = _is_unique(source)
    query, train = [], []
    if small_classes == "database":
        kept = _rows_too_small(source)
        free[kept] = False
        train.append(kept)
    elif source.labels.single:
        _check_classes(source)
    for k in np.argsort(source.labels.per_class(), kind="stable"):
        members = source.labels.members(int(k))
        count = int(free[members].sum())
        if count < 2:  # its images were drawn for rarer classes
            continue
        queries = max(1, min(round(query_share * count), count - 1))
        sizes = (queries, max(1, round(train_share * (count - queries))))
        q, t = _draw_class(source, int(k), sizes=sizes, random=random, allowed=free)
        free[members] = False
        query.append(q)
        train.append(t)
    if not query:
        labelled = source.labels.per_class().any()
        fix = "add images of these classes, each of a name of its own" if labelled else "give images with labels"
        raise InputError(f"no class has two images to draw from, a query and a training image; fix: {fix}")
    return _split(np.concatenate(query), np.concatenate(train), size=len(source), with_train=True)


def without_queries(source: Source, name: str, *, small_classes: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return what `draw` keeps out of the queries since its class is too small, for the same arguments.

    Returns:
      The classes, each as "NAME (IMAGES TO DRAW FROM)"; and the rows of their images, int64[m], ascending.
    """
    if name != OWN or small_classes != "database" or _is_listed(source):
        return (), np.zeros(0, np.int64)
    counts = _drawable(source)
    return tuple(f"{source.classes[k]} ({counts[k]})" for k in _too_small(source)), _rows_too_small(source)


def first_classes(classes: Sequence[str]) -> str:
    """Return the names of some classes, the first twenty, in a row."""
    more = f" and {len(classes) - _CLASSES_NAMED:,} more" if len(classes) > _CLASSES_NAMED else ""
    return ", ".join(classes[:_CLASSES_NAMED]) + more


def _drawable(source: Source) -> np.ndarray:
    """Count the images of each class that can be drawn, int64[c]: those of a name that no other image has."""
    return source.labels.per_class(np.flatnonzero(_is_unique(source)))


def _too_small(source: Source) -> np.ndarray:
    """Return the classes that can't give a query and a training image, int64[m]."""
    return np.flatnonzero(_drawable(source) < 2)


def _rows_too_small(source: Source) -> np.ndarray:
    """Return the rows of all images of these classes, int64[m], ascending."""
    rows = [source.labels.members(int(k)) for k in _too_small(source)]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *rows]))


def _check_classes(source: Source) -> None:
    """Check that each class has two images to draw from; name all that don't."""
    counts, small = _drawable(source), _too_small(source)
    if len(small):
        listed = first_classes([f"{source.classes[k]} ({counts[k]})" for k in small])
        raise InputError(
            f"expected two or more images to draw from in each class, got fewer in {len(small):,} of {len(counts):,}: {listed}"
            "; fix: add images of these classes, remove the classes, or keep their images in database and training set without "
            "queries of them by --config.data.small_classes=database"
        )


def _draw_class(
    source: Source, k: int, *, sizes: tuple[int, int], random: np.random.Generator, allowed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw queries and training images of one class, among the rows that are allowed, bool[n]."""
    members = source.labels.members(k)
    if allowed is not None:
        members = members[allowed[members]]
    n_query, n_train = sizes
    if len(members) < n_query + n_train:
        raise InputError(
            f"class {source.classes[k]} has {len(members)} images to draw from, and the protocol takes {n_query} queries and "
            f"{n_train} training images of each class; fix: add images, or choose another protocol"
        )
    members = random.permutation(members)
    return members[:n_query], members[n_query : n_query + n_train]


def _is_unique(source: Source) -> np.ndarray:
    """Return which images have a name that no other has, bool[n]."""
    return np.ones(len(source), bool) if source.names is None else source.names.unique()


def _split(query: np.ndarray, train: np.ndarray, *, size: int, with_train: bool) -> Split:
    query, train = np.sort(query), np.sort(train)
    excluded = query if with_train else np.concatenate([query, train])
    return Split(query, train, np.setdiff1d(np.arange(size), excluded))


def check_sizes(split: Split, protocol: Protocol) -> None:
    """Check that a split has its protocol's sizes."""
    sizes, published = tuple(map(len, split)), protocol[:3]
    if sizes != published:
        expected, got = (" / ".join(f"{size:,}" for size in numbers) for numbers in (published, sizes))
        raise InputError(f"expected {expected} images as query, training set and database, got {got}: {_NOT_PUBLISHED}")
