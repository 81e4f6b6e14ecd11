"""Checkpoints come back bit for bit, and damage of any kind costs one checkpoint, never the run."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adsq_jax import storage
from adsq_jax.devices import processes
from adsq_jax.errors import InputError
from adsq_jax.run import checkpoint, workdir
from adsq_jax.run.checkpoint import Checkpoints
from adsq_jax.training.state import ImgNetState, LabelNetState, TrainState


def make_state(step, *, twin=True, bits=6, momentum=None):
    """Make a state like training's: nested dataclasses with an optimiser's state, several dtypes, and special floats."""
    random = np.random.default_rng(step)
    params = {"hash": {"kernel": random.normal(size=(5, bits)).astype(np.float32), "bias": np.zeros(bits, np.float32)}}
    params["hash"]["bias"][:4] = [-0.0, np.nan, np.inf, 1e-45]
    params["half"] = jnp.asarray(random.normal(size=3), jnp.bfloat16)
    bank = random.normal(size=(300, bits)).astype(np.float32)
    optimizer = optax.adam(1e-3) if momentum is None else optax.sgd(0.1, momentum=momentum)
    opt_state = optimizer.update(params, optimizer.init(params), params)[1]
    net = ImgNetState(
        params=params, batch_stats={"mean": jnp.ones(2)}, opt_state=opt_state, key=jnp.array([0, 1], jnp.uint32), bank=bank
    )
    return jax.tree.map(
        np.asarray,
        TrainState(
            step=np.array(step, np.int64),
            label_net=LabelNetState(params=params, opt_state=opt_state) if twin else None,
            trunk={"params": {"backbone": params}} if twin else None,
            img_nets={"f": net, "g": net} if twin else {"f": net},
            codes=np.where(random.random((300, bits)) < 0.5, -1, 1).astype(np.int8),
        ),
    )


def assert_same_bits(state, expected):
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


@pytest.fixture
def open_checkpoints(tmp_path):
    """Return a function that opens the folder afresh, as another process would."""
    opened = []

    def open_(keep=3):
        opened.append(Checkpoints(tmp_path / "checkpoints", keep=keep, rows=300))
        return opened[-1]

    yield open_
    for checkpoints in opened:
        checkpoints.close()


def save(checkpoints, *steps):
    for step in steps:
        checkpoints.save(step, make_state(step), info={"seconds": step / 4}, measured=None)


@pytest.mark.parametrize("twin", [True, False])
def test_round_trip(open_checkpoints, twin):
    """A state and its info come back in another process bit for bit: -0, NaN, subnormals, bfloat16, and None."""
    state = make_state(7, twin=twin)
    open_checkpoints().save(7, state, info={"seconds": 12.5, "words": ["a", None]}, measured=None)
    restored, info = open_checkpoints().restore(make_state(8, twin=twin))
    assert_same_bits(restored, state)
    assert info["seconds"] == 12.5
    assert info["words"] == ["a", None]


def test_nothing_there(open_checkpoints):
    """A new folder has no checkpoint."""
    assert open_checkpoints().restore(make_state(0)) is None
    assert open_checkpoints().steps() == []


def test_newest_of_several(open_checkpoints):
    """The newest is restored, step 0 counts as one, and only `keep` of them stay."""
    checkpoints = open_checkpoints(keep=2)
    save(checkpoints, 0)
    assert int(checkpoints.restore(make_state(1))[0].step) == 0
    save(checkpoints, 5, 10)
    assert checkpoints.steps() == [5, 10]
    assert_same_bits(open_checkpoints(keep=2).restore(make_state(1))[0], make_state(10))


def files_of(folder):
    """Return the non-empty files of a checkpoint, the largest first."""
    return sorted(
        (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size), key=lambda p: -p.stat().st_size
    )


def assert_falls_back(open_checkpoints, caplog):
    """Check that with 10 damaged 5 is restored, and that 10 is gone and can be saved again."""
    checkpoints = open_checkpoints()
    restored, info = checkpoints.restore(make_state(1))
    assert_same_bits(restored, make_state(5))
    assert info["seconds"] == 5 / 4
    assert checkpoints.steps() == [5]
    assert "checkpoint 10 is damaged" in caplog.text
    save(checkpoints, 10)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], make_state(10))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def unlink(path):
    path.unlink()


@pytest.mark.parametrize("damage", [truncate, flip, unlink])
def test_damaged_data(open_checkpoints, tmp_path, caplog, damage):
    """If the file with the arrays is damaged, the previous checkpoint is restored and the damaged one moved away."""
    save(open_checkpoints(), 5, 10)
    damage(files_of(tmp_path / "checkpoints" / "10")[0])
    assert_falls_back(open_checkpoints, caplog)


def test_all_files_cut_short(open_checkpoints, tmp_path, caplog):
    """So it is if every file is cut short, as after a power cut."""
    save(open_checkpoints(), 5, 10)
    for path in files_of(tmp_path / "checkpoints" / "10"):
        truncate(path)
    assert_falls_back(open_checkpoints, caplog)


def test_empty_step_folder(open_checkpoints, tmp_path, caplog):
    """So it is if the newest folder is empty."""
    save(open_checkpoints(), 5, 10)
    shutil.rmtree(tmp_path / "checkpoints" / "10")
    (tmp_path / "checkpoints" / "10").mkdir()
    assert_falls_back(open_checkpoints, caplog)


def test_any_file_damaged(open_checkpoints, tmp_path):
    """Whichever file is damaged, in whichever way, one of the saved states is restored, never a mixture."""
    save(open_checkpoints(), 5, 10)
    original = tmp_path / "original"
    shutil.copytree(tmp_path / "checkpoints", original)
    saved = {5: make_state(5), 10: make_state(10)}
    for name in [path.relative_to(original) for path in files_of(original / "10")]:
        for damage in (truncate, flip, unlink):
            shutil.rmtree(tmp_path / "checkpoints")
            shutil.copytree(original, tmp_path / "checkpoints")
            damage(tmp_path / "checkpoints" / name)
            restored, _ = open_checkpoints().restore(make_state(1))
            assert_same_bits(restored, saved[int(restored.step)])


def test_all_damaged(open_checkpoints, tmp_path):
    """If no checkpoint is intact none is restored, and the run can start again in the same folder."""
    save(open_checkpoints(), 5, 10)
    for step in ("5", "10"):
        flip(files_of(tmp_path / "checkpoints" / step)[0])
    checkpoints = open_checkpoints()
    assert checkpoints.restore(make_state(1)) is None
    save(checkpoints, 5)
    assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(5))


def test_killed_save(open_checkpoints, tmp_path):
    """The leftovers of a killed save are not a checkpoint, and don't prevent the next save."""
    save(open_checkpoints(), 5, 10)
    (tmp_path / "checkpoints" / "10").rename(tmp_path / "checkpoints" / "10.orbax-checkpoint-tmp-1700000000")
    truncate(files_of(tmp_path / "checkpoints" / "10.orbax-checkpoint-tmp-1700000000")[0])
    checkpoints = open_checkpoints()
    assert checkpoints.steps() == [5]
    assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(5))
    save(checkpoints, 10)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], make_state(10))


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"bits": 8}, r"codes is int8\[300,6\] there and int8\[300,8\] here"),
        ({"twin": False}, r"'g'.* is float32\[300,6\] there and None here"),
        ({"momentum": 0.9}, "opt_state.* there and .* here"),
    ],
)
def test_state_of_another_shape(open_checkpoints, other, key):
    """An intact checkpoint of other networks is not damaged: the error names an array that differs, and nothing is deleted."""
    save(open_checkpoints(), 5, 10)
    checkpoints = open_checkpoints()
    with pytest.raises(InputError, match=key) as caught:
        checkpoints.restore(make_state(1, **other))
    assert "\n" not in str(caught.value)
    assert "checkpoints" in str(caught.value)
    assert checkpoints.steps() == [5, 10]
    assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(10))


