"""Writers of files as torch writes them, opcode by opcode, and checks of what reading them gives."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from adsq_jax.errors import InputError
from adsq_jax.models import weight_files

HERE = Path(__file__).parents[1] / "models" / "weights_data"  # make.py there wrote its files with torch
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03." + b"\x80\x02}."


class Raw(bytes):
    """Opcodes in place of a value."""


def opcodes(value):
    """Return the opcodes of a value, as torch writes them."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, dict):
        return b"}(" + b"".join(opcodes(key) + opcodes(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    return pickle.dumps(value, 2)[2:-1].removesuffix(b"q\x00")


def tensor(key="0", numel=4, shape=(4,), strides=(1,), offset=0, kind=b"FloatStorage"):
    identity = opcodes(("storage", Raw(b"ctorch\n" + kind + b"\n"), key, "cpu", numel))
    arguments = (Raw(identity + b"Q"), offset, shape, strides, False, {})
    return Raw(b"ctorch._utils\n_rebuild_tensor_v2\n" + opcodes(arguments) + b"R")


def zipped(value, storages=None, *, compression=zipfile.ZIP_STORED, order=b"little", more=()):
    """Return a file as torch writes it since 1.6."""
    file = io.BytesIO()
    storages = {"0": np.arange(4, dtype=np.float32).tobytes()} if storages is None else storages
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("top/data.pkl", b"\x80\x02" + opcodes(value) + b".")
        archive.writestr("top/byteorder", order)
        for key, content in storages.items():
            archive.writestr(f"top/data/{key}", content)
        for name, content in more:
            archive.writestr(name, content)
    return file.getvalue()


def legacy(value, storages=None):
    """Return a file as torch wrote it before 1.6, with storages of float32."""
    storages = {"0": np.arange(4, dtype=np.float32).tobytes()} if storages is None else storages
    rest = b"".join(struct.pack("<q", len(content) // 4) + content for content in storages.values())
    return MAGIC + b"\x80\x02" + opcodes(value) + b".\x80\x02" + opcodes(list(storages)) + b"." + rest


both = pytest.mark.parametrize("form", [zipped, legacy])
HUGE = 2**40


def error_of(path):
    with pytest.raises(InputError) as caught:
        weight_files.read(path)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 700
    assert path.removeprefix("pypi:") in text
    return text


def assert_same(arrays, expected):
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name, strict=True)
        assert arrays[name].flags.c_contiguous
        assert arrays[name].flags.owndata
        assert arrays[name].flags.writeable


def outcome(folder, name, content):
    """Return the arrays of a file, or None if it is refused in one line; any other exception fails the test."""
    (folder / name).write_bytes(content)
    try:
        return weight_files.read(str(folder / name)).arrays
    except InputError as error:
        text = str(error)
    assert text.isprintable()
    return None
