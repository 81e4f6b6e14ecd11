"""Protocols: which images of a source are queries, training set and database. Seeded, asserted, and hashed."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import Names, Source
from adsq_jax.errors import InputError


class Protocol(NamedTuple):
    """A published way to divide a data set."""

    n_query: int
    n_train: int
    n_database: int
    database_holds_train: bool
    map_at: str  # the protocol's cutoff: "all" or a number
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
}
OWN = "own"  # the protocol of pictures of one's own: its sizes are shares of what is there


class Split(NamedTuple):
    """Rows of a source. Queries are never in the training set or the database, unless a published list has it so."""

    query: np.ndarray  # int64[n_query], ascending
    train: np.ndarray  # int64[n_train], ascending
    database: np.ndarray  # int64[n_database], ascending


def by_class(source: Source, protocol: Protocol, *, seed: int) -> Split:
    """Draws as many queries and training images from each class, for images of one class each.

    Args:
      source: of images with exactly one label each.
      protocol: its sizes; `n_query` and `n_train` are multiples of the number of classes.
      seed: of the draw.

    Returns:
      The split.

    Raises:
      InputError: a class is too small, or an image hasn't exactly one label.

    Source: the field's CIFAR-10 protocols.
    """
    if not source.labels.single:
        raise InputError("this protocol wants images of exactly one class each: check the labels")
    classes = source.labels.classes
    sizes = (protocol.n_query // classes, protocol.n_train // classes)
    random = np.random.default_rng(seed)
    drawn = [_of_class(source, k, sizes=sizes, random=random, among=None) for k in range(classes)]
    query, train = (np.concatenate(rows) for rows in zip(*drawn, strict=True))
    return _split(query, train, size=len(source), with_train=protocol.database_holds_train)


def by_concept(source: Source, protocol: Protocol, *, seed: int) -> Split:
    """Draws as many queries and training images for each concept, for images of several labels.

    Concept by concept, rarest first, from the images that show it and were not drawn for another. An image that stands in the
    data set more than once is not drawn, so that none of its copies meets it in another part.

    Args:
      source: of images with several labels.
      protocol: its sizes; `n_query` and `n_train` are multiples of the number of concepts.
      seed: of the draw.

    Returns:
      The split; the database is all but the queries.

    Raises:
      InputError: a concept has too few images.

    Source: the field's NUS-WIDE protocol of 21 concepts; the order in which concepts take their turn is this project's.
    """
    classes = source.labels.classes
    sizes = (protocol.n_query // classes, protocol.n_train // classes)
    random = np.random.default_rng(seed)
    free = _stands_once(source)
    query, train = [], []
    for k in np.argsort(source.labels.per_class(), kind="stable"):
        q, t = _of_class(source, int(k), sizes=sizes, random=random, among=free)
        free[q] = free[t] = False
        query.append(q)
        train.append(t)
    return _split(np.concatenate(query), np.concatenate(train), size=len(source), with_train=protocol.database_holds_train)


def at_random(source: Source, protocol: Protocol, *, seed: int) -> Split:
    """Draws queries and training images from all images that have a label and stand in the data set once.

    Args:
      source: of images with any number of labels.
      protocol: its sizes.
      seed: of the draw.

    Returns:
      The split; the rest is the database.

    Raises:
      InputError: there are too few images.

    Source: HashNet's protocols, Cao et al., ICCV 2017; that images without a label are only in the database, this project.
    """
    rows = np.flatnonzero(_stands_once(source) & (source.labels.per_image() > 0))
    wanted = protocol.n_query + protocol.n_train
    if len(rows) < wanted:
        raise InputError(f"the protocol wants {wanted:,} images with a label, and {len(rows):,} are there: {_NOT_PUBLISHED}")
    rows = np.random.default_rng(seed).permutation(rows)[:wanted]
    return _split(
        rows[: protocol.n_query], rows[protocol.n_query :], size=len(source), with_train=protocol.database_holds_train
    )


def by_part(source: Source, protocol: Protocol, *, seed: int) -> Split:
    """Takes the validation part as queries and the training part as database, and draws as many to train on from each class.

    Args:
      source: with the parts `train` and `validation`.
      protocol: its sizes; `n_train` is a multiple of the number of classes.
      seed: of the draw.

    Returns:
      The split.

    Raises:
      InputError: a class has too few images.

    Source: HashNet's ImageNet protocol, Cao et al., ICCV 2017.
    """
    among = np.zeros(len(source), bool)
    among[source.parts["train"]] = True
    random, sizes = np.random.default_rng(seed), (0, protocol.n_train // source.labels.classes)
    train = [_of_class(source, k, sizes=sizes, random=random, among=among)[1] for k in range(source.labels.classes)]
    return Split(np.sort(source.parts["validation"]), np.sort(np.concatenate(train)), np.sort(source.parts["train"]))


def of_lists(source: Source, protocol: Protocol | None, *, seed: int) -> Split:
    """Takes the split that list files give; there is no draw, and neither protocol nor seed has a say in it.

    Raises:
      InputError: the data come without lists.
    """
    if not _is_listed(source):
        raise InputError(
            "this protocol is that of published lists: give --config.data.reader=lists and --config.data.lists=FOLDER"
        )
    return Split(*(np.sort(source.parts[part]) for part in Split._fields))


def _is_listed(source: Source) -> bool:
    return set(Split._fields) <= source.parts.keys()


DRAWS: dict[str, Callable[..., Split]] = {
    "by_class": by_class,
    "by_concept": by_concept,
    "at_random": at_random,
    "by_part": by_part,
    "lists": of_lists,
}
_NOT_PUBLISHED = "the data set isn't the published one; for images of your own take configs/folder.py or configs/lists.py"


def draw(source: Source, name: str, *, seed: int, query_share: float, train_share: float) -> tuple[Split, str]:
    """Divides a source as a protocol says; what list files say goes before any draw.

    Args:
      source: of images.
      name: one of PROTOCOLS, or OWN.
      seed: of the draw.
      query_share: with OWN, the share of each class that becomes queries, above 0, below 1.
      train_share: with OWN, the share of the rest to train on, above 0, at most 1.

    Returns:
      The split, and the protocol's cutoff: "all" or a number.

    Raises:
      InputError: the data don't fit the protocol.
    """
    listed = _is_listed(source)
    if name == OWN:
        if listed:
            return of_lists(source, None, seed=seed), "all"
        return own(source, seed=seed, query_share=query_share, train_share=train_share), "all"
    protocol = PROTOCOLS[name]
    split = DRAWS["lists" if listed else protocol.draw](source, protocol, seed=seed)
    check_sizes(split, protocol)
    return split, protocol.map_at


def own(source: Source, *, seed: int, query_share: float, train_share: float) -> Split:
    """Draws a share of each class as queries, and a share of the rest of it to train on; all but the queries is the database.

    An image of several labels counts with the rarest of them. Each class that has two images gives at least one of each.

    Args:
      source: of images.
      seed: of the draw.
      query_share: see `draw`.
      train_share: see `draw`.

    Returns:
      The split.

    Raises:
      InputError: images have one label each, and a class has but one image.

    Source: this project.
    """
    random = np.random.default_rng(seed)
    free = _stands_once(source)
    query, train = [], []
    for k in np.argsort(source.labels.per_class(), kind="stable"):
        members = source.labels.members(int(k))
        count = int(free[members].sum())
        if count < 2 and not source.labels.single:  # its images were drawn for rarer classes
            continue
        if count < 2:
            raise InputError(f"class {source.classes[k]} has {count} image to draw from, and wants two or more: add some")
        queries = max(1, min(round(query_share * count), count - 1))
        sizes = (queries, max(1, round(train_share * (count - queries))))
        q, t = _of_class(source, int(k), sizes=sizes, random=random, among=free)
        free[members] = False
        query.append(q)
        train.append(t)
    if not query:
        raise InputError("no class has two images to draw from: give images with labels")
    return _split(np.concatenate(query), np.concatenate(train), size=len(source), with_train=True)


def _of_class(
    source: Source, k: int, *, sizes: tuple[int, int], random: np.random.Generator, among: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and training images of one class, out of those in `among`, bool[n]."""
    members = source.labels.members(k)
    if among is not None:
        members = members[among[members]]
    n_query, n_train = sizes
    if len(members) < n_query + n_train:
        raise InputError(
            f"class {source.classes[k]} has {len(members)} images to draw from, and the protocol wants {n_query} queries and "
            f"{n_train} training images of each class: add images, or choose another protocol"
        )
    members = random.permutation(members)
    return members[:n_query], members[n_query : n_query + n_train]


