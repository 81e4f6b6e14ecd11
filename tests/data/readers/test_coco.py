"""MS COCO: labels as TFDS's own class reads them, 2014 and 2017 the same, and what each kind of damage says."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import mock_data
from tensorflow_datasets.object_detection import coco as tfds_coco

from adsq_jax.data import splits
from adsq_jax.data.readers import coco
from adsq_jax.errors import InputError

CATEGORY_IDS = [k for k in range(1, 91) if k not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]  # COCO's 80 of 90
CATEGORIES = [{"supercategory": "thing", "id": k, "name": f"category {k}"} for k in CATEGORY_IDS]
# Image ids of each part in 2014; in 2017 most of val's are in train.
PARTS = {2014: {"train": [9, 25, 581929, 30], "val": [42, 73, 74]}, 2017: {"train": [581929, 42, 9, 25, 73], "val": [74, 30]}}
SHOWN = [(9, 51), (9, 90), (9, 51), (25, 1), (581929, 1), (42, 18), (74, 1), (74, 2), (74, 90)]  # 30 and 73 have no label
LABELLED = [9, 25, 42, 74, 581929]


def file_name(image, part, year):
    return f"COCO_{part}2014_{image:012d}.jpg" if year == 2014 else f"{image:012d}.jpg"


def instances(part, year, *, images=None, shown=SHOWN):
    """A JSON file's content, with the keys of the real one."""
    images = PARTS[year][part] if images is None else images
    annotations = [
        {
            "segmentation": {"counts": [4, 2], "size": [2, 3]} if i % 3 == 0 else [[1.5, 2.0, 3.0, 4.5]],
            "area": 2.5,
            "iscrowd": int(i % 3 == 0),
            "image_id": image,
            "bbox": [1.5, 2.0, 1.5, 2.5],
            "category_id": category,
            "id": 1000 + i,
        }
        for i, (image, category) in enumerate(shown)
        if image in images
    ]
    return {
        "info": {"description": "made for a test", "year": year},
        "images": [
            {"license": 5, "file_name": file_name(i, part, year), "height": 4, "width": 6, "id": i, "coco_url": ""}
            for i in images
        ],
        "licenses": [{"url": "", "id": 1, "name": ""}],
        "annotations": annotations,
        "categories": CATEGORIES[::-1],
    }


def write(directory, year):
    """One year's files, with pictures whose colour tells their id."""
    (directory / "annotations").mkdir(exist_ok=True)
    for part, images in PARTS[year].items():
        (directory / "annotations" / f"instances_{part}{year}.json").write_text(json.dumps(instances(part, year)))
        (directory / f"{part}{year}").mkdir()
        for image in images:
            path = directory / f"{part}{year}" / file_name(image, part, year)
            Image.new("RGB", (6, 4), (image % 250, 100, 50)).save(path, quality=95)
    return directory


@pytest.fixture
def directory(tmp_path):
    return write(tmp_path, 2014)


def error_of(directory):
    with pytest.raises(InputError) as caught:
        coco.read(directory)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def damaged(directory, change, part="train"):
    """The error when one file was changed, which names that file and says what to get."""
    path = directory / "annotations" / f"instances_{part}2014.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    text = error_of(directory)
    assert "get annotations_trainval2014.zip from https://cocodataset.org/#download and unpack it to" in text
    assert text.endswith("again")
    assert f"{directory}" in text
    return text.replace(str(path), "FILE")


