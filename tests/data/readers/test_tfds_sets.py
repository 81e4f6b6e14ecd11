"""TFDS: sets prepared here, without TensorFlow, are read record by record; what can't be read says what to do."""

import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from support import mock_data

from adsq_jax.data import datasets, protocols, splits
from adsq_jax.data.datasets import Settings
from adsq_jax.data.images import BadImage
from adsq_jax.data.readers import coco, imagenet100, tfds_sets
from adsq_jax.errors import InputError

CACHE = "adsq_jax_labels.npz"


def png(value):
    """A picture that tells its number."""
    content = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 255 - value, 7)).save(content, "PNG")
    return content.getvalue()


class AdsqTiny(tfds.core.GeneratorBasedBuilder):
    """A data set whose features and examples a test sets. TFDS finds it by its name, `adsq_tiny`."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES: dict = {}  # noqa: RUF012
    EXAMPLES: dict = {}  # noqa: RUF012

    def _info(self):
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(encoding_format="png"), **self.FEATURES})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True, description="x", homepage="x")

    def _split_generators(self, dl_manager):
        return {split: enumerate(examples) for split, examples in self.EXAMPLES.items()}

    def _generate_examples(self):
        raise NotImplementedError


CLASS = tfds.features.ClassLabel(names=["ant", "bee", "cat"])
SINGLE = {
    "train": [{"label": k % 3} for k in range(7)],
    "test": [{"label": 2 - k % 3} for k in range(4)],
}
IDS = {split: [example["label"] for example in examples] for split, examples in SINGLE.items()}


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepares a set of the features and examples that it is given; each example's image tells its number."""

    def prepare(features=None, examples=SINGLE):
        count, whole = 0, {}
        for split, entries in examples.items():
            whole[split] = []
            for entry in entries:
                image = io.BytesIO(png(count) if entry.get("image", True) else b"")
                whole[split].append({**entry, "image": image})
                count += 1
        monkeypatch.setattr(AdsqTiny, "FEATURES", {"label": CLASS} if features is None else features)
        monkeypatch.setattr(AdsqTiny, "EXAMPLES", whole)
        builder = AdsqTiny(data_dir=tmp_path, file_format="array_record")
        tfds_sets.prepare(builder, config=None, fix="")
        return builder

    return prepare


def open_builder(builder, splits=None):
    return tfds_sets.open_builder(builder, splits=splits, fix="do that")


def error_of(function, *arguments, **settings):
    with pytest.raises(InputError) as caught:
        function(*arguments, **settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def refused_or(fine, function, *arguments, named=""):
    """Whether a function gives what is fine, or says in one line, with a name in it, that it can't."""
    try:
        return fine(function(*arguments))
    except InputError as error:
        return len(str(error).splitlines()) == 1 and named in str(error)


def names_of(source):
    return [source.name(i) for i in range(len(source))]


def assert_pixels(source, values):
    for i, value in enumerate(values):
        np.testing.assert_array_equal(source[i]["image"], np.full((4, 5, 3), (value, 255 - value, 7), np.uint8))


def fail(*_, **__):
    raise AssertionError("this was not to be called")


# What is read


def test_single_labels(prepared):
    """All splits one after another: labels, classes, parts, pixels, and no names where there is no feature of names."""
    source = open_builder(prepared())
    assert source.classes == ("ant", "bee", "cat")
    assert source.labels.single
    assert source.labels.ids(np.arange(11)).tolist() == IDS["train"] + IDS["test"]
    assert {part: rows.tolist() for part, rows in source.parts.items()} == {
        "train": list(range(7)),
        "test": list(range(7, 11)),
    }
    assert_pixels(source, range(11))
    assert source.names is None
    assert source.missing(np.arange(11)).tolist() == []
    assert source.content(9) == png(9)


def test_chosen_splits(prepared):
    """Splits come in the order that is asked for, and only those."""
    builder = prepared()
    source = open_builder(builder, ("test", "train"))
    assert source.labels.ids(np.arange(11)).tolist() == IDS["test"] + IDS["train"]
    assert_pixels(source, [*range(7, 11), *range(7)])
    assert source.parts["train"].tolist() == list(range(4, 11))
    assert_pixels(open_builder(builder, ("test",)), range(7, 11))


def test_another_choice_of_splits_is_not_the_kept_one(prepared):
    """Labels that were kept for one choice of splits aren't taken for another."""
    builder = prepared()
    for chosen in (("train", "test"), ("test", "train"), ("test",), ("train", "test")):
        source = open_builder(builder, chosen)
        assert source.labels.ids(np.arange(len(source))).tolist() == [k for split in chosen for k in IDS[split]]


MULTI = [[0, 2], [], [1], [2, 1, 0], [1, 1]]
MULTI_HOT = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("features", "example"),
    [
        ({"labels": tfds.features.Sequence(CLASS)}, lambda ids: {"labels": ids}),
        ({"label": tfds.features.Sequence(CLASS)}, lambda ids: {"label": ids}),
        (
            {"objects": tfds.features.Sequence({"label": CLASS, "area": np.int64})},
            lambda ids: {"objects": [{"label": k, "area": 3} for k in ids]},
        ),
    ],
)
def test_several_labels(prepared, features, example):
    """Sequences of labels and objects with labels are multi-hot rows; a label twice counts once, none is a row of zeros."""
    source = open_builder(prepared(features, {"train": [example(ids) for ids in MULTI]}))
    np.testing.assert_array_equal(source.labels[:], MULTI_HOT)
    assert not source.labels.single
    assert source.classes == ("ant", "bee", "cat")
    assert_pixels(source, range(5))


