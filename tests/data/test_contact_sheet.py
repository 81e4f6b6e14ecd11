"""The contact sheet: a PNG of the right size, with each image where it belongs, and a crossed frame for what can't be read."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from adsq_jax.data import contact_sheet, datasets
from adsq_jax.data.images import BadImage
from adsq_jax.data.labels import Labels
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.data.sources import ArraySource
from adsq_jax.data.splits import Split

SIDE, GAP, TEXT, TITLE = 112, 8, 26, 28  # pixels of an image, between images, of names below one, and above a part
CELL = (SIDE + GAP, SIDE + TEXT + GAP)
RED, WHITE, GREY = (255, 0, 0), (255, 255, 255), (204, 204, 204)


class Picture(ArraySource):
    """Images of one colour each; some can't be read."""

    bad = ()

    def image(self, index, *, shorter_side, bit_depth=0):
        if index in self.bad:
            raise BadImage("is missing")
        return super().image(index, shorter_side=shorter_side, bit_depth=bit_depth)


def colour(row):
    return (40 + row % 200, 250 - row % 200, 30)


def dataset(sizes, *, shape=(8, 8), classes=("ant", "bee"), labels=None, bad=()):
    """Parts of some sizes, one after another in the source, and a database that holds the training set."""
    n = sum(sizes)
    pixels = np.array([np.full((*shape, 3), colour(row), np.uint8) for row in range(n)]).reshape(n, *shape, 3)
    labels = Labels.from_ids(np.arange(n) % len(classes), classes=len(classes)) if labels is None else labels
    source = Picture(pixels, labels, classes=classes)
    source.bad = bad
    ends = np.cumsum([0, *sizes])
    split = Split(*(np.arange(first, end) for first, end in itertools.pairwise(ends)))
    return datasets.make_dataset(source, split, protocol="own", map_at="all", preprocessing=Preprocessing(0, 8))


def sheet_of(drawn):
    content = contact_sheet.draw(drawn)
    with Image.open(io.BytesIO(content)) as sheet:
        assert sheet.format == "PNG"
        return np.array(sheet.convert("RGB"))


def lines_of(size):
    """Lines of ten images, of at most twenty."""
    return (min(size, 20) + 9) // 10


def corner_of(sizes, part, number):
    """Left and top of an image, by counting lines and titles."""
    top = GAP + sum(TITLE + lines_of(size) * CELL[1] for size in sizes[:part]) + TITLE
    return GAP + number % 10 * CELL[0], top + number // 10 * CELL[1]


def cut(sheet, sizes, part, number):
    left, top = corner_of(sizes, part, number)
    return sheet[top : top + SIDE, left : left + SIDE]


def below(sheet, sizes, part, number):
    """The names below an image, with the gap at their right."""
    left, top = corner_of(sizes, part, number)
    return sheet[top + SIDE + 1 : top + SIDE + TEXT, left : left + CELL[0]]


@pytest.mark.parametrize("sizes", [(20, 20, 20), (1, 1, 1), (10, 11, 9), (3, 30, 300), (0, 4, 2)])
def test_size(sizes):
    """The sheet has a title a part and a line for every ten of up to twenty images."""
    height = GAP + sum(TITLE + lines_of(size) * CELL[1] for size in sizes)
    assert sheet_of(dataset(sizes)).shape == (height, GAP + 10 * CELL[0], 3)


@pytest.mark.parametrize("sizes", [(20, 20, 20), (3, 13, 7), (1, 300, 45)])
def test_colours_are_where_they_should_be(sizes):
    """Each image is in its place: evenly spaced rows of its part, the first and the last among them; the rest is white."""
    drawn, sheet = dataset(sizes), sheet_of(dataset(sizes))
    for part, rows in enumerate(drawn.split):
        count = min(len(rows), 20)
        shown = [int(rows[int(k * (len(rows) - 1) / max(count - 1, 1))]) for k in range(count)]
        assert len(set(shown)) == count
        assert (shown[0], shown[-1]) == (rows[0], rows[-1])
        for number, row in enumerate(shown):
            picture = cut(sheet, sizes, part, number)
            np.testing.assert_array_equal(picture[1:-1, 1:-1], np.broadcast_to(colour(row), (SIDE - 2, SIDE - 2, 3)))
            assert {tuple(pixel) for pixel in picture[0]} == {GREY}
        for number in range(count, 10 * lines_of(count)):
            assert (cut(sheet, sizes, part, number) == 255).all()


