"""Data sets by name: what loads, what says where to get it, and what holding out changes."""

import numpy as np
import pytest

from adsq_jax.data import datasets, protocols, sources
from adsq_jax.errors import InputError


def load(name="digits", *, directory="", protocol="digits", split_seed=0, validation=0):
    return datasets.load(name=name, directory=directory, protocol=protocol, split_seed=split_seed, validation=validation)


@pytest.mark.parametrize(
    ("name", "protocol", "address"),
    [
        ("cifar10", "cifar10", "https://www.cs.toronto.edu/~kriz/cifar.html"),
        ("nuswide", "nuswide", "https://lms.comp.nus.edu.sg/"),
        ("imagenet100", "imagenet100", "https://image-net.org/download"),
    ],
)
def test_data_that_must_be_fetched(name, protocol, address, tmp_path):
    """A data set without a reader says where to get it and into which folder it belongs, in one line."""
    with pytest.raises(InputError) as caught:
        load(name, directory=str(tmp_path / "images"), protocol=protocol)
    text = str(caught.value)
    assert address in text
    assert str(tmp_path / "images") in text
    assert "\n" not in text


def test_names_are_covered():
    """Every name either loads or is one of those that say where to get the data."""
    assert set(datasets.PROTOCOLS_OF) == {"digits", "fashion_mnist", "cifar10", "nuswide", "imagenet100"}


def test_digits():
    """Digits come with the protocol's split, its cutoff, and the hash of that very split."""
    dataset = load()
    split = protocols.split_by_class(sources.digits().labels, protocols.PROTOCOLS["digits"], seed=0)
    for found, wanted in zip(dataset.split, split, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert len(dataset.source) == 1797
    assert (dataset.protocol, dataset.map_at, dataset.validation) == ("digits", "all", 0)
    assert dataset.split_sha256 == protocols.sha256(split, name="digits", labels=sources.digits().labels)


def test_seed_changes_split_and_hash():
    """Another seed is another split with another hash; the same seed is the same."""
    one, other, again = load(split_seed=0), load(split_seed=1), load(split_seed=0)
    assert one.split_sha256 == again.split_sha256 != other.split_sha256
    assert set(one.split.query) != set(other.split.query)


def test_validation_changes_split_and_hash():
    """With images held out, queries and database come from the training set, and the hash says so."""
    whole, held = load(), load(validation=200)
    assert held.split_sha256 != whole.split_sha256
    assert held.validation == 200
    assert [len(rows) for rows in held.split] == [100, 800, 100]
    assert set(np.concatenate(held.split).tolist()) == set(whole.split.train.tolist())


def test_fashion_mnist_reads_its_directory(tmp_path):
    """The directory reaches the reader: an empty one is an error that names it."""
    with pytest.raises(InputError, match=str(tmp_path)):
        load("fashion_mnist", directory=str(tmp_path), protocol="fashion_mnist")


@pytest.mark.parametrize("part", ["query", "train", "database"])
def test_labels_of(part):
    """Labels of a part are those of its images, in the order of its rows."""
    dataset = load()
    rows = getattr(dataset.split, part)
    expected = np.stack([dataset.source[int(row)]["label"] for row in rows])
    np.testing.assert_array_equal(datasets.labels_of(dataset, part), expected)
