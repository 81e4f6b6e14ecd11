"""Sources: what stands in an image and its label, in which order, and what each kind of damage says."""

import gzip
import importlib
import importlib.util
import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits
from tensorflow_datasets.core.features import image_feature
from tensorflow_datasets.image_classification.mnist import FashionMNIST

from adsq_jax.data import sources
from adsq_jax.errors import InputError

DEBIAN = Path(sources.FASHION_MNIST)
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def idx(array):
    """An IDX file's content, by the format's own description: 0, 0, type, dimensions, sizes, values."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def make_part(folder, name, *, n, seed, shape=(28, 28)):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (n, *shape), dtype=np.uint8)
    labels = random.integers(0, 10, n, dtype=np.uint8)
    (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return images, labels


@pytest.fixture
def folder(tmp_path):
    make_part(tmp_path, "train", n=30, seed=1)
    make_part(tmp_path, "t10k", n=20, seed=2)
    return tmp_path


def error_of(directory):
    with pytest.raises(InputError) as caught:
        sources.fashion_mnist(str(directory))
    text = str(caught.value)
    assert "\n" not in text
    assert "apt-get install dataset-fashion-mnist" in text
    return text


def test_digits_are_sklearns():
    """All 1,797 images and labels are scikit-learn's, in its order, with 0..16 stretched to 0..255."""
    source, data = sources.digits(), load_digits()
    assert len(source) == 1797
    grey = np.stack([source[i]["image"] for i in range(1797)])
    assert grey.shape == (1797, 8, 8, 3)
    assert grey.dtype == np.uint8
    assert (grey == grey[..., :1]).all()
    np.testing.assert_allclose(grey[..., 0] / 255, data.images / 16, atol=0.5 / 255 + 1e-9)
    assert (grey.min(), grey.max()) == (0, 255)
    np.testing.assert_array_equal(source.labels.argmax(axis=1), data.target)
    np.testing.assert_array_equal(source.labels.sum(axis=1), 1)
    np.testing.assert_array_equal(source[5]["label"], source.labels[5])


def test_digits_without_sklearn(monkeypatch):
    """Where scikit-learn is missing the error says how to install it."""

    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        sources.digits()


def test_one_hot():
    """Class ids become rows with a single 1 in the column of the class."""
    np.testing.assert_array_equal(sources.one_hot(np.array([2, 0]), classes=3), [[0, 0, 1], [1, 0, 0]])
    assert sources.one_hot(np.array([2, 0]), classes=3).dtype == np.uint8


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 5), np.uint8)),
        (np.zeros((2, 4, 4), np.uint8), np.zeros((2, 5), np.uint8)),
        (np.zeros((2, 4, 4, 2), np.uint8), np.zeros((2, 5), np.uint8)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((3, 5), np.uint8)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.uint8)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 5), np.int64)),
        (np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 5), 2, np.uint8)),
    ],
)
def test_array_source_refuses(images, labels):
    """Images and labels of another shape, dtype or range are refused."""
    with pytest.raises(ValueError, match="must be uint8"):
        sources.ArraySource(images, labels)


def test_array_source_keeps_colours():
    """An image of three channels comes out as it went in."""
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 3), dtype=np.uint8)
    source = sources.ArraySource(images, np.eye(3, dtype=np.uint8))
    for i in range(3):
        np.testing.assert_array_equal(source[i]["image"], images[i])


def test_idx_folder(tmp_path):
    """The reader gives the images and labels that were written, the train part first and then t10k."""
    train, train_labels = make_part(tmp_path, "train", n=30, seed=1)
    test, test_labels = make_part(tmp_path, "t10k", n=20, seed=2)
    source = sources.fashion_mnist(str(tmp_path))
    assert len(source) == 50
    for i, image in enumerate([*train, *test]):
        np.testing.assert_array_equal(source[i]["image"], np.dstack([image] * 3))
    np.testing.assert_array_equal(source.labels.argmax(axis=1), [*train_labels, *test_labels])
    np.testing.assert_array_equal(source.labels.sum(axis=1), 1)


