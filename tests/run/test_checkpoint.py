"""Checkpoints: what is saved comes back bit for bit, and damage of any kind costs one checkpoint, never the run."""

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
from adsq_jax.errors import InputError
from adsq_jax.run import checkpoint, workdir
from adsq_jax.run.checkpoint import Checkpoints
from adsq_jax.training.state import ImgNetState, LabelNetState, TrainState


def make_state(step, *, twin=True, bits=6, momentum=None):
    """A state as training has it: nested dataclasses with an optimiser's state, of several dtypes, and awkward floats."""
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


def assert_same_bits(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()


@pytest.fixture
def open_checkpoints(tmp_path):
    """Opens the folder anew, as another process would."""
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
    """A state and its info come back in another process bit for bit: -0, NaN, subnormals, bfloat16, and None where it was."""
    state = make_state(7, twin=twin)
    open_checkpoints().save(7, state, info={"seconds": 12.5, "words": ["a", None]}, measured=None)
    found, info = open_checkpoints().restore(make_state(8, twin=twin))
    assert_same_bits(found, state)
    assert info["seconds"] == 12.5
    assert info["words"] == ["a", None]


def test_nothing_there(open_checkpoints):
    """A new folder has no checkpoint."""
    assert open_checkpoints().restore(make_state(0)) is None
    assert open_checkpoints().steps() == []


def test_newest_of_several(open_checkpoints):
    """The newest is restored, step 0 counts, and only as many stay as asked for."""
    checkpoints = open_checkpoints(keep=2)
    save(checkpoints, 0)
    assert int(checkpoints.restore(make_state(1))[0].step) == 0
    save(checkpoints, 5, 10)
    assert checkpoints.steps() == [5, 10]
    assert_same_bits(open_checkpoints(keep=2).restore(make_state(1))[0], make_state(10))


def files_of(folder):
    """Every file of a checkpoint that holds anything, the largest first."""
    return sorted(
        (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size), key=lambda p: -p.stat().st_size
    )


def assert_falls_back(open_checkpoints, caplog):
    """Of 5 and 10, the latter damaged: 5 is restored, 10 is gone, and can be saved again."""
    checkpoints = open_checkpoints()
    found, info = checkpoints.restore(make_state(1))
    assert_same_bits(found, make_state(5))
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
    """Where the file with the arrays is damaged, the checkpoint before it is restored, and the bad one goes."""
    save(open_checkpoints(), 5, 10)
    damage(files_of(tmp_path / "checkpoints" / "10")[0])
    assert_falls_back(open_checkpoints, caplog)


def test_all_files_cut_short(open_checkpoints, tmp_path, caplog):
    """The same where every file is cut short, as after a power cut."""
    save(open_checkpoints(), 5, 10)
    for path in files_of(tmp_path / "checkpoints" / "10"):
        truncate(path)
    assert_falls_back(open_checkpoints, caplog)


def test_empty_step_folder(open_checkpoints, tmp_path, caplog):
    """The same where the newest folder is empty."""
    save(open_checkpoints(), 5, 10)
    shutil.rmtree(tmp_path / "checkpoints" / "10")
    (tmp_path / "checkpoints" / "10").mkdir()
    assert_falls_back(open_checkpoints, caplog)


def test_any_file_damaged(open_checkpoints, tmp_path):
    """Whichever file is damaged, in whichever way, what is restored is one of the saved states, never a mixture."""
    save(open_checkpoints(), 5, 10)
    original = tmp_path / "original"
    shutil.copytree(tmp_path / "checkpoints", original)
    whole = {5: make_state(5), 10: make_state(10)}
    for name in [path.relative_to(original) for path in files_of(original / "10")]:
        for damage in (truncate, flip, unlink):
            shutil.rmtree(tmp_path / "checkpoints")
            shutil.copytree(original, tmp_path / "checkpoints")
            damage(tmp_path / "checkpoints" / name)
            found, _ = open_checkpoints().restore(make_state(1))
            assert_same_bits(found, whole[int(found.step)])


def test_all_damaged(open_checkpoints, tmp_path):
    """Where no checkpoint is whole there is none, and the run can begin anew in the same folder."""
    save(open_checkpoints(), 5, 10)
    for step in ("5", "10"):
        flip(files_of(tmp_path / "checkpoints" / step)[0])
    checkpoints = open_checkpoints()
    assert checkpoints.restore(make_state(1)) is None
    save(checkpoints, 5)
    assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(5))


