"""The mapped copy of an index's features: made once a version, made again where it is damaged, never trusted over the table."""

import os

import numpy as np
import pytest

from adsq_jax import index
from adsq_jax.errors import InputError
from adsq_jax.index import Item, Manifest, features_file

SHAPE = (7, 4)
NUMBERS = np.random.default_rng(0).integers(-127, 128, SHAPE).astype(np.int8)


@pytest.fixture
def opened(tmp_path):
    """Return a call of `opened` on a folder, and how often the table was read."""
    reads = []

    def read():
        reads.append(1)
        return [NUMBERS[:3], NUMBERS[3:]]

    def call(identity="1"):
        found = features_file.opened(tmp_path, identity, shape=SHAPE, read=read)
        assert np.array_equal(found, NUMBERS)
        return len(reads)

    return call


def test_it_is_made_once_a_version(opened, tmp_path):
    """The table is read once; another version has another file, and the earlier one goes, though it may still be mapped."""
    assert [opened(), opened()] == [1, 1]
    mapped = features_file.opened(tmp_path, "1", shape=SHAPE, read=lambda: pytest.fail("read again"))
    assert [opened("2"), opened("2"), opened("1")] == [2, 2, 3]
    assert np.array_equal(mapped, NUMBERS)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["changed", "shorter", "longer", "empty", "folder", "pipe"])
def test_a_damaged_copy_is_made_again(opened, tmp_path, damage):
    """A byte that changed, another length, or what is no file: the table is read again."""
    opened()
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    else:
        changed = bytes([content[0] ^ 1]) + content[1:]
        path.write_bytes({"changed": changed, "shorter": content[:-1], "longer": content + b"0", "empty": b""}[damage])
    assert opened() == 2


def test_a_folder_that_cannot_be_written(opened, tmp_path, monkeypatch):
    """The features are kept in memory."""

    def refuse(*given, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(features_file.tempfile, "mkstemp", refuse)
    assert [opened(), opened()] == [1, 2]
    assert not list(tmp_path.iterdir())


def test_a_table_that_lost_features(tmp_path, monkeypatch):
    """Fewer than the index has items are named as damage."""
    with index.create(tmp_path / "index", Manifest(8, "m" * 64, features=4)) as made:
        made.add([Item("/a"), Item("/b")], np.zeros((2, 1), np.uint8), NUMBERS[:2])
        monkeypatch.setattr(features_file, "opened", lambda *given, **more: NUMBERS[:1])
        with pytest.raises(InputError, match=r"is damaged \(features of 1 items\); fix: restore it"):
            made.features([0])
