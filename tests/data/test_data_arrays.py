"""Data sets of one's own: each form of images and labels gives the same source, each mistake is one line."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from adsq_jax import data
from adsq_jax.data import Preprocessing
from adsq_jax.errors import InputError

N, SIDE = 12, 6
RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (N, SIDE, SIDE), dtype=np.uint8)
IDS = np.arange(N) % 3
HOT = np.eye(3, dtype=np.uint8)[IDS]
NAMES = ["ant", "bee", "cat"]
WORDS = [NAMES[k] for k in IDS]


def pixels_of(dataset):
    return np.stack([dataset.source.image(row, shorter_side=0) for row in range(len(dataset.source))])


def line_of(**changes):
    """The error of a call, which is one line."""
    with pytest.raises(InputError) as caught:
        data.from_arrays(**{"images": COLOUR, "labels": IDS, **changes})
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.fixture
def paths(tmp_path):
    files = [tmp_path / f"{k:02}.png" for k in range(N)]
    for path, pixels in zip(files, COLOUR, strict=True):
        Image.fromarray(pixels).save(path)
    return files


@pytest.mark.parametrize(
    "images",
    [COLOUR, jnp.asarray(COLOUR), list(COLOUR), tuple(map(jnp.asarray, COLOUR)), list(map(Image.fromarray, COLOUR))],
    ids=["numpy", "jax", "list", "tuple of jax", "pil"],
)
def test_images_of_three_channels(images):
    """Arrays of NumPy and JAX, lists of arrays and of PIL images are the same pixels."""
    np.testing.assert_array_equal(pixels_of(data.from_arrays(images, IDS)), COLOUR)


@pytest.mark.parametrize("images", [GREY, GREY[..., None], list(GREY), list(GREY[..., None]), list(map(Image.fromarray, GREY))])
def test_grey_images(images):
    """Grey images have three equal channels."""
    np.testing.assert_array_equal(pixels_of(data.from_arrays(images, IDS)), np.repeat(GREY[..., None], 3, axis=3))


def test_images_of_several_sizes():
    """Arrays and PIL images of several sizes stay as they are, and are resized and cropped like pictures."""
    images = [COLOUR[0], COLOUR[1, :4], GREY[2, :, :5], Image.fromarray(COLOUR[3, 1:])]
    dataset = data.from_arrays(images, [0, 1, 0, 1])
    for row, expected in enumerate((COLOUR[0], COLOUR[1, :4], np.repeat(GREY[2, :, :5, None], 3, axis=2), COLOUR[3, 1:])):
        np.testing.assert_array_equal(dataset.source[row]["image"], expected)
    assert dataset.preprocessing == Preprocessing(resize=256, image_size=224)
    stamps = {data.from_arrays([image, *images[1:]], [0, 1, 0, 1]).source.stamp(np.arange(4)) for image in COLOUR[4:8]}
    assert len(stamps) == 4


@pytest.mark.parametrize("kind", [str, lambda path: path, lambda path: np.str_(path)])
def test_paths(paths, kind):
    """Paths are read when they are needed, as texts or paths, in a list or an array."""
    dataset = data.from_arrays([kind(path) for path in paths], IDS, query=[0])
    np.testing.assert_array_equal(pixels_of(dataset), COLOUR)
    assert data.from_arrays(np.array(list(map(str, paths))), IDS, query=[0]).split_sha256 == dataset.split_sha256
    assert dataset.preprocessing == Preprocessing(resize=256, image_size=224)
    assert [dataset.source.name(row) for row in range(N)] == list(map(str, paths))


def test_paths_of_the_working_folder(paths, tmp_path, monkeypatch):
    """Relative paths begin in the working folder."""
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(pixels_of(data.from_arrays([path.name for path in paths], IDS)), COLOUR)


def test_paths_of_the_home(paths, tmp_path, monkeypatch):
    """`~` is the home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    np.testing.assert_array_equal(pixels_of(data.from_arrays([f"~/{path.name}" for path in paths], IDS)), COLOUR)


