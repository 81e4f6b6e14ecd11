"""The folder of a run: which run may use it, what the others are told, and atomic writes of files."""

import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adsq_jax import storage
from adsq_jax.errors import InputError
from adsq_jax.run import output, workdir

CONFIG = {"bits": 24, "data": {"name": "digits", "mean": (0.5, 0.25)}, "arguments": {}}


def error_of(function, directory, config=CONFIG):
    with pytest.raises(InputError) as caught:
        function(directory, config)
    text = str(caught.value)
    assert "\n" not in text
    assert str(directory) in text
    return text


both = pytest.mark.parametrize("function", [workdir.claim, workdir.check])


def test_new_folder(tmp_path):
    """A missing folder is made, with its parents, and gets the config."""
    directory = tmp_path / "runs" / "one"
    with workdir.claim(directory, CONFIG):
        assert json.loads((directory / "config.json").read_text()) == json.loads(json.dumps(CONFIG))


def test_check_writes_nothing(tmp_path):
    """`check` writes nothing, whether the folder exists or not."""
    workdir.check(tmp_path / "new", CONFIG)
    workdir.check(tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_same_config_again(tmp_path):
    """The same config is accepted again, though JSON has lists for tuples, and the file isn't rewritten."""
    workdir.claim(tmp_path, CONFIG).close()
    before = (tmp_path / "config.json").stat()
    (tmp_path / "metrics.jsonl").write_text("")
    workdir.check(tmp_path, CONFIG)
    workdir.claim(tmp_path, CONFIG).close()
    assert (tmp_path / "config.json").stat().st_mtime_ns == before.st_mtime_ns


@both
def test_other_config(tmp_path, function):
    """Another config is refused; the message has each key that differs, with both values."""
    workdir.claim(tmp_path, CONFIG).close()
    content = (tmp_path / "config.json").read_bytes()
    other = {**CONFIG, "bits": 48, "data": {**CONFIG["data"], "name": "cifar10"}}
    text = error_of(function, tmp_path, other)
    assert "bits is 24 there and 48 here" in text
    assert "data.name is 'digits' there and 'cifar10' here" in text
    assert "mean" not in text
    assert (tmp_path / "config.json").read_bytes() == content


@both
def test_keys_that_may_change(tmp_path, function):
    """They are told, and the newest values kept, but not if another key differs; a key that is new counts as changed."""
    workdir.claim(tmp_path, CONFIG).close()
    other = {**CONFIG, "threads": 3, "data": {**CONFIG["data"], "name": "cifar10"}}
    may_change = ("data.name", "threads")
    assert "bits is 24 there and 48 here" in error_of(partial(function, may_change=may_change), tmp_path, {**other, "bits": 48})
    assert workdir.check(tmp_path, other, may_change=may_change) == [
        "data.name is 'digits' there and 'cifar10' here",
        "threads is None there and 3 here",
    ]
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(json.dumps(CONFIG))
    workdir.claim(tmp_path, other, may_change=may_change).close()
    assert workdir.check(tmp_path, other) == []


@both
def test_a_config_of_long_and_odd_names_is_refused_in_one_line(tmp_path, function):
    """Whatever keys and values are there."""
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "a\nb\u001b[31m": "x" * 10**6, "y" * 10**6: 1}))
    text = error_of(function, tmp_path, CONFIG)
    assert len(text) < 1_000 + len(str(tmp_path))
    assert r"a\nb\x1b[31m is 'xxx" in text


