"""Harder data than a benchmark's: noisy labels, few of them, and classes that training hasn't seen."""

import copy
from typing import NamedTuple

import numpy as np

from adsq_jax.data.datasets import Dataset
from adsq_jax.data.labels import Labels
from adsq_jax.errors import InputError

NAMES = {
    "noise20": "a fifth of the training images have the labels of others among them, which may be the same",
    "noise40": "two fifths of the training images have the labels of others among them, which may be the same",
    "few100": "training images in a drawn order, each left out if all of its classes have 100 already",
    "few50": "training images in a drawn order, each left out if all of its classes have 50 already",
    "few20": "training images in a drawn order, each left out if all of its classes have 20 already",
    "unseen": "no training image of a quarter of the classes; queries, database and relevance are of these alone",
}
SEED = 0  # of what a condition draws: the same for all methods and seeds


class Pair(NamedTuple):
    """What is trained on, and what is measured on; images and rows of the training set are the same."""

    trained: Dataset
    measured: Dataset


def apply(condition: str, dataset: Dataset) -> Pair:
    """Changes a data set.

    Args:
      condition: one of NAMES, which say what it is, or "" for the data set as it is.
      dataset: as loaded.

    Returns:
      The changed ones. The split's hash stays that of the whole.

    Raises:
      InputError: there is no such condition.
    """
    random = np.random.default_rng(SEED)
    if not condition:
        return Pair(dataset, dataset)
    check(condition)
    labels = dataset.source.labels[np.arange(len(dataset.source))]
    if condition.startswith("noise"):
        return Pair(relabelled(dataset, noisy(labels, dataset.split.train, int(condition[5:]) / 100, random)), dataset)
    if condition.startswith("few"):
        rows = few(labels, dataset.split.train, int(condition[3:]), random)
        fewer = dataset._replace(split=dataset.split._replace(train=rows))
        return Pair(fewer, fewer)
    return unseen(dataset, labels, random)


def check(condition: str) -> None:
    """Says that there is a condition of this name.

    Raises:
      InputError: there is none.
    """
    if condition not in NAMES:
        raise InputError(f"no condition {condition!r}: give {', '.join(NAMES)}")


def relabelled(dataset: Dataset, labels: np.ndarray) -> Dataset:
    """The same images with other labels, uint8[n, c]."""
    source = copy.copy(dataset.source)
    source.labels = Labels.from_multi_hot(labels)
    return dataset._replace(source=source)


def noisy(labels: np.ndarray, train: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Labels of which a share of the training images' are handed round among these images."""
    wrong = random.choice(train, round(share * len(train)), replace=False)
    changed = labels.copy()
    changed[wrong] = labels[np.roll(wrong, 1)]
    return changed


def few(labels: np.ndarray, train: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """Training rows in a drawn order, each taken unless all of its classes have enough."""
    count = np.zeros(labels.shape[1], int)
    taken = []
    for row in random.permutation(train):
        if ((labels[row] > 0) & (count < most)).any():
            taken.append(row)
            count += labels[row]
    return np.sort(np.array(taken))


def unseen(dataset: Dataset, labels: np.ndarray, random: np.random.Generator) -> Pair:
    """Training without a quarter of the classes, measured on these."""
    held = np.zeros(labels.shape[1], bool)
    held[random.permutation(len(held))[: len(held) // 4]] = True
    of_held = labels[:, held].any(axis=1)
    split = dataset.split
    train = split.train[~of_held[split.train]]
    query, database = (rows[of_held[rows]] for rows in (split.query, split.database))
    changed = dataset._replace(split=split._replace(query=query, train=train, database=database))
    return Pair(changed, relabelled(changed, labels * held.astype(np.uint8)[None, :]))
