"""The numbers in a manifest equal those of plain loops over images and queries."""

import hashlib
import io
import json
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adsq_jax.data import datasets, inspection, splits
from adsq_jax.data.labels import Labels
from adsq_jax.data.preprocessing import Preprocessing
from adsq_jax.data.sources import ArraySource, FileSource, Names
from adsq_jax.data.splits import Split

CLASSES = ("ant", "bee", "cat", "dog")


def settings(**changes):
    empty = dict.fromkeys(datasets.Settings._fields, "")
    return datasets.Settings(**{**empty, "name": "folder", "reader": "files", "split_seed": 5, **changes})


def divided(source, split, **changes):
    made = datasets.make_dataset(source, split, protocol="own", map_at="all", preprocessing=Preprocessing(0, 8))
    return made._replace(**changes)


def several_labels(n, *, seed=0):
    return (np.random.default_rng(seed).random((n, len(CLASSES))) < 0.35).astype(np.uint8)


def of_pixels(pixels, labels, split):
    source = ArraySource(pixels, Labels.from_multi_hot(labels), classes=CLASSES)
    return divided(source, split)


def read(source, rows, *, shorter_side=0, threads=3, on_progress=lambda count: None):
    return inspection.read_images(
        source, np.asarray(rows, np.int64), shorter_side=shorter_side, threads=threads, on_progress=on_progress
    )


def manifest_of(dataset, *, images=True, **changes):
    found = read(dataset.source, datasets.used_rows(dataset.split)) if images else None
    return inspection.manifest_of(dataset, settings(**changes), found)


@pytest.fixture
def small():
    """Sixty images of several labels, some of none: ten queries, twenty to train on, forty in the database."""
    pixels = np.random.default_rng(3).integers(0, 256, (60, 2, 3, 3), dtype=np.uint8)
    return of_pixels(pixels, several_labels(60), Split(np.arange(0, 20, 2), np.arange(20, 40), np.arange(20, 60)))


def file_source(folder, contents, *, classes=2):
    """One file of each content, or none where it is None, with labels by turns."""
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_bytes(content)
    labels = Labels.from_ids(np.arange(len(contents)) % classes, classes=classes)
    return FileSource(folder, labels, classes=CLASSES[:classes], names=Names(name.encode() for name in contents))


def png(value):
    content = io.BytesIO()
    Image.new("RGB", (6, 4), (value, 9, 9)).save(content, "PNG")
    return content.getvalue()


