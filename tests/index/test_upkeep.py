"""Looking into an index, removing and moving items: what is left is compared item by item, and mistakes change nothing."""

import re

import numpy as np
import pytest
from support.engines import embedded, milvus

from adsq_jax import index
from adsq_jax.errors import InputError
from adsq_jax.index import Item, Manifest, roots, upkeep
from adsq_jax.index.__main__ import main

NAMES = ("/a/cat/1.png", "/a/cat/2.png", "/a/cats/3.png", "/a/dog/4=b.png", "/b/5.png", "tfds:digits#6", "tfds:digits@test#6")
LABELS = (("cat",), ("cat", "small"), ("cat",), ("dog",), (), ("six",), ("six",))


@pytest.fixture(params=["embedded", pytest.param("milvus", marks=pytest.mark.system)])
def place(request, tmp_path):
    """The place of an index of seven items."""
    engine = embedded(tmp_path) if request.param == "embedded" else milvus(request.getfixturevalue("milvus"))
    random = np.random.default_rng(0)
    with index.create(engine.location("index"), Manifest(16, "m" * 64, "/run", features=4)) as opened:
        items = [Item(name, labels, f"{row:064x}") for row, (name, labels) in enumerate(zip(NAMES, LABELS, strict=True))]
        codes = random.integers(0, 256, (7, 2), np.uint8)
        opened.add(items, codes, random.integers(-127, 128, (7, 4)).astype(np.int8))
        roots.record(opened, "/a/")
        roots.record(opened, "/a/cat/")
    return engine.location("index")


def content(place):
    """What is stored of each item, by its hash, which doesn't change; and its id."""
    with index.open_index(place) as opened:
        rows = [row for batch in opened.scan() for row in zip(*batch, strict=True)]
    return {item.sha256[-1]: (item.id, item.labels, code.tolist(), numbers.tolist()) for item, code, numbers in rows}


def test_info(place):
    """Numbers, labels by their frequency, folders of an index on a disk."""
    about = index.info(place)
    assert about[1:6] == (7, 16, 4, "/run", "m" * 64)
    assert about.labels == {"cat": 3, "six": 2, "dog": 1, "small": 1}
    assert list(about.labels) == ["cat", "six", "dog", "small"]
    on_disk = "://" not in place
    assert about.folders == (("/a/", "/a/cat/") if on_disk else ())
    assert (about.size or 0) > 1_000 if on_disk else about.size is None


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        ("/a/cat", "01"),
        ("/a/cat/", "01"),
        ("/a/cat/2.png", "1"),
        ("/a", "0123"),
        ("/a/dog/4=b.png", "3"),
        ("tfds:digits", "5"),
        ("tfds:digits@test#6", "6"),
        ("label=cat", "012"),
        ("label=cat and path!=/a/cat/*", "2"),
    ],
)
def test_remove(place, what, gone):
    """A folder with all below it, a picture, or a filter; the others stay as they are. Again, there is nothing."""
    before = content(place)
    assert index.remove(place, what) == len(gone)
    assert content(place) == {key: value for key, value in before.items() if key not in gone}
    with pytest.raises(InputError, match=re.escape(f"matches {what!r}; fix: give a folder from / on, or a filter")):
        index.remove(place, what)


def test_info_of_a_moved_index_names_the_model_in_it(tmp_path):
    """The model that an index keeps moves with it; another one is named as it was when the index was made."""
    manifest = Manifest(8, "m" * 64, model="/runs/a")
    for name, files in (("keeps", {"weights.safetensors": b"w", "model.json": b"{}"}), ("other", None)):
        index.create(tmp_path / name, manifest, model=files).close()
        (tmp_path / name).rename(tmp_path / f"{name}_moved")
    assert index.info(tmp_path / "keeps_moved").model == str(tmp_path / "keeps_moved" / "model")
    assert index.info(tmp_path / "other_moved").model == "/runs/a"


@pytest.mark.parametrize("what", ["cat", "pictures/cat", "cat 1.png"])
def test_a_relative_path_is_no_filter(place, what):
    """The message says what is expected, and not where a filter is wrong; nothing is removed."""
    with pytest.raises(InputError, match=f"absolute path .*, or a filter, got '{what}'; fix: give the path from / on"):
        index.remove(place, what)
    assert len(content(place)) == 7


def test_removing_all_is_asked_for(place, capsys):
    """Not by mistake."""
    with pytest.raises(InputError, match=r"matches all 7 items of .*; fix: --all, if you mean it"):
        main(["remove", place, "not label=nobody"])
    assert len(content(place)) == 7
    main(["remove", "--all", place, "not label=nobody"])
    assert capsys.readouterr().out == f"7 items removed from {place}; their pictures stay\n"
    assert content(place) == {}


def test_a_sign_in_a_name_ends_no_folder(tmp_path):
    """/a#2 isn't below /a, and tfds:a/b isn't a record of tfds:a."""
    names = ["/p/a/1", "/p/a#2/1", "tfds:a#1", "tfds:a/b#1", "gs://b/x/1"]
    with index.create(tmp_path / "index", Manifest(8, "m" * 64)) as opened:
        opened.add([Item(name) for name in names], np.zeros((5, 1), np.uint8))
        assert [index.remove(opened, what) for what in ("/p/a", "tfds:a", "gs://b/x/")] == [1, 1, 1]
        assert sorted(opened.ids()) == ["/p/a#2/1", "tfds:a/b#1"]
        with pytest.raises(InputError, match="isn't UTF-8, and an index holds nothing there"):
            index.remove(opened, "/a\udcff")