def test_a_file_that_is_damaged_later(paths):
    """A picture that can't be decoded is named when it is read."""
    dataset = data.from_arrays(paths, IDS)
    paths[3].write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"03\.png is not a complete picture"):
        list(data.batches(dataset, batch_size=N, seed=0))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (IDS, ("0", "1", "2")),
        (jnp.asarray(IDS), ("0", "1", "2")),
        (IDS.astype(np.uint8), ("0", "1", "2")),
        (IDS.tolist(), ("0", "1", "2")),
        (IDS[:, None], ("0", "1", "2")),
        (HOT, ("0", "1", "2")),
        (HOT.astype(bool), ("0", "1", "2")),
        (HOT.astype(np.float32), ("0", "1", "2")),
        (HOT.tolist(), ("0", "1", "2")),
        (WORDS, tuple(NAMES)),
        (np.array(WORDS), tuple(NAMES)),
        (np.array(WORDS, object), tuple(NAMES)),
        ([[word] for word in WORDS], tuple(NAMES)),
        ([(word, word) for word in WORDS], tuple(NAMES)),
    ],
)
def test_single_labels(labels, classes):
    """Ids, multi-hot rows and names of one class an image are the same labels."""
    dataset = data.from_arrays(COLOUR, labels)
    np.testing.assert_array_equal(dataset.source.labels[:], HOT)
    assert dataset.source.labels.single
    assert dataset.source.classes == classes


def test_several_labels():
    """Multi-hot rows and lists of names are the same labels; an image may have none."""
    hot = RANDOM.integers(0, 2, (N, 3)).astype(np.uint8)
    hot[0], hot[1:4] = 0, np.eye(3, dtype=np.uint8)
    names = [[NAMES[k] for k in np.flatnonzero(row)] for row in hot]
    for labels in (hot, names, list(map(set, names)), list(map(tuple, names))):
        np.testing.assert_array_equal(data.from_arrays(COLOUR, labels).source.labels[:], hot)


def test_given_classes():
    """Given names set the order of the classes, and may have more than occur."""
    dataset = data.from_arrays(COLOUR, WORDS, classes=["dog", "cat", "bee", "ant"])
    assert dataset.source.classes == ("dog", "cat", "bee", "ant")
    np.testing.assert_array_equal(dataset.source.labels.ids(np.arange(N)), 3 - IDS)
    assert data.from_arrays(COLOUR, IDS, classes=("x", "y", "z", "w")).source.classes == ("x", "y", "z", "w")
    assert data.from_arrays(COLOUR, HOT, classes=np.array(NAMES)).source.classes == tuple(NAMES)


MASK = np.arange(N) < 4


@pytest.mark.parametrize(
    "query", [MASK, MASK.tolist(), slice(4), range(4), [3, 1, 0, 2], np.arange(4, dtype=np.uint8), jnp.arange(4)]
)
def test_parts(query):
    """Masks, slices and indices in any order are the same rows; what isn't given is all but the queries."""
    dataset = data.from_arrays(COLOUR, IDS, query=query)
    assert [rows.tolist() for rows in dataset.split] == [list(range(4)), list(range(4, N)), list(range(4, N))]
    assert {rows.dtype for rows in dataset.split} == {np.dtype(np.int64)}
    given = data.from_arrays(COLOUR, IDS, query=query, train=[8, 5], database=slice(4, None))
    assert [rows.tolist() for rows in given.split] == [list(range(4)), [5, 8], list(range(4, N))]
    assert given.split_sha256 != dataset.split_sha256


@pytest.mark.parametrize("query", [None, [], slice(0), np.zeros(N, bool)])
def test_no_queries(query):
    """Without queries, all images are in the training set and the database."""
    dataset = data.from_arrays(COLOUR, IDS, query=query)
    assert [len(rows) for rows in dataset.split] == [0, N, N]
    assert (dataset.protocol, dataset.map_at) == ("arrays", "all")
    assert "12 images in 3 classes" in repr(dataset)


