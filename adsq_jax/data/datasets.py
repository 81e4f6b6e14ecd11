"""Data sets by name: a source, divided by a protocol."""

from typing import NamedTuple

import numpy as np

from adsq_jax.data import protocols, sources
from adsq_jax.data.sources import Source
from adsq_jax.errors import InputError

# Data sets whose protocol is settled and whose reader is not: what to get, from where, and where to put it.
_NO_READER = {
    "cifar10": "get cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it to {directory}",
    "nuswide": "get NUS-WIDE's labels, concept and image lists, and the images that its URLs lead to, from https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/"
    "nuswide/NUS-WIDE.html and unpack them to {directory}",
    "imagenet100": "get ILSVRC2012's training and validation images from https://image-net.org/download (an account is "
    "needed) and unpack them to {directory}/train/SYNSET/ and {directory}/val/SYNSET/",
}
PROTOCOLS_OF = {  # each data set, and the protocols that divide it
    "digits": ("digits",),
    "fashion_mnist": ("fashion_mnist",),
    "cifar10": ("cifar10", "cifar10-1", "cifar10-2"),
    "nuswide": ("nuswide", "nuswide-81"),
    "imagenet100": ("imagenet100",),
}


class Dataset(NamedTuple):
    """A source with its split, and all that a result says of them."""

    source: Source
    split: protocols.Split
    protocol: str  # its name
    split_sha256: str
    map_at: str  # the protocol's cutoff: "all" or a number
    validation: int  # training images held out for tuning; 0: the protocol's own queries and database


def load(*, name: str, directory: str, protocol: str, split_seed: int, validation: int) -> Dataset:
    """Opens a data set and divides it.

    Args:
      name: one of PROTOCOLS_OF.
      directory: where its files are.
      protocol: one of that data set's.
      split_seed: of the draw.
      validation: see `Dataset`.

    Returns:
      The data set.

    Raises:
      InputError: the data are missing, damaged or too few; the text says what to get and where to put it.
    """
    if name in _NO_READER:
        raise InputError(
            f"{name} has no reader in this version yet, wherever its images are. For the version that will have one: "
            + _NO_READER[name].format(directory=directory)
        )
    source = sources.digits() if name == "digits" else sources.fashion_mnist(directory)
    settings = protocols.PROTOCOLS[protocol]
    split = protocols.split_by_class(source.labels, settings, seed=split_seed)
    return divided(source, split, protocol=protocol, validation=validation, seed=split_seed)


def divided(source: Source, split: protocols.Split, *, protocol: str, validation: int, seed: int) -> Dataset:
    """Puts a source and a protocol's split together, with a part held out if asked for."""
    if validation:
        split = protocols.hold_out(split, validation=validation, seed=seed)
    return Dataset(
        source=source,
        split=split,
        protocol=protocol,
        split_sha256=protocols.sha256(split, name=protocol, labels=source.labels),
        map_at=protocols.PROTOCOLS[protocol].map_at,
        validation=validation,
    )


def labels_of(dataset: Dataset, part: str) -> np.ndarray:
    """Labels of `query`, `train` or `database`, uint8[n, c]."""
    return dataset.source.labels[getattr(dataset.split, part)]
