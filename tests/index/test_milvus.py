"""The index on a Milvus server: addresses, limits, consistency, IVF, a server that is down or killed, and the commands."""

import json
import math
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from support.engines import milvus as engine_of

from adsq_jax import encode, index, search
from adsq_jax.data import images
from adsq_jax.errors import InputError
from adsq_jax.index import Item, Manifest, filters, milvus_filters, milvus_server, parse
from adsq_jax.index import __main__ as copying
from adsq_jax.index import milvus as milvus_engine
from adsq_jax.index.milvus_server import Address
from launch.milvus import server as local

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        ("http://host", ("http://host:19530", "adsq_jax", None, None)),
        ("http://host/", ("http://host:19530", "adsq_jax", None, None)),
        ("https://host", ("https://host:443", "adsq_jax", None, None)),
        ("http://10.0.0.1:7/a_1", ("http://10.0.0.1:7", "a_1", None, None)),
        ("https://host:7/a?nlist=16", ("https://host:7", "a", 16, None)),
        ("http://host?nprobe=3&nlist=65536", ("http://host:19530", "adsq_jax", 65_536, 3)),
    ],
)
def test_addresses(location, wanted):
    assert Address.parse(location) == (location, *wanted)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://", "expected the address of an index"),
        ("http://host:port", "expected the address of an index"),
        ("http://host:99999", "expected the address of an index"),
        ("http://[::1", "expected the address of an index"),
        ("http://[::1]:7/a", "give the server's name"),
        ("http://host/a/b", "expected a collection's name"),
        ("http://host/1a", "expected a collection's name"),
        ("http://host/Größe", "expected a collection's name"),
        ("http://host/" + "a" * 256, "expected a collection's name"),
        ("http://host/a#b", "expected the address of an index"),
        ("http://host/a?nprobes=1", "expected the address of an index"),
        ("http://host/a?nprobe", "expected the address of an index"),
        ("http://127.0.0.1:0/a", "http://127.0.0.1:0 can't be reached"),
        ("http://host/a?nprobe=", "nprobe in .*got ''"),
        ("http://host/a?nprobe=0", "nprobe in .*got '0'"),
        ("http://host/a?nlist=-1", "nlist in .*got '-1'"),
        ("http://host/a?nlist=65537", "expected a whole number from 1 to 65,536"),
        ("http://host/a?nlist=1e3", "nlist in .*got '1e3'"),
        ("http://name:secret@host/a", "set MILVUS_TOKEN=NAME:PASSWORD instead"),
        ("http://name:secret@host:port/a", "set MILVUS_TOKEN=NAME:PASSWORD instead"),
    ],
)
def test_wrong_addresses(location, said):
    """The message is one line without the password."""
    for attempt in (lambda: index.open_index(location), lambda: index.create(location, Manifest(12, "m"))):
        with pytest.raises(InputError, match=said) as raised:
            attempt()
        assert "secret" not in str(raised.value)
        assert "\n" not in str(raised.value)


class Collection:
    """What `Calls` answers about a collection that others can drop and make anew, without a server."""

    def __init__(self, manifest):
        self.address, self.asked, self.others = Address.parse("http://host/a"), [], {}
        self.make(manifest)

    def make(self, manifest):
        self.manifest, self.number = manifest, len(self.asked)

    def __call__(self, name, **arguments):
        self.asked.append(name)
        fields = milvus_engine._schema(self.manifest).to_dict()["fields"]
        answers = {
            "has_collection": self.manifest is not None,
            "describe_collection": {
                "description": json.dumps(self.manifest.to_dict()),
                "fields": fields,
                "collection_id": self.number,
            },
            "list_indexes": ["code"],
            "query": [{"count(*)": 3}],
        }
        return (answers | self.others).get(name, {})

    def load(self):
        self.asked.append("load")


def opened_collection():
    collection = Collection(Manifest(12, "m" * 64))
    return collection, milvus_engine.MilvusIndex(collection, collection.manifest, nlist=None, collection_id=0)


