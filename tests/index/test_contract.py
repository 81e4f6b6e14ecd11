"""What every engine must do, compared with a scan in NumPy: exact distances, items, filters, upserts, deletions, durability."""

import numpy as np
import pytest
from support.engines import embedded, milvus

from adsq_jax import codes, index
from adsq_jax.errors import InputError
from adsq_jax.index import NOTHING, Item, Manifest, parse

N = 160  # items of the indexes that tests share; of the first half many have equal codes
LABELS = ("cat", "dog", "polar bear", "it's", 'say "a"', "Größe", "a%b_c", "\\")


@pytest.fixture(params=["embedded", pytest.param("milvus", marks=pytest.mark.system)])
def engine(request, tmp_path):
    return embedded(tmp_path) if request.param == "embedded" else milvus(request.getfixturevalue("milvus"))


@pytest.fixture(scope="module")
def stock():
    """Indexes that read-only tests share, by engine and kind of codes: a server takes seconds to make one."""
    return {}


@pytest.fixture
def stocked(request, engine, stock, tmp_path_factory):
    """Open a shared index of N items, not to be written into, and return it with its codes."""

    def opened(*, bits=64):
        kind = (request.node.callspec.params["engine"], bits)
        if kind not in stock:
            folder = kind[0] == "embedded"
            stock[kind] = (
                embedded(tmp_path_factory.mktemp("stock"))
                if folder
                else milvus(request.getfixturevalue("milvus"), prefix="stock")
            )
            filled(stock[kind], bits=bits, model="/runs/a")[0].close()
        return stock[kind].open(), packed(N, bits=bits)

    opened.engine = lambda *, bits: stock[request.node.callspec.params["engine"], bits]
    return opened


