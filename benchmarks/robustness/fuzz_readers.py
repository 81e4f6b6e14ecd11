"""What the fuzzer tries: each reader of texts and files that strangers may have written, with a maker of its cases."""

import base64
import contextlib
import io
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.robustness.fuzz_cases import (
    FLOATS,
    TEXTS,
    Make,
    as_text,
    changed,
    damaged,
    damaged_of,
    filter_text,
    json_of,
    list_text,
    mat,
    npy,
    npz,
    number_text,
    safetensors_file,
    torch_file,
)

Use = Callable[[bytes, Path], Any]  # of a case, with an empty folder


class Reader(NamedTuple):
    """Something that reads what strangers may have written."""

    make: Make
    use: Use
    close: Callable[[], Any] = lambda: None


def _file(name: str, read: Callable[[Path], Any]) -> Use:
    """Return what reads a case from a file of that name."""

    def use(case: bytes, folder: Path) -> Any:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case)
        return read(path)

    return use


def _text(case: bytes) -> str:
    return case.decode(errors="surrogatepass") if _is_text(case) else case.decode(errors="surrogateescape")


def _is_text(case: bytes) -> bool:
    try:
        case.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def filter_reader() -> Reader:
    """The language of filters, and its translations for the engines."""
    from adsq_jax import index
    from adsq_jax.index import embedded
    from adsq_jax.index.milvus_filters import Translator

    def use(case: bytes, folder: Path) -> Any:
        where = index.parse(_text(case))
        translator = Translator(count=lambda expression: 10, ids=lambda prefix: iter([f"{prefix}a", "b"]))
        return embedded._to_sql(where), translator.translate(where)

    return Reader(filter_text, use)


def filter_search_reader() -> Reader:
    """Filters as the engine of folders applies them."""
    import numpy as np

    from adsq_jax import index

    kept = contextlib.ExitStack()
    opened = kept.enter_context(
        index.create(kept.enter_context(tempfile.TemporaryDirectory(prefix="fuzz")), index.Manifest(8, ""))
    )
    names = [f"/pictures/{k}/{'a' * k}.png" for k in range(50)]
    opened.add([index.Item(name, ("a", "cat")) for name in names], np.zeros((50, 1), np.uint8))
    return Reader(filter_text, lambda case, folder: opened.count(where=index.parse(_text(case))), kept.close)


def list_reader() -> Reader:
    """Lists of pictures with labels."""
    from adsq_jax.data.readers import lists

    return Reader(list_text, _file("list.txt", lambda path: lists.read_one(path, directory=path.parent)))


def npy_reader() -> Reader:
    """Arrays of codes and labels, mapped from a disk."""
    import numpy as np

    from adsq_jax.run import workdir

    return Reader(npy, _file("codes.npy", lambda path: np.asarray(workdir.read_array(path, description="codes")).copy()))


def npz_reader() -> Reader:
    """Weights in an archive of NumPy."""
    from adsq_jax.models import weight_files

    return Reader(npz, _file("weights.npz", lambda path: weight_files.read(str(path))))


def _read_arrays(name: str) -> Use:
    """Return what reads the arrays of a file of that name as `adsq evaluate` does, without a name and by names."""
    from adsq_jax.run import array_files

    def read(path: Path) -> Any:
        from adsq_jax.errors import InputError

        found, refused = [], None
        for place in (f"{path}:codes", f"{path}:labels", f"{path}:group/labels", str(path)):
            try:
                found.append(array_files.read(place, description="codes").copy())
            except InputError as error:
                refused = error
                if "\n" in str(error):
                    raise
        if refused is not None and not found:
            raise refused
        return found

    return _file(name, read)


def array_npz_reader() -> Reader:
    """Codes and labels in an archive of NumPy."""
    return Reader(npz, _read_arrays("codes.npz"))


def mat_reader() -> Reader:
    """Codes and labels in MATLAB's files of version 5, compressed or not; the damage may be inside of what is compressed."""
    return Reader(mat, _read_arrays("codes.mat"))


def text_reader() -> Reader:
    """Codes and labels in text."""
    return Reader(number_text, _read_arrays("codes.csv"))


