"""NUS-WIDE: what is read of the original layout with its faults, how it is repaired, and that it is prepared once."""

import io
import os
import tempfile

import numpy as np
import pytest
from PIL import Image
from support import mock_data

from adsq_jax.data import datasets, protocols
from adsq_jax.data.datasets import Settings
from adsq_jax.data.images import BadImage
from adsq_jax.data.labels import Labels
from adsq_jax.data.readers import nus_wide, tfds_sets
from adsq_jax.errors import InputError

CONCEPTS = sorted(f"{word}{end}" for word in ("airport", "animal", "beach") for end in (*"abcdefghijklmnopqrstuvwxyz", "_7"))
TWICE, GONE, CUT, CORRUPT = 5, 7, 11, (3, 13)  # rows; the corrupt value is of concept 3
CACHE = "adsq_jax_labels.npz"


class Original:
    """The original layout, generated: 40 images that show the 81 concepts, each fault of the real files once."""

    def __init__(self, root, *, n=40, flat=False, folder="Flickr", ends="\r\n", train_test=True):
        self.root, self.ends, self.flat, self.folder = root, ends, flat, folder
        random = np.random.default_rng(0)
        self.names = [f"{CONCEPTS[k % 9]}/{k:04}_{k * 7919}.jpg" for k in range(n)]
        self.names[TWICE] = self.names[TWICE - 1]
        self.labels = (random.random((n, 81)) < np.linspace(0.02, 0.3, 81)[random.permutation(81)]).astype(np.uint8)
        self.labels[TWICE] = self.labels[TWICE - 1]
        self.labels[2] = 0
        self.text("ConceptsList/Concepts81.txt", CONCEPTS)
        self.text("ImageList/Imagelist.txt", [name.replace("/", "\\") for name in self.names])
        for k in range(81):
            self.values(k)
        if train_test:
            self.train_test()
        self.text("NUS_WID_Tags/AllTags81.txt", ["x 0 1"])
        self.pictures()

    def text(self, path, lines):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(line + self.ends for line in lines).encode())

    def values(self, k):
        values = [str(value) for value in self.labels[:, k]]
        if k == CORRUPT[1]:
            values[CORRUPT[0]] = "4294967295"
        self.text(f"Groundtruth/AllLabels/Labels_{CONCEPTS[k]}.txt", values)

    def train_test(self):
        """Labels of one concept in another order, and divided: even rows to train on, odd rows to test."""
        for part, rows in (("Train", range(len(self.names) - 2, -1, -2)), ("Test", range(1, len(self.names), 2))):
            self.text(f"ImageList/{part}Imagelist.txt", [self.names[row].replace("/", "\\") for row in rows])
            values = [str(self.labels[row, CORRUPT[1]]) for row in rows]
            self.text(f"Groundtruth/TrainTestLabels/Labels_{CONCEPTS[CORRUPT[1]]}_{part}.txt", values)

    def pictures(self):
        for row in range(len(self.names)):
            path = self.path(row)
            path.parent.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            Image.new("RGB", (6, 5), colour(row)).save(content, "JPEG", quality=95, subsampling=0)
            if row != GONE:
                path.write_bytes(content.getvalue()[: -40 if row == CUT else None])

    def path(self, row):
        name = self.names[row]
        return self.root / self.folder / (name.rpartition("/")[2] if self.flat else name)

    def read(self, most_frequent=None):
        return nus_wide.read(self.root, most_frequent=most_frequent)

    def expected(self, most_frequent=81):
        """The most frequent concepts in the order of the list, and the rows that show one: by sorting, row by row."""
        order = sorted(range(81), key=lambda k: (-int(self.labels[:, k].sum()), k))
        chosen = sorted(order[:most_frequent])
        rows = [row for row in range(len(self.names)) if any(self.labels[row, k] for k in chosen)]
        return chosen, rows


def colour(row):
    row = TWICE if row == TWICE - 1 else row
    return (6 * row % 256, 250 - row, 40)


@pytest.fixture
def original(tmp_path):
    return Original(tmp_path)


def error_of(function, *arguments, **settings):
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def labels_error(original):
    """Return the message, which is the same for reading labels and for preparing; nothing that is left looks prepared."""
    text = error_of(original.read)
    assert not list(original.root.glob("prepared/**/dataset_info.json"))
    return text


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


# What is read