def test_pixels_of_a_tiny_image():
    """A tiny image is shown in whole pixels: each becomes a square of one colour, the right way up."""
    drawn = dataset((1, 1, 1))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    drawn.source.pixels[0] = pixels
    picture = cut(sheet_of(drawn), (1, 1, 1), 0, 0)
    np.testing.assert_array_equal(picture[7::14, 7::14], pixels)
    np.testing.assert_array_equal(picture[3::14, 10::14], pixels)


@pytest.mark.parametrize(
    ("shape", "size"), [((8, 16), (112, 56)), ((16, 8), (56, 112)), ((300, 60), (22, 112)), ((1, 500), (112, 1))]
)
def test_proportions(shape, size):
    """An image that isn't square keeps its proportions and stands in the middle, on white."""
    picture = cut(sheet_of(dataset((1, 1, 1), shape=shape)), (1, 1, 1), 0, 0)
    width, height = size
    left, top = (SIDE - width) // 2, (SIDE - height) // 2
    inner = np.zeros((SIDE, SIDE), bool)
    inner[top : top + height, left : left + width] = True
    frame = np.ones((SIDE, SIDE), bool)
    frame[1:-1, 1:-1] = False
    found = picture.astype(int)
    assert np.abs(found[inner & ~frame] - colour(0)).max(initial=0) <= 1
    assert (found[~inner & ~frame] == 255).all()


@pytest.mark.parametrize("bad", [0, 2, 5])
def test_bad_image_is_a_crossed_frame(bad):
    """An image that can't be read is a red frame with a red cross and nothing else; its neighbours are whole."""
    sizes = (2, 2, 2)
    sheet = sheet_of(dataset(sizes, bad=(bad,)))
    picture = cut(sheet, sizes, bad // 2, bad % 2)
    assert {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()} == {RED, WHITE}
    for k in range(SIDE):
        for pixel in (picture[k, k], picture[k, SIDE - 1 - k], picture[0, k], picture[-1, k], picture[k, 0], picture[k, -1]):
            assert tuple(pixel) == RED
    assert (picture == RED).all(axis=2).sum() < 7 * SIDE
    other = cut(sheet, sizes, bad // 2, 1 - bad % 2)
    assert tuple(other[50, 50]) == colour(bad ^ 1)


@pytest.mark.parametrize("name", ["x" * 400, "W" * 60, "a name of many words " * 9])
def test_long_names_are_cut(name):
    """Names too long for two lines are cut: no ink is beside the image, where the next one begins."""
    sizes = (3, 1, 1)
    sheet = sheet_of(dataset(sizes, classes=(name, "bee")))
    for part, number in ((0, 0), (0, 2), (2, 0)):
        text = below(sheet, sizes, part, number)
        ink = (text < 128).any(axis=2)
        assert ink[:12].any()
        assert ink[12:].any() or "W" not in name
        assert not ink[:, SIDE + 1 :].any()


@pytest.mark.parametrize("name", ["", "日本語", "a\nb", "ä ö ü", "\u202e", "\x00", "\ud800"])
def test_odd_names(name):
    """Names that a font may not have are drawn somehow, and never stop the sheet."""
    assert sheet_of(dataset((2, 1, 1), classes=(name, "bee"))).shape[1] == GAP + 10 * CELL[0]


def test_names_tell_labels_apart():
    """Equal labels have the same picture below them, others another; an image without a label has one of its own."""
    sizes = (5, 1, 1)
    labels = Labels.from_multi_hot(np.array([[1, 0], [1, 0], [0, 1], [1, 1], [0, 0], [1, 0], [1, 0]], np.uint8))
    sheet = sheet_of(dataset(sizes, labels=labels))
    texts = [below(sheet, sizes, 0, number).tobytes() for number in range(5)]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 4
    assert all((np.frombuffer(text, np.uint8) < 128).any() for text in texts)
