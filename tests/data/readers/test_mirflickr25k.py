"""MIRFlickr-25K: the 24 files of labels, read as NumPy reads them, and what each kind of damage says."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import mock_data

from adsq_jax.data.readers import mirflickr25k
from adsq_jax.errors import InputError

LABELS = [
    "animals",
    "baby",
    "bird",
    "car",
    "clouds",
    "dog",
    "female",
    "flower",
    "food",
    "indoor",
    "lake",
    "male",
    "night",
    "people",
    "plant_life",
    "portrait",
    "river",
    "sea",
    "sky",
    "structures",
    "sunset",
    "transport",
    "tree",
    "water",
]
GET_LABELS = "get mirflickr25k_annotations_v080.zip from https://press.liacs.nl/mirflickr/mirdownload.html"


def write_labels(folder, *, images, seed, share=0.15, skip=()):
    """Files of labels as they are published: a number a line, ascending; and the files _r1, which are to be ignored."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    shown = random.random((images, 24)) < share
    shown[0] = True
    shown[list(skip)] = False
    for k, name in enumerate(LABELS):
        numbers = np.flatnonzero(shown[:, k]) + 1
        (folder / f"{name}.txt").write_text("".join(f"{number}\n" for number in numbers))
    for name in ("baby", "sea"):
        (folder / f"{name}_r1.txt").write_text("1\nnothing to read\n")
    return shown


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Thirty images, one of them (im6.jpg) without a label."""
    monkeypatch.setattr(mirflickr25k, "IMAGES", 30)
    write_labels(tmp_path / "mirflickr25k_annotations_v080", images=30, seed=1, skip=[5])
    (tmp_path / "mirflickr").mkdir()
    for i in range(1, 31):
        Image.new("RGB", (6, 4), (i, 200 - i, 100)).save(tmp_path / "mirflickr" / f"im{i}.jpg", quality=95)
    return tmp_path


def error_of(directory):
    with pytest.raises(InputError) as caught:
        mirflickr25k.read(directory)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_labels_names_and_pixels(directory):
    """Labels are what NumPy reads from the same files; image i + 1 is row i, whether it has a label or not."""
    source = mirflickr25k.read(directory)
    wanted = np.zeros((30, 24), np.uint8)
    for k, name in enumerate(LABELS):
        wanted[np.loadtxt(directory / "mirflickr25k_annotations_v080" / f"{name}.txt", int, ndmin=1) - 1, k] = 1
    np.testing.assert_array_equal(source.labels[:], wanted)
    assert list(source.classes) == LABELS
    assert [source.names[i] for i in range(30)] == [f"im{i}.jpg" for i in range(1, 31)]
    assert not source.labels[5].any()
    bare = int((wanted.sum(axis=1) == 0).sum())
    assert source.notes == {"images without a label": bare}
    for i in range(30):
        np.testing.assert_allclose(source[i]["image"], np.broadcast_to((i + 1, 199 - i, 100), (4, 6, 3)), atol=3)
    assert len(source.missing(np.arange(30))) == 0


def test_other_places(directory):
    """The labels may be in annotations/, and the images in the folder itself: names and labels stay the same."""
    before = mirflickr25k.read(directory)
    (directory / "mirflickr25k_annotations_v080").rename(directory / "annotations")
    for path in list((directory / "mirflickr").iterdir()):
        path.rename(directory / path.name)
    (directory / "mirflickr").rmdir()
    after = mirflickr25k.read(directory)
    np.testing.assert_array_equal(after.labels[:], before.labels[:])
    assert after.names.joined == before.names.joined
    assert after[3]["image"].shape == (4, 6, 3)


@pytest.mark.parametrize(
    "content", [b"3\r\n7\r\n", b"\xef\xbb\xbf3\n7\n", b"\xef\xbb\xbf3\r\n7", b" 3 \n7\t\n\n\n", b"7\n3\n", b"03\n7\n"]
)
def test_ways_to_write_lines(directory, content):
    """Windows line ends, a BOM, spaces, empty lines at the end, no line end there, and any order are read the same."""
    (directory / "mirflickr25k_annotations_v080" / "sky.txt").write_bytes(content)
    source = mirflickr25k.read(directory)
    np.testing.assert_array_equal(source.labels.members(LABELS.index("sky")), [2, 6])


@pytest.mark.parametrize("name", LABELS)
def test_missing_file(directory, name):
    """Each label's file, when missing, is named, with where to get it."""
    path = directory / "mirflickr25k_annotations_v080" / f"{name}.txt"
    path.unlink()
    text = error_of(directory)
    assert f"{path} is missing; fix: " in text
    assert f"{GET_LABELS} and unpack it to {directory / 'mirflickr25k_annotations_v080'}" in text