def test_killed_save(open_checkpoints, tmp_path):
    """What a save leaves behind that was killed half-way is no checkpoint and is in no one's way."""
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
    """A whole checkpoint of other networks is not damaged: the error names a part that differs, and nothing is deleted."""
    save(open_checkpoints(), 5, 10)
    checkpoints = open_checkpoints()
    with pytest.raises(InputError, match=key) as caught:
        checkpoints.restore(make_state(1, **other))
    assert "\n" not in str(caught.value)
    assert "checkpoints" in str(caught.value)
    assert checkpoints.steps() == [5, 10]
    assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(10))


def test_a_full_disk(open_checkpoints):
    """A checkpoint that can't be written is one line with the reason; the one before it stays, and later it can be."""
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


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    as_root("mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "tmpfs", tmp_path)
    yield tmp_path
    as_root("umount", "--lazy", tmp_path)


def as_root(*command):
    subprocess.run([*([] if os.getuid() == 0 else ["sudo", "-n"]), *command], check=True)


@pytest.mark.system
def test_a_disk_that_fills_up(small_disk, open_checkpoints):
    """Where the disk is full the error says so in one line; what was saved stays, and with room the save succeeds."""
    save(open_checkpoints(), 5)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filling").write_bytes(bytes(2**20))
    with pytest.raises(InputError, match=r"checkpoint 10 can't be written in .*No space left.*: make room"):
        save(open_checkpoints(), 10)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], make_state(5))
    (small_disk / "filling").unlink()
    save(open_checkpoints(), 10)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], make_state(10))


@pytest.mark.system
def test_a_disk_that_is_read_only(small_disk, open_checkpoints):
    """Nothing can be saved, which one line says; what is there can be restored."""
    save(open_checkpoints(), 5)
    as_root("mount", "-o", "remount,ro", small_disk)
    checkpoints = open_checkpoints()
    with pytest.raises(InputError, match=r"checkpoint 10 can't be written in .*Read-only file system"):
        save(checkpoints, 10)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], make_state(5))


def test_a_checkpoint_without_its_manifest_was_not_finished(open_checkpoints, tmp_path, caplog):
    """Killed before that was written it counts for nothing; the one before it is still there, though only one is kept."""
    save(open_checkpoints(keep=1), 5)
    manager = open_checkpoints(keep=1)
    manager._delete_old = lambda: None  # killed before this
    save(manager, 10)
    (tmp_path / "checkpoints" / "10" / "manifest.json").unlink()
    assert_falls_back(open_checkpoints, caplog)


def test_the_best_stays_beside_the_newest(open_checkpoints, tmp_path):
    """Of six checkpoints the newest two and the best by what was measured stay; best.json names it."""
    checkpoints = open_checkpoints(keep=2)
    for step, measured in enumerate((0.1, 0.7, 0.3, 0.7, 0.2, None)):
        checkpoints.save(step, make_state(step), info={}, measured=measured)
        checkpoints = open_checkpoints(keep=2)
    assert checkpoints.steps() == [3, 4, 5]
    assert json.loads((tmp_path / "checkpoints" / "best.json").read_text()) == {"step": 3, "measured": 0.7}
    assert int(checkpoints.restore(make_state(1))[0].step) == 5


def test_a_filling_is_no_part_of_a_checkpoint(open_checkpoints):
    """Rows that fill up bank and codes for the devices are cut, whatever their number."""
    state = make_state(5)
    net = state.img_nets["f"]
    filled = replace(net, bank=np.concatenate([net.bank, np.zeros((20, 6), np.float32)]))
    codes = np.concatenate([state.codes, np.zeros((20, 6), np.int8)])
    filled = replace(state, img_nets={**state.img_nets, "f": filled}, codes=codes)
    open_checkpoints().save(5, filled, info={}, measured=None)
    assert_same_bits(open_checkpoints().restore(make_state(1))[0], state)
    assert_same_bits(open_checkpoints().restore(filled)[0], state)


