"""The manifest of a split: what is none is refused, another split is told, and so is each thing that differs."""

import json

import pytest

from adsq_jax.data import manifest
from adsq_jax.errors import InputError

SPLIT, OTHER = "0123456789abcdef" * 4, "f" * 64
CONTENT = {
    "data": "coco",
    "reader": "files",
    "protocol": "coco",
    "split_seed": 0,
    "validation": 0,
    "split_sha256": SPLIT,
    "n_skipped": 0,
    "n_query": 5,
    "n_train": 10,
    "n_database": 20,
    "classes": ["cat", "dog"],
    "names": True,
    "bad_images": [{"row": 3, "name": "a.jpg", "why": "/data/a.jpg is missing; fix: restore it"}],
    "images_sha256": "a" * 64,
}


def changed(**changes):
    return {**CONTENT, **changes}


def without(*keys):
    return {key: value for key, value in CONTENT.items() if key not in keys}


def write(folder, content):
    path = folder / "manifest.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def error_of(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize(
    "content", [CONTENT, changed(bad_images=[]), changed(more={"of": ["what", 1, None]}), without("n_query")]
)
def test_read(tmp_path, content):
    """A manifest is read with all its entries, known or not."""
    assert manifest.read(write(tmp_path, content)) == content


def test_a_long_value_is_cut_in_messages(tmp_path):
    text = error_of(manifest.check_origin, {"data": "x" * 10**6}, path="m.json", data="digits")
    assert len(text) < 300


def test_read_names_of_any_alphabet(tmp_path):
    """Names in UTF-8, as in JSON's escapes, are read."""
    content = changed(classes=["Käfer", "猫"])
    for ascii_only in (True, False):
        assert manifest.read(write(tmp_path, json.dumps(content, ensure_ascii=ascii_only).encode())) == content


def test_missing_manifest(tmp_path):
    """A manifest that isn't there, or is a folder, is named, with what the system says and where manifests come from."""
    for path in (tmp_path / "none.json", tmp_path):
        text = error_of(manifest.read, path)
        assert f"{path} is not a file, or has more than 1024 MiB" in text
        assert "adsq data" in text


def test_manifest_without_permission(tmp_path, monkeypatch):
    """A manifest that may not be read is named, with what the system says."""

    def fails(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, CONTENT)
    monkeypatch.setattr("pathlib.Path.open", fails)
    monkeypatch.setattr("pathlib.Path.read_text", fails)
    monkeypatch.setattr("pathlib.Path.read_bytes", fails)
    assert f"{path} can't be read (Permission denied)" in error_of(manifest.read, path)


NO_MANIFESTS = {
    "empty": b"",
    "text": b"no manifest\n",
    "cut": json.dumps(CONTENT).encode()[:-20],
    "no UTF-8": b'{"split_sha256": "\xff\xfe"}',
    "zeros": bytes(100),
    "UTF-16": json.dumps(CONTENT).encode("utf-16"),
    "deep": b"[" * 100_000,
    "list": [CONTENT],
    "number": 7,
    "text in JSON": "manifest",
    "null": None,
    "of codes": {"codes": 1},
    "no hash": without("split_sha256"),
    "no bad images": without("bad_images"),
    "short hash": changed(split_sha256="0123"),
    "hash as a number": changed(split_sha256=64),
    "hash as null": changed(split_sha256=None),
    "hash as a list": changed(split_sha256=["0"] * 64),
    "bad images as a number": changed(bad_images=3),
    "bad images as null": changed(bad_images=None),
    "bad images as a text": changed(bad_images="none"),
    "bad images as numbers": changed(bad_images=[3]),
    "bad images without rows": changed(bad_images=[{"name": "a.jpg"}]),
    "row as a text": changed(bad_images=[{"row": "3"}]),
    "row as true": changed(bad_images=[{"row": True}]),
    "row with a point": changed(bad_images=[{"row": 3.0}]),
    "row below zero": changed(bad_images=[{"row": -1}]),
    "row of no array": changed(bad_images=[{"row": 2**63}]),
    "row as null": changed(bad_images=[{"row": None}]),
}


@pytest.mark.parametrize("kind", NO_MANIFESTS)
def test_no_manifest(tmp_path, kind):
    """Anything that isn't a manifest is refused with its path, and with where manifests come from."""
    path = write(tmp_path, NO_MANIFESTS[kind])
    text = error_of(manifest.read, path)
    assert f"{path} is not a manifest of a split" in text
    assert "adsq data" in text