def packed(n, *, bits, seed=0):
    """Return codes: in the first half only a few different ones, as is usual of hash codes, then random ones."""
    random = np.random.default_rng(seed)
    signs = random.choice((-1, 1), (n, bits)).astype(np.int8)
    signs[: n // 2] = signs[random.integers(0, 7, n // 2) % n]
    return codes.pack(signs)


def items(n, *, prefix="/pictures/"):
    return [Item(f"{prefix}{i:04d}.jpg", (LABELS[i % len(LABELS)],), f"{i:064x}") for i in range(n)]


def distances_of(query, database):
    """Compute distances bit by bit."""
    return np.unpackbits(query[:, None] ^ database[None], axis=2).sum(axis=2, dtype=np.int32)


def filled(engine, *, bits=64, n=N, model=""):
    opened, database = engine.create(bits=bits, model=model), packed(n, bits=bits)
    opened.add(items(n), database)
    return opened, database


LENGTHS = (1, 7, 8, 12, 24, 32, 48, 63, 64, 65, 128, 255, 256)
ON_A_SERVER = (1, 12, 64, 255)  # each takes seconds there; only its number of bytes is known to the server


@pytest.mark.parametrize(
    ("engine", "bits"),
    [("embedded", bits) for bits in LENGTHS] + [pytest.param("milvus", bits, marks=pytest.mark.system) for bits in ON_A_SERVER],
    indirect=["engine"],
)
def test_distances_are_exact_for_every_code_length(stocked, bits):
    """The nearest ten have the distances of a scan, and each key is an item at that distance."""
    opened, database = stocked(bits=bits)
    query = np.concatenate([packed(20, bits=bits, seed=1)[10:], database[:: N // 10]])
    with opened:
        found = opened.search(query, k=10)
        wanted = distances_of(query, database)
        assert found.distances.dtype == np.int32
        assert found.keys.dtype == np.int64
        assert np.array_equal(found.distances, np.sort(wanted, axis=1)[:, :10])
        for row in range(len(query)):
            named = [int(item.id[-8:-4]) for item in opened.items(found.keys[row])]
            assert len(set(named)) == 10
            assert np.array_equal(wanted[row, named], found.distances[row])


def test_ties_are_ordered_by_key(stocked):
    """(distance, key) ascends, so that the same search returns the same result."""
    opened, _ = stocked(bits=12)
    with opened:
        found = opened.search(packed(20, bits=12, seed=1), k=100)
        pairs = found.distances.astype(np.int64) << 40 | found.keys
        assert (np.diff(pairs, axis=1) > 0).all()
        again = opened.search(packed(20, bits=12, seed=1), k=100)
        assert np.array_equal(found.keys, again.keys)


def test_k_above_the_count_gives_all(stocked):
    opened, database = stocked()
    with opened:
        found = opened.search(database[:3], k=10 * N)
        assert found.keys.shape == (3, N)
        assert all(len(set(row)) == N for row in found.keys.tolist())


def test_radius(stocked):
    """All items within the radius, inclusive, and no others; the rest of a row is NOTHING."""
    opened, database = stocked(bits=12)
    query = packed(20, bits=12, seed=1)
    with opened:
        found = opened.search(query, k=N, radius=3)
        wanted = distances_of(query, database)
        for row in range(len(query)):
            there = found.keys[row] != NOTHING
            assert np.array_equal(found.distances[row][there], np.sort(wanted[row][wanted[row] <= 3]))
            assert (found.distances[row][~there] == NOTHING).all()
        assert (found.keys == NOTHING).any()


def test_radius_0_finds_the_same_codes(stocked):
    opened, database = stocked()
    with opened:
        found = opened.search(database[:1], k=N, radius=0)
        assert (found.keys[0] != NOTHING).sum() == (database == database[0]).all(axis=1).sum()


def test_k_counts_within_the_radius(stocked):
    opened, database = stocked()
    with opened:
        assert opened.search(database[:1], k=2, radius=0).distances.tolist() == [[0, 0]]


def test_empty_index(engine):
    """Every question has an empty answer; it can be closed, opened, and added to."""
    with engine.create(bits=12) as opened:
        assert opened.count() == 0
        assert opened.search(packed(3, bits=12), k=5).keys.shape == (3, 0)
        assert opened.search(packed(3, bits=12), k=5, where=parse("label=cat")).keys.shape == (3, 0)
        assert opened.items([]) == []
        assert list(opened.ids()) == []
        assert [batch.items for batch in opened.scan() if batch.items] == []
        assert opened.find(["/a"]) == {}
        assert opened.delete(["/a"]) == 0
    with engine.open() as opened:
        assert opened.count() == 0
        opened.add(items(1), packed(1, bits=12))
        assert opened.search(packed(1, bits=12), k=5).distances.tolist() == [[0]]


def test_no_query(stocked):
    opened, _ = stocked(bits=12)
    with opened:
        assert opened.search(np.zeros((0, 2), np.uint8), k=5).keys.shape == (0, 5)


def test_nothing_to_add(stocked):
    opened, _ = stocked(bits=12)
    with opened:
        opened.add([], np.zeros((0, 2), np.uint8))
        assert opened.count() == N


def test_items_are_in_the_order_of_their_keys(stocked):
    """Any order, any number of times."""
    opened, database = stocked()
    with opened:
        keys = opened.search(database[:1], k=50).keys[0]
        wanted = np.concatenate([keys[::-1], keys[:7]])
        by_key = dict(zip(keys.tolist(), opened.items(keys), strict=True))
        assert opened.items(wanted) == [by_key[key] for key in wanted.tolist()]
        assert set(by_key.values()) <= set(items(N))


@pytest.mark.parametrize("key", [-1, N, 10**12])
def test_keys_out_of_range_are_refused(stocked, key):
    opened, database = stocked()
    with opened:
        opened.search(database[:1], k=N)
        with pytest.raises(InputError, match="expected keys of the last search of this index"):
            opened.items([0, key])


@pytest.mark.parametrize("keys", [[0.5], [True], ["0"], [None]])
def test_keys_that_are_no_whole_numbers_are_refused(stocked, keys):
    opened, _ = stocked()
    with opened, pytest.raises(InputError, match="keys of the last search of this index"):
        opened.items(keys)


def test_scan(engine):
    """All items with their codes, each once, after replacements and deletions."""
    opened, database = filled(engine, bits=12)
    with opened:
        opened.add([Item(items(N)[0].id, ("new",), "f" * 64)], database[7:8])
        opened.delete([items(N)[1].id])
        wanted = {item.id: (item, database[row].tobytes()) for row, item in enumerate(items(N)) if row != 1}
        wanted[items(N)[0].id] = (Item(items(N)[0].id, ("new",), "f" * 64), database[7].tobytes())
        found = [(item, code.tobytes()) for some, packed, _ in opened.scan() for item, code in zip(some, packed, strict=True)]
        assert len(found) == len(wanted)
        assert {item.id: (item, code) for item, code in found} == wanted


def test_stored(engine):
    """All items of these ids or contents, each with its own code and features; more than fit into a query; and all hashes."""
    random, hashes = np.random.default_rng(3), [f"{i % 7:064x}" for i in range(20)]
    stored = [item._replace(sha256=text) for item, text in zip(items(20), hashes, strict=True)]
    stored.append(Item("/from elsewhere"))
    numbers, database = random.integers(-127, 128, (21, 6)).astype(np.int8), packed(21, bits=12)
    with index.create(engine.location("contents"), Manifest(12, "m" * 64, features=6)) as opened:
        opened.add(stored, database, numbers)
        asked = [f"{2:064x}", *(f"{i:064x}" for i in range(1_000, 3_500)), f"{5:064x}", f"{2:064x}"]
        by_contents, of_contents = opened.stored(hashes=asked), [row for row in range(20) if row % 7 in (2, 5)]
        by_ids = opened.stored(ids=["/none", "/from elsewhere", "/pictures/0003.jpg", "/none"])
        for found, wanted in ((by_contents, of_contents), (by_ids, [3, 20])):
            rows = {item.id: row for row, item in enumerate(found.items)}
            assert sorted(rows) == sorted(stored[row].id for row in wanted)
            for row in wanted:
                place = rows[stored[row].id]
                assert found.items[place] == stored[row]
                assert np.array_equal(found.codes[place], database[row])
                assert np.array_equal(found.features[place], numbers[row])
        nothing = opened.stored()
        assert (nothing.items, nothing.codes.shape, nothing.features.shape) == ([], (0, 2), (0, 6))
        assert sorted(opened.content_hashes()) == sorted([*hashes, ""])


def test_features(engine):
    """Each key has those of its item, whatever was replaced, deleted or added by another process; none where there are none."""
    random = np.random.default_rng(3)
    stored = {item.id: random.integers(-127, 128, 6).astype(np.int8) for item in items(20)}
    place = engine.location("features")
    with index.create(place, Manifest(64, "m" * 64, features=6)) as opened:
        opened.add(items(20), packed(20, bits=64), np.stack(list(stored.values())))
        for _ in range(2):
            hits = opened.search(packed(3, bits=64), k=7)
            for keys in (hits.keys.reshape(-1), hits.keys[0][[5, 0, 5]], hits.keys[:, :0].reshape(-1)):
                expected = [stored[item.id] for item in opened.items(keys)]
                assert np.array_equal(opened.features(keys), np.array(expected, np.int8).reshape(-1, 6))
            opened.delete(["/pictures/0003.jpg"])
            stored["/pictures/0004.jpg"] = stored["/pictures/0004.jpg"][::-1].copy()
            opened.add(items(20)[4:5], packed(20, bits=64)[4:5], stored["/pictures/0004.jpg"][None])
        with pytest.raises(InputError, match="keys of the last search"):
            opened.features([10**9])
        with index.open_index(place) as other:
            hits = other.search(packed(1, bits=64), k=19)
            expected = [stored[item.id] for item in other.items(hits.keys[0])]
            assert np.array_equal(other.features(hits.keys[0]), expected)
            assert other.manifest.features == 6
    with engine.create("plain") as opened:
        opened.add(items(2), packed(2, bits=64))
        assert opened.features(opened.search(packed(1, bits=64), k=2).keys[0]).shape == (2, 0)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (None, "got none"),
        (np.zeros((2, 5), np.int8), r"got int8\[2, 5\]"),
        (np.zeros((2, 6), np.float32), r"got float32\[2, 6\]"),
        (np.zeros((1, 6), np.int8), r"got int8\[1, 6\]"),
    ],
)
def test_features_of_another_kind_are_refused(engine, features, said):
    """Nothing is added; and an index without features takes none."""
    with index.create(engine.location("features"), Manifest(64, "m" * 64, features=6)) as opened:
        with pytest.raises(InputError, match=rf"features of 6 numbers an item: expected int8\[2, 6\], {said}"):
            opened.add(items(2), packed(2, bits=64), features)
        assert opened.count() == 0
    with engine.create("plain") as opened, pytest.raises(InputError, match="features of 0 numbers an item"):
        opened.add(items(2), packed(2, bits=64), np.zeros((2, 6), np.int8))


def test_find(stocked):
    """Items by id, with labels and hash; unknown ids are missing. More ids than fit into one query of the engine."""
    opened, _ = stocked()
    with opened:
        everything = items(N)
        asked = [item.id for item in everything] + [f"/other/{i}" for i in range(3_000)]
        assert opened.find(asked) == {item.id: item for item in everything}
        assert opened.find([]) == {}


def test_an_item_with_the_same_id_is_replaced(engine):
    """Code, labels and hash are the new ones, and there is one such item."""
    opened, database = filled(engine)
    new, old = Item(items(N)[-1].id, ("new", "two"), "f" * 64), database[-1:]
    with opened:
        opened.add([new], ~old)
        assert opened.count() == N
        assert opened.find([new.id]) == {new.id: new}
        assert opened.items(opened.search(~old, k=1).keys[0]) == [new]
        assert opened.search(old, k=1, radius=0).keys.tolist() == [[NOTHING]]
        assert opened.count(where=parse("label=new and label=two")) == 1
        twice = packed(4, bits=64, seed=1)[2:]  # of two items of one call with the same id, the last counts
        opened.add([Item("/a", ("first",)), Item("/a", ("last",))], twice)
        assert opened.count() == N + 1
        assert opened.items(opened.search(twice[1:], k=1, radius=0).keys[0]) == [Item("/a", ("last",))]


def test_adding_the_same_again_changes_nothing(engine):
    opened, database = filled(engine)
    with opened:
        for _ in range(3):
            opened.add(items(N), database)
        assert opened.count() == N
        assert sorted(opened.ids()) == [item.id for item in items(N)]
        assert np.array_equal(
            opened.search(database[:9], k=20).distances, np.sort(distances_of(database[:9], database))[:, :20]
        )


def test_delete(engine):
    """Deleted items are neither found nor counted; the others stay; deleting again does nothing; they can be added again."""
    opened, database = filled(engine)
    gone = [item.id for item in items(N)[::3]]
    with opened:
        assert opened.delete([*gone, "/other"]) == len(gone)
        assert opened.count() == N - len(gone)
        assert set(opened.ids()) == {item.id for item in items(N)} - set(gone)
        left = np.delete(database, np.arange(0, N, 3), axis=0)
        found = opened.search(database[:9], k=20)
        assert np.array_equal(found.distances, np.sort(distances_of(database[:9], left))[:, :20])
        assert not {item.id for item in opened.items(found.keys.reshape(-1))} & set(gone)
        assert opened.delete(gone) == 0
        opened.add(items(1), ~database[:1])
        assert opened.count() == N - len(gone) + 1
        assert opened.items(opened.search(~database[:1], k=1).keys[0]) == items(1)


def test_many_with_the_same_code(engine):
    """All are found, and deleted by more ids than fit into one query of the engine."""
    with engine.create(bits=12) as opened:
        opened.add(items(2_500), np.repeat(packed(1, bits=12), 2_500, axis=0))
        found = opened.search(packed(1, bits=12), k=2_500)
        assert len(set(found.keys[0].tolist())) == 2_500
        assert not found.distances.any()
        assert opened.delete([item.id for item in items(2_499)]) == 2_499
        assert list(opened.ids()) == [items(2_500)[-1].id]


def test_several_adds_are_one_index(engine):
    """Batches, with searches in between, as encoding adds them."""
    database = packed(N, bits=12)
    with engine.create(bits=12) as opened:
        for start in range(0, N, 20):
            opened.add(items(N)[start : start + 20], database[start : start + 20])
            assert opened.search(database[:1], k=N).keys.shape == (1, start + 20)
        found = opened.search(database[:9], k=20)
        assert np.array_equal(found.distances, np.sort(distances_of(database[:9], database))[:, :20])
        rows = [items(N).index(item) for item in opened.items(found.keys.reshape(-1))]  # each key names the item of its code
        assert np.array_equal(
            found.distances, distances_of(database[:9], database)[np.arange(9)[:, None], np.reshape(rows, (9, 20))]
        )


def test_a_reopened_index_is_the_same(engine):
    opened, database = filled(engine, bits=12)
    before = opened.search(database[:9], k=20)
    opened.close()
    with engine.open() as again:
        after = again.search(database[:9], k=20)
        assert np.array_equal(before.distances, after.distances)
        assert again.manifest == Manifest(12, "m" * 64)
        assert again.count() == N
        again.add([Item("/new")], database[:1])  # what was opened can be added to
        assert again.count() == N + 1


def test_changes_are_visible_after_refresh(engine):
    """An open index keeps its keys until it is refreshed, and then sees what others changed; `delete` sees it at once."""
    opened, database = filled(engine, bits=12)
    with engine.open() as reader:
        with opened:
            keys = reader.search(database[:1], k=N).keys[0]
            before = reader.items(keys)
            opened.add([Item("/new")], database[:1])
            opened.delete([items(N)[1].id])
            assert reader.items(keys) == before
            reader.refresh()
            assert reader.count() == N
            assert {"/new"} == set(reader.ids()) - {item.id for item in items(N)}
            assert reader.search(database[:1], k=2 * N).keys.shape == (1, N)
            reader.refresh()
            opened.add([Item("/newer")], database[:1])
        assert reader.delete(["/newer", "/not there"]) == 1
        assert reader.count() == N


@pytest.mark.parametrize("other", [{"model_sha256": "n" * 64}, {"bits": 24}])
def test_an_index_replaced_by_one_of_other_codes(engine, other):
    """Whoever has the old one open is told at a refresh and at a write, each time, in one line; nothing is written."""
    opened, database = filled(engine, bits=12)
    with opened:
        opened.search(database[:1], k=1)
        engine.remove()
        with engine.create(**{"bits": 12, **other}) as new:
            new.add(items(3), packed(3, bits=new.manifest.bits))
        for _ in range(2):
            with pytest.raises(InputError, match="was replaced while it was open: it held codes of 12 bits") as raised:
                opened.refresh()
            assert "\n" not in str(raised.value)
        with pytest.raises(InputError, match="replaced"):
            opened.add([Item("/new")], database[:1])
        with pytest.raises(InputError, match="replaced"):
            opened.delete([items(1)[0].id])
    with engine.open() as new:
        assert sorted(new.ids()) == [item.id for item in items(3)]


def test_an_index_replaced_by_one_of_the_same_model(engine):
    """A refresh shows the new one as a whole, also if it was written as many times as the old one; without one it is gone."""
    opened, database = filled(engine, bits=12)
    with opened:
        opened.search(database[:1], k=1)
        engine.remove()
        with pytest.raises(InputError, match="holds no index"):
            opened.refresh()
        with engine.create(bits=12) as new:
            new.add([Item("/a"), Item("/b")], database[[3, N - 1]])
        opened.refresh()
        found = opened.search(database[N - 1 :], k=1)
        assert opened.items(found.keys[0]) == [Item("/b")]
        assert opened.count() == 2


FILTERS = {
    "label=cat": lambda item: "cat" in item.labels,
    "label!=cat": lambda item: "cat" not in item.labels,
    "not label=cat": lambda item: "cat" not in item.labels,
    'label="polar bear" or label=dog': lambda item: bool({"polar bear", "dog"} & set(item.labels)),
    'label="it\'s"': lambda item: "it's" in item.labels,
    "label='say \"a\"'": lambda item: 'say "a"' in item.labels,
    "label=Größe": lambda item: "Größe" in item.labels,
    "label=a%b_c": lambda item: "a%b_c" in item.labels,
    "label=aXb_c": lambda item: False,
    "label=\\": lambda item: "\\" in item.labels,
    "label=cat and label=dog": lambda item: False,
    "path=/pictures/0001.jpg": lambda item: item.id == "/pictures/0001.jpg",
    "path=/pictures/0001": lambda item: False,
    "path=*1.jpg": lambda item: item.id.endswith("1.jpg"),
    "path=*/00*": lambda item: item.id.startswith("/pictures/00"),  # most items
    "path=/pictures/00*": lambda item: item.id.startswith("/pictures/00"),
    "path=*/00*9.jpg": lambda item: item.id.startswith("/pictures/00") and item.id.endswith("9.jpg"),
    "path=/pictures/000?.jpg": lambda item: False,
    "path=/pictures/0001xjpg": lambda item: False,
    "path=/pictures/000_*": lambda item: False,
    "path=*": lambda item: True,
    "path!=*1.jpg and (label=cat or label=dog)": lambda item: (
        not item.id.endswith("1.jpg") and item.labels[0] in ("cat", "dog")
    ),
    "not (label=cat or not path=*5.jpg)": lambda item: "cat" not in item.labels and item.id.endswith("5.jpg"),
}


@pytest.mark.parametrize("text", FILTERS)
def test_filters(stocked, text):
    """A filtered search is a search among the items that the filter selects, chosen here by Python."""
    opened, database = stocked()
    chosen = [row for row, item in enumerate(items(N)) if FILTERS[text](item)]
    with opened:
        assert opened.count(where=parse(text)) == len(chosen)
        found = opened.search(database[:5], k=N, where=parse(text))
        assert np.array_equal(found.distances, np.sort(distances_of(database[:5], database[chosen]), axis=1))
        assert {item.id for item in opened.items(found.keys.reshape(-1))} == {items(N)[row].id for row in chosen}


def test_filter_and_radius_together(stocked):
    opened, database = stocked()
    with opened:
        found = opened.search(database[:1], k=N, radius=0, where=parse("label=cat"))
        named = [item.labels for item in opened.items(found.keys[found.keys != NOTHING])]
        assert named
        assert set(named) == {("cat",)}


NAMES = (
    "/Bilder/Größe.jpg",
    "/写真/猫.jpg",
    "/a b/c'd\"e.jpg",
    "/%/_/*.jpg",
    "/emoji/😀.png",
    "/back\\slash",
    "/line\nend",
    "x" * 4_096,
)


def test_names_of_any_kind(engine):
    """Unicode, quotes, characters of SQL and glob, line ends, the longest: stored, found, filtered and deleted.

    As ids and labels; beside them an item without labels, and one with many.
    """
    with engine.create(bits=12) as opened:
        kept = [Item(name, (name[:100],)) for name in NAMES]
        opened.add(kept, packed(len(NAMES), bits=12))
        assert opened.find(NAMES) == {item.id: item for item in kept}
        assert set(opened.ids()) == set(NAMES)
        for item in kept[:2] + kept[4:6]:
            assert opened.count(where=parse(f"path='{item.id}'")) == 1
            assert opened.count(where=parse(f"label='{item.id}'")) == 1
        assert opened.delete(NAMES[:3]) == 3
        assert set(opened.ids()) == set(NAMES[3:])
        many = tuple(f"label {i}" for i in range(200))
        opened.add([Item("/none"), Item("/many", many)], packed(2, bits=12))
        assert opened.find(["/none", "/many"]) == {"/none": Item("/none"), "/many": Item("/many", many)}
        assert opened.count(where=parse('label="label 199"')) == 1
        assert opened.count(where=parse('label!="label 199"')) == len(NAMES) - 3 + 1


def test_unicode_locations(tmp_path):
    """A folder of any name; the names of Milvus's collections have letters, digits and _ only."""
    engine = embedded(tmp_path)
    with engine.create("Größe 猫 'x'", bits=12) as opened:
        opened.add(items(3), packed(3, bits=12))
    with engine.open("Größe 猫 'x'") as opened:
        assert opened.count() == 3


@pytest.mark.parametrize("prefix", ["/pictures/", "/pictures/00", "/pictures/0001.jpg", "/picture_/", "/other", "", "%"])
def test_ids_by_prefix(stocked, prefix):
    opened, _ = stocked()
    with opened:
        assert sorted(opened.ids(prefix=prefix)) == [item.id for item in items(N) if item.id.startswith(prefix)]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 8), np.int8),
        np.zeros((2, 8), np.float32),
        np.zeros((2, 7), np.uint8),
        np.zeros((2, 9), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((1, 2, 8), np.uint8),
    ],
    ids=str,
)
def test_codes_of_another_kind_are_refused(stocked, wrong):
    """`add` and `search` say what was expected; nothing is added."""
    opened, _ = stocked()
    with opened:
        for attempt in (lambda: opened.add(items(2), wrong), lambda: opened.search(wrong, k=1)):
            with pytest.raises(InputError, match="codes of 64 bits: expected packed codes"):
                attempt()
        assert opened.count() == N


