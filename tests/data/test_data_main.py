"""`adsq data` as people use it: what it writes, what it compares, and what it refuses."""

import contextlib
import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import mock_data

from adsq_jax import storage
from adsq_jax.data import __main__ as data_main
from adsq_jax.data import datasets
from adsq_jax.data.datasets import Settings
from adsq_jax.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")  # of ml_collections, when it reads a config file
Called = namedtuple("Called", ["status", "printed", "error"])
ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data" / "nuswide_21"


def run(*arguments):
    """Call the command: its exit status, what it prints, and the text of its error."""
    arguments = [str(argument).replace("--config=configs/", f"--config={ROOT}/configs/") for argument in arguments]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            data_main.main(arguments)
        except InputError as error:
            return Called(2, printed.getvalue(), str(error))
    return Called(0, printed.getvalue(), "")


def start(*arguments, **environment):
    """The same in a process of its own."""
    command = [sys.executable, "-m", "adsq_jax.data", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=environment)


def refused(*arguments):
    """Return the error, which is one line."""
    called = run(*arguments)
    assert called.status == 2
    assert len(called.error.splitlines()) == 1, called.error
    return called.error


def accepted(*arguments):
    called = run(*arguments)
    assert called.status == 0, called.error
    return called.printed


def picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (value, 255 - value, 40)).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures of a cat and eighteen of a dog, and the flags that open them."""
    for k in range(30):
        picture(tmp_path / "pictures" / ("cat" if k < 12 else "dog") / f"{k:02}.png", 8 * k)
    return tmp_path / "pictures"


def flags_of(pictures, *more):
    return ("--config=configs/folder.py", f"--config.data.directory={pictures}", *more)


def dataset(pictures, **changes):
    data = mock_data.load_config("folder").data
    settings = Settings(**{**{field: data[field] for field in Settings._fields}, "directory": str(pictures), **changes})
    return datasets.load(settings)


def files(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.iterdir())}


def test_out_again_and_another_split(pictures, tmp_path):
    """Manifest and contact sheet are written and told of; again is fine; another split is refused, and nothing is touched."""
    out = tmp_path / "new" / "out"
    done = start(*flags_of(pictures, f"--out={out}"))
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout
    content = json.loads((out / "manifest.json").read_text())
    loaded = dataset(pictures)
    assert content["split_sha256"] == loaded.split_sha256
    assert [content[f"n_{part}"] for part in loaded.split._fields] == [len(rows) for rows in loaded.split] == [3, 27, 27]
    assert content["counts"] == {"cat": count(loaded, 0, 12), "dog": count(loaded, 12, 30)}
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.png", "manifest.json"]
    for text in (loaded.split_sha256[:12], "3 / 27 / 27", str(out / "manifest.json"), "cat"):
        assert text in told
    before = files(out)
    assert accepted(*flags_of(pictures, f"--out={out}")) == told
    assert {name: content for name, (_, content) in files(out).items()} == {
        name: content for name, (_, content) in before.items()
    }
    before = files(out)
    text = refused(*flags_of(pictures, f"--out={out}", "--config.data.split_seed=7"))
    assert f"{out / 'manifest.json'} is of another split" in text
    assert "split_seed is 0 there and 7 here" in text
    assert files(out) == before


def count(loaded, first, end):
    return {part: sum(first <= row < end for row in rows.tolist()) for part, rows in loaded.split._asdict().items()}


def test_verify(pictures, tmp_path):
    """The same data are the same; another image, seed or label is told of; nothing is written."""
    out = tmp_path / "out"
    accepted(*flags_of(pictures, f"--out={out}"))
    path, before = out / "manifest.json", files(out)
    told = accepted(*flags_of(pictures, f"--verify={path}"))
    assert f"the same split as {path} and the same images" in told
    assert "images were not compared" in accepted(*flags_of(pictures, f"--verify={path}", "--noread_images"))
    text = refused(*flags_of(pictures, f"--verify={path}", "--config.data.split_seed=3"))
    assert "split_seed is 0 there and 3 here" in text
    picture(pictures / "cat" / "03.png", 201)
    assert "the content of some images differs" in refused(*flags_of(pictures, f"--verify={path}"))
    assert f"the same split as {path}" in accepted(*flags_of(pictures, f"--verify={path}", "--noread_images"))
    (pictures / "cat" / "11.png").rename(pictures / "dog" / "11.png")
    assert f"the split differs from {path}" in refused(*flags_of(pictures, f"--verify={path}"))
    assert files(out) == before


def test_verify_names(pictures, tmp_path):
    """Files of other names, of as many images and equal labels, are another split."""
    out = tmp_path / "out"
    accepted(*flags_of(pictures, f"--out={out}"))
    (pictures / "cat" / "11.png").rename(pictures / "cat" / "11x.png")
    assert "labels, names, or order of the images differ" in refused(*flags_of(pictures, f"--verify={out / 'manifest.json'}"))


@pytest.fixture
def damaged(pictures):
    """The same with three bad images: one is cut short, one is empty, and one is text."""
    cut, empty, text = (pictures / "cat" / "05.png", pictures / "dog" / "20.png", pictures / "dog" / "25.png")
    cut.write_bytes(cut.read_bytes()[:-30])
    empty.write_bytes(b"")
    text.write_text("no picture")
    return pictures, (cut, empty, text)


def test_bad_images(damaged, tmp_path):
    """Bad images are told, and nothing is written; with skip the manifest names them, and a data set loads without them."""
    pictures, bad = damaged
    out = tmp_path / "out"
    done = run(*flags_of(pictures, f"--out={out}"))
    assert done.status == 2
    assert "3 of 30 images can't be used" in done.error
    assert not out.exists()
    for path in bad:
        assert f"bad image: {path}" in done.printed
    skip = "--config.data.on_bad_image=skip"
    text = refused(*flags_of(pictures, f"--out={out}", skip))
    assert "3 of 30 images can't be used, more than the share config.data.most_bad=0.01" in text
    assert not out.exists()
    told = accepted(*flags_of(pictures, f"--out={out}", skip, "--config.data.most_bad=0.1"))
    assert "3, 3 left out" in told
    content = json.loads((out / "manifest.json").read_text())
    assert [entry["name"] for entry in content["bad_images"]] == ["cat/05.png", "dog/20.png", "dog/25.png"]
    assert content["n_skipped"] == 3
    loaded = dataset(pictures, on_bad_image="skip", most_bad=0.1, manifest=str(out / "manifest.json"))
    assert loaded.split_sha256 == content["split_sha256"]
    assert not np.isin([5, 20, 25], datasets.used_rows(loaded.split)).any()
    for row in datasets.used_rows(loaded.split).tolist():
        assert loaded.source[row]["image"].shape == (7, 9, 3)
    verified = accepted(*flags_of(pictures, f"--verify={out / 'manifest.json'}", skip, "--config.data.most_bad=0.1"))
    assert "the same split" in verified
    with pytest.raises(InputError, match="--verify="):
        dataset(pictures, manifest=str(out / "manifest.json"))


def test_without_reading_images(damaged, tmp_path):
    """--noread_images trusts what is there, says so, and doesn't go with skip; a missing image of a list is found still."""
    pictures, _ = damaged
    told = accepted(*flags_of(pictures, f"--out={tmp_path / 'out'}", "--noread_images"))
    assert "not read" in told
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (content["images_sha256"], content["same_bytes"], content["bad_images"]) == (None, None, [])
    text = refused(*flags_of(pictures, f"--out={tmp_path / 'b'}", "--noread_images", "--config.data.on_bad_image=skip"))
    assert "--noread_images doesn't find" in text


