"""Encoding pictures into an index: each once, with the model's own code, whatever interrupts it; and the command."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import mock_data

import adsq_jax
from adsq_jax import encode, index, search
from adsq_jax.data import images
from adsq_jax.data.images import BadImage
from adsq_jax.errors import InputError
from adsq_jax.inference import hits, new_images

ROOT = Path(__file__).parent.parent


def counts(encoded=0, unchanged=0, *, reused=0, removed=0, total):
    return encode.Counts(encoded=encoded, unchanged=unchanged, reused=reused, left_out=(), removed=removed, total=total)


@pytest.fixture
def pictures(colours, tmp_path):
    """A copy of the pictures that a test may change, and the run."""
    shutil.copytree(colours[0], tmp_path / "pictures")
    return tmp_path / "pictures", colours[1]


def test_each_picture_has_its_code(colours, tmp_path, capsys):
    """The command adds all pictures with label, hash and the code that the model computes for the path."""
    folder, run = colours
    encode.main([f"--workdir={run}", f"--images={folder}", f"--index={tmp_path / 'index'}"])
    printed = capsys.readouterr().out
    assert "36 images encoded, 0 unchanged, 0 left out, 0 removed, in" in printed
    assert printed.endswith("index holds 36\n")
    model = adsq_jax.load(run)
    with index.open_index(tmp_path / "index") as opened:
        assert opened.manifest == index.Manifest(12, model.sha256, str(run))
        paths = sorted(opened.ids())
        assert paths == sorted(str(path) for path in folder.rglob("*.png"))
        for path, code in zip(paths, model.encode(paths, packed=True), strict=True):
            result = opened.search(code[None], k=36, radius=0)
            assert path in {item.id for item in opened.items(result.keys[result.keys != index.NOTHING])}
            assert opened.find([path])[path].labels == (Path(path).parent.name,)


def test_only_new_and_changed_pictures_are_encoded(pictures, tmp_path):
    """Content decides, not times or sizes: a touched file is unchanged. A file that is gone stays in the index until pruned."""
    folder, run = pictures
    location = tmp_path / "index"
    assert encode.encode_images(run, folder, index=location) == counts(36, total=36)
    edited, touched = folder / "red" / "00.png", folder / "red" / "01.png"
    before = edited.stat()
    Image.fromarray(np.zeros((18, 24, 3), np.uint8)).save(edited)
    os.utime(edited, ns=(before.st_atime_ns, before.st_mtime_ns))
    touched.touch()
    shutil.copy(folder / "blue" / "00.png", folder / "red" / "new.png")
    (folder / "green" / "05.png").unlink()
    assert encode.encode_images(run, folder, index=location) == counts(1, 34, reused=1, total=37)
    assert encode.encode_images(run, folder, index=location, prune=True) == counts(0, 36, removed=1, total=36)


def test_pictures_that_moved_are_not_encoded_again(pictures, tmp_path, small, monkeypatch):
    """Another folder's pictures, or other labels, get code and features of the same content; pruned, nothing is left twice."""
    folder, _ = pictures
    location, moved = tmp_path / "index", tmp_path / "moved"
    encode.encode_images(small(bits=24), folder, index=location)
    with index.open_index(location) as opened:
        before = {item.sha256: (code.tobytes(), numbers.tobytes()) for item, code, numbers in rows(opened)}
    folder.rename(moved)
    (moved / "red").rename(moved / "scarlet")
    monkeypatch.setattr(images, "decode", lambda *_, **__: pytest.fail("a picture was decoded"))
    monkeypatch.setattr(new_images, "_IDS_PER_LOOKUP", 7)
    monkeypatch.setattr(encode, "_REUSED_TOGETHER", 5)
    assert encode.encode_images(None, moved, index=location) == counts(reused=36, total=72)
    (moved / "scarlet").rename(moved / "red")
    assert encode.encode_images(None, moved, index=location, prune=True) == counts(0, 24, reused=12, removed=12, total=72)
    assert index.remove(location, str(folder)) == 36
    with index.open_index(location) as opened:
        after = {item.sha256: (code.tobytes(), numbers.tobytes()) for item, code, numbers in rows(opened)}
        assert set(opened.ids()) == {str(path) for path in moved.rglob("*.png")}
        assert opened.count(where=index.parse("label=red")) == 12
    assert after == before
    assert len(before) > 20


