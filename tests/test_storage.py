"""Paths of this machine and of object stores: what each text names, and files that are read and written there."""

import errno
import importlib.util
import os
import pickle
from pathlib import Path

import pytest

from adsq_jax import storage
from adsq_jax.errors import InputError


@pytest.mark.parametrize("text", ["runs/one", "/s3/bucket", "gs:/x", "a:b//c", "", "~x", "/gs/x~"])
def test_a_path_of_this_machine(text):
    """What has no scheme is a path of this machine, also where epath would take it for another."""
    found = storage.path(text)
    assert type(found) is type(Path())
    assert found == Path(text)
    assert not storage.is_remote(found)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("~", "{home}"), ("~/a b/~", "{home}/a b/~"), *((text, text) for text in ("./~", "a/~/b", "~no user/a", "~\0"))],
)
def test_the_home(monkeypatch, tmp_path, text, wanted):
    """What a shell expands at the start of a word is expanded here, where the word was a part of `--flag=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.path(text) == Path(wanted.format(home=tmp_path))
    assert storage.expand_home(text) == wanted.format(home=tmp_path)


def test_a_path_of_a_store():
    """Text, name, parent and what is below are those of the store, also in another process."""
    found = storage.path("s3://bucket/runs//one/")
    assert str(found) == os.fspath(found) == "s3://bucket/runs/one"
    assert (found.name, str(found.parent), str(found / "a" / "b.json")) == (
        "one",
        "s3://bucket/runs",
        "s3://bucket/runs/one/a/b.json",
    )
    assert storage.is_remote(found)
    assert str(pickle.loads(pickle.dumps(found))) == str(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hdfs://a/b", "begins with hdfs://: expected a path of this machine, or gs:// or s3://"),
        ("file:///tmp/x", "expected a path of this machine"),
        ("S3://bucket", "expected a path of this machine"),
        ("s3://", "names no bucket: expected s3://BUCKET/FOLDER"),
        ("gs:///", "names no bucket: expected gs://BUCKET/FOLDER"),
    ],
)
def test_no_path(text, said):
    """A store that isn't known, or no bucket, is one line that says what is."""
    with pytest.raises(InputError, match=said) as caught:
        storage.path(text)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "extra"), [("gs://b/x", "gcs"), ("s3://b/x", "s3")])
