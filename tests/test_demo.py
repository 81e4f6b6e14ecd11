"""The demo: what it finds and shows, what it never gives away or waits for; in threads, over HTTP and in a browser."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import adsq_jax
from adsq_jax import index, storage
from adsq_jax import search as adsq_search
from adsq_jax.data import images
from adsq_jax.demo import finder as demo_finder
from adsq_jax.demo import page, server
from adsq_jax.demo.__main__ import main
from adsq_jax.demo.finder import Finder
from adsq_jax.errors import InputError
from adsq_jax.index import Item, Manifest
from adsq_jax.inference.hits import Hit
from adsq_jax.inference.model import Model

ROOT = Path(__file__).parent.parent
HOSTILE = ("<img src=x onerror=alert(1)>.png", "${alert(1)} {{value}}.png", "&amp;'\".png")
SCRIPT = "<script>alert(1)</script>"


class Example(NamedTuple):
    """An index with the model of its codes, and the paths of the pictures that exist."""

    index: Path
    model: Model
    paths: list[Path]


@pytest.fixture(scope="module")
def example(colours, tmp_path_factory):
    """An index of 36 pictures; three have code as their names, one is deleted."""
    folder = shutil.copytree(colours[0], tmp_path_factory.mktemp("demo") / "pictures")
    paths = sorted(folder.rglob("*.png"))
    paths[:3] = [path.rename(path.with_name(name)) for path, name in zip(paths, HOSTILE, strict=False)]
    model = adsq_jax.load(colours[1])
    location = folder.parent / "index"
    with index.create(location, Manifest(model.bits, model.sha256, str(colours[1]))) as opened:
        items = [Item(str(path), (SCRIPT if path.name in HOSTILE else path.parent.name,)) for path in paths]
        opened.add(items, model.encode(paths, packed=True))
        index.roots.record(opened, f"{folder}/")
    paths.pop().unlink()
    return Example(location, model, paths)


def decode(content, sides):
    return [images.decode(content, shorter_side=side) for side in sides]


def read(name):
    return images.read(Path(name))


@pytest.fixture
def finder(example):
    with index.open_index(example.index) as plain, index.open_index(example.index) as filtered:
        yield Finder(plain, filtered, example.model, decode=decode, read=read)


def bits_between(model, path, paths):
    """Return the distances of a picture to others, by path, from the model's codes."""
    distances = (model.encode([path]) != model.encode(list(paths))).sum(axis=1)
    return dict(zip(map(str, paths), distances.tolist(), strict=True))


def png(side):
    """Return the beginning of a PNG of so many pixels a side."""
    parts = [b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0" * 100)]
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_picture_finds_the_nearest(finder, example):
    """Hits have the distances of the model's codes, in order, the picture itself at 0; k, radius and filter limit them."""
    _, model, paths = example
    wanted = bits_between(model, paths[5], paths)
    query = finder.indexed(str(paths[5]))
    hits, seconds, count = finder.hits(query.code, k=36, radius=12, where="")
    assert count == len(hits) == 36
    assert 0 < seconds < 10
    distances = [hit.distance for hit in hits]
    assert [hit.rank for hit in hits] == [1 + distances.index(hit.distance) for hit in hits]
    assert {hit.id: hit.distance for hit in hits if hit.id in wanted} == wanted
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
    near, _, _ = finder.hits(query.code, k=36, radius=0, where="")
    assert {hit.id for hit in near if hit.id in wanted} == {path for path, distance in wanted.items() if distance == 0}
    assert str(paths[5]) in {hit.id for hit in near}
    assert len(finder.hits(query.code, k=3, radius=12, where="")[0]) == 3
    assert {hit.labels for hit in finder.hits(query.code, k=36, radius=12, where="label=green")[0]} == {("green",)}


def test_a_given_picture_has_the_code_of_its_path(finder, example):
    """A file's content has the code that the model gives the file."""
    for path in example.paths[::5]:
        code = example.model.encode([path], part="query", packed=True)
        np.testing.assert_array_equal(finder.query("given", path.read_bytes()).code, code)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.png is empty"),
        (b"text", "x.png is not a complete picture"),
        (png(30_000), "x.png has more than 89,478,485 pixels"),
    ],
)
def test_files_that_are_no_pictures_are_refused(finder, content, message):
    """An empty file, a text and a decompression bomb are refused in one line that names the file."""
    with pytest.raises(InputError, match=message) as error:
        finder.query("x.png", content)
    assert "\n" not in str(error.value)