def test_padding_must_be_zero(stocked):
    """Padding that isn't zero reveals codes in the other bit order, whose distances would be wrong."""
    wrong = np.packbits(np.ones((2, 12), bool), axis=1)  # big bit order
    opened, _ = stocked(bits=12)
    with opened:
        for attempt in (lambda: opened.add(items(2), wrong), lambda: opened.search(wrong, k=1)):
            with pytest.raises(InputError, match="more than 12 bits set"):
                attempt()


@pytest.mark.parametrize("wrong", ["", "a\0b", "\udcff", "ä" * 2_049, 7, None, b"a"])
def test_invalid_items_are_refused(stocked, wrong):
    """As an id or a label; no other item of the same call is added either."""
    opened, _ = stocked(bits=12)
    with opened:
        for bad in (Item(wrong), Item("/good", (wrong,))):
            if bad == Item("/good", ("",)):
                continue
            with pytest.raises(InputError, match="can't be stored"):
                opened.add([Item("/other"), bad], packed(2, bits=12))
        assert opened.count() == N


def test_different_numbers_of_items_and_codes(stocked):
    opened, _ = stocked(bits=12)
    with opened, pytest.raises(InputError, match="got 3 items and 2 codes"):
        opened.add(items(3), packed(2, bits=12))


def test_a_text_in_place_of_labels_is_refused(stocked):
    """It isn't a label a letter."""
    opened, _ = stocked(bits=12)
    with opened, pytest.raises(InputError, match="can't be stored"):
        opened.add([Item("/a", "cat")], packed(1, bits=12))


