"""ImageNet-100: the folders of HashNet's hundred synsets, and what is said of each way that they can be wrong."""

import os

import numpy as np
import pytest
from PIL import Image
from support import mock_data

from adsq_jax.data.readers import imagenet100
from adsq_jax.errors import InputError

SYNSETS = imagenet100.synsets()


def colour(part, synset):
    return (200 if part == "train" else 20, int(synset[-2:]), int(synset[-4:-2]))


@pytest.fixture
def directory(tmp_path):
    """Each of the hundred synsets with one picture a part, two in the training part of the first, and a synset too many."""
    for part in ("train", "val"):
        for synset in [*SYNSETS, "n01440764"]:
            (tmp_path / part / synset).mkdir(parents=True)
            Image.new("RGB", (6, 4), colour(part, synset)).save(tmp_path / part / synset / f"{synset}_7.JPEG", quality=95)
    Image.new("RGB", (5, 5)).save(tmp_path / "train" / SYNSETS[0] / f"{SYNSETS[0]}_10.JPEG")
    return tmp_path


def error_of(directory):
    with pytest.raises(InputError) as caught:
        imagenet100.read(directory)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def names_of(source):
    return [source.names[i] for i in range(len(source))]


def test_list_of_synsets():
    """The list is a hundred different WordNet ids, sorted."""
    assert len(set(SYNSETS)) == 100
    assert sorted(SYNSETS) == SYNSETS
    assert all(synset[0] == "n" and len(synset) == 9 and synset[1:].isdigit() for synset in SYNSETS)


def test_rows_labels_parts_and_pixels(directory):
    """Rows are those of a plain search, training part first, by synset and name, with the synset as label; others are left."""
    source = imagenet100.read(directory)
    wanted = [
        path.relative_to(directory).as_posix()
        for part in ("train", "val")
        for path in sorted((directory / part).glob("*/*.JPEG"))
        if path.parent.name in SYNSETS
    ]
    assert len(wanted) == 201
    assert names_of(source) == wanted
    assert wanted[:2] == ["train/n01514668/n01514668_10.JPEG", "train/n01514668/n01514668_7.JPEG"]
    assert list(source.classes) == SYNSETS
    assert [source.classes[k] for k in source.labels.ids(np.arange(201))] == [name.split("/")[1] for name in wanted]
    np.testing.assert_array_equal(source.parts["train"], np.arange(101))
    np.testing.assert_array_equal(source.parts["validation"], np.arange(101, 201))
    assert {rows.dtype for rows in source.parts.values()} == {np.dtype(np.int64)}
    for i in (1, 60, 101, 200):
        part, synset, _ = wanted[i].split("/")
        np.testing.assert_allclose(source[i]["image"], np.broadcast_to(colour(part, synset), (4, 6, 3)), atol=3)
    assert source.notes == {}


def test_other_files_are_counted(directory):
    """Files that are no pictures by their extension are left out and counted."""
    (directory / "train" / SYNSETS[3] / "list.txt").touch()
    (directory / "val" / SYNSETS[4] / "x.xml").touch()
    source = imagenet100.read(directory)
    assert len(source) == 201
    assert source.notes == {"files .txt, not read": 1, "files .xml, not read": 1}


@pytest.mark.parametrize("part", ["train", "val"])
def test_missing_synset(directory, part):
    """A synset that has no folder is named, with where to get it."""
    path = directory / part / SYNSETS[42]
    (path / f"{SYNSETS[42]}_7.JPEG").unlink()
    path.rmdir()
    text = error_of(directory)
    assert f"{path} is missing; fix: get ILSVRC2012_img_train.tar" in text
    assert "https://image-net.org/download" in text
    assert f"{directory}/{part}/SYNSET/" in text


def test_missing_everything(tmp_path):
    """If many folders are missing, the message names the first and counts the rest."""
    assert f"{tmp_path / 'train' / SYNSETS[0]} is missing, and 99 more of 100 synsets; fix: get" in error_of(tmp_path)


def test_empty_synset(directory):
    """A synset's folder without a picture is named."""
    path = directory / "val" / SYNSETS[99]
    (path / f"{SYNSETS[99]}_7.JPEG").unlink()
    text = error_of(directory)
    assert f"{path} holds no picture; fix: get ILSVRC2012_img_train.tar" in text


def test_flat_validation(directory):
    """Validation images that aren't in folders yet have to be sorted, by the script that everyone uses."""
    for synset in SYNSETS:
        (directory / "val" / synset / f"{synset}_7.JPEG").unlink()
        (directory / "val" / synset).rmdir()
    (directory / "val" / "ILSVRC2012_val_00000001.JPEG").touch()
    text = error_of(directory)
    assert f"{directory / 'val'} holds the validation images in one folder: expected {directory / 'val'}/SYNSET/" in text
    assert "valprep.sh" in text


def test_packed_synsets(directory):
    """If the archive of a synset lies unpacked from the archive of all, it is to be unpacked too."""
    path = directory / "train" / SYNSETS[0]
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    (directory / "train" / f"{SYNSETS[0]}.tar").touch()
    text = error_of(directory)
    assert (
        f"{path} is missing; fix: unpack each SYNSET.tar in {directory / 'train'} to its own folder, {SYNSETS[0]}.tar" in text
    )


def test_full_size(tmp_path):
    """Folders of the published sizes give 128,503 training images and 5,000 validation images, in the order of their names."""
    sizes = {"train": np.diff(np.linspace(0, 128_503, 101).astype(int)), "val": np.full(100, 50)}
    for part, counts in sizes.items():
        for synset, count in zip(SYNSETS, counts, strict=True):
            folder = tmp_path / part / synset
            folder.mkdir(parents=True)
            for i in range(count):
                os.mknod(folder / f"{synset}_{i}.JPEG")
    source = imagenet100.read(tmp_path)
    assert len(source) == 133_503
    assert {part: len(rows) for part, rows in source.parts.items()} == {"train": 128_503, "validation": 5_000}
    np.testing.assert_array_equal(source.labels.per_class(source.parts["train"]), sizes["train"])
    np.testing.assert_array_equal(source.labels.per_class(source.parts["validation"]), 50)
    assert source.names.unique().all()
    joined = source.names.joined.split(b"\n")
    assert sorted(joined) == joined
    assert len(source.missing(source.parts["validation"])) == 0


# Starts an object store, and uploads all pictures.
@pytest.mark.slow
def test_in_a_store(directory, bucket):
    """The folders of the synsets in an object store are read as those on a disk."""
    mock_data.assert_same(imagenet100.read(directory), imagenet100.read(mock_data.upload(directory, f"{bucket}/imagenet100")))