@both
@pytest.mark.parametrize("arguments", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_key_more_or_less(tmp_path, function, arguments):
    """A key that only one of the two configs has is a difference, whichever it is."""
    for number, (ours, theirs) in enumerate([(arguments, {}), ({}, arguments)]):
        directory = tmp_path / str(number)
        workdir.claim(directory, {**CONFIG, "arguments": ours}).close()
        assert "arguments.momentum" in error_of(function, directory, {**CONFIG, "arguments": theirs})


def test_many_differences(tmp_path):
    """Of many differences the message has three, and the number of the others."""
    workdir.claim(tmp_path, {str(k): 0 for k in range(10)}).close()
    text = error_of(workdir.check, tmp_path, {str(k): 1 for k in range(10)})
    assert text.count("there and") == 3
    assert "and 7 more" in text


@both
def test_file_in_place_of_a_folder(tmp_path, function):
    """A file in place of the folder is refused, and stays."""
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    assert "is a file" in error_of(function, path)
    assert path.read_text() == "mine"


@both
def test_folder_with_other_files(tmp_path, function):
    """A folder with other files is refused, and nothing in it changes."""
    (tmp_path / "thesis.tex").write_text("mine")
    assert "holds other files" in error_of(function, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_dotfiles_are_not_foreign(tmp_path):
    """The leftovers of a killed start, a lock and a half-written config, don't count as other files."""
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.json.k3x_").write_text('{"bi')
    workdir.claim(tmp_path, CONFIG).close()
    assert workdir.read_json(tmp_path / "config.json")["bits"] == 24


@pytest.mark.parametrize(
    ("path", "message"),
    [("file.txt/run", "is a file, or below a file"), ("/proc/run", "can't be used"), ("n" * 300, "can't be used")],
)
def test_folder_that_cannot_be_made(tmp_path, path, message):
    """A folder below a file, or where no folder can be made, is refused with the system's reason."""
    (tmp_path / "file.txt").touch()
    assert message in error_of(workdir.claim, tmp_path / path)


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    """If the config can't be written, for instance on a full disk, the claim fails with the system's reason."""

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert "No space left on device" in error_of(workdir.claim, tmp_path)


def test_in_use(tmp_path):
    """While the folder is claimed, a second claim fails; after the first is closed, the next succeeds."""
    with workdir.claim(tmp_path, CONFIG):
        assert "in use" in error_of(workdir.claim, tmp_path)
        workdir.check(tmp_path, CONFIG)
    workdir.claim(tmp_path, CONFIG).close()


def test_in_use_by_another_process(tmp_path):
    """The claim of another process counts until that process is killed."""
    code = "import sys, pathlib\nfrom adsq_jax.run import workdir; "
    code += "lock = workdir.claim(pathlib.Path(sys.argv[1]), {'bits': 24}); print('claimed', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "claimed\n"
            assert "in use" in error_of(workdir.claim, tmp_path, {"bits": 24})
        finally:
            process.kill()
    workdir.claim(tmp_path, {"bits": 24}).close()


@both
@pytest.mark.parametrize("content", [b"", b'{"bits": 2', b"\xff\xfe\x00", b"[1]", b"null"])
def test_damaged_config(tmp_path, function, content):
    """A config.json that is cut short, not text, or not a config is refused, and stays as it is."""
    (tmp_path / "config.json").write_bytes(content)
    error_of(function, tmp_path)
    assert (tmp_path / "config.json").read_bytes() == content


def test_config_json_is_a_folder(tmp_path):
    """A folder named config.json is refused in one line."""
    (tmp_path / "config.json").mkdir()
    assert "can't be read as JSON" in error_of(workdir.check, tmp_path)


def test_read_json_of_a_missing_file(tmp_path):
    """The error names the missing file."""
    with pytest.raises(InputError, match=r"result\.json can't be read"):
        workdir.read_json(tmp_path / "result.json")


def test_write_json(tmp_path):
    """The content comes back, the file is text with sorted keys that others may read, and a second write replaces it."""
    path = tmp_path / "result.json"
    workdir.write_json(path, {"b": 1, "a": [0.1, None, "x"]})
    workdir.write_json(path, {"b": 2, "a": [0.1, None, "x"]})
    assert workdir.read_json(path) == {"a": [0.1, None, "x"], "b": 2}
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_and_the_folder_above_its_target(tmp_path):
    """LINK/../run is beside the link's target."""
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep")
    workdir.claim(tmp_path / "link" / ".." / "run", {"a": 1}).close()
    assert workdir.read_json(tmp_path / "disk" / "run" / "config.json") == {"a": 1}


def test_a_name_as_long_as_names_may_be(tmp_path):
    """A file with the longest possible name can be written: the temporary file's name is not longer."""
    workdir.write_bytes(tmp_path / (255 * "a"), b"content")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(255 * "a", b"content")]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_write_array(tmp_path, dtype):
    """An array comes back with its values, shape and dtype."""
    array = np.arange(12).reshape(3, 4).astype(dtype)
    workdir.write_array(tmp_path / "codes.npy", array)
    found = np.load(tmp_path / "codes.npy", allow_pickle=False)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == dtype


def test_write_array_of_objects(tmp_path):
    """An array of objects, which only pickle could write, is refused, and leaves no file."""
    with pytest.raises(ValueError, match="allow_pickle"):
        workdir.write_array(tmp_path / "codes.npy", np.array([{}], dtype=object))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", ["replace", "fsync"])
@pytest.mark.parametrize("there", [False, True])
def test_a_write_that_fails(tmp_path, monkeypatch, at, there):
    """A write that fails, at whatever point, leaves the old file or none, and no temporary file."""

    def fail(*args):
        raise OSError(28, "No space left on device")

    path = tmp_path / "result.json"
    if there:
        workdir.write_json(path, {"map": 0.5})
    monkeypatch.setattr(os, at, fail)
    with pytest.raises(OSError, match="No space left"):
        workdir.write_json(path, {"map": 0.75})
    with pytest.raises(OSError, match="No space left"):
        workdir.write_array(path, np.zeros(3))
    assert list(tmp_path.iterdir()) == ([path] if there else [])
    assert not there or workdir.read_json(path) == {"map": 0.5}


def test_a_write_shows_all_at_once(tmp_path, monkeypatch):
    """Readers see the whole old file until the whole new one replaces it."""
    path, replace, contents = tmp_path / "result.json", os.replace, []

    def watch(source, target):
        contents.append((workdir.read_json(path), json.loads(Path(source).read_text())))
        replace(source, target)

    workdir.write_json(path, {"map": 0.5})
    monkeypatch.setattr(os, "replace", watch)
    workdir.write_json(path, {"map": 0.75})
    assert contents == [({"map": 0.5}, {"map": 0.75})]
    assert workdir.read_json(path) == {"map": 0.75}


def npy(description, shape, *, version=1, numbers=bytes(12)):
    """A .npy file whose header says anything."""
    header = f"{{'descr': {description!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 if version == 1 else 4, "little") + header + numbers


HEADERS = (
    *(npy("|S0", "(-1,)", version=version) for version in (1, 2, 3)),  # NumPy divides by its size of 0: the process ended
    *(npy(kind, shape) for kind in ("|S0", "<U0", "|V0") for shape in ("()", "(3,)", "(0,)", "(-1,)")),
    *(npy("|u1", shape) for shape in ("(-1,)", "(-3, -4)", "(13,)", f"({2**62}, 4)", f"({10**30},)", "(3.5,)", "3", "None")),
    *(npy(kind, "(3,)", version=version) for kind, version in (("|O", 1), ("x", 1), ("|u1", 0), ("|u1", 9), ("<f8", 1))),
)


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_a_header_that_says_more_than_there_is(tmp_path, header):
    """Negative and huge shapes, elements of no bytes, unknown types: one line; no crash, and nothing is allocated."""
    (tmp_path / "codes.npy").write_bytes(header)
    with pytest.raises(InputError, match="can't be read as codes") as raised:
        workdir.read_array(tmp_path / "codes.npy", description="codes")
    assert "\n" not in str(raised.value)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=3), st.integers(0, 700))