@pytest.mark.parametrize("most_frequent", [None, 21, 3])
@pytest.mark.parametrize("layout", [{}, {"flat": True}, {"folder": "images"}, {"folder": "images", "flat": True, "ends": "\n"}])
def test_read(tmp_path, layout, most_frequent):
    """Images that show one of the most frequent concepts, in the list's order, with names, labels and pixels of their own."""
    original = Original(tmp_path, **layout)
    source = original.read(most_frequent)
    chosen, rows = original.expected(most_frequent or 81)
    assert source.classes == tuple(CONCEPTS[k] for k in chosen)
    assert [source.name(i) for i in range(len(source))] == [original.names[row] for row in rows]
    np.testing.assert_array_equal(source.labels[:], original.labels[np.ix_(rows, chosen)])
    assert source.labels[:].any(axis=1).all()
    for i, row in enumerate(rows):
        if row not in (GONE, CUT):
            np.testing.assert_allclose(source[i]["image"], np.broadcast_to(colour(row), (5, 6, 3)), atol=4)
            assert source.content(i) == original.path(row).read_bytes()


def test_a_tie_goes_to_the_first_of_the_list(tmp_path):
    """Among concepts with equally many images, the first in the list are chosen."""
    original = Original(tmp_path)
    original.labels[:] = 0
    original.labels[np.arange(40), np.repeat([70, 5, 40, 20], 10)] = 1
    for k in range(81):
        original.values(k)
    (tmp_path / "Groundtruth" / "AllLabels" / f"Labels_{CONCEPTS[13]}.txt").write_text("0\n" * 40)
    source = original.read(2)
    assert source.classes == (CONCEPTS[5], CONCEPTS[20])
    assert [source.name(i) for i in range(len(source))] == original.names[10:20] + original.names[30:]
    assert source.labels.single or source.labels[:].sum(axis=1).tolist() == [1] * 20


def test_missing_image(original):
    """An image whose file isn't there is missing, wherever it is asked for, and no other is."""
    source = original.read()
    rows = np.arange(len(source))
    gone = [i for i in rows if source.name(int(i)) == original.names[GONE]]
    assert len(gone) == 1
    assert source.missing(rows).tolist() == gone
    assert source.missing(rows[: gone[0]]).tolist() == []
    for ask in (source.content, lambda i: source.image(i, shorter_side=0)):
        with pytest.raises(BadImage, match="is missing") as caught:
            ask(gone[0])
        assert f"remove {original.root / 'prepared'}" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_truncated_image(original):
    """An image that is cut short is refused by its name when it is decoded; it isn't missing."""
    source = original.read()
    row = next(i for i in range(len(source)) if source.name(i) == original.names[CUT])
    with pytest.raises(BadImage, match="not a complete picture") as caught:
        source.image(row, shorter_side=0)
    assert original.names[CUT] in str(caught.value)
    assert row not in source.missing(np.arange(len(source)))


def test_an_image_that_stands_there_twice(original):
    """An image that the list names twice is two rows of one name, that no protocol draws."""
    source = original.read()
    once = source.names.unique()
    assert [source.name(i) for i in np.flatnonzero(~once)] == [original.names[TWICE]] * 2


def test_both_folders_of_images(original):
    """Images may be in part below images/ and in part below Flickr/."""
    path = original.root / "images" / original.names[20]
    path.parent.mkdir(parents=True)
    original.path(20).rename(path)
    source = original.read()
    row = next(i for i in range(len(source)) if source.name(i) == original.names[20])
    assert source.content(row) == path.read_bytes()


# The corrupt value


@pytest.mark.parametrize("value", [0, 1])
def test_corrupt_value_is_repaired(original, value):
    """The value that is no label is taken from the other copy of the ground truth, wherever the image stands in it."""
    row, k = CORRUPT
    original.labels[row, k] = value
    original.values(k)
    original.train_test()
    names, labels = nus_wide.read_labels(original.root, concepts=CONCEPTS)
    assert names == original.names
    np.testing.assert_array_equal(labels, original.labels)
    assert labels.dtype == np.uint8


def test_corrupt_value_without_the_other_copy(tmp_path):
    """Without the other copy the value is quoted, with file and line."""
    original = Original(tmp_path, train_test=False)
    text = labels_error(original)
    path = tmp_path / "Groundtruth" / "AllLabels" / f"Labels_{CONCEPTS[13]}.txt"
    assert f"{path}, line 4: '4294967295' is neither 0 nor 1" in text
    assert "TrainTestLabels" in text
    assert nus_wide.PAGE in text


