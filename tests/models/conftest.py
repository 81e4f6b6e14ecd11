"""Fixtures of the tests of weights."""

import tracemalloc

import numpy as np
import pytest
from support.resnet_weights import torch_arrays

from adsq_jax.models import backbones


@pytest.fixture
def write_file(tmp_path):
    """Return a function that writes bytes to a file and returns its path."""

    def write(content, name="weights.pth"):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return one folder for all examples of a property."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def limited_memory():
    """Fail a test that takes much more memory than its file."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20


@pytest.fixture
def short(monkeypatch):
    """Shorten resnet18 to two blocks, which compile in seconds."""
    published = backbones._PUBLISHED["resnet18"]
    monkeypatch.setitem(backbones._PUBLISHED, "resnet18", published._replace(sizes={**published.sizes, "stages": (1, 1)}))


@pytest.fixture
def short_file(short, tmp_path):
    """Write weights of the shortened resnet18, and return the path."""
    np.savez(tmp_path / "short.npz", **torch_arrays((1, 1)))
    return tmp_path / "short.npz"
