"""Splits: which rows of a source are queries, training set and database. Counted, checked and hashed."""

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import Names
from adsq_jax.errors import InputError


class Split(NamedTuple):
    """Rows of a source. Queries are never in the training set or the database, except in some published lists."""

    query: np.ndarray  # int64[n_query], ascending
    train: np.ndarray  # int64[n_train], ascending
    database: np.ndarray  # int64[n_database], ascending


def overlaps(split: Split, names: Names | None) -> Mapping[str, int]:
    """Count the queries that are in another part too, by row or by name: {"query in train", "query in database"}."""
    if names is not None:
        first = names.first()  # images with the same name count as one
        split = Split(*(first[rows] for rows in split))
    return {f"query in {part}": int(np.isin(split.query, getattr(split, part)).sum()) for part in ("train", "database")}


def check_disjoint(split: Split, names: Names | None, *, allow_overlap: bool) -> None:
    """Check that no query is in the training set or the database."""
    found = ", ".join(f"{where}: {count:,}" for where, count in overlaps(split, names).items() if count)
    if found and not allow_overlap:
        raise InputError(
            f"some queries are in another part too ({found} of {len(split.query):,}), which makes measures meaningless; fix: "
            "remove them, or, for a published list, give --config.data.allow_overlap=True, which the result will report"
        )


def hold_out(split: Split, *, validation: int, seed: int, keep: np.ndarray | None = None) -> Split:
    """Make a split for tuning from the training set, without the protocol's queries and its other database images.

    The database holds training images in the same proportion as the protocol's, because the settings that are best for finding
    images seen in training needn't be best for finding others.

    Args:
      split: the protocol's split.
      validation: the number of training images to hold out. Half become queries and half go to the database; all become queries
        if the protocol's database is the training set itself.
      seed: the seed for the draw.
      keep: rows of images that aren't held out, int[m]; None: any may be.

    Returns:
      The split; its training set is what remains.

    Raises:
      InputError: nothing would remain.

    Source: this project.
    """
    order = np.random.default_rng(seed).permutation(split.train)
    stays = np.isin(order, [] if keep is None else keep)
    most = min(len(order) - 1, int((~stays).sum()))
    if not 2 <= validation <= most:
        raise InputError(
            f"data.validation={validation}: expected 2 to {most}, so that some of the {len(order)} training images remain, or "
            "0 for the protocol's own queries"
        )
    order = np.concatenate([order[~stays], order[stays]])  # the first are held out
    remaining = order[validation:]
    train_share = np.isin(split.database, split.train).sum() / max(len(split.database), 1)  # of the protocol's database
    if train_share == 1:
        return Split(np.sort(order[:validation]), np.sort(remaining), np.sort(remaining))
    half = validation // 2
    with_train = remaining[: round(train_share / (1 - train_share) * (validation - half))]
    return Split(np.sort(order[:half]), np.sort(remaining), np.sort(np.concatenate([order[half:validation], with_train])))


def drop_rows(split: Split, rows: np.ndarray) -> Split:
    """Remove some rows, int[m], from all parts."""
    return Split(*(part[~np.isin(part, rows)] for part in split))


def sha256(split: Split, *, name: str, labels: Labels, names: Names | None) -> str:
    """Hash a split: two hashes are equal only for the same rows, labels and names in the same order.

    Args:
      split: rows of the source.
      name: the protocol's name.
      labels: the labels of all images of the source.
      names: the names of these images, if they have any.

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