def test_a_state_of_another_version(open_checkpoints):
    """A checkpoint without an entry that is None today is refused in one line, and stays."""
    checkpoints = open_checkpoints()
    checkpoints.save(0, {"params": np.ones(3)}, info={}, measured=None)
    with pytest.raises(
        InputError, match=r"expected a checkpoint of this version of adsq_jax, got another's in .*; fix: "
    ) as caught:
        checkpoints.restore({"params": np.zeros(3), "separated": None})
    assert "\n" not in str(caught.value)
    assert checkpoints.steps() == [0]


def test_a_full_disk(open_checkpoints):
    """A failed save is one line with the reason; the previous checkpoint stays, and a later save succeeds."""
    checkpoints = open_checkpoints()
    save(checkpoints, 5)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(InputError, match=r"checkpoint 10 can't be written in .*: make room") as caught:
            save(checkpoints, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], make_state(5))
    checkpoints = open_checkpoints()
    save(checkpoints, 10)
    assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(10))


def test_another_process_that_ends(open_checkpoints, monkeypatch):
    """That isn't taken for a disk that can't be written."""
    checkpoints, lost = open_checkpoints(), ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")

    def fail(*arguments, **options):
        monkeypatch.setattr(processes, "count", lambda: 2)
        raise lost

    monkeypatch.setattr(checkpoints._manager, "save", fail)
    with pytest.raises(ValueError, match="Gloo") as caught:
        save(checkpoints, 5)
    assert caught.value is lost


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of 1 MiB."""
    as_root("mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "tmpfs", tmp_path)
    yield tmp_path
    as_root("umount", "--lazy", tmp_path)


def as_root(*command):
    subprocess.run([*([] if os.getuid() == 0 else ["sudo", "-n"]), *command], check=True)


@pytest.mark.system
def test_a_disk_that_fills_up(small_disk, open_checkpoints):
    """On a full disk the error says so in one line; earlier checkpoints stay, and with room the save succeeds."""
    save(open_checkpoints(), 5)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "other").write_bytes(bytes(2**20))
    with pytest.raises(InputError, match=r"checkpoint 10 can't be written in .*No space left.*: make room"):
        save(open_checkpoints(), 10)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], make_state(5))
    (small_disk / "other").unlink()
    save(open_checkpoints(), 10)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], make_state(10))


@pytest.mark.system
def test_a_disk_that_is_read_only(small_disk, open_checkpoints):
    """On a read-only disk a save is refused in one line, and earlier checkpoints can be restored."""
    save(open_checkpoints(), 5)
    as_root("mount", "-o", "remount,ro", small_disk)
    checkpoints = open_checkpoints()
    with pytest.raises(InputError, match=r"checkpoint 10 can't be written in .*Read-only file system"):
        save(checkpoints, 10)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], make_state(5))


def test_a_checkpoint_without_its_manifest_was_not_finished(open_checkpoints, tmp_path, caplog):
    """A checkpoint killed before its manifest is ignored; the previous one is still there, though only one is kept."""
    save(open_checkpoints(keep=1), 5)
    manager = open_checkpoints(keep=1)
    manager.delete_old = lambda **_: None  # killed before this
    save(manager, 10)
    (tmp_path / "checkpoints" / "10" / "manifest.json").unlink()
    assert_falls_back(open_checkpoints, caplog)


def test_the_best_stays_beside_the_newest(open_checkpoints, tmp_path):
    """Of six checkpoints the newest two and the first with the best score stay; best.json names the latter."""
    checkpoints = open_checkpoints(keep=2)
    for step, measured in enumerate((0.1, 0.7, 0.3, 0.7, 0.2, None)):
        checkpoints.save(step, make_state(step), info={}, measured=measured)
        checkpoints = open_checkpoints(keep=2)
    assert checkpoints.steps() == [1, 4, 5]
    assert json.loads((tmp_path / "checkpoints" / "best.json").read_text()) == {"step": 1, "measured": 0.7}
    assert int(checkpoints.restore(make_state(1))[0].step) == 5


def test_padding_is_not_saved(open_checkpoints):
    """The padding of bank and codes is cut off, however long it is."""
    state = make_state(5)
    net = state.img_nets["f"]
    padded = replace(net, bank=np.concatenate([net.bank, np.zeros((20, 6), np.float32)]))
    codes = np.concatenate([state.codes, np.zeros((20, 6), np.int8)])
    padded = replace(state, img_nets={**state.img_nets, "f": padded}, codes=codes)
    open_checkpoints().save(5, padded, info={}, measured=None)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], state)
    assert_same_bits(open_checkpoints().restore(padded)[0], state)


def test_an_object_store(bucket, caplog):
    """On s3:// states come back bit for bit, the newest two stay, and a damaged one is moved away and can be saved again."""
    directory = storage.path(f"{bucket}/run/checkpoints")

    def opened():
        return contextlib.closing(Checkpoints(directory, keep=2, rows=300))

    with opened() as checkpoints:
        assert checkpoints.restore(make_state(1)) is None
        save(checkpoints, 0, 5, 10)
    with opened() as checkpoints:
        assert checkpoints.steps() == [5, 10]
        assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(10))
    name = max(storage.objects(directory / "10"), key=lambda name: storage.size(directory / "10" / name.decode())).decode()
    storage.write(directory / "10" / name, storage.read(directory / "10" / name)[:-1])
    with opened() as checkpoints:
        restored, info = checkpoints.restore(make_state(1))
        assert_same_bits(restored, make_state(5))
        assert info == {"seconds": 5 / 4}
        assert "checkpoint 10 is damaged" in caplog.text
        save(checkpoints, 10)
        assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(10))
    assert storage.is_file(storage.path(f"{bucket}/run/damaged_checkpoints/10-0/manifest.json"))


