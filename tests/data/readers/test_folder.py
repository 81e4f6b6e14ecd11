"""One folder a class: which files are pictures of which class, in which order, and what each kind of mistake says."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import mock_data

from adsq_jax import storage
from adsq_jax.data import picture_formats
from adsq_jax.data.readers import folder
from adsq_jax.errors import InputError

COLOURS = {"cat": (250, 10, 20), "dog": (5, 240, 30), "zebra": (90, 90, 200)}


def picture(path, colour=(9, 8, 7), size=(6, 4)):
    """Writes a picture of one colour, in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def directory(tmp_path):
    """Three classes of one or two pictures."""
    for name, colour in COLOURS.items():
        picture(tmp_path / name / "b.png", colour)
    picture(tmp_path / "dog" / "a.png", (1, 2, 3))
    return tmp_path


def error_of(directory):
    with pytest.raises(InputError) as caught:
        folder.read(directory)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def names_of(source):
    return [source.names[i] for i in range(len(source))]


def test_classes_files_and_pixels(directory):
    """Classes are sorted by name and pictures by path; each has the label of its folder, and the pixels that were written."""
    source = folder.read(directory)
    assert source.classes == ("cat", "dog", "zebra")
    assert names_of(source) == ["cat/b.png", "dog/a.png", "dog/b.png", "zebra/b.png"]
    np.testing.assert_array_equal(source.labels.ids(np.arange(4)), [0, 1, 1, 2])
    for i, colour in enumerate([COLOURS["cat"], (1, 2, 3), COLOURS["dog"], COLOURS["zebra"]]):
        np.testing.assert_array_equal(source[i]["image"], np.full((4, 6, 3), colour, np.uint8))
    assert len(source.missing(np.arange(4))) == 0
    assert source.notes == {}


def test_extensions_are_those_that_can_be_decoded(tmp_path):
    """The list is Pillow's for the formats that are decoded, but for PFM, whose floats have no agreed range."""
    Image.init()
    pillow_heif.register_heif_opener()
    kinds = (*picture_formats.READ, "MPO", "HEIF")
    known = {extension for extension, kind in Image.EXTENSION.items() if kind in kinds}
    assert set(folder.EXTENSIONS) == known - {".pfm"}
    assert list(folder.EXTENSIONS) == sorted(folder.EXTENSIONS)