@pytest.mark.parametrize("fault", ["corrupt too", "not listed", "another length", "no values", "no list"])
def test_corrupt_value_and_a_damaged_copy(original, fault):
    """If the other copy is damaged too, or lacks the image, that is an error."""
    values = original.root / "Groundtruth" / "TrainTestLabels" / f"Labels_{CONCEPTS[13]}_Test.txt"
    listed = original.root / "ImageList" / "TestImagelist.txt"
    lines = values.read_bytes().split(b"\r\n")
    if fault == "corrupt too":
        lines[CORRUPT[0] // 2] = b"7"
        values.write_bytes(b"\r\n".join(lines))
    elif fault == "not listed":
        listed.write_bytes(listed.read_bytes().replace(b"0003_", b"0903_"))
    elif fault == "another length":
        values.write_bytes(b"\r\n".join(lines[1:]))
    else:
        (values if fault == "no values" else listed).unlink()
    assert "line 4: '4294967295' is neither 0 nor 1" in labels_error(original)


# Every other fault


FILES = ["ConceptsList/Concepts81.txt", "ImageList/Imagelist.txt", f"Groundtruth/AllLabels/Labels_{CONCEPTS[80]}.txt"]


@pytest.mark.parametrize("path", FILES)
def test_file_is_missing(original, path):
    """Each file that isn't there is named, with where to get it."""
    (original.root / path).unlink()
    text = labels_error(original)
    assert f"{original.root / path} is missing" in text
    assert nus_wide.PAGE in text


@pytest.mark.parametrize("path", FILES)
def test_file_can_not_be_read(original, path, monkeypatch):
    """Each file that may not be read is named."""
    plain = type(original.root).read_bytes

    def refuse(self):
        if self == original.root / path:
            raise PermissionError(13, "Permission denied")
        return plain(self)

    monkeypatch.setattr(type(original.root), "read_bytes", refuse)
    assert f"{original.root / path} can't be read (Permission denied)" in labels_error(original)


@pytest.mark.parametrize("change", [-1, 1])
def test_labels_of_another_length(original, change):
    """A label file with a line more or less than the image list is named, with both numbers."""
    path = original.root / "Groundtruth" / "AllLabels" / f"Labels_{CONCEPTS[44]}.txt"
    path.write_bytes(b"0\r\n" * (40 + change))
    assert f"{path} has {40 + change} lines, the image list 40" in labels_error(original)


@pytest.mark.parametrize(
    "concepts", [CONCEPTS[1:], [*CONCEPTS, "zebra"], [*CONCEPTS[1:], CONCEPTS[1]], [*CONCEPTS[1:], "../x"]]
)
def test_wrong_concepts(original, concepts):
    """A list of another number of concepts, of one twice, or of one that is no file's name, is refused."""
    original.text("ConceptsList/Concepts81.txt", concepts)
    text = labels_error(original)
    assert f"{original.root / 'ConceptsList' / 'Concepts81.txt'}" in text
    assert "81" in text


def test_concepts_that_are_no_text(original):
    """A list of concepts that isn't text is refused in one line."""
    (original.root / "ConceptsList" / "Concepts81.txt").write_bytes(b"\xff\xfe\n" * 81)
    assert "Concepts81.txt" in labels_error(original)


@pytest.mark.parametrize("name", ["..\\x.jpg", "/etc/passwd", "C:\\x.jpg", "a/../../x.jpg"])
def test_path_that_leads_out(original, name):
    """A path that leads out of the folder is refused, with its line."""
    lines = [name if row == 6 else line for row, line in enumerate(original.names)]
    original.text("ImageList/Imagelist.txt", lines)
    assert f"{original.root / 'ImageList' / 'Imagelist.txt'}, line 7" in labels_error(original)


def test_name_that_is_no_text(original):
    """A file's name in another encoding than UTF-8 is a name, or is refused in one line: no traceback."""
    path = original.root / "ImageList" / "Imagelist.txt"
    path.write_bytes(path.read_bytes().replace(b"0006_", b"\xe4006_"))
    assert "line 7" in labels_error(original)


def test_empty_image_list(original):
    """An image list without a line is refused."""
    original.text("ImageList/Imagelist.txt", [])
    assert "is empty; fix: get it from" in labels_error(original)


def test_no_folder_of_images(original):
    """Without a folder of images the error names both that would do."""
    (original.root / "Flickr").rename(original.root / "Pictures")
    assert f"{original.root} has neither Flickr/ nor images/" in labels_error(original)


def test_nothing_there(tmp_path):
    """A folder that isn't there is said to lack the first file, with where to get it, and isn't made."""
    assert nus_wide.PAGE in error_of(nus_wide.read, tmp_path / "x", most_frequent=21)
    assert not (tmp_path / "x").exists()


# Preparing once


def test_prepared_once(original, monkeypatch):
    """A second read changes no file and reads neither labels nor images; it gives the same."""
    first = original.read(21)
    before = files_of(original.root / "prepared")
    assert any(path.name == CACHE for path in before)

    def fail(*_, **__):
        raise AssertionError("prepared or read again")

    monkeypatch.setattr(nus_wide.NusWide, "_generate_examples", fail)
    monkeypatch.setattr(tfds_sets, "_read_labels", fail)
    second = original.read(21)
    assert files_of(original.root / "prepared") == before
    assert same(first, second)


def same(one, other):
    images = [i for i in range(len(one)) if len(one.missing(np.array([i]))) == 0]
    return (
        one.names.joined == other.names.joined
        and np.array_equal(one.labels[:], other.labels[:])
        and one.classes == other.classes
        and all(one.content(i) == other.content(i) for i in images)
    )


def test_prepared_again_when_removed(original):
    """An image that came late is there after `prepared` is removed, as the error says."""
    gone = original.read().missing(np.arange(30))
    assert len(gone) == 1
    original.path(GONE).write_bytes(original.path(TWICE).read_bytes())
    assert original.read().missing(np.arange(30)).tolist() == gone.tolist()
    for path in sorted((original.root / "prepared").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    source = original.read()
    assert len(source.missing(np.arange(len(source)))) == 0
    assert source.content(int(gone[0])) == original.path(TWICE).read_bytes()


def test_stopped_preparation_starts_anew(original, monkeypatch):
    """A preparation that is interrupted leaves nothing that is taken for prepared; the next one is whole."""
    plain = nus_wide.NusWide._generate_examples

    def stop(self, directory):
        for count, example in enumerate(plain(self, directory)):
            if count == 25:
                raise KeyboardInterrupt
            yield example

    with monkeypatch.context() as patch:
        patch.setattr(nus_wide.NusWide, "_generate_examples", stop)
        with pytest.raises(KeyboardInterrupt):
            original.read()
    assert not list((original.root / "prepared").rglob("dataset_info.json"))
    chosen, rows = original.expected()
    source = original.read()
    assert len(source) == len(rows)
    np.testing.assert_array_equal(source.labels[:], original.labels[np.ix_(rows, chosen)])


def cache_of(original):
    return next((original.root / "prepared").rglob(CACHE))


@pytest.mark.parametrize("damage", ["empty", "noise", "cut", "a bit", "removed", "of other records", "a folder"])
def test_damaged_labels_cache(original, damage):
    """Labels kept beside the records are read anew where they are damaged, or of other records, and are kept again."""
    first = original.read()
    path = cache_of(original)
    whole = path.read_bytes()
    path.unlink()
    if damage == "empty":
        path.touch()
    elif damage == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(500))
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "a bit":
        with np.load(io.BytesIO(whole)) as kept:
            at = whole.index(kept["labels"].tobytes())
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    elif damage == "of other records":
        with np.load(io.BytesIO(whole)) as kept:
            np.savez(path, **{**kept, "key": kept["key"][::-1], "labels": 255 - kept["labels"]})
    elif damage == "a folder":
        path.mkdir()
    assert same(first, original.read())
    if damage != "a folder":
        with np.load(io.BytesIO(whole)) as old, np.load(path) as new:
            assert all(np.array_equal(old[name], new[name]) for name in old)
    assert not list(path.parent.glob(f".{CACHE}*"))


def test_prepared_folder_that_can_not_be_written(original, monkeypatch):
    """If labels can't be kept they are read from the records each time."""
    first = original.read()
    cache_of(original).unlink()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    assert same(first, original.read())
    assert not list((original.root / "prepared").rglob(CACHE))


def test_disk_full_while_keeping_labels(original, monkeypatch):
    """If the disk is full while labels are kept, they are right all the same, and no half file is left."""
    first = original.read()
    folder = cache_of(original).parent
    cache_of(original).unlink()

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    assert same(first, original.read())
    assert not list(folder.glob(f"*{CACHE}*"))


def test_preparation_that_fails(original, monkeypatch):
    """If the disk is full the error says where, why, and what to do."""

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nus_wide.NusWide, "_generate_examples", refuse)
    text = labels_error(original)
    assert str(original.root / "prepared") in text
    assert "No space left on device" in text
    assert "make room" in text


