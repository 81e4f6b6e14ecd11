"""Sources: names and images come out as they went in, in little memory, and what isn't there is named."""

import gc
import os
import pickle
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import absl.logging
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adsq_jax.data import images
from adsq_jax.data.images import BadImage
from adsq_jax.data.labels import Labels
from adsq_jax.data.sources import ArraySource, CachedSource, FileSource, Names, Source, Subset
from adsq_jax.errors import InputError

texts = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])), max_size=20)
short_texts = st.lists(st.text("aé 日", max_size=2), max_size=12)
RANDOM = np.random.default_rng(5)


def one_class_each(n):
    return Labels.from_ids(np.arange(n), classes=n)


def counted(n):
    return [str(k) for k in range(n)]


@given(texts)
def test_names(names):
    """Texts of any characters, of spaces, and empty ones come out as they went in, from any iterable."""
    found = Names(name.encode() for name in names)
    assert [found[i] for i in range(len(found))] == names
    assert len(found) == len(names)


@given(st.lists(st.binary(min_size=1).map(lambda text: text.replace(b"\n", b"\0"))))
def test_names_that_are_no_text(names):
    """File names that are no UTF-8, as they occur, come out as they went in; what people see of them can be printed."""
    found = Names(names)
    assert [found.raw(i) for i in range(len(found))] == names
    assert all(found[i].encode() for i in range(len(found)))


def test_file_name_that_is_no_text(folder):
    """A file whose name is no UTF-8 is found and read."""
    (folder / os.fsdecode(b"\xff\xe9.png")).symlink_to("a.png")
    source = FileSource(folder, one_class_each(1), classes=["x"], names=Names([b"\xff\xe9.png"]))
    assert source.missing(np.arange(1)).tolist() == []
    np.testing.assert_array_equal(source.image(0, shorter_side=0), files(folder).image(0, shorter_side=0))


@given(short_texts)
def test_first_and_once(names):
    """The first of the same texts is found for each, and which ones stand alone."""
    found = Names([name.encode() for name in names])
    np.testing.assert_array_equal(found.first(), np.array([names.index(name) for name in names], np.int64))
    np.testing.assert_array_equal(found.unique(), np.array([names.count(name) == 1 for name in names], bool))
    assert found.first().dtype == np.int64


@given(short_texts, st.data())
def test_names_of_rows(names, data):
    """Some of the texts, in any order, more than once too."""
    rows = data.draw(st.lists(st.integers(0, len(names) - 1))) if names else []
    found = Names([name.encode() for name in names]).take(np.array(rows, np.int64))
    assert [found[i] for i in range(len(found))] == [names[row] for row in rows]


def test_memory_of_names():
    """A text takes its bytes, one more, and eight for where it begins."""
    assert Names([b"a" * 30] * 1000).nbytes <= 1000 * 39 + 8
    assert Names([]).nbytes <= 8


