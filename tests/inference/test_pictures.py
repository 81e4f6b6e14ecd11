"""Pictures that data name are opened below known folders alone, with the user's credentials only if the user says so."""

import os
import shutil

import pytest
from support import mock_data

from adsq_jax import encode, index, storage
from adsq_jax.data.images import BadImage
from adsq_jax.errors import InputError
from adsq_jax.inference import hits, pictures


@pytest.fixture
def folders(colours, tmp_path):
    """A folder of pictures, and one beside it that nobody may see."""
    shutil.copytree(colours[0] / "red", tmp_path / "shown")
    shutil.copytree(colours[0] / "blue", tmp_path / "secret")
    return tmp_path / "shown", tmp_path / "secret"


def allowed(*folders):
    return pictures.allow(map(str, folders), hint="only some are; fix: --pictures=FOLDER")


def test_pictures_below_a_folder_are_read(folders):
    """At any depth, by links inside the folder, and if the folder itself is a link."""
    shown, _ = folders
    (shown / "below").mkdir()
    os.rename(shown / "01.png", shown / "below" / "01.png")
    (shown / "link.png").symlink_to("below/01.png")
    (shown.parent / "other").symlink_to(shown)
    for places in (allowed(shown), allowed(shown.parent / "other"), allowed("/nowhere", shown), allowed("/")):
        for name in ("00.png", "below/01.png", "link.png"):
            for folder in (shown, shown.parent / "other"):
                assert pictures.read(f"{folder}/{name}", places) == (shown / name).read_bytes()


def test_nothing_else_is_opened(folders, monkeypatch):
    """Files beside the folder, however they are named; links that lead out; relative paths, other schemes, and no text."""
    shown, secret = folders
    (shown / "link.png").symlink_to(secret / "00.png")
    (shown / "folder").symlink_to(secret)
    (shown / "up").symlink_to("..")
    (shown.parent / "shown_too").mkdir()
    shutil.copy(secret / "00.png", shown.parent / "shown_too" / "00.png")
    monkeypatch.chdir(shown)
    names = [f"{secret}/00.png", f"{shown}/../secret/00.png", f"{shown}/link.png", f"{shown}/folder/00.png"]
    names += [f"{shown}/up/secret/00.png", f"{shown.parent}/shown_too/00.png", "00.png", "./00.png", "", ".", "/", str(shown)]
    names += [f"{shown}/\0", f"\0{shown}/00.png", f"file://{shown}/00.png", f"FILE://{shown}/00.png", "http://127.0.0.1/x.png"]
    names += ["s3://bucket/x.png", "gs://bucket/x.png", "S3://bucket/x.png", "tfds:digits#3", "~/x.png"]
    names += [f"/proc/self/root{secret}/00.png", f"{shown}/{'../' * 2_000}etc/passwd"]
    places = allowed(shown)
    assert pictures.outside(names, places) == sum(name.startswith("/") or "://" in name for name in names)
    for name in names:
        with pytest.raises(BadImage, match="isn't shown: only some are"):
            pictures.read(name, places)
        assert hits.thumbnail(name, places) is None
    for name in (f"{shown}/00.png", f"{secret}/00.png"):
        assert hits.thumbnail(name, allowed()) is None


def test_a_place_in_a_store(bucket, colours, monkeypatch):
    """Below it objects are read; no other object, and none without it: no client is even made."""
    mock_data.upload(colours[0] / "red", f"{bucket}/pictures/red")
    places = allowed(f"{bucket}/pictures")
    assert pictures.read(f"{bucket}/pictures/red/00.png", places) == (colours[0] / "red" / "00.png").read_bytes()
    assert hits.thumbnail(f"{bucket}/pictures/red/00.png", places) is not None
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_client", lambda scheme: pytest.fail("a store was asked"))
        for name in ("pictures/../secret/00.png", "pictures//00.png", "pictures_too/00.png", "00.png"):
            assert hits.thumbnail(f"{bucket}/{name}", places) is None
        for name in (f"{bucket}/pictures/red/00.png", "s3://other/pictures/red/00.png"):
            assert hits.thumbnail(name, allowed(colours[0])) is None


def test_the_places_of_an_index(folders, colours, tmp_path):
    """Those that it was filled from; those that the user names, in their place; none of an index from before."""
    shown, secret = folders
    encode.encode_images(colours[1], shown, index=tmp_path / "index")
    with index.open_index(tmp_path / "index") as opened:
        own = pictures.places(opened, folders=[], remote=False)
        assert own.folders == (f"{shown}/",)
        assert "fix: give others with --pictures=FOLDER" in own.hint
        assert pictures.places(opened, folders=[str(secret), str(shown)], remote=False).folders == (f"{secret}/", f"{shown}/")
        for missing in ("/nowhere", f"{secret}/00.png", "", "a\0b"):
            with pytest.raises(InputError, match=r"--pictures=.* isn't there: expected a folder"):
                pictures.places(opened, folders=[missing], remote=False)
        (tmp_path / "index" / ".roots.json").unlink()
        before = pictures.places(opened, folders=[], remote=False)
        assert before.folders == ()
        assert f"{tmp_path}/index doesn't say which folders its pictures come from" in before.hint


def test_a_store_that_an_index_names(tmp_path, colours):
    """Is one of its places only with the flag."""
    model_sha256 = "0" * 64
    with index.create(tmp_path / "index", index.Manifest(8, model_sha256)) as opened:
        for root in (f"{tmp_path}/", "s3://bucket/pictures/"):
            index.roots.record(opened, root)
        own = pictures.places(opened, folders=[], remote=False)
        assert own.folders == (f"{tmp_path}/",)
        assert "--remote_pictures" in own.hint
        assert pictures.places(opened, folders=[], remote=True).folders == (f"{tmp_path}/", "s3://bucket/pictures/")
