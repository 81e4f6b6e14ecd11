"""Locations: what can't hold an index is refused, and nothing there is changed."""

import sys

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


def test_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for name in ("file", "file/below"):
        with pytest.raises(InputError, match=r"can't be|holds no index"):
            index.create(str(tmp_path / name), MANIFEST)
        with pytest.raises(InputError, match="holds no index"):
            index.open_index(str(tmp_path / name))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("missing", ["lancedb", "faiss"])
def test_without_the_extra(tmp_path, monkeypatch, missing):
    """The message says what to install."""
    monkeypatch.delitem(sys.modules, "adsq_jax.index.embedded", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"pip install -e '.\[index\]'") as raised:
        index.create(str(tmp_path / "index"), MANIFEST)
    assert missing in str(raised.value)