@pytest.mark.parametrize("year", [2014, 2017])
def test_as_tfds_reads_them(tmp_path, year):
    """Images, labels and classes are those of TFDS's own reader of these files, crowds included; pixels are each image's."""
    source = coco.read(write(tmp_path, year))
    wanted, paths = {}, {}
    for part in ("train", "val"):
        path = tmp_path / "annotations" / f"instances_{part}{year}.json"
        theirs = tfds_coco.CocoAnnotationBBoxes(path)
        for image in theirs.images:
            wanted[image["id"]] = {entry["category_id"] for entry in theirs.get_annotations(image["id"])}
            paths[image["id"]] = tmp_path / f"{part}{year}" / image["file_name"]
    wanted = {image: shown for image, shown in sorted(wanted.items()) if shown}
    assert list(wanted) == LABELLED
    assert [source.names[i] for i in range(len(source))] == [f"{image:012d}" for image in wanted]
    assert source.labels.classes == 80
    assert list(source.classes) == [f"category {k}" for k in CATEGORY_IDS]
    for i, (image, shown) in enumerate(wanted.items()):
        assert {CATEGORY_IDS[k] for k in np.flatnonzero(source.labels[i])} == shown
        assert source.location(i) == str(paths[image])
        assert source.content(i) == paths[image].read_bytes()
        np.testing.assert_allclose(source[i]["image"], np.broadcast_to((image % 250, 100, 50), (4, 6, 3)), atol=3)
    assert source.notes == {"images without a label": 2}
    assert len(source.missing(np.arange(5))) == 0


def hash_of(source):
    split = splits.Split(np.array([0]), np.array([1, 2]), np.array([1, 2, 3, 4]))
    return splits.sha256(split, name="coco", labels=source.labels, names=source.names)


