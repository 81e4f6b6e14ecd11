"""The folders that an index was filled from: recorded by encoding alone, and read back only as they were written."""

import json
import types

import pytest

from adsq_jax import encode, index
from adsq_jax.errors import InputError
from adsq_jax.index import roots


def opened(folder):
    return types.SimpleNamespace(location=str(folder))


def test_encoding_records_its_folders(colours, tmp_path):
    """Each once, of folders and lists; also for images that the index has already."""
    pictures, run = colours
    (tmp_path / "list.txt").write_text("red/00.png 1 0\nblue/00.png 0 1\n")
    for images in (pictures / "red", pictures / "red", pictures / "blue"):
        encode.encode_images(run, images, index=tmp_path / "index")
    with index.open_index(tmp_path / "index") as some:
        assert roots.read(some) == (f"{pictures}/red/", f"{pictures}/blue/")
    encode.encode_images(run, tmp_path / "list.txt", directory=str(pictures), index=tmp_path / "index")
    with index.open_index(tmp_path / "index") as some:
        assert roots.read(some) == (f"{pictures}/red/", f"{pictures}/blue/", f"{pictures}/")


def test_an_index_on_a_server_and_an_old_one_have_none(tmp_path):
    server = opened("http://127.0.0.1:19530/pictures")
    roots.record(server, "/pictures/")
    assert roots.read(server) == ()
    assert roots.read(opened(tmp_path)) == ()


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "[" * 10_000, '{"format": 1}', '{"format": 2, "roots": []}', '{"format": 1, "roots": "/"}'),
        *('{"format": 1, "roots": [7]}', '{"format": 1, "roots": ["relative/"]}', '{"format": 1, "roots": ["/no end"]}'),
        *('{"format": 1, "roots": ["/a\\u0000/"]}', '{"format": 1, "roots": ["ftp://host/"]}'),
        json.dumps({"format": 1, "roots": ["/a/"] * 1_001}),
        json.dumps({"format": 1, "roots": [f"/{'a' * 5_000}/"]}),
    ],
)
def test_a_record_that_was_changed(tmp_path, content):
    """One line; nothing is added to it either."""
    (tmp_path / ".roots.json").write_text(content)
    for use in (lambda: roots.read(opened(tmp_path)), lambda: roots.record(opened(tmp_path), "/b/")):
        with pytest.raises(InputError, match=r"\.roots\.json is not a list of the index's folders; fix: remove it"):
            use()
    assert (tmp_path / ".roots.json").read_text() == content


def test_a_record_that_cannot_be_written(tmp_path):
    """A folder in its place, too many roots, one that is too long."""
    (tmp_path / "a" / ".roots.json").mkdir(parents=True)
    with pytest.raises(InputError, match="is not a list"):
        roots.record(opened(tmp_path / "a"), "/b/")
    with pytest.raises(InputError, match=r"can't be recorded.*encode into a new index"):
        roots.record(opened(tmp_path), f"/{'a' * 5_000}/")
    with pytest.raises(InputError, match="can't be written"):
        roots.record(opened(tmp_path / "nowhere"), "/b/")
