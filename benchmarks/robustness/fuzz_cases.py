"""Cases for the fuzzer: valid contents with random changes, and contents made of a reader's own vocabulary."""

import io
import json
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

Make = Callable[[random.Random], bytes]  # a case

NUMBERS = (0, 1, -1, 2, 7, 8, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400)
FLOATS = (0.0, -0.0, 0.5, 1e-320, 1e308, 72.5, float("nan"), float("inf"), -float("inf"))
# fmt: off
TEXTS = (
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
        return random.choice(NUMBERS if random.random() < 0.6 else FLOATS)
    if kind < 6:
        return random.choice(TEXTS)
    size = random.choice((0, 1, 2, 5))
    if kind == 6:
        return {random.choice(TEXTS): value(random, depth + 1) for _ in range(size)}
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
            holder[random.choice(TEXTS)] = value(random)
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
            number = random.choice(NUMBERS[:-1]) % 2 ** (8 * size)
            array[at : at + size] = number.to_bytes(size, random.choice(("little", "big")))
        else:
            array[at:at] = random.choice(TEXTS).encode(errors="surrogatepass")
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
    names = [random.choice(TEXTS).encode(errors="surrogatepass") or b"a/b.png" for _ in range(random.choice((1, 3, 40)))]
    names = [b"%b%d.png" % (name, number) if random.random() < 0.8 else name for number, name in enumerate(names)]
    words = random.choice(((b"0", b"1"), (b"0", b"1"), (b"0", b"7", b"999"), (b"cat", b'"a, b"', b"\xff", b"-1", b"")))
    count = classes if len(words) == 2 else random.choice((1, 1, 3))
    rows = [sign.join([name, *(random.choice(words) for _ in range(count))]) for name in names]
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
    size = len(text) if random.random() < 0.8 else random.choice(NUMBERS[:6])
    length = (size % 2**16).to_bytes(2, "little") if version == b"\x01\x00" else (size % 2**32).to_bytes(4, "little")
    return b"\x93NUMPY" + version + length + text + random.randbytes(random.choice((0, 3, 12, 100)))


def npz(random: random.Random) -> bytes:
    """Return an archive of one or two .npy files whose headers claim anything, damaged or not."""
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name in random.sample(("codes.npy", "b.npy", "c", "../d.npy", "\x1b.npy"), random.choice((1, 2))):
            archive.writestr(name, npy(random))
    return damaged(random, file.getvalue()) if random.random() < 0.3 else file.getvalue()


def mat(random: random.Random) -> bytes:
    """Return a file of MATLAB, version 5, as SciPy writes it, damaged before or after what is in it is compressed."""
    import zlib

    import numpy as np
    import scipy.io

    values = {
        "codes": np.ones((3, 4), random.choice(("f8", "f4", "i1", "u2", "i8", "?"))),
        "labels": random.choice((np.arange(3)[:, None], "text", {"a": 1}, np.array([1, "a"], object), 1j * np.ones((2, 2)))),
        "K": 4,
    }
    some = {name: values[name] for name in random.sample(list(values), random.choice((1, 2, 3)))}
    file = io.BytesIO()
    scipy.io.savemat(file, some)
    content = file.getvalue()
    kind = random.random()
    if kind < 0.5:  # as MATLAB itself does it: each array by itself
        body = content[128:] if random.random() < 0.1 else damaged(random, content[128:])
        packed = zlib.compress(body)
        content = content[:128] + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    return content if 0.4 < kind < 0.55 else damaged(random, content)


def number_text(random: random.Random) -> bytes:
    """Return rows of numbers as text, with lines that are none, damaged or not."""
    width, sign = random.choice((1, 2, 16)), random.choice((b" ", b",", b";", b"\t", b", "))
    numbers = (
        b"1",
        b"-1",
        b"0",
        b"0.5",
        b"-1e-3",
        b"1e400",
        b"nan",
        b"inf",
        b"9" * 30,
        b"0x1",
        b"1_0",
        b"1,5",
        b"",
        b"\xd9\xa3",
    )
    few = numbers[: random.choice((3, 5, len(numbers)))]
    rows = [sign.join(random.choice(few) for _ in range(width)) for _ in range(random.choice((1, 3, 30)))]
    if random.random() < 0.3:
        rows.insert(random.randrange(len(rows) + 1), random.choice((b"# a", b"label", b"", b"0,1,2,3", b"%% a", b'"1"')))
    content = random.choice((b"\n", b"\r\n", b"\r")).join(rows)
    start = random.choice((b"", b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"))
    return start + (damaged(random, content) if random.random() < 0.3 else content)


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
    length = len(text) if random.random() < 0.8 else random.choice(NUMBERS[:-1]) % 2**64
    content = length.to_bytes(8, "little") + text + bytes(random.choice((20, 20, 19, 0)))
    return damaged(random, content) if random.random() < 0.1 else content
