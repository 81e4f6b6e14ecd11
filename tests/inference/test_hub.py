"""Models on the Hugging Face Hub: push, load, and what is refused. The library is its own, the server one of this machine."""

import base64
import hashlib
import http.server
import json
import pickle
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import adsq_jax
from adsq_jax import encode, index
from adsq_jax.errors import InputError
from adsq_jax.inference import hits, hub

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "somebody/birds"
FILES = ("README.md", "model/model.json", "model/weights.safetensors")


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the Hub does to the requests of its library; `server.repositories` has the files by name and revision."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        self.server.requests.append(f"{self.command} {self.path}")
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        revisions = self.server.repositories.get(match[1]) if match else None
        if self.server.down or revisions is None:
            self.answer(503 if self.server.down else 401, **({} if self.server.down else {"X_Error_Code": "RepoNotFound"}))
        elif revisions == "gated":
            self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="gated")
        elif match[2] not in revisions:
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif match[3] not in revisions[match[2]]:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit_of(revisions[match[2]]))
        else:
            content = revisions[match[2]][match[3]]
            facts = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X_Repo_Commit": commit_of(revisions[match[2]])}
            length = {"X_Linked_Size": self.server.claimed} if self.server.claimed is not None else {}
            self.answer(200, content, **facts, **length)

    do_HEAD = do_GET

    def do_POST(self):
        self.server.requests.append(f"{self.command} {self.path}")
        lines = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
        if self.headers.get("Authorization") != "Bearer good":
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        first = json.loads(lines[0])
        if self.path == "/api/repos/create":
            name = f"{first.get('organization') or 'somebody'}/{first['name']}"
            self.server.private = first.get("visibility") == "private" or first.get("private")
            taken = name in self.server.repositories
            self.server.repositories.setdefault(name, {"main": {}})
            return self.answer(409 if taken else 200, {"url": f"https://huggingface.co/{name}", "name": name})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {})
        name, kind, revision = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/([^/]+)", self.path).groups()
        if kind == "preupload":
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in first["files"]]
            return self.answer(200, {"files": files})
        tree = dict(self.server.repositories[name][revision])
        for line in map(json.loads, lines[1:]):
            assert line["key"] == "file"
            tree[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        put(self.server, name, tree, revision=revision)
        url = f"https://huggingface.co/{name}/commit/{commit_of(tree)}"
        return self.answer(200, {"success": True, "commitOid": commit_of(tree), "commitUrl": url, "hookOutput": ""})


def commit_of(tree):
    return hashlib.sha1(repr(sorted(tree.items())).encode()).hexdigest()


def put(server, name, tree, *, revision="main"):
    """Give a branch of a repository these files; they can also be asked for by the commit."""
    server.repositories.setdefault(name, {}).update({revision: tree, commit_of(tree): tree})


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The server; the library asks it, has its cache in an empty folder, and no token but what a test gives."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    made.repositories, made.requests, made.down, made.claimed, made.private = {}, [], False, None, None
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint = f"http://127.0.0.1:{made.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def pushed(server, colours):
    """The server with the model of a run, pushed there; and the model."""
    model = adsq_jax.load(colours[1])
    assert model.push_to_hub(NAME, token="good").startswith(f"https://huggingface.co/{NAME}/commit/")
    return server, model


def refusal(call, *words):
    """Call, and check that an InputError of one line has these words."""
    with pytest.raises(InputError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert "; fix: " in text
    assert all(word in text for word in words), text


def test_what_is_pushed_is_loaded_again(pushed, colours):
    """Three files are there: JSON, safetensors and a card. The loaded model has the same codes, by branch and by commit."""
    server, model = pushed
    tree = server.repositories[NAME]["main"]
    assert tuple(sorted(tree)) == FILES
    paths = sorted(str(path) for path in colours[0].rglob("*.png"))[:3]
    for address in (f"hf://{NAME}", f"hf://{NAME}@main", f"hf://{NAME}@{commit_of(tree)}"):
        loaded = adsq_jax.load(address)
        assert loaded.sha256 == model.sha256
        np.testing.assert_array_equal(loaded.encode(paths), model.encode(paths))


def test_the_card(pushed, colours):
    """It has what result.json says, beside chance, the code that loads the model, and no path of this machine or licence."""
    server, model = pushed
    card = server.repositories[NAME]["main"]["README.md"].decode()
    result = json.loads((colours[1] / "result.json").read_text())
    assert f"| mAP@all | {result['map']:.4f} |" in card
    assert f"| mAP@all by chance | {result['map_by_chance']:.4f} |" in card
    for text in (f'adsq_jax.load("hf://{NAME}")', f"| method | {result['method']} |", "| data set, protocol | folder, own |"):
        assert text in card
    assert str(colours[0]) not in card
    assert str(colours[1]) not in card
    assert "\nlicense" not in card
    assert "mAP@" not in hub.model_card(model.description, name=NAME, result=None)
    older = hub.model_card(model.description, name=NAME, result={k: v for k, v in result.items() if k != "map_by_chance"})
    assert f"| mAP@all by chance | about {result['precision_recall']['precision'][-1]:.4f}, " in older
    hostile = {**result, "protocol": "own | <script>\n# x"}
    assert "own &#124; &#60;script&#62;&#92;n# x |" in hub.model_card(model.description, name=NAME, result=hostile)


def test_the_card_names_the_weights_at_the_start(colours):
    """Of a package by its address, of a file by its name, of another run by its hash; no path of this machine is there."""
    model, result = adsq_jax.load(colours[1]), json.loads((colours[1] / "result.json").read_text())
    start = {"source": "/home/me/runs/first", "sha256": "0123456789abcdef", "taken": ["backbone"], "new": []}
    for changes, said in [
        ({}, "none"),
        ({"pretrained": {"source": "pypi:weights"}}, "pypi:weights"),
        ({"pretrained": {"source": "/home/me/resnet50.pth"}}, "resnet50.pth"),
        ({"from": start}, "those of another run, sha256 0123456789ab"),
    ]:
        card = hub.model_card(model.description, name=NAME, result={**result, **changes})
        assert f"| pretrained weights | {said} |" in card
        assert "/home/me" not in card
    result.pop("from")  # as before there was --from
    assert "| pretrained weights | none |" in hub.model_card(model.description, name=NAME, result=result)
    assert "mAP@" not in hub.model_card(model.description, name=NAME, result={**result, "from": 1})


def test_a_card_that_is_there_stays(pushed):
    """Its owner may have changed it; the model is replaced, and the card where that is asked for."""
    server, model = pushed
    put(server, NAME, {"README.md": b"mine", "other.txt": b"stays"})
    model.push_to_hub(f"hf://{NAME}", token="good")
    tree = server.repositories[NAME]["main"]
    assert (tree["README.md"], tree["other.txt"], len(tree)) == (b"mine", b"stays", 4)
    model.push_to_hub(NAME, token="good", replace_card=True, private=True)
    assert server.repositories[NAME]["main"]["README.md"].startswith(b"---\nlibrary_name: adsq_jax\n")
    assert server.private is True


def test_only_two_files_are_downloaded(pushed):
    """Other files of a repository, pickles and Python among them, are never asked for."""
    server, _ = pushed
    tree = {
        **server.repositories[NAME]["main"],
        "pytorch_model.bin": pickle.dumps(print),
        "model/model.py": b"raise SystemExit",
    }
    put(server, NAME, tree)
    server.requests.clear()
    adsq_jax.load(f"hf://{NAME}")
    assert {request.rpartition("/")[2] for request in server.requests} == {"model.json", "weights.safetensors"}
    assert {request.split()[0] for request in server.requests} == {"HEAD", "GET"}


def test_without_a_network_the_cache_is_enough(pushed):
    """What was loaded once is loaded again while the Hub is down; what was not is refused."""
    server, model = pushed
    adsq_jax.load(f"hf://{NAME}")
    server.down = True
    assert adsq_jax.load(f"hf://{NAME}").sha256 == model.sha256


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("hf://somebody/none", ["hf://somebody/none isn't there, or is private", "hf auth login"]),
        ("hf://somebody/gated", ["is gated", "HF_TOKEN"]),
        (f"hf://{NAME}@none", ["no such revision"]),
        ("hf://somebody/empty", ["holds no model of adsq_jax"]),
        ("hf://somebody/pickled", ["holds no model of adsq_jax"]),
        ("hf://somebody/damaged", ["holds no model that can be loaded", "model.json"]),
        ("hf://somebody/long", ["holds no model that can be loaded", "at most 1,048,576"]),
        ("hf://somebody/heavy", ["holds no model that can be loaded", "weights.safetensors was changed"]),
        ("hf://somebody", ["is no address"]),
        ("hf://../..", ["is no address"]),
        ("hf://a/b/c", ["is no address"]),
        (f"hf://{NAME}@", ["is no address"]),
        (f"hf://{NAME}@../x", ["is no address"]),
        (f"hf://{NAME}?x=1", ["is no address"]),
    ],
)
def test_what_is_refused(pushed, address, words):
    """Each is one line; of a file that is too large nothing is downloaded."""
    server, _ = pushed
    model = server.repositories[NAME]["main"]
    server.repositories["somebody/gated"] = "gated"
    put(server, "somebody/empty", {"README.md": b"x"})
    put(server, "somebody/pickled", {"pytorch_model.bin": b"x", "config.json": b"{}"})
    put(server, "somebody/damaged", {**model, "model/model.json": b"{"})
    put(server, "somebody/long", {**model, "model/model.json": b" " * 2**20 + model["model/model.json"]})
    put(server, "somebody/heavy", {**model, "model/weights.safetensors": model["model/weights.safetensors"] + bytes(2**22)})
    server.requests.clear()
    refusal(lambda: adsq_jax.load(address), *words)
    large = {"long": "model.json", "heavy": "weights.safetensors"}.get(address.rpartition("/")[2], "no file")
    assert not [request for request in server.requests if request.startswith("GET") and request.endswith(large)]