def _stands_once(source: Source) -> np.ndarray:
    """Which images no other has the name of, bool[n]."""
    if source.names is None:
        return np.ones(len(source), bool)
    return source.names.once()


def _split(query: np.ndarray, train: np.ndarray, *, size: int, with_train: bool) -> Split:
    query, train = np.sort(query), np.sort(train)
    out = query if with_train else np.concatenate([query, train])
    return Split(query, train, np.setdiff1d(np.arange(size), out))


def check_sizes(split: Split, protocol: Protocol) -> None:
    """Asserts a protocol's sizes.

    Raises:
      InputError: they differ.
    """
    found = (len(split.query), len(split.train), len(split.database))
    wanted = (protocol.n_query, protocol.n_train, protocol.n_database)
    if found != wanted:
        raise InputError(
            f"the protocol wants {_sizes(wanted)} images as query, training set and database, and the data give "
            f"{_sizes(found)}: {_NOT_PUBLISHED}"
        )


def _sizes(sizes: tuple[int, ...]) -> str:
    return " / ".join(f"{size:,}" for size in sizes)


def overlaps(split: Split, names: Names | None) -> Mapping[str, int]:
    """Counts images that are in two parts, by row or by name.

    Args:
      split: of a source.
      names: the source's.

    Returns:
      {"query in train", "query in database"}: queries that are there too.
    """
    if names is not None:
        first = names.first()  # of images with the same name, the first's row stands for all
        split = Split(*(first[rows] for rows in split))
    return {f"query in {part}": int(np.isin(split.query, getattr(split, part)).sum()) for part in ("train", "database")}


