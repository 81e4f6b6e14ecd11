"""Data sets by name: what loads, what is said where it doesn't, what is left out, and what a result says of it."""

import json
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image
from support import mock_data

from adsq_jax import data, retrieval, storage
from adsq_jax.data import datasets, protocols, splits
from adsq_jax.data.datasets import Settings
from adsq_jax.data.images import BadImage
from adsq_jax.data.readers import digits, tfds_sets
from adsq_jax.data.sources import ArraySource, CachedSource
from adsq_jax.errors import InputError

DEFAULTS = {field: mock_data.load_config("digits").data[field] for field in Settings._fields}
QUERY, TRAIN, DATABASE = (0, 1, 2), (3, 4, 5, 6), (3, 4, 5, 6, 7, 8, 9)


def settings(**changes):
    changes = {key: str(value) if isinstance(value, PurePath) else value for key, value in changes.items()}
    return Settings(**{**DEFAULTS, **changes})


def load(**changes):
    return datasets.load(settings(**changes))


def error_of(function, *arguments, **changes):
    with pytest.raises(InputError) as caught:
        function(*arguments, **changes)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, value, 9)).save(path)


def line_of(k, labels=None):
    return " ".join([f"p/{k}.png", *(labels or ("01" if k % 2 else "10"))])


@pytest.fixture
def listed(tmp_path):
    """Ten pictures of two classes in lists of 3 queries, 4 to train on and 7 in the database; gives what opens them."""
    for k in range(10):
        picture(tmp_path / "images" / "p" / f"{k}.png", 20 * k)
    write_lists(tmp_path / "lists")
    return {
        "name": "lists",
        "reader": "lists",
        "protocol": "own",
        "directory": tmp_path / "images",
        "lists": tmp_path / "lists",
    }


def write_lists(path, *, query=QUERY, train=TRAIN, database=DATABASE, labels=None):
    path.mkdir(exist_ok=True)
    for part, rows in (("query", query), ("train", train), ("database", database)):
        (path / f"{part}.txt").write_text("".join(line_of(k, (labels or {}).get(k)) + "\n" for k in rows))


def write_manifest(path, dataset, *, bad=(), **other):
    content = {
        "data": "lists",
        "protocol": dataset.protocol,
        "split_seed": 0,
        "split_sha256": dataset.split_sha256,
        "bad_images": [{"row": row, "name": "", "why": ""} for row in bad],
    }
    content |= other
    path.write_text(json.dumps(content))
    return path


def names_in(dataset):
    return {part: {dataset.source.name(row) for row in rows} for part, rows in dataset.split._asdict().items()}


def named(*rows):
    return {f"p/{k}.png" for k in rows}


# By name


@pytest.mark.parametrize(
    ("name", "protocol", "wanted"),
    [
        ("cifar10", "cifar10", "https://www.cs.toronto.edu/~kriz/"),
        ("nuswide", "nuswide", "https://lms.comp.nus.edu.sg/"),
        ("nuswide", "nuswide-81", "https://lms.comp.nus.edu.sg/"),
        ("imagenet100", "imagenet100", "https://image-net.org/download"),
        ("coco", "coco", "https://cocodataset.org/#download"),
        ("mirflickr25k", "mirflickr25k", "https://press.liacs.nl/mirflickr/"),
        ("fashion_mnist", "fashion_mnist", "apt-get install dataset-fashion-mnist"),
        ("folder", "own", "--config.data.directory"),
        ("lists", "own", "--config.data.lists"),
    ],
)
def test_data_that_are_not_there(name, protocol, wanted, tmp_path):
    """Each data set says in one line where to get it and into which folder it belongs, and makes no folder."""
    directory = tmp_path / "images"
    reader = datasets.READERS_OF[name][0]
    text = error_of(load, name=name, reader=reader, directory=directory, protocol=protocol)
    assert wanted in text
    assert str(directory) in text
    assert not directory.exists()