# The real size


def write_full_size(root):
    """Files of the real length in which exactly 195,834 lines show one of the 21 most frequent concepts."""
    n, shown = 269_648, 195_834
    random = np.random.default_rng(0)
    labels = np.zeros((n, 81), np.uint8)
    rows, frequent = random.permutation(n), random.permutation(81)[:21]
    rare = np.setdiff1d(np.arange(81), frequent)
    labels[np.ix_(rows[:shown], frequent)] = random.random((shown, 21)) < np.linspace(0.03, 0.4, 21)
    bare = rows[:shown][~labels[rows[:shown]].any(axis=1)]
    labels[bare, frequent[0]] = 1
    labels[:, rare] = random.random((n, 60)) < 0.005
    folder = root / "Groundtruth" / "AllLabels"
    folder.mkdir(parents=True)
    for k, concept in enumerate(CONCEPTS):
        lines = np.tile(np.frombuffer(b"0\r\n", np.uint8), (n, 1))
        lines[:, 0] += labels[:, k]
        (folder / f"Labels_{concept}.txt").write_bytes(lines.tobytes())
    (root / "ImageList").mkdir()
    (root / "ImageList" / "Imagelist.txt").write_bytes(b"".join(b"a\\%06d.jpg\r\n" % row for row in range(n)))
    return labels, np.sort(frequent)