def test_a_place_that_is_taken_without_hashes(tmp_path):
    """Items without a hash are the same only with equal codes: no other is lost."""
    with index.create(tmp_path / "index", Manifest(8, "m" * 64)) as opened:
        opened.add([Item("/a/1"), Item("/b/1"), Item("/c/1")], np.array([[1], [2], [1]], np.uint8))
        with pytest.raises(InputError, match="has another picture at '/b/1'"):
            index.move(opened, "/a", "/b")
        assert index.move(opened, "/a", "/c") == 1
        assert sorted(opened.ids()) == ["/b/1", "/c/1"]


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        ("/a/cat/1.png", "/b/", {"0": "/b/1.png"}),
        ("/a/cat", "/new/cat", {"0": "/new/cat/1.png", "1": "/new/cat/2.png"}),
        ("/a/cat/", "/b/", {"0": "/b/1.png", "1": "/b/2.png"}),
        ("/a/cat/1.png", "/b/one.png", {"0": "/b/one.png"}),
    ],
)
def test_move(place, old, new, moved):
    """Only ids change; pictures are shown from the new folder. With /a/cat, /a/cats isn't moved."""
    before = content(place)
    assert index.move(place, old, new) == len(moved)
    assert content(place) == {key: (moved.get(key, value[0]), *value[1:]) for key, value in before.items()}
    if "://" not in place:
        with index.open_index(place) as opened:
            assert any(name.startswith(root) for root in roots.read(opened) for name in moved.values())


def test_an_interrupted_move_goes_on(place, monkeypatch):
    """Stopped between adding and deleting, both are there, and nothing is lost; the same call ends it."""
    before = content(place)
    with index.open_index(place) as opened, monkeypatch.context() as patch:
        patch.setattr(type(opened), "delete", lambda *given: pytest.fail("stopped"))
        with pytest.raises(pytest.fail.Exception):
            index.move(opened, "/a/cat", "/new")
    with index.open_index(place) as opened:
        assert opened.count() == 9
    assert index.move(place, "/a/cat", "/new") == 2
    moved = {"0": "/new/1.png", "1": "/new/2.png"}
    assert content(place) == {key: (moved.get(key, value[0]), *value[1:]) for key, value in before.items()}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("/a/cat/1.png", "/b/5.png", "has another picture at '/b/5.png'; fix: remove it first"),
        ("/nowhere", "/b", "nothing in .* is below '/nowhere'; fix: see adsq index info"),
        ("/a", "/a/b", "are one in the other"),
        ("/a/b", "/a", "are one in the other"),
        ("/a", "/a/", "are one in the other"),
        ("cat", "/b", "expected the absolute path of a folder or picture, got 'cat'; fix: give it from / on"),
        ("label=cat", "/b", "expected the absolute path .*, got 'label=cat'"),
        ("/a", "tfds:a", "expected the absolute path .*, got 'tfds:a'"),
    ],
)
def test_moves_that_are_refused(place, old, new, said):
    """One line, and nothing changes."""
    before = content(place)
    with pytest.raises(InputError, match=said):
        index.move(place, old, new)
    assert content(place) == before


def test_many_items_are_moved_in_batches(tmp_path, monkeypatch):
    """Each once."""
    monkeypatch.setattr(upkeep, "_BATCH", 3)
    with index.create(tmp_path / "index", Manifest(8, "m" * 64)) as opened:
        opened.add([Item(f"/a/{row}") for row in range(10)], np.arange(10, dtype=np.uint8)[:, None])
        assert index.move(opened, "/a", "/b") == 10
        assert sorted(opened.ids()) == [f"/b/{row}" for row in range(10)]


def test_the_commands(tmp_path, capsys):
    """What they print; control characters of names aren't."""
    with index.create(tmp_path / "index", Manifest(16, "m" * 64, "/run")) as opened:
        opened.add([Item("/a/1\n.png", ("cat\n",)), Item("/a/2.png"), Item("/b/3.png")], np.zeros((3, 2), np.uint8))
    main(["info", str(tmp_path / "index")])
    printed = capsys.readouterr().out
    for line in (r"items +3", r"bits +16", "features +none: it is searched by codes alone", r"labels +cat\\n 1"):
        assert re.search(f"(?m)^{line}$", printed), printed
    main(["move", str(tmp_path / "index"), "/b", "/c"])
    assert capsys.readouterr().out == f"1 items of {tmp_path}/index are at /c now\n"
    main(["duplicates", str(tmp_path / "index")])
    assert capsys.readouterr().out == (
        "/a/1\\n.png\n/a/2.png\n/c/3.png\n\n1 groups of near-identical pictures, 3 pictures in them\n"
    )
    for arguments, said in (
        (["remove", str(tmp_path / "index")], "expected remove INDEX WHAT"),
        (["duplicates", str(tmp_path / "index"), "--radius=5"], "radius=5: expected 0 to 4, a quarter of the code's bits"),
        (["duplicates", str(tmp_path / "index"), "--cosine=x"], "--cosine='x': expected a number from -1 to 1"),
        (["duplicates", str(tmp_path / "index"), "--cosine=2"], "cosine=2.0: expected a number from -1 to 1"),
        (["inf", str(tmp_path / "index")], "duplicates, got 'inf' (did you mean 'info'?)"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            main(arguments)