def test_names_are_covered():
    """Every name has readers and protocols, each of which is known."""
    benchmarks = {"digits", "fashion_mnist", "cifar10", "nuswide", "imagenet100", "coco", "mirflickr25k"}
    assert set(datasets.PROTOCOLS_OF) == set(datasets.READERS_OF) == benchmarks | {"folder", "lists", "tfds"}
    known = {name for names in datasets.PROTOCOLS_OF.values() for name in names}
    assert known == {*protocols.PROTOCOLS, protocols.OWN}


def test_digits():
    """Digits come with the protocol's split, its cutoff, and the hash of that very split; they aren't kept twice."""
    dataset, source = load(), digits.read()
    split = protocols.by_class(source, protocols.PROTOCOLS["digits"], seed=0)
    for found, wanted in zip(dataset.split, split, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert len(dataset.source) == 1797
    assert (dataset.protocol, dataset.map_at, dataset.validation) == ("digits", "all", 0)
    assert dataset.split_sha256 == splits.sha256(split, name="digits", labels=source.labels, names=None)
    assert isinstance(dataset.source, ArraySource)


def test_seed_changes_split_and_hash():
    """Another seed is another split with another hash; the same seed is the same."""
    one, other, again = (load(split_seed=seed) for seed in (0, 1, 0))
    assert one.split_sha256 == again.split_sha256 != other.split_sha256
    assert set(one.split.query) != set(other.split.query)


def test_the_seed_of_a_benchmark_from_python():
    """`data.load` splits by its seed as a config does."""
    assert data.load("digits", seed=1).split_sha256 == load(split_seed=1).split_sha256


def test_validation_changes_split_and_hash():
    """With images held out, all parts come from the training set, of which the database has its share; the hash differs."""
    whole, held = load(), load(validation=200)
    assert held.split_sha256 != whole.split_sha256
    assert held.validation == 200
    assert [len(rows) for rows in held.split] == [100, 800, 100 + round(100 * 1000 / 697)]  # 1,000 of 1,697 are trained on
    assert set(np.concatenate(held.split).tolist()) == set(whole.split.train.tolist())


@pytest.mark.parametrize("part", ["query", "train", "database"])
def test_labels_of(part):
    """Labels of a part are those of its images, in the order of its rows."""
    dataset = load()
    rows = getattr(dataset.split, part)
    expected = np.stack([dataset.source[int(row)]["label"] for row in rows])
    np.testing.assert_array_equal(datasets.part_labels(dataset, part), expected)


# Labels for retrieval


def test_retrieval_labels_of_single_classes():
    """If each query and database image has one label, they are ids, equal to the place of the 1."""
    dataset = load()
    found = datasets.retrieval_labels(dataset)
    for part in ("query", "database"):
        ids = [int(np.argmax(dataset.source[int(row)]["label"])) for row in getattr(dataset.split, part)]
        assert found[part].tolist() == ids
        assert found[part].dtype == np.int64


@pytest.mark.parametrize("k", [0, 9])
def test_retrieval_labels_of_several(listed, k):
    """One query or one database image with two labels makes all of both parts multi-hot."""
    write_lists(Path(listed["lists"]), labels={k: "11"})
    dataset = load(**listed)
    found = datasets.retrieval_labels(dataset)
    for part in ("query", "database"):
        expected = [dataset.source[int(row)]["label"].tolist() for row in getattr(dataset.split, part)]
        assert found[part].tolist() == expected
        assert found[part].dtype == np.uint8


def test_retrieval_labels_of_a_single_class():
    """Beside images without a label, they are one column of bool, which `retrieval` takes: numbers might be ids."""
    images = np.zeros((10, 4, 4, 3), np.uint8)
    dataset = data.from_arrays(images, [["cat"] if k > 1 else [] for k in range(10)], query=[0, 1, 2])
    found = datasets.retrieval_labels(dataset)
    assert [found["query"].tolist(), found["query"].dtype] == [[[False], [False], [True]], bool]
    codes = np.where(np.arange(7)[:, None] > [1, 3], 1, -1)
    measures = retrieval.measure(codes[:3], codes, query_labels=found["query"], database_labels=found["database"])
    assert measures.map == pytest.approx(1 / 3)


def test_retrieval_labels_do_not_ask_other_images(listed):
    """Two labels of an image that is only trained on don't matter: queries and database have ids."""
    write_lists(Path(listed["lists"]), labels={3: "11"}, database=(4, 5, 6, 7, 8, 9))
    found = datasets.retrieval_labels(load(**listed))
    assert (found["query"].tolist(), found["database"].tolist()) == ([0, 1, 0], [0, 1, 0, 1, 0, 1])


# Lists and folders, end to end


def test_lists(listed):
    """The split of list files is theirs; pixels are those of the files; decoded training images are kept, others not."""
    dataset = load(**listed)
    assert names_in(dataset) == {"query": named(*QUERY), "train": named(*TRAIN), "database": named(*DATABASE)}
    assert dataset.map_at == "all"
    assert isinstance(dataset.source, CachedSource)
    for row in range(10):
        k = int(dataset.source.name(row)[2:-4])
        np.testing.assert_array_equal(dataset.source[row]["image"][2, 3], [20 * k, 20 * k, 9])
        assert dataset.source[row]["label"].tolist() == [1 - k % 2, k % 2]
    assert dataset.source.cached_bytes == len(TRAIN) * 6 * 4 * 3


def test_lists_with_a_prefix(listed):
    """Lists of absolute paths from another machine are read with data.strip_prefix, in Python, too; no other reader has it."""
    for path in Path(listed["lists"]).iterdir():
        path.write_text("".join(f"/home/someone/{line}\n" for line in path.read_text().splitlines()))
    assert "--config.data.strip_prefix=/home/someone/p/" in error_of(load, **listed)
    dataset = load(**listed, strip_prefix="/home/someone/")
    assert names_in(dataset)["query"] == named(*QUERY)
    by_name = data.load("lists", directory=listed["directory"], lists=listed["lists"], strip_prefix="/home/someone")
    assert by_name.split_sha256 == dataset.split_sha256
    assert "go with list files" in error_of(data.load, "digits", strip_prefix="/home/")


def test_no_room_to_keep(listed):
    """With keep_mib=0 nothing is kept, and the pixels are the same."""
    dataset, kept = load(**listed, keep_mib=0), load(**listed)
    for row in range(10):
        np.testing.assert_array_equal(dataset.source[row]["image"], kept.source[row]["image"])
    assert dataset.source.cached_bytes == 0


def test_lists_of_a_benchmark(listed):
    """Lists under a benchmark's name are held against its sizes."""
    text = error_of(load, **{**listed, "name": "nuswide", "protocol": "nuswide"})
    assert "2,100 / 10,500 / 193,734" in text
    assert "3 / 4 / 7" in text


def test_lists_with_a_benchmarks_sizes(listed, monkeypatch):
    """Lists of the protocol's sizes are its split, with its name and cutoff."""
    monkeypatch.setitem(protocols.PROTOCOLS, "nuswide", protocols.Protocol(3, 4, 7, True, "5000", "by_concept"))
    dataset = load(**{**listed, "name": "nuswide", "protocol": "nuswide"})
    assert (dataset.protocol, dataset.map_at) == ("nuswide", "5000")
    assert names_in(dataset)["query"] == named(*QUERY)


@pytest.mark.parametrize("allow", [False, True])
def test_a_query_in_the_database(listed, allow):
    """A published list with queries in its database is refused, or allowed, and what a result says counts them."""
    write_lists(Path(listed["lists"]), database=(*DATABASE, 0, 1))
    if not allow:
        assert "query in database: 2 of 3" in error_of(load, **listed)
        return
    dataset = load(**listed, allow_overlap=True)
    said = datasets.facts(dataset)
    assert (said["n_query_in_database"], said["n_query_in_train"], said["allow_overlap"]) == (2, 0, True)
    assert len(dataset.split.database) == 9
    assert dataset.split_sha256 != load(**{**listed, "lists": with_plain_lists(listed)}, allow_overlap=True).split_sha256


def with_plain_lists(listed):
    path = Path(listed["lists"]).parent / "plain"
    write_lists(path)
    return path


def test_folder(tmp_path):
    """Pictures in folders: each class gives its share of queries, the rest is database and training set."""
    for k in range(20):
        picture(tmp_path / ("cat" if k < 8 else "dog") / f"{k:02}.png", 10 * k)
    dataset = load(name="folder", directory=tmp_path, protocol="own", query_share=0.25, train_share=0.5)
    ids = np.array([0] * 8 + [1] * 12)
    assert [np.bincount(ids[rows]).tolist() for rows in dataset.split] == [[2, 3], [3, 4], [6, 9]]
    for row in range(20):
        np.testing.assert_array_equal(dataset.source[row]["image"], np.full((4, 6, 3), (10 * row, 10 * row, 9), np.uint8))
    found = datasets.retrieval_labels(dataset)
    assert found["query"].tolist() == [0, 0, 1, 1, 1]


def test_small_classes_in_the_database(tmp_path):
    """Classes of one picture are refused by name, or kept without queries and told; from Python as by the config's keys."""
    for k in range(12):
        picture(tmp_path / ("one" if k < 1 else "two" if k < 2 else "cat") / f"{k:02}.png", 10 * k)
    opened = {"name": "folder", "directory": tmp_path, "protocol": "own"}
    text = error_of(load, **opened)
    assert "one (1), two (1)" in text
    assert "--config.data.small_classes=database" in text
    assert error_of(data.load, "folder", directory=tmp_path) == text
    dataset = load(**opened, small_classes="database", validation=4)
    (note,) = datasets.notes(dataset)
    assert note.startswith("2 of 3 classes are too small to split: one (1), two (1); ")
    assert datasets.facts(dataset)["n_classes_without_queries"] == 2
    small = {"one/00.png", "two/01.png"}
    for found in (dataset, data.load(**{**opened, "small_classes": "database"})):
        names = names_in(found)
        assert not small & names["query"]
        assert small <= names["train"] & names["database"]
        assert found.classes_without_queries == ("one (1)", "two (1)")
    assert datasets.notes(load(name="digits")) == []


def test_a_split_in_folders(tmp_path):
    """The reader's parts are the split, by the config's keys and from Python; shares and seed change nothing."""
    for k, part in enumerate(["train", "train", "test", "val"]):
        picture(tmp_path / part / "cat" / f"{k}.png", k)
    opened = {"name": "folder", "reader": "split_folders", "directory": tmp_path}
    for dataset in (load(**opened, protocol="own", query_share=0.9, split_seed=5), data.load(**opened)):
        rows = {part: sorted(names) for part, names in names_in(dataset).items()}
        train = ["train/cat/0.png", "train/cat/1.png"]
        assert rows == {"query": ["test/cat/2.png"], "train": train, "database": train}
        assert (dataset.protocol, dataset.map_at) == ("own", "all")


# Images that can't be used


def remove(listed, *rows):
    for k in rows:
        (Path(listed["directory"]) / "p" / f"{k}.png").unlink()


def row_of(dataset, k):
    return next(row for row in range(len(dataset.source)) if dataset.source.name(row) == f"p/{k}.png")


def test_missing_images(listed):
    """Missing images are counted, and the first is named, with what to do."""
    remove(listed, 5, 8)
    text = error_of(load, **listed)
    assert f"2 images are missing, the first is {listed['directory'] / 'p' / '5.png'}; fix: " in text
    assert "--config.data.on_bad_image=skip" in text


def test_missing_images_of_no_part(tmp_path, monkeypatch):
    """An image that the split doesn't use may be missing: with images held out, the protocol's own queries aren't used."""
    for k in range(20):
        picture(tmp_path / f"c{k % 2}" / f"{k:02}.png", k)
    opened = settings(name="folder", directory=tmp_path, protocol="own", validation=6)
    dataset = datasets.draw(opened)
    unused = sorted(set(range(20)) - set(datasets.used_rows(dataset.split).tolist()))
    assert len(unused) == 2
    monkeypatch.setattr(datasets, "open_source", lambda _: dataset.source)  # the folder's list, from before they went
    for row in unused:
        (tmp_path / dataset.source.name(row)).unlink()
    assert datasets.load(opened).split_sha256 == dataset.split_sha256


def test_skip_without_a_manifest(listed):
    """To skip what is bad, one has to say what is: the error names the command that finds it."""
    text = error_of(load, **listed, on_bad_image="skip")
    assert "adsq data" in text
    assert "--config.data.manifest" in text


def test_skip(listed, tmp_path):
    """Images that the manifest lists as bad are in no part; the others stay in their parts; hash and description show it."""
    dataset = load(**listed)
    remove(listed, 1, 5, 8)
    bad = [row_of(dataset, k) for k in (1, 5, 8)]
    skipped = datasets.skip_images(dataset, np.array(bad), most_bad=1.0)
    path = write_manifest(tmp_path / "manifest.json", skipped, bad=bad)
    found = load(**listed, on_bad_image="skip", manifest=path, most_bad=0.3)
    assert names_in(found) == {"query": named(0, 2), "train": named(3, 4, 6), "database": named(3, 4, 6, 7, 9)}
    assert (found.n_skipped, datasets.facts(found)["n_skipped"], datasets.facts(found)["n_train"]) == (3, 3, 3)
    assert found.split_sha256 == skipped.split_sha256 != dataset.split_sha256


def test_skip_ignores_rows_of_no_part(listed):
    """A bad image that is in no part doesn't count, and leaves the hash as it is."""
    dataset = load(**listed)
    again = datasets.skip_images(dataset, np.array([10, 999]), most_bad=0.0)
    assert (again.n_skipped, again.split_sha256) == (0, dataset.split_sha256)


def test_skip_another_missing_image(listed, tmp_path):
    """An image that is missing without standing in the manifest is an error still."""
    dataset = load(**listed)
    skipped = datasets.skip_images(dataset, np.array([row_of(dataset, 8)]), most_bad=1.0)
    path = write_manifest(tmp_path / "manifest.json", skipped, bad=[row_of(dataset, 8)])
    remove(listed, 8, 9)
    text = error_of(load, **listed, on_bad_image="skip", manifest=path, most_bad=0.5)
    assert f"1 images are missing, the first is {listed['directory'] / 'p' / '9.png'}; fix: " in text


@pytest.mark.parametrize(("bad", "most", "refused"), [(1, 0.09, True), (1, 0.1, False), (2, 0.1, True), (2, 0.2, False)])
def test_most_bad(listed, bad, most, refused):
    """Up to the share of all images may be left out, and no more."""
    dataset = load(**listed)
    rows = np.array([row_of(dataset, k) for k in (8, 9)[:bad]])
    if refused:
        text = error_of(datasets.skip_images, dataset, rows, most_bad=most)
        assert f"{bad} of 10 images can't be used" in text
        assert f"config.data.most_bad={most}" in text
    else:
        assert datasets.skip_images(dataset, rows, most_bad=most).n_skipped == bad


@pytest.mark.parametrize("part", [QUERY, TRAIN, DATABASE])
def test_nothing_left_of_a_part(listed, part):
    """If all images of a part are bad the error says so."""
    dataset = load(**listed)
    rows = np.array([row_of(dataset, k) for k in part])
    text = error_of(datasets.skip_images, dataset, rows, most_bad=1.0)
    assert "a part of the split is empty" in text


# The manifest


def test_the_same_manifest(listed, tmp_path):
    """A manifest of the same split changes nothing."""
    plain = load(**listed)
    path = write_manifest(tmp_path / "manifest.json", plain)
    assert load(**listed, manifest=path).split_sha256 == plain.split_sha256


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_another_manifest(listed, tmp_path, on_bad_image):
    """A manifest of another split is refused, with both hashes and the command that tells what differs."""
    path = write_manifest(tmp_path / "manifest.json", load(validation=200)._replace(protocol="own"))
    text = error_of(load, **listed, manifest=path, on_bad_image=on_bad_image)
    assert load(**listed).split_sha256[:12] in text
    assert load(validation=200).split_sha256[:12] in text
    assert f"adsq data --verify={path}" in text


@pytest.mark.parametrize(("key", "value"), [("data", "folder"), ("protocol", "coco"), ("split_seed", 1)])
def test_manifest_of_other_data(listed, tmp_path, key, value):
    """A manifest of other data, or of another draw, is refused before what it names as bad is left out."""
    path = write_manifest(tmp_path / "manifest.json", load(**listed), bad=range(10), **{key: value})
    assert f"{path} has {key}={value!r}" in error_of(load, **listed, manifest=path, on_bad_image="skip")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        "7",
        "null",
        '{"split_sha256": 7, "bad_images": []}',
        '{"split_sha256": "a", "bad_images": []}',
        "[" * 9000,
    ]
    + [json.dumps({"split_sha256": "a" * 64, "bad_images": bad}) for bad in (7, [7], [{}], [{"row": "1"}], [{"row": -1}])]
    + [json.dumps({"split_sha256": "a" * 64, "bad_images": [{"row": row}]}) for row in (2**64, True, 1.5, None)]
    + [json.dumps({"split_sha256": list(range(64)), "bad_images": []}), '{"split_sha256": "' + "a" * 64 + '"}'],
)
def test_no_manifest(content, tmp_path):
    """Anything else than a manifest is refused in one line."""
    path = tmp_path / "manifest.json"
    path.write_text(content)
    text = error_of(load, manifest=path)
    assert f"{path} is" in text
    assert "adsq data" in text