def test_years_are_the_same(tmp_path):
    """A split has one hash, with the files of 2014 or of 2017."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = coco.read(write(tmp_path / "a", 2014)), coco.read(write(tmp_path / "b", 2017))
    np.testing.assert_array_equal(a.labels[:], b.labels[:])
    assert a.names.joined == b.names.joined
    assert a.classes == b.classes
    assert hash_of(a) == hash_of(b)
    assert a.location(3) != b.location(3)


def test_which_year(directory):
    """2014 goes first; where only 2017 is whole, 2017 is read."""
    write(directory, 2017)
    assert "train2014" in coco.read(directory).location(0)
    (directory / "annotations" / "instances_val2014.json").unlink()
    assert "train2017" in coco.read(directory).location(0)


def test_which_year_has_images(directory):
    """If the JSON files of both years are there, the year whose images are there is read."""
    write(directory, 2017)
    (directory / "train2014").rename(directory / "elsewhere")
    assert "train2017" in coco.read(directory).location(0)


def test_missing_images(directory):
    """Missing pictures are found by their paths, and named by them."""
    source = coco.read(directory)
    (directory / "val2014" / "COCO_val2014_000000000074.jpg").unlink()
    np.testing.assert_array_equal(source.missing(np.arange(5)), [3])
    np.testing.assert_array_equal(source.missing(np.array([0, 4])), [])
    with pytest.raises(InputError, match=r"val2014/COCO_val2014_000000000074\.jpg is missing"):
        source[3]


def test_other_process(directory):
    """The source can be handed to a worker process."""
    source = pickle.loads(pickle.dumps(coco.read(directory)))
    assert source.names[0] == "000000000009"
    assert source[0]["image"].shape == (4, 6, 3)


@pytest.mark.parametrize("part", ["train", "val"])
def test_missing_file(directory, part):
    """A missing JSON file is named, with the archive that it is in."""
    path = directory / "annotations" / f"instances_{part}2014.json"
    path.unlink()
    text = error_of(directory)
    assert f"{path} is missing: expected instances_train and instances_val of 2014 or of 2017" in text
    assert f"get annotations_trainval2014.zip from https://cocodataset.org/#download and unpack it to {directory}" in text


def test_missing_everything(tmp_path):
    """If nothing is there, the message names the first file."""
    assert f"{tmp_path / 'annotations' / 'instances_train2014.json'} is missing" in error_of(tmp_path)


def test_missing_half_of_2017(directory):
    """If something of 2017 is there and nothing of 2014, the rest of 2017 is asked for."""
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    write(directory, 2017)
    (directory / "annotations" / "instances_val2017.json").unlink()
    text = error_of(directory)
    assert "instances_val2017.json is missing" in text
    assert "annotations_trainval2017.zip" in text


def test_missing_folder(directory):
    """A missing folder of images is named, with its archive."""
    (directory / "val2014").rename(directory / "elsewhere")
    text = error_of(directory)
    assert (
        f"{directory / 'val2014'} is missing: expected the images there; fix: get val2014.zip from https://cocodataset.org"
        in text
    )


@pytest.mark.parametrize("content", [b"", b"{", b'{"images": [}', b"\xff\xfe{\0", b"[" * 100_000, b"\x80abc", b"1" * 5000])
def test_no_json(directory, content):
    """A file that is not complete JSON is named."""
    path = directory / "annotations" / "instances_val2014.json"
    path.write_bytes(content)
    text = error_of(directory)
    assert f"{path} is not a complete JSON file (" in text
    assert "annotations_trainval2014.zip" in text
    assert len(text) < 700


@pytest.mark.parametrize("content", ["[]", "{}", "1", "null", '{"images": 3}'])
def test_another_json(directory, content):
    """JSON of something else is named."""
    path = directory / "annotations" / "instances_val2014.json"
    path.write_text(content)
    text = error_of(directory)
    assert f"{path} has no list 'categories': expected COCO's instances" in text


@pytest.mark.parametrize("kind", ["images", "annotations", "categories"])
def test_missing_list(directory, kind):
    """Each of the three lists, when missing, empty or no list, is named."""
    for value in (None, [], {"a": 1}):
        text = damaged(directory, lambda content, value=value: content.update({kind: value}))
        assert f"FILE has no list {kind!r}" in text


@pytest.mark.parametrize(
    ("kind", "key", "wanted"),
    [
        ("images", "id", "id (a number from 0), file_name (a text)"),
        ("images", "file_name", "id (a number from 0), file_name (a text)"),
        ("annotations", "image_id", "image_id (a number from 0), category_id (a number from 0)"),
        ("annotations", "category_id", "image_id (a number from 0), category_id (a number from 0)"),
        ("categories", "id", "id (a number from 0), name (a text)"),
        ("categories", "name", "id (a number from 0), name (a text)"),
    ],
)
def test_missing_or_wrong_key(directory, kind, key, wanted):
    """Each key that is read, when missing or of another type or range, is named with its entry."""
    for value in (None, 1.0, True, -1, 10**30, ["x"], 7 if key in ("file_name", "name") else "7"):
        text = damaged(directory, lambda content, value=value: content[kind][1].update({key: value}))
        assert f"FILE, {kind}[1]: expected {wanted}" in text
    text = damaged(directory, lambda content: content[kind].__setitem__(1, "an entry"))
    assert f"FILE, {kind}[1]: expected {wanted}" in text
    text = damaged(directory, lambda content: content[kind].__setitem__(1, {"other": 1}))
    assert f"FILE, {kind}[1]: expected {wanted}" in text


@pytest.mark.parametrize(
    "name",
    [
        "../a.jpg",
        "..",
        ".",
        "/etc/passwd",
        "a/b.jpg",
        "a\\b.jpg",
        "C:a.jpg",
        "",
        "a\nb.jpg",
        "a.jpg\n",
        "a\0.jpg",
        "\ud800",
        ".a",
    ],
)
def test_file_name_that_leads_elsewhere(directory, name):
    """A file's name with a folder, a way up, a drive or a line end in it is never opened."""
    text = damaged(directory, lambda content: content["images"][2].update(file_name=name))
    assert f"FILE, images[2]: file_name is {name!r}, expected a file's name without folders" in text


def test_annotation_of_no_image(directory):
    """An annotation of an image that the file hasn't got is named."""
    text = damaged(directory, lambda content: content["annotations"][3].update(image_id=74))
    assert "FILE, annotations[3]: image 74 isn't among the file's" in text


