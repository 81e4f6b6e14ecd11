"""The command that fills an index: each picture once, with the model's own code, whatever comes between."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mock_data
import numpy as np
import pytest
from PIL import Image

import adsq_jax
from adsq_jax import index
from adsq_jax.errors import InputError
from adsq_jax.inference import hits

ROOT = Path(__file__).parent.parent


def command(run, images, place, *arguments):
    return [
        *(sys.executable, "-m", "adsq_jax.encode", f"--workdir={run}", f"--images={images}", f"--index={place}"),
        *arguments,
    ]


def encode(run, images, place, *arguments, check=True):
    done = subprocess.run(command(run, images, place, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture
def pictures(colours, tmp_path):
    """A copy of the pictures that a test may change, and the run."""
    shutil.copytree(colours[0], tmp_path / "pictures")
    return tmp_path / "pictures", colours[1]


def test_each_picture_has_its_code(colours, tmp_path):
    """In the index stand all pictures, with label, hash and the code that the model gives for the path."""
    folder, run = colours
    done = encode(run, folder, tmp_path / "index")
    assert "36 images encoded, 0 unchanged, 0 left out" in done.stdout
    model = adsq_jax.load(run)
    with index.open_index(str(tmp_path / "index")) as opened:
        assert opened.manifest == index.Manifest(12, model.sha256, str(run))
        paths = sorted(opened.ids())
        assert paths == sorted(str(path) for path in folder.rglob("*.png"))
        for path, code in zip(paths, model.encode(paths), strict=True):
            found = opened.search(code[None], k=36, radius=0)
            assert path in {item.id for item in opened.items(found.keys[found.keys != index.NOTHING])}
            assert opened.find([path])[path].labels == (Path(path).parent.name,)


def test_only_what_is_new_or_changed_is_encoded(pictures, tmp_path):
    """By content: a touched file is unchanged; an edited one isn't, for all its size and time; one that is gone stays."""
    folder, run = pictures
    encode(run, folder, tmp_path / "index")
    edited, touched = folder / "red" / "00.png", folder / "red" / "01.png"
    before = edited.stat()
    Image.fromarray(np.zeros((18, 24, 3), np.uint8)).save(edited)
    os.utime(edited, ns=(before.st_atime_ns, before.st_mtime_ns))
    touched.touch()
    shutil.copy(folder / "blue" / "00.png", folder / "red" / "new.png")
    (folder / "green" / "05.png").unlink()
    done = encode(run, folder, tmp_path / "index")
    assert "2 images encoded, 34 unchanged, 0 left out, 0 taken out" in done.stdout
    assert done.stdout.strip().endswith("holds 37")
    done = encode(run, folder, tmp_path / "index", "--prune")
    assert "0 images encoded, 36 unchanged, 0 left out, 1 taken out" in done.stdout
    assert done.stdout.strip().endswith("holds 36")


def test_prune_leaves_other_folders_alone(pictures, tmp_path):
    """What was added from beside the folder isn't looked for in it."""
    folder, run = pictures
    encode(run, folder / "red", tmp_path / "index")
    encode(run, folder / "blue", tmp_path / "index")
    (folder / "red" / "00.png").unlink()
    (folder / "blue" / "00.png").unlink()
    assert "1 taken out" in encode(run, folder / "red", tmp_path / "index", "--prune").stdout
    with index.open_index(str(tmp_path / "index")) as opened:
        assert set(opened.ids(prefix=str(folder / "blue"))) == {f"{folder}/blue/{number:02d}.png" for number in range(12)}