def test_preprocessing():
    """Square arrays stay as they are, others are cropped to the shorter side; what is given is taken."""
    assert data.from_arrays(COLOUR, IDS).preprocessing == Preprocessing(resize=0, image_size=SIDE)
    assert data.from_arrays(COLOUR[:, :4], IDS).preprocessing == Preprocessing(resize=4, image_size=4)
    given = Preprocessing(resize=8, image_size=5, flip=True)
    assert data.from_arrays(COLOUR, IDS, preprocessing=given).preprocessing == given
    (batch,) = data.batches(data.from_arrays(COLOUR, IDS, preprocessing=given), batch_size=N, seed=0)
    assert batch["inputs"].shape == (N, 5, 5, 3)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (COLOUR / 255, "fix: (255 * images).round().astype('uint8')"),
        (np.where(COLOUR > 9, 0.5, np.nan), "NaN"),
        (jnp.full((N, 2, 2), jnp.nan, jnp.bfloat16), "NaN"),
        (COLOUR.astype(np.int64), "fix: images.astype('uint8')"),
        (COLOUR > 9, "got bool"),
        (COLOUR.transpose(0, 3, 1, 2), "fix: move the channels to the last axis"),
        (COLOUR[..., :2], "got [12, 6, 6, 2]"),
        (COLOUR[0, 0], "got [6, 3]"),
        (np.uint8(3), "got []"),
        (COLOUR[:, :0], "got [12, 0, 6, 3]"),
        (COLOUR[:5], "12 labels of 5 images"),
        ("a.png", "got one str"),
        (Image.fromarray(COLOUR[0]), "got one Image"),
        (3, "got int"),
        (None, "got NoneType"),
        ([COLOUR[0], COLOUR[1] / 255, *COLOUR[2:]], "images[1]: expected uint8 from 0 to 255, got float64"),
        ([COLOUR[0], "a.png", *COLOUR[2:]], "images[1] is a str"),
        ([COLOUR[0], None, *COLOUR[2:]], "images[1] is a NoneType"),
        ([COLOUR[:1], *COLOUR[1:]], "images[0]: expected uint8[h, w]"),
        ([Image.new("F", (3, 3))] * N, "images[0] has pixels of kind F"),
        (["none.png"] * N, "12 of 12 images are missing, the first is none.png"),
        (["gs://bucket/a.png"] * N, "images[0] is 'gs://bucket/a.png': expected the path of a picture on this machine"),
        (["a\nb.png"] * N, "images[0] is 'a\\nb.png'"),
        ([""] * N, "images[0] is ''"),
        ([b"a.png"] * N, "images[0] is a bytes"),
    ],
)
def test_images_that_are_refused(images, text):
    """Wrong types, shapes, lengths and values of images."""
    assert text in line_of(images=images)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            IDS[:, None] % 2,
            "labels have shape [n, 1] and values 0 and 1, which may be class ids or one class of multi-hot labels; fix: give",
        ),
        (IDS[:, None] - 1, "labels of shape [12, 1] must be 0 or 1, got -1"),
        (IDS[:, None].astype(np.float32), "expected integers as class ids, got float32"),
        (IDS[:5], "5 labels of 12 images"),
        (IDS - 1, "got -1 to 1"),
        (IDS * 10**6, "fix: numpy.unique"),
        (IDS.astype(np.float32), "expected integers as class ids, got float32"),
        (IDS > 0, "got bool"),
        (2 * HOT, "must be 0 or 1, got 2"),
        (np.where(HOT, 1, -1), "must be 0 or 1, got -1"),
        (np.where(HOT, np.nan, 0), "must be 0 or 1, got nan"),
        (np.zeros((N, 2, 2), int), "got int64[12, 2, 2]"),
        (np.zeros((N, 0), int), "got int64[12, 0]"),
        ([], "labels are empty"),
        ("ant", "got str"),
        (None, "got NoneType"),
        (5, "got int"),
        ([[]] * N, "no image has a label"),
        ([[0, 1], [1], *[[0]] * 10], "rows of the same length"),
        (["ant", 3, *WORDS[2:]], "expected class ids"),
        ([None] * N, "expected class ids"),
    ],
)
def test_labels_that_are_refused(labels, text):
    """Wrong types, shapes, lengths and values of labels."""
    assert text in line_of(labels=labels)


