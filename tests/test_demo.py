"""The demo: what it finds and shows, and what it never gives away; in threads, over HTTP and in a browser."""

import base64
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
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import adsq_jax
from adsq_jax import index
from adsq_jax.demo import page, server
from adsq_jax.demo.__main__ import main
from adsq_jax.demo.finder import Finder
from adsq_jax.errors import InputError
from adsq_jax.index import Item, Manifest
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
    paths.pop().unlink()
    return Example(location, model, paths)


@pytest.fixture
def finder(example):
    with index.open_index(example.index) as opened:
        yield Finder(opened, example.model)


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
    hits, seconds, count = finder.hits(query, k=36, radius=12, where="")
    assert count == len(hits) == 36
    assert 0 < seconds < 10
    assert [hit.rank for hit in hits] == list(range(1, 37))
    assert {hit.id: hit.distance for hit in hits if hit.id in wanted} == wanted
    assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
    near, _, _ = finder.hits(query, k=36, radius=0, where="")
    assert {hit.id for hit in near if hit.id in wanted} == {path for path, distance in wanted.items() if distance == 0}
    assert str(paths[5]) in {hit.id for hit in near}
    assert len(finder.hits(query, k=3, radius=12, where="")[0]) == 3
    assert {hit.labels for hit in finder.hits(query, k=36, radius=12, where="label=green")[0]} == {("green",)}


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
        for hit in finder.hits(finder.indexed(str(example.paths[0])), k=36, radius=12, where="")[0]
        if not Path(hit.id).exists()
    )
    with pytest.raises(InputError, match=r"\.png isn't there"):
        finder.indexed(deleted)
    assert deleted not in finder.samples(36)
    assert set(finder.samples(5)) < set(map(str, example.paths))
    with pytest.raises(InputError, match="can't be read at its end"):
        finder.hits(finder.indexed(str(example.paths[0])), k=5, radius=12, where="label=")


def test_threads_share_an_index_that_changes(tmp_path):
    """While items are added and deleted, each hit in each thread has the distance of its item."""
    model = type(
        "Model", (), {"bits": 8, "image_size": 1, "stream": lambda self, batches, part: [np.zeros((1, 1), np.uint8)]}
    )()
    codes = np.packbits(np.arange(9) > np.arange(8)[:, None], axis=0, bitorder="little").T  # [9, 1]: row n has n bits set
    location, wrong, ended = str(tmp_path / "index"), [], threading.Event()
    with index.create(location, Manifest(8, "")) as writer, index.open_index(location) as opened:
        writer.add([Item(f"{n % 9} {n}") for n in range(90)], np.tile(codes, (10, 1)))
        finder = Finder(opened, model)
        query = type("Query", (), {"code": np.zeros((1, 1), np.uint8)})()

        def look():
            while not ended.is_set():
                try:
                    hits, _, _ = finder.hits(query, k=20, radius=8, where="")
                    wrong.extend(hit for hit in hits if int(hit.id.split()[0]) != hit.distance)
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for n in range(12):
            writer.delete([f"{row % 9} {row}" for row in range(n, 90, 12)])
            writer.add([Item(f"{row} new {n}") for row in range(9)], codes)
        ended.set()
        for thread in threads:
            thread.join()
    assert not wrong


def command(*arguments):
    return [sys.executable, "-m", "adsq_jax.demo", *arguments]