def test_missing_image_of_a_list(tmp_path):
    """An image that a list names and that isn't there is told, with and without reading."""
    (tmp_path / "lists").mkdir()
    for part, rows in (("query", (0, 1)), ("train", (2, 3)), ("database", (2, 3, 4))):
        (tmp_path / "lists" / f"{part}.txt").write_text("".join(f"{k}.png {k % 2} {1 - k % 2}\n" for k in rows))
    for k in (0, 1, 2, 4):
        picture(tmp_path / "images" / f"{k}.png", k)
    flags = (f"--config.data.directory={tmp_path / 'images'}", f"--config.data.lists={tmp_path / 'lists'}")
    for more in ((), ("--noread_images",)):
        text = refused("--config=configs/lists.py", *flags, f"--out={tmp_path / 'out'}", *more)
        assert "1 images are missing" in text or "1 of 5 images can't be used" in text
        elsewhere = (f"--config.data.directory={tmp_path / 'lists'}", flags[1])  # all are missing: told before any is read
        text = refused("--config=configs/lists.py", *elsewhere, f"--out={tmp_path / 'out'}", *more)
        assert f"5 images are missing, the first is {tmp_path / 'lists' / '2.png'}" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--config=configs/digits.py",),
        ("--out=OUT",),
        ("--config=configs/digits.py", "--out=OUT", "--verify=OUT"),
        ("--config=configs/digits.py", "--out="),
    ],
)
def test_flags_that_are_missing(arguments, tmp_path):
    """Without a config, or with both or none of --out and --verify, one line says what to give."""
    text = refused(*(argument.replace("OUT", str(tmp_path / "out")) for argument in arguments))
    assert "--config=FILE.py, and --out=DIR to write a manifest or --verify=FILE" in text
    assert not (tmp_path / "out").exists()


