"""Pictures to encode: every picture of a folder, list or TFDS set once, under a name that is the same whoever asks."""

import os

import numpy as np
import pytest
from PIL import Image
from support import mock_data

from adsq_jax.data import gallery
from adsq_jax.errors import InputError


def picture(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), shade, np.uint8)).save(path)


def shown(found):
    return [(found.id(row), found.labels(row)) for row in range(len(found))]


def test_a_folder(tmp_path):
    """Pictures at any depth, by path; the label is the first folder; other files, hidden ones and linked folders aren't."""
    for name in ("b/deep/er/1.png", "a/2.JPG", "top.gif", "b/3.webp"):
        picture(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    picture(tmp_path / ".hidden" / "4.png")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = gallery.read(str(tmp_path), directory="")
    wanted = [("a/2.JPG", ("a",)), ("b/3.webp", ("b",)), ("b/deep/er/1.png", ("b",)), ("top.gif", ())]
    assert shown(found) == [(f"{tmp_path}/{name}", labels) for name, labels in wanted]
    assert found.is_folder
    assert found.prefix == f"{tmp_path}/"
    assert found.source.content(3) == (tmp_path / "top.gif").read_bytes()


def test_the_way_to_a_folder_doesnt_matter(tmp_path, monkeypatch):
    """With a slash or without, relative or not: the ids are absolute paths."""
    picture(tmp_path / "a" / "1.png")
    monkeypatch.chdir(tmp_path)
    wanted = shown(gallery.read(str(tmp_path), directory=""))
    assert wanted == [(f"{tmp_path}/a/1.png", ("a",))]
    for way in (f"{tmp_path}/", ".", "./", "a/.."):
        assert shown(gallery.read(way, directory="")) == wanted


def test_a_link_and_the_folder_above_its_target(tmp_path):
    """LINK/../pictures are those beside the link's target, and so are the ids; two slashes at the beginning are one."""
    picture(tmp_path / "pictures" / "a" / "1.png", shade=1)
    picture(tmp_path / "disk" / "pictures" / "a" / "1.png", shade=2)
    (tmp_path / "disk" / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep")
    found = gallery.read(f"{tmp_path}/link/../pictures", directory="")
    wanted = f"{tmp_path}/disk/pictures/a/1.png"
    assert (found.id(0), os.fsdecode(found.source.path(0))) == (wanted, wanted)
    assert found.prefix == f"{tmp_path}/disk/pictures/"
    assert gallery.read(f"/{tmp_path}", directory="").prefix == f"{tmp_path}/"


def test_classes_that_are_links(tmp_path):
    """As in training, folders directly below may be links to other places, even if all are; deeper links aren't followed."""
    picture(tmp_path / "disk" / "a" / "1.png")
    picture(tmp_path / "disk" / "b" / "2.png")
    (tmp_path / "empty").mkdir()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, target in (("x", "disk/a"), ("y", "disk/b"), ("z", "empty"), ("up", "."), ("self", "pictures")):
        (pictures / name).symlink_to(tmp_path / target)
    (tmp_path / "disk" / "a" / "deep").symlink_to(tmp_path / "disk" / "b")
    wanted = [(f"{pictures}/x/1.png", ("x",)), (f"{pictures}/y/2.png", ("y",))]
    assert shown(gallery.read(str(pictures), directory="")) == wanted


def test_one_label_only(tmp_path):
    """A folder in which no picture has a label, and one in which all have the same."""
    picture(tmp_path / "flat" / "1.png")
    assert shown(gallery.read(str(tmp_path / "flat"), directory="")) == [(f"{tmp_path}/flat/1.png", ())]
    assert shown(gallery.read(str(tmp_path), directory="")) == [(f"{tmp_path}/flat/1.png", ("flat",))]


def test_a_list(tmp_path):
    """Paths begin beside the list, or where it is said; classes.txt names the labels."""
    (tmp_path / "mine.txt").write_text("x/1.png 1 1 0\ny/2.png 0 0 0\n")
    found = gallery.read(str(tmp_path / "mine.txt"), directory="")
    assert shown(found) == [(f"{tmp_path}/x/1.png", ("0", "1")), (f"{tmp_path}/y/2.png", ())]
    assert not found.is_folder
    (tmp_path / "classes.txt").write_text("cat\npolar bear\ndog\n")
    found = gallery.read(str(tmp_path / "mine.txt"), directory="/other")
    assert shown(found) == [("/other/x/1.png", ("cat", "polar bear")), ("/other/y/2.png", ())]


def test_a_list_of_paths_alone(tmp_path):
    """Without labels; the paths may begin with the folder that they are in, and with nothing else."""
    for lines in ("x/1.png\ny 1 0/2 1.JPG\n", f"\ufeff{tmp_path}/x/1.png\r\n./y 1 0/2 1.JPG"):
        (tmp_path / "mine.txt").write_text(lines)
        found = gallery.read(str(tmp_path / "mine.txt"), directory="")
        assert shown(found) == [(f"{tmp_path}/x/1.png", ()), (f"{tmp_path}/y 1 0/2 1.JPG", ())]
        assert not found.is_folder
    (tmp_path / "mine.txt").write_text("/other/1.png\n")
    assert shown(gallery.read(str(tmp_path / "mine.txt"), directory="/other")) == [("/other/1.png", ())]
    assert shown(gallery.read(str(tmp_path / "mine.txt"), directory="/")) == [("/other/1.png", ())]
    for lines, said in (
        ("/other/1.png", "line 1: '/other/1.png' leads out of the images' folder"),
        ("a.png\n../1.png", r"line 2: '\.\./1\.png' leads out"),
        ("a.png\nb.png\na.png", "line 3: 'a.png' is in line 1 already"),
        ("a.png\n\nb.png", "line 2: '' is not a file"),
    ):
        (tmp_path / "mine.txt").write_text(lines)
        with pytest.raises(InputError, match=said):
            gallery.read(str(tmp_path / "mine.txt"), directory="")


def test_one_picture(tmp_path):
    """A picture alone has no label, and is the only one of its folder."""
    for name in ("1.PNG", "2.png"):
        picture(tmp_path / "a" / name)
    found = gallery.read(str(tmp_path / "a" / "1.PNG"), directory="")
    assert shown(found) == [(f"{tmp_path}/a/1.PNG", ())]
    assert not found.is_folder
    assert found.source.content(0) == (tmp_path / "a" / "1.PNG").read_bytes()
    with pytest.raises(InputError, match=r"goes with a list or TFDS, and --images=.*1\.PNG is a picture"):
        gallery.read(str(tmp_path / "a" / "1.PNG"), directory="/other")


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ([], ["a/1.png", "a/drafts/2.png", "b/3.gif"]),
        (["*/drafts/*"], ["a/1.png", "b/3.gif"]),
        (["*.gif", "a/1.png"], ["a/drafts/2.png"]),
        (["{root}/a/*"], ["b/3.gif"]),
        (["?/?.png"], ["a/drafts/2.png", "b/3.gif"]),
    ],
)
def test_pictures_that_are_excluded(tmp_path, patterns, left):
    """By their path below the folder, or the whole; the others keep their labels and contents."""
    for shade, name in enumerate(("a/1.png", "a/drafts/2.png", "b/3.gif")):
        picture(tmp_path / name, shade=shade)
    given = gallery.read(str(tmp_path), directory="")
    found = gallery.without(given, [pattern.format(root=tmp_path) for pattern in patterns])
    assert shown(found) == [(f"{tmp_path}/{name}", (name[0],)) for name in left]
    assert [found.source.content(row) for row in range(len(found))] == [(tmp_path / name).read_bytes() for name in left]
    assert found.is_folder


