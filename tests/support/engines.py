"""The engines under test: how to make and open the indexes of each."""

import hashlib
import shutil
import uuid
from collections.abc import Callable
from typing import NamedTuple

from adsq_jax import index


class Engine(NamedTuple):
    """An engine, with locations that no other test uses."""

    location: Callable[[str], str]  # of the index with a name
    drop: Callable[[str], None]  # remove what is at a location, as somebody does who doesn't use this package

    def create(self, name="index", *, bits=64, model_sha256="m" * 64, model=""):
        return index.create(self.location(name), index.Manifest(bits, model_sha256, model))

    def remove(self, name="index"):
        self.drop(self.location(name))

    def open(self, name="index"):
        return index.open_index(self.location(name))


def embedded(folder):
    return Engine(location=lambda name: str(folder / name), drop=shutil.rmtree)


def drop_collection(location):
    from launch.milvus import server

    address, _, collection = location.rpartition("/")
    client = server.client(address)
    client.drop_collection(collection)
    client.close()


def milvus(server, *, prefix="test"):
    unique = f"{prefix}_{uuid.uuid4().hex}"  # names of collections have letters, digits and _ only
    return Engine(
        location=lambda name: f"{server}/{unique}_{hashlib.sha256(name.encode()).hexdigest()[:8]}", drop=drop_collection
    )
