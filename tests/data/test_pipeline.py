"""Batches: fixed by seed and step, no image twice, augmentation that does what it says, and every image once in order."""

import itertools
import subprocess
import sys

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from adsq_jax.data import pipeline
from adsq_jax.data.images import BadImage
from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import ArraySource, FileSource, Names
from adsq_jax.errors import InputError

SIDE = 6
OFF = pipeline.Preprocessing(resize=0, image_size=SIDE)
ALL = pipeline.Preprocessing(resize=0, image_size=SIDE, crop_padding=2, flip=True, erase=0.5)
HERE = pipeline.ReadOptions(threads=4)


def source_of(n):
    """Images that can be told apart, whole or in part, without a black pixel."""
    images = np.random.default_rng(n).integers(1, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    return source_with(images)


def source_with(images):
    """One class an image."""
    classes = len(images)
    return ArraySource(images, Labels.from_ids(np.arange(classes), classes=classes), classes=[str(k) for k in range(classes)])


def batches(count, *, n=20, rows=None, batch_size=6, seed=3, start=0, preprocessing=OFF, read_options=HERE, second_view=False):
    rows = np.arange(n) if rows is None else rows
    made = pipeline.train_batches(
        source_of(n),
        rows,
        preprocessing=preprocessing,
        batch_size=batch_size,
        seed=seed,
        start=start,
        read_options=read_options,
        second_view=second_view,
    )
    return list(itertools.islice(made, count))


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in ("inputs", "index"))


@pytest.mark.parametrize("start", [1, 2, 3, 7])
def test_batch_depends_on_seed_and_step_alone(start):
    """Begun at a later step, within a pass and beyond it, the batches are those of an uninterrupted run, pixel for pixel."""
    whole, later = batches(10, preprocessing=ALL), batches(10 - start, start=start, preprocessing=ALL)
    assert all(same(one, other) for one, other in zip(whole[start:], later, strict=True))


def test_seed_changes_order_and_augmentation():
    """Another seed gives another order, and the same images are cut differently."""
    one, other = batches(3, preprocessing=ALL), batches(3, seed=4, preprocessing=ALL)
    assert [b["index"].tolist() for b in one] != [b["index"].tolist() for b in other]
    one, other = by_index(one), by_index(other)
    shared = one.keys() & other.keys()
    assert sum(not np.array_equal(one[i], other[i]) for i in shared) > len(shared) / 2


