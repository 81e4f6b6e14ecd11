"""A frozen trunk's features: what they are, and that they are computed once, whatever happens on the way."""

import contextlib
import errno
import json
import os
import resource
import threading

import jax
import numpy as np
import pytest
from PIL import Image
from support import mock_data
from support.runs import make_setup

from adsq_jax import storage
from adsq_jax.data import datasets, splits
from adsq_jax.data.labels import Labels
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.data.sources import ArraySource, FileSource, Names
from adsq_jax.errors import InputError, Stopped
from adsq_jax.models import network
from adsq_jax.run import workdir
from adsq_jax.training import compute_features, frozen_features, init, rounds

WIDTH, BATCH = 5, 9
TRUNK = {"params": {"backbone": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}}, "batch_stats": {}}


def expected(rows, seed):
    """Numbers that row and seed decide."""
    return np.stack([np.random.default_rng([row, 99 if seed is None else seed]).random(WIDTH, np.float32) for row in rows])


class FakeEncoder:
    """Gives `expected`, and keeps account of what it was asked for."""

    def __init__(self, *, fails_after=None):
        self.done, self.fails_after = [], fails_after

    def features(self, trunk, rows, *, seed, start):
        for at in range(start, len(rows), BATCH):
            if len(self.done) == self.fails_after:
                raise RuntimeError("a broken device")
            part = rows[at : at + BATCH]
            self.done.append([(seed, int(row)) for row in part])
            yield expected(part, seed)


def divided(source, *, train=None, query=None):
    """A split whose rows are not all of the source's, with its parts in no order."""
    train = np.arange(60, 20, -1) if train is None else train
    split = splits.Split(np.arange(12) if query is None else query, train, np.arange(91, 12, -1))
    return datasets.make_dataset(source, split, protocol="digits", map_at="all", preprocessing=Preprocessing(0, 4))


def array_source(*, changed=None, n=100):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    if changed is not None:
        pixels[changed, 3, 3, 2] ^= 1
    return ArraySource(pixels, Labels.from_ids(np.arange(n) % 5, classes=5), classes=list("abcde"))


def test_the_bit_depth_is_part_of_the_identity():
    """Features of another bit depth are others; without one, the identity is that of before there was a bit depth."""
    net = network.build("small_cnn", bits=8, width=2).img_net
    before, view = Preprocessing(9, 8, 1, True, 0.5), [9, 8, 1, True, 0.5]
    assert rounds.feature_identity(net, before)[-1] == view
    found = {json.dumps(rounds.feature_identity(net, before._replace(bit_depth=depth))) for depth in (0, 10, 12, 16)}
    assert len(found) == 4


def compute(encoder, directory, *, dataset=None, trunk=TRUNK, views=2, identity="net", stop=lambda: False, **more):
    dataset = divided(array_source()) if dataset is None else dataset
    return frozen_features.compute(
        encoder, trunk, dataset, views=views, identity=identity, directory=directory, stop=stop, **more
    )


def assert_right(found, dataset=None, *, views=2):
    dataset = divided(array_source()) if dataset is None else dataset
    rows = sorted({int(row) for part in dataset.split for row in part})
    assert found.rows.tolist() == rows
    np.testing.assert_array_equal(found.centre, expected(rows, None))
    assert len(found.views) == views
    for seed, view in enumerate(found.views):
        np.testing.assert_array_equal(view, expected(dataset.split.train, seed))