def test_only_pictures_of_the_index_can_be_picked(finder, example, tmp_path):
    """Paths that aren't in the index and deleted pictures are refused, and so is a filter that can't be read."""
    other = shutil.copy(example.paths[0], tmp_path / "other.png")
    for name in (str(other), "/etc/passwd", f"{example.paths[4].parent}/../green/{example.paths[4].name}", ""):
        with pytest.raises(InputError, match="isn't in the index"):
            finder.indexed(name)
    deleted = next(
        hit.id
        for hit in finder.hits(finder.indexed(str(example.paths[0])).code, k=36, radius=12, where="")[0]
        if not Path(hit.id).exists()
    )
    with pytest.raises(InputError, match=r"\.png isn't there"):
        finder.indexed(deleted)
    assert deleted not in finder.samples(36)
    assert set(finder.samples(5)) < set(map(str, example.paths))
    with pytest.raises(InputError, match="can't be read at its end"):
        finder.hits(finder.indexed(str(example.paths[0])).code, k=5, radius=12, where="label=")


def test_only_pictures_below_known_folders_are_opened(example, tmp_path, monkeypatch, capsys):
    """Items that name other files or an object store are searched, and neither shown nor read; flags name other places."""
    secret, inside = str(shutil.copy(example.paths[5], tmp_path / "secret.png")), str(example.paths[6])
    names, folder = [secret, inside, "s3://bucket/x.png"], str(example.paths[6].parent)
    with index.create(tmp_path / "index", example_manifest(example)) as opened:
        opened.add([Item(name) for name in names], example.model.encode([example.paths[0]] * 3, packed=True))
    monkeypatch.setattr(storage, "_client", lambda scheme: pytest.fail("a store was asked"))
    shown = []

    def look(finder, listener, **_):
        shown.append([name for name in names if finder.thumbnail(name) is not None])
        assert len(finder.hits(np.zeros((1, 2), np.uint8), k=3, radius=12, where="")[0]) == 3
        if secret not in shown[-1]:
            with pytest.raises(InputError, match=r"secret\.png isn't shown"):
                finder.indexed(secret)

    monkeypatch.setattr(server, "_serve", look)
    for flags in ([], [f"--pictures={folder}"], [f"--pictures={folder}", f"--pictures={tmp_path}"]):
        main([f"--index={tmp_path}/index", "--port=0", *flags])
    assert shown == [[], [inside], [secret, inside]]
    starting, hint, *_ = capsys.readouterr().err.splitlines()
    assert starting == f"starting: opens {tmp_path}/index and its model"
    assert hint.startswith(f"no pictures are shown: {tmp_path}/index doesn't say which folders")
    with index.open_index(tmp_path / "index") as opened:
        index.roots.record(opened, f"{folder}/")
    main([f"--index={tmp_path}/index", "--port=0"])
    assert shown[-1] == [inside]


def example_manifest(example):
    with index.open_index(example.index) as opened:
        return opened.manifest


def test_thumbnails_are_kept_within_bounds(example, monkeypatch):
    """Each is drawn once a minute, as long as it is among the newest; the oldest make room."""
    reads, sizes = [], {}

    def count(name):
        reads.append(name)
        return read(name)

    with index.open_index(example.index) as opened:
        finder = Finder(opened, opened, example.model, decode=decode, read=count)
        names = list(map(str, example.paths[:6]))
        for name in names:
            sizes[name] = len(name) + len(finder.thumbnail(name))
            assert finder.thumbnail(name) == finder.thumbnail(name)
        assert reads == names
        monkeypatch.setattr(demo_finder, "_MAX_KEPT", sizes[names[0]] + sizes[names[1]] + sizes[names[5]])
        monkeypatch.setattr(demo_finder, "_SECONDS_KEPT", 0)
        finder.thumbnail(names[0])  # drawn again, and the oldest ones make room
        monkeypatch.setattr(demo_finder, "_SECONDS_KEPT", 60)
        del reads[:]
        for name in (names[0], names[5], names[1]):
            finder.thumbnail(name)
        assert reads == [names[1]]
        assert finder.thumbnail("/no/such.png") is None


def test_the_lines_below_a_hit():
    """Rank, marked where it is shared, bits, cosine if there is one; more pictures at the last distance are told above.

    Hits that share a rank have a line on how many they are; one whose ties aren't shown has none.
    """
    some = [Hit(1, 0, "/x/a.png", ("cat",), 1.0), Hit(2, 3, "/x/b.png", (), None, 4)]
    shown = page.hits(some, seconds=0.1, count=9, thumbnail=lambda name: None)
    assert [hit["lines"] for hit in shown["hits"]] == [["1 · 0 bits", "cosine 1.00", "cat", "a.png"], ["2= · 3 bits", "b.png"]]
    assert shown["line"].endswith("found in 100.0 ms. 4 more at the same distance as the last, 3 bits.")
    assert [hit["tie"] for hit in shown["hits"]] == ["", ""]
    both = page.hits([*some, some[1]], seconds=0.1, count=9, thumbnail=lambda name: None)["hits"]
    assert [hit["tie"] for hit in both] == ["", *["2 at the same distance, in no order"] * 2]


class OneCode:
    """A model of 8 bits, whose codes are all the same."""

    bits, image_size = 8, 1

    def stream_with_features(self, batches, *, part):
        return [(np.zeros((1, 1), np.uint8), np.zeros((1, 0), np.int8))]


