"""The engines that the contract is held against: how to make, open and count the indexes of each."""

import hashlib
import uuid
from collections.abc import Callable
from typing import NamedTuple

from adsq_jax import index


class Engine(NamedTuple):
    """An engine, with places of its own for a test."""

    place: Callable[[str], str]  # from a name, where an index of that name is

    def create(self, name="index", *, bits=64, model_sha256="m" * 64, model=""):
        return index.create(self.place(name), index.Manifest(bits, model_sha256, model))

    def open(self, name="index"):
        return index.open_index(self.place(name))


def embedded(folder):
    return Engine(place=lambda name: str(folder / name))


def milvus(server, *, prefix="test"):
    own = f"{prefix}_{uuid.uuid4().hex}"  # of collections, whose names take letters and digits only
    return Engine(place=lambda name: f"{server}/{own}_{hashlib.sha256(name.encode()).hexdigest()[:8]}")