@pytest.mark.parametrize("channels", [1, 3])
def test_array_source(channels):
    """An image comes as it went in, a grey one in three equal channels; with its label, and a name that counts."""
    pixels = RANDOM.integers(0, 256, (4, 5, 6, channels), dtype=np.uint8)
    source = ArraySource(pixels, one_class_each(4), classes=counted(4))
    assert len(source) == 4
    for i in range(4):
        np.testing.assert_array_equal(source[i]["image"], np.concatenate([pixels[i]] * (3 // channels), axis=2))
        np.testing.assert_array_equal(source[i]["label"], np.eye(4)[i])
        assert source[i]["image"].shape == (5, 6, 3)
        assert source.content(i) == bytes(pixels[i].reshape(-1).tolist())
        assert source.name(i) == f"image {i}"
    assert source.missing(np.arange(4)).tolist() == []
    assert (source.names, source.classes, source.parts, source.notes) == (None, ("0", "1", "2", "3"), {}, {})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shorter_side", [3, 5, 9])
def test_array_source_resizes(channels, shorter_side):
    """Images in memory are resized as Pillow does."""
    pixels = RANDOM.integers(0, 256, (2, 5, 6, channels), dtype=np.uint8)
    source = ArraySource(pixels, one_class_each(2), classes=counted(2))
    picture = Image.fromarray(np.concatenate([pixels[1]] * (3 // channels), axis=2))
    expected = picture.resize((round(6 * shorter_side / 5), shorter_side), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(source.image(1, shorter_side=shorter_side), np.asarray(expected))


def test_array_source_makes_no_copy():
    """Grey images in three channels, and others, are views of what was given."""
    for channels in (1, 3):
        pixels = np.zeros((2, 5, 6, channels), np.uint8)
        source = ArraySource(pixels, one_class_each(2), classes=counted(2))
        assert np.shares_memory(source.image(0, shorter_side=0), pixels)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((2, 4, 4, 3), np.int64),
        np.zeros((2, 4, 4), np.uint8),
        np.zeros((2, 4, 4, 2), np.uint8),
        np.zeros((2, 4, 4, 4), np.uint8),
        np.zeros((3, 4, 4, 3), np.uint8),
    ],
)
def test_array_source_refuses(pixels):
    """Images of another number, shape or dtype are refused, with what was expected and found."""
    with pytest.raises(ValueError, match=r"expected images uint8\[2, h, w, 1 or 3\], got "):
        ArraySource(pixels, one_class_each(2), classes=counted(2))


def test_numbers_that_do_not_fit():
    """Another number of class names than of classes, or of image names than of labels, is refused."""
    with pytest.raises(ValueError, match="don't fit"):
        ArraySource(np.zeros((2, 4, 4, 3), np.uint8), one_class_each(2), classes=counted(3))
    with pytest.raises(ValueError, match="don't fit"):
        FileSource(None, one_class_each(2), classes=counted(2), names=Names([b"a"]))


NAMES = ["a.png", "one/b.png", "one/two/ü é.jpg", "one/ c.gif"]


@pytest.fixture
def folder(tmp_path):
    """Four pictures in three folders."""
    for k, name in enumerate(NAMES):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.random.default_rng(k).integers(0, 256, (9, 7, 3), dtype=np.uint8))
        (picture.quantize(9) if name.endswith("gif") else picture).save(path)
    return tmp_path / "images"


def files(root, names=NAMES):
    return FileSource(root, one_class_each(len(names)), classes=counted(len(names)), names=Names([n.encode() for n in names]))


@pytest.mark.parametrize("shorter_side", [0, 5, 12])
def test_file_source(folder, shorter_side):
    """An image is its file's content, decoded; its name is the path below the folder, its place the whole path."""
    source = files(folder)
    for i, name in enumerate(NAMES):
        content = (folder / name).read_bytes()
        assert source.content(i) == content
        np.testing.assert_array_equal(
            source.image(i, shorter_side=shorter_side), images.decode(content, shorter_side=shorter_side)
        )
        assert source.name(i) == name
        assert source.location(i) == f"{folder}/{name}"
        assert source[i]["label"].tolist() == [int(k == i) for k in range(4)]


def test_a_bit_depth_reaches_the_decoder(folder):
    """A source of files, a part of it and a cache over it decode by the depth asked for; a value that exceeds it is named."""
    values = np.array([[0, 4_095], [1_000, 17]], np.uint16)
    for name in ("dark.png", "dark too.png"):
        Image.fromarray(values).save(folder / name)
    source = files(folder, ["dark.png", "dark too.png"])
    part = Subset(source, np.array([1]), labels=one_class_each(1), classes=counted(1), parts={})
    for each in (source, part, CachedSource(source, np.arange(2), most_bytes=10_000)):
        for depth in (0, 12, 14, 12):
            expected = np.dstack([values >> (depth or 16) - 8] * 3)
            np.testing.assert_array_equal(each.image(0, shorter_side=0, bit_depth=depth), expected)
    with pytest.raises(BadImage, match=r"dark\.png has the value 4,095, and bit_depth=10 means at most 1,023; fix: "):
        source.image(0, shorter_side=0, bit_depth=10)


def test_dark_pictures_are_told_once(folder, caplog):
    """The first picture that comes out nearly black for want of a bit depth is named with the key, and no other one."""
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((2, 2), 4_095, np.uint16)).save(folder / name)
    Image.new("L", (2, 2), 3).save(folder / "dark in 8 bits.png")
    source = files(folder, ["dark in 8 bits.png", "a.png", "b.png"])
    absl.logging._log_counter_per_token.clear()
    for index, depth in ((0, 0), (1, 12), (1, 0), (2, 0)):
        source.image(index, shorter_side=0, bit_depth=depth)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{folder}/a.png has 16 bits")
    assert "--config.data.bit_depth=12" in message


def refusal(source, index=0):
    """The text with which an image is refused; its content must be as well."""
    with pytest.raises(BadImage) as caught:
        source.content(index)
    assert len(str(caught.value).splitlines()) == 1
    return bad_image(source, index)


def bad_image(source, index=0):
    with pytest.raises(BadImage) as caught:
        source.image(index, shorter_side=0)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", ["gone.jpg", "no/such/folder.jpg", "a.png/b.jpg"])
def test_missing_file(folder, name):
    """A file that isn't there is named, with its folder, and called missing."""
    assert f"{folder}/{name} is missing" in refusal(files(folder, [name]))


def test_directory_pipe_and_dangling_link(folder):
    """A folder and a pipe are no files, and asking for a pipe doesn't wait; a link that leads nowhere is none either."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to("nowhere.jpg")
    for name in ("one", "pipe.jpg", "link.jpg"):
        assert f"{folder}/{name} is not a file" in refusal(files(folder, [name]))


def test_link_to_a_picture(folder):
    """A link is as good as the picture that it leads to."""
    (folder / "link.png").symlink_to("a.png")
    np.testing.assert_array_equal(files(folder, ["link.png"]).image(0, shorter_side=0), files(folder).image(0, shorter_side=0))


@pytest.mark.parametrize(
    ("error", "says"), [(PermissionError(13, "Permission denied"), "Permission"), (OSError(5, "I/O error"), "I/O")]
)
def test_file_that_cannot_be_read(folder, monkeypatch, error, says):
    """A file without permission, or on a failing disk, is named, with what the system says."""

    def fails(path, flags, *args, **kwargs):
        raise error

    monkeypatch.setattr("os.open", fails)
    text = refusal(files(folder))
    assert f"{folder}/a.png can't be read (" in text
    assert says in text


def test_file_that_comes_in_parts(folder, monkeypatch):
    """Of a file whose parts come one by one, as from a network, all are read; of one that is cut meanwhile, what is left."""
    read, whole = os.read, (folder / "a.png").read_bytes()
    monkeypatch.setattr("os.read", lambda descriptor, size: read(descriptor, min(size, 7)))
    assert files(folder).content(0) == whole
    parts = [whole[:5], b""]
    monkeypatch.setattr("os.read", lambda descriptor, size: parts.pop(0))
    assert files(folder).content(0) == whole[:5]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_file_that_the_system_makes_up():
    """A file of size 0 that has content all the same, as some mounted folders have, is read to its end."""
    assert files(Path("/proc"), ["version"]).content(0) == Path("/proc/version").read_bytes() != b""


def test_pipe_with_a_writer(folder):
    """A pipe that somebody writes to is no file either, and what is in it stays there; no file is left open."""
    os.mkfifo(folder / "pipe.jpg")
    reader = os.open(folder / "pipe.jpg", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(folder / "pipe.jpg", os.O_WRONLY | os.O_NONBLOCK)
    os.write(writer, b"precious")
    before = len(os.listdir("/dev/fd"))
    assert "is not a file" in refusal(files(folder, ["pipe.jpg"]))
    assert len(os.listdir("/dev/fd")) == before
    assert os.read(reader, 100) == b"precious"
    os.close(reader)
    os.close(writer)


def test_damaged_file(folder):
    """A file that is no picture, or empty, is named; its content, for a hash, can be had."""
    for content, says in ((b"no picture", "is not a complete picture"), (b"", "is empty")):
        (folder / "a.png").write_bytes(content)
        assert f"{folder}/a.png {says}" in bad_image(files(folder))
        assert files(folder).content(0) == content


def test_missing(folder):
    """Those rows come back, in order, whose files aren't there, as asking for each file says."""
    (folder / "plain").write_bytes(b"")
    (folder / "link.png").symlink_to("a.png")
    names = [
        *NAMES,
        "gone.png",
        "one/gone.png",
        "none/b.png",
        "plain/b.png",
        "one/two/u e.jpg",
        "A.PNG",
        "link.png",
    ]
    source, rows = files(folder, names), RANDOM.permutation(len(names))
    found = source.missing(rows)
    assert found.dtype == np.int64
    assert found.tolist() == [row for row in rows if not os.path.exists(folder / names[row])]
    assert source.missing(np.array([2, 0])).tolist() == []
    assert source.missing(np.array([], np.int64)).tolist() == []
    assert sorted(files(folder / "none", names).missing(rows)) == list(range(len(names)))


def test_missing_finds_links_that_lead_nowhere(folder):
    """A link to a file that isn't there, as data sets made of links come to have, is as good as none."""
    (folder / "dangling.png").symlink_to("nowhere.png")
    assert files(folder, ["dangling.png", "a.png"]).missing(np.arange(2)).tolist() == [0]


def test_missing_lists_each_folder_once(folder, monkeypatch):
    """A folder is listed once, however many images it holds, and no file is opened."""
    listed = []
    listdir, scandir = os.listdir, os.scandir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    files(folder, NAMES * 50).missing(np.arange(200))
    assert len(listed) == 3


def test_subset(folder):
    """A subset has some images, in its own order, with labels, names and parts of its own, and the notes of all."""
    names = Names([name.encode() for name in NAMES])
    source = FileSource(
        folder, one_class_each(4), classes=counted(4), names=names, parts={"train": np.arange(4)}, notes={"odd": 3}
    )
    labels = Labels.from_multi_hot(np.array([[1, 1], [0, 1], [1, 0]], np.uint8))
    some = Subset(source, np.array([3, 0, 2]), labels=labels, classes=["x", "y"], parts={"query": np.array([1])})
    assert len(some) == 3
    assert [some.name(i) for i in range(3)] == [NAMES[3], NAMES[0], NAMES[2]]
    for i, row in enumerate([3, 0, 2]):
        assert some.content(i) == source.content(row)
        for side in (0, 5):
            np.testing.assert_array_equal(some.image(i, shorter_side=side), source.image(row, shorter_side=side))
        np.testing.assert_array_equal(some[i]["label"], labels[i])
    assert list(some.parts) == ["query"]
    assert (some.notes, some.classes) == ({"odd": 3}, ("x", "y"))


def test_subset_with_names_of_its_own(folder):
    """Names that are given go before those of the source; without any there are none."""
    source, rows, labels = files(folder), np.array([1, 0]), one_class_each(2)
    some = Subset(source, rows, labels=labels, classes=["x", "y"], names=Names([b"n", b"m"]), parts={})
    assert [some.name(0), some.name(1)] == ["n", "m"]
    bare = ArraySource(np.zeros((3, 2, 2, 3), np.uint8), one_class_each(3), classes=counted(3))
    assert Subset(bare, rows, labels=labels, classes=["x", "y"], parts={}).names is None


def test_subset_misses_what_its_source_misses(folder):
    """Missing images are told by the subset's own rows, in the order asked for; one that is there twice, twice."""
    source = files(folder, ["gone.png", "a.png", "lost.png", "one/b.png"])
    some = Subset(source, np.array([3, 2, 0, 2]), labels=one_class_each(4), classes=counted(4), parts={})
    assert some.missing(np.arange(4)).tolist() == [1, 2, 3]
    assert some.missing(np.array([2, 0, 1])).tolist() == [2, 1]
    assert some.missing(np.array([0])).tolist() == []


def test_refusals_through_other_sources(folder):
    """A bad image is named by its path, through a subset and what is kept too."""
    source = files(folder, ["a.png", "gone.png"])
    some = Subset(source, np.array([1]), labels=one_class_each(1), classes=["x"], parts={})
    kept = CachedSource(source, np.arange(2), most_bytes=1000)
    for text in (refusal(some), refusal(kept, 1)):
        assert f"{folder}/gone.png is missing" in text
    assert kept.cached_bytes == 0


class Counting(Source):
    """Small images, each of its own colour, and how often each was decoded."""

    def __init__(self, n=10):
        super().__init__(one_class_each(n), classes=counted(n), names=None)
        self.decoded = []

    def content(self, index):
        return bytes([index])

    def image(self, index, *, shorter_side, bit_depth=0):
        self.decoded.append((index, shorter_side))
        return np.full((4, shorter_side or 4, 3), index, np.uint8)


def test_kept_decodes_once():
    """Rows worth keeping are decoded once for each size, others each time; all come as the source gives them."""
    source = Counting()
    kept = CachedSource(source, np.array([2, 5, 7]), most_bytes=10_000)
    for _ in range(3):
        for i in range(10):
            for side in (0, 8):
                np.testing.assert_array_equal(kept.image(i, shorter_side=side), Counting().image(i, shorter_side=side))
    for i in range(10):
        for side in (0, 8):
            assert source.decoded.count((i, side)) == (1 if i in (2, 5, 7) else 3)
    assert kept.cached_bytes == 3 * (48 + 96)


def test_kept_takes_any_integer():
    """A row is the same one as NumPy's integer and as Python's."""
    source = Counting()
    kept = CachedSource(source, np.array([2]), most_bytes=10_000)
    for row in (2, np.int64(2), np.int32(2)):
        kept.image(row, shorter_side=0)
    assert len(source.decoded) == 1


@pytest.mark.parametrize(("most", "fits"), [(0, 0), (47, 0), (48, 1), (143, 2), (144, 3), (10_000, 10)])
def test_kept_up_to_the_limit(most, fits):
    """Images are cached up to the limit, to the byte; the others are decoded each time."""
    source = Counting()
    kept = CachedSource(source, np.arange(10), most_bytes=most)
    for _ in range(2):
        for i in range(10):
            kept.image(i, shorter_side=0)
    assert kept.cached_bytes == 48 * fits
    assert len(source.decoded) == 20 - fits


def test_kept_knows_what_its_source_knows(folder):
    """Labels, names, parts, notes, content and what is missing are the source's."""
    names = Names([b"a.png", b"gone.png"])
    source = FileSource(folder, one_class_each(2), classes=["x", "y"], names=names, parts={"p": np.arange(1)}, notes={"n": 1})
    kept = CachedSource(source, np.arange(2), most_bytes=100)
    assert (kept.labels, kept.names, kept.classes, kept.parts, kept.notes) == (
        source.labels,
        names,
        ("x", "y"),
        source.parts,
        {"n": 1},
    )
    assert kept.content(0) == source.content(0)
    assert kept.missing(np.arange(2)).tolist() == [1]
    np.testing.assert_array_equal(kept[0]["image"], source[0]["image"])


def test_kept_goes_to_another_process_empty(folder):
    """A pickled copy has none of the images, and reads and keeps them anew."""
    source = files(folder)
    kept = CachedSource(source, np.arange(4), most_bytes=10_000)
    before = len(pickle.dumps(kept))
    taken = [kept.image(i, shorter_side=0) for i in range(4)]
    assert kept.cached_bytes == 4 * 9 * 7 * 3
    assert len(pickle.dumps(kept)) == before
    copy = pickle.loads(pickle.dumps(kept))
    assert copy.cached_bytes == 0
    for i in range(4):
        np.testing.assert_array_equal(copy.image(i, shorter_side=0), taken[i])
    assert copy.cached_bytes == kept.cached_bytes == 4 * 9 * 7 * 3


def test_kept_in_threads():
    """Eight threads that ask for the same images at once get each as it is, and the limit holds but for an image a thread."""
    source, limit = Counting(200), 48 * 100
    kept = CachedSource(source, np.arange(200), most_bytes=limit)
    barrier = threading.Barrier(8)

    def ask(thread):
        barrier.wait(timeout=60)
        order = np.random.default_rng(thread).permutation(200).tolist()
        return all((kept.image(i, shorter_side=0) == i).all() for i in order * 3)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
    assert sum(kept.image(i, shorter_side=0) is kept.image(i, shorter_side=0) for i in range(200)) <= 100 + 8
    assert len(source.decoded) < 8 * 3 * 200


def test_memory_of_many_images(tmp_path):
    """A source of 200,000 files with names of 30 characters and 81 labels takes at most 100 bytes an image."""
    n = 200_000
    packed = np.random.default_rng(0).integers(0, 256, (n, 11), dtype=np.uint8) & np.uint8([255] * 10 + [128])
    gc.collect()
    tracemalloc.start()
    try:
        names = Names(b"images/%018d.jpeg" % i for i in range(n))
        labels = Labels.from_packed(packed.copy(), classes=81)
        source = FileSource(tmp_path, labels, classes=counted(81), names=names)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(source.name(0)) == 30
    assert names.nbytes + labels.nbytes <= 51 * n + 8
    assert names.nbytes + labels.nbytes <= grown <= 100 * n


def test_names_of_classes():
    """Two classes of one name are an error; control characters, which a terminal would obey, are replaced."""
    labels = Labels.from_ids(np.zeros(1, int), classes=2)
    with pytest.raises(InputError, match="two classes are named 'x'"):
        ArraySource(np.zeros((1, 2, 2, 3), np.uint8), labels, classes=["x", "x"])
    source = ArraySource(np.zeros((1, 2, 2, 3), np.uint8), labels, classes=["a\x1b[31m", "b\nc"])
    assert source.classes == ("a?[31m", "b?c")


def test_stamp_of_images_in_memory():
    """Any pixel of the rows asked for changes the stamp, as their order does; a pixel of another row doesn't."""
    pixels = RANDOM.integers(0, 256, (300, 2, 2, 3), dtype=np.uint8)
    rows = np.arange(1, 300)

    def stamp(pixels, rows=rows):
        return ArraySource(pixels, one_class_each(300), classes=counted(300)).stamp(rows)

    stamps = {stamp(pixels), stamp(pixels, rows[::-1]), stamp(pixels, rows[1:])}
    for row in (1, 2, 150, 299):
        changed = pixels.copy()
        changed[row, 1, 1, 2] ^= 1
        stamps.add(stamp(changed))
    assert len(stamps) == 7
    beside = pixels.copy()
    beside[0] ^= 1
    assert stamp(beside) == stamp(pixels)
    assert all(type(found) is str and found.isalnum() for found in stamps)


def test_stamp_of_files(folder):
    """A file's name, size and time decide; its content isn't read; a file that isn't there has a stamp too, another one."""
    rows = np.arange(4)
    stamps = [files(folder).stamp(rows)]
    os.utime(folder / NAMES[1], ns=(0, 1))
    stamps.append(files(folder).stamp(rows))
    (folder / NAMES[2]).write_bytes(b"longer" + (folder / NAMES[2]).read_bytes())
    stamps.append(files(folder).stamp(rows))
    (folder / "new.png").symlink_to(NAMES[0])
    stamps.append(files(folder, ["new.png", *NAMES[1:]]).stamp(rows))  # another name for the same file
    stamps.append(files(folder).stamp(rows[::-1]))
    before = files(folder).stamp(rows), files(folder).stamp(rows[1:])
    (folder / NAMES[0]).unlink()
    stamps.append(files(folder).stamp(rows))
    assert len({*stamps, *before}) == len(stamps) + 1  # before[0] is there already, as the third
    assert files(folder).stamp(rows[1:]) == before[1]


def test_stamp_asks_once_for_each_file(folder, monkeypatch):
    """No file is opened."""
    monkeypatch.setattr("builtins.open", None)
    assert files(folder).stamp(np.arange(4))


def test_stamp_through_other_sources(folder):
    """A cached source has its source's stamp, and a subset the stamp of its rows."""
    source = files(folder)
    some = Subset(source, np.array([3, 0, 2]), labels=one_class_each(3), classes=counted(3), parts={})
    assert some.stamp(np.array([0, 2])) == source.stamp(np.array([3, 2]))
    assert CachedSource(some, np.arange(3), most_bytes=100).stamp(np.array([1])) == source.stamp(np.array([0]))
    pixels = ArraySource(RANDOM.integers(0, 256, (4, 2, 2, 3), dtype=np.uint8), one_class_each(4), classes=counted(4))
    some = Subset(pixels, np.array([3, 0]), labels=one_class_each(2), classes=counted(2), parts={})
    assert some.stamp(np.arange(2)) == pixels.stamp(np.array([3, 0]))


def test_stamp_of_records():
    """Names of all, and the content of a sample; of fewer than 200 images, of every one."""

    class Records(Counting):
        def __init__(self, n, *, changed=None, names=None):
            super().__init__(n)
            self.changed, self.read = changed, 0
            self.names = None if names is None else Names(name.encode() for name in names)

        def content(self, index):
            self.read += 1
            return b"%d" % index + b"." * (index == self.changed)

    rows = np.arange(1, 150)
    stamps = {Records(150, changed=changed).stamp(rows) for changed in (None, 1, 2, 77, 149)}
    assert len(stamps) == 5
    assert Records(150, changed=0).stamp(rows) in stamps
    assert len({Records(3, names=names).stamp(np.arange(3)) for names in (None, "abc", "abd", "acb")}) == 4
    many = Records(5000)
    many.stamp(np.arange(5000))
    assert 100 <= many.read < 200