def test_labels_are_shown_within_bounds(tmp_path):
    """An item has any number of labels, of any length: a hit has the first ones, so that an answer is bounded."""
    model = OneCode()
    given = {"few": ("a", "b"), "long": ("x" * 4_000,), "many": ("y" * 9,) * 9_000, "empty": ("",) * 9_000}
    with index.create(str(tmp_path / "index"), Manifest(8, "")) as opened:
        opened.add([Item(*item) for item in given.items()], np.zeros((4, 1), np.uint8))
        finder = Finder(opened, opened, model, decode=decode, read=read)
        for where in ("", "path=*"):
            hits, _, _ = finder.hits(np.zeros((1, 1), np.uint8), k=4, radius=8, where=where)
            shown = {hit.id: ", ".join(hit.labels) for hit in hits}
            assert shown["few"] == "a, b"
            assert shown["long"] == "x" * 500 + "…"
            assert shown["many"].startswith("y" * 9 + ", ")
            assert all(text.endswith("…") and len(text) < 510 for name, text in shown.items() if name != "few")


def test_labels_to_filter_by_are_the_most_frequent(tmp_path, monkeypatch):
    """They are bounded in number and length; each has a filter that selects it, whatever it is named, or it is left out."""
    with index.create(str(tmp_path / "index"), Manifest(8, "")) as opened:
        labels = ['odd "name"', "or", "cat", "x" * 101, """both ' and " """, ""]
        opened.add([Item(str(n), tuple(labels[: 6 - n])) for n in range(6)], np.zeros((6, 1), np.uint8))
        finder = Finder(opened, opened, OneCode(), decode=decode, read=read)
        assert finder.labels(20) == labels[:3]
        assert finder.labels(2) == labels[:2]
        for filters in page.start({}, labels[:3], bits=8, heading="")["labels"]:
            hits, _, _ = finder.hits(np.zeros((1, 1), np.uint8), k=6, radius=8, where=filters["where"])
            assert {hit.id for hit in hits} == set(map(str, range(6 - labels.index(filters["label"]))))
        monkeypatch.setattr(demo_finder, "_MAX_IDS", 0)  # of items, whose order isn't known
        assert finder.labels(20) == []


def test_threads_share_an_index_that_changes(tmp_path):
    """While items are added and deleted, each hit in each thread has the distance of its item."""
    model = OneCode()
    codes = np.packbits(np.arange(9) > np.arange(8)[:, None], axis=0, bitorder="little").T  # [9, 1]: row n has n bits set
    location, wrong, ended = str(tmp_path / "index"), [], threading.Event()
    with (
        index.create(location, Manifest(8, "")) as writer,
        index.open_index(location) as plain,
        index.open_index(location) as filtered,
    ):
        writer.add([Item(f"{n % 9} {n}") for n in range(90)], np.tile(codes, (10, 1)))
        finder = Finder(plain, filtered, model, decode=decode, read=read)

        def look(where):
            while not ended.is_set():
                try:
                    hits, _, _ = finder.hits(np.zeros((1, 1), np.uint8), k=20, radius=8, where=where)
                    wrong.extend(hit for hit in hits if int(hit.id.split()[0]) != hit.distance)
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=look, args=[where]) for where in ("", "", "path=*", "label!=x")]
        for thread in threads:
            thread.start()
        for n in range(12):
            writer.delete([f"{row % 9} {row}" for row in range(n, 90, 12)])
            writer.add([Item(f"{row} new {n}") for row in range(9)], codes)
        ended.set()
        for thread in threads:
            thread.join()
    assert not wrong


def start(location, folder, *arguments, does="shows", module="adsq_jax.demo"):
    """Start a demo on a free port; return its process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, f"--index={location}", "--port=0", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    line = process.stdout.readline()
    match = re.match(rf"http://(.+):(\d+)/ {does} .*; Ctrl-C ends it\n", line)
    if not match:
        process.kill()
    assert match, line + process.communicate()[1]
    return process, (match[1], int(match[2]))


def starting(example):
    return f"starting: opens {example.index} and its model"


@pytest.fixture(scope="module")
def served(example, tmp_path_factory):
    """The address of a demo, its process, and the folder of its temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    process, address = start(example.index, folder)
    with process:
        yield Served(address, process, folder)
        process.terminate()
        assert process.communicate(timeout=60) == ("", f"{starting(example)}\nstopped\n")  # nothing else, whatever was sent


class Served(NamedTuple):
    """A demo that runs."""

    address: tuple[str, int]
    process: subprocess.Popen
    temporary: Path


def answer(served, method, path, **more):
    """Return status, text and headers of an answer."""
    connection = http.client.HTTPConnection(*served.address, timeout=60)
    try:
        connection.request(method, path, **more)
        response = connection.getresponse()
        return response.status, response.read().decode(), dict(response.getheaders())
    finally:
        connection.close()