def test_classes_without_names(prepared):
    """If classes have no names their numbers name them; seventeen of them take three bytes."""
    features = {"label": tfds.features.ClassLabel(num_classes=17)}
    source = open_builder(prepared(features, {"train": [{"label": k} for k in (0, 16, 7, 8)]}))
    assert source.classes == tuple(map(str, range(17)))
    assert source.labels.ids(np.arange(4)).tolist() == [0, 16, 7, 8]


@pytest.mark.parametrize("feature", ["file_name", "image/filename", "name", "id"])
def test_names(prepared, feature):
    """A feature that names the images is their name, and is told of a bad one."""
    texts = ["b.jpg", "ä/a.jpg", "", "b.jpg"]
    examples = {"train": [{"label": 0, feature: text, "image": k != 2} for k, text in enumerate(texts)]}
    source = open_builder(prepared({"label": CLASS, feature: tfds.features.Text()}, examples))
    assert names_of(source) == texts
    assert source.names.unique().tolist() == [False, True, True, False]


def test_numbers_as_names(prepared):
    """COCO's numbers of images are names of twelve digits."""
    examples = {"train": [{"label": 0, "image/id": k} for k in (10, 2, 581929)]}
    source = open_builder(prepared({"label": CLASS, "image/id": np.int64}, examples))
    assert names_of(source) == ["000000000010", "000000000002", "000000581929"]


def test_numbers_as_ids(prepared):
    """A number as id names its image too, whatever its bytes are: that of 10 is a line end."""
    examples = {"train": [{"label": 0, "id": k} for k in (10, 2, 2570)]}
    source = open_builder(prepared({"label": CLASS, "id": np.int64}, examples))
    assert len(set(names_of(source))) == len(source) == 3
    assert all(name.isprintable() for name in names_of(source))


def test_names_with_a_line_end(prepared):
    """A line end in a name doesn't mix names up: it is refused in one line, or kept on one."""
    examples = {"train": [{"label": 0, "name": text} for text in ("a\nb", "c")]}
    builder = prepared({"label": CLASS, "name": tfds.features.Text()}, examples)
    assert refused_or(lambda source: names_of(source)[1] == "c", open_builder, builder)


@pytest.mark.parametrize("texts", [[""], ["", ""], ["", "a"]])
def test_empty_names(prepared, texts):
    """Empty names are names all the same."""
    examples = {"train": [{"label": 0, "name": text} for text in texts]}
    source = open_builder(prepared({"label": CLASS, "name": tfds.features.Text()}, examples))
    assert len(source) == len(texts)
    assert source.names is None or names_of(source) == texts