def hdf5_reader() -> Reader:
    """Codes and labels in HDF5, as h5py and as MATLAB write it."""
    import numpy as np

    contents = []
    with contextlib.suppress(ModuleNotFoundError):
        import h5py

        for options in ({}, {"chunks": (2, 4), "compression": "gzip"}, {"chunks": (4, 4), "fletcher32": True}):
            file = io.BytesIO()
            with h5py.File(file, "w", userblock_size=512 * (len(contents) % 2)) as opened:
                opened.create_dataset("codes", data=np.ones((6, 8), np.float32), **options)
                opened.create_dataset("group/labels", data=np.arange(6.0)[:, None])
                opened["codes"].attrs["MATLAB_class"] = np.bytes_("single")
                opened["link"] = h5py.ExternalLink("/etc/passwd", "/x")
                opened["soft"] = h5py.SoftLink("/soft")
            contents.append(file.getvalue())
    return Reader(damaged_of(contents or [b"\x89HDF\r\n\x1a\n"]), _read_arrays("codes.h5"))


def torch_reader() -> Reader:
    """Weights that torch saved: pickles, which aren't run."""
    from adsq_jax.models import weight_files

    return Reader(torch_file, _file("weights.pth", lambda path: weight_files.read(str(path))))


def safetensors_reader() -> Reader:
    """Weights in .safetensors."""
    from adsq_jax.models import weight_files

    return Reader(safetensors_file, _file("weights.safetensors", lambda path: weight_files.read(str(path))))


def _small_model() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the description of a small model that was never trained, and its arrays."""
    import numpy as np
    import safetensors.numpy

    from adsq_jax.data.preprocessing import Preprocessing
    from adsq_jax.inference import model_files
    from adsq_jax.inference.model import Model
    from adsq_jax.models import network

    arguments = {"backbone": "small_cnn", "width": 2, "options": {}}
    heads = {"features": 4, "mean": [0.5] * 3, "deviation": [0.25] * 3, "head": "tanh"}
    built = network.build("small_cnn", bits=8, width=2, features=4)
    expected = model_files.Expected(built.img_net, image_size=8).arrays(["f"])
    tree: dict[str, Any] = {}
    for name, shape in expected.items():
        *above, leaf = name.split("/")
        below = tree
        for key in above:
            below = below.setdefault(key, {})
        below[leaf] = np.ones(shape.shape, np.float32)
    model = Model.from_networks(
        tree,
        network={**arguments, **heads},
        bits=8,
        dtype="float32",
        preprocessing=Preprocessing(resize=10, image_size=8),
        query_net="ff",
        batch_size=4,
        method="adsq",
    )
    return model.description, safetensors.numpy.load(model._content)


def model_reader() -> Reader:
    """A model's description, with its hash set right."""
    import safetensors.numpy

    from adsq_jax.inference import loading, model_files

    description, arrays = _small_model()
    weights = safetensors.numpy.save(arrays)

    def make(random: random.Random) -> bytes:
        content = changed(random, description)
        if isinstance(content, dict) and random.random() < 0.9:
            with contextlib.suppress(RecursionError):
                content["sha256"] = model_files.identity(content)
        return as_text(content)

    def read(path: Path) -> Any:
        (path.parent / "weights.safetensors").write_bytes(weights)
        return loading.load(path.parents[1])

    return Reader(make, _file("model/model.json", read))


