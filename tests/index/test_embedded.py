"""The index in a folder: killed while it is written, damaged, on a full disk, with a second writer."""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.engines import embedded

from adsq_jax.errors import InputError
from adsq_jax.index import Item, filters, parse

KILLS = Path(__file__).parents[2] / "benchmarks" / "robustness" / "index_kills.py"


def filled(folder, n=100):
    engine = embedded(folder)
    with engine.create(bits=16) as opened:
        opened.add([Item(f"/{i}") for i in range(n)], np.arange(2 * n, dtype=np.uint8).reshape(n, 2))
    return engine


# Four processes that import LanceDB, and check all batches.
@pytest.mark.slow
def test_killed_while_adding(tmp_path):
    """After kill -9 at random moments the index opens, and holds every acknowledged batch once, new or replaced."""
    done = subprocess.run(
        [sys.executable, KILLS, "--kills=2", f"--folder={tmp_path}", "--out="], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills" in done.stdout


def test_killed_while_it_is_made(tmp_path):
    """An incomplete folder holds no index, and one can be made there."""
    (tmp_path / "index" / "codes.lance" / "data").mkdir(parents=True)
    (tmp_path / "index" / ".lock").touch()
    with pytest.raises(InputError, match="holds no index"):
        embedded(tmp_path).open()
    filled(tmp_path)
    with embedded(tmp_path).open() as opened:
        assert opened.count() == 100


@pytest.mark.parametrize("of", ["_versions", "data"])
@pytest.mark.parametrize("damage", ["cut", "noise", "gone"])
def test_damaged(tmp_path, of, damage):
    """Files that are cut short, overwritten or missing: a message of one line when it is opened or searched, never a crash."""
    engine = filled(tmp_path)
    for path in (tmp_path / "index" / "codes.lance" / of).iterdir():
        content = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(content[: len(content) // 2] if damage == "cut" else os.urandom(len(content)))
    for opened in (engine.open, lambda: engine.create(bits=16)):
        with pytest.raises(InputError) as raised:
            opened().search(np.zeros((1, 2), np.uint8), k=1)
        assert "\n" not in str(raised.value)
        assert str(tmp_path) in str(raised.value)


def test_a_pipe_instead_of_a_file(tmp_path):
    """It is refused without waiting for it."""
    engine = filled(tmp_path)
    (path,) = (tmp_path / "index" / "codes.lance" / "data").iterdir()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="is not a regular file"):
        engine.open()


def test_a_file_that_a_writer_removes_meanwhile(tmp_path, monkeypatch):
    """Files come and go in the folder of an index that is being written; those that were listed and are gone don't matter."""
    engine, walk = filled(tmp_path), os.walk
    monkeypatch.setattr(os, "walk", lambda root: ((folder, below, [*names, ".tmpAbC"]) for folder, below, names in walk(root)))
    with engine.open() as opened:
        assert opened.count() == 100


def test_stored_padding_must_be_zero(tmp_path, monkeypatch):
    """Codes that were not written by `add` are checked when they are read."""
    with embedded(tmp_path).create(bits=12) as opened:
        with monkeypatch.context() as patched:
            patched.setattr("adsq_jax.index.engine.check_codes", lambda codes, manifest: codes)
            opened.add([Item("/a")], np.full((1, 2), 255, np.uint8))
        with pytest.raises(InputError, match="is damaged"):
            opened.search(np.zeros((1, 2), np.uint8), k=1)


def test_many_small_adds_are_merged(tmp_path):
    """An add searches all fragments of the table: there must be fewer of them than adds."""
    with embedded(tmp_path).create(bits=16) as opened:
        for row in range(100):
            opened.add([Item(f"/{row}")], np.full((1, 2), row, np.uint8))
        assert opened._table.stats()["fragment_stats"]["num_fragments"] < 40
        found = opened.search(np.full((1, 2), 77, np.uint8), k=1, radius=0)
        assert opened.items(found.keys[0]) == [Item("/77")]


def test_one_add_a_process_is_merged_too(tmp_path):
    """What counts are the table's fragments, not the adds of the process that has it open."""
    engine, most = embedded(tmp_path), 36
    for row in range(most):
        with engine.create(bits=16) as opened:
            opened.add([Item(f"/{row}")], np.full((1, 2), row, np.uint8))
    with engine.open() as opened:
        assert opened._table.stats()["fragment_stats"]["num_fragments"] < 10
        assert sorted(opened.ids()) == sorted(f"/{row}" for row in range(most))


def test_the_lock_is_removed(tmp_path):
    """Who has lost the lock doesn't write, since another process may."""
    engine = embedded(tmp_path)
    with engine.create(bits=16) as first:
        (tmp_path / "index" / ".lock").unlink()
        with engine.create(bits=16) as second:
            second.add([Item("/second")], np.zeros((1, 2), np.uint8))
            with pytest.raises(InputError, match=r"\.lock was removed or replaced while the index was open"):
                first.add([Item("/first")], np.zeros((1, 2), np.uint8))
    with engine.open() as opened:
        assert list(opened.ids()) == ["/second"]


def test_a_table_is_never_overwritten(tmp_path, monkeypatch):
    """Not even where this library doesn't see that there is one."""
    engine = filled(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("adsq_jax.index.embedded._has_table", lambda folder: False)
        with pytest.raises(InputError):
            engine.create(bits=16)
    with engine.open() as opened:
        assert opened.count() == 100


def test_a_filter_that_takes_too_long(tmp_path, monkeypatch):
    """The filter is named, not the index, which answers the next question."""
    with filled(tmp_path).open() as opened:
        where = parse("path=*1*")
        assert opened.count(where=where)
        monkeypatch.setattr(filters, "MAX_SECONDS", 0.0)
        for ask in (opened.count, functools.partial(opened.search, np.zeros((1, 2), np.uint8), k=1)):
            with pytest.raises(InputError, match="the filter takes more than 0 seconds; fix: use fewer"):
                ask(where=where)
        assert opened.search(np.zeros((1, 2), np.uint8), k=1).keys.shape == (1, 1)


def test_filters_as_deep_and_long_as_they_may_be(tmp_path):
    """Each filter that is parsed is applied, in no time: the deepest in each form, many labels, many stars."""
    deep = "label=a"
    for level in range(20):
        deep = f"({deep} {'or' if level % 2 else 'and'} not path=/x/{level})"
    several = " or ".join(f"label={number}" for number in range(300)), " or ".join(["path=" + "*1" * 16] * 100)
    nested = "not (" * 20 + "label=a" + ")" * 20, "not " * 1_001 + "label=a", f"path=*{'a' * 4_000}*", f"path={'*' * 4_000}"
    with filled(tmp_path).open() as opened:
        began = time.monotonic()
        counts = [opened.count(where=parse(text)) for text in (deep, *several, *nested)]
        assert time.monotonic() - began < 2
        total = opened.count()
    assert counts[-1] == total
    assert all(0 <= count <= total for count in counts)


def test_replaced_and_not_refreshed(tmp_path):
    """The codes of the old index are gone before they were read: that is said, not that something is damaged."""
    engine = filled(tmp_path)
    with engine.open() as opened:
        engine.remove()
        filled(tmp_path, n=7)
        with pytest.raises(InputError, match=r"was written or replaced while it was open, and .* are gone; fix: open it again"):
            opened.search(np.zeros((1, 2), np.uint8), k=1)
        opened.refresh()
        assert opened.search(np.zeros((1, 2), np.uint8), k=10).keys.shape == (1, 7)


def test_a_full_disk(tmp_path):
    """Simulated by a limit on the size of files, in a process of its own: one line, and earlier items stay."""
    engine = filled(tmp_path)
    program = f"""
import resource, signal, sys
import numpy as np
from adsq_jax import index
from adsq_jax.errors import InputError
from adsq_jax.index import Item, filters, parse
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
opened = index.open_index({engine.location("index")!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    opened.add([Item(f"/more/{{i}}") for i in range(5000)], np.zeros((5000, 2), np.uint8))
except InputError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "can't be written (File too large (os error 27)); fix: make room" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    with engine.open() as opened:
        assert opened.count() == 100


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.parents[1] / "elsewhere")])
def test_a_lock_that_is_no_file(tmp_path, make):
    """The index can be read; adding is refused, even to root, with what to remove, and a link's target isn't made."""
    engine, lock = filled(tmp_path), tmp_path / "index" / ".lock"
    lock.unlink()
    make(lock)
    with engine.open() as opened:
        assert opened.count() == 100
        with pytest.raises(InputError, match=r"\.lock can't be locked \(it is not a regular file\); fix: remove it"):
            opened.add([Item("/more")], np.zeros((1, 2), np.uint8))
    assert not (tmp_path / "elsewhere").exists()


def test_an_index_that_was_moved_away(tmp_path):
    """Adding is refused, and makes no folder in its place."""
    engine = filled(tmp_path)
    with engine.open() as opened:
        (tmp_path / "index").rename(tmp_path / "moved")
        with pytest.raises(InputError, match=r"can't be locked \(No such file or directory\); fix: put it back"):
            opened.add([Item("/more")], np.zeros((1, 2), np.uint8))
    assert not (tmp_path / "index").exists()


def test_two_writers(tmp_path):
    """The second is refused while the first is open, and may write when that is closed."""
    engine = embedded(tmp_path)
    first = engine.create(bits=12)
    with pytest.raises(InputError, match="being written by another process"):
        engine.create(bits=12)
    second = engine.open()
    with pytest.raises(InputError, match="being written by another process"):
        second.add([Item("/0")], np.zeros((1, 2), np.uint8))
    first.add([Item(f"/{i}") for i in range(3)], np.zeros((3, 2), np.uint8))
    first.close()
    second.add([Item("/3")], np.zeros((1, 2), np.uint8))
    assert second.count() == 4
    second.close()
    with engine.create(bits=12) as opened:
        assert opened.count() == 4