@pytest.mark.parametrize("extension", folder.EXTENSIONS)
def test_every_extension(tmp_path, extension):
    """A picture of each extension is found in small and in capital letters, and decoded."""
    mode = {".pbm": "1", ".pgm": "L"}.get(extension, "RGB")
    Image.new(mode, (6, 4), "white").save(tmp_path / f"a{extension}")
    content = (tmp_path / f"a{extension}").read_bytes()
    (tmp_path / f"a{extension}").unlink()
    for name, file in (("one", f"a{extension}"), ("two", f"a{extension.upper()}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(content)
    source = folder.read(tmp_path)
    assert names_of(source) == [f"one/a{extension}", f"two/a{extension.upper()}"]
    for i in range(2):
        assert source[i]["image"].shape == (4, 6, 3)
        assert source[i]["image"].min() >= 253


def test_subfolders_belong_to_the_class(directory):
    """Pictures at any depth are of the class at the top, sorted by their whole paths."""
    for path in ("cat/x/y/c.png", "cat/x/a.png", "cat/a.png", "cat/x-1.png"):
        picture(directory / path)
    source = folder.read(directory)
    wanted = sorted(path.relative_to(directory).as_posix() for path in (directory / "cat").rglob("*.png"))
    assert wanted == ["cat/a.png", "cat/b.png", "cat/x-1.png", "cat/x/a.png", "cat/x/y/c.png"]
    assert names_of(source)[:5] == wanted
    np.testing.assert_array_equal(source.labels.per_class(), [5, 2, 1])


def test_what_is_left_out(directory):
    """Hidden files and folders go without a word; folders of systems, and files by their endings, are counted."""
    for path in (".git/a.png", "cat/.hidden.png", "cat/.hidden/a.png"):
        picture(directory / path)
    for path in (".DS_Store", "cat/.DS_Store"):
        (directory / path).touch()
    assert folder.read(directory).notes == {}
    for path in ("cat/@eaDir/a.png/x.jpg", "cat/x/#recycle/b.png", "dog/$RECYCLE.BIN/b.png", "cat/__MACOSX/b.png"):
        picture(directory / path)
    for path in ("cat/1.2.840.10008", "dog/x.verylongending", "cat/notes.txt", "cat/a.JXL", "cat/x/b.jxl", "dog/png"):
        (directory / path).touch()
    (directory / "README.txt").touch()
    picture(directory / "loose.png")
    source = folder.read(directory)
    assert len(source) == 4
    odd = {
        "files of other kinds, not read": 2,
        "files .txt, not read": 1,
        "files .jxl, not read": 2,
        "files without an ending, not read": 1,
    }
    system = {"folders of thumbnails or deleted files, passed over": 4}
    assert source.notes == {**odd, **system, "files beside the class folders": 2}
    assert folder.read_all(directory).notes == {**odd, **system, "files .txt, not read": 2}


def test_links(directory, tmp_path_factory):
    """A class folder and a picture may be links; a link to a folder below a class isn't followed, and is counted."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    picture(elsewhere / "a.png", (7, 7, 7))
    (directory / "linked").symlink_to(elsewhere)
    (directory / "dog" / "c.png").symlink_to(elsewhere / "a.png")
    (directory / "cat" / "loop").symlink_to(directory / "cat")
    source = folder.read(directory)
    assert names_of(source) == ["cat/b.png", "dog/a.png", "dog/b.png", "dog/c.png", "linked/a.png", "zebra/b.png"]
    assert source.notes == {"links to folders, not followed": 1}
    for i in (3, 4):
        np.testing.assert_array_equal(source[i]["image"], np.full((4, 6, 3), 7))


@given(
    paths=st.sets(
        st.tuples(st.sampled_from("abc"), st.lists(st.text("xyzé ßB_-.", min_size=1, max_size=4), min_size=1, max_size=3)).map(
            lambda path: "/".join((path[0], *(f"_{part}" for part in path[1]))) + ".png"
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_names(tmp_path_factory, paths):
    """Whatever the names: all files that were written are found, each once, classes by name, files by their bytes."""
    directory = tmp_path_factory.mktemp("any")
    for path in {*paths, "a/p.png", "b/p.png"}:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).touch()
    source = folder.read(directory)
    wanted = [path.relative_to(directory).as_posix() for path in directory.rglob("*.png") if path.is_file()]
    assert names_of(source) == sorted(wanted, key=lambda path: (path[0], path.encode()))
    labels = source.labels.ids(np.arange(len(source)))
    assert [source.classes[k] for k in labels] == [name[0] for name in names_of(source)]


def test_names_that_are_no_utf8(directory):
    """Files and folders named in another encoding are read; the class's name shows the odd byte."""
    odd = os.fsencode(directory) + b"/caf\xe9"
    os.mkdir(odd)
    content = io.BytesIO()
    Image.new("RGB", (6, 4), (4, 5, 6)).save(content, "PNG")
    with open(odd + b"/\xe9.png", "wb") as file:
        file.write(content.getvalue())
    source = folder.read(directory)
    assert source.classes == ("caf\\xe9", "cat", "dog", "zebra")
    assert source.names.raw(0) == b"caf\xe9/\xe9.png"
    np.testing.assert_array_equal(source[0]["image"], np.full((4, 6, 3), (4, 5, 6)))
    assert len(source.missing(np.arange(len(source)))) == 0


def test_no_directory(tmp_path):
    """A folder that isn't there, or is a file, is named."""
    text = error_of(tmp_path / "none")
    assert f"{tmp_path / 'none'} can't be read as a folder (No such file or directory)" in text
    assert "--config.data.directory" in text
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'} can't be read as a folder (Not a directory)" in error_of(tmp_path / "file")


def test_pictures_without_class_folders(tmp_path):
    """Pictures beside one another, without folders, have no classes."""
    for k in range(3):
        picture(tmp_path / f"{k}.png")
    text = error_of(tmp_path)
    assert f"{tmp_path} holds no class folder (and 3 other entries)" in text
    assert (
        "expected DIRECTORY/CLASS/PICTURE, one folder per class, and at least two; fix: sort the pictures into folders" in text
    )


def test_one_class(tmp_path):
    """One class can't be told from anything."""
    picture(tmp_path / "cat" / "a.png")
    text = error_of(tmp_path)
    assert f"{tmp_path} holds one class folder, cat: expected" in text
    assert "at least two" in text


# A split


def split(directory, **parts):
    """Writes the classes of each part, one picture each."""
    for part, classes in parts.items():
        for name in classes:
            picture(directory / part / name / "a.png")
    return directory


@pytest.mark.parametrize(
    "parts",
    [
        {"train": ["cat", "dog"], "val": ["cat", "dog"], "test": ["cat", "dog", "emu"]},
        {"Training": ["cat", "dog", "emu"], "testing": ["dog", "cat"], "gallery": ["x"]},
        {"train": ["cat"], "valid": ["cat"]},
    ],
)
def test_class_folders_that_are_a_split(tmp_path, parts):
    """Parts with the same classes are no classes: one line says which reader takes them."""
    text = error_of(split(tmp_path, **parts))
    assert f"holds the folders {', '.join(sorted(parts))}, and the same folders in them" in text
    assert "fix: --config.data.reader=split_folders" in text


@pytest.mark.parametrize(
    "parts",
    [
        {"train": ["cat", "dog"], "bus": ["cat", "dog"]},
        {"train": ["cat", "old"], "test": ["dog", "old"]},
        {"query": ["."], "database": ["."]},
    ],
)
def test_class_folders_that_are_no_split(tmp_path, parts):
    """Another name, folders that differ, or none in them: the folders are classes as before."""
    assert folder.read(split(tmp_path, **parts)).classes == tuple(sorted(parts))


@pytest.mark.parametrize("stored", [False, True])
def test_a_split_in_folders(tmp_path, request, stored):
    """Each part's pictures have the classes of their folders; gallery is in the database, and val isn't read beside test."""
    parts = {"Train": ["cat", "dog"], "gallery": ["dog", "emu"], "query": ["cat"], "test": ["dog", "emu"], "val": ["cat"]}
    split(tmp_path, **parts)
    (tmp_path / "test" / "list.txt").touch()
    directory = mock_data.upload(tmp_path, f"{request.getfixturevalue('bucket')}/p") if stored else tmp_path
    source = folder.read_split(directory)
    names = ["Train/cat/a.png", "Train/dog/a.png", "gallery/dog/a.png", "gallery/emu/a.png", "test/dog/a.png", "test/emu/a.png"]
    assert names_of(source) == names
    assert source.classes == ("cat", "dog", "emu")
    assert source.labels.ids(np.arange(6)).tolist() == [0, 1, 1, 2, 1, 2]
    rows = {part: rows.tolist() for part, rows in source.parts.items()}
    assert rows == {"query": [4, 5], "train": [0, 1], "database": [0, 1, 2, 3]}
    assert source.notes == {"files beside the class folders": 1, "folders that are not in the split, not read": 2}


@pytest.mark.parametrize(("parts", "query"), [(("query", "val"), "query"), (("Validation",), "Validation")])
def test_queries_without_test(tmp_path, parts, query):
    """Without test, query has the queries, else val."""
    source = folder.read_split(split(tmp_path, training=["cat"], **{part: ["cat"] for part in parts}))
    assert [source.name(row) for row in source.parts["query"]] == [f"{query}/cat/a.png"]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"cat": ["x"], "train": ["x"]}, r"expected the folders train and test, query or val in .*, got cat, train; fix: "),
        ({"test": ["x"]}, "got test; fix: "),
        ({"train": ["x"], "test": ["."]}, r"test holds no class folder; fix: sort its pictures into .*test/CLASS/"),
        ({"train": ["x"], "test": ["x", "y"]}, "has queries of class y, and no such folder in train, so nothing"),
    ],
)
def test_faults_of_a_split_in_folders(tmp_path, parts, said):
    """A part that is missing, one without classes, and queries for which nothing can be found: one line each."""
    with pytest.raises(InputError, match=said) as caught:
        folder.read_split(split(tmp_path, **parts))
    assert len(str(caught.value).splitlines()) == 1