def test_a_damaged_array_is_read_or_refused_in_one_line(changes, cut):
    """With header bytes changed and the end cut off, the result is an array or an InputError of one line, nothing else."""
    buffer = io.BytesIO()
    np.save(buffer, np.arange(100.0))
    damaged = bytearray(buffer.getvalue()[: len(buffer.getvalue()) - max(0, cut - 350)])
    for position, value in changes:
        damaged[position % len(damaged)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        path.write_bytes(damaged)
        try:
            assert isinstance(workdir.read_array(path, description="numbers"), np.ndarray)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


def test_an_array_that_numpy_gives_up_on_is_refused(tmp_path):
    """A header of the wrong length, for which NumPy raises an error of Python's tokenizer, is refused; so is a pipe."""
    np.save(tmp_path / "x.npy", np.zeros((20, 16), np.float32))
    content = bytearray((tmp_path / "x.npy").read_bytes())
    content[8] = 149
    content[10] = 151
    (tmp_path / "x.npy").write_bytes(content)
    os.mkfifo(tmp_path / "pipe.npy")
    for name in ("x.npy", "pipe.npy"):
        with pytest.raises(InputError, match="can't be read as numbers"):
            workdir.read_array(tmp_path / name, description="numbers")


def test_a_folder_of_a_store(bucket):
    """In an object store too, the folder gets the config and is refused to another one."""
    directory = storage.path(f"{bucket}/runs/one")
    workdir.check(directory, CONFIG)
    for _ in range(2):
        with workdir.claim(directory, CONFIG):
            assert workdir.read_json(directory / "config.json") == json.loads(json.dumps(CONFIG))
    assert storage.entries(directory) == {"config.json": False}
    for function in (workdir.claim, workdir.check):
        assert "bits is 24 there and 48 here" in error_of(function, directory, {**CONFIG, "bits": 48})


def test_a_folder_of_a_store_that_others_claim_too(bucket, monkeypatch):
    """If another run writes its config between this run's check and write, one of the two is refused."""
    directory, write_json = storage.path(f"{bucket}/runs/one"), workdir.write_json

    def write_twice(path, content):
        write_json(path, content)
        write_json(path, {**content, "bits": 48})

    monkeypatch.setattr(workdir, "write_json", write_twice)
    assert "bits is 48 there and 24 here" in error_of(workdir.claim, directory)


@both
def test_a_folder_of_a_store_that_is_not_a_run_s(bucket, function):
    """A folder of a store with other files is refused, and nothing is written there."""
    directory = storage.path(f"{bucket}/pictures")
    storage.write(directory / "cats" / "1.png", b"1")
    assert "holds other files and no config.json" in error_of(function, directory)
    storage.write(directory / "config.json", b'{"bits": 2')
    assert "can't be read as JSON" in error_of(function, directory)
    assert list(storage.objects(directory)) == [b"cats/1.png", b"config.json"]


@both
def test_a_store_that_refuses(refused, function):
    """If the store can't be used, one line says why."""
    assert "can't be used (Unable to locate credentials)" in error_of(function, storage.path(f"{refused}/runs/one"))


def test_a_bucket_that_is_not_there(bucket):
    """`check` may take a missing bucket for a new folder; `claim` names it as missing."""
    assert "The specified bucket does not exist" in error_of(workdir.claim, storage.path("s3://no-such-bucket/one"))


@pytest.mark.parametrize(
    "array", [np.arange(12, dtype=np.uint8).reshape(3, 4), np.asfortranarray(np.eye(3)), np.float32(3), np.ones((0, 3))]
)
def test_arrays_in_a_store(bucket, array):
    """An array in a store comes back with its values, shape and dtype, and read-only like one mapped from a disk."""
    path = storage.path(f"{bucket}/codes.npy")
    workdir.write_array(path, np.asarray(array))
    found = workdir.read_array(path, description="codes")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.asarray(array).dtype
    assert not found.flags.writeable


def bytes_of(array, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"1 0 1", bytes_of(np.arange(100))[:-8], bytes_of(np.array([{}]), allow_pickle=True)],
    ids=["no bytes", "text", "cut short", "objects"],
)
def test_what_is_no_array_in_a_store(bucket, tmp_path, content):
    """A file that isn't an array, and a missing file, are refused in one line, on a disk and in a store."""
    for path in (tmp_path / "x.npy", storage.path(f"{bucket}/x.npy")):
        workdir.write_bytes(path, content)
        with pytest.raises(InputError, match="can't be read as codes") as caught:
            workdir.read_array(path, description="codes")
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match="expected a regular file"):
            workdir.read_array(path.parent / "none.npy", description="codes")