def start(location, folder, *arguments):
    """Start a demo on a free port; return its process and its address."""
    process = subprocess.Popen(
        command(f"--index={location}", "--port=0", *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    line = process.stdout.readline()
    match = re.match(r"http://(.+):(\d+)/ shows .*; Ctrl-C ends it\n", line)
    if not match:
        process.kill()
    assert match, line + process.communicate()[1]
    return process, (match[1], int(match[2]))


@pytest.fixture(scope="module")
def served(example, tmp_path_factory):
    """The address of a demo, and the folder of its temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    process, address = start(example.index, folder)
    with process:
        yield address, folder
        process.terminate()


def answer(address, method, path, **more):
    connection = http.client.HTTPConnection(*address, timeout=60)
    try:
        connection.request(method, path, **more)
        response = connection.getresponse()
        return response.status, response.read().decode(), dict(response.getheaders())
    finally:
        connection.close()


def event(address, trigger, sent):
    """Send an event of the page; return the values of all components that it changes."""
    config = json.loads(answer(address, "GET", "/config")[1])
    number = next(d["id"] for d in config["dependencies"] if trigger in {name for _, name in d["targets"]})
    body = {"data": [20, 12, ""], "fn_index": number, "session_hash": "x", "event_data": sent}
    headers = {"Content-Type": "application/json"}
    assert answer(address, "POST", "/gradio_api/queue/join", body=json.dumps(body), headers=headers)[0] == 200
    stream = answer(address, "GET", "/gradio_api/queue/data?session_hash=x")[1]
    messages = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: ")]
    return str(next(message["output"] for message in messages if message["msg"] == "process_completed"))


def test_it_listens_on_loopback_and_loads_nothing_from_elsewhere(served):
    """The address is loopback; requests by another host name are refused; the page may load nothing from other machines."""
    (host, port), _ = served
    assert host == "127.0.0.1"
    status, _, headers = answer((host, port), "GET", "/")
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'self' ")
    assert "http" not in headers["content-security-policy"]
    assert answer((host, port), "GET", "/", headers={"Host": "evil.example"})[0] == 400
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [words[1] for words in listening if words[1].endswith(f":{port:04X}") and words[3] == "0A"] == [
        f"0100007F:{port:04X}"
    ]


def test_no_file_is_served(served, example):
    """No path returns a file, not even an indexed picture's; Gradio's other routes are closed, its folder is empty."""
    address, folder = served
    for path in ("/etc/passwd", str(example.paths[5]), str(ROOT / "README.md"), f"{folder}/x", "http://127.0.0.1/"):
        for door in ("file=", "file/", "proxy=", "stream/"):
            assert answer(address, "GET", f"/gradio_api/{door}{path}")[0] == 404
    for path in ("/assets/../../../../../../etc/passwd", "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/gradio_api/info"):
        status, text, _ = answer(address, "GET", path)
        assert (status, "root:" in text) in ((404, False), (403, False))
    for path in ("/gradio_api/upload", "/gradio_api/run/predict", "/gradio_api/call/picked", "/gradio_api/component_server"):
        assert answer(address, "POST", path, body=b"x")[0] == 404
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_picture_comes_only_from_the_index(served, example, tmp_path):
    """A request by hand for a path gets the indexed picture, and for any other path an error."""
    address, _ = served
    assert "data:image/jpeg;base64," in event(address, "select", {"id": str(example.paths[5])})
    other = shutil.copy(example.paths[5], tmp_path / "other.png")
    for name in (str(other), "/etc/passwd"):
        shown = event(address, "select", {"id": name})
        assert "isn't in the index" in shown.replace("&#x27;", "'")
        assert "data:image" not in shown


def test_a_given_picture_is_bounded(served, example):
    """A picture is accepted; too large a picture, a request of a GiB and one without a length are not."""
    address, folder = served
    content = base64.b64encode(example.paths[5].read_bytes()).decode()
    assert "1 · 0 bits" in event(address, "upload", {"name": "mine.png", "size": 5, "content": content})
    shown = event(address, "upload", {"name": "<b>.png", "size": page.MAX_BYTES + 1, "content": ""})
    assert "&lt;b&gt;.png has more than 20 MiB; fix: make it smaller" in shown
    with socket.create_connection(address, timeout=60) as connection:  # the answer comes before the content
        connection.sendall(b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 411 ")
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_names_are_shown_as_text(served, example):
    """Tags, quotes and templates in names and labels are escaped."""
    address, _ = served
    shown = event(address, "select", {"id": str(next(path for path in example.paths if path.name == HOSTILE[0]))})
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in shown
    assert "&lt;script&gt;" in shown
    assert "<img src=x" not in shown
    assert "<script" not in shown


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it(example, tmp_path, number, status):
    """Ctrl-C and SIGTERM end it with one line and leave no files; it warns if other machines can connect."""
    process, address = start(example.index, tmp_path, "--host=0.0.0.0")
    assert address[0] == socket.gethostname()
    assert any(tmp_path.glob("adsq_jax_demo_*"))
    with socket.create_connection(("127.0.0.1", address[1]), timeout=60) as connection:
        connection.sendall(b"GET /gradio_api/heartbeat/x HTTP/1.1\r\nHost: any\r\n\r\n")  # a response that never ends
        connection.recv(100)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert out == ""
    assert err.splitlines() == [
        f"anyone who can reach port {address[1]} of this machine sees the pictures of the index",
        "stopped",
    ]
    assert not any(tmp_path.glob("adsq_jax_demo_*"))


def test_bad_flags_give_one_line(example, tmp_path, monkeypatch):
    """No index, a port that is taken, Gradio missing: one line."""
    monkeypatch.setitem(sys.modules, "gradio", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, message in {
            (): "expected --index=INDEX",
            (f"--index={tmp_path}", "--port=0"): "holds no index; fix: make one with adsq_jax.encode",
            (f"--index={example.index}", f"--port={port}"): rf"--port={port} can't be listened on \(Address already in use",
            (f"--index={example.index}", "--port=0"): r"\(gradio is missing\); fix: pip install -e '.\[demo\]'",
        }.items():
            with pytest.raises(InputError, match=message) as error:
                main(arguments)
            assert "\n" not in str(error.value)


def test_an_address_that_is_not_here_is_refused():
    """A host that can't be resolved or isn't this machine's is refused in one line."""
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
    host, port = served[0]
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
    assert not opened.find_elements("css selector", ".toast-body")
    put(opened, "radius", "12")
    put(opened, "where", "label=blue")
    wait(opened, lambda: {text.split("\n")[1] for text in pictures(opened, ".grid").values()} == {"blue"})
    put(opened, "where", "label=")
    wait(opened, lambda: "can't be read at its end: expected label=NAME" in status(opened))
    assert not pictures(opened, ".grid")


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
        wait(opened, lambda message=message: message in status(opened))
        assert not pictures(opened, ".grid")
    padded = example.paths[7].read_bytes()
    large.write_bytes(padded + bytes(page.MAX_BYTES - len(padded)))
    give(opened, large)
    wait(opened, lambda: pictures(opened, ".grid"))


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
    wait(opened, lambda: f"{deleted} isn't there; fix: give the path of a picture" in status(opened))


@pytest.mark.system
def test_the_page_runs_no_name_and_loads_nothing_from_elsewhere(opened, served, example):
    """In a browser: code in names and labels is text, no alert appears, and nothing is loaded from another machine."""
    pick(opened, next(iter(pictures(opened, ".strip"))))
    put(opened, "k", "100")
    wait(opened, lambda: len(pictures(opened, ".grid")) == 36)
    for path in example.paths[:3]:
        assert pictures(opened, ".grid")[str(path)].split("\n")[1:] == [SCRIPT, path.name]
    host, port = served[0]
    asked = opened.execute_script("return performance.getEntriesByType('resource').map(x => x.name)")
    assert len(asked) > 10
    assert {name for name in asked if not name.startswith((f"http://{host}:{port}/", "data:", "blob:"))} == set()
    font = "return getComputedStyle(document.querySelector('.gradio-container')).fontFamily"
    assert opened.execute_script(font).startswith("system-ui")
    assert opened.get_log("browser") == []