def test_manifest_that_can_not_be_read(tmp_path):
    """A manifest that isn't there, is a folder, or is no text, is refused in one line."""
    assert "is not a file" in error_of(load, manifest=tmp_path / "manifest.json")
    assert "is not a file" in error_of(load, manifest=tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    assert "is not a manifest of a split" in error_of(load, manifest=tmp_path / "binary")


# What a result says


@pytest.mark.parametrize("validation", [0, 2])
def test_described(listed, validation):
    """Every number that a result says of its data is that of a count by hand."""
    dataset = load(**listed, validation=validation)
    assert datasets.facts(dataset) == {
        "protocol": "own",
        "validation": validation,
        "split_sha256": dataset.split_sha256,
        "n_train": 4 - validation,
        "n_query_in_train": 0,
        "n_query_in_database": 0,
        "allow_overlap": False,
        "n_skipped": 0,
        "n_classes_without_queries": 0,
        "database_holds_train": True,
    }
    json.dumps(datasets.facts(dataset))


# TFDS


def test_tfds_without_a_name():
    """Without the name of a set, the error says how to give it."""
    assert "--config.data.tfds_name=NAME" in error_of(load, name="tfds", reader="tfds", protocol="own")


def test_tfds_of_an_unknown_name(tmp_path):
    """A name that TFDS doesn't know is quoted, with where to find the names."""
    text = error_of(load, name="tfds", reader="tfds", protocol="own", tfds_name="no_such_set", directory=tmp_path)
    assert "'no_such_set'" in text
    assert "tensorflow.org/datasets" in text


def test_tfds_has_what_is_said():
    """The data sets that can be had of TFDS are those that its reader knows, and only `tfds` itself needs a name."""
    of_tfds = {name for name, readers in datasets.READERS_OF.items() if "tfds" in readers}
    assert of_tfds == {*tfds_sets.BENCHMARKS, "tfds"}


def test_lists_in_a_store(listed, bucket):
    """Pictures, lists and manifest in an object store give the split of the disk; a picture that isn't there is missed."""
    here = load(**listed)
    listed["directory"] = mock_data.upload(listed["directory"], f"{bucket}/images")
    on_a_disk = load(**listed)
    listed["lists"] = mock_data.upload(listed["lists"], f"{bucket}/lists")
    there = load(**listed)
    assert there.split_sha256 == on_a_disk.split_sha256 == here.split_sha256
    for row in range(10):
        np.testing.assert_array_equal(there.source[row]["image"], here.source[row]["image"])
    (listed["directory"] / "p" / "4.png").unlink()
    said = error_of(load, **listed)
    assert f"1 images are missing, the first is {bucket}/images/p/4.png" in said
    with pytest.raises(BadImage, match=rf"{bucket}/images/p/4\.png is missing; fix: restore it"):
        there.source.image([there.source.name(row) for row in range(10)].index("p/4.png"), shorter_side=7)


@pytest.mark.parametrize("path", ["../x.png", "/x.png", "p/../../x.png", "s3://other/../x.png"])
def test_lists_in_a_store_do_not_lead_out_of_it(listed, bucket, path):
    """Paths of lists stay below the folder, in a store as on a disk."""
    (listed["lists"] / "query.txt").write_text(f"{path} 0 1\n")
    listed |= {"directory": f"{bucket}/images", "lists": mock_data.upload(listed["lists"], f"{bucket}/lists")}
    assert "leads out of the images' folder" in error_of(load, **listed)


def test_a_bucket_s_name_in_a_list(listed, bucket):
    """A path that looks like another bucket's is one below the folder."""
    (listed["lists"] / "query.txt").write_text(f"{bucket}/secret.png 0 1\n")
    storage.write(storage.path(f"{bucket}/secret.png"), b"secret")
    listed |= {"directory": mock_data.upload(listed["directory"], f"{bucket}/images")}
    assert f"1 images are missing, the first is {bucket}/images/s3:/" in error_of(load, **listed)


def test_a_stamp_of_a_store(listed, bucket):
    """It changes with a picture's content and where one is missing, and not with another's."""
    listed |= {"directory": mock_data.upload(listed["directory"], f"{bucket}/images")}
    source, path = load(**listed).source, storage.path(f"{bucket}/images/p/5.png")
    row = [source.name(k) for k in range(10)].index("p/5.png")
    others = np.array([k for k in range(10) if k != row])
    stamps = [(source.stamp(np.array([row])), source.stamp(others))]
    for change in (lambda: None, lambda: storage.write(path, storage.read(path)[:-1] + b"x"), path.unlink):
        change()
        stamps.append((source.stamp(np.array([row])), source.stamp(others)))
    assert len({other for _, other in stamps}) == 1
    assert stamps[0] == stamps[1]
    assert len({own for own, _ in stamps}) == 3


def test_what_is_not_in_a_store(listed, bucket):
    """A folder, list or manifest that isn't there, and NUS-WIDE, which is prepared on a disk: each one line."""
    assert "s3://" in error_of(load, name="folder", protocol="own", directory=f"{bucket}/none")
    assert "holds no lists named database.txt" in error_of(load, **listed | {"lists": f"{bucket}/none"})
    assert f"{bucket}/m.json is not a file" in error_of(load, **listed, manifest=f"{bucket}/m.json")
    assert "NUS-WIDE is prepared on a disk" in error_of(load, name="nuswide", protocol="nuswide", directory=f"{bucket}/nus")
    for name in ("cifar10", "fashion_mnist", "coco", "mirflickr25k", "imagenet100"):
        assert f"{bucket}/none" in error_of(load, name=name, protocol=name, directory=f"{bucket}/none")
    assert "hdfs://" in error_of(load, **listed | {"directory": "hdfs://a/b"})


def test_a_store_that_refuses(listed, refused):
    """Without credentials it isn't said that something were missing."""
    for changes in ({"directory": f"{refused}/images"}, {"lists": f"{refused}/lists"}):
        if "directory" in changes:
            changes["lists"] = listed["lists"]
        said = error_of(load, **listed | changes)
        assert "(Unable to locate credentials)" in said
        assert "missing" not in said
    for name in ("folder", "cifar10", "coco", "imagenet100", "mirflickr25k"):
        protocol = "own" if name == "folder" else name
        said = error_of(load, name=name, protocol=protocol, directory=f"{refused}/none")
        assert "(Unable to locate credentials)" in said, name