def test_an_array_in_a_store_that_refuses(refused):
    """A store that refuses access is another error than a missing file."""
    with pytest.raises(InputError, match=r"can't be read as codes \(Unable to locate credentials\)"):
        workdir.read_array(storage.path(f"{refused}/x.npy"), description="codes")


@pytest.mark.parametrize("name", ["config.json", ".lock"])
def test_a_pipe_in_place_of_a_file(name, tmp_path):
    """A pipe is refused at once: nobody waits for its other end."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=str(tmp_path)):
        workdir.claim(tmp_path, {"a": 1})


def test_writing_gives_the_systems_reason(tmp_path):
    """The error of a file that can't be written is one line with the path, shortened, and the system's reason."""
    with (
        pytest.raises(InputError, match=r"^--out=\S*/nowhere/x can't be written \(No such file or directory\); fix: "),
        output.writing(tmp_path / "nowhere" / "x"),
    ):
        workdir.write_bytes(tmp_path / "nowhere" / "x", b"")
    with (
        pytest.raises(InputError, match=r"^--out=a{200} can't be written \(File name too long\)"),
        output.writing(Path(300 * "a")),
    ):
        os.stat(300 * "a")


def test_a_lock_that_somebody_removes(tmp_path):
    """`rm .lock` lets no second run in: the folder itself is locked; and `.lock`, which older versions take, is locked too."""
    with workdir.claim(tmp_path, CONFIG):
        (tmp_path / ".lock").unlink()
        assert "in use" in error_of(workdir.claim, tmp_path)
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "in use" in error_of(workdir.claim, tmp_path)
    workdir.claim(tmp_path, CONFIG).close()


def test_a_network_disk_that_locks_no_folders(tmp_path, monkeypatch):
    """NFS locks only what is open for writing: there, `.lock` alone is locked."""
    flock = fcntl.flock

    def nfs(descriptor, operation):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(9, "Bad file descriptor")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", nfs)
    with workdir.claim(tmp_path, CONFIG):
        assert "in use" in error_of(workdir.claim, tmp_path)


def test_what_kills_leave(tmp_path):
    """Temporary files of writes that were killed are removed by the next run; files of any other name stay."""
    workdir.claim(tmp_path, CONFIG).close()
    (tmp_path / "codes").mkdir()
    leftovers = [
        tmp_path / ".result.json.k3x_9abc",
        tmp_path / ".metrics.jsonl.00000000",
        tmp_path / "codes" / ".f.npy.abcdefgh",
    ]
    others = [tmp_path / name for name in (".notes.json", ".token.json", ".result.json.mine", "result.json.k3x_9abc")]
    for path in (*leftovers, *others):
        path.write_text("x")
    workdir.check(tmp_path, CONFIG)
    assert all(path.exists() for path in leftovers)
    workdir.claim(tmp_path, CONFIG).close()
    assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in others)


@both
@pytest.mark.parametrize("depth", [60, 900, 100_000])
@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_a_config_that_is_nested_deep(tmp_path, function, opening, depth):
    """Nested deeper than any of ours, it is refused in one line."""
    (tmp_path / "config.json").write_text(opening * depth + "1" + ("}" if ":" in opening else "]") * depth)
    text = error_of(function, tmp_path)
    assert "config.json can't be read as JSON (" in text
    assert "nested deeper than" in text or depth > 60


def test_a_name_that_is_too_long_for_what_it_is_to_hold(tmp_path):
    """A folder that can be made, and none of orbax's files below it, is refused before the work, in one line."""
    directory = tmp_path / "/".join(["d" * 200] * 20)
    for function in (workdir.claim, workdir.check):
        with pytest.raises(
            InputError, match=r"bytes as an absolute path: expected at most [\d,]+, .*; fix: give a shorter path"
        ):
            function(directory, CONFIG)
    assert list(tmp_path.iterdir()) == []


@both
def test_a_name_that_is_not_utf_8(tmp_path, function):
    """It is refused before the work, since orbax can't write there."""
    assert "is not UTF-8; fix: give a folder whose whole path is" in error_of(function, tmp_path / os.fsdecode(b"\xff"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_another(tmp_path):
    """An identity is that of the folder, not of its name; one of an object store is never checked."""
    run = tmp_path / "run"
    run.mkdir()
    identity = workdir.Identity(run)
    identity.check()
    run.rename(tmp_path / "renamed")
    for make in (None, run.write_bytes, run.mkdir):
        if make is not None:
            make(*([b""] if make == run.write_bytes else []))
        with pytest.raises(InputError, match="was removed or renamed"):
            identity.check()
        run.unlink() if run.is_file() else run.rmdir() if run.is_dir() else None
    (tmp_path / "renamed").rename(run)
    identity.check()