def check_disjoint(split: Split, names: Names | None, *, allow_overlap: bool) -> None:
    """Asserts that no query is in the training set or the database.

    Raises:
      InputError: one is, and `allow_overlap` isn't set.
    """
    found = {where: count for where, count in overlaps(split, names).items() if count}
    if found and not allow_overlap:
        told = ", ".join(f"{where}: {count:,}" for where, count in found.items())
        raise InputError(
            f"some queries are in another part too ({told} of {len(split.query):,}), so that measures on them mean little: "
            "take them out, or, for a published list, give --config.data.allow_overlap=True; the result will say so"
        )


def hold_out(split: Split, *, validation: int, seed: int) -> Split:
    """A split for tuning, carved out of the training set: the protocol's queries and other database images are not touched.

    To find images that were trained on is one thing, to find others another, and settings that are best for one needn't be for
    the other: so the database holds training images in the same proportion as the protocol's.

    Args:
      split: the protocol's.
      validation: training images to hold out; half become queries, half are of the database. All become queries where the
        protocol's database is the training set alone.
      seed: of the draw.

    Returns:
      The split; its training set is what remains, and as many of it are in the database as the proportion asks for.

    Raises:
      InputError: nothing would remain.

    Source: this project.
    """
    if not 2 <= validation < len(split.train):
        raise InputError(
            f"data.validation={validation} must leave some of the {len(split.train)} training images: "
            f"give 2 to {len(split.train) - 1}, or 0 for the protocol's own queries"
        )
    order = np.random.default_rng(seed).permutation(split.train)
    remaining = order[validation:]
    seen = np.isin(split.database, split.train).sum() / max(len(split.database), 1)
    if seen == 1:
        return Split(np.sort(order[:validation]), np.sort(remaining), np.sort(remaining))
    half = validation // 2
    with_train = remaining[: round(seen / (1 - seen) * (validation - half))]
    return Split(np.sort(order[:half]), np.sort(remaining), np.sort(np.concatenate([order[half:validation], with_train])))


def without(split: Split, rows: np.ndarray) -> Split:
    """A split without some rows, int[m], in any part."""
    return Split(*(part[~np.isin(part, rows)] for part in split))


def sha256(split: Split, *, name: str, labels: Labels, names: Names | None) -> str:
    """A hash that two machines share exactly if they have the same split of the same labels and names in the same order.

    Args:
      split: rows of the source.
      name: the protocol's.
      labels: of the whole source.
      names: of its images, if they have any.

    Returns:
      64 hexadecimal digits.

    Source: this project.
    """
    digest = hashlib.sha256(json.dumps({"protocol": name, "labels": labels.shape}).encode())
    for block in labels.blocks():
        digest.update(np.packbits(block, axis=1).tobytes())
    for rows in split:
        digest.update(len(rows).to_bytes(8, "little") + rows.astype("<i8").tobytes())
    if names is not None:
        digest.update(names.joined)
    return digest.hexdigest()
