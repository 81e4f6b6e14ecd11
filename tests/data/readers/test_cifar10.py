"""CIFAR-10: the records of its binary version, read as a plain loop reads them, and what each kind of damage says."""

from pathlib import Path

import numpy as np
import pytest
from support import mock_data

from adsq_jax.data.readers import cifar10
from adsq_jax.errors import InputError

PUBLISHED = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]  # batches.meta.txt
TRAIN = [f"data_batch_{k}.bin" for k in range(1, 6)]
GET = "get cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html"


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A folder of the real layout, of seven records a file."""
    monkeypatch.setattr(cifar10, "RECORDS", 7)
    folder, random = tmp_path / "cifar-10-batches-bin", np.random.default_rng(0)
    folder.mkdir()
    for name in [*TRAIN, "test_batch.bin"]:
        records = random.integers(0, 256, (7, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
    return tmp_path


def error_of(directory):
    with pytest.raises(InputError) as caught:
        cifar10.read(directory)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def plain(content):
    """Labels and images of a file's records, pixel by pixel, by the published description."""
    for start in range(0, len(content), 3073):
        pixel = np.zeros((32, 32, 3), np.uint8)
        for row, column, channel in np.ndindex(32, 32, 3):
            pixel[row, column, channel] = content[start + 1 + 1024 * channel + 32 * row + column]
        yield content[start], pixel


def test_as_a_plain_loop_reads_them(directory):
    """Pixels and labels are those that a loop over bytes gives, the training part first."""
    source = cifar10.read(directory)
    files = [directory / "cifar-10-batches-bin" / name for name in [*TRAIN, "test_batch.bin"]]
    wanted = [record for path in files for record in plain(path.read_bytes())]
    assert len(source) == len(wanted) == 42
    for i, (label, image) in enumerate(wanted):
        np.testing.assert_array_equal(source[i]["image"], image)
        np.testing.assert_array_equal(source.labels.ids(np.array([i])), label)
    assert list(source.classes) == PUBLISHED
    assert source.names is None


def test_planes_and_rows(directory):
    """After the label come the red, the green and the blue plane, each row by row."""
    path = directory / "cifar-10-batches-bin" / "data_batch_1.bin"
    content = bytearray(path.read_bytes())
    content[:3073] = bytes([9]) + bytes(3072)
    content[1 + 1024 + 32 * 2 + 5] = 200  # green, row 2, column 5
    path.write_bytes(content)
    first = cifar10.read(directory)[0]
    wanted = np.zeros((32, 32, 3), np.uint8)
    wanted[2, 5, 1] = 200
    np.testing.assert_array_equal(first["image"], wanted)
    np.testing.assert_array_equal(first["label"], np.eye(10, dtype=np.uint8)[9])


def test_files_in_the_folder_itself(directory):
    """The folder cifar-10-batches-bin may be given itself."""
    a, b = cifar10.read(directory), cifar10.read(directory / "cifar-10-batches-bin")
    np.testing.assert_array_equal(a.pixels, b.pixels)
    np.testing.assert_array_equal(a.labels[:], b.labels[:])


@pytest.mark.parametrize("name", cifar10.FILES)
def test_missing_file(directory, name):
    """Each of the six files, when missing, is named, with where to get it."""
    path = directory / "cifar-10-batches-bin" / name
    path.unlink()
    text = error_of(directory)
    assert f"{path} is missing" in text
    assert f"{GET} and unpack it to {directory}" in text


def test_empty_folder(tmp_path):
    """If nothing is there, the message names the first file."""
    assert f"{tmp_path / 'data_batch_1.bin'} is missing; fix: {GET}" in error_of(tmp_path)


@pytest.mark.parametrize("name", ["cifar-10-batches-py/data_batch_1", "cifar-10-python.tar.gz", "data_batch_1"])
def test_pickles_are_not_opened(tmp_path, name):
    """The python version is recognised by its names, never opened, and the message says what to get instead."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    text = error_of(tmp_path)
    assert "what is there is the python version, whose files are pickles and never opened" in text
    assert GET in text


def test_packed_archive(tmp_path):
    """An archive that is there already is to be unpacked."""
    (tmp_path / "cifar-10-binary.tar.gz").touch()
    assert f"unpack {tmp_path / 'cifar-10-binary.tar.gz'} there (tar -xzf cifar-10-binary.tar.gz)" in error_of(tmp_path)


@pytest.mark.parametrize("size", [0, 7 * 3073 - 1, 6 * 3073, 8 * 3073, 7 * 3074])
def test_another_size(directory, size):
    """A file of part of a record, of fewer or of more records, or of CIFAR-100's, is refused by its size."""
    path = directory / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(bytes(size))
    text = error_of(directory)
    assert f"{path} has {size:,} bytes: expected 21,511" in text
    assert GET in text


def test_label_above_nine(directory):
    """A label that no class has is named with its record."""
    path = directory / "cifar-10-batches-bin" / "test_batch.bin"
    content = bytearray(path.read_bytes())
    content[4 * 3073] = 10
    path.write_bytes(content)
    text = error_of(directory)
    assert f"{path}, record 4 has label 10: expected 0 to 9" in text
    assert GET in text


def test_unreadable_file(directory, monkeypatch):
    """A file that the system won't open is named, with the system's reason."""

    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    text = error_of(directory)
    assert "data_batch_1.bin can't be read (Permission denied); fix: change its permissions" in text


def test_full_size(tmp_path):
    """Files of the published length give 60,000 images, 6,000 of each class."""
    for name in cifar10.FILES:
        records = np.zeros((10_000, 3073), np.uint8)
        records[:, 0] = np.arange(10_000) % 10
        (tmp_path / name).write_bytes(records.tobytes())
    source = cifar10.read(tmp_path)
    assert source.pixels.shape == (60_000, 32, 32, 3)
    np.testing.assert_array_equal(source.labels.per_class(), 6_000)


def test_in_a_store(directory, bucket):
    """The six files in an object store are read as those on a disk."""
    mock_data.assert_same(cifar10.read(directory), cifar10.read(mock_data.upload(directory, f"{bucket}/cifar10")))