def test_another_process_removes_what_is_reused(pictures, tmp_path, monkeypatch):
    """The images are encoded then: none is lost."""
    folder, run = pictures
    encode.encode_images(run, folder / "red", index=tmp_path / "index")
    shutil.copy(folder / "red" / "00.png", folder / "blue" / "new.png")
    with monkeypatch.context() as patch:
        patch.setattr(new_images.Contents, "may_have", lambda self, sha256: True)
        result = encode.encode_images(run, folder / "blue", index=tmp_path / "index")
    assert result == counts(12, reused=1, total=25)
    assert encode.encode_images(run, folder / "blue", index=tmp_path / "index") == counts(0, 13, total=25)


def test_an_edited_picture_and_its_copy(pictures, tmp_path):
    """A picture that was edited, and its earlier content under a new name, are both there, with their own codes; and pruned."""
    folder, run = pictures
    encode.encode_images(run, folder, index=tmp_path / "index")
    shutil.copy(folder / "red" / "00.png", folder / "red" / "00_orig.png")
    Image.fromarray(np.full((18, 24, 3), 77, np.uint8)).save(folder / "red" / "00.png")
    result = encode.encode_images(run, folder, index=tmp_path / "index", prune=True)
    assert (result.encoded + result.reused, result.left_out, result.removed, result.total) == (2, (), 0, 37)
    with index.open_index(tmp_path / "index") as opened:
        found = {item.id: code for batch in opened.scan() for item, code in zip(batch.items, batch.codes, strict=True)}
    assert len(found) == 37
    for name in ("00.png", "00_orig.png"):
        path = str(folder / "red" / name)
        assert np.array_equal(found[path], adsq_jax.load(run).encode(path, packed=True)[0])


def rows(opened):
    return [row for batch in opened.scan() for row in zip(*batch, strict=True)]


def test_from_python(colours, tmp_path):
    """A loaded model and an open index will do; progress is reported by a callback; the result prints its numbers."""
    folder, run = colours
    model, done = adsq_jax.load(run), []
    with index.create(tmp_path / "index", index.Manifest(12, model.sha256)) as opened:
        result = encode.encode_images(model, folder / "red", index=opened, threads=1, on_progress=done.append)
    assert repr(result) == "Counts(encoded=12, unchanged=0, reused=0, left_out=0, removed=0, total=12)"
    assert sum(done) == 12
    other = index.create(tmp_path / "other", index.Manifest(12, "0" * 64))
    with other, pytest.raises(InputError, match="codes of another model"):
        encode.encode_images(model, folder / "red", index=other)


def test_prune_leaves_other_folders_alone(pictures, tmp_path):
    """Only what was below the folder is looked for there."""
    folder, run = pictures
    for name in ("red", "blue"):
        encode.encode_images(run, folder / name, index=tmp_path / "index")
        (folder / name / "00.png").unlink()
    assert encode.encode_images(run, folder / "red", index=tmp_path / "index", prune=True).removed == 1
    with index.open_index(tmp_path / "index") as opened:
        assert set(opened.ids(prefix=str(folder / "blue"))) == {f"{folder}/blue/{number:02d}.png" for number in range(12)}