FILES = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@pytest.mark.parametrize("name", FILES)
def test_missing_file(folder, name):
    """Each of the four files, when missing, is named."""
    (folder / name).unlink()
    text = error_of(folder)
    assert f"{folder / name} is missing" in text
    assert "--config.data.directory" in text


def damage_not_gzip(content):
    return gzip.decompress(content)


def damage_cut(content):
    return content[: len(content) // 2]


def damage_header_only(content):
    return content[:5]


def damage_bits(content):
    return content[:20] + bytes(255 - b for b in content[20:40]) + content[40:]


def damage_empty(content):
    return b""


def damage_magic(content):
    return gzip.compress(b"\0\0\x0d" + gzip.decompress(content)[3:])


def damage_dimensions(content):
    return gzip.compress(b"\0\0\x08\x02" + gzip.decompress(content)[4:])


def damage_fewer_values(content):
    return gzip.compress(gzip.decompress(content)[:-1])


def damage_more_values(content):
    return gzip.compress(gzip.decompress(content) + b"\0")


def damage_stub(content):
    return gzip.compress(gzip.decompress(content)[:6])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_not_gzip, "not a whole gzip file"),
        (damage_cut, "not a whole gzip file"),
        (damage_header_only, "not a whole gzip file"),
        (damage_bits, "not a whole gzip file"),
        (damage_empty, "not an IDX file"),
        (damage_magic, "not an IDX file"),
        (damage_dimensions, "not an IDX file"),
        (damage_stub, "not an IDX file"),
        (damage_fewer_values, "promises"),
        (damage_more_values, "promises"),
    ],
)
@pytest.mark.parametrize("name", [TRAIN_IMAGES, "t10k-labels-idx1-ubyte.gz"])
def test_damaged_file(folder, name, damage, says):
    """Every kind of damage to a file is one line that names the file and what is wrong with it."""
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    text = error_of(folder)
    assert str(path) in text
    assert says in text


def test_sizes_that_would_overflow(folder):
    """A header that promises more than memory holds is refused before anything is made of it."""
    (folder / TRAIN_IMAGES).write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3) + b"\0" * 9))
    assert "promises" in error_of(folder)


def test_empty_folder(tmp_path):
    """An empty folder is an error that names the first file it lacks."""
    assert str(tmp_path / TRAIN_IMAGES) in error_of(tmp_path)


def test_folder_of_something_else(tmp_path):
    """A folder with other files, and a file in place of a folder, are errors."""
    (tmp_path / "photo.jpg").write_bytes(b"not of this data set")
    assert str(tmp_path / TRAIN_IMAGES) in error_of(tmp_path)
    assert "photo.jpg" in error_of(tmp_path / "photo.jpg")


def test_images_of_another_size(folder):
    """Images that are not 28x28 are refused, with their size."""
    make_part(folder, "t10k", n=20, seed=2, shape=(28, 27))
    text = error_of(folder)
    assert str(folder) in text
    assert "(28, 27)" in text


def test_label_beyond_the_classes(folder):
    """A label of 10 is refused."""
    (folder / TRAIN_LABELS).write_bytes(gzip.compress(idx(np.full(30, 10, np.uint8))))
    assert "labels 0 to 9" in error_of(folder)


def test_counts_that_differ(folder):
    """A part with another number of labels than images is refused, with both numbers."""
    (folder / TRAIN_LABELS).write_bytes(gzip.compress(idx(np.zeros(29, np.uint8))))
    text = error_of(folder)
    assert "30 images" in text
    assert "29 labels" in text


@pytest.mark.system
@pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's dataset-fashion-mnist")
def test_debians_files():
    """Debian's package gives the published data: 70,000 images, 7,000 a class, train first, with their known labels."""
    source = sources.fashion_mnist(str(DEBIAN))
    assert len(source) == 70_000
    np.testing.assert_array_equal(source.labels.sum(axis=0), 7_000)
    np.testing.assert_array_equal(source.labels[:60_000].sum(axis=0), 6_000)
    ids = source.labels.argmax(axis=1)
    assert ids[:5].tolist() == [9, 0, 0, 3, 0]
    assert ids[60_000:60_005].tolist() == [9, 2, 1, 1, 6]
    assert source.images[:60_000].mean() / 255 == pytest.approx(0.2860, abs=5e-5)  # the training part's published mean