def test_dark_pictures_of_16_bits(tmp_path):
    """PNG and TIFF of 16 bits are counted if 12 bits would do, grey or in colour; brighter ones and dark 8 bits are not."""
    grey = np.array([[0, 4_095], [17, 300]], np.uint16)
    images = {"a.png": grey, "b.tif": grey, "c.png": grey + 1, "d.png": (grey >> 8).astype(np.uint8)}
    for name, image in images.items():
        Image.fromarray(image).save(tmp_path / name)
    for name in ("e.gif", "f.webp", "g.pgm"):
        Image.new("L", (2, 2), 3).save(tmp_path / name)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)  # one pixel of three colours of 16 bits
    data = zlib.compress(bytes([0, 15, 255, 2, 1, 0, 0]))
    chunks = [
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c))
        for k, c in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    ]
    (tmp_path / "h.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    source = file_source(tmp_path, dict.fromkeys([*images, "e.gif", "f.webp", "g.pgm", "h.png"]))
    dataset = divided(source, Split(np.arange(2), np.arange(2, 8), np.arange(2, 8)))
    note = "pictures of 16 bits with values below 4,096 alone, read as nearly black without data.bit_depth=12"
    content = manifest_of(dataset)
    assert json.loads(json.dumps(content))["notes"] == {note: 3}
    assert re.search(rf"{note} +3\n", inspection.table(content))
    images = inspection.read_images(
        source, np.array([0, 1, 3]), shorter_side=0, bit_depth=12, threads=1, on_progress=lambda count: None
    )
    assert (images.dark, images.bad) == (0, {})


# Counts


def test_counts(small):
    """Images of each class in each part are those of a loop; so are labels per image."""
    content, labels = manifest_of(small), small.source.labels
    for k, name in enumerate(CLASSES):
        for part, rows in small.split._asdict().items():
            assert content["counts"][name][part] == sum(int(labels[row][k]) for row in rows)
    used = sorted({int(row) for part in small.split for row in part})
    assert len(used) == 50
    each = [sum(labels[row].tolist()) for row in used]
    assert content["labels"]["mean_per_image"] == pytest.approx(sum(each) / 50)
    assert content["labels"]["most_per_image"] == max(each)
    assert content["labels"]["images_without"] == each.count(0) > 0
    assert [content[f"n_{part}"] for part in ("query", "train", "database", "images")] == [10, 20, 40, 60]


def slow_relevant_share(labels, split):
    """The mean over queries of the share of the database that shares a label."""
    shares = [
        sum(any(a and b for a, b in zip(labels[q], labels[row], strict=True)) for row in split.database) / len(split.database)
        for q in split.query
    ]
    return sum(shares) / len(shares)


def test_relevant_share(small):
    """The share of relevant images is that of a loop over pairs."""
    found = manifest_of(small)["labels"]["relevant_share"]
    assert found == pytest.approx(slow_relevant_share(small.source.labels[:].tolist(), small.split))
    assert 0.1 < found < 0.9


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_relevant_share_of_any(seed, n_query, n_database, single):
    """The same for any labels, one class an image or several, stored either way."""
    labels = several_labels(20, seed=seed)
    if single:
        labels = np.eye(4, dtype=np.uint8)[labels.argmax(axis=1)]
    split = Split(np.arange(n_query), np.arange(10, 12), np.arange(10, 10 + n_database))
    dataset = of_pixels(np.zeros((20, 1, 1, 1), np.uint8), labels, split)
    found = manifest_of(dataset, images=False)["labels"]["relevant_share"]
    assert found == pytest.approx(slow_relevant_share(labels.tolist(), split))


def test_many_labels_and_blocks():
    """The counts of more images than are unpacked at a time, where a small type would overflow, are exact."""
    n = 140_000
    labels = np.ones((n, 4), np.uint8)
    labels[:, 0] = 0
    labels[:300, 0] = 1
    source = ArraySource(np.zeros((n, 1, 1, 1), np.uint8), Labels.from_multi_hot(labels), classes=CLASSES)
    dataset = divided(source, Split(np.arange(600), np.arange(600, 700), np.arange(600, n)))
    content = manifest_of(dataset, images=False)
    assert content["counts"]["ant"] == {"query": 300, "train": 0, "database": 0}
    assert content["counts"]["bee"] == {"query": 600, "train": 100, "database": n - 600}
    assert content["labels"]["relevant_share"] == 1


def test_overlaps_and_database_that_holds_the_training_set():
    """Overlaps are counted by row, and the database that holds the training set is told from one that doesn't."""
    pixels, labels = np.zeros((12, 1, 1, 1), np.uint8), np.ones((12, 4), np.uint8)
    split = Split(np.array([0, 1, 2]), np.array([2, 3, 4]), np.array([1, 2, 3, 9]))
    content = manifest_of(of_pixels(pixels, labels, split))
    assert content["overlaps"] == {"query in train": 1, "query in database": 2, "train in database": 2}
    assert content["database_holds_train"]
    apart = manifest_of(of_pixels(pixels, labels, Split(np.arange(2), np.arange(2, 5), np.arange(5, 9))))
    assert apart["overlaps"] == {"query in train": 0, "query in database": 0, "train in database": 0}
    assert not apart["database_holds_train"]


def test_manifest_is_json_and_says_what_was_set(small):
    """A manifest is what JSON can hold, with the settings and the hash of the split."""
    content = manifest_of(small)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    expected = {"data": "folder", "reader": "files", "protocol": "own", "map_at": "all", "split_seed": 5, "validation": 0}
    assert expected.items() <= content.items()
    source = small.source
    assert content["split_sha256"] == splits.sha256(small.split, name="own", labels=source.labels, names=None)
    assert (content["classes"], content["names"], content["notes"]) == (list(CLASSES), False, {})


# Images


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 600])
def test_digests(n, threads):
    """Each digest is that of the image's own bytes, in the order of the rows, whatever the number of threads."""
    pixels = np.random.default_rng(0).integers(0, 256, (700, 2, 2, 3), dtype=np.uint8)
    source = ArraySource(pixels, Labels.from_ids(np.zeros(700, int), classes=1), classes=["x"])
    rows, told = np.sort(np.random.default_rng(1).choice(700, n, replace=False)), []
    found = read(source, rows, threads=threads, on_progress=told.append)
    expected = [hashlib.blake2b(pixels[row].tobytes(), digest_size=16).digest() for row in rows]
    assert [digest.tobytes() for digest in found.digests] == expected
    assert found.rows.tolist() == rows.tolist()
    assert sum(told) == n
    assert found.bad == {}


def test_hash_of_images_changes_with_a_byte(small):
    """One byte of one image that is used changes the hash; one of an image that isn't used doesn't."""
    first = manifest_of(small)["images_sha256"]
    assert manifest_of(small)["images_sha256"] == first
    small.source.pixels[1, 0, 0, 0] ^= 1  # in no part
    assert manifest_of(small)["images_sha256"] == first
    for row in (0, 25, 59):
        small.source.pixels[row, 1, 2, 2] ^= 1
        assert manifest_of(small)["images_sha256"] != first
        small.source.pixels[row, 1, 2, 2] ^= 1
    assert manifest_of(small)["images_sha256"] == first
    small.source.pixels[[0, 25]] = small.source.pixels[[25, 0]]
    assert manifest_of(small)["images_sha256"] != first