def test_exclusions_that_are_refused(tmp_path):
    """What matches nothing is a mistake, and so is what leaves nothing."""
    picture(tmp_path / "a" / "1.png")
    (tmp_path / "mine.txt").write_text("x/1.png 1 1 0\ny/2.png 0 0 1\n")
    given = gallery.read(str(tmp_path / "a"), directory="")
    for pattern, said in (("*.gif", r"--exclude=\*\.gif matches none of the 1 images"), ("*", "leaves none of the 1 images")):
        with pytest.raises(InputError, match=said):
            gallery.without(given, [pattern])
    with pytest.raises(InputError, match="--exclude goes with files, and records of TFDS have no paths"):
        gallery.without(gallery.Gallery(given.source, "tfds:a#", is_folder=False), ["*"])
    several = gallery.without(gallery.read(str(tmp_path / "mine.txt"), directory=""), ["y/*"])
    assert shown(several) == [(f"{tmp_path}/x/1.png", ("0", "1"))]


def test_a_list_in_the_wrong_folder(tmp_path):
    """If no picture of a list is there, the number and the first ones are told; one that is there is enough."""
    lines = "".join(f"{k // 100}/{k}.png 1 0\n" for k in range(20_000))
    (tmp_path / "mine.txt").write_text(lines)
    found = gallery.read(str(tmp_path / "mine.txt"), directory="")
    message = f"none of the 20,000 images of the list is there, the first are {tmp_path}/0/0.png, {tmp_path}/0/1.png, "
    with pytest.raises(InputError, match=message):
        gallery.check_present(found)
    picture(tmp_path / "199" / "19999.png")
    gallery.check_present(found)