# TFDS. Its builder reads the download and writes PNG with TensorFlow, so these tests hand it the PNG.


def tfds_examples(n, *, first):
    for i in range(first, first + n):
        image = np.random.default_rng(i).integers(0, 256, (28, 28), dtype=np.uint8)
        yield i, image, i % 10


def splits_of_png(builder, manager):
    def generate(n, first):
        for i, image, label in tfds_examples(n, first=first):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            yield i, {"image": buffer.getvalue(), "label": label}

    return {"train": generate(30, 0), "test": generate(20, 30)}


@pytest.fixture
def tfds_folder(tmp_path, monkeypatch):
    folder = tmp_path / "tfds"
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder))
    monkeypatch.setattr(sources, "FASHION_MNIST", str(tmp_path / "none"))
    return folder


def check_tfds_source(source):
    assert len(source) == 50
    examples = {image.tobytes(): (i, label) for i, image, label in tfds_examples(50, first=0)}
    found = [examples[np.ascontiguousarray(source[i]["image"][..., 0]).tobytes()] for i in range(50)]
    assert sorted(i for i, _ in found[:30]) == list(range(30))
    assert sorted(i for i, _ in found[30:]) == list(range(30, 50))
    np.testing.assert_array_equal(source.labels, np.eye(10, dtype=np.uint8)[[label for _, label in found]])
    return [i for i, _ in found]


def test_tfds_prepared_before(tfds_folder, monkeypatch, tmp_path):
    """What TFDS prepared as array_record is read without TensorFlow: images with labels, train first, always in one order."""
    with monkeypatch.context() as patched:
        patched.setattr(FashionMNIST, "_split_generators", splits_of_png)
        tfds.builder("fashion_mnist", file_format="array_record").download_and_prepare()
    orders = [check_tfds_source(sources.fashion_mnist(str(tmp_path / "none"))) for _ in range(2)]
    assert orders[0] == orders[1]


def test_tfds_without_a_decoder(tfds_folder, monkeypatch, tmp_path):
    """Where neither Pillow nor OpenCV can decode what TFDS prepared, the error names what to install."""
    monkeypatch.setattr(FashionMNIST, "_split_generators", splits_of_png)
    tfds.builder("fashion_mnist", file_format="array_record").download_and_prepare()
    monkeypatch.setattr(image_feature, "PIL_Image", None)
    monkeypatch.setattr(image_feature, "cv2", None)
    assert "pip install pillow" in error_of(tmp_path / "none")


def test_tfds_prepares_on_first_use(tfds_folder, monkeypatch, tmp_path):
    """With TensorFlow there, which TFDS needs for it, the data set is prepared when it is first asked for."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(FashionMNIST, "_split_generators", splits_of_png)
    check_tfds_source(sources.fashion_mnist(str(tmp_path / "none")))
    assert list(tfds_folder.glob("fashion_mnist/*/*.array_record*"))


def test_a_folder_of_ones_own_that_is_not_there(tfds_folder, monkeypatch, tmp_path):
    """A folder that was asked for and is missing is an error: TFDS, whose order differs, doesn't step in."""
    monkeypatch.setattr(FashionMNIST, "_split_generators", splits_of_png)
    tfds.builder("fashion_mnist", file_format="array_record").download_and_prepare()
    assert "train-images-idx3-ubyte.gz is missing" in error_of(tmp_path / "mistyped")


@pytest.mark.parametrize("tensorflow", [None, "there"])
def test_tfds_without_data_or_network(tfds_folder, monkeypatch, tmp_path, tensorflow):
    """Without the data and without a network, with or without TensorFlow, the error is one line with what to do."""

    def unreachable(builder, manager):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: tensorflow)
    monkeypatch.setattr(FashionMNIST, "_split_generators", unreachable)
    text = error_of(tmp_path / "none")
    assert str(tmp_path / "none") in text
    assert "tfds build fashion_mnist --file_format=array_record" in text
    assert ("Name or service not known" in text) == (tensorflow == "there")