def rewrite_manifest(folder, **changes):
    """Change the manifest of a checkpoint, with the right hash."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    del manifest["sha256"]
    workdir.write_json(folder / "manifest.json", {**manifest, "sha256": checkpoint._json_sha256(manifest)})


@pytest.mark.parametrize(
    "changes",
    [{"files": {"../../config.json": "0"}}, {"files": [1]}, {"info": None}, {"layout": ["a"]}],
)
def test_a_malformed_manifest(open_checkpoints, tmp_path, caplog, changes):
    """Whatever a manifest says, only files below the folder are read, and the previous checkpoint is restored."""
    save(open_checkpoints(), 5, 10)
    rewrite_manifest(tmp_path / "checkpoints" / "10", **changes)
    assert_falls_back(open_checkpoints, caplog)


@pytest.mark.parametrize("measured", ["high", [1], float("inf")])
def test_a_score_that_is_not_a_number(open_checkpoints, tmp_path, measured):
    """It is ignored; so is an old checkpoint that was half deleted. A link is deleted, and not the folder it leads to."""
    save(open_checkpoints(keep=4), 0, 3, 5)
    manifest = tmp_path / "checkpoints" / "5" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "measured": measured}))
    (tmp_path / "checkpoints" / "3" / "manifest.json").unlink()
    shutil.move(tmp_path / "checkpoints" / "0", tmp_path / "elsewhere")
    (tmp_path / "checkpoints" / "0").symlink_to(tmp_path / "elsewhere")
    save(open_checkpoints(keep=1), 10)
    assert open_checkpoints().steps() == [10]
    assert (tmp_path / "elsewhere" / "manifest.json").exists()
    assert not (tmp_path / "checkpoints" / "best.json").exists()


def test_other_files_stay(open_checkpoints, tmp_path):
    """Entries whose names aren't those of steps are not checkpoints, and are left alone."""
    save(open_checkpoints(), 5)
    for name in ("060", "\u0669", "5.old"):
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / "12").write_text("a file")
    assert open_checkpoints().steps() == [5]
    assert int(open_checkpoints().restore(make_state(1))[0].step) == 5
    save(open_checkpoints(keep=1), 10)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"060", "\u0669", "5.old", "12", "10"}