def test_tfds(monkeypatch):
    """Names say set, split and row; the reader is asked for that split."""
    asked = []

    def read(name, directory, *, splits):
        asked.append((name, directory, splits))
        return mock_data.dataset().source

    monkeypatch.setattr("adsq_jax.data.readers.tfds_sets.read", read)
    found = gallery.read("tfds:cifar10@test", directory="/data")
    assert found.id(7) == "tfds:cifar10@test#7"
    assert found.labels(7) == ("2",)
    assert gallery.read("tfds:coco/2014", directory="").id(0) == "tfds:coco/2014#0"
    assert asked == [("cifar10", "/data", ["test"]), ("coco/2014", "", None)]


def test_in_an_object_store(tmp_path, bucket):
    picture(tmp_path / "a" / "1.png")
    mock_data.upload(tmp_path, f"{bucket}/pictures")
    for place in (f"{bucket}/pictures", f"{bucket}/pictures/"):
        assert shown(gallery.read(place, directory="")) == [(f"{bucket}/pictures/a/1.png", ("a",))]


@pytest.mark.parametrize(
    ("images", "directory", "said"),
    [
        ("", "", "--images is empty"),
        ("nowhere", "", "--images=nowhere isn't there"),
        ("empty", "", "holds no picture"),
        ("empty", "/data", "needs a list file or TFDS"),
        ("list.txt", "", "line 1"),
        ("tfds:", "", "is not the name of a TFDS data set"),
        ("ftp://host/x", "", "expected a path of this machine"),
    ],
)
def test_what_cannot_be_read(tmp_path, monkeypatch, images, directory, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("no labels here\n")
    with pytest.raises(InputError, match=said) as raised:
        gallery.read(images, directory=directory)
    assert "\n" not in str(raised.value)


def test_names_that_are_no_text(tmp_path):
    """A name of a file that isn't UTF-8 doesn't stand in the way of the others; its id has what os.fsdecode makes of it."""
    picture(tmp_path / "1.png")
    os.link(os.fsencode(tmp_path / "1.png"), os.fsencode(tmp_path) + b"/\xff.png")
    found = gallery.read(str(tmp_path), directory="")
    assert [os.fsencode(found.id(row)) for row in range(2)] == [
        os.fsencode(tmp_path) + name for name in (b"/1.png", b"/\xff.png")
    ]