def test_missing(prepared):
    """A record without bytes is missing, whichever way it is asked for; the remedy is told."""
    examples = {
        "train": [{"label": 0, "image": k != 1} for k in range(3)],
        "test": [{"label": 1, "image": k != 0} for k in range(2)],
    }
    source = open_builder(prepared(None, examples))
    assert source.missing(np.arange(5)).tolist() == [1, 3]
    assert source.missing(np.array([4, 3, 0])).tolist() == [3]
    for row in (1, 3):
        with pytest.raises(BadImage, match="is missing; fix: do that"):
            source.image(row, shorter_side=0)
    np.testing.assert_array_equal(source[4]["image"][0, 0], [4, 251, 7])


def test_unlabelled_split(prepared, tmp_path):
    """A split that nobody has labelled is left out, images and all, unless it is asked for."""
    examples = {"train": [{"label": k % 3} for k in range(5)], "test": [{"label": -1}] * 4, "more": [{"label": 1}] * 2}
    prepared(None, examples)
    source = read(tmp_path)
    assert source.labels.ids(np.arange(len(source))).tolist() == [0, 1, 2, 0, 1, 1, 1]
    assert_pixels(source, [0, 1, 2, 3, 4, 9, 10])
    assert len(read(tmp_path, splits=("test",))) == 4


def test_nobody_has_labelled_anything(prepared, tmp_path):
    """A set of which no image has a label is an error of one line, when it is divided if not before."""
    prepared(None, {"train": [{"label": -1}] * 4})
    opened = {"name": "tfds", "reader": "tfds", "protocol": "own", "directory": str(tmp_path), "tfds_name": "adsq_tiny"}
    data = mock_data.load_config("tfds").data
    error_of(datasets.load, Settings(**{**{field: data[field] for field in Settings._fields}, **opened}))


def test_unlabelled_images_stay(prepared):
    """In a split with labels, images without a label stay, and have none."""
    source = open_builder(prepared(None, {"train": [{"label": k} for k in (0, -1, 2)]}))
    np.testing.assert_array_equal(source.labels[:], [[1, 0, 0], [0, 0, 0], [0, 0, 1]])


def test_a_source_goes_to_another_process(prepared):
    """A source can be sent to a worker process and reads the same there."""
    source = open_builder(prepared())
    again = pickle.loads(pickle.dumps(source))
    assert_pixels(again, range(11))
    assert len(pickle.dumps(source)) < 200_000


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        ({"label": np.int64}, "no class labels in `label`, `labels` or `objects`"),
        ({"labels": tfds.features.Sequence(np.int64)}, "no class labels"),
        ({"objects": tfds.features.Sequence({"id": np.int64})}, "no class labels"),
        ({"caption": tfds.features.Text()}, "no class labels"),
    ],
)
def test_no_labels(prepared, features, wanted):
    """A set without classes is refused."""
    value = {"label": 1, "labels": [1], "objects": [{"id": 1}], "caption": "x"}
    examples = {"train": [{key: value[key] for key in features}]}
    assert wanted in error_of(open_builder, prepared(features, examples))