def ask(served, path, content, *, status=200):
    """Ask as the page does; return the answer, or the error's line."""
    body = content if isinstance(content, bytes) else json.dumps(content)
    got, text, _ = answer(served, "POST", path, body=body)
    assert got == status, text
    value = json.loads(text)
    return value if status == 200 else value["error"]


def raw(served, head, *, body=b""):
    """Send a request by hand; return the beginning of the answer."""
    with socket.create_connection(served.address, timeout=60) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + body)
        return connection.recv(1_000)


def search(served, code, **more):
    return ask(served, "/search", {"code": code, "k": 36, "radius": 12, "where": "", **more})


def test_it_listens_on_loopback_and_loads_nothing_from_elsewhere(served):
    """The address is loopback; the page may load nothing from other machines."""
    host, port = served.address
    assert host == "127.0.0.1"
    status, _, headers = answer(served, "GET", "/")
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "http" not in headers["content-security-policy"]
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [words[1] for words in listening if words[1].endswith(f":{port:04X}") and words[3] == "0A"] == [
        f"0100007F:{port:04X}"
    ]


def test_the_heading_says_what_is_searched(served, example):
    """It names the index's folder, its pictures, the bits and the model with the run that it came from."""
    run = Path(example_manifest(example).model).name
    heading = json.loads(answer(served, "GET", "/start")[1])["heading"]
    assert heading == f"index · 36 pictures · 12-bit codes · small_cnn trained by adsq in {run}"


def test_an_error_names_the_filter(served):
    """The answer says that an error is about the filter, so that the page shows it there; of others it says nothing."""
    given = {"code": "0000", "k": 5, "radius": 12}
    for where, k, about in (("label=", 5, "where"), ("(" * 60, 5, "where"), ("label=x", 0, None)):
        body = json.dumps({**given, "k": k, "where": where})
        assert json.loads(answer(served, "POST", "/search", body=body)[1]).get("field") == about


JSON = {"Content-Type": "application/json; charset=utf-8"}


def program(served, path, body, *, status=200, headers=None):
    """Ask as a program does: with bytes of a picture, or with JSON."""
    headers = headers if isinstance(body, bytes) else JSON
    got, text, _ = answer(
        served, "POST", path, body=body if isinstance(body, bytes) else json.dumps(body), headers=headers or {}
    )
    assert got == status, text
    return json.loads(text) if status == 200 else json.loads(text)["error"]


def test_a_program_searches(served, example):
    """A picture, and an item by its id, find what `search.search` finds; the answer says how many items there are."""
    path = str(example.paths[5])
    for options in ({}, {"k": 3, "where": "label=green"}, {"radius": 2, "rerank": 0}):
        expected = [hit._asdict() for hit in adsq_search.search(example.index, path, **options)[0]]
        address = "/api/search?" + urllib.parse.urlencode(options)
        for found in (
            program(served, address, example.paths[5].read_bytes()),
            program(served, "/api/search", {"id": path, **options}),
        ):
            assert [{**hit, "labels": tuple(hit["labels"])} for hit in found["hits"]] == expected
            assert found["items"] == 36
            assert 0 <= found["seconds"] < 60
    info = json.loads(answer(served, "GET", "/api/info")[1])
    assert (info["items"], info["bits"]) == (36, 12)


def test_what_a_program_gives_is_checked(served, example):
    """No picture, an id that isn't there, a file that the index doesn't hold, JSON that is none or too long: one line each."""
    picture = example.paths[5].read_bytes()
    for path, body, status, message in (
        ("/api/search", b"<html>", 400, "the picture is not a complete picture"),
        ("/api/search", b"", 400, "the picture is empty"),
        ("/api/search", picture[:60], 400, "is not a complete picture"),
        ("/api/search?k=0", picture, 400, "expected k to be a whole number"),
        ("/api/search?where=label", picture, 400, "the filter 'label'"),
        ("/api/search", {"id": "/etc/passwd"}, 400, "'/etc/passwd' isn't in the index"),
        ("/api/search", {"id": ""}, 400, "'' isn't in the index"),
        ("/api/search", {"id": str(example.paths[5]), "x": "y" * 2**16}, 413, "expected at most 65,536 bytes of JSON"),
        ("/api/search", [], 400, "expected an object of JSON"),
        ("/api/none", picture, 404, "fix: GET /api/info, or POST /api/search"),
    ):
        assert message in program(served, path, body, status=status)
    assert answer(served, "GET", "/api/search")[0] == 405
    assert answer(served, "POST", "/api/search", body=b"{", headers=JSON)[0] == 400
    evil = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
    assert answer(served, "POST", "/api/search", body=picture, headers=evil)[0] == 403