def test_check(tmp_path):
    """The manifest's split passes; another is told by the beginnings of both hashes, and how to learn what differs."""
    path = tmp_path / "manifest.json"
    manifest.check(CONTENT, SPLIT, path=path)
    text = error_of(manifest.check, CONTENT, OTHER, path=path)
    assert all(word in text for word in (SPLIT[:12], OTHER[:12], str(path), f"--verify={path}"))
    assert text.index(OTHER[:12]) < text.index(SPLIT[:12])  # the data's, then the manifest's


def test_check_of_almost_the_same_hash(tmp_path):
    """A hash that differs in its last digit is another."""
    error_of(manifest.check, CONTENT, SPLIT[:-1] + "0", path=tmp_path)


def test_nothing_differs():
    """The same manifest differs in nothing, nor does what says nothing of split or images."""
    assert manifest.differences(CONTENT, CONTENT) == []
    assert manifest.differences(json.loads(json.dumps(CONTENT)), changed(reader="tfds", notes={"files": 3})) == []


DIFFERENT = {
    "data": "nuswide",
    "protocol": "coco-lists",
    "split_seed": 1,
    "validation": 4,
    "n_query": 6,
    "n_train": 11,
    "n_database": 21,
}


@pytest.mark.parametrize("key", DIFFERENT)
def test_one_key_differs(key):
    """Each number and name that differs is told with what it is there and here, and nothing else is, the hash neither."""
    ours = changed(**{key: DIFFERENT[key], "split_sha256": OTHER})
    assert manifest.differences(CONTENT, ours) == [f"{key} is {CONTENT[key]!r} there and {DIFFERENT[key]!r} here"]
    assert manifest.differences(ours, CONTENT) == [f"{key} is {DIFFERENT[key]!r} there and {CONTENT[key]!r} here"]


@pytest.mark.parametrize("classes", [["cat"], ["dog", "cat"], ["cat", "dog", "cow"]])
def test_classes_differ(classes):
    """Classes that differ, in their order too, are told, and not listed: they may be a thousand."""
    assert manifest.differences(CONTENT, changed(classes=classes, split_sha256=OTHER)) == ["classes differ"]


def test_several_keys_differ():
    """All that differs is told, in a fixed order, what the data are first."""
    found = manifest.differences(CONTENT, changed(n_train=11, data="nuswide", classes=[], split_sha256=OTHER))
    assert [text.split()[0] for text in found] == ["data", "n_train", "classes"]


@pytest.mark.parametrize("key", [*DIFFERENT, "classes"])
def test_key_that_is_missing(key):
    """An entry that an older manifest lacks counts as different."""
    found = manifest.differences(without(key), CONTENT)
    assert len(found) == 1
    assert found[0].startswith(f"{key} ")


@pytest.mark.parametrize(
    ("names", "says"), [(True, "labels, names, or order of the images"), (False, "labels or order of the images")]
)
def test_only_the_hash_differs(names, says):
    """If all else is the same and the hash isn't, the reason is in labels, order, or names, if there are any."""
    assert manifest.differences(CONTENT, changed(names=names, split_sha256=OTHER)) == [f"{says} differ"]


def test_images_differ():
    """Images of other content are told, beside what else differs."""
    ours = changed(images_sha256="b" * 64)
    assert manifest.differences(CONTENT, ours) == ["the content of some images differs"]
    assert manifest.differences(CONTENT, {**ours, "n_query": 6})[1:] == ["the content of some images differs"]


@pytest.mark.parametrize("theirs", [changed(images_sha256=None), without("images_sha256"), CONTENT])
def test_images_that_one_did_not_read(theirs):
    """If one of the two didn't read the images, their content can't differ."""
    assert manifest.differences(theirs, changed(images_sha256=None)) == []


def test_bad_images_differ():
    """Other bad images are a difference: another row, one more, or none."""
    entry = CONTENT["bad_images"][0]
    for bad in ([], [entry, {**entry, "row": 4}], [{**entry, "row": 4}]):
        assert manifest.differences(CONTENT, changed(bad_images=bad)) == ["other images are missing or unreadable"]


def test_bad_images_in_another_folder():
    """The same images, bad for the same reason in a folder of another name, are no difference."""
    entry = {**CONTENT["bad_images"][0], "why": "/home/elsewhere/coco/a.jpg is missing; fix: restore it"}
    assert manifest.differences(CONTENT, changed(bad_images=[entry])) == []


def test_bad_images_of_one_that_did_not_read():
    """If the images weren't read here, an empty list of bad images isn't a difference."""
    assert manifest.differences(CONTENT, changed(images_sha256=None, bad_images=[])) == []
    assert manifest.differences(changed(images_sha256=None, bad_images=[]), CONTENT) == []