def test_missing_everything(tmp_path):
    """If nothing is there, the message names the path of the first label file."""
    assert f"{tmp_path / 'mirflickr25k_annotations_v080' / 'animals.txt'} is missing" in error_of(tmp_path)


def test_missing_images(directory):
    """Labels without the images' folder say which archive the images are in."""
    (directory / "mirflickr").rename(directory / "elsewhere")
    text = error_of(directory)
    assert f"{directory / 'mirflickr'} is missing: expected im1.jpg to im30.jpg there" in text
    assert f"get mirflickr25k.zip from https://press.liacs.nl/mirflickr/mirdownload.html and unpack it to {directory}" in text


def test_missing_image(directory):
    """A single image that isn't there is found without reading the others."""
    (directory / "mirflickr" / "im12.jpg").unlink()
    source = mirflickr25k.read(directory)
    np.testing.assert_array_equal(source.missing(np.arange(30)), [11])


@pytest.mark.parametrize("token", ["0", "31", "-1", "+2", "1.0", "1_0", "x", "1 2", "9" * 5000, "", "\u0663", "<html>"])
def test_line_that_is_no_number(directory, token):
    """A line that is no image's number is shown with its place."""
    path = directory / "mirflickr25k_annotations_v080" / "dog.txt"
    path.write_bytes(f"2\n{token}\n3\n".encode())
    text = error_of(directory)
    assert f"{path}, line 2: " in text
    assert "is not a number from 1 to 30" in text
    assert GET_LABELS in text
    assert len(text) < 600


def test_repeated_number(directory):
    """A number that stands in a file twice is shown with both places."""
    path = directory / "mirflickr25k_annotations_v080" / "tree.txt"
    path.write_text("2\n5\n9\n5\n")
    text = error_of(directory)
    assert f"{path}, line 4: image 5 is in line 2 already" in text
    assert GET_LABELS in text


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf"])
def test_empty_file(directory, content):
    """A file without a number is a damaged one: each label has images."""
    path = directory / "mirflickr25k_annotations_v080" / "water.txt"
    path.write_bytes(content)
    text = error_of(directory)
    assert f"{path} is empty: expected an image's number in each line; fix: {GET_LABELS}" in text


def test_unreadable_file(directory, monkeypatch):
    """A file that the system won't open is named, with the system's reason."""

    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "animals.txt can't be read (Permission denied); fix: change its permissions" in error_of(directory)


def test_full_size(tmp_path):
    """Files of the published length give 25,000 images and each its labels."""
    shown = write_labels(tmp_path / "annotations", images=25_000, seed=2)
    (tmp_path / "mirflickr").mkdir()
    source = mirflickr25k.read(tmp_path)
    assert source.labels.shape == (25_000, 24)
    np.testing.assert_array_equal(source.labels[:], shown)
    assert source.names[24_999] == "im25000.jpg"
    assert source.names.unique().all()
    assert len(source.missing(np.arange(25_000))) == 25_000


def test_in_a_store(directory, bucket):
    """Labels and images in an object store are read as those on a disk."""
    mock_data.assert_same(
        mirflickr25k.read(directory), mirflickr25k.read(mock_data.upload(directory, f"{bucket}/mirflickr25k"))
    )
