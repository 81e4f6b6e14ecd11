"""Batches: fixed by seed and step, no image twice, augmentation that does what it says, and every image once in order."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsq_jax.data import pipeline
from adsq_jax.data.sources import ArraySource

SIDE = 6
OFF = {"crop_padding": 0, "flip": False, "erase": 0.0}
ALL = {"crop_padding": 2, "flip": True, "erase": 0.5}


def source_of(n):
    """Images that can be told apart, whole or in part, without a black pixel."""
    images = np.random.default_rng(n).integers(1, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    return ArraySource(images, np.eye(n, dtype=np.uint8))


def batches(count, *, n=20, rows=None, batch_size=6, seed=3, start=0, augment=OFF):
    rows = np.arange(n) if rows is None else rows
    made = pipeline.train_batches(source_of(n), rows, batch_size=batch_size, seed=seed, start=start, **augment)
    return list(itertools.islice(made, count))


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in ("image", "index"))


@pytest.mark.parametrize("start", [1, 2, 3, 7])
def test_batch_depends_on_seed_and_step_alone(start):
    """Begun at a later step, within a pass and beyond it, the batches are those of an uninterrupted run, pixel for pixel."""
    whole, later = batches(10, augment=ALL), batches(10 - start, start=start, augment=ALL)
    assert all(same(one, other) for one, other in zip(whole[start:], later, strict=True))


def test_seed_changes_order_and_augmentation():
    """Another seed gives another order, and the same images are cut differently."""
    one, other = batches(3, augment=ALL), batches(3, seed=4, augment=ALL)
    assert [b["index"].tolist() for b in one] != [b["index"].tolist() for b in other]
    one, other = by_index(one), by_index(other)
    shared = one.keys() & other.keys()
    assert sum(not np.array_equal(one[i], other[i]) for i in shared) > len(shared) / 2


def by_index(made):
    return {int(index): image for batch in made for index, image in zip(batch["index"], batch["image"], strict=True)}


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(0, 200), st.integers(0, 2**31))
def test_no_image_twice_in_a_pass(batch_size, more, seed):
    """Each pass of n // batch_size batches has no image twice, so no batch has; all batches are full."""
    n = batch_size + more
    each = n // batch_size
    made = batches(3 * each, n=n, batch_size=batch_size, seed=seed)
    for k in range(3):
        indices = np.concatenate([batch["index"] for batch in made[k * each : (k + 1) * each]])
        assert len(set(indices.tolist())) == each * batch_size
        assert set(indices.tolist()) <= set(range(n))
    assert all(batch["index"].shape == (batch_size,) and batch["index"].dtype == np.int32 for batch in made)


def test_passes_differ():
    """Each pass has its own order, leaves out other images, and draws augmentations anew."""
    made = batches(30, augment=ALL)  # ten passes of three
    passes = [np.concatenate([batch["index"] for batch in made[k : k + 3]]) for k in range(0, 30, 3)]
    assert len({indices.tobytes() for indices in passes}) == 10
    assert len({frozenset(indices.tolist()) for indices in passes}) > 5
    looks = [by_index(made[k : k + 3]) for k in range(0, 30, 3)]
    assert len({look[7].tobytes() for look in looks if 7 in look}) > 5


@pytest.mark.parametrize("rows", [np.arange(20), np.array([19, 3, 8, 0, 11, 5, 2, 17, 13])])
def test_index_belongs_to_image(rows):
    """The index is the image's place among the rows, not its row in the source; with nothing on, pixels are untouched."""
    source = source_of(20)
    for batch in batches(9, rows=rows):
        for index, image in zip(batch["index"], batch["image"], strict=True):
            np.testing.assert_array_equal(image, source.images[rows[index]])


def augmented(**augment):
    """Nine views of each of 200 images: (image, view) pairs."""
    source = source_of(200)
    views = batches(18, n=200, batch_size=100, augment={**OFF, **augment})
    return [(source.images[i], view) for batch in views for i, view in zip(batch["index"], batch["image"], strict=True)]


def test_flip():
    """An image comes as it is or mirrored left to right, each about half of the time."""
    flipped = []
    for image, view in augmented(flip=True):
        flipped.append(np.array_equal(view, image[:, ::-1]))
        assert flipped[-1] or np.array_equal(view, image)
    assert abs(np.mean(flipped) - 0.5) < 5 * 0.5 / np.sqrt(len(flipped))