def files_of(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """The features of a real trunk: pictures of 10x10 pixels, seen as 8x8."""
    config = mock_data.small_config()
    config.optim.trunk_lr_scale, config.data.feature_views, config.data.resize = 0.0, 2, 10
    config.data.crop_padding, config.data.flip = 0, True
    setup = make_setup(config, mock_data.dataset(image_size=10), devices=4)
    state = init(setup)
    setup = compute_features(setup, state, directory=tmp_path_factory.mktemp("run") / "features")
    net = setup.img_net
    alone = jax.jit(lambda image: net.apply(state.trunk, image[None], train=False, method=net.trunk)[0])
    return setup, alone


def test_centres_are_what_the_trunk_makes_of_each_image_alone(frozen):
    """Every image of the split, cut to its middle 8x8 pixels and given to the trunk by itself."""
    setup, alone = frozen
    found, source = setup.features, setup.data.source
    assert found.rows.tolist() == list(range(140))
    expected = [alone(source[row]["image"][1:9, 1:9]) for row in range(140)]
    assert found.centre.dtype == np.float32
    np.testing.assert_allclose(found.centre, expected, rtol=1e-5, atol=1e-6)


def test_views_are_what_the_trunk_makes_of_augmented_images(frozen):
    """Each is the trunk's output of one of the nine crops, mirrored or not; most aren't the centre, and views differ."""
    setup, alone = frozen
    found, source, train = setup.features, setup.data.source, setup.data.split.train
    places = []
    for k, row in enumerate(train):
        image = source[row]["image"]
        crops = [image[top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
        known = np.stack([alone(crop) for crop in [*crops, *(crop[:, ::-1] for crop in crops)]])  # [18, width]
        distances = [np.abs(known - view[k]).max(axis=1) for view in found.views]
        assert max(d.min() for d in distances) < 1e-5 * np.abs(known).max()
        places.append([int(d.argmin()) for d in distances])
    places = np.array(places)  # [n, views]
    assert len(set(places.ravel().tolist())) == 18
    assert np.mean(places == 4) < 0.25  # the centre, not mirrored: 1 of 18
    assert np.mean(places[:, 0] == places[:, 1]) < 0.25


def test_rows_in_any_order(tmp_path):
    """Centres by row of the source, in the order asked for, the same one twice too."""
    found = compute(FakeEncoder(), tmp_path)
    rows = np.array([91, 0, 33, 33, 7])
    assert type(found.of_rows(rows)) is np.ndarray
    np.testing.assert_array_equal(found.of_rows(rows), expected(rows, None))


def test_computed_once(tmp_path):
    """The first call runs each row once for the centre and each training row once a view; the second reads the disk."""
    encoder = FakeEncoder()
    assert_right(compute(encoder, tmp_path))
    done = [place for batch in encoder.done for place in batch]
    assert len(done) == len(set(done)) == 91 + 2 * 40
    before, unused = files_of(tmp_path), FakeEncoder()
    assert_right(compute(unused, tmp_path))
    assert unused.done == []
    assert files_of(tmp_path) == before


def test_more_views_later(tmp_path):
    """Asked for another view, only that one is computed; asked for none, nothing is."""
    compute(FakeEncoder(), tmp_path, views=1)
    encoder = FakeEncoder()
    assert_right(compute(encoder, tmp_path, views=3), views=3)
    assert {seed for batch in encoder.done for seed, _ in batch} == {1, 2}
    unused = FakeEncoder()
    assert_right(compute(unused, tmp_path, views=0), views=0)
    assert unused.done == []


def sittings(directory, **kwargs):
    """Computes in sittings of one batch each; gives the places that each did."""
    done = []
    while len(done) < 50:
        encoder = FakeEncoder()
        done.append(encoder.done)
        with contextlib.suppress(Stopped):
            return compute(encoder, directory, **kwargs), done
    raise AssertionError("no end in 50 sittings")


def test_stopped_at_every_batch(tmp_path):
    """Stopped after each batch and begun again, it ends with the files of an uninterrupted run; nothing is done twice."""
    whole = FakeEncoder()
    compute(whole, tmp_path / "whole")
    found, done = sittings(tmp_path / "parts", stop=lambda: True)
    assert_right(found)
    places = [place for sitting in done for batch in sitting for place in batch]
    assert len(done) > 15
    assert places == [place for batch in whole.done for place in batch]
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("every", [0.0, 5.0])
@pytest.mark.parametrize("after", [1, 4, 10, 11, 15, 16, 20])
def test_broken_off_at_any_batch(after, every, tmp_path):
    """After an exception the next call gives the files of an uninterrupted run; what was noted isn't done again."""
    compute(FakeEncoder(), tmp_path / "whole")
    broken, encoder = FakeEncoder(fails_after=after), FakeEncoder()
    with pytest.raises(RuntimeError, match="a broken device"):
        compute(broken, tmp_path / "parts", note_seconds=every)
    assert_right(compute(encoder, tmp_path / "parts", note_seconds=every))
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    assert len(broken.done) == after
    assert len(encoder.done) == 21 - after if every == 0 else len(encoder.done) <= 21


def half_done(directory):
    """A folder with the first three batches of the centres on the disk and noted; gives where they are."""
    with pytest.raises(RuntimeError):
        compute(FakeEncoder(fails_after=3), directory, note_seconds=0)
    return next(directory.rglob("centre.json"))


def test_what_was_written_after_the_last_note_is_dropped(tmp_path):
    """A run that was killed between a write and its note: the tail of the file goes, what is noted isn't done again."""
    note = half_done(tmp_path)
    with note.with_suffix(".f32").open("ab") as file:
        file.write(b"\x07" * 9999)
    encoder = FakeEncoder()
    assert_right(compute(encoder, tmp_path))
    assert len(encoder.done) == 21 - 3
    assert note.with_suffix(".f32").stat().st_size == 91 * WIDTH * 4


def noted(note, **changes):
    note.write_text(json.dumps({**json.loads(note.read_text()), **changes}))


def flipped(note):
    content = bytearray(note.with_suffix(".f32").read_bytes())
    content[41] ^= 1
    note.with_suffix(".f32").write_bytes(content)


DAMAGES = {
    "a flipped bit": flipped,
    "a byte less": lambda note: os.truncate(note.with_suffix(".f32"), note.with_suffix(".f32").stat().st_size - 1),
    "half of it": lambda note: os.truncate(note.with_suffix(".f32"), 260),
    "no content": lambda note: note.with_suffix(".f32").write_bytes(b""),
    "no file": lambda note: note.with_suffix(".f32").unlink(),
    "no note": lambda note: note.unlink(),
    "an empty note": lambda note: note.write_bytes(b""),
    "a note cut short": lambda note: note.write_bytes(note.read_bytes()[:-9]),
    "no text": lambda note: note.write_bytes(b"\xff\xfe\x00"),
    "a null byte": lambda note: note.write_bytes(b"\0" * 60),
    "a list": lambda note: note.write_text("[1, 2]"),
    "a number": lambda note: note.write_text("7"),
    "a string": lambda note: note.write_text('"rows"'),
    "null": lambda note: note.write_text("null"),
    "no keys": lambda note: note.write_text("{}"),
    "too deep": lambda note: note.write_text("[" * 100_000),
    "too many digits": lambda note: note.write_text('{"rows": 1' + "0" * 9000 + ', "width": 5}'),
    "one row more": lambda note: noted(note, rows=json.loads(note.read_text())["rows"] + 1),
    "one row less": lambda note: noted(note, rows=json.loads(note.read_text())["rows"] - 1),
    "no rows": lambda note: noted(note, rows=0),
    "negative rows": lambda note: noted(note, rows=-1),
    "rows by far": lambda note: noted(note, rows=10**30),
    "infinite rows": lambda note: noted(note, rows=float("inf")),
    "rows not a number": lambda note: noted(note, rows=float("nan")),
    "rows of text": lambda note: noted(note, rows="many"),
    "rows in a list": lambda note: noted(note, rows=[3]),
    "no number of rows": lambda note: noted(note, rows=None),
    "no width": lambda note: noted(note, width=0),
    "negative width": lambda note: noted(note, width=-5),
    "both negative": lambda note: noted(note, rows=-json.loads(note.read_text())["rows"], width=-5),
    "width by far": lambda note: noted(note, width=10**30),
    "width of one": lambda note: noted(note, width=1),
    "infinite width": lambda note: noted(note, width=float("inf")),
    "width of text": lambda note: noted(note, width={}),
    "long rows of the same bytes": lambda note: noted(note, rows=1, width=5 * json.loads(note.read_text())["rows"]),
    "another hash": lambda note: noted(note, sha256="0" * 64),
    "a hash that is none": lambda note: noted(note, sha256=7),
    "no hash": lambda note: noted(note, sha256=None),
}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "half done"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_features_are_computed_again(damage, whole, tmp_path):
    """Whatever is wrong with the numbers or the note beside them, the next call gives the right ones and the same files."""
    compute(FakeEncoder(), tmp_path / "good")
    note = half_done(tmp_path / "bad")
    if whole:
        compute(FakeEncoder(), tmp_path / "bad")
    DAMAGES[damage](note)
    encoder = FakeEncoder()
    assert_right(compute(encoder, tmp_path / "bad"))
    assert [seed for batch in encoder.done for seed, _ in batch].count(None) == 91
    assert files_of(tmp_path / "bad") == files_of(tmp_path / "good")


def pictures(folder):
    """100 files of a few pixels each."""
    names = [f"{k}.png" for k in range(100)]
    folder.mkdir(exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(np.full((4, 4, 3), k, np.uint8)).save(folder / name)
    labels = Labels.from_ids(np.arange(100) % 5, classes=5)
    return FileSource(folder, labels, classes=list("abcde"), names=Names(name.encode() for name in names))


@pytest.mark.parametrize(
    "other",
    [
        {"trunk": {"params": {"backbone": {"kernel": TRUNK["params"]["backbone"]["kernel"] + np.float32(1e-6)}}}},
        {"trunk": {"params": {"backbone": {"bias": TRUNK["params"]["backbone"]["kernel"]}}, "batch_stats": {}}},
        {"trunk": {"params": {"backbone": {"kernel": np.arange(6, dtype=np.float32).reshape(3, 2)}}, "batch_stats": {}}},
        {"identity": "another net"},
        {"identity": ["net", (0.5, 0.5, 0.5)]},
        {"dataset": divided(array_source(changed=7))},
        {"dataset": divided(array_source(changed=91))},
        {"dataset": divided(array_source(), query=np.array([*range(11), 95]))},
    ],
    ids=["numbers", "names", "shapes", "network", "normalisation", "a pixel", "the last row's pixel", "rows"],
)
def test_what_decides_the_features_decides_the_folder(other, tmp_path):
    """Another trunk, view, picture or set of rows: all is computed, in another folder, and the first one stays as it was."""
    compute(FakeEncoder(), tmp_path)
    before, encoder = files_of(tmp_path), FakeEncoder()
    assert_right(compute(encoder, tmp_path, **other), other.get("dataset"))
    assert len(encoder.done) == 21
    assert before.items() <= files_of(tmp_path).items()
    assert len(list(tmp_path.iterdir())) == 2
    unused = FakeEncoder()
    assert_right(compute(unused, tmp_path))
    assert unused.done == []


def test_what_does_not_decide_the_features(tmp_path):
    """A pixel of an image that is no row of the split, and arrays of JAX instead of NumPy's, change nothing."""
    compute(FakeEncoder(), tmp_path)
    unused, same = FakeEncoder(), jax.tree.map(jax.numpy.asarray, TRUNK)
    assert_right(compute(unused, tmp_path, trunk=same, dataset=divided(array_source(changed=95))))
    assert unused.done == []


def test_another_training_set_of_the_same_images_has_other_views(tmp_path):
    """The centres are shared; views, which go by the place in the training set, are not: another order, fewer, others."""
    compute(FakeEncoder(), tmp_path)
    for train in (np.arange(21, 61), np.arange(60, 30, -1), np.arange(70, 30, -1)):
        encoder, dataset = FakeEncoder(), divided(array_source(), train=train)
        assert_right(compute(encoder, tmp_path, dataset=dataset), dataset)
        assert {seed for batch in encoder.done for seed, _ in batch} == {0, 1}
    unused = FakeEncoder()
    assert_right(compute(unused, tmp_path))
    assert unused.done == []


def _replaced_in_secret(path):
    """Other content of the same size, with the time of change set back."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_changed_files(tmp_path):
    """A picture with another time or size, or one that was replaced, has all computed again; one beside the split doesn't."""
    source = pictures(tmp_path / "pictures")
    for name, change, again in (
        ("95.png", lambda path: os.utime(path, ns=(1, 1)), False),
        ("91.png", lambda path: os.utime(path, ns=(1, 1)), True),
        ("3.png", lambda path: path.write_bytes(path.read_bytes() + b"."), True),
        ("3.png", lambda path: path.read_bytes(), False),
        ("3.png", _replaced_in_secret, True),
    ):
        compute(FakeEncoder(), tmp_path / "cache", dataset=divided(source))
        change(tmp_path / "pictures" / name)
        encoder = FakeEncoder()
        compute(encoder, tmp_path / "cache", dataset=divided(source))
        assert len(encoder.done) == 21 * again


def test_two_at_once(tmp_path):
    """The second run waits until the first is through, then reads what it wrote; one that is asked to stop meanwhile does."""
    inside, go = threading.Event(), threading.Event()

    class Slow(FakeEncoder):
        def features(self, trunk, rows, *, seed, start):
            inside.set()
            assert go.wait(timeout=60)
            yield from super().features(trunk, rows, seed=seed, start=start)

    first, second, found = Slow(), FakeEncoder(), {}
    threads = [threading.Thread(target=lambda: found.update(first=compute(first, tmp_path)))]
    threads.append(threading.Thread(target=lambda: found.update(second=compute(second, tmp_path))))
    threads[0].start()
    assert inside.wait(timeout=60)
    threads[1].start()
    with pytest.raises(Stopped):
        compute(second, tmp_path, stop=lambda: True)
    threads[1].join(timeout=0.5)
    assert found == {}
    assert second.done == []
    go.set()
    for thread in threads:
        thread.join(timeout=60)
    assert_right(found["first"])
    assert_right(found["second"])
    assert len(first.done) == 21
    assert second.done == []


def test_other_features_are_not_waited_for(tmp_path):
    """While one run computes, another one with another trunk in the same cache does too."""

    class Nested(FakeEncoder):
        def features(self, trunk, rows, *, seed, start):
            if not self.done:
                assert_right(compute(FakeEncoder(), tmp_path, identity="another"))
            yield from super().features(trunk, rows, seed=seed, start=start)

    assert_right(compute(Nested(), tmp_path))


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_used(place, tmp_path):
    """One line that names the folder and the knob."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"can't be used for features \(.+\); fix: give another --config.data.feature_cache"
    ) as caught:
        compute(FakeEncoder(), tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)
    assert "\n" not in str(caught.value)


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["write", "fsync", "note"])
def test_a_full_disk(where, tmp_path, monkeypatch):
    """The system's error passes out, wherever it comes; with room made, the same call goes on after what was noted."""
    compute(FakeEncoder(), tmp_path / "whole")
    written, encoder, again = [], FakeEncoder(), FakeEncoder()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if where == "write":  # what a file may have is 1000 bytes: five batches of 9 rows of 20 bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    else:
        owner, name = (os, "fsync") if where == "fsync" else (workdir, "write_json")
        function = getattr(owner, name)

        def fails_in_time(*args):
            written.append(1)
            return (full if len(written) == 6 else function)(*args)

        monkeypatch.setattr(owner, name, fails_in_time)
    try:
        with pytest.raises(OSError, match="File too large" if where == "write" else "No space left"):
            compute(encoder, tmp_path / "parts", note_seconds=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.undo()
    assert_right(compute(again, tmp_path / "parts"))
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    assert len(again.done) < 21


def test_a_folder_of_a_store(tmp_path):
    """Features are mapped from a disk: in an object store they are refused, in a line that says which knob to set."""
    with pytest.raises(InputError, match=r"s3://bucket/run/features can't hold .* --config\.data\.feature_cache") as caught:
        compute(FakeEncoder(), storage.path("s3://bucket/run/features"))
    assert "\n" not in str(caught.value)