def test_a_replaced_collection(monkeypatch):
    """Other codes under the same name are refused at a refresh, before a write, and soon by a search without either."""
    collection, opened = opened_collection()
    assert opened.count() == 3
    collection.make(Manifest(12, "n" * 64))
    code = np.zeros((1, 2), np.uint8)
    for ask in (opened.refresh, lambda: opened.add([Item("/a")], code), lambda: opened.delete(["/a"])):
        with pytest.raises(InputError, match="was replaced while it was open: it held codes of 12 bits of model mmmm"):
            ask()
    assert not {"upsert", "delete"} & set(collection.asked)
    monkeypatch.setattr(milvus_engine, "_COMPARED_EVERY", -1.0)
    for ask in (opened.count, lambda: opened.search(code, k=1), lambda: opened.find(["/a"]), lambda: list(opened.scan())):
        with pytest.raises(InputError, match="was replaced"):
            ask()


def test_a_collection_made_anew():
    """The same codes in a new collection are loaded, and searched; the comparison isn't repeated with each question."""
    collection, opened = opened_collection()
    collection.asked.append("anything, so that it has another number")
    collection.make(Manifest(12, "m" * 64, "/other/run"))
    opened.refresh()
    assert "load" in collection.asked
    assert opened.manifest.model == "/other/run"
    collection.asked.clear()
    for _ in range(5):
        opened.count()
    assert collection.asked == ["query"] * 5


@pytest.mark.parametrize(
    "description", ['{"a":' * 10_000, "[" * 100_000, "9" * 5_000, "NaN"], ids=["objects", "lists", "digits", "no number"]
)
def test_descriptions_that_are_no_manifest(description):
    """Whatever stands in a collection's description, it is refused in one line."""
    collection, opened = opened_collection()
    collection.others["describe_collection"] = {**collection("describe_collection"), "description": description}
    with pytest.raises(InputError, match="is not an index of this library"):
        opened.refresh()


CODE = np.zeros((1, 2), np.uint8)
ROW = {"id": "/a", "labels": ["x"], "sha256": "", "code": [b"\0\0"]}
HIT = {"id": "/a", "distance": 1.0, "entity": ROW}


@pytest.mark.parametrize(
    ("name", "answer", "ask"),
    [
        ("query", [{"id": "/a"}], lambda opened: opened.find(["/a"])),
        ("query", [{"id": "/a", "labels": None, "sha256": ""}], lambda opened: opened.find(["/a"])),
        ("query", [{**ROW, "code": [b"\0"]}], lambda opened: list(opened.scan())),
        ("query", [{"id": "/a", "labels": [], "sha256": ""}], lambda opened: list(opened.scan())),
        ("query", [ROW], lambda opened: list(opened.ids())),  # for ever the same page
        ("query", [{"id": ""}], lambda opened: list(opened.ids())),
        ("query", [], lambda opened: opened.count()),
        ("query", [{"count(*)": "many"}], lambda opened: opened.count()),
        *(
            ("search", [[{**HIT, "distance": distance}]], lambda opened: opened.search(CODE, k=1))
            for distance in (math.nan, math.inf, 1e30, -3)
        ),
        ("search", [[{"id": "/a", "distance": 1.0}]], lambda opened: opened.search(CODE, k=1)),
        ("search", [], lambda opened: opened.search(CODE, k=1)),
        ("search", [[HIT], [HIT]], lambda opened: opened.search(CODE, k=1)),
        (
            "describe_index",
            {"index_type": "BIN_IVF_FLAT", "nlist": "many"},
            lambda opened: milvus_engine._ensure_index(opened._calls, make=False),
        ),
    ],
)
def test_answers_that_are_not_milvus_s(name, answer, ask):
    """An answer with missing fields, codes of another length, distances that are none, pages without end: one line."""
    collection, opened = opened_collection()
    collection.others[name] = answer
    with pytest.raises(InputError, match="the server's answer isn't understood") as raised:
        ask(opened)
    assert "\n" not in str(raised.value)


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(TEXTS, TEXTS, TEXTS)
def test_prefixes_as_ranges(prefix, following, other):
    """Compared byte by byte, as the server does, a text is in the range if and only if it begins with the prefix."""
    expression = milvus_filters.id_starts_with(prefix)
    bounds = [json.loads(part.split(" ", 2)[2]) for part in expression.strip("()").split(" and id")] if expression else []

    def within(text):
        return all(
            text.encode() >= bound.encode() if number == 0 else text.encode() < bound.encode()
            for number, bound in enumerate(bounds)
        )

    for text in (prefix, prefix + following):
        assert within(text)
    for text in (other, prefix[:-1], other + prefix):
        if text and not text.startswith(prefix) and chr(sys.maxunicode) not in prefix:
            assert not within(text)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [("a", "b"), ("\ud7ff", "\ue000"), ("a" + chr(sys.maxunicode), "b"), ("\x7f", "\x80"), ("z\uffff", "z\U00010000")],
)
def test_ends_of_ranges(prefix, end):
    """The last character is replaced by the next one that isn't a surrogate."""
    assert milvus_filters.id_starts_with(prefix).endswith(f"id < {json.dumps(end, ensure_ascii=False)})")