def test_an_object_store(bucket, caplog):
    """On s3:// states come back bit for bit, the newest two stay, and a damaged one is put aside and can be saved again."""
    directory = workdir.path(f"{bucket}/run/checkpoints")

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
        found, info = checkpoints.restore(make_state(1))
        assert_same_bits(found, make_state(5))
        assert info == {"seconds": 5 / 4}
        assert "checkpoint 10 is damaged" in caplog.text
        save(checkpoints, 10)
        assert_same_bits(checkpoints.restore(make_state(1))[0], make_state(10))
    assert storage.is_file(workdir.path(f"{bucket}/run/damaged_checkpoints/10-0/manifest.json"))


def rewritten(folder, **changes):
    """Gives a checkpoint another manifest, with the right hash."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    del manifest["sha256"]
    workdir.write_json(folder / "manifest.json", {**manifest, "sha256": checkpoint._hash_of(manifest)})


@pytest.mark.parametrize(
    "changes",
    [{"files": {"../../config.json": "0"}}, {"files": [1]}, {"info": None}, {"layout": ["a"]}],
)
def test_a_manifest_that_is_none(open_checkpoints, tmp_path, caplog, changes):
    """Whatever a manifest says, the files below the folder are looked at and no others, and the one before is restored."""
    save(open_checkpoints(), 5, 10)
    rewritten(tmp_path / "checkpoints" / "10", **changes)
    assert_falls_back(open_checkpoints, caplog)


@pytest.mark.parametrize("measured", ["high", [1], float("inf")])
def test_what_was_measured_is_no_number(open_checkpoints, tmp_path, measured):
    """It counts as nothing; so does an old checkpoint that was half deleted, or a link in its place, which goes alone."""
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


def test_what_is_none_of_ours_stays(open_checkpoints, tmp_path):
    """Names that a step isn't written by are no checkpoints, and left alone."""
    save(open_checkpoints(), 5)
    for name in ("060", "\u0669", "5.old"):
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / "12").write_text("a file")
    assert open_checkpoints().steps() == [5]
    assert int(open_checkpoints().restore(make_state(1))[0].step) == 5
    save(open_checkpoints(keep=1), 10)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"060", "\u0669", "5.old", "12", "10"}


def test_a_place_that_is_taken(open_checkpoints, tmp_path, caplog):
    """A damaged checkpoint is put beside an earlier one of the same step, whatever is there; a manifest may be a pipe."""
    save(open_checkpoints(), 5, 10)
    (tmp_path / "damaged_checkpoints" / "10-1").mkdir(parents=True)
    (tmp_path / "checkpoints" / "10" / "manifest.json").unlink()
    os.mkfifo(tmp_path / "checkpoints" / "10" / "manifest.json")
    assert_falls_back(open_checkpoints, caplog)
    assert {path.name for path in (tmp_path / "damaged_checkpoints").iterdir()} == {"10-0", "10-1"}


def test_folders_that_are_none(open_checkpoints, tmp_path):
    """A file for the damaged ones, and a link to a disk that isn't mounted, are one line each; nothing is begun again."""
    save(open_checkpoints(), 5)
    truncate(files_of(tmp_path / "checkpoints" / "5")[0])
    (tmp_path / "damaged_checkpoints").write_text("a file")
    with pytest.raises(InputError, match="damaged_checkpoints can't be used"):
        open_checkpoints().restore(make_state(1))
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").symlink_to(tmp_path / "mnt" / "big")
    with pytest.raises(InputError, match="a link to what isn't there"):
        open_checkpoints()


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt"])
def test_what_was_cut_short_before_it_was_hashed(open_checkpoints, tmp_path, caplog, name):
    """As by a disk that was full: the hashes are right, orbax can't read it, and the one before is restored."""
    save(open_checkpoints(), 5, 10)
    folder = tmp_path / "checkpoints" / "10"
    (folder / "default" / name).write_bytes(b"")
    rewritten(folder, files=dict(checkpoint._hashes(folder)))
    assert_falls_back(open_checkpoints, caplog)