def test_annotation_of_no_category(directory):
    """An annotation of a category that there isn't is named."""
    text = damaged(directory, lambda content: content["annotations"][0].update(category_id=12))
    assert "FILE, annotations[0]: category 12 isn't among the file's" in text


def test_repeated_image(directory):
    """An image that stands in a file twice is named."""
    text = damaged(directory, lambda content: content["images"].append(content["images"][0]))
    where = f"{directory / 'annotations'}, instances_train2014.json and instances_val2014.json"
    assert f"{where} have image 9 more than once" in text


def test_image_in_both_parts(directory):
    """So is one that stands in both files."""
    text = damaged(directory, lambda content: content["images"].append({"id": 42, "file_name": "a.jpg"}))
    assert "image 42 more than once" in text


def test_other_number_of_categories(directory):
    """Another number of categories, as in the files of keypoints, is named."""
    text = damaged(directory, lambda content: content["categories"].pop())
    assert "FILE has 79 categories: expected 80" in text


def test_categories_that_differ(directory):
    """Both files must have the same categories."""
    text = damaged(directory, lambda content: content["categories"][0].update(name="other"), part="val")
    assert "have different categories" in text


def test_unreadable_file(directory, monkeypatch):
    """A file that the system won't open is named, with the system's reason."""

    def denied(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", denied)
    assert "instances_train2014.json can't be read (Permission denied); fix: get" in error_of(directory)


def write_full_size(directory, year, images, shown, *, in_train):
    """Files of the real length, with no more keys than are read, and no images."""
    (directory / "annotations").mkdir(parents=True)
    for part, members in (("train", in_train), ("val", ~in_train)):
        (directory / f"{part}{year}").mkdir()
        ids = images[members].tolist()
        theirs = shown[np.isin(shown[:, 0], images[members])].tolist()
        content = {
            "images": [{"id": i, "file_name": file_name(i, part, year)} for i in ids],
            "annotations": [{"image_id": image, "category_id": category} for image, category in theirs],
            "categories": CATEGORIES,
        }
        (directory / "annotations" / f"instances_{part}{year}.json").write_text(json.dumps(content))


# Writes and reads lists of COCO's real size.
def test_full_size(tmp_path):
    """Of 123,287 images the 122,218 with a label come out, with the same names and labels from 2014's parts and 2017's."""
    random = np.random.default_rng(0)
    images = random.permutation(581_930)[:123_287]
    labelled = images[random.permutation(123_287)[:122_218]]
    shown = np.stack([np.repeat(labelled, 3), random.choice(CATEGORY_IDS, 3 * 122_218)], axis=1)
    sizes = {2014: 82_783, 2017: 118_287}  # of the training parts
    sources = {}
    for year, size in sizes.items():
        in_train = np.isin(np.arange(123_287), random.permutation(123_287)[:size])
        write_full_size(tmp_path / str(year), year, images, shown, in_train=in_train)
        sources[year] = coco.read(tmp_path / str(year))
    assert sources[2014].labels.shape == sources[2017].labels.shape == (122_218, 80)
    assert sources[2014].names.joined == sources[2017].names.joined
    assert sources[2014].names.joined.split(b"\n") == [b"%012d" % i for i in sorted(labelled.tolist())]
    wanted = np.zeros((581_930, 91), np.uint8)
    wanted[shown[:, 0], shown[:, 1]] = 1
    wanted = wanted[np.sort(labelled)][:, CATEGORY_IDS]
    for source in sources.values():
        np.testing.assert_array_equal(source.labels[:], wanted)
        assert source.notes == {"images without a label": 123_287 - 122_218}


def test_in_a_store(directory, bucket):
    """Annotations and images in an object store are read as those on a disk."""
    mock_data.assert_same(coco.read(directory), coco.read(mock_data.upload(directory, f"{bucket}/coco")))
