"""Protocols: which images of a source are queries, training set and database. Seeded, asserted, and hashed."""

import hashlib
import json
from typing import NamedTuple

import numpy as np

from adsq_jax.errors import InputError


class Protocol(NamedTuple):
    """A published way to divide a data set."""

    n_query: int
    n_train: int
    n_database: int
    database_holds_train: bool
    map_at: str  # the protocol's cutoff: "all" or a number


# Sizes as the field publishes them.
PROTOCOLS = {
    "cifar10": Protocol(1_000, 5_000, 54_000, False, "all"),
    "cifar10-1": Protocol(1_000, 5_000, 59_000, True, "all"),
    "cifar10-2": Protocol(10_000, 50_000, 50_000, True, "all"),
    "digits": Protocol(100, 1_000, 1_697, True, "all"),
    "fashion_mnist": Protocol(1_000, 5_000, 69_000, True, "all"),
    "imagenet100": Protocol(5_000, 13_000, 128_503, True, "1000"),
    "nuswide": Protocol(2_100, 10_500, 193_734, True, "5000"),
    "nuswide-81": Protocol(5_000, 10_000, 218_496, True, "5000"),
}


class Split(NamedTuple):
    """Rows of a source. Queries are never in the training set or the database."""

    query: np.ndarray  # int64[n_query], ascending
    train: np.ndarray  # int64[n_train], ascending
    database: np.ndarray  # int64[n_database], ascending


def split_by_class(labels: np.ndarray, protocol: Protocol, *, seed: int) -> Split:
    """Draws as many queries and training images from each class, for images of one class each.

    Args:
      labels: uint8[n, c], one 1 in each row.
      protocol: its sizes; `n_query` and `n_train` are multiples of c.
      seed: of the draw.

    Returns:
      The split.

    Raises:
      InputError: a class is too small, or the sizes aren't the protocol's.

    Source: the field's CIFAR-10 protocols.
    """
    classes = labels.shape[1]
    if not (labels.sum(axis=1) == 1).all():
        raise InputError("this protocol wants images of exactly one class each: check the labels")
    n_query, n_train = protocol.n_query // classes, protocol.n_train // classes
    random = np.random.default_rng(seed)
    query, train = [], []
    for k in range(classes):
        members = np.flatnonzero(labels[:, k])
        if len(members) < n_query + n_train:
            raise InputError(
                f"class {k} has {len(members)} images, and the protocol wants {n_query} queries and {n_train} training "
                f"images of each class: add images, or choose another protocol"
            )
        members = random.permutation(members)
        query.append(members[:n_query])
        train.append(members[n_query : n_query + n_train])
    query_rows, train_rows = np.sort(np.concatenate(query)), np.sort(np.concatenate(train))
    out = query_rows if protocol.database_holds_train else np.concatenate([query_rows, train_rows])
    split = Split(query_rows, train_rows, np.setdiff1d(np.arange(len(labels)), out))
    check(split, protocol)
    return split


def check(split: Split, protocol: Protocol) -> None:
    """Asserts a protocol's sizes, and that no query is in the training set or the database.

    Args:
      split: what was drawn.
      protocol: what was asked for.

    Raises:
      InputError: they differ.
    """
    found = (len(split.query), len(split.train), len(split.database))
    wanted = (protocol.n_query, protocol.n_train, protocol.n_database)
    if found != wanted:
        raise InputError(
            f"the protocol wants {wanted} images as query, training set and database, and the data give {found}: "
            "the data set isn't the published one"
        )
    for name in ("train", "database"):
        shared = np.intersect1d(split.query, getattr(split, name))
        if len(shared):
            raise InputError(f"{len(shared)} queries are in the {name} part too: measures on them would mean nothing")


def hold_out(split: Split, *, validation: int, seed: int) -> Split:
    """A split for tuning, carved out of the training set: the protocol's queries and database are not touched.

    Args:
      split: the protocol's.
      validation: training images to hold out; half become queries, half the database.
      seed: of the draw.

    Returns:
      The split; its training set is what remains.

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
    half = validation // 2
    return Split(np.sort(order[:half]), np.sort(order[validation:]), np.sort(order[half:validation]))


def sha256(split: Split, *, name: str, labels: np.ndarray) -> str:
    """A hash that two machines share exactly if they have the same split of the same labels in the same order.

    Args:
      split: rows of the source.
      name: the protocol's.
      labels: of the whole source, uint8[n, c].

    Returns:
      64 hexadecimal digits.

    Source: this project.
    """
    digest = hashlib.sha256(json.dumps({"protocol": name, "labels": labels.shape}).encode())
    digest.update(np.packbits(labels, axis=1).tobytes())
    for rows in split:
        digest.update(len(rows).to_bytes(8, "little") + rows.astype("<i8").tobytes())
    return digest.hexdigest()
