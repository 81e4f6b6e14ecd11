"""Copies of indexes: complete, continued, compared item by item; from Python and by the command."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.engines import embedded, milvus

from adsq_jax import index
from adsq_jax.errors import InputError
from adsq_jax.index import Item, copying, engine
from adsq_jax.index.__main__ import main

ROOT = Path(__file__).parents[2]
N = 1_000


@pytest.fixture(params=["embedded", pytest.param("milvus", marks=pytest.mark.system)])
def other(request, tmp_path):
    """The engine that copies are made to, and from."""
    return embedded(tmp_path / "other") if request.param == "embedded" else milvus(request.getfixturevalue("milvus"))


@pytest.fixture
def source(tmp_path):
    engine = embedded(tmp_path)
    (tmp_path / "other").mkdir()
    with engine.create(bits=12, model="/run") as opened:
        opened.add(made(), codes())
        yield opened


def made():
    return [Item(f"/ä {i}", ("cat", "")[: i % 3] if i % 3 else (), f"{i:064x}" if i % 2 else "") for i in range(N)]


def codes():
    packed = np.random.default_rng(0).integers(0, 256, (N, 2), np.uint8)
    packed[:, 1] &= 15
    return packed


def content(opened):
    return {item.id: (item, code.tobytes()) for some in opened.scan() for item, code, _ in zip(*some, strict=True)}


def copy(source, target):
    done = []
    return index.copy(source, target, on_progress=done.append), sum(done)


def test_there_and_back(source, other, tmp_path):
    """Every item with labels, hash and code; a second time nothing is added."""
    with other.create(bits=12) as target:
        assert copy(source, target) == ((N, 0, 0), N)
        assert content(target) == content(source)
        assert copy(source, target) == ((0, N, 0), N)
        with embedded(tmp_path).create("back", bits=12) as back:
            assert copy(target, back) == ((N, 0, 0), N)
            assert content(back) == content(source)


def test_only_what_differs_is_sent(source, other):
    """New items, and those of another code, label or hash; other items of the target stay, and are counted."""
    items, packed = made(), codes()
    with other.create(bits=12) as target:
        target.add(items[:900], packed[:900])
        target.add([items[0], items[1]._replace(labels=("x",)), items[2]._replace(sha256="f" * 64)], packed[[5, 1, 2]])
        target.add([Item("/more")], packed[:1])
        assert copy(source, target) == ((103, 897, 1), N)
        assert content(target).items() >= content(source).items()


def test_by_location(source, tmp_path):
    """Locations will do in place of open indexes; without a callback there is a progress bar."""
    assert index.copy(source.location, tmp_path / "copied") == (N, 0, 0)
    with embedded(tmp_path).open("copied") as opened:
        assert content(opened) == content(source)
        assert opened.manifest == source.manifest
    with pytest.raises(InputError, match="holds codes of 16 bits, and these have 12"):
        index.copy(source, embedded(tmp_path).create("longer", bits=16))


def test_a_copy_of_nothing(tmp_path):
    engine = embedded(tmp_path)
    with engine.create("a", bits=12) as source, engine.create("b", bits=12) as target:
        assert copy(source, target) == ((0, 0, 0), 0)


def test_differences_after_the_copy_are_noticed(source, tmp_path, monkeypatch):
    """A target that stores other codes than it was given, or not all."""
    wrong = {
        "fewer": (lambda add, items, packed, features: add(items[:-1], packed[:-1]), "^1 of 1,000"),
        "others": (lambda add, items, packed, features: add(items, packed[::-1]), "of 1,000"),
    }
    for name, (how, said) in wrong.items():
        with embedded(tmp_path).create(name, bits=12) as target:
            monkeypatch.setattr(target, "add", partial(how, target.add))
            with pytest.raises(InputError, match=rf"{said} items differ between the index and its copy"):
                copy(source, target)


def test_items_that_a_source_forgets_are_noticed(source, tmp_path, monkeypatch):
    """A source that yields fewer items than it counts."""
    scan = source.scan
    monkeypatch.setattr(source, "scan", lambda: (engine.Batch(*(part[1:] for part in batch)) for batch in scan()))
    with embedded(tmp_path).create("target", bits=12) as target, pytest.raises(InputError, match=r"^1 of 999 items"):
        copy(source, target)


def test_digests_tell_items_apart():
    """Items that would have equal digests if their texts were simply joined."""
    code = np.zeros((1, 2), np.uint8)
    alike = [Item("a", ("b", "c")), Item("a", ("bc",)), Item("a", ("b", "c", "")), Item("a", ("b",), "c"), Item("ab", ("c",))]
    others = [digests_of(alike[0], code + 1), digests_of(alike[0], code, features=1), digests_of(alike[0], code, features=2)]
    digests = np.concatenate([digests_of(item, code) for item in alike] + others)
    assert len(np.unique(digests)) == 8
    assert copying._contained(digests, np.sort(digests[1:])).tolist() == [False] + 7 * [True]


def digests_of(item, code, *, features=0):
    """The digest of an item; features: how many numbers it has, all 1."""
    return copying._digests(engine.Batch([item], code, np.ones((1, features), np.int8)))


@pytest.mark.parametrize("odd", [None, "folder", "weights.safetensors", "model.json"])
def test_the_model_of_an_index(tmp_path, odd):
    """It goes with a copy in a folder, but for what a link leads to: an index may come from anybody."""
    files = {"weights.safetensors": b"w" * 99, "model.json": b"{}"}
    with index.create(tmp_path / "index", index.Manifest(12, "m" * 64), model=files) as opened:
        opened.add(made(), codes())
    if odd is not None:
        path = tmp_path / "index" / "model" / ("" if odd == "folder" else odd)
        path.rename(tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
    index.copy(tmp_path / "index", tmp_path / "copy")
    found = {path.name: path.read_bytes() for path in (tmp_path / "copy").glob("model/*")}
    assert found == (files if odd is None else {})


def test_features_are_copied(other, tmp_path):
    """There and back every item has its own; an index without features takes none."""
    features = np.random.default_rng(1).integers(-127, 128, (N, 8)).astype(np.int8)
    (tmp_path / "other").mkdir(exist_ok=True)
    expected = {item.id: numbers.tolist() for item, numbers in zip(made(), features, strict=True)}
    source, back = embedded(tmp_path), embedded(tmp_path)
    with index.create(source.location("with"), index.Manifest(12, "m" * 64, features=8)) as opened:
        opened.add(made(), codes(), features)
    index.copy(source.location("with"), other.location("copy"))
    index.copy(other.location("copy"), back.location("back"))
    with back.open("back") as opened:
        assert opened.manifest.features == 8
        assert {item.id: numbers.tolist() for some in opened.scan() for item, _, numbers in zip(*some, strict=True)} == expected
    with embedded(tmp_path).create("without", bits=12):
        pass
    with pytest.raises(InputError, match=r"has features of 8 numbers an item, and .* of 0; fix: copy to a new index"):
        index.copy(source.location("with"), source.location("without"))


def command(*arguments):
    return [sys.executable, "-m", "adsq_jax.index", *map(str, arguments)]


def test_the_command(source, tmp_path, capsys):
    arguments = ("copy", str(tmp_path / "index"), str(tmp_path / "copied"))
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1,000 items copied, 0 were there already; all are equal\n"
    with embedded(tmp_path).open("copied") as opened:
        assert opened.manifest == source.manifest
        assert content(opened) == content(source)
        opened.add([Item("/more")], codes()[:1])
    main(arguments)
    said = f"0 items copied, 1,000 were there already; all are equal; {tmp_path}/copied has 1 other items"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected one of the commands info, copy, remove, move, duplicates, got ''"),
        (("copy", "a"), "expected copy FROM TO"),
        (("copi", "a", "b"), "got 'copi' (did you mean 'copy'?)"),
        (("copy", "{longer}", "{longer}"), "can't be copied to itself"),
        (("copy", "/nowhere", "b"), "/nowhere holds no index"),
        (("copy", "{index}", "{folder}"), "holds other files"),
        (("copy", "{index}", "{longer}"), "holds codes of 16 bits, and these have 12"),
        (("copy", "{index}", "gs://bucket/index"), "is not a folder on this machine"),
        (("copy", "{index}", "http://host/1"), "expected a collection's name"),
        (("copy", "{index}", "--k=3", "b"), "--k is not a flag"),
    ],
)
def test_bad_input(source, tmp_path, arguments, said):
    """The message is one line."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    embedded(tmp_path).create("longer", bits=16).close()
    locations = {name: tmp_path / name for name in ("index", "folder", "longer")}
    with pytest.raises(InputError) as raised:
        main([argument.format(**locations) for argument in arguments])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An index of 200,000 items, which a copy stores in four parts."""
    engine, count = embedded(tmp_path_factory.mktemp("large")), 200_000
    with engine.create(bits=16) as opened:
        opened.add([Item(f"/{i}") for i in range(count)], np.arange(2 * count).astype(np.uint8).reshape(count, 2))
    return engine.location("index"), count


# Each of them copies two parts of four in a process, which is stopped, and the others in this one.
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_stopped_it_continues(large, tmp_path, number, status, capsys):
    """After any signal, the same command adds what is missing."""
    source, count = large
    arguments = ("copy", source, str(tmp_path / "copied"))
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    versions, ends = tmp_path / "copied" / "codes.lance" / "_versions", time.monotonic() + 100
    while not versions.is_dir() or len(list(versions.iterdir())) < 3:  # it was made, and added to twice
        assert time.monotonic() < ends
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=100)
    assert process.returncode == status, said
    assert number == signal.SIGKILL or "the same command continues" in said.splitlines()[-1]
    main(arguments)
    added = int(capsys.readouterr().out.split()[0].replace(",", ""))
    assert 0 < added < count
    with embedded(tmp_path).open("copied") as opened:
        assert opened.count() == count