def test_weights_of_another_model_are_refused(pushed):
    """What the Hub has is checked as any model is: here a bit of the weights is another one."""
    server, _ = pushed
    tree = server.repositories[NAME]["main"]
    weights = bytearray(tree["model/weights.safetensors"])
    weights[-1] ^= 1
    put(server, NAME, {**tree, "model/weights.safetensors": bytes(weights)})
    refusal(lambda: adsq_jax.load(f"hf://{NAME}"), "weights.safetensors was changed")


def test_an_unreachable_hub(server, colours, monkeypatch):
    """No network is one line, for loading and for pushing."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refusal(lambda: adsq_jax.load(f"hf://{NAME}"), "can't be reached, and isn't in the cache")
    refusal(lambda: adsq_jax.load(colours[1]).push_to_hub(NAME, token="good"), f"hf://{NAME} can't be used")


def test_tokens(server, colours, monkeypatch):
    """None and a wrong one are one line; one in the environment is enough, and none stands in a message."""
    model = adsq_jax.load(colours[1])
    refusal(lambda: model.push_to_hub(NAME), "needs a token that may write", "hf auth login", "HF_TOKEN")
    refusal(lambda: model.push_to_hub(NAME, token="secret"), f"hf://{NAME}", "log in")
    assert server.repositories == {}
    monkeypatch.setenv("HF_TOKEN", "good")
    model.push_to_hub(NAME)
    assert NAME in server.repositories


def test_results_of_another_run(server, colours, tmp_path):
    """A run without a result that is named, or with one of other codes, is refused before anything is sent."""
    model = adsq_jax.load(colours[1])
    refusal(lambda: model.push_to_hub(NAME, run=tmp_path, token="good"), "result.json")
    (tmp_path / "result.json").write_text('{"bits": 1}')
    refusal(lambda: model.push_to_hub(NAME, run=tmp_path, token="good"), "not a result of this model")
    refusal(lambda: model.push_to_hub("birds", token="good"), "user/name")
    assert server.requests == []


def test_a_result_of_another_model(server, colours, tmp_path):
    """A run's result names its model; that of another one is refused, and one of before, which names none, is taken."""
    run = Path(shutil.copytree(colours[1], tmp_path / "run"))
    model, result = adsq_jax.load(run), json.loads((run / "result.json").read_text())
    assert result.pop("model_sha256") == model.sha256
    for other in ("0" * 64, None):
        (run / "result.json").write_text(json.dumps({**result, "model_sha256": other}))
        for given in (None, run):
            refusal(lambda given=given: model.push_to_hub(NAME, run=given, token="good"), "of another model", "command again")
    assert server.requests == []
    (run / "result.json").write_text(json.dumps(result))
    model.push_to_hub(NAME, token="good")
    assert b"| mAP@all |" in server.repositories[NAME]["main"]["README.md"]