def test_bad_images(tmp_path):
    """A bad image of each kind is listed once, with its row, its name and its path; the good ones are not."""
    contents = {"good.png": png(1), "gone.png": None, "empty.png": b"", "text.png": b"no picture", "cut.png": png(2)[:-40]}
    source = file_source(tmp_path, {**contents, "last.png": png(3)})
    (tmp_path / "folder.png").mkdir()
    dataset = divided(source, Split(np.array([0, 1]), np.array([2, 3]), np.array([2, 3, 4, 5])))
    bad = manifest_of(dataset)["bad_images"]
    assert [(entry["row"], entry["name"]) for entry in bad] == list(enumerate(contents))[1:]
    for entry, wrong in zip(
        bad, ("is missing", "is empty", "is not a complete picture", "is not a complete picture"), strict=True
    ):
        assert entry["why"].startswith(f"{tmp_path / entry['name']} {wrong}")
        assert len(entry["why"].splitlines()) == 1


def test_an_image_that_is_missing_has_no_digest(tmp_path):
    """Zeros stand for what can't be read, so that two missing images are no copies of one another; an empty file has a hash."""
    found = read(file_source(tmp_path, {"a.png": None, "b.png": None, "c.png": b""}), [0, 1, 2])
    assert found.digests.any(axis=1).tolist() == [False, False, True]
    assert sorted(found.bad) == [0, 1, 2]


# Copies


def slow_same_bytes(contents, split):
    """Copies by comparing all pairs of images that can be read."""
    used = sorted({int(row) for part in split for row in part})
    there = [row for row in used if contents[row] is not None]
    found = {"images": sum(any(a != b and contents[a] == contents[b] for b in there) for a in there)}
    for part in ("train", "database"):
        others = [row for row in getattr(split, part).tolist() if row not in split.query.tolist()]
        found[f"queries in {part}"] = sum(
            contents[q] is not None and any(contents[q] == contents[row] for row in others) for q in split.query
        )
    return found


@given(st.lists(st.sampled_from([None, 1, 2, 3, 4, 5, 6, 7]), min_size=12, max_size=12), st.booleans())
def test_same_bytes(values, apart):
    """Copies, and queries that have one in another part, are those of a loop over pairs; missing images are no copies."""

    class Planted(ArraySource):
        def content(self, index):
            if values[index] is None:
                raise inspection.BadImage("is missing")
            return bytes([values[index]])

    source = Planted(np.zeros((12, 1, 1, 1), np.uint8), Labels.from_ids(np.zeros(12, int), classes=1), classes=["x"])
    database = np.arange(6, 11) if apart else np.array([2, 3, 4, 6, 7, 8])
    split = Split(np.array([0, 1, 2, 3]), np.array([4, 5, 6]), database)
    found = manifest_of(divided(source, split))
    assert found["same_bytes"] == slow_same_bytes(values, split)
    used = {int(row) for part in split for row in part}
    assert [entry["row"] for entry in found["bad_images"]] == [row for row in range(12) if row in used and values[row] is None]


# For people


def value_of(text, name):
    return next(line for line in text.splitlines() if line.startswith(name)).removeprefix(name).strip()


def test_table(small):
    """The table shows the manifest's numbers, a line each, and each class."""
    small.source.pixels[0] = small.source.pixels[30]
    content = manifest_of(small)
    text = inspection.table(content)
    assert value_of(text, "queries / training set / database") == "10 / 20 / 40"
    assert value_of(text, "split") == f"{small.split_sha256[:12]} (seed 5)"
    assert value_of(text, "database holds the training set") == "yes"
    assert value_of(text, "overlap: query in train") == "0"
    assert value_of(text, "overlap: train in database") == "20"
    assert value_of(text, "same bytes: images") == "2"
    assert value_of(text, "same bytes: queries in train") == "1"
    assert value_of(text, "same bytes: queries in database") == "1"
    assert value_of(text, "missing or unreadable") == "0, 0 left out"
    share = content["labels"]["relevant_share"]
    assert value_of(text, "relevant to a query, of the database") == f"{share:.4f}, about mAP@all by chance"
    assert f"{content['labels']['mean_per_image']:.2f}, at most" in value_of(text, "labels per image")
    for name in CLASSES:
        assert value_of(text, name).split() == [str(n) for n in content["counts"][name].values()]


def test_table_without_images(small):
    """If images weren't read, the table says so and counts no copies."""
    content = manifest_of(small, images=False)
    assert (content["images_sha256"], content["same_bytes"], content["bad_images"]) == (None, None, [])
    text = inspection.table(content)
    assert value_of(text, "images  ") == "not read"
    assert "same bytes" not in text


def test_table_of_many_classes_and_long_names(small):
    """Thirty of forty classes are shown and ten counted; long names are cut; notes are shown."""
    counts = {f"{'x' * 60}{k}": {"query": 1, "train": 1_234_567, "database": 3} for k in range(40)}
    text = inspection.table({**manifest_of(small), "counts": counts, "notes": {"files that are no pictures": 3_210}})
    lines = text.splitlines()
    assert lines[-1] == "and 10 more, in the manifest"
    assert sum(line.startswith("x" * 30 + " ") for line in lines) == 30
    assert value_of(text, "files that are no pictures") == "3,210"
    assert "1,234,567" in lines[-2]
    assert len({len(line) for line in lines[-31:-1]}) == 1