def test_bad_pictures_are_left_out_by_name(pictures, tmp_path):
    """The others are encoded; a line for each says why; a second run tries them again."""
    folder, run = pictures
    (folder / "red" / "00.png").write_bytes((folder / "red" / "00.png").read_bytes()[:60])
    (folder / "red" / "01.png").write_bytes(b"")
    (folder / "red" / "02.png").write_text("<html>")
    os.link(os.fsencode(folder / "red" / "03.png"), os.fsencode(folder / "red") + b"/\xff.png")
    with (folder / "red" / "huge.png").open("wb") as file:
        file.truncate(2**41)  # of holes
    done = encode(run, folder, tmp_path / "index")
    assert "33 images encoded, 0 unchanged, 5 left out" in done.stdout
    left_out = [line for line in done.stderr.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 5
    for name, reason in (
        ("00.png", "no whole picture"),
        ("01.png", "is empty"),
        ("02.png", "no whole picture"),
        ("\\xff.png", "UTF-8"),
        ("huge.png", "more than 1,024 MiB"),
    ):
        assert any(name in line and reason in line for line in left_out)
    shutil.copy(folder / "red" / "04.png", folder / "red" / "00.png")
    assert "1 images encoded, 33 unchanged, 4 left out" in encode(run, folder, tmp_path / "index").stdout
    (tmp_path / "bad").mkdir()
    (folder / "red" / "02.png").rename(tmp_path / "bad" / "02.png")
    done = encode(run, tmp_path / "bad", tmp_path / "index", check=False)
    assert done.returncode == 2
    assert "none of the 1 images" in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_stopped_it_goes_on(pictures, tmp_path, number, status):
    """What was added before stays and isn't encoded again; in the end all are there once, with the codes of one sitting."""
    folder, run = pictures
    for copy in range(80):
        shutil.copytree(folder / "red", folder / "more" / str(copy))
    with subprocess.Popen(
        command(run, folder, tmp_path / "index"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not index_count(tmp_path / "index") and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    assert number == signal.SIGKILL or "the same command goes on" in errors
    there = index_count(tmp_path / "index")
    assert 0 < there < 36 + 80 * 12
    if number != signal.SIGKILL:  # the others leave no more behind than it does
        return
    done = encode(run, folder, tmp_path / "index")
    encoded, unchanged = map(int, re.match(r"(\d+) images encoded, (\d+) unchanged", done.stdout).groups())
    assert encoded + unchanged == 36 + 80 * 12
    assert unchanged == there
    assert index_count(tmp_path / "index") == 36 + 80 * 12


def index_count(place):
    try:
        with index.open_index(str(place)) as opened:
            return opened.count()
    except InputError:
        return 0


def test_a_list(colours, tmp_path):
    """Labels are the list's; --prune has no meaning there."""
    folder, run = colours
    (tmp_path / "list.txt").write_text("red/00.png 1 0 1\nblue/01.png 0 0 0\n")
    (tmp_path / "classes.txt").write_text("warm\ncold\nfirst\n")
    encode(run, tmp_path / "list.txt", tmp_path / "index", f"--directory={folder}")
    with index.open_index(str(tmp_path / "index")) as opened:
        found = opened.find([f"{folder}/red/00.png", f"{folder}/blue/01.png"])
        assert [item.labels for item in found.values()] == [("warm", "first"), ()]
    done = encode(run, tmp_path / "list.txt", tmp_path / "index", f"--directory={folder}", "--prune", check=False)
    assert done.returncode == 2
    assert "--prune goes with a folder" in done.stderr


def test_refused(colours, tmp_path):
    """Bad flags, and an index of other codes; nothing is added to it."""
    folder, run = colours
    index.create(str(tmp_path / "other"), index.Manifest(12, "0" * 64)).close()
    index.create(str(tmp_path / "longer"), index.Manifest(24, adsq_jax.load(run).sha256)).close()
    cases = [
        ({"--workdir": ""}, "are all needed"),
        ({"--index": ""}, "are all needed"),
        ({"--workdir": "/nowhere"}, "/nowhere holds no trained model"),
        ({"--images": "/nowhere"}, "--images=/nowhere isn't there"),
        ({"--index": "gs://bucket/index"}, "is no folder of this machine"),
        ({"--index": "/proc/index"}, "/proc/index can't be made"),
        ({"--index": tmp_path / "other"}, "codes of another model"),
        ({"--index": tmp_path / "longer"}, "codes of 24 bits, and these have 12"),
    ]
    given = {"--workdir": run, "--images": folder, "--index": tmp_path / "index"}
    mock_data.assert_refused("adsq_jax.encode", cases, given)
    assert index_count(tmp_path / "other") == index_count(tmp_path / "longer") == 0


def test_a_run_in_an_object_store(colours, bucket, tmp_path):
    """The index names the run by its address, where a search finds its model again."""
    folder, run = colours
    mock_data.upload(run / "model", f"{bucket}/run/model")
    encode(f"{bucket}/run", folder / "red", tmp_path / "index")
    with index.open_index(str(tmp_path / "index")) as opened:
        assert opened.manifest.model == f"{bucket}/run"
        assert hits.model_of(opened, place="index", directory=None).sha256 == opened.manifest.model_sha256
