"""Checksums of an index's files: each changed byte and each lost version is noticed, and kills leave nothing that isn't one."""

import contextlib
import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.engines import embedded

from adsq_jax.errors import InputError
from adsq_jax.index import Item, checksums

N = 60
CODES = np.random.default_rng(0).integers(0, 256, (N, 2), np.uint8)
ITEMS = [Item(f"/pictures/{row}", (f"label {row % 3}",), f"{row:064x}") for row in range(N)]


@pytest.fixture
def engine(tmp_path):
    """An index that was added to twice, of which items were replaced and deleted."""
    made = embedded(tmp_path)
    with made.create(bits=16) as opened:
        opened.add(ITEMS, CODES)
        opened.add(ITEMS[:7], CODES[:7])
        opened.delete([item.id for item in ITEMS[-2:]])
    return made


def table(engine):
    return Path(engine.location("index")) / "codes.lance"


def content(opened):
    found = opened.search(CODES, k=N)
    named = [item.id for item in opened.items(found.keys.reshape(-1))]
    scanned = sorted((item, code.tobytes()) for batch in opened.scan() for item, code, _ in zip(*batch, strict=True))
    return found.distances.tolist(), sorted(named), scanned, opened.count()


def refused(engine, match="is damaged|can't be read|holds no index|another version"):
    with pytest.raises(InputError, match=match) as raised, engine.open() as opened:
        content(opened)
    assert "\n" not in str(raised.value)
    assert engine.location("index") in str(raised.value)


# Each of 30 changed indexes is copied and opened, some 20 ms each.
def test_each_changed_byte_is_noticed(engine, tmp_path):
    """In each file of the newest version, at the start, at the end and between: an error, or the same answers."""
    with engine.open() as opened:
        before = content(opened)
    names = [*checksums.read(table(engine)).files, "checksums.json"]
    assert {name.split("/")[0] for name in names} == {"data", "_deletions", "_versions", "checksums.json"}
    messages = []
    for name in names:
        path = table(engine) / name
        whole = path.read_bytes()
        for position in np.linspace(0, len(whole) - 1, 5).astype(int):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            try:
                with engine.open() as opened:
                    assert content(opened) == before, (name, position)
            except InputError as error:
                messages.append(str(error))
        path.write_bytes(whole)
    assert len(messages) >= 5 * (len(names) - 1)
    assert not any("\n" in message for message in messages)


def test_a_lost_version_is_noticed(engine):
    """Without the newest manifest, LanceDB would open the version before it."""
    checksums.newest_manifest(table(engine)).unlink()
    refused(engine, match=r"is damaged \(version 4 is missing, the newest is 3\); fix: restore it")
    with pytest.raises(InputError, match="is missing"):
        engine.create(bits=16)


def test_a_change_while_it_is_open(engine):
    """What changes after the index was opened is noticed by the next question, whichever it is."""
    with engine.open() as opened:
        keys = opened.search(CODES[:1], k=3).keys[0]
        path = max((table(engine) / "data").iterdir(), key=lambda path: path.stat().st_size)
        path.write_bytes(path.read_bytes()[:-100] + b"x" * 100)
        for ask in (
            lambda: opened.items(keys),
            lambda: opened.find([ITEMS[0].id]),
            lambda: list(opened.scan()),
            lambda: list(opened.ids()),
            opened.count,
            lambda: opened.add(ITEMS[:1], CODES[:1]),
        ):
            with pytest.raises(InputError, match=rf"the file data/{path.name} has changed"):
                ask()


def test_an_index_without_checksums(engine):
    """An index that an earlier version of this library made opens, can be added to, and then has them."""
    with engine.open() as opened:
        before = content(opened)
    (table(engine) / "checksums.json").unlink()
    with engine.open() as opened:
        assert content(opened) == before
    with engine.create(bits=16) as opened:
        opened.add(ITEMS[:1], CODES[:1])
        assert content(opened) == before
    with engine.open() as opened:
        assert content(opened) == before
    assert len(checksums.read(table(engine)).files) > 3
    checksums.newest_manifest(table(engine)).unlink()
    refused(engine, match="is missing")


@pytest.mark.parametrize("then", ["read", "write"])
def test_killed_before_the_checksums_are_stored(engine, monkeypatch, then):
    """The table is newer than its checksums: it opens, what was stored before is still checked, the next write goes on."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    with engine.create(bits=16) as opened, monkeypatch.context() as patched:
        patched.setattr(checksums, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            opened.add([Item("/new")], CODES[:1])
    (table(engine) / "checksums.json.partial").write_bytes(b"{")  # as a kill while they are written leaves
    if then == "write":
        with engine.create(bits=16) as opened:
            opened.add([Item("/newer")], CODES[:1])
    with engine.open() as opened:
        assert opened.count() == N - 2 + (2 if then == "write" else 1)
        assert opened.search(CODES[:1], k=N).keys.shape == (1, opened.count())
    path = max((table(engine) / "data").iterdir(), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    refused(engine, match=rf"data/{path.name} has changed")


def test_killed_after_old_files_were_removed(engine):
    """Files that LanceDB has removed together with old versions are not missed."""
    stored = (table(engine) / "checksums.json").read_bytes()
    with engine.create(bits=16) as opened:
        opened._table.optimize(cleanup_older_than=datetime.timedelta(milliseconds=1))
        before = content(opened)
    (table(engine) / "checksums.json").write_bytes(stored)
    assert not all((table(engine) / name).exists() for name in checksums.read(table(engine)).files)
    with engine.open() as opened:
        assert content(opened) == before


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff",
        b"null",
        json.dumps({"format": 1, "version": 1, "items": 0, "files": {"../../../dev/zero": ""}}).encode(),
        json.dumps({"format": 1, "version": "1", "items": 0, "files": {}}).encode(),
        json.dumps({"format": 1, "version": 1, "items": 0, "files": []}).encode(),
        json.dumps({"format": 2, "version": 1, "items": 0, "files": {}}).encode(),
    ],
)
def test_damaged_checksums(engine, stored):
    """One line; no other file is opened for them."""
    (table(engine) / "checksums.json").write_bytes(stored)
    refused(engine, match=r"the file checksums\.json is damaged")


def test_a_copy_of_the_folder_is_an_index(engine, tmp_path):
    """Checksums name files by their paths below the table."""
    with engine.open() as opened:
        before = content(opened)
    shutil.copytree(engine.location("index"), tmp_path / "copy")
    with engine.open("copy") as opened:
        assert content(opened) == before


def test_advice_about_checksums_that_cannot_be_written(engine):
    """It isn't to make room where there is some."""
    (table(engine) / "checksums.json.partial").mkdir()
    with engine.open() as opened, pytest.raises(InputError, match=r"Is a directory.*; fix: repair that, and give"):
        opened.add(ITEMS[:1], CODES[:1])


@pytest.mark.parametrize("name", [".lock", "codes.lance/checksums.json.partial"])
def test_a_link_in_an_index_from_elsewhere_changes_no_other_file(engine, tmp_path, name):
    """What an index writes stays in its folder: a link there is replaced, or refused."""
    path, other = Path(engine.location("index")) / name, tmp_path / "other"
    if name != ".lock":  # which would be made
        other.write_text("kept")
    path.unlink(missing_ok=True)
    path.symlink_to(other)
    with contextlib.suppress(InputError), engine.open() as opened:
        opened.add(ITEMS[:1], CODES[:1])
    assert not other.exists() or other.read_text() == "kept"
