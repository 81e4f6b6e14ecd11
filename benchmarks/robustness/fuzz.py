"""Feed damaged and hostile texts and files to what reads them, and record what is neither an answer nor a refusal in one line.

    python -m benchmarks.robustness.fuzz [--cases=2000] [--seed=0] [--only=filter,model] [--out=fuzz.json]

Each reader gets cases of its own: valid content with random changes, and content made of the reader's own vocabulary. An answer
and an `InputError` of one printable line are expected, within SECONDS and MEBIBYTES; anything else is a finding, which is
written with the case in base64. Each reader runs in a process of its own, so that a crash is a finding too. The same seed makes
the same cases. The exit status is 1 if there are findings.
"""

import argparse
import base64
import contextlib
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 5.0  # that one case may take
MEBIBYTES = 1_024  # that one case may add to the process's memory
LONGEST = 4_096  # characters of a message, which can name a path as long
_SHOWN = 2_000  # bytes of a case in the report
Case = bytes
Make = Callable[[random.Random], Case]
Use = Callable[[Case, Path], Any]  # content, an empty folder


class Reader(NamedTuple):
    """Something that reads what strangers may have written."""

    make: Make
    use: Use
    close: Callable[[], Any] = lambda: None


class Finding(NamedTuple):
    """A case that is neither answered nor refused as it should be."""

    reader: str
    number: int  # of the case, for the same seed
    what: str
    case: str  # its beginning, in base64


class TooSlow(BaseException):
    """A case takes longer than SECONDS. Not an `Exception`, so that no reader takes it for damage."""


# --- cases ---------------------------------------------------------------------------------------------------------------

_NUMBERS = (0, 1, -1, 2, 7, 8, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400)
_FLOATS = (0.0, -0.0, 0.5, 1e-320, 1e308, 72.5, float("nan"), float("inf"), -float("inf"))
# fmt: off
_TEXTS = (
    "", " ", "0", "x", "\0", "\n", "\x1b[31m", "\x9b", "\u202e", "\udc80", "\xe9", "\U0001d4b3", "..", "~", "~/x", "x" * 5_000,
    "../../etc/passwd", "/etc/passwd", "s3://bucket/x", "gs://bucket/x", "file:///etc/passwd", "http://127.0.0.1/", "<script>",
    "%s%n", "{0}", "ff", "gg", "sum", "query", "database", "adsq", "folder", "lists", "tfds", "all", "None", "true", "nan",
)
# fmt: on


def value(random: random.Random, depth: int = 0) -> Any:
    """Return a JSON value of any kind."""
    kind = random.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return random.choice((None, True, False))
    if kind < 4:
        return random.choice(_NUMBERS if random.random() < 0.6 else _FLOATS)
    if kind < 6:
        return random.choice(_TEXTS)
    size = random.choice((0, 1, 2, 5))
    if kind == 6:
        return {random.choice(_TEXTS): value(random, depth + 1) for _ in range(size)}
    if kind == 7:
        return [value(random, depth + 1) for _ in range(size)]
    nested: Any = 0
    for _ in range(random.choice((50, 900, 3_000))):
        nested = [nested] if random.random() < 0.5 else {"a": nested}
    return nested


def changed(random: random.Random, content: Any) -> Any:
    """Return JSON content with one to four changes: other values, keys and items more or less, at any depth."""
    content = json.loads(json.dumps(content))
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        holders = list(_holders(content))
        if not holders or random.random() < 0.02:
            return value(random)
        holder = random.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        change = random.random()
        if keys and change < 0.7:
            holder[random.choice(keys)] = value(random)
        elif keys and change < 0.85:
            del holder[random.choice(keys)]
        elif isinstance(holder, dict):
            holder[random.choice(_TEXTS)] = value(random)
        else:
            holder.insert(random.randrange(len(holder) + 1), value(random))
    return content


def _holders(content: Any, depth: int = 0) -> Iterator[Any]:
    if isinstance(content, dict | list) and depth < 10:
        yield content
        for below in content.values() if isinstance(content, dict) else content:
            yield from _holders(below, depth + 1)