def test_a_server_of_the_api_alone(example, tmp_path):
    """`search --serve` has no page and none of the page's questions, and ends by a signal; a taken port is one line."""
    process, address = start(example.index, tmp_path, "--serve", does="answers searches of", module="adsq_jax.search")
    served = Served(address, process, tmp_path)
    with process:
        assert len(program(served, "/api/search?k=7", example.paths[0].read_bytes())["hits"]) == 7
        for method, path in (("GET", "/"), ("GET", "/start"), ("POST", "/select"), ("POST", "/upload"), ("GET", "/page.js")):
            assert answer(served, method, path)[0] == 404
        with pytest.raises(InputError, match=f"--port={address[1]} can't be listened on"):
            adsq_search.main([f"--index={example.index}", "--serve", f"--port={address[1]}"])
        process.terminate()
        assert process.communicate(timeout=60) == ("", f"{starting(example)}\nstopped\n")
        assert process.returncode == 0


def test_other_hosts_and_origins_are_refused(served):
    """Another host name is refused; so is another origin, whatever its port, and none is ever given leave by CORS."""
    host, port = served.address
    for name in ("evil.example", f"evil.example:{port}", "", "[", "127.0.0.1.evil.example"):
        assert answer(served, "GET", "/", headers={"Host": name})[0] == 400
    for name in (f"localhost:{port}", f"localhost.:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert answer(served, "GET", "/start", headers={"Host": name})[0] == 200
    own, body = f"http://{host}:{port}", json.dumps({"id": "x"})
    for origin in (f"http://{host}:{port + 1}", "http://evil.example", "null", f"{own}.evil.example"):
        for method, path in (("POST", "/select"), ("GET", "/start"), ("OPTIONS", "/select")):
            status, _, headers = answer(served, method, path, body=body, headers={"Origin": origin})
            assert status == 403
            assert not [name for name in headers if name.lower().startswith("access-control")]
    status, text, headers = answer(served, "POST", "/select", body=body, headers={"Origin": own})
    assert (status, "isn't in the index" in text) == (400, True)
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_no_file_is_served(served, example):
    """Only the page's own paths answer: no path returns a file, not even an indexed picture's, and none is written."""
    for path in ("/etc/passwd", str(example.paths[5]), str(ROOT / "README.md"), "/page.py", "/x", "http://127.0.0.1/"):
        for door in ("", "/file=", "/gradio_api/file=", "/static/%2e%2e/%2e%2e", "/assets/../../../.."):
            assert answer(served, "GET", f"{door}{path}")[0] == 404
            assert answer(served, "POST", f"{door}{path}", body=b"x")[0] == 404
    assert list(served.temporary.rglob("*")) == []


def test_a_picture_comes_only_from_the_index(served, example, tmp_path):
    """A request by hand for a path gets the indexed picture, and for any other path an error."""
    chosen = ask(served, "/select", {"id": str(example.paths[5])})
    assert chosen["image"].startswith("data:image/jpeg;base64,")
    found = search(served, chosen["code"])["hits"]
    assert {hit["id"] for hit in found if hit["lines"][0].endswith(" 0 bits")} >= {str(example.paths[5])}
    other = shutil.copy(example.paths[5], tmp_path / "other.png")
    for name in (str(other), "/etc/passwd", "", "\0", "\ud800"):
        assert ask(served, "/select", {"id": name}, status=400)


@pytest.mark.parametrize("value", [{"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}, ["/etc/hostname"], None])
def test_values_of_other_types_are_refused(served, value):
    """Whatever stands in place of a number or a text is refused in one line, and no file that it names is opened."""
    code = "00" * 2
    good = {"code": code, "k": 5, "radius": 12, "where": ""}
    for name in good:
        line = ask(served, "/search", {**good, name: value}, status=400)
        assert line.startswith(f"expected {name} to be ")
    assert ask(served, "/select", {"id": value}, status=400).startswith("expected id to be a text")
    assert ask(served, "/search", value, status=400).startswith("expected k to be ")
    assert list(served.temporary.rglob("*")) == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "-1", "101", "1.5", "true", '"5"', "9" * 5_000])
def test_numbers_out_of_range_are_refused(served, number):
    """A number of pictures that isn't one is refused in one line."""
    body = f'{{"code": "0000", "k": {number}, "radius": 12, "where": ""}}'.encode()
    line = ask(served, "/search", body, status=400)
    assert line.startswith("expected ")
    assert "\n" not in line


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 60_000, b"\xff\xfe", b'{"code": 1' * 1_000, b'""'])
def test_what_is_not_json_is_refused(served, body):
    """Any other content is refused in one line."""
    for path in ("/search", "/select"):
        assert "\n" not in ask(served, path, body, status=400)
    assert "\n" not in ask(served, "/upload?name=x.png", body, status=400)


@pytest.mark.parametrize("code", ["", "0", "xy", "00", "000000", "ffff"])
def test_codes_of_another_length_are_refused(served, code):
    """A code has the index's 12 bits, in two bytes."""
    good = {"code": code, "k": 5, "radius": 12, "where": ""}
    assert "\n" not in ask(served, "/search", good, status=400)


