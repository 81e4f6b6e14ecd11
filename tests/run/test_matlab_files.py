"""The reader of MATLAB's files, against SciPy on whole files, and alone on damaged ones, which can crash SciPy."""

import io
import zlib

import numpy as np
import pytest
import scipy.io

from adsq_jax.errors import InputError
from adsq_jax.run import matlab_files

DTYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?")


def saved(**arrays):
    """What SciPy writes, uncompressed and compressed."""
    files = []
    for compressed in (False, True):
        file = io.BytesIO()
        scipy.io.savemat(file, arrays, do_compression=compressed)
        files.append(file.getvalue())
    return files


def element(kind, data):
    return kind.to_bytes(4, "little") + len(data).to_bytes(4, "little") + data + bytes(-len(data) % 8)


def compressed(data):
    """An element of compressed bytes, which alone isn't padded."""
    return element(15, data)[: 8 + len(data)]


def matrix(kind, shape, name, numbers, *, flags=0):
    """A matrix made by hand from the format's description; `numbers` is an element."""
    about = element(6, bytes([kind, flags, 0, 0, 0, 0, 0, 0])) + element(5, np.array(shape, "<i4").tobytes())
    return element(14, about + element(1, name.encode()) + numbers)


def file_of(*elements):
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def load(content):
    return {array.name: array.load() for array in matlab_files.arrays(content) if not array.problem}


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_are_those_that_scipy_reads(dtype):
    """Every class of numbers, one to three dimensions, in one file: the dtype, shape and numbers of SciPy's own reader."""
    random = np.random.default_rng(0)
    arrays = {
        name: (random.normal(size=shape) * 3 - (0 if dtype[0] in "u?" else 1))
        .clip(0 if dtype[0] == "u" else None)
        .astype(dtype)
        for name, shape in {"a": (5, 3), "row": (1, 7), "b_3": (2, 3, 4), "one": (1, 1), "x" * 31: (9, 1)}.items()
    }
    for content in saved(**arrays):
        ours, theirs = load(content), scipy.io.loadmat(io.BytesIO(content), mat_dtype=True)
        for name in arrays:
            np.testing.assert_array_equal(ours[name], theirs[name])
            assert ours[name].dtype == theirs[name].dtype == np.dtype(dtype)


def test_small_whole_numbers_in_fewer_bytes():
    """MATLAB stores doubles that are whole numbers as bytes, and a name of up to four letters in its tag."""
    numbers = np.array([[1, -1, 1], [-1, -1, 100]])
    stored = element(1, numbers.T.astype("i1").tobytes())
    content = file_of(matrix(6, (2, 3), "B", stored))
    np.testing.assert_array_equal(load(content)["B"], numbers)
    np.testing.assert_array_equal(scipy.io.loadmat(io.BytesIO(content))["B"], numbers)
    assert load(content)["B"].dtype == np.float64
    np.testing.assert_array_equal(load(file_of(compressed(zlib.compress(content[128:]))))["B"], numbers)
    short = content.replace(element(1, b"B"), (1 | 1 << 16).to_bytes(4, "little") + b"B\0\0\0")
    short = short[:132] + (int.from_bytes(short[132:136], "little") - 8).to_bytes(4, "little") + short[136:]
    np.testing.assert_array_equal(load(short)["B"], numbers)


def test_what_is_not_an_array_of_numbers_is_named():
    """A cell, a struct, text, a sparse and a complex array are said to be that; arrays beside them are read."""
    others = {
        "c": np.array([1, "a"], dtype=object),
        "s": {"a": 1},
        "t": "text",
        "p": scipy.sparse.csc_matrix(np.eye(3)),
        "z": np.eye(2) * 1j,
    }
    for content in saved(**others, a=np.eye(2)):
        problems = {array.name: array.problem for array in matlab_files.arrays(content)}
        expected = {"c": "a cell array", "s": "a struct", "t": "text", "p": "a sparse matrix", "z": "complex", "a": ""}
        assert problems == expected
        np.testing.assert_array_equal(load(content)["a"], np.eye(2))


BYTES = element(1, bytes(6))
PACKED = zlib.compress(matrix(6, (2, 3), "B", BYTES))
DAMAGED = {
    "no file of MATLAB": b"x" * 200,
    "a short file": b"MATLAB 5.0",
    "version 4": b"\0\0\0\0" + bytes(300),
    "big-endian": file_of()[:124] + b"\x01\x00MI" + bytes(8),
    "an unknown element": file_of(element(77, bytes(8))),
    "a length beyond the end": file_of(matrix(6, (2, 3), "B", BYTES))[:-8],
    "an unknown type of numbers": file_of(matrix(6, (2, 3), "B", element(77, bytes(6)))),
    "fewer numbers than the shape says": file_of(matrix(6, (200, 3), "B", BYTES)),
    "a shape of more than memory": file_of(matrix(6, (2**31 - 1, 2**31 - 1), "B", BYTES)),
    "a negative shape": file_of(matrix(6, (-2, -3), "B", BYTES)),
    "one dimension": file_of(matrix(6, (6,), "B", BYTES)),
    "more after the numbers": file_of(matrix(6, (2, 3), "B", BYTES + BYTES)),
    "numbers that the class can't have": file_of(matrix(9, (2, 3), "B", element(1, bytes([255] * 6)))),
    "logical values of 2": file_of(matrix(9, (2, 3), "B", element(2, bytes([2] * 6)), flags=2)),
    "compressed and cut short": file_of(compressed(PACKED[:-12])),
    "compressed, without its checksum": file_of(compressed(PACKED[:-4])),
    "compressed, with another checksum": file_of(compressed(PACKED[:-1] + b"?")),
    "compressed, more than it says": file_of(compressed(zlib.compress(matrix(6, (2, 3), "B", BYTES) + bytes(8)))),
    "compressed, far more than it says": file_of(compressed(zlib.compress(bytes(1 << 24)))),
    "compressed, two GiB and more": file_of(
        compressed(zlib.compress(matrix(6, (2, 3), "B", BYTES)[:4] + b"\xff" * 4 + matrix(6, (2, 3), "B", BYTES)[8:]))
    ),
}


def test_an_array_of_more_than_two_gib_is_not_unpacked():
    """The size that it states is enough."""
    [array] = matlab_files.arrays(DAMAGED["compressed, two GiB and more"])
    with pytest.raises(InputError, match="bytes, expected at most"):
        array.load()


def test_big_endian_numbers():
    """The error says how to save them again."""
    with pytest.raises(InputError, match="it has big-endian numbers; fix: save it again with -v7 on a little-endian machine"):
        matlab_files.arrays(DAMAGED["big-endian"])


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damage_is_an_error(content):
    """Nothing is allocated that the file doesn't hold, and no number is guessed."""
    with pytest.raises((InputError, zlib.error)):
        load(content)