def test_a_name_that_is_taken(open_checkpoints, tmp_path, caplog):
    """A damaged checkpoint is moved beside an earlier one of the same step; its manifest may even be a pipe."""
    save(open_checkpoints(), 5, 10)
    (tmp_path / "damaged_checkpoints" / "10-1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "10" / "manifest.json").unlink()
    os.mkfifo(tmp_path / "checkpoints" / "10" / "manifest.json")
    assert_falls_back(open_checkpoints, caplog)
    assert {path.name for path in (tmp_path / "damaged_checkpoints").iterdir()} == {"10-0", "10-1"}


def test_not_folders(open_checkpoints, tmp_path):
    """A file named damaged_checkpoints, and a link to an unmounted disk, are one line each; the run doesn't start again."""
    save(open_checkpoints(), 5)
    truncate(files_of(tmp_path / "checkpoints" / "5")[0])
    (tmp_path / "damaged_checkpoints").write_text("a file")
    with pytest.raises(InputError, match="damaged_checkpoints can't be used"):
        open_checkpoints().restore(make_state(1))
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").symlink_to(tmp_path / "mnt" / "big")
    with pytest.raises(InputError, match="is a broken link"):
        open_checkpoints()


def test_a_folder_named_by_a_number_that_is_too_large(open_checkpoints, tmp_path):
    """No step has more than 64 bits, or the processes couldn't agree on it."""
    save(open_checkpoints(), 5)
    shutil.copytree(tmp_path / "checkpoints" / "5", tmp_path / "checkpoints" / "99999999999999999999999")
    state, _ = open_checkpoints().restore(make_state(1))
    assert int(state.step) == 5


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt"])
def test_a_file_cut_short_before_it_was_hashed(open_checkpoints, tmp_path, caplog, name):
    """A full disk cut it short: the hashes match, orbax can't read it, and the previous checkpoint is restored."""
    save(open_checkpoints(), 5, 10)
    folder = tmp_path / "checkpoints" / "10"
    (folder / "default" / name).write_bytes(b"")
    rewrite_manifest(folder, files=checkpoint._hashes(folder))
    assert_falls_back(open_checkpoints, caplog)


@pytest.mark.parametrize("name", [".DS_Store", ".nfs0000000001b5d6e80000002c", "Thumbs.db"])
def test_files_that_others_add(open_checkpoints, tmp_path, caplog, name):
    """What a file manager or a network disk puts into every folder of a checkpoint is no damage."""
    save(open_checkpoints(), 5, 10)
    for step in ("5", "10"):
        folder = tmp_path / "checkpoints" / step
        for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            (place / name).write_bytes(b"\0")
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], make_state(10))
    assert "damaged" not in caplog.text
    assert not (tmp_path / "damaged_checkpoints").exists()