@pytest.mark.parametrize("kind", ["no feature", "a text"])
def test_no_images(tmp_path, kind):
    """A set without images is refused."""

    class Imageless(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """No images."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = {} if kind == "no feature" else {"image": tfds.features.Text()}
            features = tfds.features.FeaturesDict({"label": CLASS, **image})
            return tfds.core.DatasetInfo(builder=self, features=features, description="x", homepage="x")

        def _split_generators(self, dl_manager):
            return {"train": [(0, {"label": 0, **({} if kind == "no feature" else {"image": "x"})})]}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Imageless(data_dir=tmp_path, file_format="array_record")
    tfds_sets.prepare(builder, config=None, fix="")
    assert "has no feature `image`" in error_of(open_builder, builder)


# Kept labels


def test_labels_are_read_once(prepared, monkeypatch):
    """The second time no record is read for its label, and everything is the same."""
    examples = {"train": [{"label": k % 3, "name": str(k), "image": k != 1} for k in range(6)]}
    builder = prepared({"label": CLASS, "name": tfds.features.Text()}, examples)
    first = open_builder(builder)
    monkeypatch.setattr(tfds_sets, "_read_labels", fail)
    second = open_builder(builder)
    np.testing.assert_array_equal(first.labels[:], second.labels[:])
    assert first.names.joined == second.names.joined
    assert second.missing(np.arange(6)).tolist() == [1]


def test_prepared_anew_with_other_labels(prepared):
    """A set that was removed and prepared anew, of as many images, has its new labels."""
    builder = prepared()
    open_builder(builder)
    kept = (Path(builder.data_dir) / CACHE).read_bytes()
    shutil.rmtree(builder.data_dir)
    other = {split: [{"label": (k + 1) % 3} for k in ids] for split, ids in IDS.items()}
    builder = prepared(None, other)
    (Path(builder.data_dir) / CACHE).write_bytes(kept)
    found = open_builder(builder).labels.ids(np.arange(11)).tolist()
    assert found == [(k + 1) % 3 for k in IDS["train"] + IDS["test"]]


# By name


def read(tmp_path, name="adsq_tiny", splits=None):
    return tfds_sets.read(name, str(tmp_path), splits=splits)


def test_read_prepares_once(prepared, tmp_path, monkeypatch):
    """A set that isn't prepared is, as array_record; the second time nothing is written."""
    shutil.rmtree(prepared().data_dir)
    assert_pixels(read(tmp_path), [])
    assert not list(tmp_path.rglob("*tfrecord*"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(AdsqTiny, "_split_generators", fail)
    assert read(tmp_path).labels.ids(np.arange(11)).tolist() == IDS["train"] + IDS["test"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_read_without_its_code(prepared, tmp_path):
    """A prepared folder is enough: the class that prepared it need not be known."""
    root = Path(prepared().data_dir)
    other = tmp_path / "adsq_unknown" / "1.0.0"
    shutil.copytree(root, other)
    for path in other.iterdir():
        path.rename(other / path.name.replace("adsq_tiny", "adsq_unknown"))
    info = other / "dataset_info.json"
    info.write_text(info.read_text().replace("adsq_tiny", "adsq_unknown"))
    source = read(tmp_path, "adsq_unknown")
    assert source.labels.ids(np.arange(11)).tolist() == IDS["train"] + IDS["test"]


@pytest.mark.parametrize("name", ["no_such_set", "no_such_set/config", "adsq_tiny/no_config", "adsq_tiny:7.7.7"])
def test_unknown_name(tmp_path, name):
    """A name, config or version that TFDS doesn't have is quoted."""
    text = error_of(read, tmp_path, name)
    assert f"TFDS can't open {name!r}" in text
    assert "tensorflow.org/datasets" in text


def test_tilde(monkeypatch, tmp_path, prepared):
    """~ in the directory is the home folder; an empty one is TFDS's own."""
    prepared()
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert len(tfds_sets.read("adsq_tiny", f"~/{tmp_path.name}", splits=None)) == 11


# Preparing fails


@pytest.mark.parametrize(
    "error", [ConnectionError("no network\nat all"), OSError(28, "No space left on device"), KeyError("x")]
)
def test_preparation_fails(prepared, tmp_path, monkeypatch, error):
    """An error of TFDS becomes one line with a fix; nothing that is left looks prepared."""
    shutil.rmtree(prepared().data_dir)

    def refuse(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(AdsqTiny, "_split_generators", refuse)
        text = error_of(read, tmp_path)
    assert "adsq_tiny isn't prepared in" in text
    assert type(error).__name__ in text
    assert "tfds build adsq_tiny --file_format=array_record" in text
    assert not list(tmp_path.rglob("dataset_info.json"))
    assert len(read(tmp_path)) == 11


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ConnectionError])
def test_preparation_stops_half_way(prepared, tmp_path, monkeypatch, error):
    """Stopped in the middle of its second split, a preparation leaves nothing; the next one is whole."""
    builder = prepared()
    shutil.rmtree(builder.data_dir)

    def some():
        yield from enumerate(AdsqTiny.EXAMPLES["test"][:2])
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(
            AdsqTiny, "_split_generators", lambda *_: {"train": enumerate(AdsqTiny.EXAMPLES["train"]), "test": some()}
        )
        with pytest.raises((error, InputError)):
            read(tmp_path)
    assert not list(tmp_path.rglob("dataset_info.json"))
    assert_pixels(read(tmp_path), [])
    assert len(read(tmp_path)) == 11


def test_killed_preparation(prepared, tmp_path):
    """The folder that kill -9 leaves, with `incomplete` in its name, doesn't count as prepared."""
    root = Path(prepared().data_dir)
    shutil.move(root, root.parent / "incomplete.ABC123_1.0.0")
    assert len(read(tmp_path)) == 11
    assert (root / "dataset_info.json").exists()


def test_folder_without_its_description(prepared, tmp_path):
    """A folder of the set's name without dataset_info.json isn't prepared: it is prepared, or the error says to remove it."""
    root = Path(prepared().data_dir)
    for path in root.iterdir():
        path.unlink()
    assert refused_or(lambda source: len(source) == 11, read, tmp_path, named=str(root))


def test_damaged_description(prepared, tmp_path):
    """A dataset_info.json that is cut short is an error of one line."""
    info = Path(prepared().data_dir) / "dataset_info.json"
    info.write_text(info.read_text()[:100])
    error_of(read, tmp_path)


def test_missing_records(prepared, tmp_path):
    """Records that were removed are an error of one line."""
    for path in Path(prepared().data_dir).glob("*train*array_record*"):
        path.unlink()
    error_of(read, tmp_path)


# Another format


@pytest.fixture
def tfrecord(prepared):
    """A set that says of itself that it is prepared as tfrecord: its folder."""
    root = Path(prepared().data_dir)
    info = json.loads((root / "dataset_info.json").read_text())
    assert info["fileFormat"] == "array_record"
    (root / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    for path in root.glob("*array_record*"):
        path.rename(root / path.name.replace("array_record", "tfrecord"))
    return root


def command_in(text):
    command = re.search(r"tfds convert_format((?: --\w+=[^\s;,]+)+)", text)
    return dict(flag.split("=", 1) for flag in command[1].replace("--", "").split())


def test_tfrecord(tfrecord, tmp_path):
    """A set that is prepared as tfrecord is recognised; the one command that is told has flags that TFDS has."""
    text = error_of(read, tmp_path)
    assert f"{tfrecord} is prepared as tfrecord" in text
    assert text.count("convert_format") == 1
    flags = command_in(text)
    assert (flags["dataset_version_dir"], flags["out_file_format"]) == (str(tfrecord), "array_record")
    code = (Path(tfds.__file__).parent / "scripts" / "cli" / "convert_format.py").read_text()  # importing it takes TensorFlow
    fields = set(re.findall(r"^  (\w+): ", code.split("class Args")[1].split('"""')[2], re.M))
    assert set(flags) <= fields


def test_tfrecord_converted(tfrecord, tmp_path):
    """If the command has written array_record beside what is there, the same command as before reads it."""
    assert "out_dir" not in command_in(error_of(read, tmp_path))
    for path in tfrecord.glob("*tfrecord*"):
        shutil.copy(path, tfrecord / path.name.replace("tfrecord", "array_record"))
        path.write_bytes(b"not to be read")
    info = json.loads((tfrecord / "dataset_info.json").read_text())
    (tfrecord / "dataset_info.json").write_text(json.dumps({**info, "alternativeFileFormats": ["array_record"]}))
    source = read(tmp_path)
    assert source.labels.ids(np.arange(11)).tolist() == IDS["train"] + IDS["test"]
    assert_pixels(source, range(11))


def test_without_tensorflow(prepared, tmp_path):
    """Nothing of this imports TensorFlow."""
    prepared()
    code = (
        "import sys\n"
        "from adsq_jax.data.readers import tfds_sets\n"
        f"source = tfds_sets.read('adsq_tiny', {str(tmp_path)!r}, splits=None)\n"
        "print(len(source), source[3]['image'][0, 0].tolist(), 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "11 [3, 252, 7] False"


# The benchmarks


def write_picture(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


SYNSETS = ["n01", "n02", "n04"]


def imagenet_pair(prepared, tmp_path, monkeypatch):
    """The same pictures as folders and as TFDS has them: four synsets of which three are chosen, file names by lot."""
    random = np.random.default_rng(1)
    examples = {"train": [], "validation": []}
    content = []
    for split, part, count in (("train", "train", 14), ("validation", "val", 9)):
        for number in random.permutation(100)[:count].tolist():
            synset = ["n04", "n01", "n03", "n02"][number % 4]
            file = f"{synset}_{number}.JPEG" if split == "train" else f"ILSVRC2012_val_{number:08}.JPEG"
            examples[split].append({"label": ["n01", "n02", "n03", "n04"].index(synset), "file_name": file})
            content.append((tmp_path / "folders" / part / synset / file, png(len(content))))
    for path, picture in content:
        write_picture(path, picture)
    features = {"label": tfds.features.ClassLabel(names=["n01", "n02", "n03", "n04"]), "file_name": tfds.features.Text()}
    builder = prepared(features, examples)
    monkeypatch.setattr(imagenet100, "synsets", lambda: SYNSETS)
    monkeypatch.setattr(tfds_sets, "synsets_of_imagenet100", lambda: SYNSETS)
    monkeypatch.setattr(tfds_sets, "read", lambda name, _, *, splits: open_builder(builder, splits))
    return imagenet100.read(tmp_path / "folders"), tfds_sets.imagenet100("")


def assert_same_source(one, other):
    assert one.classes == other.classes
    assert names_of(one) == names_of(other)
    np.testing.assert_array_equal(one.labels[:], other.labels[:])
    for i in range(len(one)):
        assert one.content(i) == other.content(i)
        np.testing.assert_array_equal(one[i]["image"], other[i]["image"])


def hash_of(source, split, name):
    return splits.sha256(split, name=name, labels=source.labels, names=source.names)


def test_imagenet100(prepared, tmp_path, monkeypatch):
    """ImageNet-100 by TFDS has the rows, names, labels, parts and pixels of the folders, and so the hash of each split."""
    folders, by_tfds = imagenet_pair(prepared, tmp_path, monkeypatch)
    assert_same_source(folders, by_tfds)
    assert 3 <= len(by_tfds) < 23
    assert {part: rows.tolist() for part, rows in folders.parts.items()} == {
        part: rows.tolist() for part, rows in by_tfds.parts.items()
    }
    n_train, n_query = len(folders.parts["train"]), len(folders.parts["validation"])
    protocol = protocols.Protocol(n_query, 3, n_train, True, "1000", "by_part")
    for seed in range(3):
        splits = [protocols.by_part(source, protocol, seed=seed) for source in (folders, by_tfds)]
        assert hash_of(folders, splits[0], "imagenet100") == hash_of(by_tfds, splits[1], "imagenet100")


def coco_pair(prepared, tmp_path, monkeypatch):
    """The same pictures as COCO's files and as TFDS has them: ids in no order, some without a label."""
    random = np.random.default_rng(2)
    ids = random.permutation(1000)[:21].tolist()
    categories = [{"id": 2 * k + 1, "name": f"c{k}"} for k in range(80)]
    examples = {"train": [], "validation": []}
    for split, part, chosen in (("train", "train", ids[:13]), ("validation", "val", ids[13:])):
        annotations = []
        for image in chosen:
            shown = [] if image % 5 == 0 else random.integers(0, 80, 3).tolist()
            annotations += [{"image_id": image, "category_id": 2 * k + 1} for k in shown]
            number = len(examples["train"]) + len(examples["validation"])
            examples[split].append(
                {"image/id": image, "image/filename": f"{image}.png", "objects": [{"label": k} for k in shown]}
            )
            write_picture(tmp_path / "coco" / f"{part}2014" / f"{image}.png", png(number))
        content = {
            "images": [{"id": image, "file_name": f"{image}.png"} for image in chosen],
            "annotations": annotations,
            "categories": categories,
        }
        write_picture(tmp_path / "coco" / "annotations" / f"instances_{part}2014.json", json.dumps(content).encode())
    features = {
        "image/id": np.int64,
        "image/filename": tfds.features.Text(),
        "objects": tfds.features.Sequence({"label": tfds.features.ClassLabel(names=[f"c{k}" for k in range(80)])}),
    }
    builder = prepared(features, examples)
    monkeypatch.setattr(tfds_sets, "read", lambda name, _, *, splits: open_builder(builder, splits))
    return coco.read(tmp_path / "coco"), tfds_sets.coco("")


def test_coco(prepared, tmp_path, monkeypatch):
    """COCO by TFDS has the rows, names, labels and pixels of its own files, and so the hash of each split."""
    files, by_tfds = coco_pair(prepared, tmp_path, monkeypatch)
    assert_same_source(files, by_tfds)
    assert 10 < len(files) < 21
    protocol = protocols.Protocol(3, 4, len(files) - 3, True, "5000", "at_random")
    for seed in range(3):
        splits = [protocols.at_random(source, protocol, seed=seed) for source in (files, by_tfds)]
        assert hash_of(files, splits[0], "coco") == hash_of(by_tfds, splits[1], "coco")


def test_benchmarks_ask_for_their_sets(monkeypatch):
    """CIFAR-10 and Fashion-MNIST are TFDS's, training part first."""
    asked = []
    monkeypatch.setattr(tfds_sets, "read", lambda *arguments, **settings: asked.append((*arguments, settings["splits"])))
    for name in ("cifar10", "fashion_mnist"):
        tfds_sets.BENCHMARKS[name]("x")
    assert asked == [("cifar10", "x", ("train", "test")), ("fashion_mnist", "x", ("train", "test"))]


def test_end_to_end(prepared, tmp_path):
    """datasets.load opens a set of TFDS by name and divides all its splits together anew."""
    prepared(None, {"train": [{"label": k % 3} for k in range(20)], "test": [{"label": k % 3} for k in range(10)]})
    data = mock_data.load_config("tfds", "name=adsq_tiny").data
    data.directory, data.query_share = str(tmp_path), 0.2
    dataset = datasets.load(Settings(**{field: data[field] for field in Settings._fields}))
    assert [len(rows) for rows in dataset.split] == [6, 24, 24]
    ids = np.array([k % 3 for k in (*range(20), *range(10))])
    assert datasets.retrieval_labels(dataset)["query"].tolist() == ids[dataset.split.query].tolist()
    np.testing.assert_array_equal(dataset.source[25]["image"][0, 0], [25, 230, 7])


@pytest.mark.parametrize("name", ["", "a b", "../x", "/etc", "huggingface:x", "x:y", "a/../b", "Upper", "x;y"])
def test_what_is_no_name(tmp_path, name):
    """A path, another registry, or anything else that is no name of TFDS's is refused before TFDS sees it."""
    assert f"{name!r} is not the name of a TFDS data set" in error_of(read, tmp_path, name)


def test_code_named_in_a_folder_is_not_run(tmp_path, prepared, monkeypatch):
    """A description that names a class of another package, which TFDS would import, is refused; nothing is imported."""
    root = Path(prepared().data_dir)
    (tmp_path / "adsq_evil.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    description = root / "features.json"
    content = json.loads(description.read_text())
    for key in ("pythonClassName", "type"):
        changed = json.loads(json.dumps(content))
        changed["featuresDict"]["features"]["image"][key] = "adsq_evil.Feature"
        description.write_text(json.dumps(changed))
        text = error_of(read, tmp_path, "adsq_tiny")
        assert f"{description} names 'adsq_evil.Feature'" in text
    assert not (tmp_path / "ran").exists()
    description.write_text(json.dumps(content))
    info = root / "dataset_info.json"
    content = json.loads(info.read_text())
    content["splits"][0]["filepathTemplate"] = "../../x-{SPLIT}"
    info.write_text(json.dumps(content))
    assert "'../../x-{SPLIT}'" in error_of(read, tmp_path, "adsq_tiny")
    info.write_text("{")
    assert "is not the description of a TFDS data set" in error_of(read, tmp_path, "adsq_tiny")


def test_labels_cache_of_other_shapes(tmp_path, prepared):
    """Labels kept beside the records that are too few, with the right key, are read anew."""
    root = Path(prepared().data_dir)
    first = read(tmp_path, "adsq_tiny")
    path = root / "adsq_jax_labels.npz"
    with np.load(path) as kept:
        content = dict(kept)
    np.savez(path, **{**content, "labels": content["labels"][:3]})
    second = read(tmp_path, "adsq_tiny")
    np.testing.assert_array_equal(first.labels[:], second.labels[:])
