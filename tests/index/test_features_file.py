"""The mapped copy of an index's features: made once a version, made again where it is damaged, never trusted over the table."""

import os
import time

import numpy as np
import pytest

from adsq_jax import index
from adsq_jax.errors import InputError
from adsq_jax.index import Item, Manifest, checksums, features_file

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


@pytest.mark.parametrize("age", [10, 10_000])
def test_what_a_killed_process_left(opened, tmp_path, age):
    """A part of a file goes after an hour."""
    (tmp_path / ".features-abc.part").write_bytes(b"x")
    os.utime(tmp_path / ".features-abc.part", (time.time() - age,) * 2)
    opened()
    assert (tmp_path / ".features-abc.part").exists() == (age < 3_600)


def test_a_link_is_not_followed(opened, tmp_path):
    """What it leads to isn't read."""
    opened()
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert opened() == 2


def test_a_table_that_is_newer_than_its_checksums(tmp_path, monkeypatch):
    """As after a write that was cut short: features are those of the table's rows, in their new order."""
    with index.create(tmp_path / "index", Manifest(8, "m" * 64, features=4)) as made:
        made.add([Item("/a"), Item("/b"), Item("/c")], np.array([[1], [2], [4]], np.uint8), NUMBERS[:3])
        assert np.array_equal(made.features([0, 1, 2]), NUMBERS[:3])
        monkeypatch.setattr(checksums, "write", lambda *given, **more: pytest.fail("cut short"))
        with pytest.raises(pytest.fail.Exception):
            made.add([Item("/a")], np.array([[8]], np.uint8), NUMBERS[3:4])
        monkeypatch.undo()
    expected = {"/a": NUMBERS[3], "/b": NUMBERS[1], "/c": NUMBERS[2]}
    with index.open_index(tmp_path / "index") as again:
        for key, item in enumerate(again.items([0, 1, 2])):
            assert np.array_equal(again.features([key])[0], expected[item.id])


def test_a_table_that_lost_features(tmp_path, monkeypatch):
    """Fewer than the index has items are named as damage."""
    with index.create(tmp_path / "index", Manifest(8, "m" * 64, features=4)) as made:
        made.add([Item("/a"), Item("/b")], np.zeros((2, 1), np.uint8), NUMBERS[:2])
        monkeypatch.setattr(features_file, "opened", lambda *given, **more: NUMBERS[:1])
        with pytest.raises(InputError, match=r"is damaged \(features of 1 items\); fix: restore it"):
            made.features([0])