def test_crop():
    """An image comes as one of the (2p + 1)^2 windows of itself in a black frame; all of them come, each about as often."""
    seen = []
    for image, view in augmented(crop_padding=2):
        frame = np.pad(image, ((2, 2), (2, 2), (0, 0)))
        fits = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if np.array_equal(view, frame[top : top + SIDE, left : left + SIDE])
        ]
        assert len(fits) == 1
        seen += fits
    counts = np.array([seen.count((top, left)) for top in range(5) for left in range(5)])
    assert np.abs(counts - len(seen) / 25).max() < 5 * np.sqrt(len(seen) / 25)


def test_erase():
    """On about half of the images there is one black rectangle, cut from a square of at most the side asked for."""
    erased, sizes = [], set()
    for image, view in augmented(erase=0.5):
        black = (view == 0).all(axis=2)
        np.testing.assert_array_equal(view[~black], image[~black])
        erased.append(black.any())
        if black.any():
            ys, xs = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
            assert black[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1].all()
            assert len(ys) <= 3
            assert len(xs) <= 3
            whole = ys[0] > 0 and ys[-1] < SIDE - 1 and xs[0] > 0 and xs[-1] < SIDE - 1
            assert len(ys) == len(xs) or not whole
            sizes.add((len(ys), len(xs)))
    assert abs(np.mean(erased) - 0.5) < 5 * 0.5 / np.sqrt(len(erased))
    assert {(1, 1), (2, 2), (3, 3)} <= sizes


def test_erase_reaches_every_pixel():
    """Squares of one pixel lie anywhere, on the edges as often as inside, and one on half of the images."""
    black = np.sum([(view == 0).all(axis=2) for _, view in augmented(erase=0.1)], axis=0)
    expected = 1800 / 2 / SIDE**2
    assert np.abs(black - expected).max() < 5 * np.sqrt(expected)


def test_all_together():
    """With everything on, each pixel that isn't black is a pixel of the image, and the source stays as it was."""
    source = source_of(20)
    before = source.images.copy()
    made = pipeline.train_batches(source, np.arange(20), batch_size=6, seed=0, start=0, **ALL)
    for batch in itertools.islice(made, 30):
        for index, view in zip(batch["index"], batch["image"], strict=True):
            known = {tuple(pixel) for pixel in source.images[index].reshape(-1, 3).tolist()}
            assert {tuple(pixel) for pixel in view.reshape(-1, 3).tolist()} <= known | {(0, 0, 0)}
            assert view.shape == (SIDE, SIDE, 3)
            assert view.dtype == np.uint8
    np.testing.assert_array_equal(source.images, before)


def test_grey_images():
    """Images of one channel come in three equal ones, erased ones too."""
    source = ArraySource(np.full((8, SIDE, SIDE, 1), 9, np.uint8), np.eye(8, dtype=np.uint8))
    made = pipeline.train_batches(source, np.arange(8), batch_size=4, seed=0, start=0, **ALL)
    for batch in itertools.islice(made, 20):
        assert batch["image"].shape == (4, SIDE, SIDE, 3)
        assert (batch["image"] == batch["image"][..., :1]).all()
    assert (source.images == 9).all()


@settings(max_examples=20)
@given(st.integers(1, 25), st.integers(1, 9), st.integers(0, 999))
def test_in_order(n, batch_size, seed):
    """Every row comes once, in order and unchanged; all batches are full, the last one with its first image again."""
    source = source_of(30)
    rows = np.random.default_rng(seed).permutation(30)[:n]
    made = list(pipeline.in_order(source, rows, batch_size=batch_size))
    assert len(made) == -(-n // batch_size)
    assert all(batch["image"].shape == (batch_size, SIDE, SIDE, 3) for batch in made)
    index, image = (np.concatenate([batch[name] for batch in made]) for name in ("index", "image"))
    np.testing.assert_array_equal(index[:n], np.arange(n))
    np.testing.assert_array_equal(image[:n], source.images[rows])
    np.testing.assert_array_equal(index[n:], made[-1]["index"][0])
    np.testing.assert_array_equal(image[n:], np.broadcast_to(made[-1]["image"][:1], image[n:].shape))