@pytest.mark.parametrize(
    ("labels", "classes", "text"),
    [
        (IDS, ["a", "b"], "from 0 to at most 1, got 0 to 2"),
        (HOT, ["a", "b"], "3 columns for 2 classes"),
        (WORDS, ["ant", "bee"], "labels[2] is 'cat', which is not one of the 2 classes"),
        (WORDS, [], "at least one name"),
        (WORDS, [1, 2], "at least one name"),
        (IDS, ["a", "a", "b"], "two classes are named 'a'"),
    ],
)
def test_classes_that_are_refused(labels, classes, text):
    """Names of classes that don't fit the labels."""
    assert text in line_of(labels=labels, classes=classes)


@pytest.mark.parametrize("part", ["query", "train", "database"])
@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([0, N], "expected indices from 0 to 11, got 0 to 12"),
        ([-1, 3], "got -1 to 3"),
        ([2, 2], "expected each index once, got 2 indices of 1 images"),
        (MASK[:5], "got bool[5]"),
        (np.ones((3, 4), int), "got int64[3, 4]"),
        ([0.0, 1.0], "got float64[2]"),
        (["a"], "expected indices"),
        (3, "got int64[]"),
        ([[1], [2, 3]], "expected indices"),
    ],
)
def test_rows_that_are_refused(part, rows, text):
    """Indices out of range, repeated or of another type, and masks of another length."""
    assert f"{part}: " in (line := line_of(**{part: rows}))
    assert text in line


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"query": [1, 2], "train": [2, 3]}, "1 of 2 queries are in train too"),
        ({"query": [1, 2], "database": slice(None)}, "2 of 2 queries are in database too"),
        ({"query": slice(None)}, "train is empty"),
        ({"train": []}, "train is empty"),
        ({"database": []}, "database is empty"),
    ],
)
def test_parts_that_are_refused(parts, text):
    """Queries in another part, and empty parts."""
    assert text in line_of(**parts)


def test_the_same_path_in_two_parts(paths):
    """A file that is listed twice is one image."""
    line = line_of(images=[*paths[:-1], paths[0]], query=[0])
    assert "1 of 1 queries are in train too" in line


@pytest.mark.parametrize(
    ("preprocessing", "text"),
    [
        ((0, 6), "expected adsq_jax.data.Preprocessing, got tuple"),
        (Preprocessing(0, 8), "images are 6x6"),
        (Preprocessing(4, 6), "preprocessing.resize=4 is less than image_size=6"),
        (Preprocessing(0, 0), "preprocessing.image_size=0"),
        (Preprocessing(6, 6, bit_depth=8), "preprocessing.bit_depth=8: expected 0, or a whole number from 9 to 16"),
        (Preprocessing(-1, 6), "preprocessing.resize=-1"),
        (Preprocessing(6.5, 6), "preprocessing.resize=6.5"),
        (Preprocessing(0, 6, crop_padding=-2), "preprocessing.crop_padding=-2"),
        (Preprocessing(0, 6, erase=2.0), "preprocessing.erase=2.0"),
    ],
)
def test_preprocessing_that_is_refused(preprocessing, text):
    """Sizes out of range, or that don't fit the images."""
    assert text in line_of(preprocessing=preprocessing)