@pytest.mark.parametrize("sha256", ["ab", "x" * 63])
def test_half_hashes_are_refused(stocked, sha256):
    opened, _ = stocked(bits=12)
    with opened, pytest.raises(InputError, match="64 hexadecimal digits"):
        opened.add([Item("/a", (), sha256)], packed(1, bits=12))


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None])
def test_wrong_k(stocked, k):
    opened, database = stocked()
    with opened, pytest.raises(InputError, match="expected a whole number from 1"):
        opened.search(database[:1], k=k)


@pytest.mark.parametrize("radius", [-1, 1.5, True])
def test_wrong_radius(stocked, radius):
    opened, database = stocked()
    with opened, pytest.raises(InputError, match="expected a whole number of bits"):
        opened.search(database[:1], k=1, radius=radius)


@pytest.mark.parametrize("where", [b"label=cat", ["label=cat"], 5])
def test_what_is_no_filter(stocked, where):
    """It is refused, and doesn't select everything."""
    opened, database = stocked()
    with opened:
        for ask in (lambda: opened.search(database[:1], k=1, where=where), lambda: opened.count(where=where)):
            with pytest.raises(InputError, match="expected a filter"):
                ask()


def test_codes_of_another_length_or_model_are_refused(stocked):
    """The index stays as it was; its own model opens it afterwards, wherever the model is now."""
    stocked(bits=12)[0].close()
    engine = stocked.engine(bits=12)
    with pytest.raises(InputError, match="holds codes of 12 bits, and these have 24"):
        engine.create(bits=24)
    with pytest.raises(InputError, match="codes of another model"):
        engine.create(bits=12, model_sha256="n" * 64)
    with engine.create(bits=12, model="/runs/b") as opened:
        assert opened.manifest == Manifest(12, "m" * 64, "/runs/a")
        assert opened.count() == N


def test_an_index_that_isnt_there(engine):
    with pytest.raises(InputError, match="holds no index"):
        engine.open("nowhere")


def test_many_small_adds(engine):
    """Merging them changes neither the index nor what its readers see."""
    database = packed(50, bits=12)
    with engine.create(bits=12) as opened:
        for row in range(50):
            opened.add(items(50)[row : row + 1], database[row : row + 1])
        reader = engine.open()
        keys = reader.search(database[:1], k=50).keys[0]
        before = reader.items(keys)
    assert reader.items(keys) == before
    reader.refresh()
    assert reader.count() == 50
    reader.close()
    with engine.open() as opened:
        assert np.array_equal(opened.search(database, k=50).distances, np.sort(distances_of(database, database), axis=1))
