"""Locations: what can't hold an index is refused, and nothing there is changed."""

import sys

import numpy as np
import pytest

from adsq_jax import index
from adsq_jax.errors import InputError

MANIFEST = index.Manifest(12, "m" * 64)


@pytest.mark.parametrize("location", ["", "gs://bucket/index", "milvus://host:19530"])
def test_no_folders(location):
    for attempt in (lambda: index.create(location, MANIFEST), lambda: index.open_index(location)):
        with pytest.raises(InputError, match=r"folder|path"):
            attempt()


def test_a_folder_with_other_files(tmp_path):
    """An index isn't made among somebody's pictures."""
    (tmp_path / "cat.jpg").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \('cat.jpg'\)"):
        index.create(str(tmp_path), MANIFEST)
    assert [path.name for path in tmp_path.iterdir()] == ["cat.jpg"]


def test_a_folder_in_another_index(tmp_path):
    """It would be another file there, and nobody could write into the outer one."""
    index.create(str(tmp_path / "outer"), MANIFEST).close()
    (tmp_path / "link").symlink_to(tmp_path / "outer")
    for name in ("outer/inner", "outer/deep/inner", "link/inner"):
        with pytest.raises(InputError, match="is in the folder of another index"):
            index.create(str(tmp_path / name), MANIFEST)
    index.create(str(tmp_path / "outer"), MANIFEST).close()


def test_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for name in ("file", "file/below"):
        with pytest.raises(InputError, match=r"can't be|holds no index"):
            index.create(str(tmp_path / name), MANIFEST)
        with pytest.raises(InputError, match="holds no index"):
            index.open_index(str(tmp_path / name))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A new home and, beside it, a new current folder."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_the_home(home, tmp_path):
    """`~/pics`, which a shell leaves as it is after `--index=`, is the same folder for all: what it holds stays."""
    with index.create(home / "pics", MANIFEST) as opened:
        opened.add([index.Item("/a")], np.zeros((1, 2), np.uint8))
    for location in ("~/pics", "../home/pics", str(home / "pics")):
        with index.create(location, MANIFEST) as opened:
            assert opened.count() == 1
        with index.open_index(location) as opened:
            assert opened.count() == 1
    assert index.copy("~/pics", "~/copied") == (1, 0, 0)
    with index.open_index(home / "copied") as opened:
        assert opened.count() == 1
    assert sorted(path.name for path in home.iterdir()) == ["copied", "pics"]
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("name", ["a%20b", "a?b", "a#b", "~", "a:b", "*", "[a]", "back\\slash", " a ", "file:a", "ä"])
def test_names_that_urls_read_otherwise(home, tmp_path, name):
    """A name is a name: the index lies in the folder that was given."""
    with index.create(f"./{name}", MANIFEST) as opened:
        opened.add([index.Item("/a")], np.zeros((1, 2), np.uint8))
    assert [path.name for path in (tmp_path / "here").iterdir()] == [name]
    with index.open_index(tmp_path / "here" / name) as opened:
        assert opened.count() == 1
    assert not list(home.iterdir())


def test_a_link_and_the_folder_above(home, tmp_path):
    """`LINK/..` is the folder above the one that the link leads to, as the system reads it."""
    (tmp_path / "deep" / "folder").mkdir(parents=True)
    (tmp_path / "here" / "link").symlink_to(tmp_path / "deep" / "folder")
    index.create("link/../index", MANIFEST).close()
    assert (tmp_path / "deep" / "index" / "codes.lance").is_dir()


def test_a_link_to_another_index(tmp_path):
    """Where a link is moved to a new index, as a nightly job may do, a refresh follows it."""
    for name, count in (("old", 1), ("new", 2)):
        with index.create(tmp_path / name, MANIFEST) as opened:
            opened.add([index.Item(f"/{row}") for row in range(count)], np.zeros((count, 2), np.uint8))
    (tmp_path / "link").symlink_to("old")
    with index.open_index(tmp_path / "link") as opened:
        assert opened.count() == 1
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("new")
        opened.refresh()
        assert opened.count() == 2


def test_the_current_folder_is_gone(tmp_path, monkeypatch):
    """A relative location has no meaning then."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    with pytest.raises(InputError, match="the current folder, which was removed"):
        index.create("index", MANIFEST)


@pytest.mark.parametrize("missing", ["lancedb", "faiss"])
def test_without_the_extra(tmp_path, monkeypatch, missing):
    """The message says what to install."""
    monkeypatch.delitem(sys.modules, "adsq_jax.index.embedded", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"pip install 'adsq_jax\[index\]'") as raised:
        index.create(str(tmp_path / "index"), MANIFEST)
    assert missing in str(raised.value)
