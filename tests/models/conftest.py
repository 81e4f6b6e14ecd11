"""Fixtures of the tests of weight files."""

import tracemalloc

import pytest


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