def test_without_the_package(monkeypatch):
    """The message names the extra."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refusal(lambda: adsq_jax.load(f"hf://{NAME}"), "needs huggingface_hub", "pip install 'adsq_jax[hub]'")


def test_encode_takes_an_address(pushed, colours, tmp_path):
    """The index names it, and is not asked in the network for it because the index says so."""
    _, model = pushed
    place = str(tmp_path / "index")
    encode.main([f"--workdir=hf://{NAME}", f"--images={colours[0]}", f"--index={place}"])
    with index.open_index(place) as opened:
        assert (opened.manifest.model, opened.manifest.model_sha256) == (f"hf://{NAME}", model.sha256)
        refusal(
            lambda: hits.load_model(opened, workdir=None),
            f"on the Hugging Face Hub; fix: if you trust it, --workdir=hf://{NAME}",
        )
        assert hits.load_model(opened, workdir=f"hf://{NAME}").sha256 == model.sha256


def test_a_clone_is_a_run(pushed, tmp_path):
    """The files of the repository, as git clones them, are loaded from a folder."""
    server, model = pushed
    for name, content in server.repositories[NAME]["main"].items():
        path = Path(tmp_path / "clone" / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert adsq_jax.load(tmp_path / "clone").sha256 == model.sha256
    shutil.rmtree(tmp_path / "clone")