def as_text(content: Any) -> bytes:
    """Return JSON as bytes, however deep it is."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        return json.dumps(content).encode()
    finally:
        sys.setrecursionlimit(limit)


def json_of(content: Any) -> Make:
    """Return a maker of JSON texts like a valid one, a few of them damaged as bytes too."""

    def make(random: random.Random) -> bytes:
        text = as_text(changed(random, content))
        return damaged(random, text) if random.random() < 0.15 else text

    return make


def damaged(random: random.Random, content: bytes) -> bytes:
    """Return bytes with one to eight changes: flipped, replaced, cut out, repeated, cut short, with numbers of any size."""
    array = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        at = random.randrange(len(array) + 1)
        length = min(len(array) - at, random.choice((1, 2, 4, 8, 64, 4_096)))
        change = random.randrange(7)
        if change == 0 and length:
            array[at] ^= 1 << random.randrange(8)
        elif change == 1:
            array[at : at + length] = random.randbytes(length)
        elif change == 2:
            array[at : at + length] = b""
        elif change == 3:
            array[at:at] = array[at : at + length] * random.choice((1, 2, 50))
        elif change == 4:
            del array[at:]
        elif change == 5:
            size = random.choice((1, 2, 4, 8))
            number = random.choice(_NUMBERS[:-1]) % 2 ** (8 * size)
            array[at : at + size] = number.to_bytes(size, random.choice(("little", "big")))
        else:
            array[at:at] = random.choice(_TEXTS).encode(errors="surrogatepass")
    return bytes(array)


def damaged_of(contents: list[bytes]) -> Make:
    """Return a maker of damaged copies of valid contents."""
    return lambda random: damaged(random, random.choice(contents))


# fmt: off
_FILTER = (
    "label", "path", "=", "!=", "(", ")", "not", "and", "or", '"', "'", "*", "**", "cat", "%", "_", "\\", "'; drop", "\u2019",
    "\x1b[", "label=a", "path=*a*", "label!=b", "not not", "((", "))", "\0", "\udc80", "\U0001d4b3", "\t", " ", " ", " ",
)
# fmt: on


def filter_text(random: random.Random) -> bytes:
    """Return a filter: words in any order, a valid one, one that is deep, or one that is long."""
    kind = random.random()
    if kind < 0.5:
        text = " ".join(random.choice(_FILTER) for _ in range(random.choice((1, 3, 8, 30))))
    elif kind < 0.9:
        text = _valid_filter(random, random.choice((1, 3, 8)))
    elif kind < 0.95:
        count = random.choice((10, 20, 21, 49, 51, 500))
        text = random.choice(("not " * count, "(" * count, "not (" * count)) + "label=a" + ")" * random.choice((0, count))
    else:
        unit = random.choice(("*", "*a", "label=a or ", "path=*x* and ", "_", "%"))
        text = f"{unit * (random.choice((2_000, 4_090, 9_900)) // len(unit))}label=a"
        text = text if unit.endswith(" ") else f"path={text}"
    return text.encode(errors="surrogatepass")


def _valid_filter(random: random.Random, depth: int) -> str:
    kind = random.randrange(5 if depth else 2)
    if kind < 2:
        word = random.choice(("a", "cat", "*.png", "*/drafts/*", '"polar bear"', "'it\"s'", "100%", "a_b", "\xe9", "\\d+", "."))
        return f"{random.choice(('label', 'path'))}{random.choice(('=', '!='))}{word}"
    if kind == 2:
        return f"not {_valid_filter(random, depth - 1)}"
    parts = [_valid_filter(random, depth - 1) for _ in range(random.choice((2, 2, 3)))]
    return f"({random.choice((' and ', ' or ')).join(parts)})"


def list_text(random: random.Random) -> bytes:
    """Return a list of pictures with labels, damaged or not."""
    classes, sign = random.choice((1, 2, 3, 21, 300)), random.choice((b" ", b"\t", b"  ", b","))
    names = [random.choice(_TEXTS).encode(errors="surrogatepass") or b"a/b.png" for _ in range(random.choice((1, 3, 40)))]
    names = [b"%b%d.png" % (name, number) if random.random() < 0.8 else name for number, name in enumerate(names)]
    rows = [sign.join([name, *(random.choice((b"0", b"1")) for _ in range(classes))]) for name in names]
    content = random.choice((b"\n", b"\r\n", b"\r")).join(rows)
    start = random.choice((b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"))
    return start + (damaged(random, content) if random.random() < 0.6 else content)


def npy(random: random.Random) -> bytes:
    """Return an .npy file whose header claims anything."""
    import numpy as np

    if random.random() < 0.3:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(random.choice(((), (0,), (3, 2), (7,))), random.choice(("u1", "<i8", ">f4", "?", "<U4"))))
        return damaged(random, buffer.getvalue())
    kind = random.choice(
        ("|u1", "<f4", "<f8", "|O", "|V8", "<U9", "|S0", "<M8[s]", "<c16", "x", "", "[('a', '<f4')]", "|u1" * 99)
    )
    shapes = (
        "(3,)",
        "()",
        "(0,)",
        "(-1,)",
        f"({2**62}, {2**62})",
        f"({10**30},)",
        "(3.5,)",
        "3",
        "None",
        "(3,)" * 50,
        "(1,) * 9",
    )
    order = random.choice(("False", "True", "7", "None", "'a'"))
    header = f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {random.choice(shapes)}, }}"
    if random.random() < 0.2:
        header = random.choice(
            ("(" * 300, "{}", "[]", "None", "__import__('os')", "1+1", "{'a': 1", header + "\0", "-" * 9_000)
        )
    text = header.encode() + b" " * random.choice((0, 40)) + b"\n"
    version = random.choice((b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x00\x00", b"\xff\xff"))
    size = len(text) if random.random() < 0.8 else random.choice(_NUMBERS[:6])
    length = (size % 2**16).to_bytes(2, "little") if version == b"\x01\x00" else (size % 2**32).to_bytes(4, "little")
    return b"\x93NUMPY" + version + length + text + random.randbytes(random.choice((0, 3, 12, 100)))


# fmt: off
_OPCODES = (
    b"N", b"\x88", b"\x89", b")", b"]", b"}", b"(", b"t", b"e", b"u", b"a", b"s", b"b", b"R", b"Q", b"0", b"2", b"\x85",
    b"\x86", b"\x87", b"\x94", b"K\x01", b"M\x00\x01", b"J\xff\xff\xff\x7f", b"q\x00", b"q\x01", b"h\x00", b"h\x01",
    b"r\x00\x00\x00\x01", b"j\x00\x00\x00\x00", b"X\x01\x00\x00\x00a",
    b"\x8c\x01b", b"U\x01c", b"ctorch\nFloatStorage\n", b"cos\nsystem\n", b"\x93",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"X\xff\xff\xff\x7fa", b"\x8a\xff", b"\x80\x02",
    b"G\x7f\xf8\x00\x00\x00\x00\x00\x00", b".", b"I1\n", b"L1L\n", b"V\\ud800\n", b"P1\n", b"\x95" + b"\xff" * 8,
)
# fmt: on
_TENSOR = (  # of four numbers, as torch writes it
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04"
    b"tQK\x00(K\x04t(K\x01t\x89}tR"
)
_STATE = b"\x80\x02}(X\x01\x00\x00\x00w" + _TENSOR + b"X\x01\x00\x00\x00v" + _TENSOR + b"u."


def torch_file(random: random.Random) -> bytes:
    """Return a file as torch.save writes it, with a pickle that is damaged, made of any opcodes, or that doubles itself."""
    import zipfile

    kind = random.random()
    if kind < 0.4:
        pickle = damaged(random, _STATE) if kind < 0.35 else _STATE
    elif kind < 0.8:
        pickle = b"\x80\x02" + b"".join(random.choice(_OPCODES) for _ in range(random.choice((3, 10, 60, 400)))) + b"."
    else:  # each step twice the last: a list, a tuple, or a text in a dict
        step = random.choice(
            (b"q\x00h\x00\x86", b"q\x00]h\x00ah\x00a", b"q\x00}X\x01\x00\x00\x00ah\x00s", b"q\x00h\x00h\x00h\x00\x87")
        )
        pickle = b"\x80\x02" + random.choice((b"]", b")", b"K\x01")) + step * random.choice((10, 40, 20_000)) + b"."
    if random.random() < 0.3:
        magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
        return magic + pickle + b"\x80\x02](X\x01\x00\x00\x000e." + b"\x04" + bytes(7 + 16)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        archive.writestr("top/data.pkl", pickle)
        archive.writestr("top/byteorder", random.choice((b"little", b"little", b"big", b"x")))
        archive.writestr("top/data/0", bytes(random.choice((16, 16, 15, 0))))
    return damaged(random, file.getvalue()) if random.random() < 0.2 else file.getvalue()


def safetensors_file(random: random.Random) -> bytes:
    """Return a .safetensors file whose header claims anything."""
    header = {
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "I8", "shape": [4], "data_offsets": [16, 20]},
        "__metadata__": {"format": "np"},
    }
    dtypes = ("F32", "F64", "BF16", "F8_E4M3", "BOOL", "I64", "U64", "", "X")
    if random.random() < 0.4:
        header["a"]["dtype"] = random.choice(dtypes)  # type: ignore[index]
    text = as_text(changed(random, header))
    length = len(text) if random.random() < 0.8 else random.choice(_NUMBERS[:-1]) % 2**64
    content = length.to_bytes(8, "little") + text + bytes(random.choice((20, 20, 19, 0)))
    return damaged(random, content) if random.random() < 0.1 else content


# --- readers -------------------------------------------------------------------------------------------------------------


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
    import zipfile

    from adsq_jax.models import weight_files

    def make(random: random.Random) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            for name in random.sample(("a.npy", "b.npy", "c", "../d.npy", "\x1b.npy"), random.choice((1, 2))):
                archive.writestr(name, npy(random))
        return damaged(random, file.getvalue()) if random.random() < 0.3 else file.getvalue()

    return Reader(make, _file("weights.npz", lambda path: weight_files.read(str(path))))


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
    heads = {"features": 4, "mean": [0.5] * 3, "deviation": [0.25] * 3, "bounded": True}
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

    from adsq_jax.inference import model as models

    description, arrays = _small_model()
    weights = safetensors.numpy.save(arrays)

    def make(random: random.Random) -> bytes:
        content = changed(random, description)
        if isinstance(content, dict) and random.random() < 0.9:
            with contextlib.suppress(RecursionError):
                content["sha256"] = models._identity(content)
        return as_text(content)

    def read(path: Path) -> Any:
        (path.parent / "weights.safetensors").write_bytes(weights)
        return models.load(path.parents[1])

    return Reader(make, _file("model/model.json", read))


def model_weights_reader() -> Reader:
    """A model's weights, with the hashes set right."""
    import hashlib

    import numpy as np
    import safetensors.numpy

    from adsq_jax.inference import model as models

    description, arrays = _small_model()

    def make(random: random.Random) -> bytes:
        some = dict(arrays)
        name = random.choice(list(some))
        with np.errstate(over="ignore"):
            bad = np.float32(random.choice(_FLOATS))
        some[name] = random.choice(
            (some[name] * bad, some[name][:-1], some[name].astype(np.float64), some[name].reshape(-1, 1))
        )
        if random.random() < 0.3:
            some[random.choice(_TEXTS[:14]).encode(errors="replace").decode()] = some.pop(name)
        content = safetensors.numpy.save(some)
        return damaged(random, content) if random.random() < 0.5 else content

    def read(path: Path) -> Any:
        about = {**description, "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        about["sha256"] = models._identity(about)
        (path.parent / "model.json").write_text(json.dumps(about))
        return models.load(path.parents[1])

    return Reader(make, _file("model/weights.safetensors", read))


_RESULT = {
    **{"protocol": "own", "split_sha256": "0" * 64, "n_query": 1, "n_train": 2, "n_database": 3, "bits": 8, "seed": 0},
    **{"map_at": "all", "query_net": "sum", "map_by_query_net": {"sum": 0.5, "ff": 0.4}, "seconds": 1.0, "machine": "cpu"},
    **{"validation": 0, "method": "adsq", "config_sha256": "0" * 64, "precision_at": {"1": 0.5, "5": 0.4}},
    "precision_recall": {"recall": [0.5, 1.0], "precision": [0.5, 0.4]},
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
        return [places.find(text) for text in _TEXTS]

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

    async def ask(request: dict[str, Any]) -> list[dict[str, Any]]:
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
        with contextlib.closing(server.Application(Finder(), hosts={"127.0.0.1", "localhost"})) as application:  # type: ignore[arg-type]
            await application(scope, receive, send)
        starts = [message["status"] for message in sent if message["type"] == "http.response.start"]
        if not (len(starts) == 1 and starts[0] in _STATUSES) and not ended:
            raise RuntimeError(f"answers {starts}")
        return sent

    def use(case: bytes, folder: Path) -> Any:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            sent = asyncio.run(ask(json.loads(case)))
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
    "index_manifest": index_manifest_reader,
    "picture": picture_reader,
    "http": http_reader,
}


# --- judging -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` inside when the time is over; libraries that don't return to Python are only measured."""

    def stop(*_: object) -> None:
        raise TooSlow

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _memory(name: str) -> int:
    """Return a figure of this process's memory in MiB: VmRSS now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith(f"{name}:")), 0)


def judge(use: Use, case: bytes, folder: Path) -> tuple[str, str]:
    """Give a case to a reader.

    Returns:
      "answer" or "refusal" and its line; or "finding" and what is wrong.
    """
    from adsq_jax.errors import InputError

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = _memory("VmRSS"), time.monotonic()
    outcome, text = "answer", ""
    try:
        with _limited(SECONDS):
            use(case, folder)
    except InputError as error:
        outcome, text = "refusal", str(error)
        if not text.strip() or len(text) > LONGEST:
            outcome, text = "finding", f"a refusal of {len(text):,} characters"
        elif "\n" in text:
            outcome, text = "finding", f"a refusal of several lines: {text!r:.300}"
    except TooSlow:
        outcome, text = "finding", f"more than {SECONDS:.0f} s"
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        outcome, text = "finding", f"{type(error).__name__}: {error!s:.200} ({frame.filename}, line {frame.lineno})"
    seconds, mebibytes = time.monotonic() - began, _memory("VmHWM") - before
    if seconds > SECONDS and outcome != "finding":
        outcome, text = "finding", f"{seconds:.1f} s"
    if mebibytes > MEBIBYTES and outcome != "finding":
        outcome, text = "finding", f"{mebibytes:,} MiB"
    return outcome, text


def try_reader(
    name: str, *, cases: int, seed: int, on_case: Callable[[int, bytes], None] | None = None
) -> tuple[Counter[str], list[Finding]]:
    """Give a reader its cases, in this process.

    Args:
      name: one of READERS.
      cases: how many.
      seed: of the cases.
      on_case: called before each with its number and content.

    Returns:
      How often it answered, refused, or neither; and the findings.
    """
    reader, counts, findings = READERS[name](), Counter[str](), list[Finding]()
    with contextlib.ExitStack() as stack:
        stack.callback(reader.close)
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        for number in range(cases):
            case = reader.make(random.Random(f"{name} {seed} {number}"))
            if on_case is not None:
                on_case(number, case)
            folder = Path(temporary) / str(number)
            folder.mkdir()
            outcome, text = judge(reader.use, case, folder)
            counts[outcome] += 1
            if outcome == "finding":
                findings.append(Finding(name, number, text, base64.b64encode(case[:_SHOWN]).decode()))
    return counts, findings


def _in_child(name: str, cases: int, seed: int, report: Any) -> None:
    def on_case(number: int, case: bytes) -> None:
        report.send(("case", number, case[:_SHOWN]))

    report.send(("end", *try_reader(name, cases=cases, seed=seed, on_case=on_case)))


def try_apart(name: str, *, cases: int, seed: int) -> tuple[Counter[str], list[Finding]]:
    """Give a reader its cases in a process of its own; a process that dies is a finding, and the rest isn't tried."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_in_child, args=(name, cases, seed, theirs))
    process.start()
    theirs.close()
    number, case = -1, b""
    try:
        while True:
            kind, *content = ours.recv()
            if kind == "end":
                return content[0], content[1]
            number, case = content
    except EOFError:
        process.join()
        what = f"the process died (exit code {process.exitcode})"
        return Counter(finding=1), [Finding(name, number, what, base64.b64encode(case).decode())]
    finally:
        process.join()


def main() -> int:
    """Read the flags, try all readers, and print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2_000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help=f"some of {','.join(READERS)}")
    parser.add_argument("--out", type=Path, default=None, help="a JSON file for the findings")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(READERS)
    found, counts = list[Finding](), dict[str, Counter[str]]()
    for name in names:
        began = time.monotonic()
        counts[name], some = try_apart(name, cases=given.cases, seed=given.seed)
        found += some
        row = ", ".join(f"{counts[name][kind]:,} {kind}s" for kind in ("answer", "refusal", "finding"))
        print(f"{name}: {row}, {time.monotonic() - began:.0f} s", flush=True)
        for what, count in Counter(finding.what for finding in some).most_common(5):
            print(f"    {count} x {what}", flush=True)
    if given.out is not None:
        content = {"seed": given.seed, "cases": given.cases, "counts": counts, "findings": [one._asdict() for one in found]}
        given.out.write_text(json.dumps(content, indent=2) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