def test_real_length(tmp_path):
    """Exactly the 195,834 of 269,648 images with one of the 21 most frequent concepts are chosen, with their labels."""
    written, frequent = write_full_size(tmp_path)
    names, labels = nus_wide.read_labels(tmp_path, concepts=CONCEPTS)
    np.testing.assert_array_equal(labels, written)
    assert (names[0], names[-1], len(names)) == ("a/000000.jpg", "a/269647.jpg", 269_648)
    whole = Labels.from_multi_hot(labels)
    chosen = np.sort(np.argsort(-whole.per_class(), kind="stable")[:21])
    assert chosen.tolist() == frequent.tolist()
    some = whole.select_classes(chosen)
    rows = np.flatnonzero(some.per_image())
    assert len(rows) == 195_834
    assert rows.tolist() == np.flatnonzero(written[:, frequent].any(axis=1)).tolist()
    np.testing.assert_array_equal(some.take(rows)[:], written[rows][:, frequent])


# End to end


@pytest.mark.parametrize(("name", "n_query", "n_train"), [("nuswide", 21, 42), ("nuswide-81", 9, 12)])
def test_end_to_end(tmp_path, name, n_query, n_train, monkeypatch):
    """datasets.load draws by the protocol, of images that show one of its concepts, and never one that stands there twice."""
    original = Original(tmp_path, n=140)
    original.path(GONE).write_bytes(original.path(GONE + 1).read_bytes())
    chosen, rows = original.expected(21 if name == "nuswide" else 81)
    sizes = {"n_query": n_query, "n_train": n_train, "n_database": len(rows) - n_query}
    monkeypatch.setitem(protocols.PROTOCOLS, name, protocols.PROTOCOLS[name]._replace(**sizes))
    defaults = mock_data.load_config("nuswide").data
    settings = Settings(**{field: defaults[field] for field in Settings._fields})
    dataset = datasets.load(settings._replace(directory=str(tmp_path), protocol=name))
    names = [[dataset.source.name(int(row)) for row in part] for part in dataset.split]
    assert original.names[TWICE] not in names[0] + names[1]
    assert sorted(names[0] + names[2]) == sorted(original.names[row] for row in rows)
    for part, found in zip(("query", "train", "database"), names, strict=True):
        expected = [original.labels[original.names.index(name)][chosen] for name in found]
        np.testing.assert_array_equal(datasets.part_labels(dataset, part), expected)
    assert dataset.map_at == "5000"
    if name == "nuswide":
        assert datasets.part_labels(dataset, "query").sum(axis=0).min() >= 1
        assert datasets.part_labels(dataset, "train").sum(axis=0).min() >= 2
    again = datasets.load(settings._replace(directory=str(tmp_path), protocol=name))
    assert again.split_sha256 == dataset.split_sha256