def test_batches():
    """One pass has whole batches of the training set's images, each once; another pass and another seed another order."""
    dataset = data.from_arrays(COLOUR, IDS, query=[0, 1])
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0)):
        made = list(data.batches(dataset, batch_size=3, seed=seed, epoch=epoch))
        assert [(b["inputs"].shape, b["index"].dtype) for b in made] == [((3, SIDE, SIDE, 3), np.int32)] * 3
        index = np.concatenate([b["index"] for b in made])
        np.testing.assert_array_equal(np.concatenate([b["inputs"] for b in made]), COLOUR[dataset.split.train][index])
        assert len(set(index.tolist())) == 9
        orders.append(index.tolist())
        (second, *_) = data.batches(dataset, batch_size=3, seed=seed, epoch=epoch, second_view=True)
        np.testing.assert_array_equal(second["second_inputs"], made[0]["inputs"])  # since nothing augments them
    assert orders[0] == orders[3]
    assert len(set(map(tuple, orders))) == 3


@pytest.mark.parametrize("changes", [{"batch_size": 0}, {"batch_size": 13}, {"seed": -1}, {"epoch": -1}])
def test_batches_that_are_refused(changes):
    """Numbers out of range, at the call and not at the first batch."""
    dataset = data.from_arrays(COLOUR, IDS)
    with pytest.raises(InputError, match="expected"):
        data.batches(dataset, **{"batch_size": 3, "seed": 0, **changes})


def test_one_class():
    """Labels of shape [n, 1] are a single class, which an image has or not, if they are bool."""
    dataset = data.from_arrays(COLOUR, IDS[:, None] > 1)
    assert dataset.source.classes == ("0",)
    assert dataset.source.labels[:].tolist() == (IDS[:, None] > 1).tolist()


def test_pictures_of_12_bits(tmp_path):
    """PIL images and paths are decoded by the bit depth of the preprocessing."""
    values = np.array([[0, 4_095], [1_000, 16]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tif")
    view = Preprocessing(resize=2, image_size=2, bit_depth=12)
    for given in (Image.fromarray(values), tmp_path / "a.tif"):
        dataset = data.from_arrays([given, given], [0, 1], preprocessing=view)
        (batch,) = data.batches(dataset, batch_size=2, seed=0)
        assert batch["inputs"][0, ..., 0].tolist() == (values >> 4).tolist()


def test_load():
    """A benchmark by its name has its protocol's split."""
    dataset = data.load("digits", seed=3)
    assert [len(rows) for rows in dataset.split] == [100, 1_000, 1_697]
    assert dataset.preprocessing == Preprocessing(resize=0, image_size=8)
    assert data.load("digits", preprocessing=Preprocessing(16, 12)).preprocessing.image_size == 12


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("mnist", {}, "'mnist' is not a benchmark: expected one of digits, fashion_mnist"),
        ("tfds", {}, "'tfds' is not a benchmark"),
        ("folder", {}, "config.data.directory is empty"),
        ("folder", {"small_classes": "query"}, "small_classes='query': expected, for folder, error or database"),
        ("cifar10", {}, "config.data.directory is empty"),
        ("cifar10", {"protocol": "digits"}, "protocol='digits': expected, for cifar10, cifar10 or cifar10-1 or cifar10-2"),
        ("digits", {"small_classes": "database"}, "small_classes='database' goes with 'folder' of one folder a class; fix: "),
        ("lists", {"small_classes": "database"}, "small_classes='database' goes with 'folder'"),
        ("folder", {"small_classes": "database", "reader": "split_folders"}, "small_classes='database' goes with 'folder'"),
        ("digits", {"preprocessing": Preprocessing(8, 8, bit_depth=12)}, "preprocessing.bit_depth=12: expected 0, since"),
        ("digits", {"reader": "tfds"}, "reader='tfds': expected, for digits, files"),
    ],
)
def test_load_refuses(name, changes, text):
    """Unknown names, and files that aren't given."""
    with pytest.raises(InputError, match=text):
        data.load(name, **changes)
