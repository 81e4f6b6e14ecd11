"""Harder conditions than a benchmark's: noisy labels, few training images, and classes that training hasn't seen."""

import copy
from typing import NamedTuple

import numpy as np

from adsq_jax.data.datasets import Dataset
from adsq_jax.data.labels import Labels
from adsq_jax.errors import InputError

NAMES = {
    "noise20": "a fifth of the training images exchange their labels with one another; some get the same label back",
    "noise40": "two fifths of the training images exchange their labels with one another; some get the same label back",
    "few100": "about 100 training images of each class: in random order, an image is left out once all of its classes have 100",
    "few50": "about 50 training images of each class: in random order, an image is left out once all of its classes have 50",
    "few20": "about 20 training images of each class: in random order, an image is left out once all of its classes have 20",
    "unseen": "training leaves out a quarter of the classes, and only these are searched for and searched in",
}
SEED = 0  # of the draws of a condition, the same for all methods and seeds


class Pair(NamedTuple):
    """The data to train on, and the data to measure on; images and rows of the training set are the same in both."""

    trained: Dataset
    measured: Dataset


def apply(condition: str, dataset: Dataset) -> Pair:
    """Put a data set under a condition.

    Args:
      condition: a name of NAMES, or "" for the data set as it is.
      dataset: as loaded.

    Returns:
      The changed data sets, with the split hash of the unchanged one.

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
    """Raise InputError if there is no condition of this name."""
    if condition not in NAMES:
        raise InputError(f"no condition {condition!r}: give {', '.join(NAMES)}")


def relabelled(dataset: Dataset, labels: np.ndarray) -> Dataset:
    """Return the same images with other labels, uint8[n, c]."""
    source = copy.copy(dataset.source)
    source.labels = Labels.from_multi_hot(labels)
    return dataset._replace(source=source)


def noisy(labels: np.ndarray, train: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Return labels in which a share of the training images, drawn at random, have exchanged theirs."""
    wrong = random.choice(train, round(share * len(train)), replace=False)
    changed = labels.copy()
    changed[wrong] = labels[np.roll(wrong, 1)]
    return changed


def few(labels: np.ndarray, train: np.ndarray, most: int, random: np.random.Generator) -> np.ndarray:
    """Return training rows, taken in random order, each unless all of its classes have `most` already."""
    count = np.zeros(labels.shape[1], int)
    taken = []
    for row in random.permutation(train):
        if ((labels[row] > 0) & (count < most)).any():
            taken.append(row)
            count += labels[row]
    return np.sort(np.array(taken))


def unseen(dataset: Dataset, labels: np.ndarray, random: np.random.Generator) -> Pair:
    """Train without a quarter of the classes, and measure on these."""
    held = np.zeros(labels.shape[1], bool)
    held[random.permutation(len(held))[: len(held) // 4]] = True
    has_held = labels[:, held].any(axis=1)
    split = dataset.split
    train = split.train[~has_held[split.train]]
    query, database = (rows[has_held[rows]] for rows in (split.query, split.database))
    changed = dataset._replace(split=split._replace(query=query, train=train, database=database))
    return Pair(changed, relabelled(changed, labels * held.astype(np.uint8)[None, :]))