def test_out_and_verify_that_can_not_be(tmp_path):
    """--out that is a file or below one, --verify that isn't there or is no manifest, are refused, each in one line."""
    file = tmp_path / "file"
    file.write_text("{}")
    digits = "--config=configs/digits.py"
    assert f"--out={file} is not a folder" in refused(digits, f"--out={file}")
    assert "can't be written" in refused(digits, f"--out={file / 'x'}", "--noread_images")
    assert f"{file} is not a manifest" in refused(digits, f"--verify={file}")
    assert "is not a file" in refused(digits, f"--verify={tmp_path / 'none'}")
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("{}")
    assert f"{out / 'manifest.json'} is not a manifest" in refused(digits, f"--out={out}", "--noread_images")
    assert file.read_text() == "{}"


def test_names_in_a_terminal_of_another_encoding(tmp_path):
    """Accents are told as escapes where the terminal has none; control characters never reach it."""
    for k, name in enumerate(["\u00e9t\u00e9", "e\x1b[31mred"] * 3):
        picture(tmp_path / "pictures" / name / f"{k}.png", 8 * k)
    done = start(*flags_of(tmp_path / "pictures", f"--out={tmp_path / 'out'}"), LC_ALL="C", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\xe9t\\xe9" in done.stdout
    assert "e\\x1b[31mred" in done.stdout
    assert "\x1b" not in done.stdout


def test_what_would_be_lost_or_become_data_is_refused_before_the_work(pictures, tmp_path):
    """A manifest that isn't read, a sheet of others, a folder below the pictures, a pipe as manifest: each is one line."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "contact_sheet.png").write_bytes(b"mine")
    assert "is there without a manifest" in refused(*flags_of(pictures, f"--out={out}"))
    assert (out / "contact_sheet.png").read_bytes() == b"mine"
    assert "would become a class" in refused(*flags_of(pictures, f"--out={pictures / 'check'}"))
    assert not (pictures / "check").exists()
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in refused(*flags_of(pictures, f"--verify={tmp_path / 'pipe'}"))
    accepted(*flags_of(pictures, f"--out={tmp_path / 'known'}"))
    before = files(tmp_path / "known")
    assert "were not read now" in refused(*flags_of(pictures, "--noread_images", f"--out={tmp_path / 'known'}"))
    assert files(tmp_path / "known") == before


def test_small_classes(pictures, tmp_path, capsys):
    """A class of one picture is an error that names the key; with it, the check tells the class and counts it."""
    picture(pictures / "fox" / "00.png", 3)
    flags = flags_of(pictures, f"--out={tmp_path / 'out'}")
    assert "fox (1); fix: " in refused(*flags)
    printed = accepted(*flags, "--config.data.small_classes=database")
    assert re.search("classes too small to split, without queries +1\n", printed)
    assert "1 of 3 classes is too small to split: fox (1); their images are" in capsys.readouterr().err


def test_the_home(pictures, tmp_path, monkeypatch):
    """`~` is the home in a config's path, in its keys and in flags; a folder below the pictures is refused as well."""
    (tmp_path / "my.py").write_text((ROOT / "configs" / "folder.py").read_text())
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    flags = [flag.replace(str(tmp_path), "~") for flag in flags_of(pictures)]
    config = ["--config=~/my.py" if flag.startswith("--config=") else flag for flag in flags]
    accepted(*config, "--out=~/out")
    accepted(*config, "--verify=~/out/manifest.json")
    assert "would become a class" in refused(*config, "--out=~/pictures/check")
    assert not list((tmp_path / "here").iterdir())


def test_many_bad_images(pictures, tmp_path):
    """Ten bad images are told, and how many more there are; the manifest of `skip` names them all."""
    for k in range(12, 25):
        (pictures / "dog" / f"{k}.png").write_bytes(b"")
    done = run(*flags_of(pictures, f"--out={tmp_path / 'out'}"))
    assert (done.status, done.printed.count("bad image: "), "and 3 more" in done.printed) == (2, 10, True)
    assert "13 of 30 images can't be used" in done.error
    skip = ("--config.data.on_bad_image=skip", "--config.data.most_bad=0.5")
    accepted(*flags_of(pictures, *skip, f"--out={tmp_path / 'out'}"))
    assert len(json.loads((tmp_path / "out" / "manifest.json").read_text())["bad_images"]) == 13
    text = refused(*flags_of(pictures, f"--verify={tmp_path / 'out' / 'manifest.json'}"))
    assert "13 images were left out there and 0 here" in text
    assert "--config.data.on_bad_image" in text


def test_nus_wide_lists_with_pictures(tmp_path):
    """The real query and training lists of 21 concepts, with generated pictures: read, checked, counted, and agreed on."""
    lists = {name: gzip.decompress((DATA / f"{name}.txt.gz").read_bytes()).decode() for name in ("query", "train")}
    unseen = [f"images/unseen_{k:04}.jpg " + " ".join(str(int(j == k % 21)) for j in range(21)) for k in range(210)]
    lists["database"] = lists["train"].rstrip("\n") + "\n" + "\n".join(unseen) + "\n"
    (tmp_path / "images").mkdir()
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text)
    lines = {line.split()[0]: line.split()[1:] for text in lists.values() for line in text.splitlines()}
    for number, (name, labels) in enumerate(lines.items()):
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels.reshape(-1)[:21] = 255 * (np.array(labels) == "1")
        pixels[7, :, :2] = divmod(number, 256)
        Image.fromarray(pixels).save(tmp_path / name)
    flags = ("--config=configs/lists.py", f"--config.data.directory={tmp_path}")
    told = accepted(*flags, f"--out={tmp_path / 'out'}")
    content = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [content[f"n_{part}"] for part in ("query", "train", "database")] == [2_100, 10_500, 10_710]
    hot = {part: np.array([line.split()[1:] for line in text.splitlines()]) == "1" for part, text in lists.items()}
    for k in range(21):
        assert content["counts"][str(k)] == {part: int(labels[:, k].sum()) for part, labels in hot.items()}
    relevant = (hot["query"].astype(int) @ hot["database"].astype(int).T > 0).mean()
    assert content["labels"]["relevant_share"] == pytest.approx(relevant, abs=1e-12)
    assert (content["bad_images"], content["overlaps"]["query in database"]) == ([], 0)
    assert "2,100 / 10,500 / 10,710" in told
    assert "the same split" in accepted(*flags, f"--verify={tmp_path / 'out' / 'manifest.json'}", "--noread_images")


def test_pictures_in_a_store(pictures, tmp_path, bucket):
    """The manifest of pictures in an object store is that of the same pictures on a disk; --out is a folder on this machine."""
    place = mock_data.upload(pictures, f"{bucket}/pictures")
    accepted(*flags_of(pictures), f"--out={tmp_path / 'here'}")
    accepted(*flags_of(place), f"--out={tmp_path / 'there'}")
    here, there = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("here", "there"))
    assert there == {**here, "directory": there["directory"]} if "directory" in here else there == here
    storage.write(storage.path(f"{bucket}/manifest.json"), (tmp_path / "here" / "manifest.json").read_bytes())
    assert "the same split" in accepted(*flags_of(place), f"--verify={bucket}/manifest.json")
    assert "give a folder on this machine" in refused(*flags_of(place), f"--out={bucket}/out")
