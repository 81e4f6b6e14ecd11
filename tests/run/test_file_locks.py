"""Locks of files: one holder at a time, in one process or several; what stands in a lock's place; and systems without flock."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest
from support.mock_data import ROOT

from adsq_jax.run.file_locks import FileLock

HOLD = """
import pathlib, sys, time
from adsq_jax.run.file_locks import FileLock
lock = FileLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(100)
"""


def hold(path):
    """Start a process that holds a lock; return it once it does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "held\n"
    return process


def test_one_holder_at_a_time(tmp_path):
    """Another lock on the file is refused at once, until the first is closed, by any thread; the file stays, and is empty."""
    path = tmp_path / ".lock"
    first = FileLock(path)
    with pytest.raises(BlockingIOError):
        FileLock(path)
    closing = threading.Thread(target=first.close)
    closing.start()
    closing.join()
    FileLock(path).close()
    assert path.read_bytes() == b""


def test_the_lock_ends_with_the_process(tmp_path):
    """While another process holds it, it is refused; once that process is killed it is free."""
    path = tmp_path / ".lock"
    process = hold(path)
    with pytest.raises(BlockingIOError):
        FileLock(path)
    process.kill()
    process.communicate()
    FileLock(path).close()


def test_it_is_flock_on_the_same_file(tmp_path):
    """A program that locks the file by flock, as this package did, is respected, and respects it; what the file holds stays."""
    path = tmp_path / ".lock"
    path.write_text("kept")
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            FileLock(path)
    lock = FileLock(path)
    with path.open("r+") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.close()
    assert path.read_text() == "kept"


def test_who_removes_or_replaces_the_file_is_noticed(tmp_path):
    """The lock is then no longer in its place."""
    path = tmp_path / ".lock"
    lock = FileLock(path)
    assert lock.is_in_place()
    path.unlink()
    assert not lock.is_in_place()
    path.touch()
    assert not lock.is_in_place()
    lock.close()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_only_a_regular_file_is_locked(tmp_path, make):
    """A pipe, a folder and a link are an error at once, and nothing is made."""
    path = tmp_path / ".lock"
    make(path)
    with pytest.raises(OSError, match="not a regular file"):
        FileLock(path)
    assert os.listdir(tmp_path) == [".lock"]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    """Whoever removed it, or moved it away, doesn't find a new one in its place."""
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "gone" / ".lock")
    assert not os.listdir(tmp_path)


WITHOUT = """
import builtins, sys
original = builtins.__import__

def without(name, globals=None, locals=None, fromlist=(), level=0):
    if name in ("fcntl", "resource") and (globals or {}).get("__name__", "").startswith("adsq_jax"):
        raise ModuleNotFoundError(name, name=name)
    return original(name, globals, locals, fromlist, level)

builtins.__import__ = without
import adsq_jax, pathlib
from adsq_jax import __main__ as adsq
for name in adsq_jax.__all__:
    getattr(adsq_jax, name)
from adsq_jax import encode, evaluate, main, search
from adsq_jax.data import decoding_limits, decoding_worker
from adsq_jax.demo import connections, server
from adsq_jax.index import embedded
from adsq_jax.run import startup, workdir
startup.prepare()
assert startup.limit("RLIMIT_NOFILE") is None and startup.limit("RLIMIT_AS") is None
assert not decoding_limits.memory_is_limited()
place = pathlib.Path(sys.argv[1])
with workdir.claim(place, {"a": 1}):
    try:
        workdir.claim(place, {"a": 1})
    except adsq_jax.errors.InputError as error:
        print(error)
workdir.claim(place, {"a": 1}).close()
"""


def test_systems_without_fcntl_and_resource(tmp_path):
    """As on Windows: everything can be imported, and a folder is claimed by one run at a time."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT, tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"--workdir={tmp_path / 'run'} is in use by another run" in done.stdout