def test_no_server():
    """A port without a listener, and an unknown host: refused within seconds."""
    for location in (f"http://127.0.0.1:{closed_port()}/a", "http://host.invalid/a"):
        began = time.monotonic()
        with pytest.raises(InputError, match="can't be reached") as raised:
            index.open_index(location)
        assert time.monotonic() - began < 20
        assert "\n" not in str(raised.value)


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_silent_server(monkeypatch):
    """A server that accepts the connection and never answers: refused within the time limit of connecting."""
    assert milvus_server.Calls.connecting_limit == 10
    monkeypatch.setattr(milvus_server.Calls, "connecting_limit", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        with pytest.raises(InputError, match="can't be reached"):
            index.open_index(f"http://127.0.0.1:{listener.getsockname()[1]}/a")
        assert time.monotonic() - began < 20


def test_without_the_extra(monkeypatch):
    """The message says what to install."""
    for name in ("adsq_jax.index.milvus", "adsq_jax.index.milvus_server"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(InputError, match=r"pip install 'adsq_jax\[milvus\]'"):
        index.open_index("http://host/a")


@pytest.fixture
def engine(milvus):
    return engine_of(milvus)


def items(n):
    return [Item(f"/{i:05d}", (str(i % 3),)) for i in range(n)]


def packed(n, *, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, width), np.uint8)


@pytest.mark.system
@pytest.mark.parametrize("token", ["", "root:wrong", "nobody:Milvus", "rubbish"])
def test_wrong_tokens(milvus, monkeypatch, token):
    """The message names the variable, and doesn't show its value."""
    monkeypatch.setenv("MILVUS_TOKEN", token)
    with pytest.raises(InputError, match="set MILVUS_TOKEN=NAME:PASSWORD") as raised:
        index.create(f"{milvus}/a", Manifest(12, "m"))
    assert not token or token not in str(raised.value)


@pytest.mark.system
def test_two_writers(engine):
    """Both are open and write in turn; of the same id the later code counts."""
    with engine.create() as first, engine.create() as second:
        first.add(items(10), packed(10))
        second.add(items(20)[5:], packed(15, seed=1))
        first.add([Item("/last")], packed(1))
        for opened in (first, second):
            opened.refresh()
            assert opened.count() == 21
            assert opened.search(packed(15, seed=1)[:1], k=1, radius=0).distances.tolist() == [[0]]


@pytest.mark.system
def test_foreign_collections(engine, milvus):
    """A collection of that name that isn't an index is refused, and stays as it is."""
    client = local.client(milvus)
    client.create_collection("theirs", dimension=8)
    for attempt in (lambda: index.open_index(f"{milvus}/theirs"), lambda: index.create(f"{milvus}/theirs", Manifest(64, "m"))):
        with pytest.raises(InputError, match="is not an index of this library"):
            attempt()
    other = json.dumps(Manifest(64, "m").to_dict())
    schema = client.create_schema(auto_id=False, description=other)
    for field in client.describe_collection("theirs")["fields"]:
        schema.add_field(field["name"], field["type"], is_primary=field.get("is_primary", False), **field["params"])
    client.create_collection("columns", schema=schema)
    with pytest.raises(InputError, match="has other columns"):
        index.open_index(f"{milvus}/columns")
    assert {"columns", "theirs"} <= set(client.list_collections())
    client.close()


# A server drops and makes collections in seconds.
@pytest.mark.system
def test_incomplete(engine, milvus, monkeypatch):
    """A process that ended before the collection was indexed or loaded doesn't hinder the next."""
    with monkeypatch.context() as patched:
        patched.setattr("pymilvus.MilvusClient.create_index", lambda *_, **__: sys.exit("killed"))
        with pytest.raises(SystemExit):
            engine.create()
    with pytest.raises(InputError, match="is incomplete"):
        engine.open()
    with engine.create() as opened:
        opened.add(items(3), packed(3))
    client = local.client(milvus)
    client.release_collection(engine.location("index").split("/")[-1])
    with engine.open() as opened:
        assert opened.count() == 3
        client.release_collection(engine.location("index").split("/")[-1])  # by somebody else, while it is open
        assert opened.search(packed(1), k=1).keys.tolist() == [[0]]
        client.drop_collection(engine.location("index").split("/")[-1])
        with pytest.raises(InputError, match="holds no index"):
            opened.search(packed(1), k=1)
    client.close()


# The server takes seconds to index what was added, and to load it again.
@pytest.mark.system
def test_nlist_and_nprobe(engine, milvus):
    """BIN_IVF_FLAT is exact unless nprobe is smaller than nlist; the distances are right in any case."""
    location, codes = engine.location("lists"), packed(3_000, width=2)
    with index.create(f"{location}?nlist=32", Manifest(16, "m")) as opened:
        opened.add(items(3_000), codes)
    client = local.client(milvus)
    client.flush(location.split("/")[-1])
    ends = time.monotonic() + 60
    while not (state := client.describe_index(location.split("/")[-1], "code"))["indexed_rows"]:
        assert time.monotonic() < ends, state
        time.sleep(0.5)
    client.release_collection(location.split("/")[-1])  # loaded again, it has the index
    client.close()
    query = packed(20, width=2, seed=1)
    apart = np.unpackbits(query[:, None] ^ codes[None], axis=2).sum(axis=2)
    shares = []
    for options in ("", "?nprobe=32", "?nprobe=60000", "?nlist=32&nprobe=1"):
        with index.open_index(location + options) as opened:
            found = opened.search(query, k=50)
            rows = np.array([int(item.id[1:]) for item in opened.items(found.keys[found.keys >= 0])])
            assert np.array_equal(apart[np.nonzero(found.keys >= 0)[0], rows], found.distances[found.keys >= 0])
            wanted = np.sort(apart, axis=1)[:, :50]
            shares.append((found.distances == wanted[:, : found.distances.shape[1]]).mean())
    assert shares[:3] == [1, 1, 1]
    assert shares[3] < 1
    with pytest.raises(InputError, match="was made with nlist=32, got nlist=64; fix: leave nlist out"):
        index.open_index(f"{location}?nlist=64")


@pytest.mark.system
def test_limits_of_the_server(engine):
    """More neighbours or labels than Milvus allows: one line, and nothing of that call is added."""
    with engine.create(bits=8) as opened:
        opened.add(items(16_385), np.zeros((16_385, 1), np.uint8))
        assert opened.search(np.zeros((1, 1), np.uint8), k=16_384).keys.shape == (1, 16_384)
        with pytest.raises(InputError, match="returns at most 16,384 items per query"):
            opened.search(np.zeros((1, 1), np.uint8), k=16_385)
        assert opened.search(np.zeros((1, 1), np.uint8), k=10**6, where=parse("label=0")).keys.shape == (1, 5_462)
        with pytest.raises(InputError, match="expected at most 4,096 labels, got 4,097"):
            opened.add([Item("/a"), Item("/b", tuple(map(str, range(4_097))))], np.zeros((2, 1), np.uint8))
        assert opened.count() == 16_385
        opened.add([Item("/b", tuple(map(str, range(4_096))))], np.zeros((1, 1), np.uint8))
        assert len(opened.find(["/b"])["/b"].labels) == 4_096


# 100 MB is the server's limit of an answer.
@pytest.mark.system
def test_long_rows(engine):
    """100 MB of labels, more than fits into a message: added, and read page by page."""
    long = [Item(f"/{i}", tuple(f"{i} {k} " + "x" * 4_000 for k in range(500))) for i in range(50)]
    with engine.create(bits=8) as opened:
        opened.add(long, np.arange(50, dtype=np.uint8)[:, None])
        found = [item for batch in opened.scan() for item in batch.items]
        assert sorted(found) == sorted(long)
        assert opened.find([item.id for item in long]) == {item.id: item for item in long}
        one_by_one = opened.search(np.zeros((40, 1), np.uint8), k=2)
        assert one_by_one.distances.tolist() == 40 * [[0, 1]]
        with pytest.raises(InputError, match="an answer is too large for the server") as raised:
            opened.search(np.zeros((1, 1), np.uint8), k=50)
        assert "\n" not in str(raised.value)


def translate(text, **limits):
    """The expression of a filter, where the server has the ids /00000 to /00099."""
    ids = [item.id for item in items(100)]

    def count(expression):
        bounds = re.findall(r'id (>=|<) "(.*?)"', expression)
        return sum(all((name >= bound) == (sign == ">=") for sign, bound in bounds) for name in ids)

    def beginning(prefix):
        return [name for name in ids if name.startswith(prefix)]

    return milvus_filters.Translator(count=count, ids=beginning, **limits).translate(parse(text))


def test_patterns_are_bounded():
    """Patterns that Milvus 2.3 can't compare are limited, with a message that says so; prefixes are not."""
    fives = f"(id in [{', '.join(json.dumps(f'/000{number}5') for number in range(10))}])"
    assert translate("path=*5") == translate("path=/0*5", max_listed=10) == fives
    assert translate("not path=/0*5") == f"(not {fives})"
    assert translate("path=/*0*", max_listed=0) == translate("path=/*")  # the ids that don't match are listed: none
    assert translate("path=*x*", max_listed=0) == '(id == "")'
    with pytest.raises(InputError, match="selects 19 items and leaves out 81, expected one of them to be at most 10"):
        translate("path=/*5*", max_listed=10)
    with pytest.raises(InputError, match=r"path=\*5 is compared with 100 paths, expected at most 10"):
        translate("path=*5", max_compared=10)
    assert translate("path=/0001*5", max_compared=10) == '(id in ["/00015"])'
    assert translate("path=/0*", max_compared=0) == '(id >= "/0" and id < "/1")'


# A server answers a question in some milliseconds; these are many.
@pytest.mark.system
def test_any_text_in_filters(engine):
    """No text in ids and labels is misread as a part of a filter."""
    texts = [chr(code) for code in range(1, 0x300)] + [
        '" or id != "',
        "\\\\",
        '\\"',
        "\\n",
        "' or 1 == 1",
        "\u2028",
        "$x",
        "{a}",
    ]
    with engine.create(bits=8) as opened:
        opened.add([Item(text, (text,)) for text in texts], np.zeros((len(texts), 1), np.uint8))
        assert opened.find(texts).keys() == set(texts)
        for text in texts[:0x80] + texts[-10:]:
            assert opened.count(where=filters.Label(text)) == 1, text
            assert list(opened.ids(prefix=text)) == sorted(other for other in texts if other.startswith(text)), text


# A server of its own is started twice, which takes 8 to 14 s each time.
@pytest.mark.slow
@pytest.mark.system
def test_a_server_that_is_killed(tmp_path):
    """kill -9 while codes are added, and started again: the client finishes, and nothing that was stored is lost.

    If the server stays down, the client ends with one line after its time limit, which is shorter here.
    """
    assert milvus_server.Calls.time_limit == 60
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.robustness.milvus_kills", "--kills=1", "--limit=4", "--out="],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kills: nothing lost, nothing twice" in done.stdout
    assert "HOST:PORT can't be reached (" in done.stdout


# One process of a command, and the run that `filled` trains if no test has.
@pytest.mark.system
def test_the_commands(milvus, filled, colours, tmp_path, capsys):
    """encode, search and the copy to a folder, with the address of a server instead of a folder: the same hits, in JSON."""
    folder, run = colours
    location = f"{milvus}/colours"
    for wanted in ("36 images encoded, 0 unchanged", "0 images encoded, 36 unchanged"):
        encode.main([f"--workdir={run}", f"--images={folder}", f"--index={location}"])
        assert wanted in capsys.readouterr().out
    asked, hits = (f"--query={folder}/red/00.png", "--k=36", "--where=label=red and path!=*/03.png", "--radius=6", "--json"), []
    for place in (location, filled[2]):
        search.main([f"--index={place}", *asked])
        hits.append(json.loads(capsys.readouterr().out)[0]["hits"])
    assert hits[0]
    for hit in (hit for some in hits for hit in some):
        del hit["rank"]  # among equal distances
    assert sorted(hits[0], key=json.dumps) == sorted(hits[1], key=json.dumps)
    copying.main(["copy", location, str(tmp_path / "copy")])
    assert "36 items copied, 0 were there already; all are equal" in capsys.readouterr().out
    wrong = [f"--index={location}", f"--query={folder}/red/00.png", "--where=label"]
    done = subprocess.run([sys.executable, "-m", "adsq_jax.search", *wrong], cwd=ROOT, capture_output=True, timeout=300)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def decode_given(content, sides):
    return [images.decode(content, shorter_side=side) for side in sides]


def test_a_pattern_that_takes_too_long(monkeypatch):
    """The names of a server aren't compared for longer than a filter may take."""
    monkeypatch.setattr(filters, "MAX_SECONDS", -1)
    translator = milvus_filters.Translator(count=lambda expression: 5, ids=lambda prefix: iter(["a", "b"]))
    with pytest.raises(InputError, match="the filter takes more than -1 seconds"):
        translator.translate(parse("path=*a*"))


@pytest.mark.system
def test_the_demo(milvus, filled):
    """The page finds the same on a server as in a folder, and draws its samples from there."""
    from adsq_jax.demo.finder import Finder

    paths, model, location = filled
    with index.open_index(location) as source, index.create(f"{milvus}/demo", source.manifest) as opened:
        for some, codes, _ in source.scan():
            opened.add(some, codes)
        finders = [
            Finder(each, each, model, decode=decode_given, read=lambda name: Path(name).read_bytes())
            for each in (opened, source)
        ]
        codes = [finder.indexed(paths[3]).code for finder in finders]
        found = [
            finder.hits(code, k=36, radius=12, where="label=red or label=blue")
            for finder, code in zip(finders, codes, strict=True)
        ]
        one, two = ([hit.distance for hit in hits] for hits, _, _ in found)
        assert one == two
        assert found[0][2] == 36
        assert set(finders[0].samples(5)) <= set(map(str, paths))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_while_it_waits(number, status):
    """A signal ends a wait for an answer at once, in one line."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        location = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        asking = [sys.executable, "-m", "adsq_jax.index", "copy", location, "elsewhere"]
        process = subprocess.Popen(asking, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        silent.settimeout(100)
        accepted, _ = silent.accept()
        with accepted:
            time.sleep(1)
            process.send_signal(number)
            began = time.monotonic()
            _, said = process.communicate(timeout=60)
        assert time.monotonic() - began < 5
        assert (process.returncode, said) == (status, "stopped\n")


@pytest.mark.system
def test_a_loaded_collection_is_not_loaded_again(engine, monkeypatch):
    """The server would refuse it if the collection had more replicas."""
    with engine.create() as opened:
        opened.add(items(3), packed(3))
    with monkeypatch.context() as patched:
        patched.setattr("pymilvus.MilvusClient.load_collection", lambda *_, **__: pytest.fail("it was loaded again"))
        with engine.open() as opened:
            assert opened.count() == 3


def test_temporary_errors():
    """A server that starts or is down; no other error is temporary."""
    from pymilvus import MilvusException
    from pymilvus.grpc_gen import common_pb2

    is_temporary = milvus_server._is_temporary
    assert is_temporary(MilvusException(1, "service not ready", common_pb2.NotReadyServe))
    assert is_temporary(MilvusException(101, "collection not loaded"))
    assert is_temporary(MilvusException(1 << 16 | 503, "channel not available"))
    assert is_temporary(MilvusException(2, "Fail connecting to server"))
    for error in (MilvusException(1, "Unexpected error, message=<x>"), MilvusException(100), MilvusException(65535, "expr")):
        assert not is_temporary(error)


# The benchmark starts servers of its own, with what was stored, which takes 8 to 14 s each time.
@pytest.mark.slow
@pytest.mark.system
def test_the_benchmark(tmp_path):
    """On a small sample, with random codes: every figure is a positive number, and the last recall is 1."""
    (tmp_path / "run" / "codes").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text('{"bits": 16}')
    for part, count in (("query", 10), ("database", 1_500)):
        np.save(tmp_path / "run" / "codes" / f"{part}_sum.npy", packed(count, width=2))
    out = tmp_path / "out" / "milvus.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.milvus", f"--run={tmp_path}/run", "--sizes=1500", "--turns=1", f"--out={out}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["recall"]["by_nprobe"][-1]["recall"] == 1
    (size,) = found["sizes"]
    numbers = [size, size["one_query_seconds"], size["alternating"], size["copied_back"], size["lists"]]
    assert all(value > 0 for some in numbers for value in some.values() if not isinstance(value, dict))