def model_weights_reader() -> Reader:
    """A model's weights, with the hashes set right."""
    import hashlib

    import numpy as np
    import safetensors.numpy

    from adsq_jax.inference import loading, model_files

    description, arrays = _small_model()

    def make(random: random.Random) -> bytes:
        some = dict(arrays)
        name = random.choice(list(some))
        with np.errstate(over="ignore"):
            bad = np.float32(random.choice(FLOATS))
        some[name] = random.choice(
            (some[name] * bad, some[name][:-1], some[name].astype(np.float64), some[name].reshape(-1, 1))
        )
        if random.random() < 0.3:
            some[random.choice(TEXTS[:14]).encode(errors="replace").decode()] = some.pop(name)
        content = safetensors.numpy.save(some)
        return damaged(random, content) if random.random() < 0.5 else content

    def read(path: Path) -> Any:
        about = {**description, "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        about["sha256"] = model_files.identity(about)
        (path.parent / "model.json").write_text(json.dumps(about))
        return loading.load(path.parents[1])

    return Reader(make, _file("model/weights.safetensors", read))


_RESULT = {
    **{"protocol": "own", "split_sha256": "0" * 64, "n_query": 1, "n_train": 2, "n_database": 3, "bits": 8, "seed": 0},
    **{"map_at": "all", "query_net": "sum", "map_by_query_net": {"sum": 0.5, "ff": 0.4}, "seconds": 1.0, "machine": "cpu"},
    **{"validation": 0, "method": "adsq", "config_sha256": "0" * 64, "precision_at": {"1": 0.5, "5": 0.4}},
    "precision_recall": {"recall": [0.5, 1.0], "precision": [0.5, 0.4]},
    **{"map_by_class": {"0": 0.5, "1": 0.25}, "map_mean_of_classes": 0.375, "class_names": ["a", "b"]},
}


def _default_config() -> dict[str, Any]:
    from adsq_jax import config as config_module

    return json.loads(config_module.default().to_json())  # type: ignore[no-any-return]


def result_reader() -> Reader:
    """A run's result, as evaluation and report read it, and the pictures that it names, which aren't there."""
    import numpy as np

    from adsq_jax import evaluate
    from adsq_jax.report import inputs

    config = _default_config()
    config["data"] |= {"name": "folder", "reader": "files", "directory": "/nowhere"}
    rows = {part: np.arange(1) for part in ("query", "database")}
    codes = inputs.Codes(
        {part: np.zeros((1, 1), np.uint8) for part in rows}, {part: np.zeros(1, int) for part in rows}, rows, 8
    )

    def read(path: Path) -> Any:
        with contextlib.suppress(ValueError):
            evaluate._read_result(path.parent)
        result, _ = inputs.read_result(path.parent)
        with contextlib.redirect_stderr(io.StringIO()):
            return inputs.open_images(result, codes, folders=[], remote=False)

    return Reader(json_of({**_RESULT, "config": config}), _file("result.json", read))


def config_reader() -> Reader:
    """The config in a run's folder, compared with another."""
    from adsq_jax.run import workdir

    config = _default_config()
    return Reader(json_of(config), _file("config.json", lambda path: workdir.check(path.parent, config)))


def metrics_reader() -> Reader:
    """A run's metrics, as a resumed run and a report read them."""
    from adsq_jax.report import inputs
    from adsq_jax.run import metrics_log

    lines = [
        {"phase": "img_net", "net": "f", "step": 3, "loss": 0.5},
        {"phase": "label_net", "step": 3, "loss": 0.5},
        {"phase": "validation", "step": 9, "map": 0.5},
        {"phase": "codes", "step": 9, "changed": 0.5},
    ]

    def make(random: random.Random) -> bytes:
        some = [as_text(changed(random, line) if random.random() < 0.5 else line) for line in lines for _ in range(2)]
        content = b"".join(line + b"\n" for line in some)
        return damaged(random, content) if random.random() < 0.5 else content

    def read(path: Path) -> Any:
        (path.parent / "result.json").write_text(json.dumps({**_RESULT, "config": {}}))
        return metrics_log._lines_until(path, 5), inputs.read_result(path.parent)

    return Reader(make, _file("metrics.jsonl", read))


def codes_reader() -> Reader:
    """The manifest of a run's codes, beside files that fit the valid one."""
    import numpy as np

    from adsq_jax.run import codes_folder

    array = np.arange(3, dtype=np.uint8)
    names = [f"{part}_{name}.npy" for part in ("query", "database") for name in ("sum", "labels", "rows")]
    content = {"bits": 8, "bit_order": "little", "files": {name: codes_folder._describe(array) for name in names}}

    def read(path: Path) -> Any:
        for name in names:
            np.save(path.parent / name, array)
        return codes_folder.read(path.parent)

    return Reader(json_of(content), _file("manifest.json", read))


def split_reader() -> Reader:
    """The manifest of a split."""
    from adsq_jax.data import manifest

    content = {
        "split_sha256": "0" * 64,
        "bad_images": [{"row": 3, "reason": "x"}],
        "data": "folder",
        "n_query": 3,
        "names": True,
    }

    def read(path: Path) -> Any:
        theirs = manifest.read(path)
        manifest.check_origin(theirs, path=str(path), data="folder")
        return manifest.check(theirs, "0" * 64, path=path)

    return Reader(json_of(content), _file("manifest.json", read))


def roots_reader() -> Reader:
    """The folders that an index was filled from, and the pictures below them."""
    from types import SimpleNamespace

    from adsq_jax.inference import pictures

    def read(path: Path) -> Any:
        places = pictures.places(SimpleNamespace(location=str(path.parent)), folders=[], remote=False)  # type: ignore[arg-type]
        return [places.find(text) for text in TEXTS]

    return Reader(json_of({"format": 1, "roots": ["/a/", "/b c/"]}), _file(".roots.json", read))


def checksums_reader() -> Reader:
    """The checksums of an index's files."""
    from adsq_jax.errors import InputError
    from adsq_jax.index import checksums

    content = {"format": 1, "version": 3, "items": 5, "files": {"data/a.lance": "3 00000000", "_versions/3.manifest": "1 0"}}

    def read(path: Path) -> Any:
        try:
            stored = checksums.read(path.parent)
            if stored is not None:
                checksums.check_version(stored, version=3, items=5)
                checksums.check_files(path.parent, stored.files, verified={})
            return stored
        except checksums.DamagedError as error:  # which the engine refuses, with the index's name
            raise InputError(str(error)) from error

    return Reader(json_of(content), _file("checksums.json", read))


def table_manifest_reader() -> Reader:
    """The manifests of LanceDB's tables, before LanceDB reads them."""
    import numpy as np

    from adsq_jax import index
    from adsq_jax.index import table_manifests

    with tempfile.TemporaryDirectory(prefix="fuzz") as temporary:
        with index.create(temporary, index.Manifest(8, "")) as opened:
            opened.add([index.Item("/a.png")], np.zeros((1, 1), np.uint8))
        contents = [path.read_bytes() for path in sorted(Path(temporary).rglob("*.manifest"))]

    def read(path: Path) -> Any:
        return table_manifests.check_local(path.parents[1], checked={})

    return Reader(damaged_of(contents), _file("codes.lance/_versions/1.manifest", read))


def index_manifest_reader() -> Reader:
    """The manifest of an index."""
    from adsq_jax import index

    content = index.Manifest(8, "0" * 64, "/run").to_dict()

    def use(case: bytes, folder: Path) -> Any:
        try:
            read = json.loads(case)
        except (ValueError, RecursionError):
            return None  # which the engines refuse
        return index.Manifest.from_dict(read, location=str(folder))

    return Reader(json_of(content), use)


def picture_reader() -> Reader:
    """Pictures of all formats, damaged."""
    import numpy as np
    from PIL import Image

    from adsq_jax.data import images

    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    contents = []
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"):
        for mode in ("RGB", "L", "P") if kind in ("PNG", "TIFF", "GIF") else ("RGB",):
            buffer = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(buffer, kind)
            contents.append(buffer.getvalue())
    return Reader(damaged_of(contents), lambda case, folder: images.decode(case, shorter_side=16))


_PATHS = (
    "/",
    "/start",
    "/upload",
    "/select",
    "/search",
    "/page.js",
    "/file=/etc/passwd",
    "/../x",
    "//",
    "",
    "/\0",
    "*",
    "\udc80",
)
_STATUSES = {200, 400, 403, 404, 405, 408, 411, 413, 503}


def _request(random: random.Random) -> bytes:
    """Return a request as JSON: what the page sends, with changes, or anything."""
    path = random.choice(_PATHS[2:5] if random.random() < 0.7 else _PATHS)
    valid = {"/select": {"id": "/a.png"}, "/search": {"code": "ff0f", "k": 5, "radius": 8, "where": "label=a"}}.get(path, {})
    body = as_text(changed(random, valid) if random.random() < 0.8 else valid)
    body = damaged(random, body) if random.random() < 0.15 else body
    lengths = (str(len(body)), str(len(body)), str(len(body)), "5", "-1", "1e9", "9" * 30, "", "٣", None)
    headers = [["host", random.choice(("127.0.0.1:7860", "127.0.0.1:7860", "evil.example", "[", "", "localhost"))]]
    length = random.choice(lengths)
    headers += [["content-length", length]] if length is not None else []
    headers += [["transfer-encoding", "chunked"]] if random.random() < 0.1 else []
    headers += (
        [["origin", random.choice(("http://127.0.0.1:7860", "null", "http://evil.example"))]] if random.random() < 0.3 else []
    )
    request = {
        "method": random.choice(("POST", "POST", "POST", "GET", "HEAD", "OPTIONS", "PUT", "", "\xe9")),
        "path": path,
        "query": random.choice(("", "name=cat.png", "name=%ff%00", "name", "name=" + "x" * 9_000, "&&==", "name=\x1b")),
        "headers": headers,
        "body": base64.b64encode(body).decode(),
        "pieces": random.choice((1, 1, 2, 7)),
        "leaves": random.random() < 0.1,
    }
    return as_text(request)


async def _ask(application: Any, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Send a request to an ASGI application; return what it answers."""
    body, sent, ended = base64.b64decode(request["body"]), list[dict[str, Any]](), list[bool]()
    size = max(1, -(-len(body) // request["pieces"]))
    pieces = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    messages = [{"type": "http.request", "body": piece, "more_body": piece is not pieces[-1]} for piece in pieces]
    messages = [*messages[:-1], {"type": "http.disconnect"}] if request["leaves"] else messages

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": request["method"],
        "path": request["path"],
        "query_string": request["query"].encode("latin-1"),
        "headers": [(name.encode(), text.encode("utf-8")) for name, text in request["headers"]],
        "state": {"abort": lambda: ended.append(True), "has_ended": lambda: False},
    }
    await application(scope, receive, send)
    starts = [message["status"] for message in sent if message["type"] == "http.response.start"]
    if not (len(starts) == 1 and starts[0] in _STATUSES) and not ended:
        raise RuntimeError(f"answers {starts}")
    return sent


def http_reader() -> Reader:
    """Requests to the demo, as calls of its application: each gets one answer of a known status, or its connection is ended."""
    import asyncio

    import numpy as np

    from adsq_jax import index
    from adsq_jax.demo import server
    from adsq_jax.demo.finder import Query
    from adsq_jax.errors import InputError
    from adsq_jax.inference.hits import Hit

    class Finder:
        """Answers without an index."""

        bits = 12

        def samples(self, count: int) -> dict[str, str]:
            return {}

        def labels(self, count: int) -> list[str]:
            return []

        def thumbnail(self, name: str) -> None:
            return None

        def query(self, name: str, content: bytes) -> Query:
            if not content:
                raise InputError(f"{name} is empty; fix: restore it")
            return Query(name, "data:", np.zeros((1, 2), np.uint8))

        def indexed(self, name: str) -> Query:
            return self.query(name, b"x")

        def hits(self, code: Any, *, k: int, radius: int, where: str) -> tuple[list[Hit], float, int]:
            index.parse(where) if where.strip() else None
            return [Hit(1, 0, "/a.png", ("a",))], 0.1, 1

    def use(case: bytes, folder: Path) -> Any:
        finder: Any = Finder()
        with (
            contextlib.redirect_stderr(io.StringIO()) as errors,
            contextlib.closing(server.Application(finder, hosts={"127.0.0.1", "localhost"})) as application,
        ):
            sent = asyncio.run(_ask(application, json.loads(case)))
        if errors.getvalue().strip():
            raise RuntimeError(errors.getvalue().strip().splitlines()[-1])
        if any(message.get("status") == 400 for message in sent):
            raise InputError(json.loads(sent[1]["body"])["error"])
        return sent

    return Reader(_request, use)


READERS: dict[str, Callable[[], Reader]] = {
    "filter": filter_reader,
    "filter_search": filter_search_reader,
    "list": list_reader,
    "npy": npy_reader,
    "npz": npz_reader,
    "array_npz": array_npz_reader,
    "mat": mat_reader,
    "hdf5": hdf5_reader,
    "text": text_reader,
    "torch": torch_reader,
    "safetensors": safetensors_reader,
    "model": model_reader,
    "model_weights": model_weights_reader,
    "result": result_reader,
    "config": config_reader,
    "metrics": metrics_reader,
    "codes": codes_reader,
    "split": split_reader,
    "roots": roots_reader,
    "checksums": checksums_reader,
    "table_manifest": table_manifest_reader,
    "index_manifest": index_manifest_reader,
    "picture": picture_reader,
    "http": http_reader,
}