def test_without_the_package(monkeypatch, text, extra):
    """Where a store's package isn't installed, the error says which extra brings it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"pip install 'adsq_jax\[{extra}\]'"):
        storage.path(text)


def test_files_of_a_store(bucket):
    """What is written is read back, and is a file; sizes, names and folders are told; a second write takes its place."""
    folder = storage.path(bucket) / "a b" / "ä"
    storage.write(folder / "x~", b"12")
    storage.write(folder / "x~", b"123")
    storage.write(folder / "below" / "y", b"")
    assert storage.read(folder / "x~") == b"123"
    assert storage.read(folder / "below" / "y") == b""
    assert storage.size(folder / "x~") == 3
    assert storage.entries(folder) == {"x~": False, "below": True}
    assert storage.is_file(folder / "x~")
    assert not storage.is_file(folder / "below")
    assert not storage.is_file(folder / "z")
    assert list(storage.objects(folder)) == [b"below/y", b"x~"]
    assert storage.objects(folder / "none") == {}


def test_a_large_object(bucket):
    """What is sent in several parts comes back whole."""
    content = os.urandom(1 << 20) * 110  # s3fs sends parts of 50 MiB
    storage.write(storage.path(bucket) / "large", content)
    assert storage.read(storage.path(bucket) / "large") == content


def test_folders_that_tools_make(bucket):
    """Empty objects that stand for folders are no entries of themselves, and no files."""
    import fsspec

    folder = storage.path(bucket) / "pictures"
    for name in ("pictures/", "pictures/cats/"):
        fsspec.filesystem("s3").pipe_file(f"{bucket}/{name}", b"")
    storage.write(folder / "cats" / "1.png", b"1")
    assert storage.entries(folder) == {"cats": True}
    assert list(storage.objects(folder)) == [b"cats/1.png"]


def test_what_others_write_is_seen(bucket):
    """A listing is never an old one."""
    import s3fs

    folder = storage.path(bucket) / "runs"
    storage.write(folder / "a", b"")
    assert storage.entries(folder) == {"a": False}
    other = s3fs.S3FileSystem(anon=False, skip_instance_cache=True)
    other.pipe_file(f"{bucket}/runs/b", b"1")
    assert storage.entries(folder) == {"a": False, "b": False}
    assert storage.is_file(folder / "b")


def test_a_stamp_changes_with_its_object(bucket):
    """Other content of the same size makes another stamp; reading makes none."""
    path = storage.path(bucket) / "x"
    storage.write(path, b"abc")
    before = storage.objects(path.parent)
    storage.read(path)
    assert storage.objects(path.parent) == before
    storage.write(path, b"abd")
    assert storage.objects(path.parent)[b"x"] != before[b"x"]


@pytest.mark.parametrize("function", [storage.read, storage.size, storage.entries])
def test_what_is_not_there(bucket, tmp_path, function):
    """A missing file, folder or bucket is the same error as on a disk, with its path."""
    for path in (tmp_path / "x", storage.path(bucket) / "x", storage.path("s3://no-such-bucket/x")):
        with pytest.raises(FileNotFoundError) as caught:
            function(path)
        assert caught.value.errno == errno.ENOENT
        assert caught.value.strerror
        assert str(caught.value.filename) == str(path)


@pytest.mark.parametrize(
    "function", [storage.read, storage.size, storage.entries, storage.objects, storage.is_file, lambda p: storage.write(p, b"")]
)
def test_a_store_that_refuses(refused, function):
    """Without credentials each call is an OSError with a reason and the path: never "no" or "nothing"."""
    with pytest.raises(OSError, match="Unable to locate credentials") as caught:
        function(storage.path(refused) / "x")
    assert caught.value.filename == f"{refused}/x"
    assert caught.value.errno == errno.EIO


def test_defects_stay_what_they_are(tmp_path):
    """Only errors of a store's client become an OSError, and errors on a disk stay as they are."""
    with pytest.raises(ZeroDivisionError), storage.translate_errors(storage.path("s3://b/x")):
        raise ZeroDivisionError
    error = OSError(5, "x")
    with pytest.raises(OSError) as caught, storage.translate_errors(tmp_path):  # noqa: PT011 - compared below
        raise error
    assert caught.value is error


def test_files_on_a_disk(tmp_path):
    """The same functions on a disk; what is neither file nor folder is no file."""
    (tmp_path / "x~").write_bytes(b"123")
    (tmp_path / "below").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert storage.read(tmp_path / "x~") == b"123"
    assert storage.size(tmp_path / "x~") == 3
    assert storage.entries(tmp_path) == {"x~": False, "below": True, "pipe": False}
    assert [storage.is_file(tmp_path / name) for name in ("x~", "below", "pipe", "none")] == [True, False, False, False]


def test_copies_of_folders(bucket, tmp_path, monkeypatch):
    """Files come to a store, to another folder of it, and back, with their names and bytes; the last one is the last."""
    files = {"a": b"1", "b/c~": b"", "b/d/ä e": bytes(range(256)), ".z": b"4"}
    for name, content in files.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_bytes(content)
    there, written, write = storage.path(bucket) / "one", [], storage.write
    monkeypatch.setattr(storage, "write", lambda path, content: (written.append(path.name), write(path, content)))
    storage.copy_folder(tmp_path / "here", there, last="a")
    assert written[-1] == "a"
    assert len(written) == 4
    storage.copy_folder(there, there.parent / "two")
    storage.copy_folder(there.parent / "two", tmp_path / "back")
    back = tmp_path / "back"
    assert {p.relative_to(back).as_posix(): p.read_bytes() for p in back.rglob("*") if p.is_file()} == files


def test_copies_do_not_lead_out_of_a_folder(bucket, tmp_path):
    """An object whose name has a .. in it is refused."""
    import fsspec

    fsspec.filesystem("s3").pipe_file(f"{bucket}/one/../../x", b"1")
    with pytest.raises(InputError, match="leads out of the folder"):
        storage.copy_folder(storage.path(bucket) / "one", tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