def test_a_given_picture_is_bounded(served, example):
    """A picture is accepted; a larger one, one without a length, and one in chunks whatever its length says are not."""
    chosen = ask(served, "/upload?name=mine.png", example.paths[5].read_bytes())
    assert search(served, chosen["code"], k=1)["hits"][0]["lines"][0] in ("1 · 0 bits", "1= · 0 bits")
    assert ask(served, f"/upload?name={'x' * 300}", b"text", status=400).startswith("x" * 255 + " is not a complete picture")
    head = "POST /upload HTTP/1.1\nHost: localhost\n"  # the answer comes before the content
    assert raw(served, f"{head}Content-Length: {page.MAX_BYTES + 1}\n\n").startswith(b"HTTP/1.1 413 ")
    assert raw(served, f"{head}\n").startswith(b"HTTP/1.1 411 ")
    assert raw(served, f"{head}Transfer-Encoding: chunked\n\n").startswith(b"HTTP/1.1 411 ")
    assert raw(served, f"{head}Content-Length: 5\nTransfer-Encoding: chunked\n\n").startswith(b"HTTP/1.1 411 ")
    assert raw(served, f"{head}Content-Length: 5\nContent-Length: 6\n\n").startswith(b"HTTP/1.1 400 ")
    assert raw(served, f"{head}Content-Length: -5\n\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "where", ["not " * 49 + "label=green", "not (" * 20 + "label=green" + ")" * 20, f"path={'*' * 4_000}", "(" * 60]
)
def test_a_filter_keeps_nobody_waiting(served, where):
    """What made the engine's parser or its patterns slow is answered at once, or refused with the filter named."""
    began = time.monotonic()
    status, text, _ = answer(served, "POST", "/search", body=json.dumps({"code": "0000", "k": 5, "radius": 12, "where": where}))
    assert time.monotonic() - began < 3
    assert status == 200 or "the filter '" in json.loads(text)["error"]


def test_a_hundred_searches_at_once_are_answered(served):
    """None is told to come again: they wait in line."""
    statuses = []

    def look(number):
        body = json.dumps({"code": "0000", "k": 3, "radius": 12, "where": "label=green" if number % 2 else ""})
        statuses.append(answer(served, "POST", "/search", body=body)[0])

    threads = [threading.Thread(target=look, args=[number]) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 100


def test_requests_that_do_not_come_keep_nobody_waiting(served, example):
    """While heads and bodies stop in the middle, holding all room for pictures, a picture is answered within 10 s."""
    quarter = 2**24  # of the room
    head = f"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {quarter}\r\n\r\n"
    halves = [head.encode() + bytes(10_000), b"GET / HT"]
    with contextlib.ExitStack() as stack:
        for number in range(60):
            connection = stack.enter_context(socket.create_connection(served.address, timeout=60))
            connection.sendall(halves[number % 2])
        time.sleep(0.2)
        began = time.monotonic()
        chosen = ask(served, "/upload?name=mine.png", example.paths[5].read_bytes())
        assert search(served, chosen["code"], k=1)["hits"]
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it(example, tmp_path, number, status):
    """Ctrl-C and SIGTERM end it with one line and leave no files; it warns if other machines can connect."""
    process, address = start(example.index, tmp_path, "--host=0.0.0.0")
    assert address[0] == socket.gethostname()
    with socket.create_connection(("127.0.0.1", address[1]), timeout=60) as connection:
        connection.sendall(b"POST /upload HTTP/1.1\r\nHost: any\r\nContent-Length: 9\r\n\r\n")  # a body that never comes
        time.sleep(0.2)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert out == ""
    assert err.splitlines() == [
        starting(example),
        f"anyone who can reach port {address[1]} of this machine sees the pictures of the index",
        "stopped",
    ]
    assert not list(tmp_path.rglob("*"))


def test_bad_flags_give_one_line(example, tmp_path, monkeypatch):
    """No index, a port that is taken, uvicorn missing: one line."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, message in {
            (): "expected --index=INDEX",
            (f"--index={tmp_path}", "--port=0"): "holds no index; fix: make one with adsq encode",
            (f"--index={example.index}", f"--port={port}"): rf"--port={port} can't be listened on \(Address already in use",
            (f"--index={example.index}", "--port=0"): r"\(uvicorn is missing\); fix: pip install 'adsq_jax\[demo\]'",
        }.items():
            with pytest.raises(InputError, match=message) as error:
                main(arguments)
            assert "\n" not in str(error.value)


def test_an_address_that_is_not_here_is_refused():
    """A host that can't be resolved or isn't this machine's is refused in one line; so is none, which means all addresses."""
    with pytest.raises(InputError, match="--host is empty"):
        server.listen("", 0)
    for host in ("no.such.host.invalid", "192.0.2.1"):
        with pytest.raises(InputError, match=f"--host={host} --port=0 can't be listened on"):
            server.listen(host, 0)


@pytest.fixture(scope="module")
def browser(served):
    """Chromium, which can reach no other machine."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    rules = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900", rules):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.set_capability("unhandledPromptBehavior", "ignore")  # an alert makes the next command fail
    with webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver"))) as driver:
        yield driver


@pytest.fixture
def opened(browser, served):
    """The page, newly loaded."""
    host, port = served.address
    browser.get_log("browser")  # of other tests, in which questions are refused
    browser.get(f"http://{host}:{port}/")
    wait(browser, lambda: pictures(browser, ".strip"))
    return browser


def wait(browser, condition):
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 30, ignored_exceptions=[StaleElementReferenceException]).until(lambda _: condition())


def pictures(browser, below):
    """Return the text below each picture that can be picked, by path."""
    buttons = browser.find_elements("css selector", f"{below} button")
    return {button.get_attribute("data-id"): button.text for button in buttons}


def status(browser):
    """Return the line above the hits."""
    return browser.find_elements("css selector", ".status-line")[-1].text


def error(browser, place):
    """Return the error that is shown at a place; no other one is shown."""
    shown = {line.get_attribute("id"): line.text for line in browser.find_elements("css selector", ".error") if line.text}
    return shown.get(f"{place}-error", "") if len(shown) == 1 else ""


def pick(browser, path):
    """Pick one of the samples as the query."""
    buttons = browser.find_elements("css selector", ".strip button")
    next(button for button in buttons if button.get_attribute("data-id") == path).click()
    wait(browser, lambda: browser.find_element("css selector", ".query span").get_attribute("title") == path)
    wait(browser, lambda: pictures(browser, ".grid"))


def put(browser, box_id, text):
    """Type into the box of a slider or of text."""
    from selenium.webdriver.common.keys import Keys

    box = browser.find_element("css selector", f"#{box_id} input:not([type=range])")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.DELETE)  # the number is empty for a moment
    box.send_keys(text, Keys.ENTER)


def give(browser, path):
    browser.find_element("css selector", "input[type=file]").send_keys(str(path))


@pytest.mark.system
def test_a_picture_that_is_picked_finds_itself(opened, example):
    """In a browser: the picked picture is among the hits at 0 bits; radius, number and filter limit the hits."""
    path = next(iter(pictures(opened, ".strip")))
    wanted = bits_between(example.model, path, example.paths)
    pick(opened, path)
    assert status(opened).startswith("The nearest 20 of 36 pictures, found in ")
    put(opened, "k", "100")
    wait(opened, lambda: len(pictures(opened, ".grid")) == 36)
    shown = pictures(opened, ".grid")
    assert {hit: int(shown[hit].split(" · ")[1].split()[0]) for hit in wanted} == wanted
    put(opened, "k", "1000")
    put(opened, "radius", "0")
    wait(opened, lambda: pictures(opened, ".grid").keys() & wanted.keys() == {hit for hit in wanted if not wanted[hit]})
    assert path in pictures(opened, ".grid")
    put(opened, "radius", "12")
    put(opened, "where", "label=blue")
    wait(opened, lambda: {text.split("\n")[1] for text in pictures(opened, ".grid").values()} == {"blue"})
    put(opened, "where", "label=")
    wait(opened, lambda: "can't be read at its end: expected label=NAME" in error(opened, "where"))
    assert pictures(opened, ".grid")  # what was found before
    put(opened, "where", "label=nothing")
    wait(opened, lambda: status(opened) == "None of 36 pictures is within the radius and passes the filter.")
    assert not [line.text for line in opened.find_elements("css selector", ".error") if line.text]


@pytest.mark.system
def test_a_picture_is_given(opened, example, tmp_path):
    """In a browser: a file up to 20 MiB is accepted; a larger one, a text and a bomb are refused in one line each."""
    give(opened, shutil.copy(example.paths[7], tmp_path / "mine.png"))
    wait(opened, lambda: pictures(opened, ".grid"))
    assert opened.find_element("css selector", ".query span").text == "mine.png"
    large = tmp_path / "large.png"
    for content, message in {
        b"text": "large.png is not a complete picture",
        png(30_000): "large.png has more than 89,478,485 pixels",
        bytes(page.MAX_BYTES + 1): "large.png has more than 20 MiB; fix: make it smaller",
    }.items():
        large.write_bytes(content)
        give(opened, large)
        wait(opened, lambda message=message: message in error(opened, "drop"))
        assert pictures(opened, ".grid")  # those of the picture before
        assert opened.find_element("css selector", ".query span").text == "mine.png"
    padded = example.paths[7].read_bytes()
    large.write_bytes(padded + bytes(page.MAX_BYTES - len(padded)))
    give(opened, large)
    wait(opened, lambda: pictures(opened, ".grid"))


@pytest.mark.system
def test_a_picture_is_dropped_anywhere(opened, example):
    """In a browser: a picture that misses the box is searched for too; without us the browser would leave the page."""
    drop = """const files = new DataTransfer(), kept = [];
        files.items.add(new File([new Uint8Array(arguments[0])], "dropped.png"));
        for (const kind of ["dragover", "drop"])
          kept.push(!document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true})));
        return kept"""
    assert opened.execute_script(drop, list(example.paths[7].read_bytes())) == [True, True]
    wait(opened, lambda: pictures(opened, ".grid"))
    assert opened.find_element("css selector", ".query span").text == "dropped.png"


@pytest.mark.system
def test_hits_can_be_picked_and_deleted_ones_show_their_path(opened, example):
    """In a browser: a click on a hit searches for it; a deleted picture is replaced by its path, among all others."""
    pick(opened, next(iter(pictures(opened, ".strip"))))
    put(opened, "k", "100")
    wait(opened, lambda: len(pictures(opened, ".grid")) == 36)
    (deleted,) = pictures(opened, ".grid").keys() - set(map(str, example.paths))
    assert f"can't be shown:\n{deleted}" in pictures(opened, ".grid")[deleted]
    shown = "return [...document.querySelectorAll('.grid img')].filter(x => x.complete && x.naturalWidth > 1).length"
    assert opened.execute_script(shown) == 35
    buttons = {button.get_attribute("data-id"): button for button in opened.find_elements("css selector", ".grid button")}
    buttons[str(example.paths[9])].click()
    wait(opened, lambda: opened.find_element("css selector", ".query span").text == example.paths[9].name)
    buttons = {button.get_attribute("data-id"): button for button in opened.find_elements("css selector", ".grid button")}
    buttons[deleted].click()
    wait(opened, lambda: f"{deleted} isn't there; fix: give the path of a picture" in error(opened, "other"))


@pytest.mark.system
def test_labels_are_chosen_by_clicks(opened):
    """In a browser: pictures have any of the chosen labels and pass the filter, too; a second click lets a label go."""
    pick(opened, next(iter(pictures(opened, ".strip"))))
    put(opened, "k", "100")
    wait(opened, lambda: len(pictures(opened, ".grid")) == 36)
    chips = {chip.text: chip for chip in opened.find_elements("css selector", ".chips button")}

    def shown():
        return {text.split("\n")[-2] for text in pictures(opened, ".grid").values()}

    every = shown()
    assert chips.keys() == every
    chips[SCRIPT].click()
    wait(opened, lambda: shown() == {SCRIPT})
    chips["blue"].click()
    wait(opened, lambda: shown() == {SCRIPT, "blue"})
    put(opened, "where", "label!=blue")
    wait(opened, lambda: shown() == {SCRIPT})
    for label in (SCRIPT, "blue"):
        chips[label].click()
    put(opened, "where", " ")
    wait(opened, lambda: shown() == every)


@pytest.mark.system
def test_ties_are_grouped(opened):
    """In a browser: hits at one distance are in one group that counts them, and each hit is shown once."""
    pick(opened, next(iter(pictures(opened, ".strip"))))
    put(opened, "k", "100")
    wait(opened, lambda: len(pictures(opened, ".grid")) == 36)

    def rank_in(text):  # of a hit, which begins with its path if its picture is gone
        return re.search(r"^(\d+=?) · ", text, re.MULTILINE)[1]

    ranks = list(map(rank_in, pictures(opened, ".grid").values()))
    groups = opened.find_elements("css selector", ".ties")
    assert len(groups) == len({rank for rank in ranks if rank.endswith("=")}) > 0
    for group in groups:
        hits = [rank_in(button.text) for button in group.find_elements("css selector", "button")]
        assert hits == [hits[0]] * ranks.count(hits[0])
        assert group.find_element("css selector", "p").text == f"{len(hits)} at the same distance, in no order"


@pytest.mark.system
def test_hits_are_seen_on_a_phone_without_scrolling(opened):
    """In a browser: on a phone the query and the first hits are on the first screen, and the settings are folded."""
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        opened.refresh()
        wait(opened, lambda: pictures(opened, ".strip"))
        pick(opened, next(iter(pictures(opened, ".strip"))))
        bottom = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"
        assert 0 < opened.execute_script(bottom, ".query img") < opened.execute_script(bottom, ".grid img") < 700
        assert opened.execute_script("return [scrollY, document.querySelector('details').open]") == [0, False]
        assert opened.execute_script("return document.documentElement.scrollWidth") == 390
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.system
def test_the_page_runs_no_name_and_loads_nothing_from_elsewhere(opened, served, example):
    """In a browser: code in names and labels is text, no alert appears, and nothing is loaded from another machine."""
    pick(opened, next(iter(pictures(opened, ".strip"))))
    put(opened, "k", "100")
    wait(opened, lambda: len(pictures(opened, ".grid")) == 36)
    for path in example.paths[:3]:
        assert pictures(opened, ".grid")[str(path)].split("\n")[1:] == [SCRIPT, path.name]
    host, port = served.address
    asked = opened.execute_script("return performance.getEntriesByType('resource').map(x => x.name)")
    assert len(asked) > 2
    assert {name for name in asked if not name.startswith((f"http://{host}:{port}/", "data:", "blob:"))} == set()
    font = "return getComputedStyle(document.body).fontFamily"
    assert opened.execute_script(font).startswith("system-ui")
    assert opened.get_log("browser") == []