def test_bad_pictures_are_left_out_by_name(pictures, tmp_path, capsys):
    """The others are encoded; a line for each says why; a second run tries them again."""
    folder, run = pictures
    (folder / "red" / "00.png").write_bytes((folder / "red" / "00.png").read_bytes()[:60])
    (folder / "red" / "01.png").write_bytes(b"")
    (folder / "red" / "02.png").write_text("<html>")
    os.link(os.fsencode(folder / "red" / "03.png"), os.fsencode(folder / "red") + b"/\xff.png")
    with (folder / "red" / "huge.png").open("wb") as file:
        file.truncate(2**41)  # without using the disk
    encode.main([f"--workdir={run}", f"--images={folder}", f"--index={tmp_path}/index"])
    printed = capsys.readouterr()
    assert "33 images encoded, 0 unchanged, 5 left out" in printed.out
    left_out = [line for line in printed.err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 5
    for name, reason in (
        ("00.png", "not a complete picture"),
        ("01.png", "is empty"),
        ("02.png", "not a complete picture"),
        ("\\xff.png", "UTF-8"),
        ("huge.png", "more than 1,024 MiB"),
    ):
        assert any(name in line and reason in line for line in left_out), (name, left_out)
    shutil.copy(folder / "red" / "04.png", folder / "red" / "00.png")
    again = encode.encode_images(run, folder, index=tmp_path / "index")
    assert (again.encoded, again.reused, again.unchanged, len(again.left_out)) == (0, 1, 33, 4)
    (tmp_path / "bad").mkdir()
    (folder / "red" / "02.png").rename(tmp_path / "bad" / "02.png")
    with pytest.raises(InputError, match="none of the 1 images"):
        encode.main([f"--workdir={run}", f"--images={tmp_path}/bad", f"--index={tmp_path}/index"])


def test_a_picture_that_turned_bad(pictures, tmp_path, capsys):
    """Its earlier code stays, and the message says so; `--prune` removes it, like that of a picture that is gone."""
    folder, run = pictures
    location, bad = tmp_path / "index", folder / "red" / "00.png"
    encode.encode_images(run, folder, index=location)
    bad.write_bytes(bad.read_bytes()[:60])
    (folder / "red" / "never.png").write_text("<html>")
    (stays, never) = encode.encode_images(run, folder, index=location).left_out
    assert stays.startswith(f"{bad} is not a complete picture")
    assert stays.endswith("; its earlier code stays in the index, --prune removes it")
    assert "code" not in never
    encode.main([f"--workdir={run}", f"--images={folder}", f"--index={location}", "--prune"])
    printed = capsys.readouterr()
    assert "0 images encoded, 35 unchanged, 2 left out, 1 removed" in printed.out
    assert f"{bad} is not a complete picture" in printed.err
    assert printed.err.count("; its earlier code was removed from the index\n") == 1
    with index.open_index(location) as opened:
        assert opened.find([str(bad)]) == {}
        assert opened.count() == 35


def test_nothing_is_pruned_if_no_picture_can_be_used(pictures, tmp_path):
    """All bad at once is the disk's fault, or the mount's: the index stays as it is."""
    folder, run = pictures
    location = tmp_path / "index"
    encode.encode_images(run, folder / "red", index=location)
    for path in (folder / "red").iterdir():
        path.write_bytes(b"")
    (folder / "red" / "00.png").unlink()
    result = encode.encode_images(run, folder / "red", index=location, prune=True)
    assert (result.removed, result.total) == (0, 12)
    assert all("; its earlier code stays in the index" in reason for reason in result.left_out)


def test_a_bad_picture_of_a_list(pictures, tmp_path):
    """A list can't be pruned by: the message doesn't offer it."""
    folder, run = pictures
    (tmp_path / "list.txt").write_text("red/00.png 1 0\nred/01.png 1 0\n")
    given = {"images": str(tmp_path / "list.txt"), "index": tmp_path / "index", "directory": str(folder)}
    encode.encode_images(run, **given)
    (folder / "red" / "00.png").write_bytes(b"")
    (reason,) = encode.encode_images(run, **given).left_out
    assert reason.endswith("; its earlier code stays in the index")


@pytest.fixture
def small(monkeypatch):
    """Make untrained models of small images, so that they take seconds."""
    made = partial(adsq_jax.pretrained_model, image_size=32)
    monkeypatch.setattr(encode.untrained, "pretrained_model", made)
    return made


def test_without_a_run(pictures, tmp_path, small, capsys):
    """A new index makes an untrained model and keeps it: it encodes later pictures, moves with its folder, and is copied."""
    folder, _ = pictures
    location = tmp_path / "index"
    flags = [f"--images={folder}", f"--index={location}"]
    (folder / "red" / "bad.png").write_text("<html>")
    (folder / "red" / "a.jxl").touch()
    shutil.copytree(folder / "blue", folder / "red" / "@eaDir")
    encode.main(flags)
    printed = capsys.readouterr()
    assert "36 images encoded, 0 unchanged, 1 left out" in printed.out
    assert "also there: 1 folders of thumbnails or deleted files, passed over, 1 files .jxl, not read\n" in printed.err
    model = adsq_jax.load(location)
    assert (model.bits, model.image_size) == (64, 32)
    with index.open_index(location) as opened:
        assert opened.manifest.model_sha256 == model.sha256
        for items, *stored in opened.scan():
            expected = model.encode_with_features([item.id for item in items], part="query")
            assert all(np.array_equal(a, b) for a, b in zip(stored, expected, strict=True))
    shutil.copytree(folder / "red", folder / "more")
    for again in (flags, [*flags, "--bits=64"]):
        encode.main(again)
    assert "0 images encoded, 36 unchanged, 12 known from other places, 2 left out" in capsys.readouterr().out
    assert adsq_jax.load(location).sha256 == model.sha256
    location.rename(tmp_path / "moved")
    index.copy(tmp_path / "moved", tmp_path / "copy")
    for place in ("moved", "copy"):
        (hit,), (other,) = search.search(tmp_path / place, sorted((folder / "blue").iterdir())[:2], k=1)
        assert (hit.distance, hit.id, hit.cosine) == (0, str(folder / "blue" / "00.png"), 1.0)
        assert search.search(tmp_path / place, folder / "blue" / "00.png", k=1, rerank=0)[0][0].cosine is None
        assert other.id == str(folder / "blue" / "01.png")


def test_an_untrained_model_from_python(pictures, tmp_path, small):
    """A model that was fitted may be given like any other; an index that has another model is refused."""
    folder, run = pictures
    base, done = small(bits=24), []
    assert encode.encode_images(base, folder, index=tmp_path / "index", on_progress=done.append) == counts(36, total=36)
    assert sum(done) == 36
    fitted = base.fit(sorted(folder.rglob("*.png")))
    assert encode.encode_images(fitted, folder, index=tmp_path / "index") == counts(0, 36, total=36)
    assert encode.encode_images(None, folder, index=tmp_path / "index") == counts(0, 36, total=36)
    with index.open_index(tmp_path / "index") as opened:
        assert encode.encode_images(base, folder, index=opened) == counts(0, 36, total=36)
    with pytest.raises(InputError, match="24 bits, itq, query_net=ff\\), not of UntrainedModel\\(efficientnet_lite0, 16 bits"):
        encode.encode_images(small(bits=16), folder, index=tmp_path / "index")
    encode.encode_images(run, folder, index=tmp_path / "trained")
    assert encode.encode_images(None, folder, index=tmp_path / "trained") == counts(0, 36, total=36)
    with pytest.raises(InputError, match="fix: give only the index, whose model then encodes"):
        encode.encode_images(base, folder, index=tmp_path / "trained")
    with pytest.raises(InputError, match=r"no index at .*/none whose model could encode"):
        encode.encode_images(None, folder, index=tmp_path / "none")


@pytest.mark.system
def test_a_server_keeps_no_model(pictures, small, milvus, tmp_path):
    """A new index on a server is refused; the way round that the message names works, and later needs no model."""
    folder, place = pictures[0], f"{milvus}/untrained_model"
    with pytest.raises(InputError, match="a new index on a server can't keep an untrained model"):
        encode.encode_images(small(), folder, index=place)
    encode.encode_images(small(), folder, index=tmp_path / "index")
    assert encode.encode_images(tmp_path / "index", folder, index=place) == counts(36, total=36)
    for again in (None, small()):
        assert encode.encode_images(again, folder, index=place) == counts(0, 36, total=36)


@pytest.mark.parametrize("left", ["model", "weights"])
def test_killed_before_the_index_was_made(pictures, tmp_path, small, left):
    """The model is written first: the same command completes it, and goes on."""
    folder, _ = pictures
    fitted = small(bits=24).fit(sorted(str(path) for path in folder.rglob("*.png")))
    location = tmp_path / "index"
    fitted.save(location)
    if left == "weights":
        (location / "model" / "model.json").unlink()
    encode.main([f"--images={folder}", f"--index={location}", "--bits=24"])
    assert adsq_jax.load(location).sha256 == fitted.sha256
    assert encode.encode_images(None, folder, index=location) == counts(0, 36, total=36)


def test_another_model_in_the_folder_of_an_index(pictures, tmp_path, small):
    """It isn't overwritten, and nothing is encoded; an index whose model is gone says what to do."""
    folder, run = pictures
    shutil.copytree(run / "model", tmp_path / "index" / "model")
    kept = adsq_jax.load(tmp_path / "index").sha256
    with pytest.raises(InputError, match=r"index holds another model; fix: give another folder for the index, or remove"):
        encode.encode_images(small(bits=24), folder, index=tmp_path / "index")
    with pytest.raises(InputError, match="index holds other files"):
        encode.encode_images(run, folder, index=tmp_path / "index")
    assert adsq_jax.load(tmp_path / "index").sha256 == kept
    assert not index.exists(tmp_path / "index")
    encode.encode_images(small(bits=24), folder, index=tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / "model")
    for model in (small(bits=24), None):
        with pytest.raises(InputError, match=r"holds no trained model.*fix: give the run's folder with --workdir"):
            encode.encode_images(model, folder, index=tmp_path / "other")


def test_the_home_in_each_flag(pictures, tmp_path, monkeypatch, capsys):
    """`~` in `--flag=~/x`, which a shell leaves alone, is the home for all of them: nothing is made beside it."""
    folder, run = pictures
    home, here = tmp_path / "home", tmp_path / "here"
    for path in (home, here):
        path.mkdir()
    (home / "run").symlink_to(run)
    folder.rename(home / "pictures")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    for said in ("36 images encoded, 0 unchanged", "0 images encoded, 36 unchanged"):
        encode.main(["--workdir=~/run", "--images=~/pictures", "--index=~/codes"])
        assert said in capsys.readouterr().out
    with index.open_index(home / "codes") as opened:
        assert opened.manifest.model == str(home / "run")
        assert set(opened.ids(prefix=f"{home}/pictures/red/")) == {f"{home}/pictures/red/{row:02d}.png" for row in range(12)}
    search.main(["--index=~/codes", "--query=~/pictures/red", "--query=~/pictures/blue/00.png", "--k=1", "--out=~/hits.html"])
    assert capsys.readouterr().out.count("rank") == 13
    assert (home / "hits.html").exists()
    assert not list(here.iterdir())


# Starts a process that is killed.
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_stopped_it_continues(pictures, tmp_path, number, status):
    """What was added stays and isn't encoded again; in the end each picture is there once."""
    folder, run = pictures
    for copy in range(80):
        shutil.copytree(folder / "red", folder / "more" / str(copy))
    command = [sys.executable, "-m", "adsq_jax.encode", f"--workdir={run}", f"--images={folder}", f"--index={tmp_path}/index"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not index_count(tmp_path / "index") and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    assert number == signal.SIGKILL or "the same command continues" in errors
    added = index_count(tmp_path / "index")
    assert 0 < added < 36 + 80 * 12
    if number == signal.SIGKILL:  # the other signals leave nothing else behind
        total = 36 + 80 * 12
        result = encode.encode_images(run, folder, index=tmp_path / "index")
        assert (result.encoded + result.reused, result.unchanged, result.total) == (total - added, added, total)


# Takes seconds: it opens the first index.
def test_an_interrupt_waits_for_no_picture(colours, tmp_path, monkeypatch):
    """Ctrl-C leaves at once while other threads still decode, and what waits is never decoded."""
    folder, run = colours
    release, begun = threading.Event(), []
    first = min(folder.rglob("*.png")).read_bytes()  # not the first to be decoded, which is either thread's

    def slow(content, **options):
        begun.append(content)
        if content == first:
            raise BadImage("is bad; fix: nothing")
        release.wait(60)
        raise BadImage("is late; fix: nothing")

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "decode", slow)
    loaded = adsq_jax.load(run)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        encode.encode_images(loaded, folder, index=tmp_path / "index", threads=2, on_progress=interrupt)
    assert time.monotonic() - begin < 20
    release.set()
    time.sleep(0.2)
    assert len(begun) <= 3


def test_a_list_in_the_wrong_folder(colours, tmp_path):
    """If no picture of a list is there, that is told at once, and no index is made."""
    (tmp_path / "list.txt").write_text("red/00.png 1 0 1\nblue/01.png 0 0 0\n")
    given = (f"--workdir={colours[1]}", f"--images={tmp_path}/list.txt", f"--index={tmp_path}/index")
    with pytest.raises(InputError, match=f"none of the 2 images of the list is there, the first are {tmp_path}/red/00.png, "):
        encode.main(given)
    assert not (tmp_path / "index").exists()


def index_count(location):
    try:
        with index.open_index(location) as opened:
            return opened.count()
    except InputError:
        return 0


def test_a_list(colours, tmp_path):
    """Labels are the list's; it can't be pruned by."""
    folder, run = colours
    (tmp_path / "list.txt").write_text("red/00.png 1 0 1\nblue/01.png 0 0 0\n")
    (tmp_path / "classes.txt").write_text("warm\ncold\nfirst\n")
    given = {"images": str(tmp_path / "list.txt"), "index": tmp_path / "index", "directory": str(folder)}
    encode.encode_images(run, **given)
    with index.open_index(tmp_path / "index") as opened:
        items = opened.find([f"{folder}/red/00.png", f"{folder}/blue/01.png"])
        assert {name.removeprefix(f"{folder}/"): item.labels for name, item in items.items()} == {
            "red/00.png": ("warm", "first"),
            "blue/01.png": (),
        }
    with pytest.raises(InputError, match="--prune expects a folder in --images"):
        encode.encode_images(run, **given, prune=True)
    (tmp_path / "list.txt").write_text("red/00.png 0 1 0\nblue/01.png 0 0 0\n")
    assert encode.encode_images(run, **given).reused == 1  # the picture is the same, but not its labels
    with index.open_index(tmp_path / "index") as opened:
        assert opened.find([f"{folder}/red/00.png"])[f"{folder}/red/00.png"].labels == ("cold",)


def test_refused(colours, tmp_path):
    """Bad flags, and an index of other codes, to which nothing is added."""
    folder, run = colours
    index.create(tmp_path / "other", index.Manifest(12, "0" * 64)).close()
    index.create(tmp_path / "longer", index.Manifest(24, adsq_jax.load(run).sha256)).close()
    cases = [
        ({"workdir": ""}, "--workdir is empty; fix: give the folder of a run, or leave it out"),
        ({"index": ""}, "--images=FOLDER and --index=INDEX are both needed"),
        ({"bits": 32}, "--model and --bits make an untrained model, and --workdir has a trained one; fix: leave one out"),
        ({"model": "pypi:some"}, "--model and --bits make an untrained model"),
        ({"workdir": "/nowhere"}, "/nowhere holds no trained model"),
        ({"best": True}, "holds no best model; fix: train with --config.data.validation=N"),
        ({"batch_size": 0}, "batch_size"),
        ({"images": "/nowhere"}, "--images=/nowhere isn't there"),
        ({"index": "gs://bucket/index"}, "is not a folder on this machine"),
        ({"index": "/proc/index"}, "/proc/index can't be made"),
        ({"index": tmp_path / "other"}, "codes of another model"),
        ({"index": tmp_path / "longer"}, "codes of 24 bits, and these have 12"),
    ]
    for changed, message in cases:
        given = {"workdir": run, "images": folder, "index": tmp_path / "index", **changed}
        with pytest.raises(InputError, match=re.escape(message)) as raised:
            encode.main([f"--{name}={value}" for name, value in given.items()])
        assert "\n" not in str(raised.value)
    assert index_count(tmp_path / "other") == index_count(tmp_path / "longer") == 0


def test_the_best_model_and_a_smaller_batch(colours, tmp_path):
    """--best encodes with the model in best/, which the index then names; --batch_size changes no code."""
    folder, run = colours
    run = shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run / "model", run / "best" / "model")
    for name, flags in (("last", []), ("best", ["--best", "--batch_size=3"])):
        encode.main([f"--workdir={run}", f"--images={folder}", f"--index={tmp_path / name}", *flags])
    with index.open_index(tmp_path / "last") as last, index.open_index(tmp_path / "best") as best:
        assert best.manifest.model == str(run / "best")
        ids = sorted(last.ids())
        assert len(ids) == 36
        np.testing.assert_array_equal(best.stored(ids=ids).codes, last.stored(ids=ids).codes)
    assert adsq_jax.load(run, best=True).sha256 == adsq_jax.load(run / "model").sha256
    assert adsq_jax.load(run).with_batch_size(3).batch_size >= 3
    with pytest.raises(InputError, match="batch_size=0"):
        adsq_jax.load(run).with_batch_size(0)


def test_a_run_in_an_object_store(colours, bucket, tmp_path):
    """The index names the run by its address; a search asks that store only if --workdir names it."""
    folder, run = colours
    mock_data.upload(run / "model", f"{bucket}/run/model")
    encode.encode_images(f"{bucket}/run", folder / "red", index=tmp_path / "index")
    with index.open_index(tmp_path / "index") as opened:
        assert opened.manifest.model == f"{bucket}/run"
        assert hits.load_model(opened, workdir=f"{bucket}/run").sha256 == opened.manifest.model_sha256
        with pytest.raises(InputError, match=r"is in an object store; fix: if you trust it, --workdir=s3://"):
            hits.load_model(opened, workdir=None)