def test_class_without_a_picture(directory):
    """A class folder without a picture is named, with what counts as a picture."""
    (directory / "emu").mkdir()
    (directory / "emu" / "a.txt").touch()
    text = error_of(directory)
    assert f"{directory / 'emu'} holds no picture; fix: " in text
    assert ".jpeg" in text
    assert "add pictures" in text


@pytest.mark.parametrize("name", ["cat/a\nb.png", "e\nmu/a.png", "cat/x\ry/a.png"])
def test_line_end_in_a_name(directory, name):
    """A name with a line end is shown on one line, and refused."""
    picture(directory / name)
    text = error_of(directory)
    shown = name.replace("\n", "\\n").replace("\r", "\\r")
    assert f"{directory / shown} has a line end in its name; fix: rename it" in text


def test_unreadable_folder(directory, monkeypatch):
    """A folder below a class that can't be listed is an error, not a gap."""
    (directory / "cat" / "locked").mkdir()
    scandir = os.scandir

    def denied(path):
        if os.fsencode(path).endswith(b"locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    text = error_of(directory)
    assert f"{directory / 'cat' / 'locked'} can't be read as a folder (Permission denied)" in text
    assert "change its permissions" in text


def test_a_file_that_goes_away(directory):
    """A file removed after the folder was read is missing; reading it raises an error with its name."""
    source = folder.read(directory)
    (directory / "dog" / "a.png").unlink()
    np.testing.assert_array_equal(source.missing(np.arange(4)), [1])
    with pytest.raises(InputError, match=r"dog/a\.png is missing"):
        source[1]


def test_relative_directory(directory, monkeypatch):
    """A directory given relative to the working directory gives the same names and pixels."""
    monkeypatch.chdir(directory)
    source = folder.read(Path("."))
    assert names_of(source) == names_of(folder.read(directory))
    assert source[0]["image"].shape == (4, 6, 3)


def test_a_folder_of_a_store(directory, bucket):
    """The same pictures in an object store: classes, names, labels, pixels, notes and what is passed over."""
    picture(directory / "dog" / "below" / "deep~" / "ä b.PNG")
    picture(directory / "dog" / ".hidden" / "a.png")
    picture(directory / ".git" / "a.png")
    picture(directory / "cat" / "__MACOSX" / "a.png")
    picture(directory / "cat" / "x" / "@eaDir" / "b" / "__MACOSX" / "a.png")
    for name in ("readme.txt", ".DS_Store", "cat/notes.txt", "cat/.DS_Store"):
        (directory / name).write_text("x")
    there = folder.read(mock_data.upload(directory, f"{bucket}/a/pictures"))
    mock_data.assert_same(folder.read(directory), there)
    assert there.location(0) == f"{bucket}/a/pictures/cat/b.png"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.png": b"1"}, r"holds no class folder \(and 1 other entries\)"),
        ({"cat/a.png": b"1"}, "holds one class folder, cat"),
        ({"cat/a.png": b"1", "dog/a.txt": b"1"}, "s3://.*/pictures/dog holds no picture"),
    ],
)
def test_faults_of_a_folder_of_a_store(bucket, files, said):
    """The same faults as on a disk, in one line."""
    directory = storage.path(f"{bucket}/pictures")
    for name, content in files.items():
        storage.write(directory / name, content)
    assert re.search(said, error_of(directory))