def test_an_old_checkpoint_that_cannot_be_removed(open_checkpoints, tmp_path, caplog, monkeypatch):
    """A file that a network disk keeps is told in a line, and training goes on."""

    def busy(folder):
        raise OSError(16, "Device or resource busy", str(folder))

    checkpoints = open_checkpoints(keep=1)
    save(checkpoints, 5)
    monkeypatch.setattr(checkpoint, "_delete", busy)
    save(checkpoints, 10)
    assert "checkpoint 5 can't be removed (Device or resource busy)" in caplog.text
    assert_same_bits(open_checkpoints(keep=1).restore(make_state(1))[0], make_state(10))


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_run_whose_folder_is_gone(tmp_path, elsewhere):
    """Removed or renamed during the run: a save says so in one line, and makes no new folder of that name."""
    run = tmp_path / "run"
    with contextlib.closing(Checkpoints(run / "checkpoints", keep=2, rows=300)) as checkpoints:
        save(checkpoints, 5)
        run.rename(tmp_path / "renamed")
        if not elsewhere:
            shutil.rmtree(tmp_path / "renamed")
        with pytest.raises(InputError, match=rf"{run} was removed or renamed .*; fix: move it back"):
            save(checkpoints, 10)
        assert not run.exists()
        if elsewhere:
            (tmp_path / "renamed").rename(run)
            save(checkpoints, 10)
            assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(10))


def test_what_kills_leave(open_checkpoints, tmp_path):
    """One checkpoint more than are kept, and one that orbax hadn't finished, are gone once the run goes on."""
    killed = open_checkpoints(keep=1)
    killed._delete_old = lambda: None
    save(killed, 5, 10)
    shutil.copytree(tmp_path / "checkpoints" / "10", tmp_path / "checkpoints" / "15.orbax-checkpoint-tmp")
    checkpoints = open_checkpoints(keep=1)
    assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(10))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["10"]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(28, "No space left on device"), "make room"),
        (ValueError("tensorstore: RESOURCE_EXHAUSTED: error writing: No space left on device [x]"), "make room"),
        (OSError(24, "Too many open files"), r"raise the limit of open files \(ulimit -n\)"),
        (OSError(13, "Permission denied"), "get the permission"),
        (MemoryError(), "raise the limit of memory"),
        (ValueError("something else"), "repair that"),
    ],
)
def test_advice(open_checkpoints, monkeypatch, error, advice):
    """A checkpoint that can't be written says what to do about the reason, and to make room only where there is none."""
    checkpoints = open_checkpoints()

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(checkpoints._manager, "save", fail)
    with pytest.raises(InputError, match=rf"checkpoint 10 can't be written in .*; fix: [^;]*{advice}"):
        save(checkpoints, 10)