def augmented_alone(image, rng, preprocessing):
    """What augments one image: the numbers are drawn for top, left, mirroring, erasing, the square's side and its centre."""
    side, padding = preprocessing.image_size, preprocessing.crop_padding
    image = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    if image.shape[:2] != (side, side):
        top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
        image = image[top : top + side, left : left + side]
    if preprocessing.flip and rng.random() < 0.5:
        image = image[:, ::-1]
    image = image.copy()
    if preprocessing.erase and rng.random() < 0.5:
        square = int(rng.integers(1, max(2, round(preprocessing.erase * side) + 1)))
        y, x = rng.integers(0, (side, side))
        image[max(0, y - square // 2) : y + (square + 1) // 2, max(0, x - square // 2) : x + (square + 1) // 2] = 0
    return image


@pytest.mark.parametrize("second_view", [False, True])
@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("preprocessing", [ALL, ALL._replace(resize=9), OFF._replace(flip=True), ALL._replace(crop_padding=0)])
def test_batches_are_those_of_grain_image_by_image(preprocessing, start, second_view):
    """What grain makes of single images, shuffled, augmented and stacked, a run that was begun with it goes on with."""
    source, rows = source_of(20), np.arange(19)[::-1]

    def views(index, rng):
        image = source.image(int(rows[index % 19]), shorter_side=preprocessing.resize)
        names = ("inputs", "second_inputs")[: 1 + second_view]
        return {name: augmented_alone(image, rng, preprocessing) for name in names} | {"index": np.int32(index % 19)}

    options = {"n": 20, "rows": rows, "batch_size": 6, "start": start, "preprocessing": preprocessing}
    made = batches(7, second_view=second_view, **options)
    expected = grain.MapDataset.range(19).seed(3).shuffle().random_map(views)[0:18].batch(6).repeat()
    for step, batch in enumerate(made, start):
        assert batch.keys() == expected[step].keys()
        for name, values in batch.items():
            assert values.dtype == expected[step][name].dtype
            np.testing.assert_array_equal(values, expected[step][name])


def by_index(made):
    return {int(index): image for batch in made for index, image in zip(batch["index"], batch["inputs"], strict=True)}


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
    made = batches(30, preprocessing=ALL)  # ten passes of three
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
        for index, image in zip(batch["index"], batch["inputs"], strict=True):
            np.testing.assert_array_equal(image, source.pixels[rows[index]])


def test_a_second_view_is_of_the_same_image():
    """It is another window of the image that comes first, by random numbers of its own; the first view stays what it was."""
    one, two = (batches(9, start=2, preprocessing=OFF._replace(crop_padding=2), second_view=second) for second in (False, True))
    assert all(batch.keys() == {"inputs", "index"} for batch in one)
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    frames = np.pad(source_of(20).pixels, ((0, 0), (2, 2), (2, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(frames, (SIDE, SIDE, 3), axis=(1, 2, 3)).reshape(20, 25, SIDE, SIDE, 3)
    places = []  # of both views' windows
    for batch in two:
        for index, *views in zip(batch["index"], batch["inputs"], batch["second_inputs"], strict=True):
            places.append([np.flatnonzero((windows[index] == view).all(axis=(1, 2, 3))).item() for view in views])
    first, second = np.transpose(places)
    assert np.mean(first == second) < 0.2
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


def augmented(**augment):
    """Nine views of each of 200 images: (image, view) pairs."""
    source = source_of(200)
    views = batches(18, n=200, batch_size=100, preprocessing=OFF._replace(**augment))
    return [(source.pixels[i], view) for batch in views for i, view in zip(batch["index"], batch["inputs"], strict=True)]


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
    before = source.pixels.copy()
    made = pipeline.train_batches(source, np.arange(20), preprocessing=ALL, batch_size=6, seed=0, start=0, read_options=HERE)
    for batch in itertools.islice(made, 30):
        for index, view in zip(batch["index"], batch["inputs"], strict=True):
            known = {tuple(pixel) for pixel in source.pixels[index].reshape(-1, 3).tolist()}
            assert {tuple(pixel) for pixel in view.reshape(-1, 3).tolist()} <= known | {(0, 0, 0)}
            assert view.shape == (SIDE, SIDE, 3)
            assert view.dtype == np.uint8
    np.testing.assert_array_equal(source.pixels, before)


def test_grey_images():
    """Images of one channel come in three equal ones, erased ones too."""
    source = source_with(np.full((8, SIDE, SIDE, 1), 9, np.uint8))
    made = pipeline.train_batches(source, np.arange(8), preprocessing=ALL, batch_size=4, seed=0, start=0, read_options=HERE)
    for batch in itertools.islice(made, 20):
        assert batch["inputs"].shape == (4, SIDE, SIDE, 3)
        assert (batch["inputs"] == batch["inputs"][..., :1]).all()
    assert (source.pixels == 9).all()


@settings(max_examples=20)
@given(st.integers(1, 25), st.integers(1, 9), st.integers(0, 999))
def test_in_order(n, batch_size, seed):
    """Every row comes once, in order and unchanged; all batches are full, the last one with its first image again."""
    source = source_of(30)
    rows = np.random.default_rng(seed).permutation(30)[:n]
    made = list(pipeline.in_order(source, rows, preprocessing=OFF, batch_size=batch_size, read_options=HERE))
    assert len(made) == -(-n // batch_size)
    assert all(batch["inputs"].shape == (batch_size, SIDE, SIDE, 3) for batch in made)
    index, image = (np.concatenate([batch[name] for batch in made]) for name in ("index", "inputs"))
    np.testing.assert_array_equal(index[:n], np.arange(n))
    np.testing.assert_array_equal(image[:n], source.pixels[rows])
    np.testing.assert_array_equal(index[n:], made[-1]["index"][0])
    np.testing.assert_array_equal(image[n:], np.broadcast_to(made[-1]["inputs"][:1], image[n:].shape))


@pytest.mark.parametrize("start", [1, 4, 6, 19])
@pytest.mark.parametrize("seed", [None, 0, 7])
def test_in_order_from_a_place_on(seed, start):
    """Begun at a later place, images, their places and their augmentation are those of the whole, pixel for pixel."""
    source, rows = source_of(30), np.random.default_rng(0).permutation(30)[:20]

    def taken(start):
        made = pipeline.in_order(source, rows, preprocessing=ALL, batch_size=6, read_options=HERE, seed=seed, start=start)
        made = list(made)
        assert len(made) == -(-(20 - start) // 6)
        return [np.concatenate([batch[name] for batch in made])[: 20 - start] for name in ("inputs", "index")]

    for whole, later in zip(taken(0), taken(start), strict=True):
        np.testing.assert_array_equal(later, whole[start:])


def test_in_order_with_a_seed_augments():
    """Another seed gives other views; an image's view goes by the seed and its place, whatever the batch."""
    source, rows = source_of(30), np.arange(30)

    def taken(seed, batch_size, rows=rows):
        made = pipeline.in_order(source, rows, preprocessing=ALL, batch_size=batch_size, read_options=HERE, seed=seed)
        return np.concatenate([batch["inputs"] for batch in made])[: len(rows)]

    one = taken(0, 6)
    np.testing.assert_array_equal(one, taken(0, 30))
    assert np.mean([np.array_equal(x, y) for x, y in zip(one, taken(1, 30), strict=True)]) < 0.2
    assert np.mean([np.array_equal(x, y) for x, y in zip(one, source.pixels, strict=True)]) < 0.2
    np.testing.assert_array_equal(taken(0, 6, rows[:9]), one[:9])


VIEWS = [
    np.add.outer(100.0 * k + np.arange(20), [0, 0.25]).astype(np.float32) for k in range(3)
]  # [n, width], preprocessing by hundreds


def feature_batches(count, *, views=VIEWS, seed=3, start=0, read_options=HERE, second_view=False):
    order = {"seed": seed, "start": start, "read_options": read_options}
    made = pipeline.train_feature_batches(views, batch_size=6, second_view=second_view, **order)
    return list(itertools.islice(made, count))


def test_features_belong_to_their_index():
    """Each pass has each row once at most, in its own order; a row's features are one of its views, each at some time."""
    made = feature_batches(3 * 40)
    passes = [np.concatenate([batch["index"] for batch in made[k : k + 3]]) for k in range(0, 120, 3)]
    assert all(len(set(indices.tolist())) == 18 for indices in passes)
    assert len({indices.tobytes() for indices in passes}) == 40
    assert set(np.concatenate(passes).tolist()) == set(range(20))
    seen = []
    for batch in made:
        assert (batch["inputs"].dtype, batch["inputs"].shape) == (np.float32, (6, 2))
        assert (batch["index"].dtype, batch["index"].shape) == (np.int32, (6,))
        view, row = np.divmod(batch["inputs"][:, 0], 100)
        np.testing.assert_array_equal(row, batch["index"])
        np.testing.assert_array_equal(batch["inputs"][:, 1], batch["inputs"][:, 0] + 0.25)
        seen += zip(batch["index"].tolist(), view.tolist(), strict=True)
    assert set(seen) == {(row, view) for row in range(20) for view in range(3)}
    shares = np.bincount([int(view) for _, view in seen]) / len(seen)
    assert np.abs(shares - 1 / 3).max() < 5 * np.sqrt(2 / 9 / len(seen))


def test_a_second_view_of_features():
    """It is another stored view of the same image, any of the others at some time; the first view stays what it was."""
    one, two = (feature_batches(60, second_view=second) for second in (False, True))
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    seen = set()
    for batch in two:
        (first, row), (second, same_row) = (np.divmod(batch[name][:, 0], 100) for name in ("inputs", "second_inputs"))
        np.testing.assert_array_equal(row, batch["index"])
        np.testing.assert_array_equal(same_row, batch["index"])
        seen |= set(zip(first.tolist(), second.tolist(), strict=True))
    assert seen == {(a, b) for a in range(3) for b in range(3) if a != b}
    alone = feature_batches(1, views=VIEWS[:1], second_view=True)[0]
    np.testing.assert_array_equal(alone["second_inputs"], alone["inputs"])


def test_a_pass_over_features_is_a_permutation():
    """If the batches fill the training set, each pass has each row once."""
    made = feature_batches(4 * 3, views=[view[:18] for view in VIEWS[:1]])
    for k in range(0, 12, 3):
        assert sorted(np.concatenate([batch["index"] for batch in made[k : k + 3]]).tolist()) == list(range(18))


@pytest.mark.parametrize("start", [1, 2, 3, 7])
def test_feature_batch_depends_on_seed_and_step_alone(start):
    """Begun at a later step the batches are those of an uninterrupted run; with worker processes asked for as well."""
    whole, read_options = feature_batches(10), pipeline.ReadOptions(threads=2, workers=2)
    for later in (
        feature_batches(10 - start, start=start),
        feature_batches(10 - start, start=start, read_options=read_options),
    ):
        assert all(same(one, other) for one, other in zip(whole[start:], later, strict=True))
    other = feature_batches(10, seed=4)
    assert [b["index"].tolist() for b in whole] != [b["index"].tolist() for b in other]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_each_batch_of_features(processes):
    """Process p of n gets rows p, p + n, ... of the batch that one process would get, at any step."""
    whole = feature_batches(9, start=2)
    for p in range(processes):
        own = feature_batches(9, start=2, read_options=pipeline.ReadOptions(threads=2, process=p, processes=processes))
        for batch, share in zip(whole, own, strict=True):
            for name in ("inputs", "index"):
                np.testing.assert_array_equal(share[name], batch[name][p::processes])


def test_features_on_the_disk_are_not_handed_out(tmp_path):
    """Batches of features that are mapped from a file are copies."""
    np.save(tmp_path / "view.npy", VIEWS[0])
    batch = feature_batches(1, views=[np.load(tmp_path / "view.npy", mmap_mode="r")])[0]
    assert type(batch["inputs"]) is np.ndarray
    np.testing.assert_array_equal(batch["inputs"], VIEWS[0][batch["index"]])


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_each_batch(processes):
    """Process p of n gets images p, p + n, ... of the batch that one process would get, pixel for pixel, at any step."""
    whole = batches(9, start=2, preprocessing=ALL)
    for p in range(processes):
        own = batches(
            9, start=2, preprocessing=ALL, read_options=pipeline.ReadOptions(threads=2, process=p, processes=processes)
        )
        for batch, share in zip(whole, own, strict=True):
            for name in ("inputs", "index"):
                np.testing.assert_array_equal(share[name], batch[name][p::processes])


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_threads_change_nothing(threads):
    """Any number of threads gives the same batches, in training and in order."""
    read_options = pipeline.ReadOptions(threads=threads)
    assert all(
        same(a, b)
        for a, b in zip(batches(9, preprocessing=ALL), batches(9, preprocessing=ALL, read_options=read_options), strict=True)
    )
    one, other = (
        list(pipeline.in_order(source_of(20), np.arange(20), preprocessing=OFF, batch_size=3, read_options=r))
        for r in (HERE, read_options)
    )
    assert all(same(a, b) for a, b in zip(one, other, strict=True))


WORKERS = """
import sys
import numpy as np
from absl import app
from adsq_jax.data import pipeline
from adsq_jax.data.images import BadImage
from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import ArraySource, FileSource, Names

def main(argv):
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), dtype=np.uint8)
    source = ArraySource(images, Labels.from_ids(np.arange(20), classes=20), classes=[str(k) for k in range(20)])
    preprocessing = pipeline.Preprocessing(resize=8, image_size=6, crop_padding=2, flip=True, erase=0.5)
    taken = []
    for workers in (0, 2, 3):
        read_options = pipeline.ReadOptions(threads=2, workers=workers)
        order = {"batch_size": 6, "seed": 3, "start": 2}
        made = pipeline.train_batches(
            source, np.arange(20), preprocessing=preprocessing, read_options=read_options, **order
        )
        ordered = pipeline.in_order(source, np.arange(20), preprocessing=preprocessing, batch_size=6, read_options=read_options)
        batches = [next(made) for _ in range(7)] + list(ordered)
        taken.append([(b["index"].tolist(), b["inputs"].tobytes()) for b in batches])
    assert taken[0] == taken[1] == taken[2]
    print("the same")

if __name__ == "__main__":
    app.run(main)
"""


# Worker processes import JAX.
@pytest.mark.slow
def test_worker_processes_change_nothing(tmp_path):
    """None, two or three worker processes give the same batches, in the same order, in training and in evaluation."""
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "the same\n", done.stderr


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 32)])
def test_large_images_are_resized_and_cropped(shape):
    """The shorter side becomes `resize`; evaluation cuts the centre, training any window of it, each at some time."""
    images = np.random.default_rng(0).integers(0, 256, (4, *shape, 3), dtype=np.uint8)
    source, preprocessing = source_with(images), pipeline.Preprocessing(resize=20, image_size=16)
    size = [round(side * 20 / min(shape)) for side in reversed(shape)]
    expected = [np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)) for x in images]
    top, left = ((side - 16) // 2 for side in expected[0].shape[:2])
    made = next(pipeline.in_order(source, np.arange(4), preprocessing=preprocessing, batch_size=4, read_options=HERE))
    np.testing.assert_array_equal(made["inputs"], [x[top : top + 16, left : left + 16] for x in expected])
    windows = [np.lib.stride_tricks.sliding_window_view(x, (16, 16, 3)).reshape(-1, 16, 16, 3) for x in expected]
    seen = set()
    batches = pipeline.train_batches(
        source, np.arange(4), preprocessing=preprocessing, batch_size=4, seed=0, start=0, read_options=HERE
    )
    for batch in itertools.islice(batches, 150):
        for index, image in zip(batch["index"], batch["inputs"], strict=True):
            places = np.flatnonzero((windows[index] == image).all(axis=(1, 2, 3)))
            assert len(places) == 1
            seen.add(int(places[0]))
    assert len(seen) == len(windows[0])


def test_size_that_does_not_fit():
    """Without `resize`, an image of another size than the network's is an error that names both and says what to set."""
    made = pipeline.in_order(
        source_of(3),
        np.arange(3),
        preprocessing=pipeline.Preprocessing(resize=0, image_size=9),
        batch_size=3,
        read_options=HERE,
    )
    with pytest.raises(InputError, match=r"image 0 is 6x6.*9x9; fix: .*--config.data.image_size .*--config.data.resize=9"):
        next(made)


def test_a_bad_image_is_named(tmp_path):
    """A file that is no picture ends the batches with its path."""
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    source = FileSource(tmp_path, Labels.from_ids(np.array([0]), classes=1), classes=["a"], names=Names([b"a.jpg"]))
    made = pipeline.in_order(source, np.arange(1), preprocessing=pipeline.Preprocessing(8, 8), batch_size=1, read_options=HERE)
    with pytest.raises(BadImage, match=str(tmp_path / "a.jpg")):
        next(made)
